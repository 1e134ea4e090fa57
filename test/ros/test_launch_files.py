"""Other ways to launch: depth and TF, a namespace, a respawn, a recording, and mistakes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ros_processes import START_S, Ros

POINT = "geometry_msgs/msg/PointStamped"
GROUNDING = "videogem_ros/msg/ActionGrounding"
LAUNCH = ("ros2", "launch", "videogem_ros")


@pytest.fixture
def ros(workspace: dict[str, str], tmp_path: Path) -> Iterator[Ros]:
    """A graph for one test."""
    with contextlib.closing(Ros(workspace, tmp_path)) as ros:
        yield ros


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Launch argument: every action counts as present, as a random model's scores mean nothing."""
    path = tmp_path / "config.yaml"
    path.write_text("/**: {ros__parameters: {presence: {threshold: 0.0}}}")
    return f"config:={path}"


def test_depth_gives_a_point_in_space_and_in_the_target_frame(
    ros: Ros, model: list[str], config: str, bags: Path
) -> None:
    camera = "/camera/color/image_raw"
    launched = ros.start(
        *(*LAUNCH, "ground.launch.py", *model, config, "namespace:=/robot"),
        f"image:={camera}",
        "depth:=/camera/aligned_depth/image_raw",
        *("camera_info:=/camera/color/camera_info", "action:=/command"),
    )
    player = ros.play(bags / "snow_rgbd_zstd")
    launched.wait_for("is ready")
    node = "/robot/videogem"
    ros.until(lambda: "active" in ros.call("ros2", "lifecycle", "get", node, check=False))
    ros.command("play with the dog", "/command")
    with_position = ("--filter", "m.has_position")
    grounding = ros.echo(f"{node}/grounding", GROUNDING, *with_position)
    optical = grounding["header"]["frame_id"]
    assert grounding["position_frame"] == optical
    assert grounding["depth_samples"] > 0
    assert grounding["position"]["z"] > 0
    point = ros.echo(f"{node}/point", POINT)
    assert point["header"]["frame_id"] == optical
    markers = ros.echo(f"{node}/markers", "visualization_msgs/msg/MarkerArray")
    assert markers["markers"]

    # The optical frame looks along the base's x: z forward becomes x forward.
    ros.call("ros2", "param", "set", node, "target_frame", "base")
    missing = ros.echo(f"{node}/grounding", GROUNDING, "--filter", "m.status == 4")
    assert "base" in missing["reason"]
    assert missing["position_frame"] == optical
    rotation = ("--qx", "-0.5", "--qy", "0.5", "--qz", "-0.5", "--qw", "0.5", "--z", "1.5")
    frames = ("--frame-id", "base", "--child-frame-id", optical)
    ros.start("ros2", "run", "tf2_ros", "static_transform_publisher", *rotation, *frames)
    in_base = ("--filter", "m.position_frame == 'base'")
    moved = ros.echo(f"{node}/grounding", GROUNDING, *in_base)
    assert moved["position"]["x"] > 0.2
    assert ros.echo(f"{node}/point", POINT)["header"]["frame_id"] == "base"
    player.end()
    assert launched.interrupt() == 0
    assert launched.members() == []


def test_compressed_images_are_grounded(ros: Ros, model: list[str], tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("/**: {ros__parameters: {image_transport: compressed}}")
    launched = ros.start(
        *LAUNCH, "ground.launch.py", *model, f"config:={config}", "image:=/camera/image_raw"
    )
    camera = Path(__file__).with_name("still_camera.py")
    ros.start(sys.executable, camera, "/camera/image_raw/compressed")
    launched.wait_for("is ready")
    ros.until(lambda: ros.state() == "active")
    ros.command("open the drawer")
    grounding = ros.echo("/videogem/grounding", GROUNDING, "--filter", "m.frames_used > 0")
    assert grounding["header"]["frame_id"] == "still_camera"
    assert (grounding["image_height"], grounding["image_width"]) == (48, 64)
    assert 0 <= grounding["fused_point"]["x"] < 64


def test_a_node_that_dies_comes_back_active(ros: Ros, model: list[str]) -> None:
    launched = ros.start(*LAUNCH, "ground.launch.py", *model, "respawn:=true")
    pid = launched.wait_for(r"process started with pid \[(\d+)\]")[1]
    launched.wait_for("is ready")
    ros.until(lambda: ros.state() == "active")
    os.kill(int(pid), signal.SIGKILL)
    mark = len(launched.output)
    launched.wait_for("process started", start=mark)
    launched.wait_for("is ready", start=mark)
    ros.until(lambda: ros.state() == "active")
    assert launched.interrupt() == 0


def test_without_autostart_it_waits_unconfigured(ros: Ros, model: list[str]) -> None:
    launched = ros.start(*LAUNCH, "ground.launch.py", *model, "autostart:=false")
    ros.until(lambda: ros.state() == "unconfigured", START_S)
    ros.set_state("configure")
    assert ros.state() == "inactive"
    ros.set_state("shutdown")
    launched.interrupt()


def test_a_recording_becomes_a_recording_of_groundings(
    ros: Ros, model: list[str], bags: Path, tmp_path: Path
) -> None:
    out = tmp_path / "grounded"
    ros.call(
        *(*LAUNCH, "evaluate.launch.py", *model, f"bag:={bags / 'snow_raw_mcap'}", f"out:={out}"),
        *("image:=/camera/image_raw", "text:=play with the dog"),
        timeout_s=START_S,
    )
    told = yaml.safe_load((out / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    counts = {
        topic["topic_metadata"]["name"]: topic["message_count"]
        for topic in told["topics_with_message_count"]
    }
    assert counts["/videogem/grounding"] > 10
    assert counts["/videogem/heatmap"] > 10
    assert counts["/videogem/overlay/compressed"] > 10


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["venv:=/nowhere/venv"], "/nowhere/venv/bin/python is no Python that runs"),
        (["python:=/bin/false"], "/bin/false is no Python that runs"),
        (["autostart:=perhaps"], "expected to be true or false, got 'perhaps'"),
    ],
)
def test_launch_explains_an_unsuitable_argument(
    ros: Ros, arguments: list[str], complaint: str
) -> None:
    printed = ros.call(*LAUNCH, "ground.launch.py", *arguments, check=False)
    assert complaint in printed


def test_launch_refuses_a_python_of_another_version(ros: Ros, tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 3.7\n")
    other.chmod(0o755)
    printed = ros.call(*LAUNCH, "ground.launch.py", f"python:={other}", check=False)
    assert f"{other} is Python 3.7, but this ROS is built for Python 3." in printed


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("max_rate_hz:=-1.0", "max_rate_hz"),
        ("weighting:=heavy", "weighting"),
        ("fusion_weights:=[0.5, 0.5, 0.5]", "fusion_weights"),
        ("autostart:=1", "autostart: expected true or false, got 1"),
    ],
)
def test_the_node_refuses_to_start_with_an_unsuitable_parameter(
    ros: Ros, setting: str, complaint: str
) -> None:
    process = ros.start(*node_command(ros), "-p", setting)
    assert process.wait(START_S) == 1
    assert complaint in process.output
    assert "Traceback" not in process.output


def test_an_unknown_parameter_is_said(ros: Ros) -> None:
    process = ros.start(*node_command(ros), "-p", "max_rate:=1.0")
    process.wait_for("unknown parameter max_rate is ignored")
    process.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_node_cleanly(ros: Ros, number: signal.Signals) -> None:
    process = ros.start(*node_command(ros))
    ros.until(lambda: ros.state() == "unconfigured", START_S)
    assert process.interrupt(number=number) == 0
    assert "Traceback" not in process.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_node_that_is_still_importing(ros: Ros, number: signal.Signals) -> None:
    interpreter, *rest = node_command(ros)
    process = ros.start(interpreter, "-X", "importtime", *rest)
    process.wait_for(r"\| +numpy$")  # torch comes later
    assert process.interrupt(number=number) == 0
    assert not re.search(r"\| +torch$", process.output, re.MULTILINE)
    assert "Traceback" not in process.output


def test_a_signal_while_the_model_loads_leaves_no_error_behind(ros: Ros) -> None:
    parameters = {"autostart": "true", "backbone": "viclip:B-16", "weights": "random:0"}
    given = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    process = ros.start(*node_command(ros), *given)
    ros.until(lambda: ros.state() == "configuring", START_S)
    assert process.interrupt() == 0
    assert "ERROR" not in process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_that_waits_for_its_weights_ends_at_the_first_signal(
    ros: Ros, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hub:  # which never answers
        monkeypatch.setitem(ros.env, "HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        monkeypatch.setitem(ros.env, "HF_HUB_ETAG_TIMEOUT", "90")  # not given up before
        given = [*("-p", "autostart:=true"), *("-p", "backbone:=openclip:ViT-B-16")]
        process = ros.start(*node_command(ros), *given)
        hub.settimeout(START_S)
        connection, _ = hub.accept()
        with connection:
            assert process.interrupt(number=number) == 0
    assert "Traceback" not in process.output
    assert "ERROR" not in process.output


def test_an_error_in_a_callback_is_logged_counted_and_survived(ros: Ros, model: list[str]) -> None:
    source = (
        "import sys\n"
        "from videogem_ros.adapters.ros.node import main\n"
        "from videogem_ros.live.node import GroundingNode\n"
        "GroundingNode.on_action = lambda *_: 1 / 0\n"
        "main(sys.argv)\n"
    )
    parameters = [*model[1:], "autostart:=true"]
    given = ["--ros-args", *(word for setting in parameters for word in ("-p", setting))]
    node = ros.start(sys.executable, "-c", source, *given)
    node.wait_for("is ready")
    for _ in range(2):
        ros.command("open the drawer")
    node.wait_for("callback failed: ZeroDivisionError: division by zero")

    def count() -> str:
        (status,) = ros.echo("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")["status"]
        return {pair["key"]: pair["value"] for pair in status["values"]}.get("callback failed", "")

    ros.until(lambda: count() == "2")
    assert ros.state() == "active"
    assert node.interrupt() == 0
    assert node.output.count("ZeroDivisionError") == 1  # in the log, once an episode


def test_a_shutdown_while_the_model_loads_is_no_error(ros: Ros) -> None:
    source = (
        "import rclpy\n"
        "from videogem_ros.adapters.ros.node import VideoGemNode\n"
        "rclpy.init(); node = VideoGemNode(); rclpy.shutdown()\n"
        "node.bring_up(); node.close()\n"
    )
    ros.call(sys.executable, "-c", source, timeout_s=START_S)


def test_an_interrupt_ends_the_waiting_example_cleanly(ros: Ros) -> None:
    example = ros.start(sys.executable, installed(ros, "pick_point"))
    ros.until(lambda: "/pick_point" in ros.call("ros2", "node", "list"))
    assert example.interrupt() == 0
    assert "Traceback" not in example.output


def node_command(ros: Ros) -> list[str]:
    return [sys.executable, installed(ros, "ground_node"), "--ros-args"]


def installed(ros: Ros, executable: str) -> str:
    shown = subprocess.run(
        ["ros2", "pkg", "prefix", "videogem_ros"],
        env=ros.env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return str(Path(shown.stdout.strip()) / "lib" / "videogem_ros" / executable)

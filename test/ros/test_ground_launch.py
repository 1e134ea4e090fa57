"""The launched node with a recording's images and the commands of ros2."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from ros_processes import GROUNDING, START_S, Process, Ros

FOUND, NOT_PRESENT = 1, 2
WIDTH, HEIGHT = 320, 240  # of the recording


@pytest.fixture(scope="module")
def player(ros: Ros, bags: Path) -> Process:
    """A camera: a recording that plays in a loop."""
    return ros.play(bags / "snow_raw_mcap")


@pytest.fixture(scope="module")
def ground(ros: Ros, model: list[str], player: Process) -> Process:
    """The node, launched and active, on that camera."""
    launched = ros.start(
        "ros2", "launch", "videogem_ros", "ground.launch.py", *model, "image:=/camera/image_raw"
    )
    ros.until(lambda: ros.state() == "active", START_S)
    return launched


def grounded(ros: Ros, *options: object) -> dict:
    """The next grounding of an image."""
    return ros.echo(*GROUNDING, "--filter", f"m.status in ({FOUND}, {NOT_PRESENT})", *options)


def test_autostart_brings_it_up_and_a_command_is_grounded(ros: Ros, ground: Process) -> None:
    ros.command("play with the dog")
    message = grounded(ros)
    assert message["action"] == "play with the dog"
    assert (message["verb"], message["object"]) == ("play", "dog")
    assert message["header"]["frame_id"]
    assert (message["image_width"], message["image_height"]) == (WIDTH, HEIGHT)
    assert message["window_start"] == message["window_end"] == message["header"]["stamp"]
    assert 0 <= message["fused_point"]["x"] < WIDTH
    assert 0 <= message["fused_point"]["y"] < HEIGHT
    assert np.isclose(sum(message["prompt_probabilities"]), 1.0, atol=1e-4)
    assert len(message["layer_weights_verb"]) == 8
    assert message["command_id"] > 0
    assert message["backbone"].startswith("openclip:")
    assert message["compute_time"]["nanosec"] > 0


def test_heatmap_overlay_and_pixel_have_the_source_header(ros: Ros, ground: Process) -> None:
    frame_id = grounded(ros)["header"]["frame_id"]
    heatmap = ros.echo("/videogem/heatmap", "sensor_msgs/msg/Image", "--no-arr")
    assert (heatmap["encoding"], heatmap["step"]) == ("32FC1", 4 * WIDTH)
    overlay = ros.echo("/videogem/overlay", "sensor_msgs/msg/Image", "--no-arr")
    assert (overlay["encoding"], overlay["step"]) == ("bgr8", 3 * WIDTH)
    for image in (heatmap, overlay):
        assert (image["height"], image["width"]) == (HEIGHT, WIDTH)
        assert image["header"]["frame_id"] == frame_id
    kind = "sensor_msgs/msg/CompressedImage"
    assert ros.echo("/videogem/overlay/compressed", kind, "--no-arr")["format"] == "jpeg"
    ros.call("ros2", "param", "set", "/videogem", "presence.threshold", "0.0")
    pixel = ros.echo("/videogem/point_px", "geometry_msgs/msg/PointStamped")
    assert 0 <= pixel["point"]["x"] < WIDTH
    assert pixel["point"]["z"] == 0


def test_several_actions_stand_at_once(ros: Ros, ground: Process) -> None:
    ros.command("play with the dog\nthrow the snowball")
    second = ros.echo(*GROUNDING, "--filter", "m.action_index == 1")
    assert second["action"] == "throw the snowball"
    heatmap = ros.echo("/videogem/action_2/heatmap", "sensor_msgs/msg/Image", "--no-arr")
    assert heatmap["encoding"] == "32FC1"


def test_an_empty_command_stops_it(ros: Ros, ground: Process) -> None:
    ros.command("")
    listener = ros.start("ros2", "topic", "echo", "--once", "/videogem/heatmap",
                         "sensor_msgs/msg/Image", "--no-arr")  # fmt: skip
    with pytest.raises(Exception, match="timed out"):
        listener.wait(4.0)
    listener.end()


def test_a_latched_command_from_before_activation_arrives_once(ros: Ros, ground: Process) -> None:
    ros.set_state("deactivate")
    latch = ros.start(
        *("ros2", "topic", "pub", "--once", "-w", "0", "--keep-alive", "1000"),
        *("--qos-durability", "transient_local", "--qos-reliability", "reliable"),
        *("/action", "std_msgs/msg/String", "{data: throw the latched ball}"),
    )
    latch.wait_for("publishing #1")
    ros.set_state("activate")
    first = grounded(ros, "--filter", "'latched' in m.action")
    # A volatile publisher is heard beside it, and what it says is one command.
    ros.command("open the box")
    second = ros.echo(*GROUNDING, "--filter", "'box' in m.action")
    assert second["command_id"] == first["command_id"] + 1
    latch.end()


def test_a_parameter_changes_live(ros: Ros, ground: Process) -> None:
    ros.command("play with the dog")
    before = grounded(ros)
    printed = ros.call("ros2", "param", "set", "/videogem", "weighting", "uniform")
    assert "Set parameter successful" in printed
    assert len(set(before["layer_weights_verb"])) > 1
    uniform = ros.echo(*GROUNDING, "--filter", "min(m.layer_weights_verb) == 1.0")
    assert set(uniform["layer_weights_verb"]) == {1.0}
    ros.call("ros2", "param", "set", "/videogem", "weighting", "static+dynamic")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("weighting", "heavy", "expected one of"),
        ("presence.threshold", "1.5", "1.5"),
        ("max_rate_hz", "-1", "max_rate_hz"),
        ("max_rate_hz", "fast", "expected a number"),
        ("backbone", "openclip:ViT-L-14", "as long as the node is configured"),
        ("fusion_weights", "[0.5, 0.5, 0.5]", "fusion_weights"),
    ],
)
def test_an_unsuitable_parameter_is_refused_with_the_reason(
    ros: Ros, ground: Process, name: str, value: str, reason: str
) -> None:
    printed = ros.call("ros2", "param", "set", "/videogem", name, value, check=False)
    assert "Set parameter successful" not in printed
    assert reason in printed


def test_a_whole_number_will_do_for_a_double(ros: Ros, ground: Process) -> None:
    printed = ros.call("ros2", "param", "set", "/videogem", "max_rate_hz", "20")
    assert "Set parameter successful" in printed
    described = ros.call("ros2", "param", "describe", "/videogem", "max_rate_hz")
    assert "maximum rate of grounded windows" in described


def test_the_service_answers_and_leaves_the_command_alone(ros: Ros, ground: Process) -> None:
    ros.command("play with the dog")
    before = grounded(ros, "--filter", "'dog' in m.action")["command_id"]
    kind = "videogem_ros/srv/GroundAction"
    request = "{action: throw the snowball, timeout: {sec: 10}}"
    printed = ros.call("ros2", "service", "call", "/videogem/ground", kind, request)
    assert "action='throw the snowball'" in printed
    after = grounded(ros)
    assert (after["action"], after["command_id"]) == ("play with the dog", before)
    refused = ros.call("ros2", "service", "call", "/videogem/ground", kind, "{action: '?!'}")
    assert "success=False" in refused
    assert "reason=''" not in refused


def test_incompatible_qos_is_reported_in_log_and_diagnostics(ros: Ros, ground: Process) -> None:
    mark = len(ground.output)
    unreliable = ros.start(
        *("ros2", "topic", "pub", "--qos-reliability", "best_effort"),
        *("--qos-durability", "volatile", "/action", "std_msgs/msg/String", "{data: wave}"),
    )
    ground.wait_for("(?i)action.*RELIABILITY", 20.0, start=mark)
    unreliable.end()
    latched = ros.start(
        *("ros2", "topic", "echo", "--qos-durability", "transient_local"),
        *("--qos-reliability", "reliable", *GROUNDING),
    )
    ground.wait_for("(?i)grounding.*DURABILITY", 20.0, start=mark)
    latched.end()
    shown = json.dumps(ros.echo("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray"))
    assert "RELIABILITY" in shown


def test_bad_images_are_counted_and_survived(ros: Ros, ground: Process) -> None:
    mark = len(ground.output)
    for encoding, data in (("nonsense", "[1, 2, 3]"), ("rgb8", "[1, 2, 3]"), ("rgb8", "[]")):
        image = f"{{encoding: {encoding}, height: 2, width: 2, step: 6, data: {data}}}"
        # More than once: the first best-effort message of a publisher is easily lost.
        sent = ("-r", "10", "-t", "10", "/camera/image_raw", "sensor_msgs/msg/Image", image)
        ros.call("ros2", "topic", "pub", *sent)
    ground.wait_for("image refused: .*nonsense", 10.0, start=mark)
    status = ros.echo("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")["status"][0]
    counts = {pair["key"]: pair["value"] for pair in status["values"]}
    assert int(counts["image refused"]) >= 3
    assert grounded(ros)


def test_a_transition_that_the_state_does_not_allow_is_survived(ros: Ros, ground: Process) -> None:
    mark = len(ground.output)
    configure = "{transition: {id: 1}}"
    kind = "lifecycle_msgs/srv/ChangeState"
    asking = ros.start("ros2", "service", "call", "/videogem/change_state", kind, configure)
    ground.wait_for("(?i)transition", 10.0, start=mark)
    asking.end()
    assert ros.state() == "active"
    assert grounded(ros)


def test_the_lifecycle_goes_down_and_up_again(ros: Ros, ground: Process) -> None:
    ros.set_state("deactivate")
    assert ros.state() == "inactive"
    info = ros.call("ros2", "node", "info", "/videogem")
    subscribers = info.partition("Subscribers:")[2].partition("Publishers:")[0]
    assert "/camera/image_raw" not in subscribers
    ros.set_state("cleanup")
    assert ros.state() == "unconfigured"
    printed = ros.call("ros2", "param", "set", "/videogem", "window.frames", "1")
    assert "Set parameter successful" in printed
    ros.set_state("configure")
    ros.set_state("activate")
    ros.command("play with the dog")
    assert grounded(ros)["action"] == "play with the dog"


def test_a_failing_configuration_says_why_and_can_be_mended(ros: Ros, ground: Process) -> None:
    ros.set_state("deactivate")
    ros.set_state("cleanup")
    mark = len(ground.output)
    weights = ros.call("ros2", "param", "get", "/videogem", "weights").split()[-1]
    ros.call("ros2", "param", "set", "/videogem", "weights", "/nowhere/weights.pt")
    printed = ros.call("ros2", "lifecycle", "set", "/videogem", "configure", check=False)
    assert "Transitioning failed" in printed
    ground.wait_for("/nowhere/weights.pt", 5.0, start=mark)
    assert ros.state() == "unconfigured"
    ros.call("ros2", "param", "set", "/videogem", "weights", weights)
    ros.set_state("configure")
    ros.set_state("activate")


def test_the_example_prints_a_target(ros: Ros, ground: Process, player: Process) -> None:
    player.end()
    ros.start(sys.executable, Path(__file__).with_name("still_camera.py"), "/camera/image_raw")
    ros.call("ros2", "param", "set", "/videogem", "presence.threshold", "0.0")
    ros.command("play with the dog")
    remap = ("--ros-args", "-r", "grounding:=/videogem/grounding")
    example = ros.start("ros2", "run", "videogem_ros", "pick_point", *remap)
    assert example.wait_for(r"grasp target of 'play with the dog': \(.*\) px", 60.0)
    assert example.wait(10.0) == 0


def test_sigint_ends_everything_cleanly(ros: Ros, ground: Process) -> None:
    assert ground.interrupt(30.0) == 0, ground.output
    assert ground.members() == []
    assert "process has finished cleanly" in ground.output
    assert "Traceback" not in ground.output

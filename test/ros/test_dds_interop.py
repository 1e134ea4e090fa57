"""The node without ROS among real ROS 2 processes: each sees the other as one of its own."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ros_processes import GROUNDING, Process, Ros

pytest.importorskip("cyclonedds", reason="the DDS binding is not installed")

from videogem_ros.adapters.dds.wire import Wire
from videogem_ros.live.topics import outputs
from videogem_ros.live.types import typestore

FOUND, NOT_PRESENT = 1, 2
CAMERA = "/camera/image_raw"
WIDTH, HEIGHT = 320, 240  # of the recording


def start(ros: Ros, command: str, *arguments: object) -> Process:
    return ros.start(sys.executable, "-m", "videogem_ros", command, *arguments)


@pytest.fixture(scope="module")
def node(ros: Ros, tiny_clip_config: Path) -> Process:
    model = ("--backbone", f"openclip:{tiny_clip_config}", "--weights", "random:0")
    threshold = ("-p", "presence.threshold:=0.0")
    node = start(ros, "node", *model, *threshold, "--remap", f"image:={CAMERA}")
    node.wait_for("listens")
    return node


@pytest.fixture(scope="module")
def camera(ros: Ros, bags: Path, node: Process) -> Iterator[Process]:
    player = ros.play(bags / "snow_raw_mcap")
    yield player
    player.end()


def endpoints(ros: Ros, topic: str) -> list[dict[str, str]]:
    """What ``ros2 topic info -v`` tells of each endpoint of a topic."""
    printed = ros.call("ros2", "topic", "info", "-v", "--no-daemon", topic)
    blocks = re.split(r"^(?=Node name:)", printed, flags=re.MULTILINE)[1:]
    pairs = (re.findall(r"^ *([\w ()]+): (.+)$", block, re.MULTILINE) for block in blocks)
    return [dict(found) for found in pairs]


def test_it_is_a_node_with_topics_of_known_types(ros: Ros, node: Process) -> None:
    listed = ros.until(
        lambda: "/videogem" in (text := ros.call("ros2", "node", "list", "--no-daemon")) and text
    )
    assert listed.splitlines().count("/videogem") == 1
    topics = ros.call("ros2", "topic", "list", "-t", "--no-daemon").splitlines()
    for topic, kind in outputs(max_actions=1).items():
        absolute = topic if topic.startswith("/") else f"/videogem/{topic}"
        assert f"{absolute} [{kind}]" in topics
    assert f"{CAMERA} [sensor_msgs/msg/Image]" in topics


@pytest.mark.parametrize(
    ("topic", "kind", "role", "reliability", "depth"),
    [
        ("/videogem/heatmap", "sensor_msgs/msg/Image", "PUBLISHER", "RELIABLE", 5),
        ("/videogem/grounding", GROUNDING[1], "PUBLISHER", "RELIABLE", 5),
        (CAMERA, "sensor_msgs/msg/Image", "SUBSCRIPTION", "BEST_EFFORT", 5),
        ("/action", "std_msgs/msg/String", "SUBSCRIPTION", "RELIABLE", 10),
    ],
)
def test_its_endpoints_are_told_with_node_type_hash_and_qos(
    ros: Ros, node: Process, *, topic: str, kind: str, role: str, reliability: str, depth: int
) -> None:
    package, folder, name = kind.split("/")
    prefixes = ros.env["AMENT_PREFIX_PATH"].split(":")
    shares = (Path(prefix) / "share" / package / folder / f"{name}.json" for prefix in prefixes)
    hashes = json.loads(next(filter(Path.exists, shares)).read_text())["type_hashes"]
    expected = next(item["hash_string"] for item in hashes if item["type_name"] == kind)
    assert Wire(typestore()).user_data(kind) == f"typehash={expected};"

    (told,) = (item for item in endpoints(ros, topic) if item["Node name"] == "videogem")
    assert told["Topic type"] == kind
    assert told["Topic type hash"] == expected
    assert told["Endpoint type"] == role
    assert told["Reliability"] == reliability
    assert told["History (Depth)"] == f"KEEP_LAST ({depth})"
    assert told["Durability"] == "VOLATILE"


def test_a_recording_of_ros_and_a_command_of_ros_are_grounded(
    ros: Ros, node: Process, camera: Process
) -> None:
    ros.command("play with the dog")
    message = ros.echo(*GROUNDING, "--filter", f"m.status in ({FOUND}, {NOT_PRESENT})")
    assert (message["verb"], message["object"]) == ("play", "dog")
    assert (message["image_width"], message["image_height"]) == (WIDTH, HEIGHT)
    pixel = ros.echo("/videogem/point_px", "geometry_msgs/msg/PointStamped")
    assert 0 <= pixel["point"]["x"] < WIDTH
    heatmap = ros.echo("/videogem/heatmap", "sensor_msgs/msg/Image", "--no-arr")
    assert (heatmap["encoding"], heatmap["step"]) == ("32FC1", 4 * WIDTH)
    status = ros.echo("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")["status"][0]
    assert status["name"].startswith("videogem")


def test_a_latched_command_of_ros_is_obeyed_and_nobody_is_warned(
    ros: Ros, node: Process, camera: Process
) -> None:
    latched = ("--qos-durability", "transient_local", "--qos-reliability", "reliable")
    ros.publish("/action", "std_msgs/msg/String", "{data: throw the ball}", *latched)
    node.wait_for("command.*: throw the ball", 20)
    printed = ros.call(
        "ros2", "topic", "pub", "--once", "/action", "std_msgs/msg/String", "{data: sit}"
    )
    assert "incompatible" not in printed
    node.wait_for("command.*: sit", 20)


def test_a_message_of_ros_that_is_cut_short_is_counted(ros: Ros, node: Process) -> None:
    source = (
        "import rclpy, time\n"
        "from sensor_msgs.msg import Image\n"
        "from rclpy.serialization import serialize_message\n"
        "rclpy.init(); node = rclpy.create_node('broken')\n"
        f"camera = node.create_publisher(Image, '{CAMERA}', 5)\n"
        "while not camera.get_subscription_count(): time.sleep(0.05)\n"
        "cut = serialize_message(Image(data=bytes(300)))[:40]\n"
        # Several, as the node may hear of the camera later than the camera of the node.
        "for _ in range(20): camera.publish(cut); time.sleep(0.1)\n"
    )
    ros.call("python3", "-c", source)
    node.wait_for(f"messages on {CAMERA}: they cannot be deserialized", 20)
    assert node.wait_for("deserialized")


def test_qos_that_does_not_match_is_told_on_both_sides(ros: Ros, node: Process) -> None:
    ros_side = ros.start(
        *("ros2", "topic", "pub", "--rate", "5", "--qos-reliability", "best_effort"),
        *("/action", "std_msgs/msg/String", "{data: stay}"),
    )
    node.wait_for("QoS of /action.*reliability", 20)
    ros_side.wait_for("(?i)incompatible", 20)
    ros_side.end()


def test_play_is_heard_by_ros_and_echo_hears_ros(ros: Ros, node: Process, bags: Path) -> None:
    remaps = ("--remap", f"{CAMERA}:=/played")
    player = start(ros, "play", bags / "snow_raw_mcap", "--loop", *remaps)
    image = ros.echo("/played", "sensor_msgs/msg/Image", "--no-arr")
    assert (image["width"], image["height"]) == (WIDTH, HEIGHT)
    assert player.interrupt() == 0

    talker = ros.start(
        *("ros2", "topic", "pub", "--rate", "5", "/chat", "std_msgs/msg/String"), "{data: hello}"
    )
    echo = start(ros, "echo", "/chat", "--once")
    assert echo.wait(30) == 0
    assert yaml.safe_load(echo.output.partition("---")[0]) == {"data": "hello"}
    talker.end()


def test_it_leaves_the_graph_when_it_ends(ros: Ros, node: Process, camera: Process) -> None:
    assert node.interrupt() == 0
    ros.until(lambda: "/videogem" not in ros.call("ros2", "node", "list", "--no-daemon"))

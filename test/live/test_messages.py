from __future__ import annotations

import cv2
import numpy as np
import pytest
from example_groundings import frame_of, grounding_of
from live_graph import TYPES

from videogem_ros.adapters.bag.results import action_namespace
from videogem_ros.live.depth import Position
from videogem_ros.live.health import Level
from videogem_ros.live.messages import Answer, Circumstances, MessageBuilder, Status, _Marker
from videogem_ros.live.topics import action_topic, outputs
from videogem_ros.live.types import typestore
from videogem_ros.render import PALETTE

STORE = typestore()
BUILD = MessageBuilder(lambda name, /, **fields: STORE.types[name](**fields))
FRAME = frame_of((48, 64), stamp_ns=5 * 10**9 + 7)
FOUND = Answer(
    Status.FOUND,
    grounding=grounding_of(FRAME),
    action=grounding_of(FRAME).action,
    position=Position((0.1, 0.2, 1.5), "camera_optical_frame", 0.01, 80),
)


def sent(message: object, name: str) -> object:
    """As it arrives."""
    return STORE.deserialize_cdr(STORE.serialize_cdr(message, name), name)


@pytest.mark.parametrize(
    ("constants", "name"),
    [
        (Status, "videogem_ros/msg/ActionGrounding"),
        (Level, "diagnostic_msgs/msg/DiagnosticStatus"),
        (_Marker, "visualization_msgs/msg/Marker"),
    ],
)
def test_constants_are_those_of_the_interface(constants: type[Status], name: str):
    defined = STORE.types[name]
    assert {item.name: int(item) for item in constants} == {
        item.name: getattr(defined, item.name) for item in constants
    }


def test_every_status_of_the_interface_is_known():
    definition = vars(STORE.types["videogem_ros/msg/ActionGrounding"])
    assert {name for name in definition if name.isupper()} == {item.name for item in Status}


def test_a_grounding_survives_the_wire():
    about = Circumstances(FRAME.stamp_ns, FRAME.frame_id, 6 * 10**9, 3, 0.25, "openclip:ViT-B-16")
    message = BUILD.grounding(FOUND, about)
    received = sent(message, "videogem_ros/msg/ActionGrounding")
    assert received.header.stamp.nanosec == 7
    assert received.latency.nanosec == 10**9 - 7
    assert received.compute_time.nanosec == 250_000_000
    assert received.position_spread == pytest.approx(0.01)
    assert received.depth_samples == 80
    assert received.layer_weights_verb.tolist() == [1.0] * 8
    assert received.prompt_probabilities.tolist() == pytest.approx([1 / 3] * 3)


def test_an_answer_without_grounding_is_empty_but_for_status_reason_and_command():
    about = Circumstances(FRAME.stamp_ns, "camera", FRAME.stamp_ns, 2, text="fly")
    message = sent(
        BUILD.grounding(Answer(Status.NOT_UNDERSTOOD, "no words"), about),
        "videogem_ros/msg/ActionGrounding",
    )
    assert (message.status, message.reason, message.action) == (8, "no words", "fly")
    assert (message.image_width, message.frames_used, message.has_position) == (0, 0, False)
    assert message.layer_weights_verb.size == 0
    assert message.window_end == message.header.stamp


@pytest.mark.parametrize("behind_ns", [-1, -(10**9), 0, 10**9, 2**62])
def test_a_duration_has_nanoseconds_of_one_second_and_fits(behind_ns: int):
    about = Circumstances(2**62, "camera", 2**62 + behind_ns)
    latency = BUILD.grounding(Answer(Status.ERROR), Circumstances(5, "", 5 + behind_ns)).latency
    assert 0 <= latency.nanosec < 10**9
    assert -(2**31) <= latency.sec < 2**31
    if abs(behind_ns) < 2**31:
        assert latency.sec * 10**9 + latency.nanosec == behind_ns
    assert about.now_ns == 2**62 + behind_ns


def test_a_compressed_overlay_has_the_pictures_colours():
    red = np.full((48, 64, 3), (250, 10, 30), np.uint8)
    message = BUILD.overlay_compressed(FOUND.grounding, red, 95)
    bgr = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
    assert bgr.mean(axis=(0, 1))[::-1] == pytest.approx((250, 10, 30), abs=4)


def test_the_smallest_heatmap_has_a_pixel():
    message = BUILD.heatmap(FOUND.grounding, 0.001)
    assert (message.height, message.width) == (1, 1)


def test_markers_have_the_colours_of_the_overlays():
    answers = [
        Answer(Status.FOUND, index=index, grounding=FOUND.grounding, position=FOUND.position)
        for index in range(2)
    ]
    _, *markers = BUILD.markers(answers).markers
    for marker, colour in zip(markers[::2], PALETTE):
        shown = (marker.color.r, marker.color.g, marker.color.b)
        assert shown == pytest.approx(np.divide(colour, 255))


def test_markers_without_positions_only_clear():
    array = sent(BUILD.markers(()), "visualization_msgs/msg/MarkerArray")
    assert [marker.action for marker in array.markers] == [_Marker.DELETEALL]


def test_a_label_is_above_its_sphere_in_camera_and_robot_frames():
    robot = Position((1.0, 2.0, 3.0), "base_link", 0.1, 80)
    for position, above in ((FOUND.position, (0, -0.04, 0)), (robot, (0, 0, 0.2))):
        answer = Answer(Status.FOUND, grounding=FOUND.grounding, position=position)
        _, sphere, label = BUILD.markers((answer,)).markers
        at, over = (np.array([p.x, p.y, p.z]) for p in (sphere.pose.position, label.pose.position))
        assert over - at == pytest.approx(above)
        assert sphere.header.frame_id == position.frame_id


def test_diagnostics_are_one_status():
    message = BUILD.diagnostics(
        5, level=Level.STALE, name="n", message="m", hardware_id="h", values={"a": "1", "b": ""}
    )
    (status,) = sent(message, "diagnostic_msgs/msg/DiagnosticArray").status
    assert (status.level, status.name, status.message) == (3, "n", "m")
    assert [(item.key, item.value) for item in status.values] == [("a", "1"), ("b", "")]


def test_recordings_and_nodes_name_an_actions_topics_alike():
    assert action_topic("heatmap", 0) == "heatmap"
    assert action_topic("heatmap", 1) == "action_2/heatmap"
    for index in range(3):
        topic = f"/videogem/{action_topic('heatmap', index)}"
        assert topic == f"{action_namespace(index)}/heatmap"


def test_outputs_lists_every_topic_of_every_action():
    assert set(outputs(1)) < set(outputs(2)) < set(TYPES)
    assert outputs(2)["action_2/overlay/compressed"] == "sensor_msgs/msg/CompressedImage"
    assert "action_3/heatmap" not in outputs(2)
    for name in set(outputs(2).values()):
        assert name in STORE.types

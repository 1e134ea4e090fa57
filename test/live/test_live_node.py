from __future__ import annotations

import functools
import gc
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from cpu_recorder import CpuRecorder
from live_graph import PATIENCE_S, START_NS, Gate, Graph, header, image

from videogem_ros.core import Encoder, Grounder, acceleration, hardware
from videogem_ros.core.backbones import Backbone
from videogem_ros.datatypes import Grounding
from videogem_ros.encodings import frame_from_message
from videogem_ros.errors import InvalidValueError, VideoGemError, WeightsError
from videogem_ros.live.health import Level
from videogem_ros.live.messages import Status
from videogem_ros.live.node import GroundingNode, GroundOutcome, State
from videogem_ros.live.parameters import Parameters
from videogem_ros.live.types import typestore
from videogem_ros.session import Session

MakeNode = Callable[..., GroundingNode]
COMMAND = "pick up the cup"


def stamp_s(message: Any) -> float:
    """Seconds after the start."""
    stamp = message.header.stamp
    return (stamp.sec * 10**9 + stamp.nanosec - START_NS) / 1e9


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    return thread, results


def finish(thread: threading.Thread) -> None:
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def eventually(is_so: Callable[[], bool]) -> None:
    """Asks again and again; for what comes with time alone."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def expected_groundings(backbone: Backbone, message: Any, text: str = COMMAND) -> list[Grounding]:
    session = Session(Grounder(backbone))
    session.push(frame_from_message(message))
    session.set_action(text)
    return session.ground()


# Images and commands in, groundings out


def test_an_image_and_a_command_make_a_grounding(
    make_node: MakeNode, graph: Graph, tiny_image_backbone: Backbone
):
    node = make_node()
    node.on_action(COMMAND)
    message = image(0.0)
    graph.now += 3 * 10**8
    node.on_image(message)
    (grounding,) = graph.wait("grounding")
    (expected,) = expected_groundings(tiny_image_backbone, message)
    assert grounding.header == message.header
    assert grounding.action == COMMAND
    assert (grounding.verb, grounding.object) == ("pick up", "cup")
    assert (grounding.command_id, grounding.action_index) == (1, 0)
    assert grounding.status == Status.FOUND
    assert grounding.reason == ""
    assert (grounding.image_height, grounding.image_width) == (48, 64)
    assert grounding.frames_used == 1
    for name in ("fused", "verb", "object", "action"):
        point, wanted = getattr(grounding, f"{name}_point"), expected.points[name]
        assert (point.x, point.y) == pytest.approx((wanted.x, wanted.y), abs=1e-3)
        assert point.similarity == pytest.approx(wanted.similarity, abs=1e-4)
    assert grounding.score == pytest.approx(expected.score, abs=1e-5)
    assert grounding.agreement == pytest.approx(expected.agreement, abs=1e-4)
    assert grounding.layer_weights_object == pytest.approx(expected.layer_weights[1], abs=1e-4)
    assert grounding.prompt_probabilities.sum() == pytest.approx(1)
    assert grounding.latency.nanosec == 3 * 10**8
    assert grounding.compute_time.sec == 0
    assert grounding.compute_time.nanosec > 0
    assert not grounding.has_position


def test_every_output_carries_the_header_of_the_grounded_image(
    make_node: MakeNode, graph: Graph, tiny_image_backbone: Backbone
):
    node = make_node()
    node.on_action(COMMAND)
    smooth = np.linspace(0, 200, 48 * 64 * 3).astype(np.uint8)  # JPEG spoils noise
    message = image(1.25, frame_id="left_optical", data=smooth)
    node.on_image(message)
    graph.wait("overlay/compressed")
    (expected,) = expected_groundings(tiny_image_backbone, message)
    (heatmap,), (overlay,) = graph.published["heatmap"], graph.published["overlay"]
    (jpeg,), (point,) = graph.published["overlay/compressed"], graph.published["point_px"]
    for published in (heatmap, overlay, jpeg, point):
        assert published.header == message.header
    assert (heatmap.encoding, heatmap.height, heatmap.width) == ("32FC1", 48, 64)
    values = heatmap.data.view("<f4").reshape(48, 64)
    np.testing.assert_allclose(values, expected.heatmap.to_image(), atol=1e-3)
    assert (overlay.encoding, overlay.height, overlay.width) == ("bgr8", 48, 64)
    decoded = cv2.imdecode(jpeg.data, cv2.IMREAD_COLOR)
    assert np.abs(decoded - overlay.data.reshape(48, 64, 3).astype(float)).mean() < 10
    assert (point.point.x, point.point.y) == pytest.approx((expected.point.x, expected.point.y))
    assert point.point.z == 0


def test_a_heatmap_may_be_smaller(make_node: MakeNode, graph: Graph):
    node = make_node(heatmap__scale=0.5)
    node.on_action(COMMAND)
    node.on_image(image())
    (heatmap,) = graph.wait("heatmap")
    assert (heatmap.height, heatmap.width, heatmap.step) == (24, 32, 128)


@pytest.mark.parametrize(
    ("parameters", "topics"),
    [
        ({}, {"image", "depth", "camera_info"}),
        ({"image_transport": "compressed"}, {"image/compressed", "depth", "camera_info"}),
        ({"depth__use": "never"}, {"image"}),
    ],
)
def test_parameters_choose_the_sensor_topics(
    make_node: MakeNode, parameters: dict[str, str], topics: set[str]
):
    assert make_node(active=False, **parameters).sensor_handlers.keys() == topics


def test_compressed_images_are_images(make_node: MakeNode, graph: Graph):
    node = make_node()
    node.on_action(COMMAND)
    _, png = cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))
    compressed = typestore().types["sensor_msgs/msg/CompressedImage"]
    node.on_compressed(compressed(header(START_NS), "bgr8; png compressed bgr8", png.reshape(-1)))
    assert graph.wait("grounding")[0].image_width == 64


def test_a_video_backbone_gets_its_window(make_node: MakeNode, graph: Graph):
    node = make_node(backbone="gated:video")
    node.on_action(COMMAND)
    for step in range(9):
        node.on_image(image(step * 0.25))
    # Full with the eighth image; whether that one is grounded as well is a matter of time.
    full = graph.wait_for(lambda grounding: stamp_s(grounding) == 2.0)
    assert full.frames_used == 8
    assert full.window_end == full.header.stamp
    assert full.window_start.nanosec == 250_000_000


def test_nothing_is_computed_for_an_output_nobody_subscribes_to(
    make_node: MakeNode, graph: Graph, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("computed for nobody")

    graph.everywhere, graph.subscriptions = 0, {"grounding": 1}
    monkeypatch.setattr("videogem_ros.live.outputs.draw_overlay", refuse)
    monkeypatch.setattr("videogem_ros.datatypes.Heatmap.to_image", refuse)
    monkeypatch.setattr("videogem_ros.live.messages.cv2.imencode", refuse)
    node = make_node()
    node.on_action(COMMAND)
    node.on_image(image())
    assert graph.wait("grounding")[0].status == Status.FOUND
    node.tick()
    node.deactivate()  # waits for the worker
    assert set(graph.published) == {"grounding"}
    built = {name.rpartition("/")[2] for name in graph.made}
    assert built == {"ActionGrounding", "PointPx", "Point", "Header", "Time", "Duration"}
    assert graph.lines("error") == []


def test_overlays_are_drawn_once_for_both_topics(
    make_node: MakeNode, graph: Graph, monkeypatch: pytest.MonkeyPatch
):
    from videogem_ros.live import outputs

    drawn: list[float] = []
    draw = outputs.draw_overlay

    def counting(*args: Any, **settings: Any) -> Any:
        drawn.append(settings["opacity"])
        return draw(*args, **settings)

    monkeypatch.setattr(outputs, "draw_overlay", counting)
    node = make_node(overlay__opacity=0.3)
    node.on_action(COMMAND)
    node.on_image(image())
    graph.wait("overlay/compressed")
    assert drawn == [0.3]


def test_several_actions_take_one_pass_and_have_topics_of_their_own(
    make_node: MakeNode, graph: Graph
):
    node = make_node()
    node.on_action("pick up the cup\nopen the drawer")
    node.on_image(image())
    groundings = graph.wait("grounding", 2)
    graph.wait("action_2/overlay/compressed")
    assert [(g.action_index, g.verb) for g in groundings] == [(0, "pick up"), (1, "open")]
    assert {g.command_id for g in groundings} == {1}
    for topic in ("heatmap", "overlay", "overlay/compressed", "point_px"):
        assert len(graph.published[topic]) == len(graph.published[f"action_2/{topic}"]) == 1
    node.tick()
    assert graph.diagnostics["encoder passes"] == "1"


def test_an_action_that_is_not_there_has_points_in_the_grounding_only(
    make_node: MakeNode, graph: Graph
):
    node = make_node(presence__threshold=1.0)
    node.on_action(COMMAND)
    node.on_image(image())
    (grounding,) = graph.wait("grounding")
    graph.wait("overlay/compressed")
    assert grounding.status == Status.NOT_PRESENT
    assert "below the threshold 1.00" in grounding.reason
    assert grounding.fused_point.x > 0
    assert "point_px" not in graph.published


# Commands


def test_an_empty_command_stops(make_node: MakeNode, graph: Graph):
    node = make_node()
    node.on_action(COMMAND)
    node.on_image(image(0.0))
    graph.wait("overlay/compressed")
    drawn = len(graph.published["markers"])
    node.on_action("  \n")
    stopped = graph.published["grounding"][-1]
    assert (stopped.status, stopped.command_id) == (Status.NO_COMMAND, 2)
    (deleting,) = graph.published["markers"][drawn:]
    assert [marker.action for marker in deleting.markers] == [deleting.markers[0].DELETEALL]
    node.on_image(image(0.1))
    assert node.request("open the drawer", PATIENCE_S).success  # so the worker was there
    assert len(graph.published["grounding"]) == 2


def test_after_an_empty_command_comes_nothing_that_was_asked_before(
    make_node: MakeNode, graph: Graph, gate: Gate
):
    node = make_node()
    node.on_action(COMMAND)
    gate.close()
    node.on_image(image())
    gate.wait_entered()
    node.on_action("")
    node.on_action("open the drawer")
    gate.release()
    answers = graph.wait("grounding", 2)
    assert [answer.command_id for answer in answers] == [2, 3]
    graph.wait("overlay/compressed")
    node.tick()
    assert graph.diagnostics["windows stopped"] == "1"
    assert {kind: len(graph.published[kind]) for kind in ("point_px", "heatmap", "markers")} == {
        "point_px": 1, "heatmap": 1, "markers": 2
    }  # fmt: skip


def test_no_answer_comes_after_that_to_an_empty_command(
    make_node: MakeNode, graph: Graph, monkeypatch: pytest.MonkeyPatch
):
    publishing, stopping = threading.Event(), threading.Event()
    order: list[tuple[str, int]] = []
    publish = graph.publish

    def slowly(topic: str, message: Any) -> None:
        if topic in ("grounding", "point_px", "action_2/point_px"):
            order.append((topic, getattr(message, "status", Status.FOUND)))
        publish(topic, message)
        publishing.set()
        stopping.wait(PATIENCE_S)

    monkeypatch.setattr(graph, "publish", slowly)
    node = make_node()
    node.on_action("pick up the cup\nopen the drawer")
    node.on_image(image())
    assert publishing.wait(PATIENCE_S)  # the first of the window's answers
    thread, _ = in_thread(lambda: node.on_action(""))
    graph.wait_for_line("command: stop")
    stopping.set()
    finish(thread)
    node.deactivate()  # waits for the worker
    assert order[-1] == ("grounding", Status.NO_COMMAND)
    assert [topic for topic, _ in order] == [
        "grounding", "grounding", "point_px", "action_2/point_px", "grounding"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["\U0001f600" * 1024, "!!!", "a\nb\nc\nd\ne", "?" * 4096], ids=range(4)
)
def test_a_refused_command_says_why_and_the_one_before_stands(
    make_node: MakeNode, graph: Graph, text: str
):
    node = make_node()
    node.on_action(COMMAND)
    node.on_action(text)
    node.on_image(image())
    refused, grounding = graph.wait("grounding", 2)
    assert refused.status == Status.NOT_UNDERSTOOD
    assert refused.action == text
    assert "action: expected" in refused.reason
    assert refused.command_id == 0
    assert grounding.status == Status.FOUND
    node.tick()
    assert graph.diagnostics["command refused"] == "1"
    assert [line for line in graph.lines("warn") if line.startswith("command refused")]


def test_a_command_of_four_kilobytes_is_no_trouble(make_node: MakeNode, graph: Graph):
    node = make_node()
    text = "pick up the red cup and " * 170 + "leave \U0001f600"
    node.on_action(text)
    node.on_image(image())
    graph.wait("grounding")
    assert node.request("open " + "\U0001f600" * 1023, PATIENCE_S).groundings


def test_commands_may_add_up(make_node: MakeNode, graph: Graph):
    node = make_node(commands="add", max_actions=2)
    for text in ("open the door", "close the door", "open the door", "wash the cup"):
        node.on_action(text)
    node.on_image(image())
    assert [g.action for g in graph.wait("grounding", 2)] == ["close the door", "wash the cup"]
    node.on_action("")
    assert graph.published["grounding"][-1].status == Status.NO_COMMAND


def test_a_command_that_came_before_the_images_is_obeyed(make_node: MakeNode, graph: Graph):
    node = make_node(active=False)
    node.configure()
    node.on_action(COMMAND)
    node.activate()
    node.on_image(image())
    assert graph.wait("grounding")[0].status == Status.FOUND


def test_a_new_command_is_answered_on_the_window_that_is_there(make_node: MakeNode, graph: Graph):
    node = make_node()
    node.on_action(COMMAND)
    node.on_image(image())
    graph.wait("grounding")
    node.on_action("open the drawer")
    _, second = graph.wait("grounding", 2)
    assert (second.action, second.command_id) == ("open the drawer", 2)
    node.tick()
    assert graph.diagnostics["encoder passes saved"] == "1"


def test_on_command_grounds_once_per_command(make_node: MakeNode, graph: Graph):
    node = make_node(mode="on_command")
    node.on_action(COMMAND)
    for step in range(5):
        node.on_image(image(step * 0.1))
    graph.wait("overlay/compressed")
    node.on_image(image(0.6))
    assert node.request(COMMAND, PATIENCE_S).success  # after which nothing else is to be done
    assert len(graph.published["grounding"]) == 1
    node.on_action("open the drawer")
    assert graph.wait("grounding", 2)[1].command_id == 2
    node.tick()
    replaced = int(graph.diagnostics.get("windows replaced", 0))
    assert replaced < 5  # what is not wanted is not replaced
    node.set_parameters({"mode": "continuous"})
    node.on_image(image(0.7))
    assert stamp_s(graph.wait("grounding", 3)[2]) == 0.7


# Load


def test_the_newest_window_replaces_those_that_wait(make_node: MakeNode, graph: Graph, gate: Gate):
    node = make_node()
    node.on_action(COMMAND)
    gate.close()
    node.on_image(image(0.0))
    gate.wait_entered()
    for step in range(1, 10):
        node.on_image(image(step * 0.1))
    gate.release()
    assert [stamp_s(g) for g in graph.wait("grounding", 2)] == [0.0, 0.9]
    node.tick()
    assert graph.diagnostics["windows replaced"] == "8"
    assert graph.diagnostics["windows grounded"] == "2"
    assert [line for line in graph.lines("info") if line.startswith("overload")]


def test_the_newest_command_is_answered_next(make_node: MakeNode, graph: Graph, gate: Gate):
    node = make_node()
    node.on_action(COMMAND)
    gate.close()
    node.on_image(image(0.0))
    gate.wait_entered()
    node.on_action("wash the cup")
    node.on_action("open the drawer")
    node.on_image(image(0.1))
    gate.release()
    answers = graph.wait("grounding", 2)
    assert [(g.action, stamp_s(g)) for g in answers] == [(COMMAND, 0.0), ("open the drawer", 0.1)]


def test_under_ten_times_the_load_no_window_is_older_than_the_pass_before(
    make_node: MakeNode, graph: Graph, gate: Gate
):
    node = make_node()
    gate.began_ns.clear()  # of the passes that configuring makes
    node.on_action(COMMAND)
    gate.delay_s = 0.04
    taken: list[tuple[int, float]] = []  # when an image was in, and its stamp
    for step in range(250):  # one second at ten images per window's time
        # Not after the last one: a pass for it alone would leave the next command none to make.
        time.sleep(0.004)
        node.on_image(image(step / 100, seed=0))
        taken.append((time.monotonic_ns(), step / 100))
    node.on_action("open the drawer")
    answer = graph.wait_for(lambda grounding: grounding.action == "open the drawer")
    assert answer.command_id == 2
    groundings = graph.published["grounding"]
    assert 8 < len(groundings) == len(gate.began_ns)
    # So latency is two passes at most, however long the machine takes for them.
    for began_ns, grounding in zip(gate.began_ns, groundings[1:]):
        newest_s = max(stamp for in_ns, stamp in taken if in_ns < began_ns or not stamp)
        assert stamp_s(grounding) >= newest_s
    node.tick()
    assert int(graph.diagnostics["windows replaced"]) > 150


def test_the_rate_is_limited_and_the_limit_changes_at_once(make_node: MakeNode, graph: Graph):
    node = make_node(max_rate_hz=0.001)
    node.on_action(COMMAND)
    node.on_image(image(0.0))
    graph.wait("grounding")
    node.on_image(image(0.1))
    assert node.request(COMMAND, PATIENCE_S).success  # requests are not held up
    assert len(graph.published["grounding"]) == 1
    node.set_parameters({"max_rate_hz": 0.0})
    assert stamp_s(graph.wait("grounding", 2)[1]) == 0.1


@pytest.mark.parametrize("rate_hz", [1e-300, 1e-10])
def test_a_limit_of_less_than_once_in_a_lifetime_may_be_lifted(
    make_node: MakeNode, graph: Graph, rate_hz: float
):
    node = make_node(max_rate_hz=rate_hz)
    node.on_action(COMMAND)
    node.on_image(image(0.0))
    graph.wait("grounding")
    node.on_image(image(0.1))
    assert node.request(COMMAND, 1e300).success
    node.set_parameters({"max_rate_hz": 0.0})
    assert stamp_s(graph.wait("grounding", 2)[1]) == 0.1


def test_a_limited_rate_is_kept(make_node: MakeNode, graph: Graph):
    node = make_node(max_rate_hz=50)
    node.on_action(COMMAND)
    began_s = time.monotonic()
    for step in range(6):
        node.on_image(image(step * 0.1))
        graph.wait("grounding", step + 1)
    assert time.monotonic() - began_s > 5 / 50


# Requests


def test_a_request_is_answered_and_the_standing_command_is_not_disturbed(
    make_node: MakeNode, graph: Graph
):
    node = make_node()
    node.on_action(COMMAND)
    node.on_image(image(0.0))
    graph.wait("overlay/compressed")
    outcome = node.request("open the drawer\nwash the cup", PATIENCE_S)
    assert outcome.success
    assert outcome.reason == ""
    assert [g.action for g in outcome.groundings] == ["open the drawer", "wash the cup"]
    assert {g.command_id for g in outcome.groundings} == {0}
    node.on_image(image(0.1))
    assert [g.action for g in graph.wait("grounding", 2)] == [COMMAND, COMMAND]
    node.tick()
    assert graph.diagnostics["encoder passes"] == "2"


def test_a_request_waits_for_images(make_node: MakeNode, graph: Graph):
    node = make_node()
    thread, outcomes = in_thread(lambda: node.request(COMMAND, PATIENCE_S))
    eventually(lambda: bool(node._requests))
    node.on_image(image())
    finish(thread)
    assert outcomes[0].success
    assert "grounding" not in graph.published


def test_a_request_is_not_answered_with_old_images(make_node: MakeNode, graph: Graph):
    node = make_node(image_timeout_s=0.05)
    node.on_image(image(0.0))
    eventually(lambda: "no new image on /robot/image for" in node.request(COMMAND, 0.01).reason)
    thread, outcomes = in_thread(lambda: node.request(COMMAND, PATIENCE_S))
    eventually(lambda: bool(node._requests))
    node.on_image(image(0.1))
    finish(thread)
    assert stamp_s(outcomes[0].groundings[0]) == 0.1


def test_a_request_times_out_with_the_reason(make_node: MakeNode, graph: Graph, gate: Gate):
    node = make_node(request_timeout_s=0.02)
    outcome = node.request(COMMAND, 0.0)
    assert outcome == GroundOutcome(
        False, "no answer within 0.02 s: the images do not span the window yet"
    )
    gate.close()
    node.on_image(image())
    assert node.request(COMMAND, 0.01).reason == "no answer within 0.01 s: grounding takes longer"
    node.tick()
    assert graph.diagnostics["requests unanswered"] == "2"


def test_what_nobody_waits_for_any_more_is_not_grounded(make_node: MakeNode, graph: Graph):
    node = make_node()
    assert not node.request(COMMAND, 0.01).success
    node.on_image(image())
    assert node.request("open the drawer", PATIENCE_S).success
    node.tick()
    assert graph.diagnostics["windows grounded"] == "1"


@pytest.mark.parametrize(
    ("text", "reason"), [("", "words"), ("!?", "words"), ("a\nb\nc\nd\ne", "at most 4 actions")]
)
def test_a_request_that_is_not_understood_is_refused(make_node: MakeNode, text: str, reason: str):
    outcome = make_node().request(text, PATIENCE_S)
    assert not outcome.success
    assert reason in outcome.reason


def test_a_request_for_what_is_not_there_has_no_success(make_node: MakeNode):
    node = make_node(presence__threshold=1.0)
    node.on_image(image())
    outcome = node.request(COMMAND, PATIENCE_S)
    assert not outcome.success
    assert "below the threshold" in outcome.reason
    assert outcome.groundings[0].status == Status.NOT_PRESENT


def test_requests_of_several_threads_are_all_answered(make_node: MakeNode):
    node = make_node()
    node.on_image(image())
    texts = [f"open drawer {number}" for number in range(8)]
    jobs = [in_thread(functools.partial(node.request, text, PATIENCE_S)) for text in texts]
    for (thread, outcomes), text in zip(jobs, texts):
        finish(thread)
        assert outcomes[0].groundings[0].action == text


# Bad messages

BAD_IMAGES = {
    "zero size": {"height": 0, "width": 0, "data": np.zeros(0, np.uint8)},
    "truncated": {"data": np.zeros(100, np.uint8)},
    "unknown encoding": {"encoding": "rgb9"},
    "wrong step": {"step": 3},
    "huge": {"height": 2**31, "width": 2**31, "step": 2**32 - 1},
    "depth": {"encoding": "32FC1"},
    "negative stamp": {"stamp_ns": -(10**9)},
}


@pytest.mark.parametrize("fields", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_bad_images_are_counted_and_do_no_harm(
    make_node: MakeNode, graph: Graph, fields: dict[str, Any]
):
    node = make_node()
    node.on_action(COMMAND)
    for _ in range(3):
        node.on_image(image(**fields))
    node.on_image(image())
    assert graph.wait("grounding")[0].status == Status.FOUND
    node.tick()
    assert graph.diagnostics["image refused"] == "3"
    assert graph.diagnostics["images"] == "4"
    assert len([line for line in graph.lines() if line.startswith("image refused")]) == 1
    assert "image refused" in graph.published["/diagnostics"][-1].status[0].message


def test_a_jpeg_that_claims_a_huge_size_is_counted_and_logged(make_node: MakeNode, graph: Graph):
    node = make_node()
    jpeg = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    damaged = jpeg.replace(b"\x00\x30\x00\x40\x03", b"\x40\x00\x40\x00\x03")  # 48, 64; 16384 twice
    compressed = typestore().types["sensor_msgs/msg/CompressedImage"]
    for data in (damaged, damaged, jpeg):
        node.on_compressed(compressed(header(START_NS), "jpeg", np.frombuffer(data, np.uint8)))
    node.tick()
    assert (graph.diagnostics["images"], graph.diagnostics["image refused"]) == ("3", "2")
    (line,) = [line for line in graph.lines("warn") if line.startswith("image refused")]
    assert line.startswith("image refused: 'jpeg' image.data: expected at most 67108864 pixels")


CALLBACKS = ("on_image", "on_compressed", "on_depth", "on_camera_info", "on_action")


@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize("state", ["unconfigured", "inactive", "active"])
def test_no_callback_raises_whatever_comes(
    make_node: MakeNode, graph: Graph, callback: str, state: str
):
    node = make_node(active=False)
    if state != "unconfigured":
        node.configure()
    if state == "active":
        node.activate()
    getattr(node, callback)(None)
    node.tick()
    assert node.state is State(state)


def test_a_command_to_a_node_that_is_not_configured_is_counted(make_node: MakeNode, graph: Graph):
    node = make_node(active=False)
    node.on_action(COMMAND)
    assert graph.lines("warn") == ["command refused: the node is unconfigured"]


@pytest.mark.parametrize(
    ("messages", "condition", "key"),
    [
        ([image(10.0), image(0.0)], "time jump", "images restarted after a jump back in time"),
        (
            [image(0.0), image(0.1, hw=(24, 32))],
            "resolution change",
            "images restarted after a change of resolution",
        ),
        (
            [image(0.0), image(0.1, frame_id="other")],
            "camera change",
            "images restarted after a change of frame_id",
        ),
        ([image(0.0), image(0.0)], "duplicate images", "images duplicate stamp"),
        ([image(0.2), image(0.1), image(0.2)], "late images", "images too late"),
    ],
)
def test_what_is_odd_about_images_is_said_once_and_counted(
    make_node: MakeNode, graph: Graph, messages: list[Any], condition: str, key: str
):
    node = make_node()
    for message in messages:
        node.on_image(message)
    node.on_action(COMMAND)
    grounding = graph.wait("grounding")[0]
    assert grounding.status == Status.FOUND
    node.tick()
    assert graph.diagnostics[key] == "1"
    assert f"now: {condition}" in graph.diagnostics
    assert len([line for line in graph.lines() if line.startswith(f"{condition}: ")]) == 1


def test_time_running_backwards_grounds_every_restart(make_node: MakeNode, graph: Graph):
    node = make_node(backbone="gated:video")
    node.on_action(COMMAND)
    for number in range(5):
        node.on_image(image(100.0 - 10 * number))
        assert stamp_s(graph.wait("grounding", number + 1)[number]) == 100.0 - 10 * number


def test_images_without_stamp_get_the_time_of_their_arrival(make_node: MakeNode, graph: Graph):
    node = make_node()
    node.on_action(COMMAND)
    for number in range(3):
        graph.now = START_NS + number * 10**8
        node.on_image(image(stamp_ns=0))
        assert stamp_s(graph.wait("grounding", number + 1)[number]) == number / 10
    node.tick()
    assert graph.diagnostics["image stamps replaced"] == "3"
    assert len([line for line in graph.lines("warn") if "without stamp" in line]) == 1


@pytest.mark.parametrize(
    ("ahead_s", "condition"), [(-3600, "stale stamps"), (0.5, "stamps ahead"), (-0.5, None)]
)
def test_stamps_far_from_the_clock_are_reported_and_used(
    make_node: MakeNode, graph: Graph, ahead_s: float, condition: str | None
):
    node = make_node()
    node.on_action(COMMAND)
    node.on_image(image(ahead_s))
    grounding = graph.wait("grounding")[0]
    assert grounding.latency.sec + grounding.latency.nanosec / 1e9 == pytest.approx(-ahead_s)
    node.tick()
    reported = {key for key in graph.diagnostics if "stamps" in key}
    assert reported == ({f"now: {condition}"} if condition else set())


def test_a_simulated_clock_that_does_not_run_is_reported(make_node: MakeNode, graph: Graph):
    graph.now = 0
    node = make_node()
    node.tick()
    assert "now: no clock" in graph.diagnostics
    graph.now = START_NS
    node.tick()
    assert "was: no clock" in graph.diagnostics


def test_incompatible_qos_is_reported_and_stays(make_node: MakeNode, graph: Graph):
    node = make_node()
    for _ in range(3):
        node.on_qos_incompatible("image", "RELIABILITY")
    node.tick()
    assert graph.diagnostics["incompatible QoS on image"] == "3"
    assert "RELIABILITY" in graph.diagnostics["now: QoS of image"]
    assert len([line for line in graph.lines("warn") if "RELIABILITY" in line]) == 1


def test_incompatible_qos_is_over_when_the_topics_end_of_the_node_goes(
    make_node: MakeNode, graph: Graph
):
    node = make_node(max_actions=2)

    def said() -> set[str]:
        node.tick()
        return {key for key in graph.diagnostics if key.startswith("now: QoS of ")}

    for topic in ("image", "action", "action_2/heatmap", "/diagnostics"):
        node.on_qos_incompatible(topic, "RELIABILITY")
    assert len(said()) == 4
    node.deactivate()
    assert said() == {"now: QoS of action_2/heatmap", "now: QoS of /diagnostics"}
    node.cleanup()
    assert said() == {"now: QoS of /diagnostics"}  # which goes on


def test_messages_that_cannot_be_deserialized_are_reported(make_node: MakeNode, graph: Graph):
    node = make_node()
    node.on_undecodable("image", "3 bytes")
    node.tick()
    assert graph.diagnostics["undecodable on image"] == "1"
    assert "3 bytes" in graph.diagnostics["now: messages on image"]


# What is missing


def level(graph: Graph) -> Level:
    return Level(graph.published["/diagnostics"][-1].status[0].level)


def test_missing_images_are_said_to_who_waits(make_node: MakeNode, graph: Graph):
    node = make_node(image_timeout_s=0.01)
    node.on_action(COMMAND)

    def missing() -> bool:
        node.tick()
        return "now: no images" in graph.diagnostics

    eventually(missing)
    assert level(graph) is Level.STALE
    status = graph.wait_for(lambda grounding: grounding.status == Status.NO_IMAGES)
    assert (status.action, status.command_id) == (COMMAND, 1)
    assert "no new image on /robot/image for" in status.reason
    assert len(graph.published["markers"][-1].markers) == 1  # the one that deletes all
    assert len([line for line in graph.lines("warn") if line.startswith("no images")]) == 1
    node.set_parameters({"image_timeout_s": 60.0})
    node.on_image(image())
    node.tick()
    assert "was: no images" in graph.diagnostics


def test_a_straggler_is_no_new_image(make_node: MakeNode, graph: Graph):
    node = make_node(backbone="gated:video", image_timeout_s=0.05)
    for step in (0, 2):
        node.on_image(image(step * 0.25))
    time.sleep(0.06)
    node.on_image(image(0.25))
    node.tick()
    assert "now: no images" in graph.diagnostics


def test_no_command_is_said_and_is_no_fault(make_node: MakeNode, graph: Graph):
    node = make_node()
    node.on_image(image())
    node.tick()
    assert graph.diagnostics["now: no command"].startswith("OK")
    assert graph.lines("info")[-1].startswith("no command")
    assert "grounding" not in graph.published
    node.on_action(COMMAND)
    node.tick()
    assert "now: no command" not in graph.diagnostics


def test_a_window_that_is_not_spanned_is_said_to_who_waits(make_node: MakeNode, graph: Graph):
    node = make_node(backbone="gated:video", window__start="wait")
    node.on_action(COMMAND)
    node.on_image(image(0.0))
    node.tick()
    (status,) = graph.wait("grounding")
    assert status.status == Status.WAITING_FOR_FRAMES
    assert status.header.frame_id == ""
    assert graph.diagnostics["window"] == "0 of 8"
    for step in range(1, 8):
        node.on_image(image(step * 0.25))
    assert graph.wait_for(lambda g: g.status == Status.FOUND).frames_used == 8
    node.tick()
    assert graph.diagnostics["window"] == "8 of 8"


def test_diagnostics_tell_rates_ages_and_what_stands(make_node: MakeNode, graph: Graph):
    node = make_node()
    node.on_action(COMMAND)
    for step in range(4):
        node.on_image(image(step * 0.1))
        graph.wait("grounding", step + 1)
    eventually(lambda: node._health.counts.get("latency") == 4)
    node.tick()
    (status,) = graph.published["/diagnostics"][-1].status
    assert status.name == "videogem: grounding"
    assert status.hardware_id.startswith("openclip:")
    values = graph.diagnostics
    assert values["state"] == "active"
    assert values["command"] == COMMAND
    assert values["images"] == values["images accepted"] == values["windows grounded"] == "4"
    assert values["answers FOUND"] == "4"
    assert float(values["images rate [Hz]"]) > 1
    assert float(values["images age [s]"]) < 5
    assert float(values["compute time [s]"]) > 0
    assert values["window"] == "1 of 1"


# Parameters


def test_live_changes_keep_backbone_features_and_texts(
    make_node: MakeNode, graph: Graph, tiny_image_backbone: Backbone
):
    node = make_node()
    message = image()
    node.on_image(message)
    before = node.request(COMMAND, PATIENCE_S).groundings[0]
    node.set_parameters({"weighting": "uniform", "fusion_weights": [0, 0, 1]})
    after = node.request(COMMAND, PATIENCE_S).groundings[0]
    assert after.layer_weights_verb.tolist() == [1.0] * 8
    assert before.layer_weights_verb.tolist() != [1.0] * 8
    assert after.fused_point.x == pytest.approx(after.action_point.x)
    node.tick()
    assert graph.diagnostics["encoder passes"] == "1"
    assert graph.diagnostics["encoder passes saved"] == "1"
    node.set_parameters({"presence.threshold": 1.0})
    assert node.request(COMMAND, PATIENCE_S).groundings[0].status == Status.NOT_PRESENT


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"max_rate_hz": 1.0, "device": "cuda"}, "device"),
        ({"max_rate_hz": 1.0, "window.frames": 2}, "window.frames"),
        ({"max_rate_hz": 1.0, "fusion_weights": [1, 1, 1]}, "fusion_weights"),
        ({"max_rate_hz": 1.0, "dynamic_depth": 99}, "dynamic_depth"),
        ({"max_rate_hz": 1.0, "nonsense": 1}, "nonsense"),
    ],
)
def test_refused_changes_change_nothing(make_node: MakeNode, changes: dict[str, Any], field: str):
    node = make_node()
    with pytest.raises(InvalidValueError) as refused:
        node.set_parameters(changes)
    assert refused.value.field == field
    assert node.parameters["max_rate_hz"] == 0


def test_before_it_is_configured_a_node_takes_every_change(
    make_node: MakeNode, tiny_clip_config: Path
):
    node = make_node(active=False)
    node.set_parameters({"backbone": f"openclip:{tiny_clip_config}", "weights": "random:0"})
    node.configure()
    with pytest.raises(InvalidValueError, match="as long as the node is configured"):
        node.set_parameters({"weights": "random:1"})
    node.cleanup()
    node.set_parameters({"weights": "random:1"})


def test_sizes_of_the_input_are_set_one_by_one_and_judged_by_configure(
    make_node: MakeNode, tiny_clip_config: Path
):
    node = make_node(active=False, backbone=f"openclip:{tiny_clip_config}", weights="random:0")
    height, width = 64, 96
    node.set_parameters({"input_height": height})
    with pytest.raises(InvalidValueError) as refused:
        node.configure()
    assert refused.value.field == "input_width"
    assert node.state is State.UNCONFIGURED
    node.set_parameters({"input_width": width})
    node.configure()
    assert node._grounder.config.image_hw == (height, width)
    with pytest.raises(InvalidValueError) as refused:
        node.set_parameters({"static_weights": [1.0, 1.0]})
    assert refused.value.field == "static_weights"


# Failures


def test_a_window_that_fails_is_answered_and_the_worker_goes_on(make_node: MakeNode, graph: Graph):
    node = make_node()
    node.on_action(COMMAND)
    node._grounder.backbone.error = RuntimeError("CUDA out of memory")
    node.on_image(image(0.0))
    (failed,) = graph.wait("grounding")
    assert failed.status == Status.ERROR
    assert failed.reason == "RuntimeError: CUDA out of memory"
    assert (failed.action, failed.command_id) == (COMMAND, 1)
    outcome = node.request(COMMAND, PATIENCE_S)
    assert outcome == GroundOutcome(False, "RuntimeError: CUDA out of memory")
    node.tick()
    assert level(graph) is Level.ERROR
    assert graph.diagnostics["windows failed"] == "2"
    assert len(graph.lines("error")) == 1
    assert [line for line in graph.lines("debug") if "Traceback" in line]
    node._grounder.backbone.error = None
    node.on_image(image(0.1))
    assert graph.wait("grounding", 2)[1].status == Status.FOUND


def test_a_middleware_that_fails_does_not_end_the_worker(make_node: MakeNode, graph: Graph):
    node = make_node()
    node.on_action(COMMAND)
    graph.fail_to_publish = OSError("no shared memory")
    node.on_image(image(0.0))
    graph.wait_for_line("answer failed")
    graph.fail_to_publish = None
    node.on_image(image(0.1))
    assert graph.wait_for(lambda g: g.status == Status.FOUND).header.stamp.nanosec == 10**8
    node.tick()
    assert graph.diagnostics["answer failed"] == "1"


def test_a_tick_survives_a_middleware_that_fails(make_node: MakeNode, graph: Graph):
    node = make_node(depth__use="never")
    node.on_image(image())
    graph.now_ns = lambda: 1 / 0
    node.tick()
    assert graph.lines("warn")[-1].startswith("tick failed: ZeroDivisionError")


# Life


def test_deactivation_in_the_middle_drops_the_work_and_answers_who_waits(
    make_node: MakeNode, graph: Graph, gate: Gate
):
    node = make_node()
    node.on_action(COMMAND)
    gate.close()
    node.on_image(image(0.0))
    gate.wait_entered()
    waiting, outcomes = in_thread(lambda: node.request("open the drawer", PATIENCE_S))
    eventually(lambda: bool(node._requests))
    stopping, _ = in_thread(node.deactivate)
    finish(waiting)
    assert outcomes == [GroundOutcome(False, "the node was deactivated")]
    gate.release()
    finish(stopping)
    assert node.state is State.INACTIVE
    assert "grounding" not in graph.published
    node.on_image(image(0.1))
    assert node.request(COMMAND, 0.01).reason == "the node is inactive"
    node.tick()
    assert graph.diagnostics["images"] == "1"


def test_a_request_under_way_at_deactivation_is_answered(
    make_node: MakeNode, graph: Graph, gate: Gate
):
    node = make_node()
    gate.close()
    node.on_image(image())
    waiting, outcomes = in_thread(lambda: node.request(COMMAND, PATIENCE_S))
    gate.wait_entered()
    stopping, _ = in_thread(node.deactivate)
    gate.release()
    finish(stopping)
    finish(waiting)
    assert outcomes[0].groundings or "deactivated" in outcomes[0].reason


def test_a_deactivation_ends_what_nobody_reports_any_more(make_node: MakeNode, graph: Graph):
    node = make_node()
    for _ in range(2):
        node.on_image(image())
    node.tick()
    assert "now: duplicate images" in graph.diagnostics
    node.deactivate()
    node.tick()
    left = {key for key in graph.diagnostics if key.startswith("now: ")}
    assert left == {"now: backbone"}  # of a model that is untrained


def test_a_deactivation_deletes_the_markers(make_node: MakeNode, graph: Graph):
    node = make_node()
    node.on_action(COMMAND)
    node.on_image(image())
    graph.wait("overlay/compressed")
    drawn = len(graph.published["markers"])
    node.deactivate()
    (deleting,) = graph.published["markers"][drawn:]
    assert [marker.action for marker in deleting.markers] == [deleting.markers[0].DELETEALL]


def test_after_an_activation_the_command_stands_and_the_old_images_do_not(
    make_node: MakeNode, graph: Graph
):
    node = make_node()
    node.on_action(COMMAND)
    node.on_image(image(0.0))
    graph.wait("grounding")
    node.deactivate()
    node.deactivate()
    node.activate()
    assert "do not span" in node.request(COMMAND, 0.01).reason
    node.on_image(image(5.0))
    assert stamp_s(graph.wait("grounding", 2)[1]) == 5.0


@pytest.mark.parametrize("error", [None, RuntimeError("CUDA out of memory")])
def test_a_command_in_work_at_a_deactivation_is_answered_after_the_next_activation(
    make_node: MakeNode, graph: Graph, gate: Gate, error: Exception | None
):
    node = make_node(mode="on_command")
    node.on_action(COMMAND)
    gate.close()
    node._grounder.backbone.error = error
    node.on_image(image(0.0))
    gate.wait_entered()
    stopping, _ = in_thread(node.deactivate)
    eventually(lambda: node.state is State.INACTIVE)
    gate.release()
    finish(stopping)
    node.tick()
    assert "grounding" not in graph.published
    assert not [key for key in graph.diagnostics if key.startswith("answers")]
    node._grounder.backbone.error = None
    node.activate()
    for step in range(3):
        node.on_image(image(5.0 + step * 0.1))
    answer = graph.wait("grounding")[0]
    assert (answer.action, answer.status) == (COMMAND, Status.FOUND)
    assert stamp_s(answer) >= 5.0
    assert node.request(COMMAND, PATIENCE_S).success  # after which nothing else is to be done
    assert len(graph.published["grounding"]) == 1


@pytest.mark.parametrize("mode", ["continuous", "on_command"])
def test_cleanup_releases_the_backbone_and_configure_loads_again(
    make_node: MakeNode, graph: Graph, tiny_clip_config: Path, mode: str
):
    node = make_node(mode=mode, backbone=f"openclip:{tiny_clip_config}", weights="random:0")
    node.on_action(COMMAND)
    node.on_image(image(0.0))
    graph.wait("overlay/compressed")
    backbone = weakref.ref(node._grounder.backbone)
    tower = weakref.ref(node._grounder.backbone.tower.class_embedding)
    assert "now: backbone" in (node.tick(), graph.diagnostics)[1]
    node.cleanup()
    assert backbone() is None
    assert tower() is None
    assert node.state is State.UNCONFIGURED
    node.tick()
    assert graph.diagnostics["state"] == "unconfigured"
    node.configure()
    node.activate()
    node.on_action(COMMAND)
    node.on_image(image(1.0))
    assert graph.wait("grounding", 2)[1].status == Status.FOUND


# The first window does not wait


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> CpuRecorder:
    """Has nodes record passes on the CPU as they do on a GPU."""
    recorder = CpuRecorder()
    monkeypatch.setattr(acceleration, "CudaRecorder", lambda: recorder)
    return recorder


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every encoder pass by the number of its frames."""
    passes: list[int] = []
    terms = Encoder.terms

    def counted(self: Encoder, pixels: torch.Tensor, chosen: tuple[int, ...]) -> Any:
        passes.append(pixels.shape[1])
        return terms(self, pixels, chosen)

    monkeypatch.setattr(Encoder, "terms", counted)
    return passes


@pytest.mark.parametrize(("backbone", "frames"), [("image", 1), ("video", 8)])
def test_configure_passes_a_blank_window_of_the_kind_that_will_come(
    make_node: MakeNode, graph: Graph, passes: list[int], backbone: str, frames: int
):
    node = make_node(active=False, backbone=f"gated:{backbone}")
    node.configure()
    assert passes == [frames]
    node.activate()
    node.on_action(COMMAND)
    node.on_image(image())
    graph.wait("grounding")
    assert passes == [frames, frames]
    node.tick()
    assert not [key for key in graph.diagnostics if "cuda" in key]


@pytest.mark.parametrize("backbone", ["image", "video"])
@pytest.mark.parametrize("hw", [(48, 64), (30, 90)])
def test_what_configure_recorded_is_what_the_first_window_replays(
    make_node: MakeNode, graph: Graph, recorder: CpuRecorder, backbone: str, hw: tuple[int, int]
):
    node = make_node(backbone=f"gated:{backbone}")
    # The preparation of frames, the encoder's pass, and that with what follows it for one action.
    assert len(recorder.recorded) == 3
    node.on_action("pick up the cup and open the drawer")
    node.on_image(image(hw=hw))
    assert graph.wait("grounding")[0].status == Status.FOUND
    node.tick()
    values = graph.diagnostics
    assert (values["cuda graphs"], values["cuda graphs failed"]) == ("2", "0")
    assert values["cuda graphs replayed"] == "3"
    assert "cuda graphs problem" not in values


def test_a_node_that_is_told_so_records_nothing(
    make_node: MakeNode, graph: Graph, recorder: CpuRecorder, passes: list[int]
):
    node = make_node(cuda_graphs="never")
    node.on_action(COMMAND)
    node.on_image(image())
    assert graph.wait("grounding")[0].status == Status.FOUND
    assert recorder.recorded == []
    assert len(passes) == 2


def test_a_node_that_cannot_record_says_so_and_works(
    make_node: MakeNode, graph: Graph, recorder: CpuRecorder
):
    recorder.error = RuntimeError("CUDA error: operation not permitted when stream is capturing")
    node = make_node()
    (line,) = [line for line in graph.lines("warn") if "graph" in line]
    assert str(recorder.error) in line
    node.on_action(COMMAND)
    for second in range(3):
        node.on_image(image(second))
        graph.wait("grounding", second + 1)
    node.tick()
    assert graph.diagnostics["cuda graphs failed"] == "2"
    assert graph.diagnostics["cuda graphs problem"] == str(recorder.error)
    assert "now: cuda graphs" in graph.diagnostics
    assert len([line for line in graph.lines("warn") if "graph" in line]) == 1


def test_a_dtype_that_the_processor_imitates_is_shown(
    make_node: MakeNode, graph: Graph, tiny_clip_config: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hardware, "multiplies", lambda device, dtype: False)
    tiny = {"backbone": f"openclip:{tiny_clip_config}", "weights": "random:0"}
    node = make_node(dtype="bfloat16", **tiny)
    node.tick()
    assert "bfloat16" in graph.diagnostics["now: dtype"]
    assert [line for line in graph.lines("warn") if "cpu does not multiply bfloat16" in line]
    node.cleanup()
    node.tick()
    assert "was: dtype" in graph.diagnostics


@pytest.mark.gpu
def test_cleanup_frees_the_memory_of_the_gpu(make_node: MakeNode, tiny_clip_config: Path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    gc.collect()  # what earlier tests left
    before = torch.cuda.memory_allocated()
    node = make_node(backbone=f"openclip:{tiny_clip_config}", weights="random:0", device="cuda")
    node.on_image(image())
    assert node.request(COMMAND, PATIENCE_S).success
    used = torch.cuda.memory_allocated() - before
    assert used > 2**20
    node.cleanup()
    assert torch.cuda.memory_allocated() - before < 2**14  # some constants stay


@pytest.mark.parametrize(
    ("parameters", "error", "field"),
    [
        ({"backbone": "nothing:at-all"}, InvalidValueError, "backbone"),
        ({"device": "warp"}, InvalidValueError, "device"),
        ({"self_self_depth": 9, "weighting": "dynamic"}, InvalidValueError, "self_self_depth"),
        ({"input_height": 65, "input_width": 64}, InvalidValueError, "input_height"),
        ({"spacy_model": "no_such_model"}, InvalidValueError, None),
        ({"weights": "no_such_file.pt"}, WeightsError, None),
    ],
)
def test_what_cannot_be_configured_says_so_and_may_be_tried_again(
    make_node: MakeNode,
    tiny_clip_config: Path,
    parameters: dict[str, Any],
    error: type[VideoGemError],
    field: str | None,
):
    good = {"backbone": f"openclip:{tiny_clip_config}", "weights": "random:0", "device": "cpu"}
    node = make_node(active=False, **good | parameters)
    with pytest.raises(error) as refused:
        node.configure()
    assert field in (None, getattr(refused.value, "field", None))
    assert node.state is State.UNCONFIGURED
    undone = {name: Parameters()[name] for name in parameters}
    node.set_parameters(undone | good)
    node.configure()


def test_a_window_that_the_backbone_cannot_take_is_refused(make_node: MakeNode):
    node = make_node(active=False, backbone="gated:video", window__frames=4)
    with pytest.raises(InvalidValueError) as refused:
        node.configure()
    assert refused.value.field == "window.frames"


def test_a_node_that_is_cleaned_up_while_it_loads_keeps_nothing(
    make_node: MakeNode, graph: Graph, monkeypatch: pytest.MonkeyPatch
):
    node = make_node(active=False)
    monkeypatch.setattr(Grounder, "warm_up", lambda *_: node.cleanup())
    with pytest.raises(VideoGemError, match="unconfigured and cannot become inactive"):
        node.configure()
    node.on_action(COMMAND)
    assert graph.lines("warn") == ["command refused: the node is unconfigured"]


def test_transitions_out_of_order_are_refused(make_node: MakeNode):
    node = make_node(active=False)
    with pytest.raises(VideoGemError, match="unconfigured"):
        node.activate()
    node.configure()
    with pytest.raises(VideoGemError, match="inactive"):
        node.configure()
    node.activate()
    with pytest.raises(VideoGemError, match="active"):
        node.activate()
    node.cleanup()
    node.cleanup()


def test_images_commands_changes_and_ticks_of_many_threads_go_together(
    make_node: MakeNode, graph: Graph
):
    node = make_node()
    steps = iter(range(10**6))
    work = {
        "images": lambda: node.on_image(image(next(steps) * 0.01)),
        "commands": lambda: node.on_action(f"open drawer {next(steps)}"),
        "changes": lambda: node.set_parameters({"max_rate_hz": next(steps) % 2 * 1000.0}),
        "weightings": lambda: node.set_parameters(
            {"weighting": ("uniform", "dynamic")[next(steps) % 2]}
        ),
        "ticks": node.tick,
        "requests": lambda: node.request("wash the cup", 0.05),
    }

    def repeat(one: Callable[[], Any]) -> None:
        for _ in range(30):
            one()

    threads = [in_thread(functools.partial(repeat, one))[0] for one in work.values()]
    for thread in threads:
        finish(thread)
    node.on_action("close the lid")
    node.on_image(image(10**5))
    assert graph.wait_for(lambda g: stamp_s(g) == 10**5).action == "close the lid"
    assert graph.lines("error") == []

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from example_groundings import frame_of, grounding_of
from live_graph import PATIENCE_S, START_NS, Gate, Graph, camera_info, depth_image, image

from videogem_ros.live import positions
from videogem_ros.live.depth import HELD
from videogem_ros.live.messages import Status
from videogem_ros.live.node import GroundingNode
from videogem_ros.live.parameters import Parameters
from videogem_ros.live.positions import Positions

MakeNode = Callable[..., GroundingNode]
HW = (48, 64)
WALL = np.full(HW, 2.0, np.float32)


def grounded(node: GroundingNode, graph: Graph, *depths: Any, info: Any = None) -> Any:
    """The grounding of an image at 0 s, when depth and camera_info were there first."""
    if info is not None:
        node.on_camera_info(info)
    for depth in depths:
        node.on_depth(depth)
    node.on_action("pick up the cup")
    node.on_image(image(0.0))
    grounding = graph.wait("grounding")[0]
    graph.wait("overlay/compressed")
    return grounding


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1"])
@pytest.mark.parametrize("depth_hw", [(48, 64), (96, 128), (24, 32)])
@pytest.mark.parametrize("info_hw", [(48, 64), (480, 640)])
def test_the_pixel_at_its_depth_is_the_position(
    make_node: MakeNode,
    graph: Graph,
    encoding: str,
    depth_hw: tuple[int, int],
    info_hw: tuple[int, int],
):
    scale = info_hw[0] / HW[0]
    info = camera_info(info_hw, (60 * scale, 55 * scale), (32 * scale - 0.5, 25 * scale - 0.5))
    wall = depth_image(np.full(depth_hw, 2.0, np.float32), encoding=encoding)
    grounding = grounded(make_node(), graph, wall, info=info)
    assert grounding.status == Status.FOUND
    assert grounding.has_position
    position, pixel = grounding.position, grounding.fused_point
    assert position.x == pytest.approx((pixel.x - 31.5) / 60 * 2.0, abs=1e-5)
    assert position.y == pytest.approx((pixel.y - 24.5) / 55 * 2.0, abs=1e-5)
    assert position.z == pytest.approx(2.0)
    assert grounding.position_frame == "camera"
    assert grounding.position_spread == pytest.approx(0, abs=1e-6)
    assert grounding.depth_samples > 30
    (point,) = graph.published["point"]
    assert point.header == grounding.header
    assert point.point == position


def test_a_camera_is_known_while_its_next_message_is_checked(monkeypatch: pytest.MonkeyPatch):
    known, parameters = Positions(lambda *_: np.eye(4)), Parameters()
    info, following = camera_info(), camera_info()
    known.push_camera_info(info, parameters)
    meanwhile: list[Any] = []
    monkeypatch.setattr(positions, "_camera", lambda *_: meanwhile.append(known.camera_info))
    known.push_camera_info(following, parameters)
    assert meanwhile == [info]
    assert known.camera_info is following


def test_depth_is_wanted_once_it_is_seen_or_always_and_until_it_is_cleared():
    known = Positions(lambda *_: np.eye(4))
    always, auto, never = (
        Parameters.from_mapping({"depth.use": use}) for use in ("always", "auto", "never")
    )
    assert [known.wanted(use) for use in (always, auto, never)] == [True, False, False]
    known.push_depth(START_NS, depth_image(WALL))
    assert [known.wanted(use) for use in (always, auto, never)] == [True, True, False]
    known.clear()
    assert [known.wanted(use) for use in (always, auto, never)] == [True, False, False]


@pytest.mark.parametrize("present", [(True, False), (False, True), (False, False)])
def test_depth_is_looked_up_for_the_actions_that_are_there_alone(
    monkeypatch: pytest.MonkeyPatch, present: tuple[bool, bool]
):
    known, parameters = Positions(lambda *_: np.eye(4)), Parameters()
    known.push_camera_info(camera_info(), parameters)
    known.push_depth(START_NS, depth_image(WALL))
    looked_up: list[int] = []
    find = known.depth.find
    monkeypatch.setattr(
        known.depth, "find", lambda stamp_ns, *s: looked_up.append(stamp_ns) or find(stamp_ns, *s)
    )
    frame = replace(frame_of(HW, START_NS), frame_id="camera")
    groundings = [grounding_of(frame, present=there) for there in present]
    answers = known.answers(groundings, parameters, in_space=True)
    assert [answer.position is not None for answer in answers] == list(present)
    assert looked_up == [START_NS] * any(present)


def test_where_depth_is_missing_an_action_that_is_not_there_is_still_said_not_to_be():
    known = Positions(lambda *_: np.eye(4))
    parameters = Parameters.from_mapping({"depth.use": "always", "presence.threshold": 0.5})
    frame = frame_of(HW, START_NS)
    groundings = [grounding_of(frame), grounding_of(frame, score=0.314, present=False)]
    there, away = known.answers(groundings, parameters, in_space=True)
    assert there.status == Status.NO_DEPTH
    assert away.status == Status.NOT_PRESENT
    assert away.reason == "score 0.31 is below the threshold 0.50"


@pytest.mark.parametrize(("tolerance_s", "status"), [(0.2, Status.NO_DEPTH), (0.3, Status.FOUND)])
def test_depth_may_be_as_far_from_its_image_as_the_parameter_says(
    tolerance_s: float, status: Status
):
    settings = {"depth.tolerance_s": tolerance_s, "depth.wait_s": 0.0}
    known, parameters = Positions(lambda *_: np.eye(4)), Parameters.from_mapping(settings)
    known.push_camera_info(camera_info(frame_id=""), parameters)
    known.push_depth(START_NS + 250_000_000, depth_image(WALL, frame_id=""))
    (answer,) = known.answers([grounding_of(frame_of(HW, START_NS))], parameters, in_space=True)
    assert answer.status == status


def test_depth_of_another_frame_is_refused_even_where_camera_info_names_none():
    known, parameters = Positions(lambda *_: np.eye(4)), Parameters()
    known.push_camera_info(camera_info(frame_id=""), parameters)
    known.push_depth(START_NS, depth_image(WALL, frame_id="depth"))
    (answer,) = known.answers([grounding_of(frame_of(HW, START_NS))], parameters, in_space=True)
    assert answer.status == Status.NO_DEPTH
    assert "aligned to the colour camera" in answer.reason


@pytest.mark.parametrize(
    ("image_frame", "info_frame", "depth_frame", "found"),
    [
        ("", "camera", "depth", None),
        ("", "", "camera", "camera"),
        ("", "camera", "", "camera"),
        ("camera", "", "", "camera"),
        ("", "", "", ""),
    ],
)
def test_a_position_is_in_the_frame_that_image_depth_and_camera_info_have_in_common(
    image_frame: str, info_frame: str, depth_frame: str, found: str | None
):
    known, parameters = Positions(lambda *_: np.eye(4)), Parameters()
    known.push_camera_info(camera_info(frame_id=info_frame), parameters)
    known.push_depth(START_NS, depth_image(WALL, frame_id=depth_frame))
    frame = replace(frame_of(HW, START_NS), frame_id=image_frame)
    (answer,) = known.answers([grounding_of(frame)], parameters, in_space=True)
    assert (answer.position and answer.position.frame_id) == found
    assert answer.status == (Status.NO_DEPTH if found is None else Status.FOUND)


@pytest.mark.parametrize(("min_samples", "status"), [(25, Status.FOUND), (26, Status.NO_DEPTH)])
def test_depths_around_the_point_are_as_many_as_the_parameters_say(
    min_samples: int, status: Status
):
    settings = {"depth.window_px": 5, "depth.min_samples": min_samples}
    known, parameters = Positions(lambda *_: np.eye(4)), Parameters.from_mapping(settings)
    known.push_camera_info(camera_info(frame_id=""), parameters)
    known.push_depth(START_NS, depth_image(WALL, frame_id=""))
    (answer,) = known.answers([grounding_of(frame_of(HW, START_NS))], parameters, in_space=True)
    assert answer.status == status
    assert (answer.position and answer.position.samples) == (25 if min_samples == 25 else None)


def test_the_target_frame_is_looked_up_at_the_stamp_of_the_image_not_of_its_windows_end():
    looked_up: list[tuple[str, str, int]] = []
    known = Positions(lambda *asked: looked_up.append(asked) or TO_BASE)
    parameters = Parameters.from_mapping({"target_frame": "base_link"})
    known.push_camera_info(camera_info(), parameters)
    known.push_depth(START_NS, depth_image(WALL))
    frame = replace(frame_of(HW, START_NS), frame_id="camera")
    later = replace(grounding_of(frame), window_end_ns=START_NS + 10**9)
    known.answers([later], parameters, in_space=True)
    assert looked_up == [("base_link", "camera", START_NS)]


@pytest.mark.parametrize(("encoding", "held"), [("32FC1", 4), ("16UC1", 8)])
def test_depth_is_held_up_to_a_number_of_its_bytes(
    monkeypatch: pytest.MonkeyPatch, encoding: str, held: int
):
    monkeypatch.setattr("videogem_ros.live.depth.HELD_BYTES", 4 * HW[0] * HW[1] * 4)
    known = Positions(lambda *_: np.eye(4))
    for number in range(10):
        known.push_depth(START_NS + number, depth_image(WALL, encoding=encoding))
    assert len(known.depth._held) == held


def test_markers_stand_at_the_positions(make_node: MakeNode, graph: Graph):
    node = make_node()
    node.on_camera_info(camera_info())
    node.on_depth(depth_image(WALL))
    node.on_action("pick up the cup\nopen the drawer")
    node.on_image(image(0.0))
    groundings = graph.wait("grounding", 2)
    clear, *markers = graph.wait("markers")[0].markers
    assert clear.action == clear.DELETEALL
    assert [(m.type, m.action) for m in markers] == [(2, 0), (9, 0)] * 2
    assert len({(m.ns, m.id) for m in markers}) == 4
    assert [m.text for m in markers[1::2]] == ["pick up the cup", "open the drawer"]
    for sphere, grounding in zip(markers[::2], groundings):
        assert sphere.header == grounding.header
        assert sphere.pose.position == grounding.position
        assert sphere.scale.x > 0
        assert sphere.color.a > 0
    assert markers[0].color != markers[2].color


def holes() -> np.ndarray:
    return np.full(HW, np.nan, np.float32)


WRONG_DEPTHS = {
    "too early": (depth_image(WALL, -1.0), "1.000 s apart"),
    "too late": (depth_image(WALL, 0.2), "0.200 s apart"),
    "other frame": (depth_image(WALL, frame_id="depth"), "aligned to the colour camera"),
    "other aspect": (depth_image(np.ones((48, 48), np.float32)), "another aspect"),
    "holes": (depth_image(holes()), "0 valid depths"),
    "unknown encoding": (image(0.0), "image.encoding"),
}


@pytest.mark.parametrize(("depth", "reason"), WRONG_DEPTHS.values(), ids=WRONG_DEPTHS)
def test_depth_that_does_not_serve_is_no_depth_and_says_why(
    make_node: MakeNode, graph: Graph, depth: Any, reason: str
):
    node = make_node(depth__wait_s=0.0)
    grounding = grounded(node, graph, depth, info=camera_info())
    assert grounding.status == Status.NO_DEPTH
    assert reason in grounding.reason
    assert not grounding.has_position
    assert grounding.fused_point.x > 0
    assert "point" not in graph.published
    assert len(graph.published["point_px"]) == 1
    node.tick()
    assert graph.diagnostics["answers NO_DEPTH"] == "1"
    assert reason in graph.diagnostics["now: no position"]


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (None, "no camera_info"),
        (camera_info(focal_px=(0, 0)), "no camera_info of a calibrated camera"),
        (camera_info(frame_id="other"), "camera_info is in the frame other"),
        (camera_info(hw=(64, 64)), "another aspect"),
    ],
)
def test_without_a_camera_there_is_no_position(
    make_node: MakeNode, graph: Graph, info: Any, reason: str
):
    grounding = grounded(make_node(), graph, depth_image(WALL), info=info)
    assert grounding.status == Status.NO_DEPTH
    assert reason in grounding.reason


@pytest.mark.parametrize(
    ("use", "depths", "status"),
    [
        ("auto", (), Status.FOUND),
        ("always", (), Status.NO_DEPTH),
        ("never", (depth_image(WALL),), Status.FOUND),
    ],
)
def test_depth_is_used_where_it_is_wanted(
    make_node: MakeNode, graph: Graph, use: str, depths: tuple[Any, ...], status: Status
):
    grounding = grounded(make_node(depth__use=use), graph, *depths, info=camera_info())
    assert grounding.status == status
    assert not grounding.has_position


def test_nobody_who_sees_positions_means_none_is_computed(
    make_node: MakeNode, graph: Graph, monkeypatch: pytest.MonkeyPatch
):
    decoded: list[Any] = []
    monkeypatch.setattr("videogem_ros.live.positions.depth_from_message", decoded.append)
    graph.everywhere, graph.subscriptions = 0, {"point_px": 1}
    node = make_node()
    node.on_camera_info(camera_info())
    node.on_depth(depth_image(WALL))
    node.on_action("pick up the cup")
    node.on_image(image(0.0))
    graph.wait("point_px")
    assert decoded == []
    assert graph.lines("error") == []


def test_an_action_that_is_not_there_has_no_position(make_node: MakeNode, graph: Graph):
    node = make_node(presence__threshold=1.0)
    grounding = grounded(node, graph, depth_image(WALL), info=camera_info())
    assert grounding.status == Status.NOT_PRESENT
    assert not grounding.has_position
    assert "point" not in graph.published


def test_depth_that_comes_after_its_image_is_waited_for(make_node: MakeNode, graph: Graph):
    node = make_node(depth__wait_s=5.0)
    node.on_camera_info(camera_info())
    node.on_depth(depth_image(WALL * 3, -0.04))  # within the tolerance, but not the best
    node.on_action("pick up the cup")
    node.on_image(image(0.0))
    threading.Timer(0.05, lambda: node.on_depth(depth_image(WALL, 0.0))).start()
    assert graph.wait("grounding")[0].position.z == 2.0


# Optical frame to a robot's base: x forward is z, y left is -x, z up is -y; then 1 m up.
TO_BASE = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.0], [0, 0, 0, 1]])


def test_depth_of_the_newest_image_is_there_however_late_the_command(
    make_node: MakeNode, graph: Graph
):
    node = make_node(mode="on_command")
    node.on_camera_info(camera_info())
    node.on_image(image(0.0))
    for step in range(4 * HELD):
        node.on_depth(depth_image(WALL, step / 30))
    node.on_action("pick up the cup")
    assert graph.wait("grounding")[0].position.z == pytest.approx(2.0)


def test_depth_of_what_is_being_grounded_outlasts_the_grounding(
    make_node: MakeNode, graph: Graph, gate: Gate
):
    node = make_node()
    node.on_camera_info(camera_info())
    node.on_depth(depth_image(WALL))
    node.on_action("pick up the cup")
    gate.close()
    node.on_image(image(0.0))
    gate.wait_entered()
    node.on_image(image(1.0))
    for step in range(1, 4 * HELD):
        node.on_depth(depth_image(2 * WALL, step / 30))
    gate.release()
    groundings = graph.wait("grounding", 2)
    assert [grounding.position.z for grounding in groundings] == pytest.approx([2.0, 4.0])


def test_positions_are_in_the_target_frame_at_the_images_stamp(make_node: MakeNode, graph: Graph):
    graph.transforms["base_link"] = TO_BASE
    node = make_node(target_frame="base_link")
    grounding = grounded(node, graph, depth_image(WALL), info=camera_info())
    assert grounding.status == Status.FOUND
    assert grounding.position_frame == "base_link"
    assert grounding.position.x == pytest.approx(2.0)
    assert grounding.position.y == pytest.approx(-(grounding.fused_point.x - 31) / 60 * 2)
    assert grounding.header.frame_id == "camera"
    assert graph.looked_up == [("base_link", "camera", START_NS)]
    (point,) = graph.published["point"]
    assert point.header.frame_id == "base_link"
    assert point.header.stamp == grounding.header.stamp
    assert point.point == grounding.position


@pytest.mark.parametrize(
    ("info_frame", "image_frame", "frame"),
    [("", "camera", "camera"), ("camera", "", "camera"), ("", "", "")],
)
def test_a_position_is_in_the_images_frame_where_camera_info_names_none(
    make_node: MakeNode, graph: Graph, info_frame: str, image_frame: str, frame: str
):
    node = make_node()
    node.on_camera_info(camera_info(frame_id=info_frame))
    node.on_depth(depth_image(WALL, frame_id=image_frame))
    node.on_action("pick up the cup")
    node.on_image(image(0.0, frame_id=image_frame))
    grounding = graph.wait("grounding")[0]
    assert (grounding.status, grounding.position_frame) == (Status.FOUND, frame)
    assert graph.wait("point")[0].header.frame_id == frame


def test_the_target_frame_is_looked_up_from_the_images_where_camera_info_names_none(
    make_node: MakeNode, graph: Graph
):
    graph.transforms["base_link"] = TO_BASE
    node = make_node(target_frame="base_link")
    info = camera_info(frame_id="")
    assert grounded(node, graph, depth_image(WALL), info=info).position_frame == "base_link"
    assert graph.looked_up == [("base_link", "camera", START_NS)]


def test_without_the_transform_the_position_is_the_cameras(make_node: MakeNode, graph: Graph):
    node = make_node(target_frame="base_link")
    grounding = grounded(node, graph, depth_image(WALL), info=camera_info())
    assert grounding.status == Status.NO_TRANSFORM
    assert grounding.reason == "no frame base_link"
    assert grounding.has_position
    assert grounding.position_frame == "camera"
    assert grounding.position.z == 2.0
    assert "point" not in graph.published
    graph.transforms["base_link"] = TO_BASE
    node.set_parameters({"target_frame": "camera"})
    node.on_image(image(0.01))
    assert graph.wait("grounding", 2)[1].status == Status.FOUND


def test_a_request_has_a_position_even_if_nobody_subscribes(make_node: MakeNode, graph: Graph):
    graph.everywhere = 0
    node = make_node()
    node.on_camera_info(camera_info())
    node.on_depth(depth_image(WALL))
    node.on_image(image(0.0))
    outcome = node.request("pick up the cup", PATIENCE_S)
    assert outcome.success
    assert outcome.groundings[0].position.z == 2.0


def test_a_request_without_its_position_has_no_success(make_node: MakeNode, graph: Graph):
    node = make_node(depth__use="always")
    node.on_image(image(0.0))
    outcome = node.request("pick up the cup", PATIENCE_S)
    assert not outcome.success
    assert outcome.groundings[0].status == Status.NO_DEPTH
    assert "camera_info" in outcome.reason


def test_missing_depth_and_camera_info_are_reported(make_node: MakeNode, graph: Graph):
    node = make_node(depth__use="always", depth__wait_s=0.0, image_timeout_s=0.01)
    threading.Event().wait(0.02)  # longer than the timeout
    node.tick()
    assert {"now: no depth", "now: no camera_info"} <= set(graph.diagnostics)
    node.set_parameters({"image_timeout_s": 60.0})
    node.on_depth(depth_image(WALL))
    node.on_camera_info(camera_info())
    node.tick()
    assert {"was: no depth", "was: no camera_info"} <= set(graph.diagnostics)
    assert graph.diagnostics["depth images"] == graph.diagnostics["camera infos"] == "1"


@pytest.mark.parametrize(("use", "level"), [("auto", "OK"), ("always", "WARN"), ("never", None)])
def test_depth_that_never_came_is_said_where_it_would_be_used(
    make_node: MakeNode, graph: Graph, use: str, level: str | None
):
    node = make_node(depth__use=use, image_timeout_s=0.01)
    threading.Event().wait(0.02)  # longer than the timeout
    node.tick()
    said = graph.diagnostics.get("now: no depth")
    assert (
        said is None
        if level is None
        else said.startswith(f"{level} no depth image on /robot/depth for")
    )


def test_depth_from_before_a_deactivation_is_forgotten(make_node: MakeNode, graph: Graph):
    node = make_node(depth__use="always", depth__wait_s=0.0)
    assert grounded(node, graph, depth_image(WALL), info=camera_info()).has_position
    for number, (again, missing) in enumerate(
        [(node.on_camera_info, "no depth image"), (node.on_depth, "no camera_info")], start=1
    ):
        node.deactivate()
        node.activate()
        again(camera_info() if number == 1 else depth_image(WALL))
        node.on_image(image(0.0))
        after = graph.wait("grounding", 1 + number)[number]
        assert after.status == Status.NO_DEPTH
        assert missing in after.reason


def test_a_camera_that_loses_its_calibration_has_no_positions(make_node: MakeNode, graph: Graph):
    node = make_node()
    node.on_camera_info(camera_info())
    node.on_camera_info(camera_info(focal_px=(0, 0)))
    grounding = grounded(node, graph, depth_image(WALL))
    assert grounding.status == Status.NO_DEPTH
    assert "no camera_info of a calibrated camera" in grounding.reason


def test_depth_without_stamp_gets_the_time_of_its_arrival(make_node: MakeNode, graph: Graph):
    node = make_node()
    depth = depth_image(WALL, -START_NS / 1e9)
    assert (depth.header.stamp.sec, depth.header.stamp.nanosec) == (0, 0)
    assert grounded(node, graph, depth, info=camera_info()).position.z == 2.0
    node.tick()
    assert graph.diagnostics["depth image stamps replaced"] == "1"


# Lenses


@pytest.mark.parametrize("rectified", [False, True])
def test_positions_are_by_what_the_images_are_rectified_or_not(
    make_node: MakeNode, graph: Graph, rectified: bool
):
    k = np.array([[30.0, 0, 31.5], [0, 30, 23.5], [0, 0, 1]])
    p, d = k * [[0.8], [0.8], [1]], np.array([-0.2, 0.05, 0, 0, 0])
    info = camera_info(HW, k=k, p=p, d=d)
    node = make_node(depth__rectified=rectified)
    found = grounded(node, graph, depth_image(WALL), info=info)
    there = np.array([[[found.position.x, found.position.y, found.position.z]]])
    wanted = (found.fused_point.x, found.fused_point.y)
    assert found.position.z == 2.0
    shown, _ = cv2.projectPoints(
        there, np.zeros(3), np.zeros(3), p if rectified else k, None if rectified else d
    )
    assert shown.reshape(2) == pytest.approx(wanted, abs=2e-3)
    node.set_parameters({"depth.rectified": not rectified})
    node.on_image(image(0.01, seed=START_NS))
    other = graph.wait("grounding", 2)[1].position
    assert abs(other.x - found.position.x) > 1e-3


def test_a_lens_that_the_images_may_still_show_is_said(make_node: MakeNode, graph: Graph):
    k = np.array([[30.0, 0, 31.5], [0, 30, 23.5], [0, 0, 1]])
    info = camera_info(HW, k=k, p=k, d=np.array([-0.2, 0.05, 0, 0, 0]))
    node = make_node(depth__rectified=True)
    node.on_camera_info(info)
    node.tick()
    assert graph.diagnostics["now: lens"].startswith("WARN D is not 0, but P is 0 or equals K")
    node.set_parameters({"depth.rectified": False})
    node.on_camera_info(info)
    node.tick()
    assert "was: lens" in graph.diagnostics

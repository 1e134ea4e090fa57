from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_graph import PATIENCE_S, START_NS, camera_info, depth_image

from videogem_ros.encodings import depth_from_message
from videogem_ros.errors import VideoGemError
from videogem_ros.live.camera import CameraIntrinsics, PositionUnknown
from videogem_ros.live.depth import HELD, HELD_BYTES, DepthBuffer, Position, locate_3d

HW = (48, 64)
CAMERA = CameraIntrinsics.from_message(camera_info(HW))
NS = 10**9


def plane_depths(
    camera: CameraIntrinsics, normal: tuple[float, float, float], offset_m: float
) -> np.ndarray:
    """Depth image of the plane normal . p = offset: z = offset / (normal . ray)."""
    rows, columns = np.indices(camera.hw)
    ray = ((columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy, np.ones(camera.hw))
    return (offset_m / sum(n * r for n, r in zip(normal, ray))).astype(np.float32)


def located(
    xy: tuple[float, float],
    depth_m: np.ndarray,
    camera: CameraIntrinsics = CAMERA,
    window_px: int = 11,
    min_samples: int = 5,
) -> Position:
    return locate_3d(
        xy, depth_m.astype(np.float32), camera, window_px=window_px, min_samples=min_samples
    )


def test_the_principal_point_of_a_flat_wall_is_straight_ahead():
    position = located((CAMERA.cx, CAMERA.cy), np.full(HW, 1.5))
    assert position.xyz_m == pytest.approx((0, 0, 1.5))
    assert position.spread_m == 0
    assert position.samples == 121
    assert position.frame_id == "camera"


@settings(max_examples=50, deadline=None)
@given(x=st.floats(-0.5, 63.5), y=st.floats(-0.5, 47.5), depth_m=st.floats(0.1, 20))
def test_a_position_projects_onto_its_pixel(x: float, y: float, depth_m: float):
    px, py, pz = located((x, y), np.full(HW, depth_m)).xyz_m
    assert pz == pytest.approx(depth_m, rel=1e-6)
    assert CAMERA.fx * px / pz + CAMERA.cx == pytest.approx(x, abs=1e-6)
    assert CAMERA.fy * py / pz + CAMERA.cy == pytest.approx(y, abs=1e-6)


def test_axes_are_those_of_an_optical_frame():
    x, y, z = located((60, 5), np.full(HW, 2.0)).xyz_m
    assert x > 0  # right
    assert y < 0  # up, since y points down
    assert z == 2.0


@pytest.mark.parametrize("normal", [(0.3, 0, 1), (0, -0.4, 1), (0.2, 0.5, 0.8)])
def test_a_point_of_a_tilted_plane_lies_on_the_plane(normal: tuple[float, float, float]):
    depths = plane_depths(CAMERA, normal, 1.2)
    position = located((20.0, 30.0), depths)
    assert np.dot(normal, position.xyz_m) == pytest.approx(1.2, rel=2e-3)
    assert position.spread_m > 0


def test_the_spread_is_the_standard_deviation_of_noise_and_outliers_do_not_count():
    noise = np.random.default_rng(0).normal(2.0, 0.01, (101, 101))
    camera = CameraIntrinsics(100, 100, 50, 50, (101, 101), "camera")
    outliers = noise.copy()
    outliers.reshape(-1)[::5] = 9.0
    for depths, tolerance in ((noise, 0.05), (outliers, 0.4)):
        position = located((50, 50), depths, camera, window_px=101)
        assert position.xyz_m[2] == pytest.approx(2.0, abs=0.005)
        assert position.spread_m == pytest.approx(0.01, rel=tolerance)


@pytest.mark.parametrize("hole", [0.0, -1.0, np.nan, np.inf, -np.inf])
def test_holes_do_not_count(hole: float):
    depths = np.full(HW, 1.0, np.float32)
    depths[20:25, :] = hole
    decoded = depth_from_message(depth_image(depths))
    position = located((30, 22), decoded)
    assert position.xyz_m[2] == 1.0
    assert position.samples == 121 - 55


def test_a_hole_as_large_as_the_window_is_no_position():
    depths = np.full(HW, 1.0)
    depths[:] = np.nan
    depths[22, 30:34] = 1.0
    with pytest.raises(PositionUnknown, match=r"4 valid depths of 121 .* 5 needed"):
        located((30, 22), depths)
    assert located((30, 22), depths, min_samples=4).samples == 4


@pytest.mark.parametrize(
    ("xy", "samples"),
    [((0, 0), 36), ((63, 47), 36), ((-0.5, -0.5), 36), ((63.5, 10), 66), ((32, 47.5), 66)],
)
def test_the_window_is_cut_at_the_borders(xy: tuple[float, float], samples: int):
    assert located(xy, np.full(HW, 1.0)).samples == samples


def test_a_window_of_one_pixel_never_misses_the_image():
    for xy in ((-0.5, -0.5), (63.5, 47.5)):
        assert located(xy, np.full(HW, 1.0), window_px=1, min_samples=1).samples == 1


@pytest.mark.parametrize("window_px", [1, 2, 3, 10])
def test_a_window_has_the_size_it_is_given(window_px: int):
    position = located((30, 22), np.full(HW, 1.0), window_px=window_px, min_samples=1)
    assert position.samples == window_px**2


@pytest.mark.parametrize("scale", [0.5, 2, 3])
def test_depth_of_another_size_tells_the_same_position(scale: float):
    normal = (0.1, 0.2, 1.0)
    fine = plane_depths(CAMERA.scaled((round(48 * scale), round(64 * scale))), normal, 1.0)
    position = located((40.0, 12.0), fine, window_px=3)
    assert position.xyz_m == pytest.approx(
        located((40.0, 12.0), plane_depths(CAMERA, normal, 1.0), window_px=3).xyz_m, abs=0.01
    )


@pytest.mark.parametrize(("hw", "place"), [((24, 32), (2, 1)), (HW, (5, 3)), ((96, 128), (10, 6))])
def test_the_depth_is_that_of_the_pixel_where_sizes_differ(
    hw: tuple[int, int], place: tuple[int, int]
):
    # Pixels' edges scale: of twice the size the colour pixel 3 is 6 and 7, its middle 6.5.
    row, column = place
    depths = np.arange(1.0, 1 + hw[0] * hw[1]).reshape(hw)
    position = located((3.0, 5.0), depths, window_px=1, min_samples=1)
    assert position.xyz_m[2] == depths[row, column]


def test_rows_and_columns_are_scaled_each_by_its_own_factor():
    # 848 of 1280 columns are 0.6625, 480 of 720 rows 0.6667, as of a RealSense.
    camera = CameraIntrinsics(600, 600, 639.5, 359.5, (720, 1280), "camera")
    rows, columns = np.indices((480, 848))
    position = located((1200, 600), 1000 * rows + columns, camera, window_px=1, min_samples=1)
    assert divmod(position.xyz_m[2], 1000) == (400, 795)


def test_millimetres_and_metres_say_the_same():
    depths = np.full(HW, 1.234, np.float32)
    depths[0, 0] = np.nan
    assert depth_from_message(depth_image(depths, encoding="16UC1")) == pytest.approx(
        depth_from_message(depth_image(depths)), nan_ok=True
    )


def test_a_transform_moves_the_position_and_leaves_the_spread():
    # Optical frame to a robot's: x forward is z, y left is -x, z up is -y; half a metre up.
    matrix = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1.0]])
    moved = Position((0.1, 0.2, 2.0), "camera", 0.01, 50).transformed(matrix, "base_link")
    assert moved == Position((2.0, -0.1, 0.3), "base_link", 0.01, 50)


# The buffer


def buffer_of(*stamps_ns: int) -> DepthBuffer:
    buffer = DepthBuffer()
    for stamp_ns in stamps_ns:
        buffer.push(stamp_ns, stamp_ns)
    return buffer


def test_the_depth_nearest_in_time_is_found():
    buffer = buffer_of(0, 33 * 10**6, 66 * 10**6)
    assert buffer.find(40 * 10**6, 0.05) == 33 * 10**6
    assert buffer.find(66 * 10**6, 0.0) == 66 * 10**6


@pytest.mark.parametrize(("stamps", "reason"), [((), "no depth image"), ((0,), "0.060 s apart")])
def test_without_depth_in_the_tolerance_there_is_none(stamps: tuple[int, ...], reason: str):
    with pytest.raises(PositionUnknown, match=reason):
        buffer_of(*stamps).find(60 * 10**6, 0.05)


def test_a_depth_image_that_is_on_its_way_is_waited_for():
    buffer = buffer_of(0)
    found = []
    thread = threading.Thread(target=lambda: found.append(buffer.find(NS // 10, 0.01, 5.0)))
    thread.start()
    buffer.push(NS // 10, "in time")
    thread.join(PATIENCE_S)
    assert found == ["in time"]


def test_a_wait_is_over_as_soon_as_the_depth_image_is_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("videogem_ros.live.depth.ALIVE_S", PATIENCE_S)
    buffer = buffer_of(0)
    begin_s = time.monotonic()
    timer = threading.Timer(0.05, buffer.push, (NS // 10, "in time"))
    timer.start()
    assert buffer.find(NS // 10, 0.01, PATIENCE_S) == "in time"
    assert time.monotonic() - begin_s < PATIENCE_S / 2
    timer.join()


def test_nothing_is_waited_for_where_a_later_depth_image_cannot_be_nearer(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("videogem_ros.live.depth.ALIVE_S", PATIENCE_S)
    begin_s = time.monotonic()
    assert buffer_of(0, NS // 30).find(NS // 100, 0.05, PATIENCE_S) == 0
    assert time.monotonic() - begin_s < PATIENCE_S / 2


def test_no_wait_is_longer_than_asked_although_the_stream_lives(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("videogem_ros.live.depth.ALIVE_S", PATIENCE_S)
    begin_s = time.monotonic()
    with pytest.raises(PositionUnknown):
        buffer_of(0).find(NS, 0.01, 0.05)
    assert 0.05 <= time.monotonic() - begin_s < PATIENCE_S / 2


@pytest.mark.parametrize("stamps", [(), (0,)])
def test_a_stream_that_never_came_or_has_ended_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, stamps: tuple[int, ...]
):
    monkeypatch.setattr("videogem_ros.live.depth.ALIVE_S", 0.05)
    begin_s = time.monotonic()
    with pytest.raises(PositionUnknown):
        buffer_of(*stamps).find(NS, 0.01, PATIENCE_S)
    assert time.monotonic() - begin_s < PATIENCE_S / 2


def test_what_was_expected_before_a_clearing_is_not_kept_after_it():
    buffer = buffer_of(START_NS)
    buffer.expect("one", START_NS)
    buffer.clear()
    for number in range(2 * HELD):
        buffer.push(START_NS + number * NS // 30, number)
    with pytest.raises(PositionUnknown, match="apart"):
        buffer.find(START_NS, 0.0)


def test_memory_is_bounded_and_what_is_being_grounded_is_kept():
    buffer = buffer_of(START_NS, START_NS + NS // 30)
    buffer.expect("one", START_NS)
    buffer.expect("another", START_NS + NS // 30)
    for number in range(2, 10 * HELD):
        buffer.push(START_NS + number * NS // 30, number)
    assert buffer.find(START_NS, 0.0) == START_NS
    assert buffer.find(START_NS + NS // 30, 0.0) == START_NS + NS // 30
    assert len(buffer._held) == HELD
    buffer.expect("one", START_NS + 9 * HELD * NS // 30)
    buffer.push(START_NS + HELD * NS, "newest")
    with pytest.raises(PositionUnknown, match=r"0\.033 s apart"):
        buffer.find(START_NS, 0.0)


@pytest.mark.parametrize(("nbytes", "held"), [(HELD_BYTES // 4, 4), (HELD_BYTES + 1, 2)])
def test_large_depth_images_are_fewer_but_the_newest_and_what_is_needed_are_there(
    nbytes: int, held: int
):
    buffer = DepthBuffer()
    buffer.expect("the window being grounded", START_NS)
    for number in range(10):
        buffer.push(START_NS + number * NS // 30, number, nbytes)
    assert len(buffer._held) == held
    assert buffer.find(START_NS, 0.0) == 0
    assert buffer.find(START_NS + 9 * NS // 30, 0.0) == 9


def test_a_second_of_hd_depth_is_held():
    buffer = DepthBuffer()
    for number in range(30):
        buffer.push(START_NS + number * NS // 30, number, 4 * 1280 * 720)
    assert buffer.find(START_NS, 0.0) == 0


def test_a_jump_back_in_time_forgets_the_depth_before_it():
    buffer = buffer_of(START_NS, START_NS + NS, START_NS - 5 * NS)
    with pytest.raises(PositionUnknown, match=r"6\.000 s apart"):
        buffer.find(START_NS + NS, 0.1)


def test_a_jump_back_in_time_keeps_what_is_expected():
    last_ns = START_NS + 10 * NS
    buffer = buffer_of(START_NS, last_ns)
    buffer.expect("the last window of a loop", last_ns)
    for number in range(10):
        buffer.push(START_NS + number * NS // 30, "the next loop")
    assert buffer.find(last_ns, 0.0) == last_ns
    assert buffer.find(START_NS, 0.0) == "the next loop"
    assert len(buffer._held) == 11


@pytest.mark.parametrize("expected", [True, False])
def test_the_first_depth_image_after_a_jump_is_waited_for(expected: bool):
    buffer = buffer_of(*(START_NS + number * NS for number in range(10)))
    if expected:
        buffer.expect("the last window of a loop", START_NS + 9 * NS)
    found = []
    thread = threading.Thread(target=lambda: found.append(buffer.find(START_NS - NS, 0.01, 5.0)))
    thread.start()
    buffer.push(START_NS - NS - NS // 30, "before it")
    buffer.push(START_NS - NS, "in time")
    thread.join(PATIENCE_S)
    assert found == ["in time"]


def test_stragglers_are_kept():
    buffer = buffer_of(START_NS, START_NS - NS // 10)
    assert buffer.find(START_NS - NS // 10, 0.0) == START_NS - NS // 10


def test_stragglers_drop_nothing_and_nothing_is_waited_for_because_of_them(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("videogem_ros.live.depth.ALIVE_S", PATIENCE_S)
    buffer = buffer_of(START_NS, START_NS - NS // 10)
    begin_s = time.monotonic()
    assert buffer.find(START_NS, 0.0, PATIENCE_S) == START_NS
    assert time.monotonic() - begin_s < PATIENCE_S / 2


def test_reasons_are_errors_of_the_package():
    assert issubclass(PositionUnknown, VideoGemError)

"""The tree of frames, against rotations and interpolation done by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from videogem_ros.adapters.dds.transforms import TransformBuffer
from videogem_ros.live.middleware import TransformUnavailable
from videogem_ros.live.types import typestore

S = 10**9
HALF = np.sqrt(0.5)
QUARTER_TURN_Z = (0.0, 0.0, HALF, HALF)
LEVEL = (0.0, 0.0, 0.0, 1.0)


def transform(
    parent: str,
    child: str,
    xyz: tuple[float, float, float] = (0.0, 0.0, 0.0),
    turn: tuple[float, float, float, float] = LEVEL,
    stamp_ns: int = 0,
) -> Any:
    kinds = typestore().types
    stamp = kinds["builtin_interfaces/msg/Time"](*divmod(stamp_ns, S))
    pose = kinds["geometry_msgs/msg/Transform"](
        kinds["geometry_msgs/msg/Vector3"](*xyz), kinds["geometry_msgs/msg/Quaternion"](*turn)
    )
    head = kinds["std_msgs/msg/Header"](stamp, parent)
    stamped = kinds["geometry_msgs/msg/TransformStamped"](head, child, pose)
    return kinds["tf2_msgs/msg/TFMessage"]([stamped])


@pytest.fixture
def buffer() -> TransformBuffer:
    """A base with a camera that looks forward and a mast that rises by a metre a second."""
    buffer = TransformBuffer()
    buffer.add_static(transform("base", "camera", (0.5, 0, 1), QUARTER_TURN_Z))
    for second in range(3):
        buffer.add(transform("base", "mast", (0, 0, second), stamp_ns=second * S))
    return buffer


def moved(matrix: np.ndarray, xyz: tuple[float, float, float]) -> list[float]:
    return (matrix @ [*xyz, 1])[:3].tolist()


def test_a_point_of_a_child_is_rotated_and_shifted_into_the_parent(
    buffer: TransformBuffer,
) -> None:
    # A quarter turn to the left: the camera's x is the base's y.
    matrix = buffer.lookup("base", "camera", 5 * S)
    assert moved(matrix, (1, 0, 0)) == pytest.approx([0.5, 1, 1])
    assert matrix @ buffer.lookup("camera", "base", 5 * S) == pytest.approx(np.eye(4))


def test_rotations_and_shifts_of_a_chain_are_taken_from_the_child_up() -> None:
    buffer = TransformBuffer()
    buffer.add_static(transform("base", "mast", (0, 0, 2), QUARTER_TURN_Z))
    buffer.add(transform("mast", "camera", (1, 0, 0), (HALF, 0, 0, HALF), stamp_ns=S))
    # The camera's y is the mast's z; the mast's x is the base's y.
    matrix = buffer.lookup("base", "camera", S)
    assert moved(matrix, (0, 0, 0)) == pytest.approx([0, 1, 2])
    assert moved(matrix, (0, 1, 0)) == pytest.approx([0, 1, 3])
    assert moved(buffer.lookup("camera", "base", S), (0, 1, 3)) == pytest.approx([0, 1, 0])


def test_moving_frames_are_interpolated(buffer: TransformBuffer) -> None:
    assert moved(buffer.lookup("base", "mast", 1_250_000_000), (0, 0, 0)) == [0, 0, 1.25]
    assert moved(buffer.lookup("mast", "camera", S), (0, 0, 0)) == pytest.approx([0.5, 0, 0])


@pytest.mark.parametrize("degrees", [90, 0.3])
@pytest.mark.parametrize("scale", [1, -1, 2])  # neither sign nor length mean anything
def test_rotations_are_interpolated_at_constant_speed(degrees: float, scale: float) -> None:
    buffer = TransformBuffer()
    half = np.radians(degrees) / 2
    turn = (0.0, 0.0, scale * np.sin(half), scale * np.cos(half))
    buffer.add(transform("a", "b", turn=LEVEL))
    buffer.add(transform("a", "b", turn=turn, stamp_ns=3 * S))
    x, y, _ = moved(buffer.lookup("a", "b", S), (1, 0, 0))
    assert np.degrees(np.arctan2(y, x)) == pytest.approx(degrees / 3)


def test_the_sign_of_a_quaternion_means_nothing() -> None:
    buffer = TransformBuffer()
    buffer.add(transform("a", "b", turn=LEVEL))
    buffer.add(transform("a", "b", turn=(0, 0, 0, -1), stamp_ns=S))
    assert buffer.lookup("a", "b", S // 2) == pytest.approx(np.eye(4))


def test_a_frame_is_itself_and_slashes_do_not_matter(buffer: TransformBuffer) -> None:
    assert (buffer.lookup("unheard_of", "unheard_of", 0) == np.eye(4)).all()
    buffer.add_static(transform("/base", "/gripper", (1, 2, 3)))
    assert moved(buffer.lookup("/base", "gripper", 0), (0, 0, 0)) == [1, 2, 3]
    assert moved(buffer.lookup("base", "/gripper", 0), (0, 0, 0)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("target", "source", "stamp_ns", "reason"),
    [
        ("base", "mast", 3 * S, r"only from 0.000 to 2.000 s"),
        ("base", "mast", -1, "no transform of 'mast'"),
        ("base", "elsewhere", S, "not connected"),
        ("elsewhere", "base", S, "not connected"),
    ],
)
def test_what_is_not_known_has_a_reason(
    buffer: TransformBuffer, target: str, source: str, stamp_ns: int, reason: str
) -> None:
    with pytest.raises(TransformUnavailable, match=reason):
        buffer.lookup(target, source, stamp_ns)


def test_a_circle_is_noticed(buffer: TransformBuffer) -> None:
    buffer.add_static(transform("camera", "base"))
    for target, source in (("mast", "camera"), ("camera", "mast")):
        with pytest.raises(TransformUnavailable, match="form a loop"):
            buffer.lookup(target, source, S)


@pytest.mark.parametrize(
    ("xyz", "turn"),
    [
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (np.nan, 0.0, 0.0, 1.0)),
        ((0.0, 0.0, 0.0), (np.inf, 0.0, 0.0, 1.0)),
        ((0.0, np.nan, 0.0), LEVEL),
        ((np.inf, 0.0, 0.0), LEVEL),
    ],
)
def test_what_is_no_transform_is_passed_over(
    buffer: TransformBuffer,
    xyz: tuple[float, float, float],
    turn: tuple[float, float, float, float],
) -> None:
    buffer.add_static(transform("base", "broken", xyz, turn))
    with pytest.raises(TransformUnavailable):
        buffer.lookup("base", "broken", 0)


def test_old_poses_are_forgotten_and_time_may_start_over(buffer: TransformBuffer) -> None:
    buffer.add(transform("base", "mast", (0, 0, 9), stamp_ns=11 * S))
    with pytest.raises(TransformUnavailable):
        buffer.lookup("base", "mast", 0)
    for second in (0, 1):
        buffer.add(transform("base", "mast", (0, 0, 5), stamp_ns=second * S))
    assert moved(buffer.lookup("base", "mast", S // 2), (0, 0, 0)) == [0, 0, 5]


def test_what_lies_above_the_common_ancestor_need_not_be_known() -> None:
    """A localiser lags behind the odometry by a second, as they do."""
    buffer = TransformBuffer()
    buffer.add_static(transform("base", "camera", (0.5, 0, 1)))
    buffer.add_static(transform("base", "mast", (0, 0, 2)))
    for step in range(21):
        buffer.add(transform("odom", "base", (step / 10, 0, 0), stamp_ns=step * S // 10))
    for step in range(11):
        buffer.add(transform("map", "odom", (7, 0, 0), stamp_ns=step * S // 10))
    late_ns = 3 * S // 2
    assert moved(buffer.lookup("base", "camera", late_ns), (0, 0, 0)) == [0.5, 0, 1]
    assert moved(buffer.lookup("mast", "camera", late_ns), (0, 0, 0)) == [0.5, 0, -1]
    assert moved(buffer.lookup("odom", "camera", late_ns), (0, 0, 0)) == [2, 0, 1]
    assert moved(buffer.lookup("map", "camera", S), (0, 0, 0)) == [8.5, 0, 1]
    # Not even odometry is of that time.
    assert moved(buffer.lookup("base", "camera", 9 * S), (0, 0, 0)) == [0.5, 0, 1]
    with pytest.raises(TransformUnavailable, match=r"'odom' at 1.500 s, only from 0.000"):
        buffer.lookup("map", "camera", late_ns)


def test_a_frame_that_changes_its_parent_has_the_one_of_the_time() -> None:
    """A cup on a table is grasped after 1 s."""
    buffer = TransformBuffer()
    buffer.add_static(transform("world", "table", (2, 0, 0)))
    buffer.add_static(transform("world", "gripper", (0, 0, 1)))
    for step in range(11):
        buffer.add(transform("table", "cup", (0.1, 0, 0), stamp_ns=step * S // 10))
    for step in range(12, 21):
        buffer.add(transform("gripper", "cup", (0, 0, 0), stamp_ns=step * S // 10))
    assert moved(buffer.lookup("world", "cup", S // 2), (0, 0, 0)) == [2.1, 0, 0]
    assert moved(buffer.lookup("world", "cup", 3 * S // 2), (0, 0, 0)) == [0, 0, 1]
    # In between the two poses have nothing to interpolate: the older one, as in tf2.
    assert moved(buffer.lookup("world", "cup", 23 * S // 20), (0, 0, 0)) == [2.1, 0, 0]


def test_a_time_that_starts_over_within_the_history_mixes_no_runs() -> None:
    buffer = TransformBuffer()
    for step in range(81):
        buffer.add(transform("base", "mast", (0, 0, 1), stamp_ns=step * S // 10))
    for step in range(3):
        buffer.add(transform("base", "mast", (0, 0, 5), stamp_ns=step * S // 10))
    assert moved(buffer.lookup("base", "mast", S // 20), (0, 0, 0)) == [0, 0, 5]
    with pytest.raises(TransformUnavailable, match=r"only from 0.000 to 0.200 s"):
        buffer.lookup("base", "mast", S)


@pytest.mark.parametrize(("back_ms", "starts_over"), [(1000, False), (1001, True)])
def test_time_starts_over_where_a_pose_is_more_than_a_second_late(
    buffer: TransformBuffer, back_ms: int, starts_over: bool
) -> None:
    buffer.add(transform("base", "mast", stamp_ns=2 * S - back_ms * 10**6))
    assert len(buffer) == 1 + (1 if starts_over else 3)


def test_a_pose_that_comes_late_finds_its_place() -> None:
    buffer = TransformBuffer()
    for second in (0.0, 1.0, 0.5):
        buffer.add(transform("base", "mast", (0, 0, second**2), stamp_ns=round(second * S)))
    assert moved(buffer.lookup("base", "mast", 3 * S // 4), (0, 0, 0)) == [0, 0, 0.625]


def test_of_poses_of_one_stamp_the_last_is_held_and_loops_do_not_pile_up() -> None:
    buffer = TransformBuffer()
    for count in range(100):
        buffer.add(transform("base", "mast", (0, 0, count), stamp_ns=S))
    assert len(buffer) == 1
    assert moved(buffer.lookup("base", "mast", S), (0, 0, 0)) == [0, 0, 99]
    for step in range(5 * 80):
        buffer.add(transform("base", "mast", stamp_ns=step % 80 * S // 10))
    assert len(buffer) == 80


def test_a_clock_that_jumped_back_leaves_what_is_static(buffer: TransformBuffer) -> None:
    buffer.clear()
    assert moved(buffer.lookup("base", "camera", S), (0, 0, 0)) == [0.5, 0, 1]
    with pytest.raises(TransformUnavailable, match="not connected"):
        buffer.lookup("base", "mast", S)


def test_a_frame_is_static_or_moving_as_was_said_last(buffer: TransformBuffer) -> None:
    buffer.add(transform("mast", "camera", (0, 0, 3), stamp_ns=S))
    assert moved(buffer.lookup("base", "camera", S), (0, 0, 0)) == [0, 0, 4]
    buffer.add_static(transform("base", "camera", (0, 0, 8)))
    assert moved(buffer.lookup("base", "camera", 9 * S), (0, 0, 0)) == [0, 0, 8]
    assert len(buffer) == 1 + 3  # nothing of what moved is left

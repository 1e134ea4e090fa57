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


def test_moving_frames_are_interpolated(buffer: TransformBuffer) -> None:
    assert moved(buffer.lookup("base", "mast", 1_250_000_000), (0, 0, 0)) == [0, 0, 1.25]
    assert moved(buffer.lookup("mast", "camera", S), (0, 0, 0)) == pytest.approx([0.5, 0, 0])


def test_rotations_are_interpolated_at_constant_speed() -> None:
    buffer = TransformBuffer()
    buffer.add(transform("a", "b", turn=LEVEL))
    buffer.add(transform("a", "b", turn=QUARTER_TURN_Z, stamp_ns=3 * S))
    x, y, _ = moved(buffer.lookup("a", "b", S), (1, 0, 0))
    assert np.degrees(np.arctan2(y, x)) == pytest.approx(30)


def test_the_sign_of_a_quaternion_means_nothing() -> None:
    buffer = TransformBuffer()
    buffer.add(transform("a", "b", turn=LEVEL))
    buffer.add(transform("a", "b", turn=(0, 0, 0, -1), stamp_ns=S))
    assert buffer.lookup("a", "b", S // 2) == pytest.approx(np.eye(4))


def test_a_frame_is_itself_and_slashes_do_not_matter(buffer: TransformBuffer) -> None:
    assert (buffer.lookup("unheard_of", "unheard_of", 0) == np.eye(4)).all()
    buffer.add_static(transform("/base", "/gripper", (1, 2, 3)))
    assert moved(buffer.lookup("/base", "gripper", 0), (0, 0, 0)) == [1, 2, 3]


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
    with pytest.raises(TransformUnavailable, match="circle"):
        buffer.lookup("mast", "camera", S)


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0, 0.0), (np.nan, 0.0, 0.0, 1.0)])
def test_what_is_no_rotation_is_passed_over(
    buffer: TransformBuffer, turn: tuple[float, float, float, float]
) -> None:
    buffer.add_static(transform("base", "broken", turn=turn))
    with pytest.raises(TransformUnavailable):
        buffer.lookup("base", "broken", 0)


def test_old_poses_are_forgotten_and_time_may_start_over(buffer: TransformBuffer) -> None:
    buffer.add(transform("base", "mast", (0, 0, 9), stamp_ns=11 * S))
    with pytest.raises(TransformUnavailable):
        buffer.lookup("base", "mast", 0)
    for second in (0, 1):
        buffer.add(transform("base", "mast", (0, 0, 5), stamp_ns=second * S))
    assert moved(buffer.lookup("base", "mast", S // 2), (0, 0, 0)) == [0, 0, 5]

"""TF without tf2: the tree of frames on ``/tf`` and ``/tf_static``, looked up at a time."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from videogem_ros.adapters.encodings import header_stamp_ns
from videogem_ros.live.middleware import TransformUnavailable

HISTORY_S = 10.0
"""How long transforms are remembered, as in tf2."""

Matrix = npt.NDArray[np.float64]
_Pose = tuple[int, Matrix, Matrix]  # stamp in nanoseconds, xyz in metres, quaternion xyzw


class TransformBuffer:
    """Transforms of the last seconds; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parents: dict[str, str] = {}
        self._static: dict[str, _Pose] = {}
        self._moving: dict[str, list[_Pose]] = {}  # stamps increasing

    def add(self, message: Any) -> None:
        """Takes in a ``tf2_msgs/TFMessage`` of ``/tf``."""
        for frame, parent, pose in _poses(message):
            with self._lock:
                self._parents[frame] = parent
                poses = self._moving.setdefault(frame, [])
                if poses and poses[-1][0] - pose[0] > HISTORY_S * 1e9:
                    poses.clear()  # time has jumped back
                insort(poses, pose, key=_stamp_ns)
                del poses[: bisect_left(poses, poses[-1][0] - HISTORY_S * 1e9, key=_stamp_ns)]

    def add_static(self, message: Any) -> None:
        """Takes in a ``tf2_msgs/TFMessage`` of ``/tf_static``."""
        for frame, parent, pose in _poses(message):
            with self._lock:
                self._parents[frame] = parent
                self._static[frame] = pose

    def lookup(self, target_frame: str, source_frame: str, stamp_ns: int) -> Matrix:
        """The transform that takes points of the source frame into the target frame.

        Args:
            target_frame: Frame that coordinates are wanted in.
            source_frame: Frame of the coordinates that are there.
            stamp_ns: Time of the transform, nanoseconds.

        Returns:
            (4, 4) float64, homogeneous, metres.

        Raises:
            TransformUnavailable: A frame is not known, the two are not connected, or there is no
                transform at that time.
        """
        with self._lock:
            sources = self._to_ancestors(source_frame.lstrip("/"), stamp_ns)
            targets = self._to_ancestors(target_frame.lstrip("/"), stamp_ns)
        for frame, from_source in sources.items():
            if frame in targets:
                return np.asarray(np.linalg.inv(targets[frame]) @ from_source)
        raise TransformUnavailable(
            f"no transform from {source_frame!r} to {target_frame!r}: not connected, of "
            f"{len(self._parents)} frames known"
        )

    def _to_ancestors(self, frame: str, stamp_ns: int) -> dict[str, Matrix]:
        """Transforms from a frame to itself, its parent, and so on to the root."""
        transform = np.eye(4)
        ancestors = {frame: transform}
        while frame in self._parents:
            transform = self._to_parent(frame, stamp_ns) @ transform
            frame = self._parents[frame]
            if frame in ancestors:
                raise TransformUnavailable(f"the transforms of {frame!r} go round in a circle")
            ancestors[frame] = transform
        return ancestors

    def _to_parent(self, frame: str, stamp_ns: int) -> Matrix:
        if frame in self._static:
            return _matrix(*self._static[frame][1:])
        poses = self._moving[frame]
        after = bisect_left(poses, stamp_ns, key=_stamp_ns)
        if after < len(poses) and poses[after][0] == stamp_ns:
            return _matrix(*poses[after][1:])
        if not 0 < after < len(poses):
            known_s = (poses[0][0] / 1e9, poses[-1][0] / 1e9)
            raise TransformUnavailable(
                f"no transform of {frame!r} at {stamp_ns / 1e9:.3f} s, only from "
                f"{known_s[0]:.3f} to {known_s[1]:.3f} s"
            )
        (begin_ns, xyz_0, turn_0), (end_ns, xyz_1, turn_1) = poses[after - 1 : after + 1]
        share = (stamp_ns - begin_ns) / (end_ns - begin_ns)
        return _matrix(xyz_0 + share * (xyz_1 - xyz_0), _slerp(turn_0, turn_1, share))


def _poses(message: Any) -> Iterator[tuple[str, str, _Pose]]:
    """Frame, its parent and its pose there, but for transforms that are none."""
    for stamped in message.transforms:
        t, q = stamped.transform.translation, stamped.transform.rotation
        xyz, turn = np.array([t.x, t.y, t.z]), np.array([q.x, q.y, q.z, q.w])
        norm = float(np.linalg.norm(turn))
        if norm > 0 and np.isfinite([norm, *xyz]).all():
            frame, parent = stamped.child_frame_id, stamped.header.frame_id
            pose = (header_stamp_ns(stamped), xyz, turn / norm)
            yield frame.lstrip("/"), parent.lstrip("/"), pose


def _stamp_ns(pose: _Pose) -> int:
    return pose[0]


def _slerp(begin: Matrix, end: Matrix, share: float) -> Matrix:
    """Rotation at constant speed between two unit quaternions (Shoemake 1985)."""
    cosine = float(begin @ end)
    if cosine < 0:  # the shorter way
        end, cosine = -end, -cosine
    angle = np.arccos(min(cosine, 1.0))
    if angle < 1e-6:
        return end
    turn = np.sin((1 - share) * angle) * begin + np.sin(share * angle) * end
    return np.asarray(turn / np.sin(angle))


def _matrix(xyz: Matrix, turn: Matrix) -> Matrix:
    x, y, z, w = turn
    matrix = np.eye(4)
    matrix[:3, 3] = xyz
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return matrix

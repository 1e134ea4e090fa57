"""TF without tf2: the tree of frames on ``/tf`` and ``/tf_static``, looked up at a time."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from videogem_ros.encodings import header_stamp_ns
from videogem_ros.live.middleware import TransformUnavailable, rigid_matrix

HISTORY_S = 10.0
"""How long transforms are remembered, as in tf2."""

TIME_JUMP_S = 1.0
"""A pose older than the newest of its frame by more than this means that time starts over."""

Matrix = npt.NDArray[np.float64]


class _Pose(NamedTuple):
    """A frame in its parent: stamp in nanoseconds, xyz in metres, unit quaternion xyzw."""

    stamp_ns: int
    parent: str
    xyz: Matrix
    turn: Matrix

    @property
    def matrix(self) -> Matrix:
        """From the frame into its parent, (4, 4)."""
        return rigid_matrix(self.xyz, self.turn)


class TransformBuffer:
    """Transforms of the last seconds; safe for threads.

    As in tf2, every pose names its parent, so a frame may change its parent, and a frame is static
    or moving, whichever was received last.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._static: dict[str, _Pose] = {}
        self._moving: dict[str, list[_Pose]] = {}  # stamps strictly increasing, at least one

    def __len__(self) -> int:
        """Poses held."""
        with self._lock:
            return len(self._static) + sum(map(len, self._moving.values()))

    def add(self, message: Any) -> None:
        """Takes in a ``tf2_msgs/TFMessage`` of ``/tf``."""
        for frame, pose in _poses(message):
            with self._lock:
                self._static.pop(frame, None)
                _insert(self._moving.setdefault(frame, []), pose)

    def add_static(self, message: Any) -> None:
        """Takes in a ``tf2_msgs/TFMessage`` of ``/tf_static``."""
        for frame, pose in _poses(message):
            with self._lock:
                self._moving.pop(frame, None)
                self._static[frame] = pose

    def clear(self) -> None:
        """Forgets all but what is static: the clock has jumped back (as in tf2)."""
        with self._lock:
            self._moving.clear()

    def lookup(self, target_frame: str, source_frame: str, stamp_ns: int) -> Matrix:
        """The transform that takes points of the source frame into the target frame.

        Args:
            target_frame: Frame that coordinates are wanted in.
            source_frame: Frame of the coordinates that are there.
            stamp_ns: Time of the transform, nanoseconds.

        Returns:
            (4, 4) float64, homogeneous, metres.

        Raises:
            TransformUnavailable: A frame is not known, the two are not connected, or one between
                them has no transform at that time.
        """
        with self._lock:
            sources = self._to_root(source_frame.lstrip("/"), stamp_ns)
            targets = self._to_root(target_frame.lstrip("/"), stamp_ns)
            shared = next((frame for frame in sources if frame in targets), None)
            if shared is None:
                known = len(self._static) + len(self._moving)
                raise TransformUnavailable(
                    f"no transform from {source_frame!r} to {target_frame!r}: not connected; "
                    f"{known} frames are known"
                )
            # Transforms above the common ancestor are not needed.
            from_source = self._along(sources[: sources.index(shared)], stamp_ns)
            from_target = self._along(targets[: targets.index(shared)], stamp_ns)
        return np.asarray(np.linalg.inv(from_target) @ from_source)

    def _to_root(self, frame: str, stamp_ns: int) -> list[str]:
        """A frame and its ancestors at a time; by the nearest pose where none covers the time."""
        frames = [frame]
        while around := self._around(frame, stamp_ns):
            frame = around[0].parent
            if frame in frames:
                raise TransformUnavailable(f"the transforms of {frame!r} form a loop")
            frames.append(frame)
        return frames

    def _along(self, frames: list[str], stamp_ns: int) -> Matrix:
        """From the first frame of a chain of ancestors into the parent of the last."""
        transform = np.eye(4)
        for frame in frames:
            transform = self._to_parent(frame, stamp_ns) @ transform
        return transform

    def _to_parent(self, frame: str, stamp_ns: int) -> Matrix:
        if frame in self._static:
            return self._static[frame].matrix
        poses = self._moving[frame]
        if not poses[0].stamp_ns <= stamp_ns <= poses[-1].stamp_ns:
            raise TransformUnavailable(
                f"no transform of {frame!r} at {stamp_ns / 1e9:.3f} s, only from "
                f"{poses[0].stamp_ns / 1e9:.3f} to {poses[-1].stamp_ns / 1e9:.3f} s"
            )
        before, after = self._around(frame, stamp_ns)
        if before.stamp_ns == stamp_ns or before.parent != after.parent:
            return before.matrix
        share = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
        xyz = before.xyz + share * (after.xyz - before.xyz)
        return rigid_matrix(xyz, _slerp(before.turn, after.turn, share))

    def _around(self, frame: str, stamp_ns: int) -> tuple[_Pose, ...]:
        """The poses before (or at) and after a time, one twice at an end; none of a root."""
        if frame in self._static:
            return (self._static[frame],) * 2
        poses = self._moving.get(frame, ())
        if not poses:
            return ()
        after = bisect_right(poses, stamp_ns, key=_stamp_ns)
        return poses[max(after - 1, 0)], poses[min(after, len(poses) - 1)]


def _insert(poses: list[_Pose], pose: _Pose) -> None:
    """Inserts a pose by its stamp, in place of one of the same stamp; forgets old ones."""
    if poses and poses[-1].stamp_ns - pose.stamp_ns > TIME_JUMP_S * 1e9:
        poses.clear()
    place = bisect_left(poses, pose.stamp_ns, key=_stamp_ns)
    poses[place : bisect_right(poses, pose.stamp_ns, key=_stamp_ns)] = [pose]
    del poses[: bisect_left(poses, poses[-1].stamp_ns - HISTORY_S * 1e9, key=_stamp_ns)]


def _poses(message: Any) -> Iterator[tuple[str, _Pose]]:
    """Frames with their poses; transforms with a zero quaternion or NaN are left out."""
    for stamped in message.transforms:
        t, q = stamped.transform.translation, stamped.transform.rotation
        xyz, turn = np.array([t.x, t.y, t.z]), np.array([q.x, q.y, q.z, q.w])
        norm = float(np.linalg.norm(turn))
        if norm > 0 and np.isfinite([norm, *xyz]).all():
            parent = stamped.header.frame_id.lstrip("/")
            pose = _Pose(header_stamp_ns(stamped), parent, xyz, turn / norm)
            yield stamped.child_frame_id.lstrip("/"), pose


def _stamp_ns(pose: _Pose) -> int:
    return pose.stamp_ns


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

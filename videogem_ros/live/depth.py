"""A point in the image and an aligned depth image make a point in space.

Everything is in the camera's optical frame (REP-103: x right, y down, z forward), in metres along
the optical axis (REP-118). The depth image has the colour image's distortion: rectified for a
rectified image, and distorted by the lens for a raw one.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from videogem_ros.live.camera import CameraIntrinsics, PositionUnknown, rescaled, scales
from videogem_ros.window import NS_PER_S

HELD = 32
"""Most depth images that are held, about a second of them."""

HELD_BYTES = 512 * 2**20
"""Most bytes of them; a 4K image of 32FC1 has 33 MB. The newest and what is needed are held."""

ALIVE_S = 1.0
"""Depth is waited for only if the last depth image arrived within this time."""

TIME_JUMP_S = 0.5
"""A depth stamp that goes back by more than this means that time has jumped (bag loop)."""

MAD_TO_SIGMA = 1.4826
"""Ratio of standard deviation to median absolute deviation of a normal distribution."""


@dataclass(frozen=True)
class Position:
    """A point in space.

    Attributes:
        xyz_m: x, y and z in metres.
        frame_id: The frame they are in.
        spread_m: 1.4826 times the median absolute deviation of the depths around the point, in
            metres: the standard deviation for normally distributed depths, and robust to fewer
            than half of them being outliers.
        samples: Number of valid depths around the point.
    """

    xyz_m: tuple[float, float, float]
    frame_id: str
    spread_m: float
    samples: int

    def transformed(self, matrix: npt.NDArray[np.float64], frame_id: str) -> Position:
        """The same point in another frame.

        Args:
            matrix: (4, 4) homogeneous transform from this frame into the other, metres.
            frame_id: The other frame.
        """
        x, y, z, _ = (float(value) for value in matrix @ (*self.xyz_m, 1.0))
        return Position((x, y, z), frame_id, self.spread_m, self.samples)


def locate_3d(
    xy: tuple[float, float],
    depth_m: npt.NDArray[np.float32],
    camera: CameraIntrinsics,
    *,
    window_px: int,
    min_samples: int,
) -> Position:
    """The position of a pixel of the colour image in space, at the median depth around it.

    Args:
        xy: The point, in pixels of the colour image.
        depth_m: (h, w) float32 metres, NaN where unknown; the same view as the colour image, in
            any size.
        camera: Intrinsics for the colour image's size.
        window_px: Side of the square around the point, in depth pixels; cut at the borders.
        min_samples: Fewest valid depths in the square.

    Returns:
        The position in the camera's optical frame; see :meth:`CameraIntrinsics.from_message`.

    Raises:
        PositionUnknown: Too few valid depths around the point, or the lens shows nothing there.
    """
    scale_y, scale_x = scales(camera.hw, depth_m.shape)
    column, row = rescaled(xy, (scale_x, scale_y))
    top, left = (
        round(min(max(centre, 0), size - 1) - (window_px - 1) / 2)
        for centre, size in zip((row, column), depth_m.shape)
    )
    around = depth_m[max(top, 0) : top + window_px, max(left, 0) : left + window_px]
    depths = around[np.isfinite(around)]
    if depths.size < min_samples:
        raise PositionUnknown(
            f"{depths.size} valid depths of {around.size} around the point, {min_samples} needed"
        )
    median = float(np.median(depths))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(depths - median)))
    return Position(camera.at_depth(xy, median), camera.frame_id, spread, int(depths.size))


@dataclass(frozen=True, eq=False)
class _Held:
    stamp_ns: int
    message: Any
    nbytes: int


class DepthBuffer:
    """The latest depth messages, found by their stamps; safe for threads.

    Messages are not decoded here, so that depth that is never used costs nothing.
    """

    def __init__(self) -> None:
        self._held: list[_Held] = []
        self._newest_ns = -math.inf  # since time last jumped
        self._expected: dict[str, int] = {}
        self._arrived_s = -math.inf
        self._changed = threading.Condition()

    def push(self, stamp_ns: int, message: Any, nbytes: int = 0) -> None:
        """Take a ``sensor_msgs/Image`` of depth in, and how many bytes it has."""
        with self._changed:
            if self._newest_ns - stamp_ns > TIME_JUMP_S * NS_PER_S:
                kept = self._kept()
                self._held = [held for held in self._held if held in kept]
                self._newest_ns = -math.inf
            self._newest_ns = max(self._newest_ns, stamp_ns)
            self._held.append(_Held(stamp_ns, message, nbytes))
            self._make_room()
            self._arrived_s = time.monotonic()
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget everything."""
        with self._changed:
            self._held, self._expected, self._newest_ns = [], {}, -math.inf

    def expect(self, what: str, stamp_ns: int) -> None:
        """Keep the message nearest to a stamp, however many arrive after it.

        Args:
            what: Why it may be needed; a later stamp for the same reason replaces this one.
            stamp_ns: Stamp of a colour image.
        """
        with self._changed:
            self._expected[what] = stamp_ns

    def find(self, stamp_ns: int, tolerance_s: float, wait_s: float = 0.0) -> Any:
        """The message nearest to a stamp.

        Args:
            stamp_ns: Stamp of the colour image.
            tolerance_s: Most seconds between the stamps.
            wait_s: Longest wait for one that has not arrived yet.

        Raises:
            PositionUnknown: There is none within the tolerance.
        """
        deadline_s = time.monotonic() + wait_s
        with self._changed:
            while not self._settled(stamp_ns, tolerance_s):
                now_s = time.monotonic()
                if now_s >= deadline_s or now_s - self._arrived_s > ALIVE_S:
                    break
                self._changed.wait(min(deadline_s - now_s, ALIVE_S))
            if not self._held:
                raise PositionUnknown("no depth image has arrived")
            found = self._nearest(stamp_ns)
        apart_s = abs(found.stamp_ns - stamp_ns) / NS_PER_S
        if apart_s > tolerance_s:
            raise PositionUnknown(
                f"the nearest depth image is {apart_s:.3f} s apart, more than {tolerance_s:g} s"
            )
        return found.message

    def _settled(self, stamp_ns: int, tolerance_s: float) -> bool:
        """Whether a message is near enough and no later one can be nearer, as stamps increase."""
        if not any(stamp_ns <= held.stamp_ns <= self._newest_ns for held in self._held):
            return False
        return abs(self._nearest(stamp_ns).stamp_ns - stamp_ns) <= tolerance_s * NS_PER_S

    def _nearest(self, stamp_ns: int) -> _Held:
        return min(self._held, key=lambda held: abs(held.stamp_ns - stamp_ns))

    def _make_room(self) -> None:
        """Drop the messages that came first beyond the limits; not the last, nor those kept."""
        count, nbytes = len(self._held), sum(held.nbytes for held in self._held)
        if count <= HELD and nbytes <= HELD_BYTES:
            return
        kept = self._kept()
        for held in self._held[:-1]:
            if held not in kept and (count > HELD or nbytes > HELD_BYTES):
                self._held.remove(held)
                count, nbytes = count - 1, nbytes - held.nbytes

    def _kept(self) -> set[_Held]:
        """The messages nearest to the expected stamps."""
        return {self._nearest(stamp_ns) for stamp_ns in self._expected.values()}

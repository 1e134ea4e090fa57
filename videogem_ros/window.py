"""The sliding window: which camera frames are grounded together, chosen by their header stamps.

A window has T slots ``frame_interval_s`` apart, counted back from the newest frame. Each slot gets
the frame nearest in time from a buffer of bounded memory, so the camera's rate does not matter:
frames of a fast camera between slots are skipped, frames of a slow camera fill several slots.
Only stamps count, never a clock.
"""

from __future__ import annotations

import enum
import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

from videogem_ros.datatypes import Frame, Window
from videogem_ros.errors import check_choice, check_range

NS_PER_S = 1_000_000_000

LONGEST_INTERVAL_S = 1e6
"""Limit of durations that need none but for exact arithmetic in nanoseconds."""


class Push(enum.Enum):
    """What became of a pushed frame; the values are descriptions."""

    ACCEPTED = "accepted"
    """It is the newest frame now."""
    OUT_OF_ORDER = "out of order"
    """Older than the newest frame; inserted by its stamp."""
    DUPLICATE = "duplicate stamp"
    """A frame of this stamp exists already; dropped (as from a driver that sets no stamps)."""
    LATE = "too late"
    """Out of order and older than anything a window can still contain; dropped."""
    GAP = "restarted after a gap"
    """More than the longest gap after the newest frame; the frames before were dropped."""
    TIME_JUMP = "restarted after a jump back in time"
    """A looping bag or a restarted clock; the frames from before the jump were dropped."""
    RESOLUTION = "restarted after a change of resolution"
    """Of another size than the frames before, which were dropped."""
    CAMERA = "restarted after a change of frame_id"
    """Of another optical frame than the frames before, which were dropped."""

    @property
    def kept(self) -> bool:
        """Whether the frame was taken into the buffer."""
        return self not in (Push.DUPLICATE, Push.LATE)

    @property
    def restarted(self) -> bool:
        """Whether the frames before were dropped, so that the window restarts."""
        return self in (Push.GAP, Push.TIME_JUMP, Push.RESOLUTION, Push.CAMERA)


@dataclass(frozen=True)
class WindowConfig:
    """How windows are formed.

    Attributes:
        frames: T, frames in a window, at least 1; None for as many as the backbone encodes
            jointly (1 for a buffer without a backbone).
        frame_interval_s: Seconds between the slots of a window; 0.25 in the paper's evaluation.
        start: What happens before the frames span the whole window: ``fill`` repeats the oldest
            frame in the slots before it, ``wait`` gives no window until then.
        tolerance_intervals: How far, in frame intervals, a chosen frame may be from its slot
            although a nearer one was pushed, in [0, 0.5]; frames that are denser than this
            requires are thinned out. 0 keeps every frame.
        max_gap_intervals: The longest gap between two frames, in frame intervals, at least 1; a
            longer one restarts the window. 8 is the paper's window.
        time_jump_s: A frame that is older than the newest by more than this many seconds means
            that time has jumped back (looping bag, restarted clock); by less, that it is out of
            order.
        max_buffer_frames: Most frames to hold, at least ``frames``.
        max_buffer_bytes: Most bytes of images to hold. Beyond either limit, frames are thinned out
            regardless of the tolerance; the oldest and the newest frame are always held.

    Raises:
        InvalidValueError: A value is outside its range.
    """

    frames: int | None = None
    frame_interval_s: float = 0.25
    start: Literal["fill", "wait"] = "fill"
    tolerance_intervals: float = 0.1
    max_gap_intervals: float = 8.0
    time_jump_s: float = 0.5
    max_buffer_frames: int = 256
    max_buffer_bytes: int = 512 * 2**20

    def __post_init__(self) -> None:
        if self.frames is not None:
            check_range("frames", self.frames, 1, kind=Integral)
        check_range("frame_interval_s", self.frame_interval_s, 1 / NS_PER_S, LONGEST_INTERVAL_S)
        check_choice("start", self.start, ("fill", "wait"))
        check_range("tolerance_intervals", self.tolerance_intervals, 0, 0.5)
        check_range("max_gap_intervals", self.max_gap_intervals, 1)
        check_range("time_jump_s", self.time_jump_s, 0, LONGEST_INTERVAL_S)
        check_range("max_buffer_frames", self.max_buffer_frames, self.frames or 1, kind=Integral)
        check_range("max_buffer_bytes", self.max_buffer_bytes, 1, kind=Integral)


class FrameBuffer:
    """The frames that the newest window, or a later one, can contain.

    The frame in a slot is the nearest of all frames pushed since the last restart, or is within
    the tolerance of its slot; of two equally near ones the newer is taken. This holds for any
    order of arrival while no limit is reached; beyond a limit the tolerance grows, but the
    window's span stays covered.

    Args:
        config: How windows are formed.
    """

    def __init__(self, config: WindowConfig) -> None:
        self._config = config
        interval_ns = config.frame_interval_s * NS_PER_S
        self._ages_ns = [round(k * interval_ns) for k in reversed(range(config.frames or 1))]
        self._tolerance_ns = round(config.tolerance_intervals * interval_ns)
        # A window of one frame has no span in which a gap could be.
        single = len(self._ages_ns) == 1
        self._max_gap_ns = math.inf if single else config.max_gap_intervals * interval_ns
        self._time_jump_ns = config.time_jump_s * NS_PER_S
        self._frames: list[Frame] = []  # stamps strictly increasing

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)

    @property
    def nbytes(self) -> int:
        """Bytes of the images held."""
        return sum(frame.image.nbytes for frame in self._frames)

    @property
    def newest(self) -> Frame | None:
        """The frame with the latest stamp; None where there is no frame."""
        return self._frames[-1] if self._frames else None

    @property
    def ready(self) -> bool:
        """Whether there is a window: any frame, or with ``start="wait"`` the whole span."""
        if not self._frames or self._config.start == "fill":
            return bool(self._frames)
        return self._frames[0].stamp_ns <= self._oldest_slot_ns + self._tolerance_ns

    @property
    def _oldest_slot_ns(self) -> int:
        return self._frames[-1].stamp_ns - self._ages_ns[0]

    def push(self, frame: Frame) -> Push:
        """Take a frame in and insert it by its stamp.

        Returns:
            What became of it.
        """
        index = bisect_left(self._frames, frame.stamp_ns, key=_stamp_ns)
        outcome = self._judge(frame, index)
        if outcome.restarted:
            self._frames, index = [], 0
        if outcome.kept:
            self._frames.insert(index, frame)
            self._forget_outlived()
            self._thin_out()
        return outcome

    def clear(self) -> None:
        """Forget every frame."""
        self._frames = []

    def window(self) -> Window | None:
        """The T frames nearest to their slots, counted back from the newest frame.

        Returns:
            The window; None where :attr:`ready` is False.
        """
        if not self.ready:
            return None
        newest_ns = self._frames[-1].stamp_ns
        return Window(tuple(self._nearest(newest_ns - age_ns) for age_ns in self._ages_ns))

    def _nearest(self, time_ns: int) -> Frame:
        after = bisect_left(self._frames, time_ns, key=_stamp_ns)
        around = self._frames[max(after - 1, 0) : after + 1]
        return min(reversed(around), key=lambda frame: abs(frame.stamp_ns - time_ns))

    def _judge(self, frame: Frame, index: int) -> Push:
        if not self._frames:
            return Push.ACCEPTED
        newest = self._frames[-1]
        ahead_ns = frame.stamp_ns - newest.stamp_ns
        if ahead_ns < -self._time_jump_ns:
            return Push.TIME_JUMP
        if ahead_ns <= 0:
            return self._judge_older(frame, index)
        changes = {
            Push.RESOLUTION: frame.hw != newest.hw,
            Push.CAMERA: frame.frame_id != newest.frame_id,
            Push.GAP: ahead_ns > self._max_gap_ns,
        }
        return next((change for change, seen in changes.items() if seen), Push.ACCEPTED)

    def _judge_older(self, frame: Frame, index: int) -> Push:
        following = self._frames[index]
        if following.stamp_ns == frame.stamp_ns:
            return Push.DUPLICATE
        outlived = index == 0 and following.stamp_ns <= self._oldest_slot_ns
        # A late frame from before a restart must not get in.
        severed = following.stamp_ns - frame.stamp_ns > self._max_gap_ns
        foreign = (frame.hw, frame.frame_id) != (following.hw, following.frame_id)
        return Push.LATE if outlived or severed or foreign else Push.OUT_OF_ORDER

    def _forget_outlived(self) -> None:
        """Drop what no window can contain: all but the last frame up to the oldest slot."""
        while len(self._frames) > 1 and self._frames[1].stamp_ns <= self._oldest_slot_ns:
            del self._frames[0]

    def _thin_out(self) -> None:
        """Drop frames whose neighbours can stand in for them.

        For a frame b between a and c, any time in between is within (c - a) / 2 of a or c. So b
        is not needed while c - a is at most twice the tolerance. Beyond a limit, the frame is
        dropped whose neighbours are closest to each other. The oldest and newest stay.
        """
        while len(self) > 2:
            gap_ns, dropped = min(
                (self._gap_without_ns(index), index) for index in range(1, len(self) - 1)
            )
            if gap_ns > 2 * self._tolerance_ns and not self._over_limits:
                return
            del self._frames[dropped]

    def _gap_without_ns(self, index: int) -> int:
        """The gap that dropping the frame at an index between others would leave."""
        return self._frames[index + 1].stamp_ns - self._frames[index - 1].stamp_ns

    @property
    def _over_limits(self) -> bool:
        config = self._config
        return len(self) > config.max_buffer_frames or self.nbytes > config.max_buffer_bytes


def _stamp_ns(frame: Frame) -> int:
    return frame.stamp_ns

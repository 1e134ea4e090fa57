"""The sliding window: which camera frames are grounded together, chosen by their header stamps.

T frames stand ``frame_interval_s`` apart, counted back from the newest one; for each place the
frame nearest in time is taken from a buffer of bounded memory, so the camera's rate does not
matter: between places of a fast camera frames are passed over, a slow camera's frames stand in
several places. Only stamps are looked at, never a clock.
"""

from __future__ import annotations

import enum
import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

from videogem_ros.datatypes import Frame, Window
from videogem_ros.errors import InvalidValueError, check_choice

NS_PER_S = 1_000_000_000

LONGEST_INTERVAL_S = 1e6
"""Of what has a limit for no other reason than that nanoseconds must stay whole numbers."""


class Push(enum.Enum):
    """What became of a pushed frame; the value is its description."""

    ACCEPTED = "accepted"
    """It is the newest frame now."""
    OUT_OF_ORDER = "out of order"
    """Older than the newest frame; kept in its place, the newest frame stays the newest."""
    DUPLICATE = "duplicate stamp"
    """A frame of this stamp is there already; dropped (a driver that stamps nothing ends here)."""
    LATE = "too late"
    """Out of order and older than anything a window can still choose; dropped."""
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
        """Whether the frames before were dropped, so that the window starts anew."""
        return self in (Push.GAP, Push.TIME_JUMP, Push.RESOLUTION, Push.CAMERA)


@dataclass(frozen=True)
class WindowConfig:
    """How a window is put together.

    Attributes:
        frames: T, frames in a window, at least 1; None for as many as the backbone encodes
            jointly (a buffer used without a backbone takes 1).
        frame_interval_s: Seconds between the places of a window; 0.25 in the paper's evaluation.
        start: What happens before the frames span the whole window: ``fill`` lets the oldest
            frame stand in the places before it, ``wait`` gives no window until then.
        tolerance_intervals: How far, in frame intervals, a chosen frame may be from its place
            where a nearer one was pushed, in [0, 0.5]; frames that lie closer together than
            this needs are thinned out. 0 keeps every frame.
        max_gap_intervals: The longest hole between two frames, in frame intervals, at least 1; a
            longer one starts the window anew. 8 is the paper's window.
        time_jump_s: A frame older than the newest by more than this many seconds is taken for
            time having jumped back (looping bag, restarted clock), by less for one out of order.
        max_buffer_frames: Most frames to hold, at least ``frames``.
        max_buffer_bytes: Most bytes of images to hold. Where either bound is reached, frames are
            thinned out beyond the tolerance; the oldest and the newest are held whatever their
            size.

    Raises:
        InvalidValueError: a value is outside what it may be.
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


def check_range(
    field: str, value: Any, least: float, most: float = math.inf, kind: type[Any] = Real
) -> None:
    """Refuse what is not a finite number (of a kind) in [least, most].

    Raises:
        InvalidValueError: it is not.
    """
    if isinstance(value, kind) and math.isfinite(value) and least <= value <= most:
        return
    number = "a whole number" if kind is Integral else "a number"
    limits = f"of at least {least:g}" if most == math.inf else f"in [{least:g}, {most:g}]"
    raise InvalidValueError(field, f"{number} {limits}", value)


class FrameBuffer:
    """The frames that the newest window, or a later one, can choose from.

    A chosen frame is the nearest to its place of all frames pushed since the last restart, or is
    within the tolerance of its place; of two equally near the newer one is taken. That holds
    whatever the order of arrival while no bound is reached; beyond a bound the tolerance grows,
    but the window's span stays covered.

    Args:
        config: How windows are put together.
    """

    def __init__(self, config: WindowConfig) -> None:
        self._config = config
        interval_ns = config.frame_interval_s * NS_PER_S
        self._ages_ns = [round(k * interval_ns) for k in reversed(range(config.frames or 1))]
        self._tolerance_ns = round(config.tolerance_intervals * interval_ns)
        # A window of one frame has no span that a hole could lie in.
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
        """The frame with the latest stamp; None when there is no frame."""
        return self._frames[-1] if self._frames else None

    @property
    def ready(self) -> bool:
        """Whether there is a window: any frame, or with ``start="wait"`` the whole span."""
        if not self._frames or self._config.start == "fill":
            return bool(self._frames)
        return self._frames[0].stamp_ns <= self._oldest_place_ns + self._tolerance_ns

    @property
    def _oldest_place_ns(self) -> int:
        return self._frames[-1].stamp_ns - self._ages_ns[0]

    def push(self, frame: Frame) -> Push:
        """Take a frame in, in its place by its stamp.

        Returns:
            What became of it.
        """
        place = bisect_left(self._frames, frame.stamp_ns, key=_stamp_ns)
        outcome = self._judge(frame, place)
        if outcome.restarted:
            self._frames, place = [], 0
        if outcome.kept:
            self._frames.insert(place, frame)
            self._forget_outlived()
            self._thin_out()
        return outcome

    def clear(self) -> None:
        """Forget every frame."""
        self._frames = []

    def window(self) -> Window | None:
        """The T frames nearest to their places, counted back from the newest frame.

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

    def _judge(self, frame: Frame, place: int) -> Push:
        if not self._frames:
            return Push.ACCEPTED
        newest = self._frames[-1]
        ahead_ns = frame.stamp_ns - newest.stamp_ns
        if ahead_ns < -self._time_jump_ns:
            return Push.TIME_JUMP
        if ahead_ns <= 0:
            return self._judge_older(frame, place)
        changes = {
            Push.RESOLUTION: frame.hw != newest.hw,
            Push.CAMERA: frame.frame_id != newest.frame_id,
            Push.GAP: ahead_ns > self._max_gap_ns,
        }
        return next((change for change, seen in changes.items() if seen), Push.ACCEPTED)

    def _judge_older(self, frame: Frame, place: int) -> Push:
        following = self._frames[place]
        if following.stamp_ns == frame.stamp_ns:
            return Push.DUPLICATE
        outlived = place == 0 and following.stamp_ns <= self._oldest_place_ns
        # What was restarted from must not come back with a straggler.
        severed = following.stamp_ns - frame.stamp_ns > self._max_gap_ns
        foreign = (frame.hw, frame.frame_id) != (following.hw, following.frame_id)
        return Push.LATE if outlived or severed or foreign else Push.OUT_OF_ORDER

    def _forget_outlived(self) -> None:
        """Drop what no window can choose: all but one of the frames up to the oldest place."""
        while len(self._frames) > 1 and self._frames[1].stamp_ns <= self._oldest_place_ns:
            del self._frames[0]

    def _thin_out(self) -> None:
        """Drop frames whose neighbours can stand in for them.

        Where b lies between a and c, any place in between is within (c - a) / 2 of a or c. So b
        is not needed while c - a is at most twice the tolerance; beyond a bound, the frame goes
        that is missed least. The outermost frames stay.
        """
        while len(self) > 2:
            hole_ns, dropped = min(
                (self._hole_ns(place), place) for place in range(1, len(self) - 1)
            )
            if hole_ns > 2 * self._tolerance_ns and not self._over_bounds:
                return
            del self._frames[dropped]

    def _hole_ns(self, place: int) -> int:
        """How long a hole the frame at a place between others would leave."""
        return self._frames[place + 1].stamp_ns - self._frames[place - 1].stamp_ns

    @property
    def _over_bounds(self) -> bool:
        config = self._config
        return len(self) > config.max_buffer_frames or self.nbytes > config.max_buffer_bytes


def _stamp_ns(frame: Frame) -> int:
    return frame.stamp_ns

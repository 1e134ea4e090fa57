"""Chosen frames of a video file, wherever they lie in it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av

from videogem_ros.adapters.bag.video import opened, upright
from videogem_ros.datatypes import Frame
from videogem_ros.errors import RecordingError
from videogem_ros.window import NS_PER_S

_ROUNDING_NS = 1_000_000
"""Times were often rounded to milliseconds when they were written down."""


@dataclass(frozen=True)
class FrameIndex:
    """When a video shows which frame, read from its packets without decoding them.

    Exact for any frame rate, constant or not. Places count frames in order of presentation.

    Attributes:
        pts: Presentation times in the stream's own units, ascending.
        stamps_ns: The same in nanoseconds since the first frame.
        keys: Places of frames that decoding can begin at, ascending.
    """

    pts: tuple[int, ...]
    stamps_ns: tuple[int, ...]
    keys: tuple[int, ...]

    def at(self, time_ns: int) -> int:
        """Place of the frame that is shown at a time; the first one before the start."""
        return max(bisect_right(self.stamps_ns, time_ns + _ROUNDING_NS) - 1, 0)


@lru_cache(maxsize=64)
def frame_index(path: Path) -> FrameIndex:
    """Reads a file's index; all who read from the file share it.

    Raises:
        RecordingError: Not a video, damaged, or without presentation times.
    """
    try:
        with opened(path) as (container, stream):
            shown = {
                packet.pts: packet.is_keyframe
                for packet in container.demux(stream)
                if packet.pts is not None and packet.size and not packet.is_discard
            }
            time_base = stream.time_base
    except av.FFmpegError as error:
        raise RecordingError(f"{path}: damaged video ({error.strerror})") from error
    if not shown or time_base is None:
        raise RecordingError(f"{path}: the video holds no frames with presentation times")
    pts = sorted(shown)
    return FrameIndex(
        tuple(pts),
        tuple(round((moment - pts[0]) * time_base * NS_PER_S) for moment in pts),
        tuple(place for place, moment in enumerate(pts) if shown[moment]) or (0,),
    )


class VideoReader:
    """An open video file that gives frames by their places.

    Neighbouring windows share frames and mostly lie ahead of each other: the last window's frames
    are kept, and decoding goes on from where it is unless a keyframe is nearer. Not for several
    threads at once.

    Args:
        path: The file.

    Raises:
        RecordingError: See :func:`frame_index`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index = frame_index(path)
        self._places = {moment: place for place, moment in enumerate(self.index.pts)}
        self._last: int | None = None
        self._kept: dict[int, Frame] = {}
        self._file = ExitStack()
        self._open()

    def _open(self) -> None:
        self._file.close()
        self._container, self._stream = self._file.enter_context(opened(self.path))
        self._decoding = self._container.decode(self._stream)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def frames(self, places: Sequence[int]) -> list[Frame]:
        """Frames at places; those before the first or after the last are the first or the last.

        Returns:
            One for each place; their stamps are times since the video's first frame.

        Raises:
            RecordingError: One cannot be decoded.
        """
        last = len(self.index.pts) - 1
        places = [min(max(place, 0), last) for place in places]
        kept = self._kept
        self._kept = {}
        for place in sorted(set(places)):
            self._kept[place] = kept.get(place) or self._decode(place)
        return [self._kept[place] for place in places]

    def _decode(self, place: int) -> Frame:
        keys = self.index.keys
        key = keys[max(bisect_right(keys, place) - 1, 0)]
        try:
            if self._last is None or not key <= self._last < place:
                self._container.seek(self.index.pts[key], stream=self._stream)
                self._decoding = self._container.decode(self._stream)
            found = self._advance(place)
            if found is None:  # a container that seeks only roughly came out behind the frame
                self._open()
                found = self._advance(place)
        except av.FFmpegError as error:
            self._last = None
            raise RecordingError(f"{self.path}: damaged video ({error.strerror})") from error
        if found is None or found.is_corrupt:
            raise RecordingError(f"{self.path}: frame {place} cannot be decoded")
        return Frame(upright(found), self.index.stamps_ns[place])

    def _advance(self, place: int) -> av.VideoFrame | None:
        """Decodes on up to a place; None if it is passed by."""
        self._last = None
        for frame in self._decoding:
            at = self._places.get(frame.pts) if frame.pts is not None else None
            if at is not None and at >= place:
                self._last = at
                return frame if at == place else None
        return None

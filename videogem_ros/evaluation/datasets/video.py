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
        """Index of the frame that is shown at a time; the first one before the start."""
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
        tuple(index for index, moment in enumerate(pts) if shown[moment]) or (0,),
    )


class VideoReader:
    """An open video file that gives frames by index.

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
        self._indices = {moment: index for index, moment in enumerate(self.index.pts)}
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

    def frames(self, indices: Sequence[int]) -> list[Frame]:
        """Frames at indices; those before the first or after the last are the first or the last.

        Returns:
            One for each index; their stamps are times since the video's first frame.

        Raises:
            RecordingError: One cannot be decoded.
        """
        last = len(self.index.pts) - 1
        indices = [min(max(index, 0), last) for index in indices]
        kept = self._kept
        self._kept = {}
        for index in sorted(set(indices)):
            self._kept[index] = kept.get(index) or self._decode(index)
        return [self._kept[index] for index in indices]

    def _decode(self, index: int) -> Frame:
        keys = self.index.keys
        key = keys[max(bisect_right(keys, index) - 1, 0)]
        try:
            if self._last is None or not key <= self._last < index:
                self._container.seek(self.index.pts[key], stream=self._stream)
                self._decoding = self._container.decode(self._stream)
            found = self._advance(index)
            if found is None:  # a container that seeks only roughly came out behind the frame
                self._open()
                found = self._advance(index)
        except av.FFmpegError as error:
            self._last = None
            raise RecordingError(f"{self.path}: damaged video ({error.strerror})") from error
        if found is None or found.is_corrupt:
            raise RecordingError(f"{self.path}: frame {index} cannot be decoded")
        return Frame(upright(found), self.index.stamps_ns[index])

    def _advance(self, index: int) -> av.VideoFrame | None:
        """Decodes on up to an index; None if it is passed by."""
        self._last = None
        for frame in self._decoding:
            at = self._indices.get(frame.pts) if frame.pts is not None else None
            if at is not None and at >= index:
                self._last = at
                return frame if at == index else None
        return None

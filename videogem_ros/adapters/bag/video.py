"""Video files, through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from videogem_ros.adapters.bag.source import Source
from videogem_ros.datatypes import Frame
from videogem_ros.errors import RecordingError, reason


class VideoSource(Source):
    """The frames of a file's first video stream.

    Stamps are the presentation times that the file holds, exact to the nanosecond and moved to
    begin at 0 where the first is negative; a stream without times (raw H.264) runs at its nominal
    rate. Frames are turned as the display matrix says (phones held upright).

    Args:
        path: The file.

    Raises:
        RecordingError: No video, an unknown codec, or a damaged file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with opened(path) as (container, stream):
            self.frame_count = stream.frames or None
            if container.duration is not None:
                self.duration_s = container.duration / av.time_base

    def _events(self) -> Iterator[Frame]:
        with opened(self.path) as (container, stream):
            stream.thread_type = "AUTO"
            # The average rate of a stream without times is FFmpeg's default, not the stream's own.
            period_s = 1 / (stream.guessed_rate or Fraction(25))
            offset_s = Fraction(0)
            for place, frame in enumerate(self._decoded(container, stream)):
                if frame.pts is None or frame.time_base is None:
                    time_s = place * period_s
                else:
                    time_s = frame.pts * frame.time_base
                if place == 0:
                    offset_s = min(time_s, offset_s)
                yield Frame(upright(frame), round((time_s - offset_s) * 10**9))

    def _decoded(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[av.VideoFrame]:
        """Whole frames in order of presentation; packets that do not decode are left out."""
        packets = container.demux(stream)
        while True:
            try:
                frames = next(packets).decode()
            except StopIteration:
                return
            except av.FFmpegError as error:
                self._skip(RecordingError(f"damaged video data ({error.strerror})"))
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._skip(RecordingError("damaged video frame"))
                else:
                    yield frame


@contextmanager
def opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """A file and its first video stream, open as long as the context lasts.

    Raises:
        RecordingError: No video, or an unknown codec.
    """
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise RecordingError(
            f"{path}: not a bag, and not a video either ({reason(error)})"
        ) from error
    with container:
        if not container.streams.video:
            raise RecordingError(f"{path}: no video stream in it")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise RecordingError(f"{path}: no decoder for its video codec")
        yield container, stream


def upright(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """(H, W, 3) RGB pixels, turned as the display matrix says."""
    # rotation: degrees counter-clockwise from the stored to the shown picture, like rot90's.
    turned = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    return np.ascontiguousarray(turned, dtype=np.uint8)

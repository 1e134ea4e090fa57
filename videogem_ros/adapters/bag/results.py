"""Results of a replay: a folder that is a rosbag2, with a video, JSON lines and a contact sheet.

=====================  =======================================================================
``groundings.mcap``    Heatmaps, overlays, points and action texts as ROS messages. Foxglove
                       opens the file; ``ros2 bag`` the file or, by ``metadata.yaml``, the
                       whole folder.
``overlay.mp4``        Overlays of all actions of a frame, H.264, timed by the header stamps.
``groundings.jsonl``   One :meth:`~videogem_ros.datatypes.Grounding.to_json` per line; for a live
                       node also ``received_ns``, when it arrived (nanoseconds since 1970), and
                       ``latency_ms``, ``compute_ms`` and ``backbone`` as the node reported them.
``contact_sheet.png``  Frames spread evenly over the run.
=====================  =======================================================================

The bag's messages have the header of the grounded image, and its stamp as their time of receipt.
The first action's topics are in ``/videogem``, those of the second, third, ... action of the same
frame in ``/videogem/action_2``, ``/videogem/action_3``, ...:

======================  ======================================================================
``heatmap``             ``sensor_msgs/Image``, 32FC1 in [0, 1], of the source image's size.
``overlay/compressed``  ``sensor_msgs/CompressedImage``, JPEG, this action alone.
``point_px``            ``geometry_msgs/PointStamped`` in pixels of the source image, x right,
                        y down, z always 0: not a point in space.
``grounded_action``     ``std_msgs/String``: the phrase that was grounded.
======================  ======================================================================
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np

from videogem_ros.adapters.bag.writing import BagWriter, header, point
from videogem_ros.datatypes import Frame, Grounding
from videogem_ros.encodings import image_message_fields
from videogem_ros.errors import RecordingError, reason
from videogem_ros.live.topics import NODE_NAME, action_topic
from videogem_ros.render import Picture, SheetCell, draw_contact_sheet, draw_overlay, sheet_cell

BAG, METADATA = "groundings.mcap", "metadata.yaml"
VIDEO, LINES, SHEET = "overlay.mp4", "groundings.jsonl", "contact_sheet.png"
RESULTS = (BAG, METADATA, VIDEO, LINES, SHEET)
"""Names of the files of a finished run."""

JPEG_QUALITY = 90
SHEET_CELLS = 12
"""Most pictures of a contact sheet."""

VIDEO_CLOCK_HZ = 90_000
LONGEST_STILL_S = 60.0
"""Longest time that a picture of the video is shown; longer gaps are cut."""


def action_namespace(index: int) -> str:
    """Namespace of the topics of the action with this index (from 0) in the command."""
    return f"/{NODE_NAME}/{action_topic('', index)}".rstrip("/")


def check_folder(folder: Path, *, force: bool) -> None:
    """Refuses a folder that already holds what results would replace.

    Args:
        folder: Where results are to go; need not exist.
        force: Whether earlier results may be replaced.

    Raises:
        RecordingError: Results are there and may not be replaced, or another recording is, or it
            is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise RecordingError(f"{folder} is a file; choose a folder")
    there = [name for name in RESULTS if (folder / name).exists()]
    if METADATA in there and BAG not in there:
        raise RecordingError(f"{folder} is another recording; choose another folder")
    if there and not force:
        raise RecordingError(
            f"{folder} holds results already ({', '.join(there)}); choose another folder, or "
            "--force to replace them"
        )


class ResultWriter:
    """Writes a run's results under temporary names, and renames them at the end.

    A context manager: leaving it without an error finishes the results, leaving it with one
    discards them. Where nothing was written, no files remain.

    Args:
        folder: Folder of the results; made if it does not exist.
        about: Description of the run on the contact sheet (recording, backbone).
        force: Whether existing results may be replaced.

    Raises:
        RecordingError: On entering, where the folder cannot be written, or as
            :func:`check_folder` says.
    """

    def __init__(self, folder: Path, about: str, *, force: bool = False) -> None:
        self.folder = folder
        self.frames = 0
        """Frames written so far."""
        self._about = about
        self._force = force

    def __enter__(self) -> ResultWriter:
        check_folder(self.folder, force=self._force)
        with _writing(self.folder), contextlib.ExitStack() as opened:
            if not self.folder.exists():
                self.folder.mkdir(parents=True)
                opened.callback(_remove_if_empty, self.folder)
            partial = tempfile.TemporaryDirectory(
                prefix=".partial-", dir=self.folder, ignore_cleanup_errors=True
            )
            self._partial = Path(opened.enter_context(partial)) / Path(BAG).stem
            self._bag = BagWriter(self._partial)
            opened.callback(self._bag.abort)
            self._video = _Video(self._partial / VIDEO)
            opened.callback(self._video.close)
            self._lines = (self._partial / LINES).open("w", encoding="utf-8", newline="\n")
            opened.enter_context(self._lines)
            self._sheet = _Sheet()
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _writing(self.folder), self._opened:
            if exc_type is None and self.frames:
                self._finish()

    def write(
        self,
        frame: Frame,
        groundings: Sequence[Grounding],
        about: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Writes the groundings of one frame.

        Args:
            frame: The grounded frame.
            groundings: Groundings of this frame, one per action, at least one.
            about: Further fields of each grounding's JSON line; none where empty.

        Raises:
            RecordingError: The disk is full or fails.
        """
        overlay = draw_overlay(frame.image, groundings)
        with _writing(self.folder):
            for index, (grounding, more) in enumerate(zip(groundings, about or repeat({}))):
                alone = draw_overlay(frame.image, [grounding]) if len(groundings) > 1 else overlay
                self._write_messages(action_namespace(index), frame, grounding, alone)
                line = {**grounding.to_json(), **more}
                self._lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._video.add(overlay, frame.stamp_ns)
        self._sheet.add(frame, groundings)
        self.frames += 1

    def _write_messages(
        self, namespace: str, frame: Frame, grounding: Grounding, overlay: Picture
    ) -> None:
        head = header(frame.stamp_ns, frame.frame_id)
        _, jpeg = cv2.imencode(
            ".jpg", overlay[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
        )
        heatmap = image_message_fields(grounding.heatmap.to_image(), "32FC1")
        pixel = point(grounding.point.x, grounding.point.y, 0.0)
        for topic, msgtype, fields in (
            ("heatmap", "sensor_msgs/msg/Image", {"header": head, **heatmap}),
            (
                "overlay/compressed",
                "sensor_msgs/msg/CompressedImage",
                {"header": head, "format": "jpeg", "data": jpeg.reshape(-1)},
            ),
            ("point_px", "geometry_msgs/msg/PointStamped", {"header": head, "point": pixel}),
            ("grounded_action", "std_msgs/msg/String", {"data": grounding.action.phrase}),
        ):
            self._bag.write(f"{namespace}/{topic}", msgtype, frame.stamp_ns, **fields)

    def _finish(self) -> None:
        self._lines.close()
        self._video.close()
        self._bag.close()
        about = f"{self._about}  ·  {self.frames} frames grounded"
        sheet = draw_contact_sheet(about, self._sheet.cells())
        _, png = cv2.imencode(".png", sheet[..., ::-1])
        (self._partial / SHEET).write_bytes(png.tobytes())
        for name in RESULTS:
            (self._partial / name).replace(self.folder / name)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """A context that turns errors of the disk or the video encoder into RecordingError."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        raise RecordingError(f"cannot write results to {folder}: {reason(error)}") from error


class _Video:
    """An H.264 video, opened with the first picture; later sizes are fitted into its size."""

    def __init__(self, path: Path) -> None:
        # The index goes to the front, so that a browser plays before it has everything.
        options = {"movflags": "+faststart"}
        self._container = av.open(str(path), "w", format="mp4", options=options)
        self._stream: av.VideoStream | None = None
        self._last_stamp_ns = 0
        self._time = self._still = 0

    def add(self, picture: Picture, stamp_ns: int) -> None:
        if self._stream is None:
            self._stream = self._open(picture)
        else:
            self._advance(stamp_ns - self._last_stamp_ns)
        self._last_stamp_ns = stamp_ns
        fitted = _fit(picture, (self._stream.height, self._stream.width))
        frame = av.VideoFrame.from_ndarray(fitted, format="rgb24")
        frame.pts, frame.time_base = self._time, Fraction(1, VIDEO_CLOCK_HZ)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finishes the video; closing it again does nothing."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self._container.mux(stream.encode(None))
        self._container.close()

    def _open(self, picture: Picture) -> av.VideoStream:
        stream = self._container.add_stream("h264", rate=10)
        height, width = picture.shape[:2]
        stream.height, stream.width = (max(2, side // 2 * 2) for side in (height, width))
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, VIDEO_CLOCK_HZ)
        # No B-frames, with which the file's duration would be wrong.
        stream.options = {"crf": "20", "preset": "veryfast", "bf": "0"}
        return stream

    def _advance(self, elapsed_ns: int) -> None:
        """Advances by the elapsed time; by that of the picture before after a jump or long gap."""
        if 0 < elapsed_ns <= LONGEST_STILL_S * 1e9:
            self._still = max(1, round(elapsed_ns * VIDEO_CLOCK_HZ / 1e9))
        self._time += self._still or VIDEO_CLOCK_HZ // 10


def _fit(picture: Picture, hw: tuple[int, int]) -> Picture:
    """The picture cut to even sides, or scaled into the size with black at its sides."""
    height, width = hw
    if (picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2) == hw:
        return picture[:height, :width]
    scale = min(height / picture.shape[0], width / picture.shape[1])
    rows, columns = (min(side, max(1, round(n * scale))) for n, side in zip(picture.shape, hw))
    fitted = np.zeros((height, width, 3), np.uint8)
    top, left = (height - rows) // 2, (width - columns) // 2
    scaled = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)
    fitted[top : top + rows, left : left + columns] = scaled
    return fitted


class _Sheet:
    """A bounded number of cells, spread evenly over a run whose length is not known."""

    def __init__(self) -> None:
        self._kept: list[SheetCell] = []
        self._stride = 1
        self._seen = 0
        self._start_ns = 0

    def add(self, frame: Frame, groundings: Sequence[Grounding]) -> None:
        if not self._seen:
            self._start_ns = frame.stamp_ns
        if self._seen % self._stride == 0:
            time_s = (frame.stamp_ns - self._start_ns) / 1e9
            self._kept.append(sheet_cell(frame.image, groundings, time_s))
            if len(self._kept) == 4 * SHEET_CELLS:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._seen += 1

    def cells(self) -> list[SheetCell]:
        """At most SHEET_CELLS of the kept ones, from the first to the last."""
        count = min(len(self._kept), SHEET_CELLS)
        places = np.linspace(0, len(self._kept) - 1, count).round().astype(int)
        return [self._kept[place] for place in places]

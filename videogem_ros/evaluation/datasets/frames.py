"""Where a data set's frames lie under a folder, and which of them make a window."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt

from videogem_ros.adapters.bag.folder import SUFFIXES as IMAGES
from videogem_ros.adapters.bag.video import opened
from videogem_ros.datatypes import Frame, Window
from videogem_ros.encodings import decode_compressed
from videogem_ros.errors import InvalidValueError, RecordingError, VideoGemError
from videogem_ros.evaluation.datasets.video import VideoReader
from videogem_ros.evaluation.tables import nearest_index
from videogem_ros.window import NS_PER_S

VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".3gp")
"""Ends of the file names that count as videos, in lower case; of several, the first is taken."""

NOMINAL_HZ = 30
"""Frame rate of numbered images, whose names do not tell it: V-HICO's."""

_NUMBER = re.compile(r"\d+(\.\d+)?$")

_LAST_FRAME_NS = NS_PER_S
"""The last frame may stand for that long; who annotated later ones had another video."""

_SAME_NS = 20_000_000
"""An image is the annotated frame within this: half a frame's time at 25 Hz."""


@dataclass(frozen=True)
class Moment:
    """Which frame of a video is annotated: by time, by number, or by both.

    Attributes:
        time_ns: Since the video's first frame, nanoseconds.
        number: As images of the frames are numbered, in data sets that count frames. Without a
            time it counts the video's frames, from 0.
    """

    time_ns: int | None = None
    number: int = 0

    def __str__(self) -> str:
        return str(self.number) if self.time_ns is None else f"{self.time_ns / NS_PER_S:.15g}"

    @property
    def nominal_ns(self) -> int:
        """The time, or that of the number at the nominal rate."""
        return _nominal_ns(self.number) if self.time_ns is None else self.time_ns


@dataclass(frozen=True)
class Spacing:
    """How far apart the frames of a window are.

    Attributes:
        ns: Nanoseconds.
        frames: Frames of the video. Where given, frames are counted and images are taken to be
            numbered by frame; ``ns`` is for images that are named by second all the same.
    """

    ns: int
    frames: int | None = None

    @classmethod
    def of_frames(cls, frames: int) -> Spacing:
        """Counted in frames."""
        return cls(_nominal_ns(frames), frames)


def _nominal_ns(number: int) -> int:
    return number * NS_PER_S // NOMINAL_HZ


class ImageFolder:
    """Extracted frames of one video: images with a number at the end of their names.

    Numbers with decimals (``76.25.jpg``) make all of them seconds. Whole ones are the frame's
    number (``frame_000076.jpg``) where frames are counted, else seconds (``76.jpg``).

    Args:
        files: The images, of one folder or of several.
        spacing: Of the data set's windows.

    Attributes:
        files: Those with a number, in its order.
    """

    def __init__(self, files: Sequence[Path], spacing: Spacing) -> None:
        found = [(match[0], file) for file in files if (match := _NUMBER.search(file.stem))]
        self._numbered = spacing.frames is not None and all("." not in text for text, _ in found)
        self._step = (spacing.frames or 0) if self._numbered else spacing.ns
        by_mark: dict[int, Path] = {}
        for text, file in found:
            mark = int(text) if self._numbered else round(float(text) * NS_PER_S)
            by_mark.setdefault(mark, file)
        self._marks = sorted(by_mark)
        self.files = [by_mark[mark] for mark in self._marks]

    def find(self, moment: Moment) -> Path | None:
        """The image of an annotated frame, if it is there."""
        mark = self._mark(moment)
        if not self.files:
            return None
        index = nearest_index(self._marks, mark)
        away = abs(self._marks[index] - mark)
        return self.files[index] if away <= (0 if self._numbered else _SAME_NS) else None

    def frames(self, moment: Moment, steps: Sequence[int]) -> list[Frame]:
        """The images nearest to where a window's frames would be; some may stand there twice.

        Args:
            moment: The annotated frame, of which there is an image.
            steps: How many spacings before or after it.

        Returns:
            One for each step, with stamps at the nominal rate where images are numbered.

        Raises:
            RecordingError: One cannot be read.
        """
        mark = self._mark(moment)
        indices = [nearest_index(self._marks, mark + step * self._step) for step in steps]
        frames = {index: self._frame(index) for index in dict.fromkeys(indices)}
        return [frames[index] for index in indices]

    def _mark(self, moment: Moment) -> int:
        return moment.number if self._numbered else moment.nominal_ns

    def _frame(self, index: int) -> Frame:
        mark = self._marks[index]
        stamp_ns = _nominal_ns(mark) if self._numbered else mark
        return Frame(read_image(self.files[index]), stamp_ns)


class Footage:
    """Videos and extracted frames in a folder and its subfolders, by the videos' names.

    A video is the file ``NAME.mp4`` (or another end), its extracted frames the images in folders
    called ``NAME``, wherever these are. Where there are both, the video is taken.

    Args:
        root: The folder; links in it are followed.
        spacing: Of the data set's windows.

    Attributes:
        root: The folder.
        files: All files in it that are no images, in order of their paths.

    Raises:
        InvalidValueError: No such folder.
    """

    def __init__(self, root: Path, spacing: Spacing) -> None:
        self.root = root
        self.files: list[Path] = []
        self._spacing = spacing
        self._videos: dict[str, Path] = {}
        self._images: dict[str, list[Path]] = {}
        self._folders: dict[str, ImageFolder] = {}
        self._open = _OpenVideo()
        for file in files_in(root, "root"):
            if file.suffix.lower() in IMAGES:
                self._images.setdefault(_name(file.parent.name), []).append(file)
            else:
                self.files.append(file)
        for suffix in VIDEOS:
            for file in self.files:
                if file.suffix.lower() == suffix:
                    self._videos.setdefault(_name(file.name), file)

    def holds(self, video: str, moment: Moment) -> bool:
        """Whether there is the video, or an image of the annotated frame."""
        return _name(video) in self._videos or self._folder(video).find(moment) is not None

    def sources(self, video: str, moment: Moment) -> tuple[Path, ...]:
        """The video's file, or the annotated frame's and the folders of the others."""
        if file := self._videos.get(_name(video)):
            return (file,)
        folders = dict.fromkeys(image.parent for image in self._images.get(_name(video), ()))
        found = self._folder(video).find(moment)
        return (*([found] if found else []), *folders)

    def image_hw(self, video: str) -> tuple[int, int] | None:
        """Height and width of a video's frames; None where there are none that can be read."""
        try:
            if file := self._videos.get(_name(video)):
                with opened(file) as (_, stream):
                    return stream.height, stream.width
            files = self._folder(video).files
            return Frame(read_image(files[0]), 0).hw if files else None
        except RecordingError:
            return None

    def window(self, video: str, moment: Moment, frames: int) -> tuple[Window, int]:
        """The window about an annotated frame.

        Args:
            video: Its name.
            moment: Which frame is annotated.
            frames: T; the annotated one is number T // 2 from 0, as the paper's is 4 of 8.

        Returns:
            The window, and the index of the annotated frame in it.

        Raises:
            RecordingError: A frame cannot be read or decoded, or frames differ in size.
        """
        index = frames // 2
        steps = range(-index, frames - index)
        try:
            if file := self._videos.get(_name(video)):
                chosen = self._from_video(self._open.reader(file), moment, steps)
            else:
                chosen = self._folder(video).frames(moment, steps)
            return Window(tuple(chosen)), index
        except InvalidValueError as error:
            raise RecordingError(f"{video}: {error}") from error

    def _from_video(
        self, reader: VideoReader, moment: Moment, steps: Sequence[int]
    ) -> list[Frame]:
        index = reader.index
        if moment.time_ns is None:
            annotated, there = moment.number, moment.number < len(index.pts)
        else:
            annotated = index.at(moment.time_ns)
            there = moment.time_ns <= index.stamps_ns[-1] + _LAST_FRAME_NS
        if not there:
            raise RecordingError(f"{reader.path}: the video ends before the annotated frame")
        if self._spacing.frames is None:
            times = (moment.nominal_ns + step * self._spacing.ns for step in steps)
            return reader.frames([index.at(time_ns) for time_ns in times])
        return reader.frames([annotated + step * self._spacing.frames for step in steps])

    def _folder(self, video: str) -> ImageFolder:
        name = _name(video)
        if name not in self._folders:
            self._folders[name] = ImageFolder(self._images.get(name, ()), self._spacing)
        return self._folders[name]


class _OpenVideo(threading.local):
    """The video that a thread reads from, kept open while it is the same; a copy has none."""

    current: VideoReader | None = None

    def reader(self, path: Path) -> VideoReader:
        """The video's reader, opened where it is not."""
        if self.current is None or self.current.path != path:
            if self.current is not None:
                self.current.close()
                self.current = None
            self.current = VideoReader(path)
        return self.current

    def __reduce__(self) -> tuple[type[_OpenVideo], tuple[()]]:
        return _OpenVideo, ()


def files_in(root: Path, field: str) -> list[Path]:
    """All files in a folder and its subfolders, in order; links are followed, each folder once.

    Raises:
        InvalidValueError: No such folder; it names ``field``.
    """
    if not root.is_dir():
        raise InvalidValueError(field, "a folder", str(root))
    seen: set[tuple[int, int]] = set()
    files: list[Path] = []
    for folder, folders, names in os.walk(root, followlinks=True):
        state = Path(folder).stat()
        if (state.st_dev, state.st_ino) in seen:  # a link led back
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        files += [Path(folder, name) for name in names]
    return sorted(files)


def read_image(file: Path) -> npt.NDArray[np.uint8]:
    """(H, W, 3) RGB pixels of an image file, upright.

    Raises:
        RecordingError: It cannot be read or decoded.
    """
    try:
        return decode_compressed(file.read_bytes(), name=file.name, upright=True)
    except (VideoGemError, OSError) as error:
        raise RecordingError(f"{file}: {error}") from error


def _name(name: str) -> str:
    """Name of a file, folder or video without a video's suffix."""
    path = PurePath(name)
    return path.stem if path.suffix.lower() in VIDEOS else name

"""Folders of images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from videogem_ros.adapters.bag.source import Source
from videogem_ros.datatypes import Frame
from videogem_ros.encodings import decode_compressed
from videogem_ros.errors import InvalidValueError, RecordingError, VideoGemError

SUFFIXES = frozenset(
    {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Ends of the file names that count as images, in lower case."""

MOST_STAMP_NS = 2**31 * 10**9
"""Header stamps are below: their seconds are an int32 (builtin_interfaces/Time)."""

_NANOSECONDS = re.compile(r"[1-9]\d{17,18}")
_SECONDS = re.compile(r"(\d+)\.(\d{3,9})|([1-9]\d{9})")


class FolderSource(Source):
    """The images of one folder, without those of its subfolders.

    Where every file name is another time, it is the stamp: nanoseconds of 18 or 19 digits
    (1403636579763555584.png), seconds with 3 to 9 decimals (1305031102.175304.png) or whole ones
    of 10 digits, before the year 2038. Otherwise the images are taken in natural order (frame2
    before frame10), one every 1 / rate_hz seconds from 0. EXIF orientation is honoured.

    Args:
        path: The folder.
        rate_hz: Images per second where the file names tell no time.

    Raises:
        RecordingError: No images in the folder, or it cannot be read.
        InvalidValueError: The rate is not positive.
    """

    def __init__(self, path: Path, rate_hz: float) -> None:
        super().__init__(path)
        if not rate_hz > 0:
            raise InvalidValueError("rate_hz", "images per second, more than 0", rate_hz)
        try:
            files = [
                file
                for file in path.iterdir()
                if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
            ]
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror}") from error
        if not files:
            raise RecordingError(f"{path}: no images and no recording in this folder")
        self._files = _stamped(files, rate_hz)
        self.frame_count = len(self._files)
        self.duration_s = (self._files[-1][0] - self._files[0][0]) / 1e9

    def _events(self) -> Iterator[Frame]:
        for stamp_ns, file in self._files:
            try:
                image = decode_compressed(file.read_bytes(), name=file.name, upright=True)
            except (VideoGemError, OSError) as error:
                self._skip(error)
                continue
            yield Frame(image, stamp_ns)


def _stamped(files: Sequence[Path], rate_hz: float) -> list[tuple[int, Path]]:
    """Files in order of time, each with its stamp in nanoseconds."""
    stamps = [_stamp_ns(file.stem) for file in files]
    if None not in stamps and len(set(stamps)) == len(stamps):
        return sorted((stamp, file) for stamp, file in zip(stamps, files) if stamp is not None)
    ordered = sorted(files, key=lambda file: (_natural(file.stem), file.name))
    return [(round(place * 1e9 / rate_hz), file) for place, file in enumerate(ordered)]


def _stamp_ns(stem: str) -> int | None:
    """The time that a file's name tells, if it looks like one and a header can hold it."""
    if _NANOSECONDS.fullmatch(stem):
        stamp_ns = int(stem)
    elif match := _SECONDS.fullmatch(stem):
        whole, fraction, epoch = match.groups()
        stamp_ns = int(epoch or whole) * 10**9 + int((fraction or "").ljust(9, "0"))
    else:
        return None
    return stamp_ns if stamp_ns < MOST_STAMP_NS else None


def _natural(stem: str) -> list[tuple[bool, int, str]]:
    """Sorting key that takes runs of digits as numbers, and puts them before letters."""
    parts = re.findall(r"\d+|\D+", stem)
    return [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts]

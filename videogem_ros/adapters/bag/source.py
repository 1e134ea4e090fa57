"""What every recording provides: frames, and the commands that were given during it."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from videogem_ros.datatypes import Frame
from videogem_ros.errors import InvalidValueError, RecordingError

_logger = logging.getLogger(__name__)
_Self = TypeVar("_Self", bound="Source")


@dataclass(frozen=True)
class Command:
    """An action text that arrived while the recording was made.

    Attributes:
        text: The command; may be empty.
        stamp_ns: When it was recorded, nanoseconds.
    """

    text: str
    stamp_ns: int


class Source(ABC):
    """An open recording: iterate over it for its frames and commands, in the order recorded.

    What cannot be decoded is left out, counted in ``skipped`` and logged once for each reason.
    Every iteration starts at the beginning. A context manager that closes the recording.

    Attributes:
        path: The recording.
        image_topic: Topic of the frames; None where there are no topics.
        action_topic: Topic of the commands; None where there is none.
        frame_count: Number of frames, including those that will be left out; None if unknown.
        duration_s: Seconds from the recording's beginning to its end; None if unknown.
        skipped: Number of images or messages that the latest iteration left out, by reason.
    """

    image_topic: str | None = None
    action_topic: str | None = None
    frame_count: int | None = None
    duration_s: float | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skipped: Counter[str] = Counter()
        self._open_files = ExitStack()

    def __iter__(self) -> Iterator[Frame | Command]:
        """Frames and commands.

        Raises:
            RecordingError: At the end, if there was no readable frame; the message says why.
        """
        self.skipped.clear()
        empty = True
        for event in self._events():
            empty = empty and not isinstance(event, Frame)
            yield event
        if empty:
            reasons = "; ".join(f"{count} x {reason}" for reason, count in self.skipped.items())
            raise RecordingError(
                f"{self.path}: no readable frame in it ({reasons or 'it is empty'})"
            )

    @abstractmethod
    def _events(self) -> Iterator[Frame | Command]:
        """Frames and commands; hands to :meth:`_skip` what cannot be decoded."""

    def _skip(self, error: Exception, reason: str | None = None) -> None:
        """Counts what was left out, under a reason that is the same for all like it."""
        if reason is None and isinstance(error, InvalidValueError):
            reason = f"{error.field}: expected {error.expected}"
        reason = reason or str(error)
        self.skipped[reason] += 1
        if self.skipped[reason] == 1:
            _logger.warning("%s: left out: %s (more of these are only counted)", self.path, error)

    def close(self) -> None:
        """Closes the recording's files."""
        self._open_files.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

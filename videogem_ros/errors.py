"""The package's exceptions.

Every error a user can cause derives from :class:`VideoGemError`; its message names the field,
what was expected and what arrived, so that a command line can print it as one line and a node can
log it.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any


class VideoGemError(Exception):
    """Base of every error that bad input, bad files or a bad configuration can cause."""


class InvalidValueError(VideoGemError, ValueError):
    """A field holds a value outside what it may hold.

    Args:
        field: Dotted name of the field, as the user knows it (``window.frames``).
        expected: What the field takes, in words.
        got: The value that arrived; shown with ``repr`` unless it is a string made for reading.
    """

    def __init__(self, field: str, expected: str, got: object) -> None:
        self.field = field
        self.expected = expected
        self.got = got
        shown = got if isinstance(got, str) else repr(got)
        super().__init__(f"{field}: expected {expected}, got {shown}")


def check_choice(field: str, value: object, choices: Collection[str]) -> None:
    """Refuse what is not one of the choices.

    Raises:
        InvalidValueError: It is not.
    """
    if value not in choices:
        raise InvalidValueError(field, f"one of {', '.join(choices)}", value)


def check_range(
    field: str, value: Any, least: float, most: float = math.inf, kind: type[Any] = Real
) -> None:
    """Refuse a value that is not a finite number of this kind in [least, most].

    Raises:
        InvalidValueError: It is not.
    """
    if isinstance(value, kind) and math.isfinite(value) and least <= value <= most:
        return
    number = "a whole number" if kind is Integral else "a number"
    limits = f"in [{least:g}, {most:g}]"
    if most == math.inf:
        limits = "that is finite" if least == -math.inf else f"of at least {least:g}"
    raise InvalidValueError(field, f"{number} {limits}", value)


def check_type(field: str, value: object, kind: type, expected: str) -> None:
    """Refuse an object of another type, which would fail later, and less clearly.

    Raises:
        InvalidValueError: It is not an instance of ``kind``.
    """
    if not isinstance(value, kind):
        raise InvalidValueError(field, expected, f"an object of type {type(value).__name__}")


class WeightsError(VideoGemError):
    """Backbone weights are missing, unreadable, or of another architecture.

    Args:
        source: The tag or path that was asked for.
        problem: What is wrong with it.
        remedy: What the user can do about it.
    """

    def __init__(self, source: str, problem: str, remedy: str) -> None:
        self.source = source
        super().__init__(f"weights {source!r}: {problem}; {remedy}")


class RecordingError(VideoGemError):
    """A recording, or a file of results, cannot be read or written."""


class EncodingError(InvalidValueError):
    """An image message cannot be converted: unknown encoding, wrong step, short data."""


def said(error: Exception) -> str:
    """An exception's message in one line, its type where it comes without."""
    return " ".join(str(error).split()) or type(error).__name__


def reason(error: Exception) -> str:
    """What :func:`said` says, but without the file, for reports that name it themselves.

    Errors of the operating system and of FFmpeg (PyAV) have it as ``strerror``.
    """
    return getattr(error, "strerror", None) or said(error)

"""Checked access to what annotation files hold; errors name the field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.records import Box


def item(value: Any, key: str, field: str) -> Any:
    """What a mapping holds under a key.

    Raises:
        InvalidValueError: The value is no mapping, or lacks the key; it names ``field``.
    """
    if key not in mapping(value, field):
        keys = ", ".join(repr(other) for other in [*value][:8]) or "an empty one"
        raise InvalidValueError(field, f"an object with {key!r}", keys)
    return value[key]


def mapping(value: Any, field: str) -> Mapping[Any, Any]:
    """The value itself, if it is a mapping."""
    if not isinstance(value, Mapping):
        raise InvalidValueError(field, "an object", type(value).__name__)
    return value


def by_name(value: Any, field: str) -> Mapping[str, Any]:
    """The value itself, if it is a mapping whose keys are texts."""
    members = mapping(value, field)
    for key in members:
        if not isinstance(key, str):
            raise InvalidValueError(field, "names", key)
    return members


def sequence(value: Any, field: str) -> Sequence[Any]:
    """The value itself, if it is a list or a tuple."""
    if not isinstance(value, (list, tuple)):
        raise InvalidValueError(field, "a list", type(value).__name__)
    return value


def number(value: Any, field: str) -> float:
    """The value itself, if it is a number that a time in seconds or a frame can have."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e9:
        raise InvalidValueError(field, "a number from 0 to 1e9", value)
    return float(value)


def whole(value: Any, field: str) -> int:
    """The value itself, if it is such a number and a whole one."""
    if not number(value, field).is_integer():
        raise InvalidValueError(field, "a whole number", value)
    return int(value)


def words(value: Any, field: str) -> str:
    """The value's words, with single spaces between them."""
    if not isinstance(value, str) or not any(map(str.isalpha, value)):
        raise InvalidValueError(field, "a text with words", value)
    return " ".join(value.split())


def corners(value: Any, field: str) -> Box:
    """A box whose sides are in order.

    Raises:
        InvalidValueError: Not four finite numbers x1, y1, x2, y2 with x1 <= x2 and y1 <= y2.
    """
    x1, y1, x2, y2 = _four(value, field)
    if not (x1 <= x2 and y1 <= y2):
        raise InvalidValueError(field, "x1 <= x2 and y1 <= y2", value)
    return x1, y1, x2, y2


def _four(value: Any, field: str) -> list[float]:
    try:
        numbers = [float(side) for side in sequence(value, field)]
    except (OverflowError, TypeError, ValueError):
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise InvalidValueError(field, "four numbers x1, y1, x2, y2", value)
    return numbers


def within(box: Box, image_hw: tuple[float, float], field: str) -> Box:
    """The box itself, if some of it is in the image; the rest cannot be pointed at.

    Raises:
        InvalidValueError: None of it is.
    """
    x1, y1, x2, y2 = box
    height, width = image_hw
    if not (x1 < width and y1 < height and x2 >= 0 and y2 >= 0):
        raise InvalidValueError(field, "a box that overlaps the frame", box)
    return box

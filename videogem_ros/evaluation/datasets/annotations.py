"""Reading annotation files that come from the net: JSON and pickles, nothing trusted."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.records import Box


def _latin1_bytes(text: str, _encoding: str) -> bytes:
    """How Python 3 writes bytes into pickles that Python 2 can read."""
    return text.encode("latin1")


def _plain_dict(*arguments: Any) -> dict[Any, Any]:
    """What an ordered or a default dictionary holds; the latter's first argument is a type."""
    return dict(*(argument for argument in arguments if not callable(argument)))


_ALLOWED: dict[tuple[str, str], Any] = {
    **{
        ("builtins", kind.__name__): kind
        for kind in (dict, float, frozenset, int, list, set, str, tuple)
    },
    ("_codecs", "encode"): _latin1_bytes,
    ("collections", "OrderedDict"): _plain_dict,
    ("collections", "defaultdict"): _plain_dict,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    # What rebuilds arrays and scalars, from wherever this version of numpy keeps it.
    ("numpy.core.multiarray", "_reconstruct"): np.zeros(1).__reduce_ex__(2)[0],
    ("numpy.core.multiarray", "scalar"): np.float64(0).__reduce_ex__(2)[0],
    ("numpy.core.numeric", "_frombuffer"): np.zeros(1).__reduce_ex__(5)[0],
}
"""All that a pickle may name."""


class _PlainUnpickler(pickle.Unpickler):
    """Builds containers, numbers, texts and numpy arrays, and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        home = module.replace("__builtin__", "builtins").replace("numpy._core", "numpy.core")
        try:
            return _ALLOWED[home, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def load(path: Path) -> Any:
    """What an annotation file holds, whatever its name ends in.

    Args:
        path: JSON, or a pickle of containers, numbers, texts and numpy arrays, also of Python 2.
            Pickles that ask for anything else are refused before it is imported.

    Raises:
        InvalidValueError: It cannot be read, or is none of these.
    """
    try:
        if _is_json(path):
            return json.loads(path.read_text(encoding="utf-8"))
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except OSError as error:
        raise InvalidValueError(
            "annotations", "a readable file", f"{path} ({error.strerror})"
        ) from error
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to lead to
        reason = str(error) or type(error).__name__
        raise InvalidValueError(
            "annotations",
            "JSON, or a pickle of plain containers, numbers, texts and numpy arrays",
            f"{path} ({reason})",
        ) from error


def _is_json(path: Path) -> bool:
    """Neither an opening brace nor bracket is a pickle's opcode."""
    with path.open("rb") as file:
        return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def find(patterns: Sequence[str], files: Iterable[Path], where: Path) -> list[Path]:
    """One file for each name pattern.

    Args:
        patterns: As of a shell, ``*box_anno.json``.
        files: To choose from.
        where: The folder they are in, for error messages.

    Raises:
        InvalidValueError: No file of that name, or several.
    """
    files = list(files)
    found = []
    for pattern in patterns:
        matches = [file for file in files if fnmatch(file.name, pattern)]
        if len(matches) != 1:
            names = ", ".join(map(str, matches[:3])) or "none"
            raise InvalidValueError("annotations", f"one {pattern} in {where}", names)
        found += matches
    return found


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
    """The value's members, if it is a list, a tuple or an array."""
    if isinstance(value, np.ndarray) and value.ndim:
        return list(value)
    if not isinstance(value, (list, tuple)):
        raise InvalidValueError(field, "a list", type(value).__name__)
    return value


def number(value: Any, field: str) -> float:
    """The value itself, if it is a finite number that is not negative."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, np.number))
        or not 0 <= value < math.inf
    ):
        raise InvalidValueError(field, "a number, 0 or more", value)
    return float(value)


def whole(value: Any, field: str) -> int:
    """The value itself, if it is a whole number that is not negative."""
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
    except (TypeError, ValueError):
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
        raise InvalidValueError(field, "a part within the frame", box)
    return box

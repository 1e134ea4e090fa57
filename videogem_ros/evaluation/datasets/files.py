"""Reading annotation files from untrusted sources: JSON and pickles."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from videogem_ros.errors import InvalidValueError, reason


class _ArrayType:
    """Stands for numpy's dtype, whose own unpickling trusts what it reads."""

    def __init__(self, code: str, *_: object) -> None:
        self._code, self._order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = state[1]

    def values(self, data: Any) -> npt.NDArray[Any]:
        """(N,) numbers, texts or objects."""
        if self._code == "O8":
            values = np.empty(len(data), dtype=object)
            for index, value in enumerate(data):
                values[index] = value
            return values
        code = f"{self._order}{self._code}"
        if not re.fullmatch(r"[<>=|][biufSU]\d+", code):
            raise pickle.UnpicklingError(f"it holds an array of {self._code!r}")
        return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, code)


class _Array(list[Any]):
    """Stands for numpy's array: a list of its rows."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, data = state
        values = kind.values(data).reshape(shape, order="F" if is_fortran else "C").tolist()
        self[:] = values if isinstance(values, list) else [values]


def _array(*_: object) -> _Array:
    return _Array()


def _array_of(data: Any, kind: _ArrayType, shape: tuple[int, ...], order: str, *_: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", data))
    return array


def _scalar(kind: _ArrayType, data: Any) -> Any:
    return kind.values(data)[0].item()


def _bytes(text: str, _encoding: str) -> bytes:
    return text.encode("latin1")


def _dict(*arguments: Any) -> dict[Any, Any]:
    """Stands for OrderedDict and defaultdict, whose first argument may be a factory."""
    return dict(*(argument for argument in arguments if not callable(argument)))


_ALLOWED: dict[tuple[str, str], Any] = {
    **{
        ("builtins", kind.__name__): kind
        for kind in (bytes, dict, float, frozenset, int, list, set, str, tuple)
    },
    ("builtins", "long"): int,
    ("builtins", "unicode"): str,
    ("_codecs", "encode"): _bytes,
    ("collections", "OrderedDict"): _dict,
    ("collections", "defaultdict"): _dict,
    ("numpy", "dtype"): _ArrayType,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _array_of,
}
"""All names that a pickle may use, and what they stand for."""


class _PlainUnpickler(pickle.Unpickler):
    """Builds containers, numbers and texts, and imports nothing."""

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

    Returns:
        Builtin containers, numbers and texts; lists of rows where the file has arrays.

    Raises:
        InvalidValueError: It cannot be read, or is none of these.
    """
    try:
        if _is_json(path):
            return json.loads(path.read_text(encoding="utf-8-sig"))
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except OSError as error:
        raise InvalidValueError(
            "annotations", "a readable file", f"{path} ({error.strerror})"
        ) from error
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to lead to
        raise InvalidValueError(
            "annotations",
            "JSON, or a pickle of plain containers, numbers, texts and numpy arrays",
            f"{path} ({reason(error)})",
        ) from error


def _is_json(path: Path) -> bool:
    """Whether a file begins like JSON, with a brace or bracket, which no pickle does."""
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

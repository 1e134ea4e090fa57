"""CSV files written by people or other systems; errors name line and column."""

from __future__ import annotations

import csv
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from pathlib import Path

from videogem_ros.errors import InvalidValueError, VideoGemError
from videogem_ros.window import NS_PER_S

TOLERANCE_S = 0.05
"""How far a time in a table may be from its frame; half a frame's time at 10 Hz."""

LATEST_S = 10**10
"""The largest number that is taken for seconds (the year 2286); larger ones are nanoseconds."""


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        place: File and line, for error messages.
        fields: Stripped texts by column; empty where an optional column is not there.
    """

    place: str
    fields: Mapping[str, str]

    def error(self, column: str, expected: str, got: object = None) -> InvalidValueError:
        """The error to raise for a field."""
        return InvalidValueError(f"{self.place}, {column}", expected, got or self.fields[column])

    def text(self, column: str) -> str:
        """A field that must not be empty.

        Raises:
            InvalidValueError: It is.
        """
        if not self.fields[column]:
            raise self.error(column, "text", "nothing")
        return self.fields[column]

    def number(self, column: str) -> float:
        """A field that must be a number.

        Raises:
            InvalidValueError: It is not a finite number.
        """
        try:
            value = float(self.fields[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.error(column, "a number", self.fields[column] or "nothing")
        return value

    def time_ns(self, column: str) -> int:
        """A field of seconds, in nanoseconds; exact, also for seconds since 1970.

        Raises:
            InvalidValueError: It is not a number in [0, ``LATEST_S``].
        """
        if not 0 <= self.number(column) <= LATEST_S:
            raise self.error(column, "seconds, zero or more")
        try:
            return round(Decimal(self.fields[column]) * NS_PER_S)
        except DecimalException as error:  # of exponents that nobody means
            raise self.error(column, "seconds, zero or more") from error


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[Row]:
    """Reads a comma-separated UTF-8 file with a header; empty lines are ignored.

    Args:
        path: The file.
        columns: Names that the header must have, in any order and case.
        optional: Names that it may have.

    Raises:
        VideoGemError: The file cannot be read.
        InvalidValueError: The header is wrong, a line has another number of fields, or there are
            no lines.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, [field.strip() for field in line]) for line in reader]
    except OSError as error:
        raise VideoGemError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise VideoGemError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    filled = [(number, fields) for number, fields in lines if any(fields)]
    header = [name.lower() for name in filled[0][1]] if filled else []
    names = set(header)
    if len(names) < len(header) or not set(columns) <= names <= {*columns, *optional}:
        expected = ", ".join([*columns, *(f"[{name}]" for name in optional)])
        raise InvalidValueError(f"{path.name}, header", expected, ", ".join(header) or "nothing")
    rows = []
    for number, fields in filled[1:]:
        place = f"{path.name} line {number}"
        if len(fields) != len(header):
            raise InvalidValueError(place, f"{len(header)} fields", len(fields))
        rows.append(Row(place, dict.fromkeys(optional, "") | dict(zip(header, fields))))
    if not rows:
        raise InvalidValueError(path.name, "lines below the header", "none")
    return rows


def nearest_index(times: Sequence[int], time: int) -> int:
    """Index of the nearest of several times (or other numbers).

    Args:
        times: At least one, in increasing order; of two that are equally near, the earlier is
            taken.
        time: The time to compare with, in the same unit.
    """
    after = bisect_left(times, time)
    around = range(max(after - 1, 0), min(after + 1, len(times)))
    return min(around, key=lambda index: abs(times[index] - time))


def nearest(times_ns: Sequence[int], time_ns: int) -> int:
    """The nearest of several times; see :func:`nearest_index`."""
    return times_ns[nearest_index(times_ns, time_ns)]

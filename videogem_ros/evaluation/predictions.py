"""Points of another system beside ours: a CSV file that anyone can write."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.metrics import judge
from videogem_ros.evaluation.records import Record
from videogem_ros.evaluation.tables import TOLERANCE_S, Row, nearest, read_table
from videogem_ros.window import NS_PER_S

_logger = logging.getLogger(__name__)

_Lines = Mapping[tuple[str, str], tuple[Sequence[int], Mapping[int, Row]]]
"""By video and action's text ("" for all actions): times in nanoseconds, in order, and rows."""


def add_predictions(
    records: Sequence[Record], name: str, path: Path, *, tolerance_s: float = TOLERANCE_S
) -> list[Record]:
    """Adds another system's outcomes to records.

    Samples without a prediction get none; see :func:`coverage`. How many lines of the file belong
    to no sample is logged.

    Args:
        records: Of one run.
        name: The system's, as reports show it.
        path: CSV with the columns video (a record's), time (the record's, in seconds: that of the
            annotated frame in its video, for a bag the image's header stamp), x and y (pixels of
            the source image). Where frames are asked for several actions, a column action with
            the record's text tells for which a line is; without it, it is for all. A column score
            holds a presence score in [0, 1].
        tolerance_s: How far the nearest line may be from a record's time, seconds.

    Returns:
        The records in their order.

    Raises:
        VideoGemError: The file cannot be read.
        InvalidValueError: A line is wrong, no line belongs to a sample, or a method of this name
            is there already.
    """
    if not name.strip() or any(name in record.outcomes for record in records):
        raise InvalidValueError("predictions", "a name that no other method has", name)
    rows = read_table(path, ("video", "time", "x", "y"), ("action", "score"))
    points = [(row.number("x"), row.number("y")) for row in rows]
    if all(0 <= value <= 1 for point in points for value in point):
        raise InvalidValueError(f"{path.name}, x and y", "pixels", "numbers from 0 to 1 alone")
    lines = _lines(rows)
    used: set[str] = set()
    found = []
    for record in records:
        row = _line_for(lines, record, round(tolerance_s * NS_PER_S))
        if row is not None:
            used.add(row.place)
            outcome = judge(
                (row.number("x"), row.number("y")),
                None,
                record.boxes,
                record.image_hw,
                _score(row),
            )
            record = replace(record, outcomes={**record.outcomes, name: outcome})  # noqa: PLW2901
        found.append(record)
    if not used:
        first = rows[0].fields
        raise InvalidValueError(
            path.name,
            f"video and time of samples, such as {_example(records)}",
            f"none, but {first['video']} at {first['time']} s",
        )
    if len(used) < len(rows):
        _logger.warning(
            "%s: %d of %d lines belong to no sample", path, len(rows) - len(used), len(rows)
        )
    return found


def coverage(records: Sequence[Record], name: str) -> str:
    """How many samples a system has predictions for, as a line of a report."""
    count = sum(name in record.outcomes for record in records)
    return f"{name}: predictions for {count:,} of {len(records):,} samples"


def _lines(rows: Iterable[Row]) -> _Lines:
    lines: dict[tuple[str, str], dict[int, Row]] = {}
    for row in rows:
        _score(row)  # also of those that belong to no sample
        at = lines.setdefault((row.text("video"), row.fields["action"]), {})
        if at.setdefault(row.time_ns("time"), row) is not row:
            raise row.error("time", "each video, time and action once")
    return {key: (sorted(at), at) for key, at in lines.items()}


def _score(row: Row) -> float | None:
    if not row.fields["score"]:
        return None
    score = row.number("score")
    if not 0 <= score <= 1:
        raise row.error("score", "a number from 0 to 1")
    return score


def _line_for(lines: _Lines, record: Record, tolerance_ns: int) -> Row | None:
    """The line for a record; one for its action goes before one for all."""
    for action in (record.action.strip(), ""):
        if (record.video, action) in lines:
            times_ns, at = lines[record.video, action]
            time_ns = nearest(times_ns, record.time_ns)
            if abs(time_ns - record.time_ns) <= tolerance_ns:
                return at[time_ns]
    return None


def _example(records: Sequence[Record]) -> str:
    return f"{records[0].video} at {records[0].time_ns / NS_PER_S} s" if records else "none"

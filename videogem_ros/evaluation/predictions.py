"""Points of other systems, to compare with ours, from a simple CSV file."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from videogem_ros.core.configuration import WEIGHTINGS
from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.methods import PROMPTS
from videogem_ros.evaluation.metrics import judge
from videogem_ros.evaluation.records import CENTRE, Record, Sample, method_name
from videogem_ros.evaluation.tables import TOLERANCE_S, Row, nearest, read_table
from videogem_ros.window import NS_PER_S

_logger = logging.getLogger(__name__)

_Lines = Mapping[tuple[str, str], tuple[Sequence[int], Mapping[int, Row]]]
"""By video and action's text ("" for all actions): times in nanoseconds, in order, and rows."""


def check_names(names: Iterable[str]) -> None:
    """Refuse names of other systems that are not distinct from our methods' and each other.

    Raises:
        InvalidValueError: One is empty, given twice, or that of a method of the ablation grid.
    """
    taken = {method_name(weighting, prompt) for weighting in WEIGHTINGS for prompt in PROMPTS}
    taken.add(CENTRE)
    for name in names:
        _check_name(name, taken)
        taken.add(name)


def check_predictions(path: Path) -> None:
    """Refuse a file that :func:`add_predictions` cannot read.

    Raises:
        VideoGemError: The file cannot be read.
        InvalidValueError: A line is wrong.
    """
    _read(path)


def check_samples(
    samples: Sequence[Sample], path: Path, *, tolerance_s: float = TOLERANCE_S
) -> None:
    """Refuse a file in which no line belongs to a sample, before the samples are grounded.

    Args:
        samples: Samples of a data set.
        path: As for :func:`add_predictions`.
        tolerance_s: Likewise.

    Raises:
        VideoGemError: As for :func:`check_predictions`, or no line belongs to a sample.
    """
    rows, lines = _read(path)
    tolerance_ns = round(tolerance_s * NS_PER_S)
    for sample in samples:
        for action in sample.actions:
            if _line_for(lines, sample, action.text, tolerance_ns):
                return
    raise _unused(path, rows, samples)


def add_predictions(
    records: Sequence[Record], name: str, path: Path, *, tolerance_s: float = TOLERANCE_S
) -> list[Record]:
    """Adds another system's outcomes to records.

    Samples without a prediction get none; see :func:`coverage`. The number of lines that belong to
    no sample is logged.

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
    _check_name(name, {method for record in records for method in record.outcomes})
    rows, lines = _read(path)
    used: set[str] = set()
    found = []
    for record in records:
        row = _line_for(lines, record, record.action, round(tolerance_s * NS_PER_S))
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
        raise _unused(path, rows, records)
    if len(used) < len(rows):
        _logger.warning(
            "%s: %d of %d lines belong to no sample", path, len(rows) - len(used), len(rows)
        )
    return found


def coverage(records: Sequence[Record], name: str) -> str:
    """How many samples a system has predictions for, as a line of a report."""
    count = sum(name in record.outcomes for record in records)
    return f"{name}: predictions for {count:,} of {len(records):,} samples"


def _check_name(name: str, taken: Collection[str]) -> None:
    if not name.strip() or name in taken:
        raise InvalidValueError("predictions", "a name that no other method has", name)


def _read(path: Path) -> tuple[list[Row], _Lines]:
    """A file's rows, all of them checked, in order and by video and action."""
    rows = read_table(path, ("video", "time", "x", "y"), ("action", "score"))
    points = [(row.number("x"), row.number("y")) for row in rows]
    if all(0 <= value <= 1 for point in points for value in point):
        raise InvalidValueError(f"{path.name}, x and y", "pixels", "only numbers from 0 to 1")
    return rows, _lines(rows)


def _unused(
    path: Path, rows: Sequence[Row], samples: Sequence[Sample | Record]
) -> InvalidValueError:
    """The error to raise where no line belongs to a sample."""
    first = rows[0].fields
    return InvalidValueError(
        path.name,
        f"video and time of samples, such as {_example(samples)}",
        f"only others, such as {first['video']} at {first['time']} s",
    )


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


def _line_for(lines: _Lines, sample: Sample | Record, text: str, tolerance_ns: int) -> Row | None:
    """The line for a sample's action, preferred to one for all actions; None without either."""
    for action in (text.strip(), ""):
        if (sample.video, action) in lines:
            times_ns, at = lines[sample.video, action]
            time_ns = nearest(times_ns, sample.time_ns)
            if abs(time_ns - sample.time_ns) <= tolerance_ns:
                return at[time_ns]
    return None


def _example(samples: Sequence[Sample | Record]) -> str:
    return f"{samples[0].video} at {samples[0].time_ns / NS_PER_S} s" if samples else "none"

"""Which samples the gallery shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from videogem_ros.evaluation.records import Record


class Cases(NamedTuple):
    """Samples to look at, none of them twice."""

    best: tuple[Record, ...]
    median: tuple[Record, ...]
    worst: tuple[Record, ...]


def choose_cases(records: Sequence[Record], method: str, count: int = 4) -> Cases:
    """Picks the best, the middling and the worst samples of a method.

    Samples are ranked by the point's distance to the box and, where that is equal, by the
    heatmap's IoU. Neighbouring frames of a video look alike, so each of the three takes one
    sample of a video before it takes a second one.

    Args:
        records: Those without a box or an outcome of the method are left aside.
        method: Its name in the outcomes.
        count: Of each kind; fewer where there are less than three times as many records.
    """

    def rank(record: Record) -> tuple[float, float, str]:
        outcome = record.outcomes[method]
        return outcome.distance or 0.0, -(outcome.iou or 0.0), record.key

    ranked = sorted(
        (
            record
            for record in records
            if method in record.outcomes and record.outcomes[method].distance is not None
        ),
        key=rank,
    )
    count = min(count, math.ceil(len(ranked) / 3))
    middle = (len(ranked) - 1) / 2
    outwards = sorted(range(len(ranked)), key=lambda index: abs(index - middle))
    best = _pick(ranked, count)
    worst = _pick(ranked[::-1], count, but=best)
    median = _pick([ranked[index] for index in outwards], count, but=best + worst)
    return Cases(best, median, worst)


def _pick(order: Sequence[Record], count: int, but: tuple[Record, ...] = ()) -> tuple[Record, ...]:
    """The first ones, of different videos as far as there are enough."""
    taken = {record.key for record in but}
    videos: set[str] = set()
    fresh: list[Record] = []
    again: list[Record] = []
    for record in order:
        if record.key not in taken:
            (again if record.video in videos else fresh).append(record)
            videos.add(record.video)
    return tuple((fresh + again)[:count])

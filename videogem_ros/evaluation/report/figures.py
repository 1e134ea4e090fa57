"""Numbers as text, with as many digits as their intervals warrant, and names of what they say."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from videogem_ros.core.configuration import WEIGHTINGS
from videogem_ros.evaluation.methods import GEM, VIDEOGEM, Method
from videogem_ros.evaluation.metrics import Estimate, Summary
from videogem_ros.evaluation.records import CENTRE, Run

NOTHING = "\N{EN DASH}"
"""Stands where a method has no such number."""

KNOWN_AS = {GEM.name: "GEM", VIDEOGEM.name: "VideoGEM"}
"""Names that papers give to methods of the ablation grid."""

PROMPT_WORDS = {
    "fused": "fused point",
    "fused-heatmaps": "fused heatmaps",
    "action": "action prompt",
    "object": "object prompt",
    "verb": "verb prompt",
}
"""What a method takes its point from, in the order of the ablation table."""

GRID = {
    method.name: method
    for prompt in PROMPT_WORDS
    for weighting in WEIGHTINGS
    for method in [Method(weighting, prompt)]
}
"""Methods of the ablation grid by name, in the order of the ablation table."""


@dataclass(frozen=True)
class Metric:
    """A column of the result table.

    Attributes:
        name: Of the field of :class:`~videogem_ros.evaluation.metrics.Summary`.
        title: Heading of the column.
        percent: Whether the fraction is shown in percent.
        definition: One sentence, for whoever reads the report without the documentation.
    """

    name: str
    title: str
    percent: bool
    definition: str

    def of(self, summary: Summary) -> Estimate | None:
        """The number itself; None where the method has none."""
        estimate: Estimate | None = getattr(summary, self.name)
        return estimate


METRICS = (
    Metric(
        "accuracy",
        "Accuracy, %",
        True,
        "Pointing game: share of the samples whose point lies in a box, borders included.",
    ),
    Metric("class_mean", "Class mean, %", True, "Mean over the classes of the accuracy in each."),
    Metric(
        "distance",
        "Distance, %",
        True,
        "Mean distance from the point to the nearest box, 0 inside, in percent of the image's "
        "diagonal; less is better.",
    ),
    Metric(
        "iou",
        "IoU",
        False,
        "Mean overlap of the boxes with the part of the heatmap at half its maximum or more: "
        "intersection over union.",
    ),
    Metric(
        "auc",
        "Presence AUC",
        False,
        "Probability that the presence score is higher in a frame with the action than in one "
        "without.",
    ),
)


@dataclass(frozen=True)
class Figure:
    """A number as it is shown.

    Attributes:
        value: Its text.
        interval: "55.1 to 59.3"; empty where there is none, as when all samples are alike.
    """

    value: str = NOTHING
    interval: str = ""


def show_column(estimates: Sequence[Estimate | None], *, percent: bool) -> list[Figure]:
    """Formats the numbers of one column with equally many decimals.

    As many as give the middling interval's half width two significant digits, but in percent two
    at most, and otherwise two to four.

    Args:
        estimates: Fractions, top to bottom; None where a row has no number.
        percent: Whether they are shown in percent.
    """
    factor, least, most = (100, 0, 2) if percent else (1, 2, 4)
    halves = [factor * (known.high - known.low) / 2 for known in estimates if known is not None]
    decimals = _decimals([half for half in halves if half > 0], least, most)

    def text(fraction: float) -> str:
        return f"{factor * fraction:.{decimals}f}"

    def figure(estimate: Estimate | None) -> Figure:
        if estimate is None or math.isnan(estimate.value):
            return Figure()
        if not estimate.low < estimate.high:  # NaN, or all samples alike: nothing to draw from
            return Figure(text(estimate.value))
        interval = f"{text(estimate.low)} to {text(estimate.high)}"
        return Figure(text(estimate.value), interval)

    return [figure(estimate) for estimate in estimates]


def _decimals(halves: Sequence[float], least: int, most: int) -> int:
    wanted = 1 - math.floor(math.log10(statistics.median(halves))) if halves else least + 1
    return min(max(wanted, least), most)


def show_counts(boxed: int, samples: int) -> tuple[str, str]:
    """How many samples a method's accuracy is over, and "of 40" where it was asked for more.

    Args:
        boxed: Samples with a box.
        samples: All that the method was asked for.
    """
    return f"{boxed:,}", f"of {samples:,}" if samples > boxed else ""


def show_plain(value: float) -> str:
    """A number without an interval: whole where it is whole or large, else three digits."""
    if not math.isfinite(value):
        return NOTHING
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def title_of(method: str) -> tuple[str, str]:
    """What a method is called in a table, and what it is in detail (may be empty)."""
    if method == CENTRE:
        return "Image centre", "needs no model"
    if method not in GRID:
        system, _, prompt = method.rpartition("/")
        return (f"{system}, {PROMPT_WORDS[prompt]}" if prompt in PROMPT_WORDS else method), ""
    weights = f"{GRID[method].weighting} weights"
    prompt = PROMPT_WORDS[GRID[method].prompt]
    if method in KNOWN_AS:
        return KNOWN_AS[method], f"{weights}, {prompt}"
    return prompt.capitalize(), weights


def headline_methods(run: Run, summaries: Mapping[str, Summary]) -> list[str]:
    """The run's own method, GEM, its action prompt alone, and all that is not of the grid."""
    wanted = {run.main, GEM.name}
    if run.main in GRID:
        wanted.add(Method(GRID[run.main].weighting, "action").name)
    return by_accuracy(
        summary for name, summary in summaries.items() if name in wanted or name not in GRID
    )


def by_accuracy(summaries: Iterable[Summary]) -> list[str]:
    """Their methods, the best first."""
    ranked = sorted(summaries, key=lambda summary: -summary.accuracy.value)
    return [summary.method for summary in ranked]


_TIMING = re.compile(r"(?P<quantity>.+?)(?<!_per)_(?P<unit>ms|s|hz|px)(?:_(?P<statistic>.+))?")


def timing_table(timing: Mapping[str, float]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Sorts figures such as ``latency_ms_p99`` and ``dropped_frames`` into a table.

    Returns:
        Headings of the columns (statistics, "value" where a name has none), and by quantity with
        unit ("latency, ms") the texts under them.
    """
    rows: dict[str, dict[str, str]] = {}
    for name, value in timing.items():
        parts = _TIMING.fullmatch(name)
        quantity, column = name.replace("_", " "), "value"
        if parts is not None:
            unit = {"hz": "Hz"}.get(parts["unit"], parts["unit"])
            quantity = f"{parts['quantity'].replace('_', ' ')}, {unit}"
            column = (parts["statistic"] or column).replace("_", " ")
        rows.setdefault(quantity, {})[column] = show_plain(value)
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    return columns, rows

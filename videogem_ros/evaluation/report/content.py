"""What the page shows, from a run: tables of formatted figures with their plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from videogem_ros.core.configuration import GroundingConfig
from videogem_ros.datatypes import PROMPT_KINDS
from videogem_ros.evaluation.metrics import Summary
from videogem_ros.evaluation.records import Run
from videogem_ros.evaluation.report import plots
from videogem_ros.evaluation.report.figures import (
    GRID,
    METRICS,
    PROMPT_WORDS,
    Figure,
    headline_methods,
    show_column,
    show_counts,
)

CLASSES_SHOWN = 40
"""Bars that fill a page; data sets of free sentences have thousands of classes."""

LEAST_SPAN = 0.01
"""Accuracies nearer to each other are shown on the whole axis: a part would tell nothing."""


@dataclass(frozen=True)
class Row:
    """A method in a table.

    Attributes:
        method: Its name in the records' outcomes.
        plot: Of its accuracy.
        figures: One for each of :data:`~videogem_ros.evaluation.report.figures.METRICS`.
        samples: How many it was asked for.
        boxed: How many of them show the action, and so count for the accuracy.
    """

    method: str
    plot: Markup
    figures: tuple[Figure, ...]
    samples: int
    boxed: int

    @property
    def counts(self) -> tuple[str, str]:
        """Both as texts; the second empty where they are the same."""
        return show_counts(self.boxed, self.samples)


@dataclass(frozen=True)
class Groups:
    """Accuracy by group.

    Attributes:
        methods: Columns.
        rows: Name of a group, its number of samples, and a figure for each method.
    """

    methods: list[str]
    rows: list[tuple[str, int, tuple[Figure, ...]]]


@dataclass(frozen=True)
class Ablation:
    """The grid of prompts and weightings.

    Attributes:
        scale: Of the plots; narrower than 0 to 100 %.
        blocks: Rows, one for each weighting, by prompt in words.
    """

    scale: plots.Scale
    blocks: dict[str, list[Row]]


@dataclass(frozen=True)
class Layers:
    """Layer weights.

    Attributes:
        weighting: Whose.
        reference: What the dashed line is; empty without one.
        plots: By prompt.
    """

    weighting: str
    reference: str
    plots: dict[str, Markup]


@dataclass(frozen=True)
class Classes:
    """Accuracy by class.

    Attributes:
        rows: Label, number of samples, bar, and figure; the best class first.
        total: Number of classes; more than there are rows where there are too many to show.
    """

    rows: list[tuple[str, int, Markup, Figure]]
    total: int


def headline(run: Run, summaries: Mapping[str, Summary]) -> list[Row]:
    """The run's own method beside the baselines, the best first."""
    return _rows([summaries[name] for name in headline_methods(run, summaries)], plots.WHOLE)


def groups(run: Run, summaries: Mapping[str, Summary]) -> Groups | None:
    """Accuracy of the same methods by group; None without groups."""
    methods = headline_methods(run, summaries)
    by_group = [summaries[method].per_group for method in methods]
    names = sorted({name for estimates in by_group for name in estimates})
    if not names:
        return None
    cells = [estimates.get(name) for name in names for estimates in by_group]
    figures = iter(show_column(cells, percent=True))  # one table, one number of decimals
    counts = [
        max(estimates[name].count for estimates in by_group if name in estimates) for name in names
    ]
    rows = [
        (name, count, tuple(next(figures) for _ in methods)) for name, count in zip(names, counts)
    ]
    return Groups(methods, rows)


def ablation(run: Run, summaries: Mapping[str, Summary]) -> Ablation | None:
    """The grid; None where the headline shows all there is of it."""
    grid = [method for method in GRID if method in summaries]
    if set(grid) <= set(headline_methods(run, summaries)):
        return None
    chosen = [summaries[method] for method in grid]
    ends = [end for each in chosen for end in (each.accuracy.low, each.accuracy.high)]
    alike = max(ends) - min(ends) < LEAST_SPAN
    scale = plots.WHOLE if alike else plots.Scale.around(ends)
    reference = summaries[run.main].accuracy.value if run.main in summaries else None
    blocks: dict[str, list[Row]] = {}
    for row in _rows(chosen, scale, reference):
        blocks.setdefault(PROMPT_WORDS[GRID[row.method].prompt], []).append(row)
    return Ablation(scale, blocks)


def layers(run: Run) -> Layers | None:
    """Layer weights of the run's own weighting, or of the first; None where there are none."""
    known = [record.layer_weights for record in run.records if record.layer_weights]
    if not known:
        return None
    weighting = _kind(run.main)
    if weighting not in known[0]:
        weighting = next(iter(known[0]))
    rows = [sample[weighting] for sample in known if weighting in sample]
    lengths, _ = Counter(tuple(map(len, sample)) for sample in rows).most_common(1)[0]
    if len(lengths) != len(PROMPT_KINDS) or len(set(lengths)) > 1 or not lengths[0]:
        return None  # recorded by another program, perhaps
    weights = np.array(
        [sample for sample in rows if tuple(map(len, sample)) == lengths]
    )  # n, K, L
    static: Sequence[float] = GroundingConfig().static_weights
    reference = "the paper's static weights"
    if "static" in known[0]:
        static, reference = known[0]["static"][0], "the static weights"
    if len(static) != weights.shape[2]:
        static, reference = (), ""
    middle = np.quantile(weights, plots.SPREAD, axis=0)
    scale = plots.Scale.around([0.0, *middle.ravel(), *static], ticks=4)
    drawn = {
        kind: plots.layer_weights(weights[:, index], static, f"{kind} prompt", scale)
        for index, kind in enumerate(PROMPT_KINDS)
    }
    return Layers(weighting, reference, drawn)


def classes(run: Run, summaries: Mapping[str, Summary]) -> Classes | None:
    """Accuracy of the run's own method in the classes with most samples."""
    if run.main not in summaries:
        return None
    per_class = summaries[run.main].per_class
    largest = sorted(per_class, key=lambda label: -per_class[label].count)[:CLASSES_SHOWN]
    labels = sorted(largest, key=lambda label: -per_class[label].value)
    estimates = [per_class[label] for label in labels]
    figures = show_column(estimates, percent=True)
    rows = [
        (label, estimate.count, plots.bar(estimate), figure)
        for label, estimate, figure in zip(labels, estimates, figures)
    ]
    return Classes(rows, len(per_class))


def _rows(
    chosen: Sequence[Summary], scale: plots.Scale, reference: float | None = None
) -> list[Row]:
    columns = [
        show_column([metric.of(summary) for summary in chosen], percent=metric.percent)
        for metric in METRICS
    ]
    return [
        Row(
            summary.method,
            plots.interval(summary.accuracy, scale, _kind(summary.method), reference),
            tuple(column[index] for column in columns),
            summary.samples,
            summary.accuracy.count,
        )
        for index, summary in enumerate(chosen)
    ]


def _kind(method: str) -> str:
    """Weighting of a method of the grid, which has a marker of its own; others share one."""
    return GRID[method].weighting if method in GRID else "other"

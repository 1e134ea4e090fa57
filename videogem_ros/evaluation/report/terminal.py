"""The result as a table in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from videogem_ros.evaluation.metrics import Summary, summarise
from videogem_ros.evaluation.records import Run
from videogem_ros.evaluation.report.content import Groups, groups
from videogem_ros.evaluation.report.figures import (
    KNOWN_AS,
    METRICS,
    by_accuracy,
    show_column,
    show_counts,
    timing_table,
    title_of,
)


def print_table(
    run: Run, console: Console, summaries: Mapping[str, Summary] | None = None
) -> None:
    """Prints a run's methods, groups, timing, what was left out, and notes.

    Args:
        run: The finished evaluation.
        console: Where to.
        summaries: Of the run's records, where they are at hand already.
    """
    summaries = summarise(run.records) if summaries is None else summaries
    if summaries:
        console.print(_methods(run, summaries))
    else:
        console.print("No sample with a box was grounded.")
    by_group = groups(run, summaries)
    if by_group is not None:
        console.print(_groups(by_group))
    if run.timing:
        console.print(_timing(run.timing))
    for what, counts in (("missing", run.missing), ("skipped", run.skipped)):
        if counts:
            console.print(Text(f"{what}: {_counted(counts)}"))
    for note in run.notes:
        console.print(Text(f"note: {note}", style="yellow"))


def _methods(run: Run, summaries: Mapping[str, Summary]) -> Table:
    names = by_accuracy(summaries.values())
    columns: list[tuple[str, list[str]]] = []
    for metric in METRICS:
        estimates = [metric.of(summaries[name]) for name in names]
        figures = show_column(estimates, percent=metric.percent)
        columns.append((metric.title, [figure.value for figure in figures]))
        if metric.name == "accuracy":
            columns.append(("95% interval", [figure.interval for figure in figures]))
    counts = [
        show_counts(summary.accuracy.count, summary.samples)
        for summary in (summaries[name] for name in names)
    ]
    columns.append(("n", ["\n".join(filter(None, texts)) for texts in counts]))
    return _table(f"{run.dataset}, {run.backbone}", "Method", names, columns, main=run.main)


def _groups(groups: Groups) -> Table:
    columns = [
        (title_of(method)[0], [figures[index].value for _, _, figures in groups.rows])
        for index, method in enumerate(groups.methods)
    ]
    columns.append(("n", [f"{count:,}" for _, count, _ in groups.rows]))
    return _table("Accuracy, %", "Group", [name for name, _, _ in groups.rows], columns)


def _timing(timing: Mapping[str, float]) -> Table:
    statistics, rows = timing_table(timing)
    columns = [(name, [texts.get(name, "") for texts in rows.values()]) for name in statistics]
    return _table("Timing", "Quantity", list(rows), columns)


def _table(
    title: str,
    first: str,
    names: Sequence[str],
    columns: Sequence[tuple[str, Sequence[str]]],
    main: str | None = None,
) -> Table:
    """A table whose figures fit into 80 columns; names wrap where they must."""
    table = Table(title=Text(title), title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column(first, overflow="fold")
    for heading, _ in columns:
        broken = Text(heading.replace(" ", "\n"))
        table.add_column(broken, justify="right", no_wrap=True)
    for name, *texts in zip(names, *(texts for _, texts in columns)):
        known = Text(f"  {KNOWN_AS[name]}" if name in KNOWN_AS else "", style="dim")
        style = "bold" if name == main else ""
        table.add_row(Text(name) + known, *map(Text, texts), style=style)
    return table


def _counted(counts: Mapping[str, int], most: int = 5) -> str:
    """The total, then the largest of what it is made of."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    shown = [f"{name} ({count:,})" for name, count in ranked[:most]]
    more = [f"{len(ranked) - most:,} more"] if len(ranked) > most else []
    return f"{sum(counts.values()):,}: {', '.join(shown + more)}"

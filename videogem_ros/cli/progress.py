"""The progress bar that long commands show on standard error."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


@contextlib.contextmanager
def progress_bar(doing: str, things: str) -> Iterator[Callable[[int, int | None], None]]:
    """Shows how many are done, how fast, and the time that is left.

    Args:
        doing: What stands before the bar.
        things: What is counted.

    Yields:
        A function to call with how many are done and how many there are, None where that is not
        known. Those done at the first call are left out of the speed.
    """
    columns = (
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(things),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=None, rate=0.0)
        begin, first = time.perf_counter(), None

        def report(done: int, total: int | None) -> None:
            nonlocal first
            first = done if first is None else first
            rate = (done - first) / max(time.perf_counter() - begin, 1e-9)
            progress.update(task, completed=done, total=total, rate=rate)

        yield report


class _Speed(TimeRemainingColumn):
    """How many a second and, where it is known how many there are, the time that is left."""

    def __init__(self, things: str) -> None:
        super().__init__()
        self._things = things

    def render(self, task: Task) -> Text:
        speed = f"{self._things}, {task.fields['rate']:.1f}/s"
        if task.total is None:
            return Text(speed)
        return Text.assemble(speed, ", ", super().render(task), " left")

"""Where commands print what they found."""

from __future__ import annotations

from rich.console import Console
from rich.status import Status
from rich.text import Text

PIPE_COLUMNS = 200
"""Width of tables in a pipe, which has no border to fit into."""


def result_console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for any table in a pipe.

    What users and recordings say is printed as it is: brackets in it are no markup.
    """
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    return console


def status(text: str) -> Status:
    """A context that shows on standard error, where that is a terminal, what is being done."""
    return Console(stderr=True).status(Text(text))

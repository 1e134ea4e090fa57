"""Where commands print what they found."""

from __future__ import annotations

from rich.console import Console

PIPE_COLUMNS = 200
"""Width of tables in a pipe, which has no border to fit into."""


def result_console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for any table in a pipe."""
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    return console

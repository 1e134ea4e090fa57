"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Command = TypeVar("Command", bound=Callable[..., Any])
"""What becomes a command once click decorates it."""


def add_options(command: Command, options: Sequence[Callable[[Any], Any]]) -> Command:
    """Decorates a command with options, which its help lists in this order."""
    for option in reversed(options):  # as decorators, written above each other, are applied
        command = option(command)
    return command

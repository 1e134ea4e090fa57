"""Signals that end a command."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


@contextlib.contextmanager
def interruptible() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, so that work in progress can be finished.

    A second signal ends the command at once.

    Yields:
        Numbers of the signals received so far.
    """
    signals: list[int] = []

    def collect(number: int, _: FrameType | None) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    before = {number: signal.signal(number, collect) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


class Terminated(KeyboardInterrupt):
    """SIGTERM outside of :func:`interruptible`."""


def exit_code(error: KeyboardInterrupt) -> int:
    """The exit code that a shell reports for a command ended by this signal."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """A context in which SIGTERM raises, as Ctrl-C does, so that a command cleans up.

    Raises:
        Terminated: From within, on SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():  # only that handles signals
        yield
        return

    def end(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)

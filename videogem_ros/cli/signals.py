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
    """Collects SIGINT and SIGTERM, so that what is under way can be finished.

    A second signal ends at once.
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
    """SIGTERM, where nobody collects it."""


def exit_code(error: KeyboardInterrupt) -> int:
    """What a shell reports of a command that was ended so."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Has SIGTERM end a command as Ctrl-C does, so that it cleans up what it began.

    Raises:
        Terminated: From within, on SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone handles signals
        yield
        return

    def end(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)

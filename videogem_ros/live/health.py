"""What a node does and what goes wrong: counts, rates, and conditions, logged once an episode.

A condition (no images, stale stamps, ...) is reported repeatedly as long as it lasts. Only the
first report of an episode is logged. The episode ends when the condition is resolved, or is not
reported for a while, so that good messages between bad ones do not fill the log. Diagnostics show
all of it.
"""

from __future__ import annotations

import enum
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

SPAN_S = 10.0
"""Rates and means are over the last so many seconds."""

HOLD_S = 5.0
"""A condition that was not reported for this long is over."""

_MOST_EVENTS = 8192  # that are kept of each name; more in the span make rates too low


class Level(enum.IntEnum):
    """Levels of ``diagnostic_msgs/DiagnosticStatus``."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


_SEVERITY = (Level.OK, Level.WARN, Level.STALE, Level.ERROR)
_LOG_LEVELS = {Level.OK: "info", Level.WARN: "warn", Level.STALE: "warn", Level.ERROR: "error"}


@dataclass
class Condition:
    """A condition in one of its episodes.

    Attributes:
        text: Description, as it was reported last.
        level: How bad it is, as it was reported last.
        since_s: First report, seconds of the monotonic clock.
        last_s: Last report.
        hold_s: Over when not reported for so many seconds.
        count: Reports in this episode.
    """

    text: str
    level: Level
    since_s: float
    last_s: float
    hold_s: float
    count: int = 0


class Health:
    """Collects what happens in all threads of a node; safe for threads.

    Args:
        log: Takes a level (info, warn, error) and a line.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self, log: Callable[[str, str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._started_s = self._clock()
        self._counts: Counter[str] = Counter()
        self._events: dict[str, deque[tuple[float, float]]] = {}  # time and value
        self._conditions: dict[str, Condition] = {}
        self._episodes: Counter[str] = Counter()

    def count(self, name: str, times: int = 1) -> None:
        """Count something that has no rate."""
        with self._lock:
            self._counts[name] += times

    def event(self, name: str, value: float = math.nan) -> None:
        """Count something that happened now; its value, if any, goes into :meth:`mean`."""
        with self._lock:
            self._counts[name] += 1
            events = self._events.setdefault(name, deque(maxlen=_MOST_EVENTS))
            events.append((self._clock(), value))

    @property
    def counts(self) -> dict[str, int]:
        """Everything that was counted."""
        with self._lock:
            return dict(self._counts)

    def age_s(self, name: str) -> float:
        """Seconds since an event last happened; infinite before the first."""
        with self._lock:
            events = self._events.get(name)
            return self._clock() - events[-1][0] if events else math.inf

    def rate_hz(self, name: str) -> float:
        """Events per second of the last :data:`SPAN_S` seconds, or of all the time if shorter."""
        with self._lock:
            now_s = self._clock()
            span_s = min(SPAN_S, now_s - self._started_s)
            return len(self._recent(name, now_s)) / span_s if span_s > 0 else 0.0

    def mean(self, name: str) -> float:
        """Mean value of the events of the last :data:`SPAN_S` seconds; NaN where there is none."""
        with self._lock:
            values = [value for _, value in self._recent(name, self._clock())]
            return sum(values) / len(values) if values else math.nan

    def _recent(self, name: str, now_s: float) -> list[tuple[float, float]]:
        return [event for event in self._events.get(name, ()) if event[0] > now_s - SPAN_S]

    def report(
        self, name: str, text: str, level: Level = Level.WARN, hold_s: float = HOLD_S
    ) -> None:
        """Report that a condition holds; the first report of an episode is logged.

        Args:
            name: Which condition.
            text: What is wrong, with a remedy where one is known.
            level: How bad it is.
            hold_s: The episode ends when it is not reported for so many seconds; infinite where
                only :meth:`resolve` ends it.
        """
        with self._lock:
            now_s = self._clock()
            condition = self._conditions.get(name)
            is_new = condition is None
            if condition is None:
                condition = Condition(text, level, now_s, now_s, hold_s)
                self._conditions[name] = condition
                self._episodes[name] += 1
            condition.text, condition.level, condition.last_s = text, level, now_s
            condition.count += 1
        if is_new:
            self._log(_LOG_LEVELS[level], f"{name}: {text}")

    def resolve(self, name: str) -> None:
        """Report that a condition does not, or no longer, hold."""
        with self._lock:
            condition = self._conditions.pop(name, None)
            now_s = self._clock()
        if condition is not None:
            lasted_s = now_s - condition.since_s
            seen = f", reported {condition.count} times" if condition.count > 1 else ""
            self._log("info", f"{name}: over after {lasted_s:.1f} s{seen}")

    def settle(self, *, at_once: bool = False) -> None:
        """End conditions that have not been reported for their ``hold_s``.

        Args:
            at_once: End all with a finite ``hold_s``, because nothing reports them any more.
        """
        with self._lock:
            now_s = self._clock()
            over = [
                name
                for name, condition in self._conditions.items()
                if math.isfinite(condition.hold_s)
                and (at_once or now_s - condition.last_s > condition.hold_s)
            ]
        for name in over:
            self.resolve(name)

    @property
    def conditions(self) -> dict[str, Condition]:
        """Current conditions by name, the worst first."""
        with self._lock:
            return dict(
                sorted(self._conditions.items(), key=lambda item: -_SEVERITY.index(item[1].level))
            )

    @property
    def episodes(self) -> dict[str, int]:
        """Number of episodes of each condition, including current ones."""
        with self._lock:
            return dict(self._episodes)

    @property
    def level(self) -> Level:
        """The worst level of the current conditions."""
        return max(
            (condition.level for condition in self.conditions.values()),
            key=_SEVERITY.index,
            default=Level.OK,
        )

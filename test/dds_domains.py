"""Separate DDS domains for tests, on the loopback interface."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any

from rosbags.typesys.store import Typestore

from videogem_ros.adapters.dds.names import Names
from videogem_ros.adapters.dds.participant import Participant
from videogem_ros.live.types import typestore

PATIENCE_S = 20.0
"""Longest wait for something that takes milliseconds on an idle machine."""

DOMAINS = 101
"""Number of domains whose ports lie outside of the ephemeral ports."""

_numbers = itertools.count()


def own_domain() -> str:
    """A ``ROS_DOMAIN_ID`` that no concurrent test uses, here or in another worker."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    share = DOMAINS // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first = int(worker.removeprefix("gw") or 0) * share
    run = os.getppid() if worker else os.getpid()  # runs with adjacent process ids start far apart
    return str(1 + (37 * run + first + next(_numbers) % share) % DOMAINS)


def participant(name: str, store: Typestore | None = None, **options: Any) -> Participant:
    """A participant in the domain that the environment selects."""
    return Participant(Names(name), store or typestore(), interface="local", **options)


def spin_until(condition: Callable[[], Any], *participants: Participant) -> Any:
    """Spins until a condition holds; returns its value."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"not within {PATIENCE_S:g} s"
        for each in participants:
            each.spin(0.01)
    return value


def spin_for(duration_s: float, *participants: Participant) -> None:
    """Spins for a while, in which something should not happen."""
    deadline_s = time.monotonic() + duration_s
    while time.monotonic() < deadline_s:
        for each in participants:
            each.spin(0.01)

"""A node's health in words, for ``diagnostic_msgs/DiagnosticStatus``."""

from __future__ import annotations

import math

from videogem_ros.core import Grounder
from videogem_ros.live.health import Health, Level
from videogem_ros.session import Session
from videogem_ros.window import Push

STREAMS = ("images", "depth images", "camera infos", "windows grounded")
"""Events whose rate and age are told."""


def describe(health: Health, session: Session) -> dict[str, str]:
    """Everything there is to know, as keys and values of a diagnostic status.

    Rates are per second of wall time and means over the last seconds
    (:data:`videogem_ros.live.health.SPAN_S`).
    """
    counts, pushes = health.counts, session.counts
    window = session.window()
    values = {
        "command": "; ".join(action.phrase for action in session.actions),
        "command_id": str(session.command_id),
        "window": f"{len(set(window.stamps_ns)) if window else 0} of {session.config.frames}",
    }
    for name in STREAMS:
        values[name] = str(counts.pop(name, 0))
        values[f"{name} rate [Hz]"] = f"{health.rate_hz(name):.2f}"
        values[f"{name} age [s]"] = _shown(health.age_s(name))
    values |= {
        "compute time [s]": _shown(health.mean("windows grounded")),
        "latency [s]": _shown(health.mean("latency")),
        "session status": session.status.value,
        "images held": str(pushes.buffered_frames),
        "images held [B]": str(pushes.buffered_bytes),
        "encoder passes": str(pushes.encoder_passes),
        "encoder passes saved": str(pushes.encoder_passes_saved),
    }
    counts.pop("latency", None)
    values |= {
        f"images {push.value}": str(count)
        for push, count in pushes.pushes.items()
        if count or push is Push.ACCEPTED
    }
    values |= {name: str(count) for name, count in sorted(counts.items())}
    return values


def graphs(grounder: Grounder) -> dict[str, str]:
    """What came of CUDA graphs on a grounder's device; nothing where they are of no use.

    Counts are of encoder passes, a problem may be of what comes after them, too.
    """
    counts = grounder.graphs
    if not counts.used_on(grounder.device):
        return {}
    values = {
        "cuda graphs": str(counts.recorded),
        "cuda graphs replayed": str(counts.replayed),
        "cuda graphs failed": str(counts.failed),
    }
    problem = grounder.recording_problem
    return values | ({"cuda graphs problem": problem} if problem else {})


def conditions(health: Health) -> dict[str, str]:
    """The conditions that are there, the worst first, and how often those that were had come."""
    now = health.conditions
    values = {
        f"now: {name}": f"{condition.level.name} {condition.text} (x{condition.count})"
        for name, condition in now.items()
    }
    past = {name: count for name, count in health.episodes.items() if name not in now}
    return values | {f"was: {name}": f"{count} times" for name, count in past.items()}


def summary(health: Health, otherwise: str) -> str:
    """What is wrong, in a line; ``otherwise`` where nothing is."""
    wrong = [name for name, condition in health.conditions.items() if condition.level > Level.OK]
    return "; ".join(wrong) or otherwise


def _shown(number: float) -> str:
    return f"{number:.3f}" if math.isfinite(number) else "none yet"

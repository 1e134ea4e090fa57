"""A node's health in words, for ``diagnostic_msgs/DiagnosticStatus``."""

from __future__ import annotations

import math

from videogem_ros.core import Grounder
from videogem_ros.live.health import Health, Level
from videogem_ros.session import Session
from videogem_ros.window import Push

STREAMS = ("images", "depth images", "camera infos", "windows grounded")
"""Events whose rate and age are reported."""


def describe(health: Health, session: Session) -> dict[str, str]:
    """The node's work in numbers, as keys and values of a diagnostic status.

    Rates and means are over the last :data:`videogem_ros.live.health.SPAN_S` seconds of wall time.
    """
    counts, session_counts = health.counts, session.counts
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
        "images held": str(session_counts.buffered_frames),
        "images held [B]": str(session_counts.buffered_bytes),
        "encoder passes": str(session_counts.encoder_passes),
        "encoder passes saved": str(session_counts.encoder_passes_saved),
    }
    counts.pop("latency", None)
    values |= {
        f"images {push.value}": str(count)
        for push, count in session_counts.pushes.items()
        if count or push is Push.ACCEPTED
    }
    values |= {name: str(count) for name, count in sorted(counts.items())}
    return values


def graphs(grounder: Grounder) -> dict[str, str]:
    """State of the CUDA graphs; empty where the grounder's device uses none.

    Counts are of encoder passes; a problem may also be of what follows them.
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
    """Current conditions, the worst first, and how many episodes past conditions had."""
    now = health.conditions
    values = {
        f"now: {name}": f"{condition.level.name} {condition.text} (x{condition.count})"
        for name, condition in now.items()
    }
    past = {name: count for name, count in health.episodes.items() if name not in now}
    return values | {f"was: {name}": f"{count} times" for name, count in past.items()}


def summary(health: Health, otherwise: str) -> str:
    """Names of the conditions above OK, in one line; ``otherwise`` where there are none."""
    wrong = [name for name, condition in health.conditions.items() if condition.level > Level.OK]
    return "; ".join(wrong) or otherwise


def _shown(number: float) -> str:
    return f"{number:.3f}" if math.isfinite(number) else "none yet"

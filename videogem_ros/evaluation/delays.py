"""How late a node's groundings arrived, and how many images it skipped."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from videogem_ros.evaluation.bags import Recording
from videogem_ros.evaluation.groundings import RecordedGrounding, RecordedGroundings
from videogem_ros.window import NS_PER_S

APART_S = 60.0
"""A median latency above this means that camera and recorder have different clocks."""

_NS_PER_MS = 1e6


@dataclass(frozen=True)
class _Answer:
    """The first grounding of an image.

    Attributes:
        taken_ns: When the image was taken.
        received_ns: When the grounding arrived.
    """

    taken_ns: int
    received_ns: int

    @property
    def latency_ns(self) -> int:
        return self.received_ns - self.taken_ns


@dataclass(frozen=True)
class _Ages:
    """Age of the newest grounded image, from the first to the last arrival.

    Attributes:
        lasted_ns: Time from the first arrival to the last.
        integral: Of the age over that time, ns².
        oldest_ns: The greatest age.
    """

    lasted_ns: int
    integral: float
    oldest_ns: int


def delays(
    recordings: Sequence[tuple[Recording, RecordedGroundings]],
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Measures the groundings of one recording or several.

    ===================  ======================================================================
    ``latency_ms_*``     From an image's stamp to the arrival of its first grounding.
    ``age_ms_*``         Age of the newest grounded image, over the time between the first arrival
                         and the last: how old the information is that a robot acts on.
    ``compute_ms_*``     Time that the node took for an image, as it reported.
    ``rate_hz``          Images grounded per second.
    ``images``           Between the first and the last grounded one, both included.
    ``dropped_frames``   Of these, images that were not grounded.
    ===================  ======================================================================

    Args:
        recordings: The images and what was found in them.

    Returns:
        Those of these figures that are known, by name, and notes about them.
    """
    figures: dict[str, float] = {}
    answers, notes = [], []
    for recording, recorded in recordings:
        found, note = _answers(recording, recorded)
        answers.append(found)
        notes += [note] if note else []
    if latencies := [answer.latency_ns / _NS_PER_MS for found in answers for answer in found]:
        figures |= _spread("latency_ms", latencies)
    ages = [_ages(found) for found in answers if len(found) > 1]
    lasted_ns = sum(age.lasted_ns for age in ages)
    if lasted_ns:
        figures["age_ms_mean"] = sum(age.integral for age in ages) / lasted_ns / _NS_PER_MS
        figures["age_ms_max"] = max(age.oldest_ns for age in ages) / _NS_PER_MS
        arrivals = sum(len(found) - 1 for found in answers if len(found) > 1)
        figures["rate_hz"] = arrivals / lasted_ns * NS_PER_S
    computed = {
        (recorded.path, grounding.stamp_ns): grounding.compute_ms
        for _, recorded in recordings
        for grounding in recorded.groundings
        if grounding.compute_ms is not None
    }
    if computed:
        figures |= _spread("compute_ms", list(computed.values()))
    grounded = [_grounded(recording, recorded) for recording, recorded in recordings]
    figures["images"] = sum(len(of_one) for of_one in grounded)
    figures["dropped_frames"] = sum(of_one.count(False) for of_one in grounded)
    return figures, tuple(dict.fromkeys(notes))


def _answers(recording: Recording, recorded: RecordedGroundings) -> tuple[list[_Answer], str]:
    """First groundings of images in order of arrival, and a note about their times."""
    firsts: dict[int, tuple[RecordedGrounding, int]] = {}
    for grounding in recorded.groundings:
        if grounding.received_ns is not None:
            firsts.setdefault(grounding.stamp_ns, (grounding, grounding.received_ns))
    if not firsts:
        return (
            [],
            f"{recorded.path.name} does not record when groundings arrived: no latency or age",
        )
    taken_ns = {image.stamp_ns: image.log_ns for image in recording.images}
    same = taken_ns if recorded.path == recording.path else {}
    # Stamps of a recording that is played are not of the recorder's clock.
    choices = {
        "": [_Answer(stamp_ns, at_ns) for stamp_ns, (_, at_ns) in firsts.items()],
        "use the node's own clock": [
            _Answer(at_ns - round(one.latency_ms * _NS_PER_MS), at_ns)
            for one, at_ns in firsts.values()
            if one.latency_ms is not None
        ],
        "count from the images' arrival": [
            _Answer(same[stamp_ns], at_ns)
            for stamp_ns, (_, at_ns) in firsts.items()
            if stamp_ns in same
        ],
    }
    problem = f"{recorded.path.name}: the images' stamps are not from the recorder's clock: "
    for how, answers in choices.items():
        if answers and not _apart(answers):
            answers.sort(key=lambda answer: answer.received_ns)
            return answers, f"{problem}latency and age {how}" if how else ""
    return [], f"{problem}no latency or age"


def _apart(answers: Sequence[_Answer]) -> bool:
    latencies = [answer.latency_ns for answer in answers]
    return min(latencies) < 0 or statistics.median(latencies) > APART_S * NS_PER_S


def _ages(answers: Sequence[_Answer]) -> _Ages:
    """The age is a sawtooth: it grows with time and drops when a newer image is grounded."""
    lasted_ns, integral, oldest_ns, newest_ns = 0, 0.0, 0, 0
    for answer, following in itertools.pairwise(answers):
        newest_ns = max(newest_ns, answer.taken_ns)
        begin_ns, end_ns = answer.received_ns - newest_ns, following.received_ns - newest_ns
        lasted_ns += end_ns - begin_ns
        integral += (begin_ns + end_ns) / 2 * (end_ns - begin_ns)
        oldest_ns = max(oldest_ns, end_ns)
    return _Ages(lasted_ns, integral, oldest_ns)


def _grounded(recording: Recording, recorded: RecordedGroundings) -> list[bool]:
    """For each image from the first grounded one to the last, whether it was grounded."""
    stamps = {grounding.stamp_ns for grounding in recorded.groundings}
    first_ns, last_ns = min(stamps), max(stamps)
    taken = {image.stamp_ns for image in recording.images}
    return [stamp_ns in stamps for stamp_ns in taken if first_ns <= stamp_ns <= last_ns]


def _spread(name: str, values: Sequence[float]) -> dict[str, float]:
    p95, p99 = np.percentile(values, (95, 99))
    return {
        f"{name}_median": statistics.median(values),
        f"{name}_p95": float(p95),
        f"{name}_p99": float(p99),
        f"{name}_max": max(values),
    }

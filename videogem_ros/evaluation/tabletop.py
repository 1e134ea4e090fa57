"""The tabletop benchmark: the package's own labelled scenes as a data set.

Each clip of :func:`~videogem_ros.tabletop.benchmark_clip` is asked for everything that is done in
it and for some things that are not, all in its last frame. A video backbone gets frames spread
evenly from the clip's first to its last. Beside the pointing game, the benchmark has two questions
of its own: whether the text decides where the point goes (:func:`swaps`), and whether the score
tells what is there from what is not (:func:`with_absent`).
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from pathlib import Path

from videogem_ros import tabletop
from videogem_ros.adapters.bag.tabletop import TWINS, labels
from videogem_ros.datatypes import Window
from videogem_ros.evaluation.metrics import judge
from videogem_ros.evaluation.records import Outcome, Record, Sample
from videogem_ros.language import parse_actions
from videogem_ros.tabletop import BENCHMARK_CLIPS, benchmark_clip, benchmark_numbers

ABSENT, EMPTY = "absent", "empty"
"""Groups of what is asked for in vain: in clips with other actions, and in clips with none."""

ONE_TWIN = "one with a twin"
"""Group of pairs of actions one of which alone has a twin in the clip."""

WINDOWS_KEPT = 8
"""Clips whose frames are kept, as their samples come one after another."""


class TabletopBenchmark:
    """The benchmark as a :class:`~videogem_ros.evaluation.records.Dataset`.

    One sample for each action of a clip, its class the verb, in the groups "pose" or "motion" and
    perhaps "twins"; one without a box for each text of what is not there, in the group ``ABSENT``
    or ``EMPTY``. Keys are ``clip/number``.

    Args:
        clips: How many, spread evenly over the benchmark.

    Attributes:
        name: "tabletop".
        samples: Clip by clip.
        missing: None ever.
        skipped: None ever.

    Raises:
        InvalidValueError: There are not so many clips.
    """

    def __init__(self, clips: int = BENCHMARK_CLIPS) -> None:
        self.name = "tabletop"
        self.missing: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.samples = [
            sample for number in benchmark_numbers(clips) for sample in _samples(number)
        ]
        self._sources = sorted(Path(tabletop.__file__).parent.glob("*.py"))
        self._windows: OrderedDict[tuple[str, int], Window] = OrderedDict()
        self._lock = threading.Lock()

    def sources(self, sample: Sample) -> Sequence[Path | str]:
        """The code that draws the clips: other drawings, other results."""
        return self._sources

    def window(self, sample: Sample, frames: int) -> tuple[Window, int]:
        """So many frames of the sample's clip; the last one is asked about.

        All samples of a clip get the same frames, so that they need to be encoded only once.
        """
        key = sample.video, frames
        with self._lock:
            if key not in self._windows:
                self._windows[key] = benchmark_clip(int(sample.video), sampled=frames).window()
            self._windows.move_to_end(key)
            while len(self._windows) > WINDOWS_KEPT:
                self._windows.popitem(last=False)
            return self._windows[key], frames - 1


def _samples(number: int) -> list[Sample]:
    clip = benchmark_clip(number, sampled=1)
    verbs = [performed.verb for performed in clip.performed] + [ABSENT] * len(clip.absent)
    return [
        Sample(
            key=f"{number:03d}/{place}",
            video=f"{number:03d}",
            label=verb,
            actions=parse_actions(label.action),
            time_ns=int(clip.stamps_ns[-1]),
            boxes=() if label.box is None else (label.box,),
            boxes_hw=clip.images.shape[1:3],
            groups=label.groups,
        )
        for place, (verb, label) in enumerate(zip(verbs, labels(clip, -1)))
    ]


def swaps(records: Sequence[Record]) -> list[Record]:
    """The swap test: whether another action's text, on the same frames, moves the point to it.

    One record for each pair of actions of a clip. A method passes (its outcome is a hit) where
    the point of either action's text is in that action's box, and the points are not both where
    the two boxes overlap. So who does not read the text passes never, wherever he points.

    Args:
        records: Of a run on the benchmark.

    Returns:
        Records whose outcomes are those of the second text, but for the hit; in the groups that
        both actions are in, and in :data:`ONE_TWIN` where one of them alone has a twin.
    """
    return [
        _swap(one, other)
        for _, of_clip in itertools.groupby(records, key=lambda record: record.video)
        for one, other in itertools.combinations([found for found in of_clip if found.boxes], 2)
    ]


def _swap(one: Record, other: Record) -> Record:
    outcomes = {}
    for method in one.outcomes:  # in one order, as of a set they would come in any
        if method not in other.outcomes:
            continue
        first, second = one.outcomes[method], other.outcomes[method]
        overlap = _in(first, other) and _in(second, one)
        outcomes[method] = Outcome(
            second.x, second.y, bool(first.hit and second.hit) and not overlap, second.distance
        )
    groups = tuple(group for group in one.groups if group in other.groups)
    if (TWINS in one.groups) != (TWINS in other.groups):
        groups = (*groups, ONE_TWIN)
    return Record(
        key=f"{one.key} and {other.key}",
        video=one.video,
        label="swap",
        groups=groups,
        action=f"{one.action}; {other.action}",
        time_ns=one.time_ns,
        boxes=other.boxes,
        image_hw=one.image_hw,
        outcomes=outcomes,
        layer_weights={},
    )


def _in(outcome: Outcome, record: Record) -> bool:
    """Whether a point is in a box of a record."""
    return bool(judge((outcome.x, outcome.y), None, record.boxes, record.image_hw).hit)


def with_absent(records: Sequence[Record], group: str) -> list[Record]:
    """Records of the presence test: all with an action that is there, and one kind without.

    Args:
        records: Of a run on the benchmark.
        group: ``EMPTY``, texts of clips in which nothing happens, or ``ABSENT``, the harder one.
    """
    return [record for record in records if record.boxes or group in record.groups]

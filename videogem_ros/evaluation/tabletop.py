"""The tabletop benchmark: the package's own labelled scenes as a data set.

In the last frame of each clip of :func:`~videogem_ros.tabletop.benchmark_clip`, all actions of the
clip are grounded, and some that do not happen. A video backbone gets frames spread evenly from the
clip's first to its last. Besides the pointing game, the benchmark tests whether the text decides
where the point goes (:func:`swaps`), and whether the score separates present from absent actions
(:func:`with_absent`).
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
"""Groups of absent actions: in clips with other actions, and in clips with none."""

ONE_TWIN = "one with a twin"
"""Group of pairs of actions of which only one has a twin in the clip."""

WINDOWS_KEPT = 8
"""Most windows that are cached, as samples of the same clip are consecutive."""


class TabletopBenchmark:
    """The benchmark as a :class:`~videogem_ros.evaluation.records.Dataset`.

    There is one sample for each action of a clip, with the verb as its class, in the groups "pose"
    or "motion" and perhaps "twins"; and one without a box for each absent action, in the group
    ``ABSENT`` or ``EMPTY``. Keys are ``clip/number``.

    Args:
        clips: Number of clips, spread evenly over the benchmark.

    Attributes:
        name: "tabletop".
        samples: Clip by clip.
        missing: Always empty.
        skipped: Always empty.

    Raises:
        InvalidValueError: The benchmark has fewer clips.
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
        """The source files that draw the clips, so that cached results depend on them."""
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
            key=f"{number:03d}/{index}",
            video=f"{number:03d}",
            label=verb,
            actions=parse_actions(label.action),
            time_ns=int(clip.stamps_ns[-1]),
            boxes=() if label.box is None else (label.box,),
            boxes_hw=clip.images.shape[1:3],
            groups=label.groups,
        )
        for index, (verb, label) in enumerate(zip(verbs, labels(clip, -1)))
    ]


def swaps(records: Sequence[Record]) -> list[Record]:
    """The swap test: whether another action's text, on the same frames, moves the point to it.

    There is one record for each pair of actions of a clip. A method passes (its outcome is a hit)
    where each text's point is in its own action's box, and the points are not both where the two
    boxes overlap. So a method that ignores the text never passes, wherever it points.

    Args:
        records: Records of a run on the benchmark.

    Returns:
        Records whose outcomes are those of the second text, except for the hit. They are in the
        groups that both actions are in, and in :data:`ONE_TWIN` where only one of them has a twin.
    """
    return [
        _swap(one, other)
        for _, of_clip in itertools.groupby(records, key=lambda record: record.video)
        for one, other in itertools.combinations([found for found in of_clip if found.boxes], 2)
    ]


def _swap(one: Record, other: Record) -> Record:
    outcomes = {}
    for method in one.outcomes:  # not a set's intersection, whose order may differ between runs
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
    """Records of the presence test: all with a present action, and one group without.

    Args:
        records: Records of a run on the benchmark.
        group: ``EMPTY``, clips in which nothing happens, or ``ABSENT``, the harder one.
    """
    return [record for record in records if record.boxes or group in record.groups]

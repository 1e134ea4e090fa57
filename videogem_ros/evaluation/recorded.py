"""Recorded groundings of a live node, judged by labels: how accurate, and how late they were.

A grounding answers a label with the same header stamp, verb and object. Of several, the one with
the highest score counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from videogem_ros.datatypes import Action
from videogem_ros.errors import InvalidValueError, RecordingError
from videogem_ros.evaluation.bags import BagDataset
from videogem_ros.evaluation.delays import delays
from videogem_ros.evaluation.groundings import RecordedGrounding, RecordedGroundings
from videogem_ros.evaluation.metrics import judge, judge_centre
from videogem_ros.evaluation.records import CENTRE, Record, Run, Sample, method_name

RECORDED = "recorded"
"""Stands for the node's layer weighting in the names of methods."""


class RecordedBench:
    """Judges recorded groundings by the labels of the bags that were grounded.

    Args:
        dataset: The labels.
        recorded: Groundings of the data set's recordings, one for each, in their order.

    Raises:
        InvalidValueError: Another number of them.
    """

    def __init__(self, dataset: BagDataset, recorded: Sequence[RecordedGroundings]) -> None:
        if len(recorded) != len(dataset.recordings):
            expected = f"one for each of the {len(dataset.recordings)} bags"
            raise InvalidValueError("groundings", expected, len(recorded))
        self._dataset = dataset
        self._recorded = dict(zip(dataset.recordings, recorded))
        self._by_stamp: dict[tuple[str, int], list[RecordedGrounding]] = {}
        for video, own in self._recorded.items():
            for grounding in own.groundings:
                self._by_stamp.setdefault((video, grounding.stamp_ns), []).append(grounding)
        self._samples = {sample.key: sample for sample in dataset.samples}

    def run(self) -> Run:
        """Accuracy of the recorded groundings; the run's timing is that of :func:`delays`.

        Raises:
            RecordingError: No grounding belongs to a label.
        """
        skipped = Counter(self._dataset.skipped)
        records = []
        for sample in self._dataset.samples:
            answer = self._answer(sample)
            if isinstance(answer, str):
                skipped[answer] += 1
            else:
                records.append(self._record(sample, answer))
        if not records:
            reasons = ", ".join(f"{count} x {reason}" for reason, count in skipped.items())
            raise RecordingError(
                f"{self._dataset.name}: no recorded grounding for any label ({reasons})"
            )
        recordings = self._dataset.recordings
        timing, notes = delays([(recordings[video], own) for video, own in self._recorded.items()])
        backbones = {item.backbone for own in self._recorded.values() for item in own.groundings}
        return Run(
            dataset=self._dataset.name,
            backbone=", ".join(sorted(filter(None, backbones))) or "recorded node",
            main=method_name(RECORDED, "fused"),
            records=tuple(records),
            missing=Counter(self._dataset.missing),
            skipped=skipped,
            settings={"groundings": ", ".join(str(own.path) for own in self._recorded.values())},
            notes=notes,
            timing=timing,
        )

    def case(self, record: Record) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32] | None]:
        """Frame and heatmap of a record, for a report's gallery.

        Raises:
            RecordingError: The frame can no longer be read.
        """
        sample = self._samples[record.key]
        window, index = self._dataset.window(sample, 1)
        answer = self._answer(sample)
        heatmap = None if isinstance(answer, str) else self._recorded[sample.video].heatmap(answer)
        return window.frames[index].image, heatmap

    def _answer(self, sample: Sample) -> RecordedGrounding | str:
        """The grounding that answers a sample, or why there is none."""
        there = self._by_stamp.get((sample.video, sample.time_ns))
        if there is None:
            return "labelled image that was not grounded"
        asked = set(map(meaning_of, sample.actions))
        answers = [one for one in there if meaning(one.action, one.verb, one.object) in asked]
        if not answers:
            return "labelled action that was not asked for"
        best = max(answers, key=lambda grounding: grounding.score)
        if best.image_hw != sample.boxes_hw:
            return f"grounded in an image of another size, {best.image_hw[1]} x {best.image_hw[0]}"
        return best

    def _record(self, sample: Sample, answer: RecordedGrounding) -> Record:
        hw = answer.image_hw
        outcomes = {}
        for name, point in answer.points.items():
            heatmap = self._recorded[sample.video].heatmap(answer) if name == "fused" else None
            outcomes[method_name(RECORDED, name)] = judge(
                point, heatmap, sample.boxes, hw, answer.score
            )
        outcomes[CENTRE] = judge_centre(sample.boxes, hw)
        return Record.of(
            sample,
            answer.action,
            sample.boxes,
            hw,
            outcomes=outcomes,
            layer_weights={RECORDED: answer.layer_weights},
        )


def meaning_of(action: Action) -> tuple[str, str]:
    """The :func:`meaning` of an action."""
    return meaning(action.text, action.verb or "", action.object or "")


def meaning(text: str, verb: str, object_: str) -> tuple[str, str]:
    """A key that distinguishes actions, as a command may hold several under one text.

    Args:
        text: The command.
        verb: The action's verb; empty where there is none.
        object_: The action's object; empty where there is none.
    """
    return (verb.casefold(), object_.casefold()) if verb or object_ else (text.casefold(), "")

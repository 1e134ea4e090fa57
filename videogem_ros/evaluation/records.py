"""What flows through an evaluation: samples in, records out.

A data set gives :class:`Sample` objects and, for each, the frames to ground it in. A runner makes
one :class:`Record` of each sample, with one :class:`Outcome` for every method that was asked for.
Metrics, report and tuning read records only, however they were made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from videogem_ros.datatypes import Action, Window
from videogem_ros.errors import InvalidValueError

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels (x right, y down), borders included (the pointing game's rule)."""

CENTRE = "centre"
"""Method that points at the image's centre."""


def method_name(weighting: str, prompt: str) -> str:
    """Name of a method of the ablation grid, ``static+dynamic/fused``.

    Args:
        weighting: "uniform" (GEM), "static", "dynamic", "static+dynamic".
        prompt: "verb", "object", "action", "fused" (points) or "fused-heatmaps".
    """
    return f"{weighting}/{prompt}"


@dataclass(frozen=True)
class Sample:
    """One annotated frame and the action that is asked for in it.

    Attributes:
        key: Unique in its data set, the same in every run ("9Jm1FwbPHuA/12.5/0").
        video: The video or recording it comes from.
        label: Class for per-class means.
        actions: The decomposed action. Several for a free sentence with several verbs or objects,
            of which those with the highest prompt probability are taken.
        time_ns: Time of the annotated frame in its video, nanoseconds.
        boxes: A point in any of them is a hit. Empty where the action is not in the frame; such
            samples count for the presence score only.
        boxes_hw: Height and width of the image that the boxes are in pixels of; those of the
            loaded frame where None.
        groups: Further names under which the sample is counted in tables ("motion", "twins").
    """

    key: str
    video: str
    label: str
    actions: tuple[Action, ...]
    time_ns: int
    boxes: tuple[Box, ...]
    boxes_hw: tuple[int, int] | None = None
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.actions:
            raise InvalidValueError(f"sample {self.key}.actions", "one action or more", "none")

    @property
    def present(self) -> bool:
        """Whether the action is in the frame."""
        return bool(self.boxes)


class Dataset(Protocol):
    """Samples and their frames.

    Attributes:
        name: As reports show it.
        missing: Number of samples whose video or frames do not exist, by video.
        skipped: Number of annotations that cannot be used, by reason.
    """

    name: str
    missing: Counter[str]
    skipped: Counter[str]

    @property
    def samples(self) -> Sequence[Sample]:
        """Samples whose frames exist, in a fixed order."""

    def sources(self, sample: Sample) -> Sequence[Path | str]:
        """What a sample's frames depend on: files or folders, and texts that say how to choose.

        Empty where frames are in memory. Cached results are valid as long as the texts, and the
        sizes and modification times of the files, stay the same.
        """

    def window(self, sample: Sample, frames: int) -> tuple[Window, int]:
        """The frames to ground a sample in; called from several threads at once.

        Args:
            sample: One of ``samples``.
            frames: T, the number of frames that the backbone encodes jointly.

        Returns:
            A window of T frames, and the index of the annotated frame in it.

        Raises:
            RecordingError: The frames cannot be decoded.
        """


@dataclass(frozen=True)
class Outcome:
    """What one method said of one sample.

    Attributes:
        x: The point's distance from the left in pixels of the source image.
        y: The point's distance from the top.
        hit: Whether the point is in a box; None where the sample has no box.
        distance: Distance to the nearest box, 0 inside, over the image's diagonal; None without a
            box.
        iou: Intersection over union of the boxes and the heatmap's part at half its maximum or
            more; None where the method has no heatmap or the sample no box.
        score: Presence score in [0, 1]; None where the method has none.
    """

    x: float
    y: float
    hit: bool | None
    distance: float | None
    iou: float | None = None
    score: float | None = None


@dataclass(frozen=True)
class Record:
    """One sample's outcomes.

    Attributes:
        key: The sample's.
        video: The sample's.
        label: The sample's.
        groups: The sample's.
        action: Text of the action that was grounded.
        time_ns: The sample's.
        boxes: The sample's, in pixels of the source image.
        image_hw: Height and width of the source image.
        outcomes: By method, see :func:`method_name`, ``CENTRE`` or the name of another system.
        layer_weights: (K, L) by weighting, prompts in the order of ``PROMPT_KINDS``.
    """

    key: str
    video: str
    label: str
    groups: tuple[str, ...]
    action: str
    time_ns: int
    boxes: tuple[Box, ...]
    image_hw: tuple[int, int]
    outcomes: Mapping[str, Outcome]
    layer_weights: Mapping[str, tuple[tuple[float, ...], ...]]

    @classmethod
    def of(
        cls,
        sample: Sample,
        action: str,
        boxes: tuple[Box, ...],
        image_hw: tuple[int, int],
        *,
        outcomes: Mapping[str, Outcome],
        layer_weights: Mapping[str, tuple[tuple[float, ...], ...]],
    ) -> Record:
        """The record of a sample; see the attributes."""
        same = {name: getattr(sample, name) for name in ("key", "video", "label", "groups")}
        return cls(
            **same,
            action=action,
            time_ns=sample.time_ns,
            boxes=boxes,
            image_hw=image_hw,
            outcomes=outcomes,
            layer_weights=layer_weights,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        outcomes = {name: vars(outcome) for name, outcome in self.outcomes.items()}
        return {**fields, "outcomes": outcomes, "layer_weights": dict(self.layer_weights)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Record:
        """The inverse of :meth:`to_json`, also after a round trip through a JSON text."""
        outcomes = {name: Outcome(**outcome) for name, outcome in fields["outcomes"].items()}
        weights = {
            name: tuple(tuple(row) for row in rows)
            for name, rows in fields["layer_weights"].items()
        }
        return cls(
            **{
                **fields,
                "groups": tuple(fields["groups"]),
                "boxes": tuple(tuple(box) for box in fields["boxes"]),
                "image_hw": tuple(fields["image_hw"]),
                "outcomes": outcomes,
                "layer_weights": weights,
            }
        )


@dataclass(frozen=True)
class Run:
    """A finished evaluation: all that a report needs.

    Attributes:
        dataset: Name of the data set.
        backbone: Name of the backbone, or of the recorded node.
        main: The method that the run is about, as its name in the records' outcomes.
        records: Records in the data set's order.
        missing: Number of samples without frames, by video.
        skipped: Number of samples or annotations left out, by reason.
        settings: Other settings by name, as text.
        notes: Lines that the report must show (untrained weights, how a baseline was made).
        timing: Figures by name with unit in the name (encode_ms_median, latency_ms_p99,
            dropped_frames).
    """

    dataset: str
    backbone: str
    main: str
    records: tuple[Record, ...]
    missing: Counter[str]
    skipped: Counter[str]
    settings: Mapping[str, str]
    notes: tuple[str, ...] = ()
    timing: Mapping[str, float] | None = None

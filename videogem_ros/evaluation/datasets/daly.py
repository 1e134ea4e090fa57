"""DALY: daily activities on YouTube (Weinzaepfel et al., 2016).

``daly1.1.0.pkl``, a pickle of Python 2: {"annot": {"VIDEO.mp4": {"annot": {"FoldingTextile":
[{"beginTime", "endTime", "keyframes": [{"frameNumber", "time", "boundingBox": array (1, 4) of
x1, y1, x2, y2 in 0..1}]}]}}}, "splits": [names of the test videos]}.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.datasets.actions import labelled
from videogem_ros.evaluation.datasets.annotated import Annotation
from videogem_ros.evaluation.datasets.fields import (
    by_name,
    corners,
    item,
    mapping,
    number,
    sequence,
    whole,
    within,
    words,
)
from videogem_ros.evaluation.datasets.frames import Footage, Moment, Spacing
from videogem_ros.evaluation.records import Box
from videogem_ros.window import NS_PER_S


class Daly:
    """The box of the person in each keyframe, of all videos; those of the test split are a group.

    Args:
        content: Of the annotation file.
        footage: The frames.
    """

    name = "DALY"
    files = ("daly*.pkl",)
    spacing = Spacing.of_frames(32)
    notes = ()

    def __init__(self, content: Sequence[Any], footage: Footage) -> None:
        self._videos = item(content[0], "annot", "daly.pkl")
        splits = sequence(content[0].get("splits", ()), "splits")
        self._test = frozenset(map(str, sequence(splits[0], "splits") if splits else ()))

    def entries(self) -> Iterator[tuple[str, str, Any]]:
        """Video, action and keyframe."""
        for video, fields in by_name(self._videos, "annot").items():
            place = f"annot {video}"
            for action, instances in mapping(item(fields, "annot", place), place).items():
                for instance in sequence(instances, f"{place} {action}"):
                    keyframes = item(instance, "keyframes", f"{place} {action}")
                    for keyframe in sequence(keyframes, f"{place} {action} keyframes"):
                        yield video, action, keyframe

    def annotation(self, entry: tuple[str, str, Any]) -> Annotation:
        """Frame, box and action of an entry."""
        video, action, keyframe = entry
        text = re.sub(r"(?<=.)(?=[A-Z])", " ", words(action, "action"))
        time_s = number(item(keyframe, "time", "keyframe"), "time")
        frame = whole(item(keyframe, "frameNumber", "keyframe"), "frameNumber")
        return Annotation(
            video,
            Moment(round(time_s * NS_PER_S), frame),
            action,
            (labelled(text),),
            _relative(item(keyframe, "boundingBox", "keyframe")),
            (1, 1),
            ("test split",) if video in self._test else (),
        )


def _relative(value: Any) -> Box:
    """The box in pixels of an image of one pixel, whose edges are at -1/2 and 1/2."""
    boxes = sequence(value, "boundingBox")
    if len(boxes) != 1:
        raise InvalidValueError("boundingBox", "one box", value)
    x1, y1, x2, y2 = within(corners(boxes[0], "boundingBox"), (1, 1), "boundingBox")
    return x1 - 0.5, y1 - 0.5, x2 - 0.5, y2 - 0.5

"""V-HICO: people doing things with things (Li et al., ICCV 2021).

``gt_bbox_test.json``, a pickle: {"annos": {class: {video: [{"label": "throwing ball", "path":
"test/throwing/VIDEO/47.jpg", "human": [[x1, y1, x2, y2]...], "object": [...], "height",
"width"}]}}}.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.datasets.actions import labelled
from videogem_ros.evaluation.datasets.annotated import Annotation
from videogem_ros.evaluation.datasets.fields import (
    by_name,
    corners,
    item,
    mapping,
    sequence,
    whole,
    within,
    words,
)
from videogem_ros.evaluation.datasets.frames import Footage, Moment, Spacing
from videogem_ros.evaluation.records import Box


class VHico:
    """One box around all human and object boxes of a frame.

    The paper's windows have every fourth frame, or the annotated one eight times where its
    neighbours were not extracted; here the nearest ones that are there take their places.

    Args:
        content: Of the annotation file.
        footage: The frames.
    """

    name = "V-HICO"
    files = ("gt_bbox_test.json",)
    spacing = Spacing.of_frames(4)
    notes = ()

    def __init__(self, content: Sequence[Any], footage: Footage) -> None:
        self._classes = item(content[0], "annos", "gt_bbox_test.json")

    def entries(self) -> Iterator[tuple[str, Any]]:
        """Video and annotation."""
        for name, videos in mapping(self._classes, "annos").items():
            for video, of_video in by_name(videos, f"annos {name}").items():
                for annotation in sequence(of_video, f"annos {name} {video}"):
                    yield video, annotation

    def annotation(self, entry: tuple[str, Any]) -> Annotation:
        """Frame, box and action of an entry."""
        video, fields = entry
        label = words(item(fields, "label", "annotation"), "label")
        hw = (
            whole(item(fields, "height", "annotation"), "height"),
            whole(item(fields, "width", "annotation"), "width"),
        )
        boxes = [
            corners(box, kind)
            for kind in ("human", "object")
            for box in sequence(item(fields, kind, "annotation"), kind)
        ]
        return Annotation(
            video,
            Moment(number=_frame_number(item(fields, "path", "annotation"))),
            label,
            (labelled(label),),
            within(_around(boxes), hw, "human and object"),
            hw,
        )


def _frame_number(path: Any) -> int:
    stem = PurePosixPath(path).stem if isinstance(path, str) else ""
    if not stem.isdecimal():
        raise InvalidValueError("path", "a file named by the frame's number", path)
    return int(stem)


def _around(boxes: Sequence[Box]) -> Box:
    if not boxes:
        raise InvalidValueError("human and object", "a box", "none")
    x1, y1, x2, y2 = zip(*boxes)
    return min(x1), min(y1), max(x2), max(y2)

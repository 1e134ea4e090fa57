"""YouCook-Interactions: boxes in videos of YouCook2 (Tan et al., NeurIPS 2021).

========================================  =======================================================
``final_dataset_annotations.pkl``         {video: {second: (x1, y1, x2, y2)}}
``final_dataset_segments.pkl``            {(video, start, end)} in seconds: what is evaluated
``youcookii_annotations_trainval.json``   YouCook2's own, {"database": {video: {"annotations":
                                          [{"segment": [start, end], "sentence"}]}}}
========================================  =======================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.datasets.actions import described
from videogem_ros.evaluation.datasets.annotated import Annotation
from videogem_ros.evaluation.datasets.fields import (
    by_name,
    corners,
    item,
    mapping,
    number,
    sequence,
    whole,
    words,
)
from videogem_ros.evaluation.datasets.frames import Footage, Moment, Spacing
from videogem_ros.window import NS_PER_S

SCALED_HW = (360, 640)
"""Of the copies of larger videos that boxes were drawn on."""

_Segment = tuple[float, float]
_Entry = tuple[str, tuple[int, int] | None, Any, Any]


class YouCookInteractions:
    """Boxes of the evaluated segments, with the segments' sentences.

    A second in which one segment ends and the next begins belongs to the one that begins. Classes
    are the sentences' first verbs. Boxes are in pixels of 640 x 360 where the video is larger,
    except in videos of which any box reaches beyond that: those are in the video's own, and they
    are the ones that the paper's evaluation names.

    Args:
        content: Of boxes, segments and sentences.
        footage: The frames.
    """

    name = "YouCook-Interactions"
    files = ("*annotations.pkl", "*segments.pkl", "youcookii_annotations_trainval.json")
    spacing = Spacing(NS_PER_S // 4)
    notes: tuple[str, ...] = ()

    def __init__(self, content: Sequence[Any], footage: Footage) -> None:
        boxes, segments, youcook = content
        self._videos = by_name(boxes, "annotations.pkl")
        self._segments: dict[str, list[_Segment]] = {}
        for video, segment in _segments(segments):
            self._segments.setdefault(video, []).append(segment)
        self._sentences = _sentences(youcook, self._segments)
        self._footage = footage

    def entries(self) -> Iterator[_Entry]:
        """Video, size of the image that its boxes belong to, second and box."""
        for video, boxes in self._videos.items():
            mapping(boxes, f"annotations.pkl {video}")
            boxes_hw = self._boxes_hw(video, boxes.values())
            for second, box in boxes.items():
                yield video, boxes_hw, second, box

    def annotation(self, entry: _Entry) -> Annotation:
        """Frame, box and candidate actions of an entry."""
        video, boxes_hw, second, box = entry
        second = whole(second, "second")
        sentence = self._sentence(video, second)
        actions = described(sentence)
        if not actions:
            raise InvalidValueError("sentence", "a verb or a noun", sentence)
        return Annotation(
            video,
            Moment(second * NS_PER_S),
            actions[0].verb or actions[0].phrase,
            actions,
            corners(box, "box"),
            boxes_hw,
        )

    def _sentence(self, video: str, second: int) -> str:
        segments = self._segments.get(video, ())
        holding = [(start, end) for start, end in segments if start <= second <= end]
        if not holding:
            raise InvalidValueError("second", "one of an evaluated segment", second)
        if (video, max(holding)) not in self._sentences:
            raise InvalidValueError("segment", "one that YouCook2 has too", max(holding))
        return words(self._sentences[video, max(holding)], "sentence")

    def _boxes_hw(self, video: str, boxes: Iterable[Any]) -> tuple[int, int] | None:
        """Of the scaled copy; None where the boxes are in the video's own pixels."""
        height, width = SCALED_HW
        frame_hw = self._footage.image_hw(video)
        larger = frame_hw is not None and frame_hw[0] > height and frame_hw[1] > width
        return SCALED_HW if larger and not any(map(_beyond_copy, boxes)) else None


def _beyond_copy(box: Any) -> bool:
    try:
        _, _, x2, y2 = corners(box, "box")
    except InvalidValueError:  # counted when its turn comes
        return False
    return y2 > SCALED_HW[0] or x2 > SCALED_HW[1]


def _segments(content: Any) -> Iterator[tuple[str, _Segment]]:
    """Videos and their evaluated segments."""
    field = "segments.pkl"
    entries = content if isinstance(content, (set, frozenset)) else sequence(content, field)
    for entry in entries:
        if len(sequence(entry, field)) != 3 or not isinstance(entry[0], str):
            raise InvalidValueError(field, "(video, start, end)", entry)
        yield entry[0], (number(entry[1], field), number(entry[2], field))


def _sentences(content: Any, videos: Iterable[str]) -> Mapping[tuple[str, _Segment], Any]:
    """YouCook2's sentences by video and segment, of the evaluated videos that it has."""
    database = mapping(item(content, "database", "youcookii"), "youcookii database")
    found = {}
    for video in videos:
        field = f"youcookii database {video}"
        for annotation in sequence(item(database.get(video, _NONE), "annotations", field), field):
            segment = sequence(item(annotation, "segment", field), field)
            if len(segment) != 2:
                raise InvalidValueError(field, "segments of start and end", segment)
            start, end = (number(time_s, field) for time_s in segment)
            found[video, (start, end)] = item(annotation, "sentence", field)
    return found


_NONE: Mapping[str, Any] = {"annotations": ()}

"""GroundingYouTube: cooking videos, a box for every second of an action (Chen et al., CVPR 2024).

``box_anno.json``: {video: [{"second": 76, "box": [x1, y1, x2, y2], "step_name": "crack eggs"}]}.

The boxes belong to copies of 640 x 480 (one video: 480 x 640) of whatever shape the original has:
the data set's authors have these sizes in ``id2wh_new.json`` of their code, beside the originals'
in ``id2wh.json``, and no box begins outside of them. The paper's evaluation takes a box as pixels
of its frames, which came from resized videos. Frames of any other size need the boxes scaled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from videogem_ros.evaluation.datasets.actions import labelled
from videogem_ros.evaluation.datasets.annotated import Annotation
from videogem_ros.evaluation.datasets.fields import (
    by_name,
    corners,
    item,
    sequence,
    whole,
    words,
)
from videogem_ros.evaluation.datasets.frames import Footage, Moment, Spacing
from videogem_ros.window import NS_PER_S

COPY_HW = (480, 640)
"""Of the copies that the boxes were drawn on."""

UPRIGHT_COPY = "7mabCfrc90Y"
"""The video whose copy is upright."""


class GroundingYouTube:
    """Boxes as the paper takes them: in pixels of the frames that are there.

    Args:
        content: Of the annotation file.
        footage: The frames.
    """

    name = "GroundingYouTube"
    files = ("*box_anno.json",)
    spacing = Spacing(NS_PER_S // 4)

    def __init__(self, content: Sequence[Any], footage: Footage) -> None:
        self._videos = by_name(content[0], "box_anno.json")
        self._footage = footage

    @property
    def notes(self) -> tuple[str, ...]:
        """A warning where the first video that is there is no copy of 640 x 480."""
        for video in self._videos:
            if hw := self._footage.image_hw(video):
                return () if COPY_HW in (hw, hw[::-1]) else (_OTHER_SIZE.format(video, *hw[::-1]),)
        return ()

    def entries(self) -> Iterator[tuple[str, Any]]:
        """Video and annotation."""
        for video, of_video in self._videos.items():
            for annotation in sequence(of_video, f"box_anno.json {video}"):
                yield video, annotation

    def annotation(self, entry: tuple[str, Any]) -> Annotation:
        """Frame, box and action of an entry."""
        video, fields = entry
        second = whole(item(fields, "second", "annotation"), "second")
        label = words(item(fields, "step_name", "annotation"), "step_name")
        return Annotation(
            video,
            Moment(second * NS_PER_S),
            label,
            (labelled(label),),
            corners(item(fields, "box", "annotation"), "box"),
            self._boxes_hw(video),
        )

    def _boxes_hw(self, video: str) -> tuple[int, int] | None:
        return None


class ScaledGroundingYouTube(GroundingYouTube):
    """Boxes as they were drawn: in pixels of copies of 640 x 480, for frames of any size."""

    name = "GroundingYouTube 640×480"  # noqa: RUF001 - as sizes are written
    notes = ()

    def _boxes_hw(self, video: str) -> tuple[int, int]:
        return COPY_HW[::-1] if video == UPRIGHT_COPY else COPY_HW


_OTHER_SIZE = (
    "GroundingYouTube's boxes belong to copies of 640 x 480 and are taken as pixels of the frames "
    "that are there, as the paper does, but these are of another size ({} has {} x {}): use "
    "groundingyoutube-640x480"
)

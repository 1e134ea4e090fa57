"""Labels in a bag: the boxes of actions as ``vision_msgs/Detection2DArray``, without vision_msgs.

One message per labelled image, of the same header stamp. A detection says where one action is in
it: ``results[0].hypothesis.class_id`` is the action's text, ``id`` the names of the groups that
it is counted under in tables, joined by commas.

``bbox`` is in pixels of the image, x right, y down, from the image's *corner*: the first pixel
covers 0 to 1. So a box whose first and last columns are x1 and x2 has its centre at
(x1 + x2 + 1) / 2 and the size x2 - x1 + 1; :class:`Label` holds the columns and rows. A box of
size 0 says that the action was asked for and is not in the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from videogem_ros.errors import InvalidValueError

LABELS = "vision_msgs/msg/Detection2DArray"
"""Type of the labels' topic."""

DEFINITIONS = {
    "Point2D": "float64 x\nfloat64 y\n",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "ObjectHypothesis": "string class_id\nfloat64 score\n",
    "ObjectHypothesisWithPose": (
        "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n"
    ),
    "Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
        "vision_msgs/BoundingBox2D bbox\nstring id\n"
    ),
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections\n",
}
"""Fields of the messages of vision_msgs 4 (Humble and later), each after those it holds."""


@dataclass(frozen=True)
class Label:
    """Where one action is in one image.

    Attributes:
        action: What is asked for, in words.
        box: First and last column and row of it, (x1, y1, x2, y2) in pixels of the image, borders
            included, the first pixel being 0; None where the action is not in the image.
        groups: Names under which it is counted in tables; without commas.

    Raises:
        InvalidValueError: no words, a box without a pixel or of numbers that are not finite, or a
            group's name with a comma.
    """

    action: str
    box: tuple[float, float, float, float] | None = None
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.action.strip():
            raise InvalidValueError("label.action", "words", repr(self.action))
        if self.box is not None:
            x1, y1, x2, y2 = self.box
            if not (x1 <= x2 and y1 <= y2 and all(map(_finite, self.box))):
                raise InvalidValueError("label.box", "x1 <= x2 and y1 <= y2", self.box)
        if any("," in name for name in self.groups):
            raise InvalidValueError("label.groups", "names without commas", self.groups)


def _finite(value: float) -> bool:
    """Whether it is a number that a float64 can hold; integers of JSON have any length."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def register(store: Typestore) -> None:
    """Adds the types of :data:`DEFINITIONS` to a store that has ROS's own."""
    for name, definition in DEFINITIONS.items():
        store.register(get_types_from_msg(definition, f"vision_msgs/msg/{name}"))


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """The standard messages of Humble and those of labels."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    register(store)
    return store


def label_fields(header: Any, labels: Sequence[Label]) -> dict[str, Any]:
    """Fields of a ``vision_msgs/Detection2DArray``.

    Args:
        header: A ``std_msgs/Header``: stamp and optical frame of the labelled image.
        labels: What is asked for in the image.
    """
    return {"header": header, "detections": [_detection(header, label) for label in labels]}


def read_label(detection: Any) -> Label:
    """The label that a ``vision_msgs/Detection2D`` is.

    Raises:
        InvalidValueError: It has no result, no words, or a box that is rotated or smaller than a
            pixel.
    """
    if not detection.results:
        raise InvalidValueError("detection.results", "the action's text in the first", "none")
    bbox = detection.bbox
    width, height = bbox.size_x, bbox.size_y
    box = None
    if (width, height) != (0, 0):
        if bbox.center.theta:
            raise InvalidValueError("detection.bbox", "an upright box", bbox.center.theta)
        if not (width >= 1 and height >= 1):
            raise InvalidValueError("detection.bbox", "a pixel or more", (width, height))
        x1 = bbox.center.position.x - width / 2
        y1 = bbox.center.position.y - height / 2
        box = (x1, y1, x1 + width - 1, y1 + height - 1)
    groups = tuple(filter(None, detection.id.split(",")))
    return Label(detection.results[0].hypothesis.class_id, box, groups)


def _detection(header: Any, label: Label) -> object:
    make = typestore().types
    nowhere = make["geometry_msgs/msg/PoseWithCovariance"](
        make["geometry_msgs/msg/Pose"](
            make["geometry_msgs/msg/Point"](0.0, 0.0, 0.0),
            make["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0),
        ),
        np.zeros(36),
    )
    hypothesis = make["vision_msgs/msg/ObjectHypothesis"](label.action, 1.0)
    result = make["vision_msgs/msg/ObjectHypothesisWithPose"](hypothesis, nowhere)
    # A last pixel before the first one is a size of 0.
    x1, y1, x2, y2 = map(float, label.box or (0, 0, -1, -1))
    centre = make["vision_msgs/msg/Point2D"]((x1 + x2 + 1) / 2, (y1 + y2 + 1) / 2)
    bbox = make["vision_msgs/msg/BoundingBox2D"](
        make["vision_msgs/msg/Pose2D"](centre, 0.0), x2 - x1 + 1, y2 - y1 + 1
    )
    return make["vision_msgs/msg/Detection2D"](header, [result], bbox, ",".join(label.groups))

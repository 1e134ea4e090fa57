"""Labelled bags for tests, written only with rosbags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

HW = (24, 32)
START_NS = 1_700_000_000_000_000_000
IMAGE, LABELS = "sensor_msgs/msg/Image", "vision_msgs/msg/Detection2DArray"
IMAGES, BOXES = "/camera/image_raw", "/labels"

_TYPES = {
    "vision_msgs/msg/Point2D": "float64 x\nfloat64 y",
    "vision_msgs/msg/Pose2D": "vision_msgs/Point2D position\nfloat64 theta",
    "vision_msgs/msg/BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score",
    "vision_msgs/msg/ObjectHypothesisWithPose": "vision_msgs/ObjectHypothesis hypothesis\n"
    "geometry_msgs/PoseWithCovariance pose",
    "vision_msgs/msg/Detection2D": "std_msgs/Header header\n"
    "vision_msgs/ObjectHypothesisWithPose[] results\nvision_msgs/BoundingBox2D bbox\nstring id",
    LABELS: "std_msgs/Header header\nvision_msgs/Detection2D[] detections",
}
STORE = get_typestore(Stores.ROS2_JAZZY)
for _name, _definition in _TYPES.items():
    STORE.register(get_types_from_msg(_definition, _name))


def make(msgtype: str, *fields: Any) -> Any:
    return STORE.types[msgtype](*fields)


def header(stamp_ns: int) -> Any:
    stamp = make("builtin_interfaces/msg/Time", *divmod(stamp_ns, 10**9))
    return make("std_msgs/msg/Header", stamp, "camera")


def image(stamp_ns: int, value: int = 0, hw: tuple[int, int] = HW) -> Any:
    """An image whose pixels all have one value."""
    data = np.full(hw[0] * hw[1] * 3, value, np.uint8)
    return make(IMAGE, header(stamp_ns), *hw, "rgb8", 0, 3 * hw[1], data)


def detection(
    action: str, centre: tuple[float, float], size: tuple[float, float], group: str = ""
) -> Any:
    pose = make(
        "geometry_msgs/msg/Pose",
        make("geometry_msgs/msg/Point", 0.0, 0.0, 0.0),
        make("geometry_msgs/msg/Quaternion", 0.0, 0.0, 0.0, 1.0),
    )
    result = make(
        "vision_msgs/msg/ObjectHypothesisWithPose",
        make("vision_msgs/msg/ObjectHypothesis", action, 1.0),
        make("geometry_msgs/msg/PoseWithCovariance", pose, np.zeros(36)),
    )
    middle = make("vision_msgs/msg/Pose2D", make("vision_msgs/msg/Point2D", *centre), 0.0)
    bbox = make("vision_msgs/msg/BoundingBox2D", middle, *size)
    return make("vision_msgs/msg/Detection2D", header(0), [result], bbox, group)


def labels(stamp_ns: int, *detections: Any) -> Any:
    return make(LABELS, header(stamp_ns), list(detections))


def write_bag(
    path: Path,
    messages: Iterable[tuple[str, int, Any]],
    *,
    storage: str = "mcap",
    store: Any = STORE,
) -> Path:
    """A bag of (topic, log time in nanoseconds, message)."""
    connections: dict[str, Any] = {}
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        for topic, log_ns, message in messages:
            msgtype = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=store)
            writer.write(connections[topic], log_ns, store.serialize_cdr(message, msgtype))
    return path


def film(
    frames: int, labelled: Mapping[int, Iterable[Any]], period_ns: int = 10**8
) -> list[tuple[str, int, Any]]:
    """Frames whose pixels are their number, some with detections; logged 1 and 2 ms later."""
    messages = []
    for number in range(frames):
        stamp_ns = START_NS + number * period_ns
        messages.append((IMAGES, stamp_ns + 10**6, image(stamp_ns, number)))
        if number in labelled:
            messages.append((BOXES, stamp_ns + 2 * 10**6, labels(stamp_ns, *labelled[number])))
    return messages

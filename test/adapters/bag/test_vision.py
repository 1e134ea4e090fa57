"""Labels in a bag: the same pixels out as in, by any reader."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rosbags.highlevel import AnyReader

from videogem_ros.adapters.bag.vision import LABELS, Label, label_fields, read_label
from videogem_ros.adapters.bag.writing import BagWriter, header
from videogem_ros.errors import InvalidValueError

WHOLE = Label("lift the cup", (0, 0, 319, 239))
"""Of an image of 320 x 240 pixels."""

LABELLED = [
    Label("press the button", (10, 20, 29, 59), ("motion", "twins")),
    Label("wipe", (7.25, 3, 7.25, 3)),
    Label("open the box"),
    WHOLE,
]


@pytest.fixture
def messages(tmp_path: Path) -> list[Any]:
    """As rosbags reads them from the definitions in the bag."""
    bag = BagWriter(tmp_path / "bag")
    bag.write("/labels", LABELS, 7, **label_fields(header(5, "camera"), LABELLED))
    bag.close()
    with AnyReader([tmp_path / "bag"]) as reader:
        return [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages()]


def test_a_box_is_written_about_its_centre_from_the_corner_of_the_image(
    messages: list[Any],
) -> None:
    (message,) = messages
    assert (message.header.stamp.nanosec, message.header.frame_id) == (5, "camera")
    boxes = [detection.bbox for detection in message.detections]
    found = [(b.center.position.x, b.center.position.y, b.size_x, b.size_y) for b in boxes]
    # Columns 10 to 29 are 20 pixels, of which the first begins at 10 and the last ends at 30.
    assert found == [(20, 40, 20, 40), (7.75, 3.5, 1, 1), (0, 0, 0, 0), (160, 120, 320, 240)]
    first = message.detections[0]
    assert first.results[0].hypothesis.class_id == "press the button"
    assert first.id == "motion,twins"


def test_what_is_written_is_read(messages: list[Any]) -> None:
    assert [read_label(detection) for detection in messages[0].detections] == LABELLED


def detection(
    action: str | None, x: float, y: float, width: float, height: float, theta: float = 0.0
) -> Any:
    position = SimpleNamespace(x=x, y=y)
    bbox = SimpleNamespace(
        center=SimpleNamespace(position=position, theta=theta), size_x=width, size_y=height
    )
    hypothesis = SimpleNamespace(hypothesis=SimpleNamespace(class_id=action))
    results = [] if action is None else [hypothesis]
    return SimpleNamespace(results=results, bbox=bbox, id="")


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (detection(None, 5, 5, 2, 2), "detection.results"),
        (detection(" ", 5, 5, 2, 2), "label.action"),
        (detection("push", 5, 5, 2, 2, theta=0.5), "detection.bbox"),
        (detection("push", 5, 5, 2, 0), "detection.bbox"),
        (detection("push", 5, 5, 0.5, 2), "detection.bbox"),
        (detection("push", 5, 5, -2, -2), "detection.bbox"),
        (detection("push", 5, 5, float("nan"), 2), "detection.bbox"),
        (detection("push", float("inf"), 5, 2, 2), "label.box"),
    ],
)
def test_a_detection_that_labels_nothing_is_refused(bad: Any, field: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        read_label(bad)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"action": ""}, "label.action"),
        ({"action": "push", "box": (3, 0, 2, 5)}, "label.box"),
        ({"action": "push", "box": (0, 0, 2, float("nan"))}, "label.box"),
        ({"action": "push", "groups": ("a,b",)}, "label.groups"),
    ],
)
def test_a_label_that_cannot_be_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Label(**fields)
    assert caught.value.field == field

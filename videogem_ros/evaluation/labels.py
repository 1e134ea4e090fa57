"""Labels beside a recording: a sidecar file, and how it is made from a table.

A sidecar is a JSON object, ``BAG.labels.json`` beside ``BAG`` where it is to be found by itself:

=================  ============================================================================
``format``         ``"videogem_ros labels"``.
``version``        1.
``image_topic``    Topic of the labelled images; null where any is meant.
``labels``         List of objects, one for each box:
``  stamp_ns``     Header stamp of the labelled image, nanoseconds, an integer.
``  action``       What is asked for, in words.
``  box``          [x1, y1, x2, y2]: first and last column and row in pixels of the image, borders
                   included, the first pixel being 0; null where the action was asked for and is
                   not in the image.
``  label``        Class for per-class means; may be missing for the action's text.
``  groups``       Names under which it is counted in tables; may be missing for none.
=================  ============================================================================

Several boxes of one action in one image are right each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogem_ros.adapters.bag.vision import Label
from videogem_ros.errors import InvalidValueError, VideoGemError
from videogem_ros.evaluation.records import Box
from videogem_ros.evaluation.tables import TOLERANCE_S, Row, nearest, read_table
from videogem_ros.files import whole_file
from videogem_ros.language import parse_actions
from videogem_ros.window import NS_PER_S

FORMAT, VERSION = "videogem_ros labels", 1

SUFFIX = ".labels.json"
"""What is added to a recording's name for the sidecar that is found by itself."""

_CORNERS = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class ImageLabel:
    """A label and the image that it belongs to.

    Attributes:
        stamp_ns: Header stamp of the image.
        label: Action, box and groups.
        name: Class for per-class means.
    """

    stamp_ns: int
    label: Label
    name: str


@dataclass(frozen=True)
class Sidecar:
    """What a sidecar holds.

    Attributes:
        labels: In the file's order.
        image_topic: Topic of the labelled images; None where any is meant.
    """

    labels: tuple[ImageLabel, ...]
    image_topic: str | None = None


def beside(recording: Path) -> Path:
    """The sidecar that belongs to a recording by its name."""
    return recording.with_name(recording.name + SUFFIX)


def beyond(box: Box, image_hw: tuple[int, int]) -> str | None:
    """The first coordinate of a box that no pixel of the image has; None where it is inside."""
    height, width = image_hw
    for name, value, side in zip(_CORNERS, box, (width, height, width, height)):
        if not -0.5 <= value <= side - 0.5:
            return name
    return None


def inside(image_hw: tuple[int, int]) -> str:
    """What :func:`beyond` expects, in words."""
    return f"a position within the image of {image_hw[1]} x {image_hw[0]} pixels"


def labels_from_csv(
    path: Path,
    images: Mapping[int, tuple[int, int]],
    *,
    from_start: bool = True,
    tolerance_s: float = TOLERANCE_S,
) -> list[ImageLabel]:
    """Reads labels that were written by hand or by another tool.

    Args:
        path: CSV with the columns time, x1, y1, x2, y2, action and, where classes are not the
            actions' texts, label. Times in seconds, boxes as in a sidecar. A line without a box
            (four empty fields) says that the action is not in the image.
        images: Heights and widths of the recording's images by header stamp in nanoseconds.
        from_start: Whether times count from the first image; else they are header stamps.
        tolerance_s: How far the nearest image may be from a time, seconds.

    Raises:
        VideoGemError: The file cannot be read.
        InvalidValueError: A line is wrong; it names line and column.
    """
    stamps = sorted(images)
    origin_ns = stamps[0] if from_start else 0
    found = []
    for row in read_table(path, ("time", *_CORNERS, "action"), ("label",)):
        stamp_ns = _stamp_ns(row, stamps, origin_ns, round(tolerance_s * NS_PER_S))
        action = row.text("action")
        if not parse_actions(action):
            raise row.error("action", "a text with words")
        label = Label(action, _box(row, images[stamp_ns]))
        found.append(ImageLabel(stamp_ns, label, row.fields["label"] or action))
    return found


def _stamp_ns(row: Row, stamps: Sequence[int], origin_ns: int, tolerance_ns: int) -> int:
    """Stamp of the image that a line is about."""
    time_ns = row.time_ns("time") + origin_ns
    stamp_ns = nearest(stamps, time_ns)
    if abs(stamp_ns - time_ns) > tolerance_ns:
        first_s, last_s = ((stamp - origin_ns) / NS_PER_S for stamp in (stamps[0], stamps[-1]))
        raise row.error(
            "time",
            f"an image within {tolerance_ns / NS_PER_S:g} s of it "
            f"(they are from {first_s:.3f} to {last_s:.3f} s)",
            f"{row.fields['time']}, {abs(stamp_ns - time_ns) / NS_PER_S:.3f} s from the nearest",
        )
    return stamp_ns


def _box(row: Row, image_hw: tuple[int, int]) -> Box | None:
    if not any(row.fields[name] for name in _CORNERS):
        return None
    x1, y1, x2, y2 = (row.number(name) for name in _CORNERS)
    if name := beyond((x1, y1, x2, y2), image_hw):
        raise row.error(name, inside(image_hw))
    if x2 < x1:
        raise row.error("x2", "x1 or more")
    if y2 < y1:
        raise row.error("y2", "y1 or more")
    return x1, y1, x2, y2


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Writes a sidecar, whole or not at all.

    Args:
        path: The file; replaced where it is there.
        sidecar: What it is to hold.

    Raises:
        VideoGemError: It cannot be written.
    """
    entries = [
        {
            "stamp_ns": item.stamp_ns,
            "action": item.label.action,
            "box": item.label.box,
            "label": item.name,
            "groups": item.label.groups,
        }
        for item in sidecar.labels
    ]
    about = {"format": FORMAT, "version": VERSION, "image_topic": sidecar.image_topic}
    lines = ",\n".join(f"  {json.dumps(entry, ensure_ascii=False)}" for entry in entries)
    head = json.dumps(about, ensure_ascii=False)[:-1]
    with whole_file(path) as partial:
        partial.write_text(f'{head}, "labels": [\n{lines}\n]}}\n', encoding="utf-8")


def read_sidecar(path: Path) -> Sidecar:
    """Reads a sidecar.

    Raises:
        VideoGemError: It cannot be read, or is none.
        InvalidValueError: A label is wrong; it names which.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VideoGemError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise VideoGemError(f"{path}: not a JSON file ({error})") from error
    content = content if isinstance(content, dict) else {}
    about, topic = (content.get("format"), content.get("version")), content.get("image_topic")
    if about != (FORMAT, VERSION) or not isinstance(content.get("labels"), list):
        raise VideoGemError(f"{path}: not {FORMAT} of version {VERSION}")
    if not isinstance(topic, (str, type(None))):
        raise InvalidValueError(f"{path.name} image_topic", "a name or null", topic)
    labels = (
        _image_label(f"{path.name} labels[{index}]", entry)
        for index, entry in enumerate(content["labels"])
    )
    return Sidecar(tuple(labels), topic)


def _image_label(place: str, entry: Any) -> ImageLabel:
    """A label of a sidecar; ``place`` is the label's, for error messages."""
    fields: dict[str, Any] = {"label": "", "groups": []}
    fields |= entry if isinstance(entry, dict) else {}
    for name, (valid, expected) in _FIELDS.items():
        if not valid(fields.get(name, ...)):
            got = repr(fields[name]) if name in fields else "nothing"
            raise InvalidValueError(f"{place}.{name}", expected, got)
    box = fields["box"] and tuple(fields["box"])
    try:
        label = Label(fields["action"], box, tuple(fields["groups"]))
    except InvalidValueError as error:
        name = error.field.rpartition(".")[2]
        raise InvalidValueError(f"{place}.{name}", error.expected, error.got) from error
    return ImageLabel(fields["stamp_ns"], label, fields["label"] or label.action)


def _is_box(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and len(value) == 4 and all(type(x) in (int, float) for x in value)
    )


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "stamp_ns": (lambda value: type(value) is int, "nanoseconds, an integer"),
    "action": (lambda value: isinstance(value, str), "a string"),
    "box": (_is_box, "null or [x1, y1, x2, y2]"),
    "label": (lambda value: isinstance(value, str), "a string"),
    "groups": (_are_names, "a list of names"),
}
"""What a label of a sidecar must hold: whether a value is right, and what is, in words."""

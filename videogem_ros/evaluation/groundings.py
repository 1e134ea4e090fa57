"""Groundings that were recorded from a node, or written by a replay.

- ``videogem_ros/ActionGrounding`` messages in a bag (``ros2 bag record``). The time at which they
  were recorded shows how late they arrived.
- ``groundings.jsonl`` in a folder of ``videogem-ros record``, which has these times too, or of
  ``replay``, which has none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from videogem_ros.adapters.bag.results import BAG, LINES, action_namespace
from videogem_ros.adapters.bag.rosbag import Message, is_rosbag
from videogem_ros.adapters.bag.storage import UNREADABLE, Storage
from videogem_ros.datatypes import PROMPT_KINDS
from videogem_ros.encodings import heatmap_from_message
from videogem_ros.errors import InvalidValueError, RecordingError, reason
from videogem_ros.live.joining import GROUNDED, milliseconds
from videogem_ros.live.topics import SHARED_OUTPUTS, action_topic

_POINTS = ("fused", *PROMPT_KINDS)


@dataclass(frozen=True)
class RecordedGrounding:
    """One grounding as it was recorded.

    Attributes:
        stamp_ns: Header stamp of the image.
        index: Index of the action in the command, from 0.
        action: Text of the command.
        verb: The action's verb; empty where there is none.
        object: The action's object; empty where there is none.
        points: x and y by "fused", "verb", "object", "action", in pixels of the image.
        score: Presence score in [0, 1].
        image_hw: Height and width of the image.
        layer_weights: (K, L).
        received_ns: When it was recorded; None where that is not known.
        latency_ms: From the stamp to publication, by the node's own clock; None where not known.
        compute_ms: Time that the node took for the window; None where that is not known.
        backbone: Name of the node's backbone; empty where that is not known.
    """

    stamp_ns: int
    index: int
    action: str
    verb: str
    object: str
    points: Mapping[str, tuple[float, float]]
    score: float
    image_hw: tuple[int, int]
    layer_weights: tuple[tuple[float, ...], ...]
    received_ns: int | None = None
    latency_ms: float | None = None
    compute_ms: float | None = None
    backbone: str = ""


class RecordedGroundings:
    """Groundings of a recording, with their heatmaps where those were recorded too.

    A context manager that closes the recording.

    Args:
        path: A bag with one topic of ``ActionGrounding``, a folder that ``videogem-ros record`` or
            ``replay`` made, or its groundings.jsonl.

    Attributes:
        path: The recording.
        groundings: All that have points, in the order in which they were recorded.

    Raises:
        RecordingError: There are none, or the recording cannot be read.
        InvalidValueError: A line of groundings.jsonl is not a grounding; the error names the
            field.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._storage: Storage | None = None
        lines = path / LINES if path.is_dir() else path
        with ExitStack() as opened:
            if lines.suffix == Path(LINES).suffix and lines.exists():
                self.groundings = _from_lines(lines)
                bag, topics = lines.with_name(BAG), [action_namespace(i) for i in self._indices]
                if bag.exists():
                    self._storage = opened.enter_context(closing(Storage(bag)))
            elif path.exists() and is_rosbag(path):
                self._storage = opened.enter_context(closing(Storage(path)))
                topic, self.groundings = _from_bag(self._storage)
                node = topic.rpartition("/")[0]
                topics = [f"{node}/{action_topic('', i)}".rstrip("/") for i in self._indices]
            else:
                raise RecordingError(f"{path}: neither a bag nor a folder with {LINES}")
            if not self.groundings:
                raise RecordingError(f"{path}: no groundings in it")
            self._heatmaps = self._find_heatmaps([f"{namespace}/heatmap" for namespace in topics])
            self._open_files = opened.pop_all()

    def heatmap(self, grounding: RecordedGrounding) -> npt.NDArray[np.float32] | None:
        """The heatmap of a grounding.

        Returns:
            (h, w) float32 in [0, 1], of any resolution, over the whole image; None where none was
            recorded.

        Raises:
            EncodingError: The recorded message holds too few bytes.
        """
        found = self._heatmaps.get((grounding.stamp_ns, grounding.index))
        if found is None:
            return None
        topic, log_ns = found
        messages = self._messages([topic], range(log_ns, log_ns + 1))
        data = next(item.data for item in messages if item.stamp_ns == grounding.stamp_ns)
        return heatmap_from_message(data)

    @property
    def _indices(self) -> Sequence[int]:
        return sorted({grounding.index for grounding in self.groundings})

    def _find_heatmaps(self, topics: Sequence[str]) -> dict[tuple[int, int], tuple[str, int]]:
        """Topic and log time of heatmaps by stamp and index of the action."""
        index_of = dict(zip(topics, self._indices))
        return {
            (message.stamp_ns, index_of[message.topic]): (message.topic, message.log_ns)
            for message in self._messages(topics)
            if getattr(message.data, "encoding", "") == "32FC1"
        }

    def _messages(self, topics: Sequence[str], log_ns: range | None = None) -> Iterator[Message]:
        return _messages(self._storage, topics, log_ns) if self._storage else iter(())

    def __enter__(self) -> RecordedGroundings:
        return self

    def __exit__(self, *_: object) -> None:
        self._open_files.close()


def _messages(
    storage: Storage, topics: Sequence[str], log_ns: range | None = None
) -> Iterator[Message]:
    """Messages of topics, except those that cannot be deserialised."""
    with storage.readable():
        for connection, recorded_ns, raw in storage.raw_messages(topics, log_ns):
            with suppress(*UNREADABLE):
                data = storage.deserialize(connection, raw)
                yield Message(connection.topic, connection.msgtype, recorded_ns, data)


def _from_bag(storage: Storage) -> tuple[str, tuple[RecordedGrounding, ...]]:
    msgtype = SHARED_OUTPUTS["grounding"]
    there = storage.connections()
    topics = sorted({item.topic for item in there if item.msgtype == msgtype and item.msgcount})
    if len(topics) != 1:
        problem = f"several nodes' groundings in it: {', '.join(topics)}"
        problem = problem if topics else f"no messages of {msgtype} in it"
        raise RecordingError(f"{storage.path}: {problem}")
    found = []
    for message in _messages(storage, topics):
        data = message.data
        if data.status not in GROUNDED:
            continue
        points = {name: getattr(data, f"{name}_point") for name in _POINTS}
        found.append(
            RecordedGrounding(
                stamp_ns=message.stamp_ns,
                index=data.action_index,
                action=data.action,
                verb=data.verb,
                object=data.object,
                points={name: (point.x, point.y) for name, point in points.items()},
                score=float(data.score),
                image_hw=(data.image_height, data.image_width),
                layer_weights=tuple(
                    tuple(getattr(data, f"layer_weights_{kind}").tolist()) for kind in PROMPT_KINDS
                ),
                received_ns=message.log_ns,
                latency_ms=milliseconds(data.latency),
                compute_ms=milliseconds(data.compute_time),
                backbone=data.backbone,
            )
        )
    return topics[0], tuple(found)


def _from_lines(path: Path) -> tuple[RecordedGrounding, ...]:
    try:
        with path.open(encoding="utf-8") as file:
            lines = file.readlines()  # splitlines would also split at what a text may hold
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingError(f"{path}: cannot be read ({reason(error)})") from error
    found: list[RecordedGrounding] = []
    indices: Counter[int] = Counter()  # a frame's lines are in the order of its actions
    for number, line in enumerate(lines, 1):
        fields = _fields(line, f"{path.name} line {number}")
        stamp_ns = fields["stamp_ns"]
        points = {name: fields["points"][name] for name in _POINTS}
        height, width = fields["image_hw"]
        found.append(
            RecordedGrounding(
                stamp_ns=stamp_ns,
                index=indices[stamp_ns],
                action=fields["action"],
                verb=fields["verb"] or "",
                object=fields["object"] or "",
                points={name: (float(at["x"]), float(at["y"])) for name, at in points.items()},
                score=float(fields["score"]),
                image_hw=(height, width),
                layer_weights=tuple(tuple(row) for row in fields["layer_weights"]),
                received_ns=fields["received_ns"],
                latency_ms=fields["latency_ms"],
                compute_ms=fields["compute_ms"],
                backbone=fields["backbone"],
            )
        )
        indices[stamp_ns] += 1
    return tuple(found)


def _fields(line: str, place: str) -> Mapping[str, Any]:
    """What a line of groundings.jsonl holds, all of it checked.

    Args:
        line: Its text.
        place: File and line, for error messages.

    Raises:
        InvalidValueError: It is no grounding; it names the field.
    """
    try:
        content = json.loads(line)
    except ValueError as error:
        raise InvalidValueError(place, "a grounding as replay writes it", f"{error}") from error
    if not isinstance(content, dict):
        raise InvalidValueError(place, "a grounding as replay writes it", content)
    fields = {**_NOT_KNOWN, **content}
    for name, (valid, expected) in _FIELDS.items():
        if not valid(fields.get(name, ...)):
            got = repr(fields[name]) if name in fields else "nothing"
            raise InvalidValueError(f"{place}, {name}", expected, got)
    return fields


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _BEYOND  # so not NaN


def _is_integer(value: Any) -> bool:
    return type(value) is int and 0 <= value < _BEYOND


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_points(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(at, dict) and _is_number(at.get("x")) and _is_number(at.get("y"))
        for at in (value.get(name) for name in _POINTS)
    )


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_integer, value))


def _are_weights(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list) and all(map(_is_number, row)) for row in value
    )


def _or_none(valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or valid(value)


_BEYOND = 2**63
"""Numbers from this on are not valid times, pixels or weights."""

_NOT_KNOWN = {"received_ns": None, "latency_ms": None, "compute_ms": None, "backbone": ""}
"""Values of the fields that a line of a replay lacks."""

_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "stamp_ns": (_is_integer, "nanoseconds, an integer"),
    "action": (_is_text, "a string"),
    "verb": (_or_none(_is_text), "a string or null"),
    "object": (_or_none(_is_text), "a string or null"),
    "points": (_are_points, f"numbers x and y of {', '.join(_POINTS)}"),
    "score": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "image_hw": (_is_size, "height and width in pixels, integers"),
    "layer_weights": (_are_weights, "a list of lists of numbers"),
    "received_ns": (_or_none(_is_integer), "nanoseconds, an integer, or null"),
    "latency_ms": (_or_none(_is_number), "a number or null"),
    "compute_ms": (_or_none(_is_number), "a number or null"),
    "backbone": (_is_text, "a string"),
}
"""Fields of a line of groundings.jsonl: whether a value is valid, and what is expected."""

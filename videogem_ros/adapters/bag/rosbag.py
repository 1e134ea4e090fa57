"""rosbag2 recordings, through rosbags: no ROS needed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from videogem_ros.adapters.bag.source import Command, Source
from videogem_ros.adapters.bag.storage import STORAGES, UNREADABLE, Storage, storage_files
from videogem_ros.datatypes import Frame
from videogem_ros.encodings import (
    frame_from_compressed,
    frame_from_message,
    header_stamp_ns,
    pixel_kind,
)
from videogem_ros.errors import RecordingError, VideoGemError, said

_logger = logging.getLogger(__name__)

BREAKS_OFF = "the recording breaks off"
"""Prefix of the reason where the rest of a recording cannot be read."""

_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_FRAMES = {_IMAGE: frame_from_message, _COMPRESSED: frame_from_compressed}
_STRING = "std_msgs/msg/String"
_T = TypeVar("_T")


def is_rosbag(path: Path) -> bool:
    """Whether a path is a rosbag2 folder (even without metadata) or storage file."""
    if path.is_dir():
        return (path / "metadata.yaml").exists() or bool(storage_files(path))
    return path.suffix in STORAGES


@dataclass(frozen=True)
class Message:
    """A deserialised message of a recording.

    Attributes:
        topic: Its topic.
        msgtype: Its type, "sensor_msgs/msg/CameraInfo".
        log_ns: When it was recorded, nanoseconds.
        data: An object with the message's fields; arrays are NumPy's, read-only views.
    """

    topic: str
    msgtype: str
    log_ns: int
    data: Any

    @property
    def stamp_ns(self) -> int:
        """Header stamp in nanoseconds; the recording time where there is no header."""
        return header_stamp_ns(self.data) if hasattr(self.data, "header") else self.log_ns


@dataclass(frozen=True)
class _Topic:
    """A topic with messages; ``pixels`` is its first image's encoding or format."""

    name: str
    msgtype: str
    count: int
    pixels: str = ""

    def __str__(self) -> str:
        counted = f"{self.count} message{'s' * (self.count != 1)}"
        words = [self.msgtype, *([self.pixels] if self.pixels else []), counted]
        return f"{self.name} ({', '.join(words)})"

    @property
    def kind(self) -> str:
        """What its images show, by encoding and, for depth, by name."""
        kind = pixel_kind(self.pixels)
        return "depth" if kind != "colour" and "depth" in self.name.lower() else kind


class RosbagSource(Source):
    """The images of one topic and the texts of another, in the order in which they were logged.

    Frames have their header's stamp, commands the time at which they were recorded. A damaged
    recording is read up to the damage.

    Args:
        path: A rosbag2 folder, or one of its .mcap or .db3 files. A folder without metadata.yaml
            is read from its storage files.
        image_topic: Topic of Image or CompressedImage messages. None takes the only camera, not
            counting depth images, grey images where there are colour ones, and compressed topics
            whose raw topic is in the bag.
        action_topic: Topic of std_msgs/String messages. None takes the one whose name ends in
            "action", if there is exactly one.

    Raises:
        RecordingError: The recording cannot be opened, the topics are not in it, or the choice is
            ambiguous; the message lists the topics.
    """

    def __init__(
        self, path: Path, image_topic: str | None = None, action_topic: str | None = None
    ) -> None:
        super().__init__(path)
        self._storage = Storage(path)
        with ExitStack() as stack, self._storage.readable():
            stack.callback(self._storage.close)
            self._topics = self._find_topics()
            image = self._choose_image(self._topics, image_topic)
            action = self._choose_action(self._topics, action_topic)
            self._open_files = stack.pop_all()
        self.image_topic = image.name
        self.action_topic = action.name if action else None
        self.frame_count = image.count
        begin_ns, end_ns = self._storage.span_ns
        self.duration_s = (end_ns - begin_ns) / 1e9

    def topics_of(self, msgtype: str) -> list[str]:
        """Topics with messages of a type, in order of their names."""
        return [topic.name for topic in self._topics if topic.msgtype == msgtype]

    def iter_messages(
        self, topics: Collection[str], log_ns: range | None = None
    ) -> Iterator[Message]:
        """Messages of any topics, in the order in which they were logged.

        Those that cannot be deserialised are left out and counted in ``skipped``.

        Args:
            topics: Names of topics.
            log_ns: Range of log times in nanoseconds; all where None.

        Raises:
            RecordingError: A topic is not in the recording.
        """
        there = {connection.topic for connection in self._storage.connections()}
        if missing := sorted(set(topics) - there):
            raise RecordingError(f"{self.path}: no topic {', '.join(missing)} in it")
        raw_messages = self._storage.raw_messages(topics, log_ns)
        for connection, recorded_ns, raw in self._until_broken(raw_messages):
            try:
                data = self._storage.deserialize(connection, raw)
            except UNREADABLE as error:
                self._skip(error, f"{connection.msgtype} that cannot be deserialised")
                continue
            yield Message(connection.topic, connection.msgtype, recorded_ns, data)

    def _events(self) -> Iterator[Frame | Command]:
        topics = [topic for topic in (self.image_topic, self.action_topic) if topic]
        for message in self.iter_messages(topics):
            if message.topic == self.action_topic and message.msgtype == _STRING:
                yield Command(message.data.data, message.log_ns)
            elif frame := self.frame(message):
                yield frame

    def frame(self, message: Message) -> Frame | None:
        """The image in a message of the image topic.

        What is no image, which a topic of several types may have, or cannot be converted is
        counted in ``skipped``.
        """
        if message.topic != self.image_topic or message.msgtype not in _FRAMES:
            found = f"{message.msgtype} on {message.topic}, where another type is read"
            self._skip(RecordingError(found))
            return None
        try:
            return _FRAMES[message.msgtype](message.data)
        except VideoGemError as error:
            self._skip(error)
            return None

    def _until_broken(self, messages: Iterator[_T]) -> Iterator[_T]:
        try:
            yield from messages
        except Exception as error:  # whatever a damaged file makes the storage readers raise
            self._skip(RecordingError(f"{BREAKS_OFF}: {said(error)}"))

    def _find_topics(self) -> list[_Topic]:
        counts: dict[tuple[str, str], int] = {}
        for connection in self._storage.connections():
            key = connection.topic, connection.msgtype
            counts[key] = counts.get(key, 0) + connection.msgcount
        return [
            _Topic(name, msgtype, count, self._pixels(name, msgtype) if msgtype in _FRAMES else "")
            for (name, msgtype), count in sorted(counts.items())
            if count
        ]

    def _pixels(self, topic: str, msgtype: str) -> str:
        """Encoding or format of a topic's first image of a type."""
        for connection, _, raw in self._storage.raw_messages([topic]):
            if connection.msgtype != msgtype:
                continue
            with suppress(*UNREADABLE):
                image = self._storage.deserialize(connection, raw)
                return str(image.encoding if connection.msgtype == _IMAGE else image.format)
        return ""

    def _choose_image(self, topics: list[_Topic], name: str | None) -> _Topic:
        images = [topic for topic in topics if topic.msgtype in _FRAMES]
        if name is not None:
            return self._named(name, topics, images)
        raw = [topic.name for topic in images if topic.msgtype == _IMAGE]
        for kinds in (("colour", "unknown"), ("grey",)):
            cameras = [
                topic
                for topic in images
                if topic.kind in kinds
                and not (topic.msgtype == _COMPRESSED and topic.name.rpartition("/")[0] in raw)
            ]
            if len(cameras) == 1:
                return cameras[0]
            if cameras:
                break
        problem = "several cameras" if cameras else "no colour or grey images"
        raise RecordingError(
            f"{self.path}: {problem} in it; name one with --image-topic: {_listed(images)}"
            if images
            else f"{self.path}: no images in it; its topics: {_listed(topics)}"
        )

    def _choose_action(self, topics: list[_Topic], name: str | None) -> _Topic | None:
        texts = [topic for topic in topics if topic.msgtype == _STRING]
        if name is not None:
            return self._named(name, topics, texts)
        actions = [topic for topic in texts if topic.name.lower().endswith("action")]
        if len(actions) > 1:
            _logger.warning(
                "%s: several action topics, none is used; name one with --action-topic: %s",
                self.path,
                _listed(actions),
            )
        return actions[0] if len(actions) == 1 else None

    def _named(self, name: str, topics: list[_Topic], suitable: list[_Topic]) -> _Topic:
        name = f"/{name.lstrip('/')}"
        for topic in suitable:
            if topic.name == name:
                return topic
        other = next((topic for topic in topics if topic.name == name), None)
        problem = f"{other} does not suit" if other else f"no messages on {name}"
        raise RecordingError(f"{self.path}: {problem}; choose from: {_listed(suitable)}")


def _listed(topics: list[_Topic]) -> str:
    return ", ".join(map(str, topics)) or "none"

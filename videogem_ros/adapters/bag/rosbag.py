"""rosbag2 recordings, through rosbags: no ROS needed."""

from __future__ import annotations

import heapq
import logging
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore

from videogem_ros.adapters.bag.source import Command, Source
from videogem_ros.adapters.encodings import (
    frame_from_compressed,
    frame_from_message,
    header_stamp_ns,
    pixel_kind,
)
from videogem_ros.datatypes import Frame
from videogem_ros.errors import RecordingError, VideoGemError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_logger = logging.getLogger(__name__)

STORAGES = (".mcap", ".db3")
"""Ends of the names of rosbag2 storage files."""

_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_FRAMES = {_IMAGE: frame_from_message, _COMPRESSED: frame_from_compressed}
_STRING = "std_msgs/msg/String"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_UNREADABLE = (SerdeError, TypesysError, zstd.ZstdError)
"""What one bad message raises; the next may be good."""

_T = TypeVar("_T")


def is_rosbag(path: Path) -> bool:
    """Whether a path is a rosbag2 folder (even without metadata) or storage file."""
    if path.is_dir():
        return (path / "metadata.yaml").exists() or bool(_storage_files(path))
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
        """What its images show; where the encoding does not tell, the name does."""
        kind = pixel_kind(self.pixels)
        return "depth" if kind != "colour" and "depth" in self.name.lower() else kind


class RosbagSource(Source):
    """The images of one topic and the texts of another, in the order in which they were logged.

    Frames bear their header's stamp, commands the time at which they were recorded. A recording
    that breaks off is read up to there.

    Args:
        path: A rosbag2 folder, or one of its .mcap or .db3 files. A folder without metadata.yaml
            is read from its storage files.
        image_topic: Topic of Image or CompressedImage messages. None takes the one camera there
            is: depth images do not count, nor grey ones beside colour, nor a compressed topic
            beside the raw one it belongs to.
        action_topic: Topic of std_msgs/String messages. None takes the one whose name ends in
            "action", if there is exactly one.

    Raises:
        RecordingError: The recording cannot be opened, the topics are not in it, or several could
            be meant; the message lists them.
    """

    def __init__(
        self, path: Path, image_topic: str | None = None, action_topic: str | None = None
    ) -> None:
        super().__init__(path)
        self._typestore = get_typestore(Stores.ROS2_JAZZY)
        with ExitStack() as stack, self._readable():
            self._readers = [stack.enter_context(Reader(file)) for file in _openable(path)]
            topics = self._topics()
            image = self._choose_image(topics, image_topic)
            action = self._choose_action(topics, action_topic)
            self._open_files = stack.pop_all()
        self.image_topic = image.name
        self.action_topic = action.name if action else None
        self.frame_count = image.count
        filled = [reader for reader in self._readers if reader.message_count]
        begin_ns = min(reader.start_time for reader in filled)
        self.duration_s = (max(reader.end_time for reader in filled) - begin_ns) / 1e9

    def iter_messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Messages of any topics, in the order in which they were logged.

        Those that cannot be deserialised are left out and counted in ``skipped``.

        Args:
            topics: Names of topics.

        Raises:
            RecordingError: A topic is not in the recording.
        """
        there = {connection.topic for connection in self._connections()}
        if missing := sorted(set(topics) - there):
            raise RecordingError(f"{self.path}: no topic {', '.join(missing)} in it")
        for connection, log_ns, raw in self._until_broken(self._raw_messages(topics)):
            try:
                data = self._deserialize(connection, raw)
            except _UNREADABLE as error:
                self._skip(error, f"{connection.msgtype} that cannot be deserialised")
                continue
            yield Message(connection.topic, connection.msgtype, log_ns, data)

    def _events(self) -> Iterator[Frame | Command]:
        topics = [topic for topic in (self.image_topic, self.action_topic) if topic]
        for message in self.iter_messages(topics):
            if message.topic == self.action_topic:
                yield Command(message.data.data, message.log_ns)
                continue
            try:
                frame = _FRAMES[message.msgtype](message.data)
            except VideoGemError as error:
                self._skip(error)
                continue
            yield frame

    def _connections(self) -> Iterator[Connection]:
        for reader in self._readers:
            yield from reader.connections

    def _raw_messages(self, topics: Collection[str]) -> Iterator[tuple[Connection, int, bytes]]:
        """Serialised messages with their log time in nanoseconds."""
        streams = []
        for reader in self._readers:
            # No connections would mean all of them.
            if connections := [c for c in reader.connections if c.topic in topics]:
                streams.append(reader.messages(connections))
        return heapq.merge(*streams, key=itemgetter(1))

    def _until_broken(self, messages: Iterator[_T]) -> Iterator[_T]:
        try:
            yield from messages
        except Exception as error:  # whatever a damaged file makes the storage readers raise
            self._skip(RecordingError(f"the recording breaks off: {_said(error)}"))

    def _deserialize(self, connection: Connection, raw: bytes) -> Any:
        """A message's object; its fields view ``raw``."""
        if raw.startswith(_ZSTD_MAGIC):  # a storage file alone does not tell; CDR starts with 0
            raw = zstd.decompress(raw)
        if connection.msgtype not in self._typestore.types:
            self._learn(connection)
        return self._typestore.deserialize_cdr(memoryview(raw), connection.msgtype)

    def _learn(self, connection: Connection) -> None:
        """Takes a type that is not ROS's own from the definition in the recording."""
        definition, known = connection.msgdef, self._typestore.types
        if definition.format != MessageDefinitionFormat.MSG:
            raise SerdeError(f"no definition of {connection.msgtype} in the recording")
        types = get_types_from_msg(definition.data, connection.msgtype)
        self._typestore.register({name: t for name, t in types.items() if name not in known})

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Makes one error of all that storage readers raise at a damaged or foreign file."""
        try:
            yield
        except VideoGemError:
            raise
        except Exception as error:
            raise RecordingError(
                f"{self.path}: cannot be read as a rosbag2 ({_said(error)}); if its recorder was "
                "killed, `ros2 bag reindex` or `mcap recover` may repair it"
            ) from error

    def _topics(self) -> list[_Topic]:
        counts: dict[tuple[str, str], int] = {}
        for connection in self._connections():
            key = connection.topic, connection.msgtype
            counts[key] = counts.get(key, 0) + connection.msgcount
        return [
            _Topic(name, msgtype, count, self._pixels(name) if msgtype in _FRAMES else "")
            for (name, msgtype), count in sorted(counts.items())
            if count
        ]

    def _pixels(self, topic: str) -> str:
        """Encoding or format of a topic's first image."""
        for connection, _, raw in self._raw_messages([topic]):
            with suppress(*_UNREADABLE):
                image = self._deserialize(connection, raw)
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


def _storage_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in STORAGES)


def _openable(path: Path) -> list[Path]:
    """What to hand to rosbags: the path, or the storage files of a folder without metadata."""
    if path.is_dir() and not (path / "metadata.yaml").exists():
        return _storage_files(path)
    return [path]


def _listed(topics: list[_Topic]) -> str:
    return ", ".join(map(str, topics)) or "none"


def _said(error: Exception) -> str:
    """An exception's message in one line; some come without."""
    return " ".join(str(error).split()) or type(error).__name__

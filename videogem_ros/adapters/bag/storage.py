"""Storage of rosbag2 recordings: serialized messages and their types, through rosbags."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore

from videogem_ros.adapters.bag.vision import typestore as labels_typestore
from videogem_ros.errors import RecordingError, VideoGemError, said
from videogem_ros.live.types import typestore as groundings_typestore

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

STORAGES = (".mcap", ".db3")
"""Suffixes of rosbag2 storage files."""

UNREADABLE = (SerdeError, TypesysError, zstd.ZstdError)
"""Exceptions that a single bad message raises; the next one may be good."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Storage:
    """The serialized messages of an open recording.

    Args:
        path: A rosbag2 folder, or one of its .mcap or .db3 files. A folder without metadata.yaml
            is read from its storage files.

    Attributes:
        path: The recording.
        typestore: Message types: ROS's own, and those that :meth:`learn` has added.

    Raises:
        RecordingError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.typestore = get_typestore(Stores.ROS2_JAZZY)
        with ExitStack() as stack, self.readable():
            self._readers = [stack.enter_context(Reader(file)) for file in _openable(path)]
            self._open_files = stack.pop_all()

    def close(self) -> None:
        """Closes the recording's files."""
        self._open_files.close()

    @property
    def span_ns(self) -> tuple[int, int]:
        """Log times of the first and the last message, nanoseconds; there must be a message."""
        filled = [reader for reader in self._readers if reader.message_count]
        begin_ns = min(reader.start_time for reader in filled)
        return begin_ns, max(reader.end_time for reader in filled)

    def connections(self) -> Iterator[Connection]:
        """Connections of topics and types; a topic may have several."""
        for reader in self._readers:
            yield from reader.connections

    def raw_messages(
        self, topics: Collection[str], log_ns: range | None = None
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Serialized messages with their log time in nanoseconds, ordered by it.

        Args:
            topics: Names of the topics.
            log_ns: Range of log times in nanoseconds; all where None.
        """
        start, stop = (log_ns.start, log_ns.stop) if log_ns is not None else (None, None)
        streams = []
        for reader in self._readers:
            # To rosbags, an empty list of connections means all.
            if connections := [c for c in reader.connections if c.topic in topics]:
                streams.append(reader.messages(connections, start, stop))
        return heapq.merge(*streams, key=itemgetter(1))

    def deserialize(self, connection: Connection, raw: bytes) -> Any:
        """A message's object; its fields view ``raw``."""
        if connection.msgtype not in self.typestore.types:
            self.learn(connection)
        return self.typestore.deserialize_cdr(memoryview(unpacked(raw)), connection.msgtype)

    def learn(self, connection: Connection) -> None:
        """Adds a type that is not ROS's own from its definition in the recording.

        Where there is none, as in the sqlite3 storage of Humble, the package's own definitions of
        labels and groundings are used.

        Raises:
            SerdeError: The recording has no definition of any other type.
        """
        definition, known = connection.msgdef, self.typestore.types
        if definition.format == MessageDefinitionFormat.MSG:
            types = get_types_from_msg(definition.data, connection.msgtype)
        else:
            types = {**labels_typestore().fielddefs, **groundings_typestore().fielddefs}
            if connection.msgtype not in types:
                raise SerdeError(f"no definition of {connection.msgtype} in the recording")
        self.typestore.register({name: t for name, t in types.items() if name not in known})

    @contextmanager
    def readable(self) -> Iterator[None]:
        """A context that turns what storage readers raise at bad files into RecordingError."""
        try:
            yield
        except VideoGemError:
            raise
        except Exception as error:
            raise RecordingError(
                f"{self.path}: cannot be read as a rosbag2 ({said(error)}); if its recorder was "
                "killed, `ros2 bag reindex` or `mcap recover` may repair it"
            ) from error


def unpacked(raw: bytes) -> bytes:
    """A serialized message, decompressed if it is zstd data; a lone file does not say whether."""
    return zstd.decompress(raw) if raw.startswith(_ZSTD_MAGIC) else raw  # CDR starts with 0


def storage_files(folder: Path) -> list[Path]:
    """The storage files in a folder, in order of their names."""
    return sorted(file for file in folder.iterdir() if file.suffix in STORAGES)


def _openable(path: Path) -> list[Path]:
    """What to hand to rosbags: the path, or the storage files of a folder without metadata."""
    if path.is_dir() and not (path / "metadata.yaml").exists():
        return storage_files(path)
    return [path]

"""``videogem-ros play``: a recording on live topics."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from videogem_ros.cli.graph import graph_options, joined, logger, require_cyclone
from videogem_ros.cli.numbers import LONGEST_S, FiniteRange
from videogem_ros.cli.signals import interruptible
from videogem_ros.errors import RecordingError

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, Qos
    from rosbags.typesys.store import Typestore

    from videogem_ros.adapters.bag.storage import Storage
    from videogem_ros.adapters.dds.participant import Participant, Publisher
    from videogem_ros.adapters.dds.qos import QosProfile

LINGER_S = 0.5
"""How long to stay at the end, as messages of reliable topics may have to be sent again."""

CLOCK_PERIOD_S = 0.01

_HEADER = "std_msgs/msg/Header"


@click.command(short_help="Publish a recording on live topics.")
@click.argument("recording", metavar="BAG", type=click.Path(path_type=Path))
@click.option(
    "--rate",
    type=FiniteRange(0.001, 1000),
    default=1.0,
    show_default=True,
    metavar="FACTOR",
    help="Speed relative to the recording's.",
)
@click.option("--loop", is_flag=True, help="Start over at the end.")
@click.option(
    "--start-delay",
    type=FiniteRange(0, LONGEST_S),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds to wait first, so that subscribers can find the topics.",
)
@click.option(
    "--wait-for",
    "awaited",
    multiple=True,
    metavar="TOPIC",
    help="Start only when this topic of the recording has a subscriber.",
)
@click.option(
    "--topics", multiple=True, metavar="TOPIC", help="Publish only this topic; repeatable."
)
@click.option(
    "--clock", is_flag=True, help="Publish the recording's time on /clock, for use_sim_time."
)
@click.option(
    "--restamp", is_flag=True, help="Move header stamps to the present, as from a live camera."
)
@graph_options
def play(
    recording: Path,
    *,
    rate: float,
    loop: bool,
    start_delay: float,
    awaited: tuple[str, ...],
    topics: tuple[str, ...],
    clock: bool,
    restamp: bool,
    **graph: Any,
) -> None:
    """Publish all topics of a rosbag2 in real time, with the QoS they were recorded with.

    Messages keep their header stamps unless --restamp is given. It moves all stamps that are set,
    of a message and of its parts, such as the transforms on /tf. Ctrl-C ends it.
    """
    require_cyclone()
    from videogem_ros.adapters.bag.rosbag import is_rosbag
    from videogem_ros.adapters.bag.storage import Storage

    if not is_rosbag(recording):
        raise RecordingError(f"{recording}: not a rosbag2")
    log = logger("videogem_play")
    storage = click.get_current_context().with_resource(closing(Storage(recording)))
    chosen = list(_known(storage, _chosen(storage, topics), log))
    if not chosen:
        raise RecordingError(f"{recording}: no topic in it can be played")
    with interruptible() as signals, joined("videogem_play", storage.typestore, graph) as player:
        publishers = _advertise(player, chosen)
        for topic in awaited:
            if topic not in publishers:
                raise RecordingError(f"{recording}: no topic {topic} in it to wait for")
        tell_time = _clock(player) if clock else None
        begin_s = time.monotonic()
        while not signals and (
            time.monotonic() - begin_s < start_delay
            or not all(publishers[topic].subscribers for topic in awaited)
        ):
            player.spin(0.05)
        played = _Played(storage, publishers, rate, tell_time, restamp=restamp)
        while not signals:
            played.once(player, lambda: bool(signals))
            if not loop:
                break
        player.spin(LINGER_S)
    log("info", f"{played.sent} messages of {len(publishers)} topics")
    if played.dropped:
        log("warn", f"{played.dropped} dropped: a reliable subscriber did not keep up")
    for topic, reason in played.not_moved.items():
        log("warn", f"{topic}: recorded stamps are kept, since {reason}")


def _chosen(storage: Storage, topics: Collection[str]) -> list[Connection]:
    connections = [item for item in storage.connections() if item.msgcount]
    there = {connection.topic for connection in connections}
    if missing := sorted(set(topics) - there):
        raise RecordingError(
            f"{storage.path}: no messages on {', '.join(missing)}; topics: "
            f"{', '.join(sorted(there))}"
        )
    return [item for item in connections if not topics or item.topic in topics]


def _known(
    storage: Storage, connections: Collection[Connection], log: Callable[[str, str], None]
) -> Iterator[Connection]:
    """Connections whose type is known; the others are logged."""
    for connection in connections:
        try:
            if connection.msgtype not in storage.typestore.types:
                with storage.readable():
                    storage.learn(connection)
        except RecordingError as error:
            log("warn", f"{connection.topic} is left out: {error.__cause__}")
        else:
            yield connection


def _messages(
    storage: Storage, topics: Collection[str]
) -> Iterator[tuple[Connection, int, bytes]]:
    """Connection, log time in nanoseconds and CDR of every message, in order of time.

    Raises:
        RecordingError: The recording breaks off.
    """
    from videogem_ros.adapters.bag.storage import unpacked

    with storage.readable():
        for connection, log_ns, raw in storage.raw_messages(topics):
            yield connection, log_ns, unpacked(raw)


def _advertise(player: Participant, connections: Collection[Connection]) -> dict[str, Publisher]:
    publishers: dict[str, Publisher] = {}
    for connection in connections:
        if connection.topic not in publishers:
            qos = _offered(getattr(connection.ext, "offered_qos_profiles", ()))
            publishers[connection.topic] = player.advertise(
                connection.topic, connection.msgtype, qos
            )
    return publishers


def _offered(profiles: Collection[Qos]) -> QosProfile:
    """The strongest QoS that a topic was recorded with, which all its subscribers match."""
    from rosbags.interfaces import QosDurability, QosReliability

    from videogem_ros.adapters.dds.qos import QosProfile

    return QosProfile(
        reliable=any(item.reliability != QosReliability.BEST_EFFORT for item in profiles)
        or not profiles,
        transient_local=any(item.durability == QosDurability.TRANSIENT_LOCAL for item in profiles),
    )


def _clock(player: Participant) -> Callable[[int], None]:
    from videogem_ros.adapters.dds.qos import QosProfile
    from videogem_ros.live.types import typestore

    kinds = typestore().types
    publisher = player.advertise("/clock", "rosgraph_msgs/msg/Clock", QosProfile(depth=1))

    def tell(now_ns: int) -> None:
        stamp = kinds["builtin_interfaces/msg/Time"](*divmod(now_ns, 10**9))
        publisher.publish(kinds["rosgraph_msgs/msg/Clock"](stamp))

    return tell


class _Played:
    """Publishes a recording's messages when they are due.

    Attributes:
        sent: Number of messages published.
        dropped: Number of messages dropped because a subscriber did not keep up.
        not_moved: By topic, why stamps of some messages could not be moved.
    """

    def __init__(
        self,
        storage: Storage,
        publishers: Mapping[str, Publisher],
        rate: float,
        tell_time: Callable[[int], None] | None,
        *,
        restamp: bool,
    ) -> None:
        self.sent = self.dropped = 0
        self.not_moved: dict[str, str] = {}
        self._storage = storage
        self._publishers = publishers
        self._rate = rate
        self._tell_time = tell_time
        self._told_s = -math.inf
        self._movers = {
            topic: _mover(storage.typestore, publisher.msgtype)
            for topic, publisher in publishers.items()
            if restamp
        }

    def once(self, player: Participant, ended: Callable[[], bool]) -> None:
        """Publishes the recording once, or until it is ended."""
        begin_s, begin_ns, first_ns = time.monotonic(), time.time_ns(), None
        self._told_s = -math.inf  # a clock that starts over is told before anything else
        for connection, log_ns, raw in _messages(self._storage, self._publishers):
            first_ns = log_ns if first_ns is None else first_ns
            due_ns = round((log_ns - first_ns) / self._rate)
            while (left_s := begin_s + due_ns / 1e9 - time.monotonic()) > 0 and not ended():
                player.spin(min(left_s, CLOCK_PERIOD_S))
                self._tell(min(log_ns, first_ns + self._elapsed_ns(begin_s)))
            if ended():
                return
            if time.monotonic() - self._told_s >= CLOCK_PERIOD_S:  # also where there is no wait
                self._tell(min(log_ns, first_ns + self._elapsed_ns(begin_s)))
            # By the time it is due, not the time it is sent, so that equal stamps stay equal.
            cdr = self._moved(connection.topic, raw, begin_ns + due_ns - log_ns)
            self._send(connection.topic, cdr)

    def _tell(self, now_ns: int) -> None:
        if self._tell_time:
            self._tell_time(now_ns)
            self._told_s = time.monotonic()

    def _moved(self, topic: str, cdr: bytes, by_ns: int) -> bytes:
        """A message whose stamps are moved, where the topic's are to be."""
        from rosbags.serde import SerdeError

        mover = self._movers.get(topic)
        if mover is None:
            return cdr
        try:
            return mover(cdr, by_ns)
        except (SerdeError, struct.error) as error:
            self.not_moved.setdefault(topic, f"a message cannot be read: {error}")
            return cdr

    def _elapsed_ns(self, begin_s: float) -> int:
        return round((time.monotonic() - begin_s) * self._rate * 1e9)

    def _send(self, topic: str, cdr: bytes) -> None:
        from videogem_ros.adapters.dds.participant import DdsError

        try:
            self._publishers[topic].write(cdr)
            self.sent += 1
        except DdsError:
            self.dropped += 1


def _mover(store: Typestore, msgtype: str) -> Callable[[bytes, int], bytes] | None:
    """A function that moves stamps of a type by nanoseconds; None where it has no header."""
    from rosbags.interfaces import Nodetype

    headers = list(_headers(store, msgtype))
    if not headers:
        return None
    _, fields = store.fielddefs[msgtype]
    if len(headers) == 1 and fields[0][1] == (Nodetype.NAME, _HEADER):
        return _moved_at_begin  # an image need not be read for it
    return partial(_moved_within, store, msgtype, headers)


def _headers(store: Typestore, msgtype: str) -> Iterator[tuple[str, ...]]:
    """Paths of fields from a message to its headers, also through arrays of messages."""
    from rosbags.interfaces import Nodetype

    description: Any
    for name, description in store.fielddefs[msgtype][1]:
        kind, detail = description
        if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
            kind, detail = detail[0]
        if kind == Nodetype.NAME and detail == _HEADER:
            yield (name,)
        elif kind == Nodetype.NAME:
            yield from ((name, *below) for below in _headers(store, detail))


def _moved_at_begin(cdr: bytes, by_ns: int) -> bytes:
    """A message that begins with its only header, whose stamp is moved by nanoseconds."""
    stamp = struct.Struct("<iI" if cdr[1] & 1 else ">iI")
    sec, nanosec = stamp.unpack_from(cdr, 4)
    return cdr[:4] + stamp.pack(*_later(sec, nanosec, by_ns)) + cdr[4 + stamp.size :]


def _moved_within(
    store: Typestore, msgtype: str, headers: list[tuple[str, ...]], cdr: bytes, by_ns: int
) -> bytes:
    """A message whose headers' stamps are all moved by nanoseconds."""
    message = store.deserialize_cdr(cdr, msgtype)
    for path in headers:
        for header in _reached(message, path):
            stamp = header.stamp
            stamp.sec, stamp.nanosec = _later(stamp.sec, stamp.nanosec, by_ns)
    return bytes(store.serialize_cdr(message, msgtype, little_endian=bool(cdr[1] & 1)))


def _reached(part: Any, path: tuple[str, ...]) -> Iterator[Any]:
    """All parts of a message that a path of fields leads to, through arrays."""
    if isinstance(part, list):
        for each in part:
            yield from _reached(each, path)
    elif path:
        yield from _reached(getattr(part, path[0]), path[1:])
    else:
        yield part


def _later(sec: int, nanosec: int, by_ns: int) -> tuple[int, int]:
    """A stamp moved; one that was never set stays so."""
    if not (sec or nanosec):
        return 0, 0
    return divmod(sec * 10**9 + nanosec + by_ns, 10**9)

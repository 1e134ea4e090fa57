"""``videogem-ros play``: a recording on live topics."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from videogem_ros.cli.graph import graph_options, joined, logger, require_cyclone
from videogem_ros.cli.signals import interruptible
from videogem_ros.errors import RecordingError

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, Qos

    from videogem_ros.adapters.bag.storage import Storage
    from videogem_ros.adapters.dds.participant import Participant, Publisher
    from videogem_ros.adapters.dds.qos import QosProfile

LINGER_S = 0.5
"""The last messages of reliable topics may have to be sent again."""

CLOCK_PERIOD_S = 0.01


@click.command(short_help="Publish a recording on live topics.")
@click.argument("recording", metavar="BAG", type=click.Path(path_type=Path))
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Speed, 1 for that of the recording.",
)
@click.option("--loop", is_flag=True, help="Start over at the end.")
@click.option(
    "--start-delay",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds in which subscribers can find the topics.",
)
@click.option(
    "--wait-for",
    "awaited",
    multiple=True,
    metavar="TOPIC",
    help="Start only when this topic of the recording has a subscriber.",
)
@click.option(
    "--topics", multiple=True, metavar="TOPIC", help="Only this topic; several times for several."
)
@click.option(
    "--clock", is_flag=True, help="Publish the recording's time on /clock, for use_sim_time."
)
@click.option(
    "--restamp", is_flag=True, help="Move header stamps to the present, as of a live camera."
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

    Messages keep their header stamps, but for --restamp. Ctrl-C ends it.
    """
    require_cyclone()
    from videogem_ros.adapters.bag.rosbag import is_rosbag
    from videogem_ros.adapters.bag.storage import Storage

    if not is_rosbag(recording):
        raise RecordingError(f"{recording}: no rosbag2")
    storage = Storage(recording)
    chosen = _chosen(storage, topics)
    for connection in chosen:
        if connection.msgtype not in storage.typestore.types:
            storage.learn(connection)
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
    log = logger("videogem_play")
    log("info", f"{played.sent} messages of {len(publishers)} topics")
    if played.dropped:
        log("warn", f"{played.dropped} dropped: a reliable subscriber did not keep up")


def _chosen(storage: Storage, topics: Collection[str]) -> list[Connection]:
    connections = [item for item in storage.connections() if item.msgcount]
    there = {connection.topic for connection in connections}
    if missing := sorted(set(topics) - there):
        raise RecordingError(
            f"{storage.path}: no messages on {', '.join(missing)}; topics: "
            f"{', '.join(sorted(there))}"
        )
    return [item for item in connections if not topics or item.topic in topics]


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
    """The strongest of the QoS that a topic was recorded with, which suits all its subscribers."""
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
        sent: Messages published.
        dropped: Messages that a subscriber had no room for.
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
        self._storage = storage
        self._publishers = publishers
        self._rate = rate
        self._tell_time = tell_time
        self._restamped = {
            topic
            for topic, publisher in publishers.items()
            if restamp and _begins_with_header(storage, publisher.msgtype)
        }

    def once(self, player: Participant, ended: Callable[[], bool]) -> None:
        """Publishes the recording once, or until it is ended."""
        from videogem_ros.adapters.bag.storage import unpacked

        begin_s, begin_ns, first_ns = time.monotonic(), time.time_ns(), None
        for connection, log_ns, raw in self._storage.raw_messages(self._publishers):
            first_ns = log_ns if first_ns is None else first_ns
            due_ns = round((log_ns - first_ns) / self._rate)
            while (left_s := begin_s + due_ns / 1e9 - time.monotonic()) > 0 and not ended():
                player.spin(min(left_s, CLOCK_PERIOD_S))
                if self._tell_time:
                    self._tell_time(min(log_ns, first_ns + self._elapsed_ns(begin_s)))
            if ended():
                return
            cdr = unpacked(raw)
            if connection.topic in self._restamped:
                # When it is due, not when it goes out: what had one stamp still has one.
                cdr = _moved(cdr, begin_ns + due_ns - log_ns)
            self._send(connection.topic, cdr)

    def _elapsed_ns(self, begin_s: float) -> int:
        return round((time.monotonic() - begin_s) * self._rate * 1e9)

    def _send(self, topic: str, cdr: bytes) -> None:
        from videogem_ros.adapters.dds.participant import DdsError

        try:
            self._publishers[topic].write(cdr)
            self.sent += 1
        except DdsError:
            self.dropped += 1


def _begins_with_header(storage: Storage, msgtype: str) -> bool:
    from rosbags.interfaces import Nodetype

    _, fields = storage.typestore.fielddefs[msgtype]
    return any(field == (Nodetype.NAME, "std_msgs/msg/Header") for _, field in fields[:1])


def _moved(cdr: bytes, by_ns: int) -> bytes:
    """A message that begins with a header, whose stamp is moved by nanoseconds."""
    stamp = struct.Struct("<iI" if cdr[1] & 1 else ">iI")
    sec, nanosec = stamp.unpack_from(cdr, 4)
    moved_ns = sec * 10**9 + nanosec + by_ns
    return cdr[:4] + stamp.pack(*divmod(moved_ns, 10**9)) + cdr[4 + stamp.size :]

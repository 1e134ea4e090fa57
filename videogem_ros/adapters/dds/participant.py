"""A node on the DDS graph, as ROS 2 peers see one: publishers, subscriptions, discovery.

Nothing here is called from Cyclone's threads: they must not wait for the GIL while an application
thread that holds it waits for them. :meth:`Participant.spin` polls instead.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import re
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
from cyclonedds.builtin_types import DcpsEndpoint
from cyclonedds.core import DDSException, DDSStatus, Entity, InstanceState, Policy, Qos, WaitSet
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.internal import DDS, InvalidSample
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from videogem_ros.adapters.dds.configuration import configuration, domain_id
from videogem_ros.adapters.dds.names import Names
from videogem_ros.adapters.dds.qos import GRAPH, LATCHED, POLICIES, QosProfile
from videogem_ros.adapters.dds.wire import MessageError, Wire, dds_topic, ros_topic, ros_type
from videogem_ros.errors import VideoGemError

GID_BYTES = 16
"""Bytes of an endpoint's identifier on the graph since ROS 2 Iron."""
HUMBLE_GID_BYTES = 24

MAX_WAIT_S = 0.1
"""Longest time that the newest message may wait for older ones, on topics that may skip some."""

_MOST_AT_ONCE = 100  # messages taken at a time from a topic that keeps all
_REMEMBERED_MESSAGES, _REMEMBERED_WRITERS = 256, 256  # messages of each writer, and writers
_GRAPH_TOPIC = "ros_discovery_info"
_GRAPH_TYPE = "rmw_dds_common/msg/ParticipantEntitiesInfo"
_GRAPH_TYPES = {
    "rmw_dds_common/msg/Gid": "uint8[{gid_bytes}] data",
    "rmw_dds_common/msg/NodeEntitiesInfo": (
        "string<=256 node_namespace\nstring<=256 node_name\n"
        "Gid[] reader_gid_seq\nGid[] writer_gid_seq"
    ),
    _GRAPH_TYPE: "Gid gid\nNodeEntitiesInfo[] node_entities_info_seq",
}
_MAX_LOG_BYTES = 2**20
_UNDECODABLE = re.compile(r"deserialization (\S+)/[\w:]+ failed \((.*)\)")

_dds_write = DDS._dll_handle.dds_write
_dds_write.argtypes, _dds_write.restype = (ctypes.c_int32, ctypes.c_void_p), ctypes.c_int32
_dds_delete = DDS._dll_handle.dds_delete  # the binding has no close()


class DdsError(VideoGemError):
    """A domain cannot be joined, an endpoint cannot be made, or a message cannot be written."""


class _Bytes(ctypes.Structure):
    """A serialized sample as Cyclone's Python layer takes it."""

    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t))


class Publisher:
    """Publishes messages of one type on one topic; safe for threads.

    Attributes:
        topic: Absolute name.
        msgtype: Type of the messages.
        writer: Cyclone's endpoint.
    """

    def __init__(self, topic: str, msgtype: str, writer: Any, wire: Wire) -> None:
        self.topic = topic
        self.msgtype = msgtype
        self.writer = writer
        self._wire = wire

    def publish(self, message: Any) -> None:
        """Publishes a message.

        Raises:
            MessageError: It cannot be serialized.
            DdsError: A reliable subscriber does not keep up, so the message is dropped.
        """
        self.write(self._wire.encode(message))

    def write(self, cdr: bytes) -> None:
        """Publishes a message in CDR, with its encapsulation header.

        Raises:
            DdsError: As for :meth:`publish`.
        """
        # The binding's own write holds the GIL while it waits for a subscriber.
        padded = cdr.ljust(-(-len(cdr) // 4) * 4, b"\0")
        sample = _Bytes(np.frombuffer(padded, np.uint8).ctypes.data, len(padded))
        code = _dds_write(self.writer._ref, ctypes.byref(sample))
        if code == DDSException.DDS_RETCODE_TIMEOUT:
            raise DdsError(f"{self.topic}: a reliable subscriber does not keep up")
        if code < 0:
            raise DdsError(f"{self.topic}: {DDSException(code).msg}")

    @property
    def subscribers(self) -> int:
        """Number of matched subscriptions now."""
        return int(self.writer.get_publication_matched_status().current_count)


class Subscription:
    """Hands a topic's messages to a callback, from within :meth:`Participant.spin`.

    Attributes:
        topic: Absolute name.
        msgtype: Type of the messages.
        callback: Takes a message.
        latched: Whether earlier messages of transient-local publishers are taken, too.
        readers: Cyclone's endpoints: a volatile one, and for a latched subscription perhaps a
            transient-local one.
        backlog: Messages that wait for their turn; None where all are handed over at once.
        pending: Whether there may be more to take even if nothing new arrives.
    """

    def __init__(
        self,
        topic: str,
        msgtype: str,
        callback: Callable[[Any], None],
        *,
        latched: bool,
        depth: int,
        backlog: Backlog | None,
    ) -> None:
        self.topic = topic
        self.msgtype = msgtype
        self.callback = callback
        self.latched = latched
        self.readers: list[Any] = []
        self.backlog = backlog
        self.pending = False
        self._depth = depth or _MOST_AT_ONCE
        # By writer, messages handed over: source stamp, and whether by the transient-local reader.
        self._given: dict[int, deque[tuple[int, bool]]] = {}

    def take(self) -> list[bytes]:
        """Serialized messages to hand over now: all that arrived, or one from the backlog."""
        arrived: list[bytes] = []
        self.pending = False
        for place, reader in enumerate(self.readers):
            samples = reader.take(self._depth)
            self.pending |= len(samples) == self._depth
            arrived += [
                sample.cdr
                for sample in samples
                if not isinstance(sample, InvalidSample)
                and self._is_new(sample.sample_info, kept=place > 0)
            ]
        if self.backlog is None:
            return arrived
        turn = self.backlog.turn(arrived)
        self.pending |= len(self.backlog) > 0
        return turn

    def _is_new(self, info: Any, *, kept: bool) -> bool:
        """Whether the other reader of this subscription has not delivered this message already.

        Args:
            info: The message's sample info.
            kept: Whether it comes from the transient-local reader, so that it may be older than
                the reader. Then it is not new if the other reader has delivered a later one.
        """
        if not self.latched:
            return True
        writer, stamp_ns = info.publication_handle, info.source_timestamp
        given = self._given.pop(writer, None) or deque(maxlen=_REMEMBERED_MESSAGES)
        self._given[writer] = given
        if len(self._given) > _REMEMBERED_WRITERS:
            del self._given[next(iter(self._given))]
        # A stamp that goes back is not enough: clocks are set back, too.
        if len(self.readers) > 1 and any(
            known_ns == stamp_ns or (kept and known_ns > stamp_ns and not known_kept)
            for known_ns, known_kept in given
        ):
            return False
        given.append((stamp_ns, kept))
        return True


class Backlog:
    """Messages for a slow callback, handed over one at a time.

    While the callback keeps up, none are skipped. Otherwise the oldest are, so that the newest
    does not wait for longer than :data:`MAX_WAIT_S`.

    Args:
        depth: Most messages that wait.
        on_skipped: Takes the number of skipped messages.
    """

    def __init__(self, depth: int, on_skipped: Callable[[int], None]) -> None:
        self._depth = depth
        self._on_skipped = on_skipped
        self._waiting: deque[bytes] = deque()
        self._took_s: deque[float] = deque(maxlen=3)

    def __len__(self) -> int:
        return len(self._waiting)

    def turn(self, arrived: list[bytes]) -> list[bytes]:
        """Adds messages that arrived, skips what is too much, and returns the next one, if any."""
        self._waiting += arrived
        excess = len(self._waiting) - self._most
        if excess > 0:
            for _ in range(excess):
                self._waiting.popleft()
            self._on_skipped(excess)
        return [self._waiting.popleft()] if self._waiting else []

    def took(self, duration_s: float) -> None:
        """Notes how long the callback took."""
        self._took_s.append(duration_s)

    @property
    def _most(self) -> int:
        """Most messages that may wait: the newest, and as many others as fit into MAX_WAIT_S."""
        if len(self._took_s) < 3:
            return self._depth
        usual_s = min(self._took_s)  # of three, so that a single slow call skips nothing
        return min(self._depth, 1 + int(MAX_WAIT_S / max(usual_s, 1e-6)))


class Participant:
    """A node in a DDS domain. A context manager that leaves the domain.

    Args:
        names: The node's name, namespace and remappings.
        typestore: Message definitions.
        interface: See :func:`~videogem_ros.adapters.dds.configuration.configuration`; the first
            participant of a domain in a process decides.
        gid_bytes: :data:`GID_BYTES`, or :data:`HUMBLE_GID_BYTES` among ROS 2 Humble peers.
        log: Takes level and text of messages for the user.
        on_qos_incompatible: Takes topic and policy when a peer offers or requests incompatible
            QoS.
        on_undecodable: Takes topic and reason when a message cannot be deserialized.

    Raises:
        DdsError: The domain cannot be joined.
        InvalidValueError: ``ROS_DOMAIN_ID`` is not a valid domain.
    """

    def __init__(
        self,
        names: Names,
        typestore: Typestore,
        *,
        interface: str | None = None,
        gid_bytes: int = GID_BYTES,
        log: Callable[[str, str], None] = lambda level, text: None,
        on_qos_incompatible: Callable[[str, str], None] = lambda topic, policy: None,
        on_undecodable: Callable[[str, str], None] = lambda topic, reason: None,
    ) -> None:
        self.names = names
        self._wire = Wire(typestore)
        self._log = log
        self._on_qos_incompatible = on_qos_incompatible
        self._on_undecodable = on_undecodable
        self._topics: dict[str, Topic[Any]] = {}
        self._publishers: list[Publisher] = []
        self._subscriptions: list[Subscription] = []
        self._offers: dict[Any, DcpsEndpoint] = {}
        with _readable("cannot join the DDS domain"):
            self._cyclone_log = _join(domain_id(), interface)
            enclave = Qos(Policy.Userdata(b"enclave=/;"))
            self._participant = DomainParticipant(domain_id(), enclave)
            self._waitset = WaitSet(self._participant)
            self._publications = BuiltinDataReader(self._participant, BuiltinTopicDcpsPublication)
            self._attach(self._publications, DDSStatus.DataAvailable)
        self._graph = _Graph(self._participant, names, gid_bytes)

    def __enter__(self) -> Participant:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the domain: all endpoints disappear for peers."""
        _dds_delete(self._participant._ref)
        self._subscriptions.clear()

    def advertise(self, topic: str, msgtype: str, qos: QosProfile) -> Publisher:
        """Makes a publisher.

        Args:
            topic: Name as the node knows it; expanded and remapped.
            msgtype: ROS name of the type.
            qos: What to offer.

        Raises:
            DdsError, MessageError: It cannot be made, or the type is not known.
        """
        topic = self.names.resolve(topic)
        dds_qos = self._endpoint_qos(msgtype, qos)
        with _readable(f"cannot publish {topic}"):
            writer = DataWriter(self._participant, self._topic(topic, msgtype), dds_qos)
            self._attach(writer, DDSStatus.OfferedIncompatibleQos)
        publisher = Publisher(topic, msgtype, writer, self._wire)
        self._publishers.append(publisher)
        self._graph.add(writer=writer)
        return publisher

    def subscribe(
        self,
        topic: str,
        msgtype: str,
        qos: QosProfile,
        callback: Callable[[Any], None],
        *,
        latched: bool = False,
        on_skipped: Callable[[int], None] | None = None,
    ) -> Subscription:
        """Makes a subscription.

        Args:
            topic: Name as the node knows it; expanded and remapped.
            msgtype: ROS name of the type.
            qos: What to ask for.
            callback: Takes a message; called by :meth:`spin`.
            latched: Whether to take earlier messages of transient-local publishers, too. QoS alone
                cannot express this: a transient-local reader does not match volatile writers.
            on_skipped: For large messages whose callback may be slower than they arrive. They are
                handed over after all others, one per spin, and where the callback does not keep
                up, the oldest are skipped; this takes their number. Without it none are skipped.

        Raises:
            DdsError, MessageError: It cannot be made, or the type is not known.
        """
        topic = self.names.resolve(topic)
        backlog = Backlog(qos.depth or _MOST_AT_ONCE, on_skipped) if on_skipped else None
        subscription = Subscription(
            topic, msgtype, callback, latched=latched, depth=qos.depth, backlog=backlog
        )
        status = DDSStatus.DataAvailable | DDSStatus.RequestedIncompatibleQos
        self._add_reader(subscription, qos, status)
        self._subscriptions.append(subscription)
        return subscription

    def offers(self, topic: str) -> dict[str, list[QosProfile]]:
        """QoS profiles of the peers that publish on an absolute topic, by message type."""
        found: dict[str, list[QosProfile]] = {}
        for endpoint in self._offers.values():
            msgtype = ros_type(endpoint.type_name)
            if endpoint.topic_name == dds_topic(topic) and msgtype:
                found.setdefault(msgtype, []).append(QosProfile.of(endpoint.qos))
        return found

    def topics(self) -> list[str]:
        """Topics that peers publish, sorted."""
        names = {ros_topic(endpoint.topic_name) for endpoint in self._offers.values()}
        return sorted(filter(None, names))

    def spin(self, timeout_s: float) -> None:
        """Waits for messages and other events, and calls the callbacks.

        However fast messages arrive, it returns after as many as a topic's QoS keeps, and after
        one message of a topic that may skip some.

        Args:
            timeout_s: Longest wait.
        """
        pending = any(subscription.pending for subscription in self._subscriptions)
        self._waitset.wait(0 if pending else max(0, round(timeout_s * 1e9)))
        self._note_publications()
        for subscription in sorted(self._subscriptions, key=lambda each: each.backlog is not None):
            self._deliver(subscription)
        for publisher in list(self._publishers):  # threads may add to them
            offered = publisher.writer.get_offered_incompatible_qos_status()
            self._note_qos(publisher.topic, offered)
        for line in self._cyclone_log.new_lines():
            self._note(line)

    def _deliver(self, subscription: Subscription) -> None:
        for cdr in subscription.take():
            try:
                message = self._wire.decode(cdr, subscription.msgtype)
            except MessageError as error:
                self._on_undecodable(subscription.topic, str(error))
            else:
                begin_s = time.monotonic()
                subscription.callback(message)
                if subscription.backlog is not None:
                    subscription.backlog.took(time.monotonic() - begin_s)
        asked = subscription.readers[0].get_requested_incompatible_qos_status()
        self._note_qos(subscription.topic, asked)

    def _note_qos(self, topic: str, status: Any) -> None:
        if status.total_count_change > 0:
            policy = POLICIES.get(status.last_policy_id, f"policy {status.last_policy_id}")
            self._on_qos_incompatible(topic, policy)

    def _note(self, line: str) -> None:
        """Handles a line of Cyclone's log."""
        if found := _UNDECODABLE.search(line):
            name, reason = found.groups()
            self._on_undecodable(ros_topic(name) or name, reason)
        else:
            self._log("warn", f"Cyclone DDS: {line}")

    def _note_publications(self) -> None:
        while endpoints := self._publications.take(100):
            for endpoint in endpoints:
                if endpoint.sample_info.instance_state == InstanceState.Alive:
                    self._offers[endpoint.key] = endpoint
                else:
                    self._offers.pop(endpoint.key, None)
            for subscription in self._subscriptions:
                self._note_offers(subscription)

    def _note_offers(self, subscription: Subscription) -> None:
        offers = self.offers(subscription.topic)
        suitable = offers.get(subscription.msgtype, ())
        missing = subscription.latched and len(subscription.readers) == 1
        if missing and any(offer.transient_local for offer in suitable):
            self._add_reader(subscription, LATCHED, DDSStatus.DataAvailable)

    def _add_reader(self, subscription: Subscription, qos: QosProfile, status: int) -> None:
        dds_qos = self._endpoint_qos(subscription.msgtype, qos)
        with _readable(f"cannot subscribe to {subscription.topic}"):
            topic = self._topic(subscription.topic, subscription.msgtype)
            reader = DataReader(self._participant, topic, dds_qos)
            self._attach(reader, status)
        subscription.readers.append(reader)
        self._graph.add(reader=reader)

    def _topic(self, topic: str, msgtype: str) -> Topic[Any]:
        if topic not in self._topics:
            sample_type = self._wire.sample_type(msgtype)
            self._topics[topic] = Topic(self._participant, dds_topic(topic), sample_type)
        return self._topics[topic]

    def _endpoint_qos(self, msgtype: str, qos: QosProfile) -> Qos:
        self._wire.sample_type(msgtype)  # raises where the type is not known
        return qos.to_dds(self._wire.user_data(msgtype))

    def _attach(self, entity: Entity, status: int) -> None:
        entity.set_status_mask(status)
        self._waitset.attach(entity)


class _Graph:
    """Announces to ROS 2 peers which endpoints belong to which node (rmw_dds_common)."""

    def __init__(self, participant: DomainParticipant, names: Names, gid_bytes: int) -> None:
        store = get_typestore(Stores.EMPTY)
        for msgtype, definition in _GRAPH_TYPES.items():
            text = definition.format(gid_bytes=gid_bytes)
            store.register(get_types_from_msg(text, msgtype))
        self._make_gid, self._make_node, self._make_info = (
            store.types[msgtype] for msgtype in _GRAPH_TYPES
        )
        self._wire = Wire(store)
        self._gid_bytes = gid_bytes
        self._names = names
        self._gid = self._gid_of(participant)
        self._lock = threading.Lock()
        self._readers: list[Any] = []
        self._writers: list[Any] = []
        topic: Topic[Any] = Topic(participant, _GRAPH_TOPIC, self._wire.sample_type(_GRAPH_TYPE))
        qos = GRAPH.to_dds(self._wire.user_data(_GRAPH_TYPE))
        writer: DataWriter[Any] = DataWriter(participant, topic, qos)
        self._publisher = Publisher(_GRAPH_TOPIC, _GRAPH_TYPE, writer, self._wire)
        self.add()

    def add(
        self, *, reader: DataReader[Any] | None = None, writer: DataWriter[Any] | None = None
    ) -> None:
        """Adds an endpoint to the node and announces it."""
        with self._lock:
            self._readers += [self._gid_of(reader)] if reader else []
            self._writers += [self._gid_of(writer)] if writer else []
            namespace, name = self._names.namespace, self._names.node
            node = self._make_node(namespace, name, self._readers, self._writers)
            self._publisher.publish(self._make_info(self._gid, [node]))

    def _gid_of(self, entity: Entity) -> Any:
        guid = entity.guid.bytes.ljust(self._gid_bytes, b"\0")
        return self._make_gid(np.frombuffer(guid, np.uint8))


class _CycloneLog:
    """Cyclone's warnings, read from a file, as a callback would need the GIL."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] = path.open(encoding="utf-8", errors="replace")
        self._file.seek(0, os.SEEK_END)

    def new_lines(self) -> Iterator[str]:
        """Lines written since the last call, without time and thread."""
        begin = self._file.tell()
        while (line := self._file.readline()).endswith("\n"):
            begin = self._file.tell()
            yield line.partition("] ")[2].partition(":")[2].strip()
        self._file.seek(begin)  # an unfinished line is read again once it is complete
        if begin > _MAX_LOG_BYTES:
            os.truncate(self._path, 0)
            self._file.seek(0)


_JOINED: dict[int, tuple[Domain, IO[bytes]]] = {}
"""Domains that this process has joined, each with the file of Cyclone's warnings."""


def _join(domain: int, interface: str | None) -> _CycloneLog:
    if domain not in _JOINED:
        file = tempfile.NamedTemporaryFile(prefix="cyclonedds-", suffix=".log")  # noqa: SIM115
        atexit.register(file.close)  # removes it
        config = configuration(interface, log_file=file.name)
        _JOINED[domain] = Domain(domain, config), file
    return _CycloneLog(Path(_JOINED[domain][1].name))


@contextlib.contextmanager
def _readable(what: str) -> Iterator[None]:
    """A context that turns errors of the binding into DdsError."""
    try:
        yield
    except (DDSException, UnicodeError) as error:
        raise DdsError(f"{what}: {getattr(error, 'msg', error)}") from error

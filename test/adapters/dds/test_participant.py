"""Participants on a graph: delivery, QoS, latching, and what ROS 2 peers are told."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="the DDS binding is not installed")

from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsSubscription
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.internal import DDS
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from dds_domains import own_domain, participant, spin_for, spin_until
from processes import Process

from videogem_ros.adapters.dds.configuration import domain_id
from videogem_ros.adapters.dds.participant import DdsError, Participant, Publisher, _Bytes, _Graph
from videogem_ros.adapters.dds.qos import DEFAULT, LATCHED, SENSOR_DATA, QosProfile
from videogem_ros.adapters.dds.wire import MessageError
from videogem_ros.live.types import typestore

STRING = "std_msgs/msg/String"


@pytest.fixture(autouse=True, scope="module")
def domain() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        number = own_domain()
        patch.setenv("ROS_DOMAIN_ID", number)
        yield number


@pytest.fixture
def talker() -> Iterator[Participant]:
    with participant("talker") as talker:
        yield talker


@pytest.fixture
def listener() -> Iterator[Participant]:
    with participant("listener") as listener:
        yield listener


def text(data: str) -> Any:
    return typestore().types[STRING](data)


def test_messages_arrive_in_order(talker: Participant, listener: Participant) -> None:
    heard: list[str] = []
    publisher = talker.advertise("chat", STRING, DEFAULT)
    listener.subscribe("chat", STRING, DEFAULT, lambda message: heard.append(message.data))
    spin_until(lambda: publisher.subscribers, talker, listener)
    said = ["", "pick up the cup", "größe", "🤖" * 1000]
    for words in said:
        publisher.publish(text(words))
    spin_until(lambda: len(heard) == len(said), listener)
    assert heard == said


class Camera:
    """Sends numbered images, some during each conversion, and notes what becomes of them."""

    def __init__(self, talker: Participant, listener: Participant, *, convert_s: float) -> None:
        self.sent = self.skipped = 0
        self.converted: list[int] = []
        self.newest: list[int] = []  # that was sent, when an image's turn came
        self.during = 0
        self._convert_s = convert_s
        self._publisher = talker.advertise("image", STRING, SENSOR_DATA)
        listener.subscribe("image", STRING, SENSOR_DATA, self.convert, on_skipped=self.skip)
        spin_until(lambda: self._publisher.subscribers, talker, listener)

    def send(self, count: int) -> None:
        for _ in range(count):
            self._publisher.publish(text(str(self.sent)))
            self.sent += 1

    def convert(self, message: Any) -> None:
        self.converted.append(int(message.data))
        self.newest.append(self.sent - 1)
        self.send(self.during)
        time.sleep(self._convert_s)

    def skip(self, count: int) -> None:
        self.skipped += count


def test_images_that_come_faster_than_they_are_converted_starve_nothing(
    talker: Participant, listener: Participant
) -> None:
    heard: list[tuple[int, int]] = []
    command = talker.advertise("action", STRING, DEFAULT)
    camera = Camera(talker, listener, convert_s=0.06)
    listener.subscribe(
        "action",
        STRING,
        DEFAULT,
        lambda message: heard.append((int(message.data), len(camera.converted))),
        latched=True,
    )
    spin_until(lambda: command.subscribers, talker, listener)
    camera.during = 3
    camera.send(1)
    spin_until(lambda: camera.converted, listener)
    for turn in range(20):
        command.publish(text(str(len(camera.converted))))
        spun = len(camera.converted)
        listener.spin(0.1)
        assert len(camera.converted) <= spun + 1, turn
    camera.during = 0
    spin_for(0.5, listener)
    # Each command comes before the next image, or after one where that was under way.
    assert len(heard) == 20
    assert all(converted - said <= 1 for said, converted in heard)
    assert camera.converted == sorted({*camera.converted})
    assert camera.converted[-1] == camera.sent - 1
    assert camera.skipped == camera.sent - len(camera.converted) > 0
    # Once it is known what one takes: the newest, and one before it for 60 of 100 ms.
    behind = [newest - each for each, newest in zip(camera.converted, camera.newest)]
    assert max(behind[4:]) <= 1


def test_images_that_had_to_wait_for_something_else_are_all_converted(
    talker: Participant, listener: Participant
) -> None:
    camera = Camera(talker, listener, convert_s=0.001)
    for _ in range(10):
        camera.send(SENSOR_DATA.depth)
        time.sleep(0.05)  # nobody spins
        spin_until(lambda: len(camera.converted) == camera.sent, listener)
    assert camera.converted == list(range(10 * SENSOR_DATA.depth))
    assert camera.skipped == 0


def test_a_flood_ends_no_spin(talker: Participant, listener: Participant) -> None:
    """Each message is answered by another one, so that there is always one more."""
    heard: list[str] = []

    def answer(message: Any) -> None:
        heard.append(message.data)
        if len(heard) < 1000:
            flood.publish(text("more"))
            time.sleep(0.002)

    flood = talker.advertise("flood", STRING, DEFAULT)
    listener.subscribe("flood", STRING, DEFAULT, answer)
    spin_until(lambda: flood.subscribers, talker, listener)
    flood.publish(text("first"))
    spin_until(lambda: heard, listener)
    assert len(heard) <= DEFAULT.depth


def test_what_is_kept_without_bound_is_heard_to_the_end(
    talker: Participant, listener: Participant
) -> None:
    heard: list[int] = []
    keep_all = QosProfile(depth=0)
    publisher = talker.advertise("numbers", STRING, keep_all)
    listener.subscribe("numbers", STRING, keep_all, lambda one: heard.append(int(one.data)))
    spin_until(lambda: publisher.subscribers, talker, listener)
    for number in range(250):
        publisher.publish(text(str(number)))
    time.sleep(0.2)  # all are there, and nothing more comes
    for _ in range(4):
        listener.spin(0.0)
    assert heard == list(range(250))


def test_a_subscription_that_goes_is_no_longer_counted(talker: Participant) -> None:
    publisher = talker.advertise("chat", STRING, DEFAULT)
    with participant("guest") as guest:
        guest.subscribe("chat", STRING, DEFAULT, lambda _: None)
        spin_until(lambda: publisher.subscribers == 1, talker, guest)
    spin_until(lambda: publisher.subscribers == 0, talker)


@pytest.mark.parametrize(
    ("offered", "asked", "policy"),
    [
        (SENSOR_DATA, DEFAULT, "reliability"),
        (DEFAULT, LATCHED, "durability"),
    ],
)
def test_qos_that_does_not_match_is_told_on_both_sides(
    offered: QosProfile, asked: QosProfile, policy: str
) -> None:
    told: dict[str, list[tuple[str, str]]] = {"offering": [], "asking": []}
    with (
        participant(
            "offering", on_qos_incompatible=lambda *what: told["offering"].append(what)
        ) as offering,
        participant(
            "asking", on_qos_incompatible=lambda *what: told["asking"].append(what)
        ) as asking,
    ):
        offering.advertise("mismatch", STRING, offered)
        asking.subscribe("mismatch", STRING, asked, lambda _: None)
        spin_until(lambda: all(told.values()), offering, asking)
    assert told == {"offering": [("/mismatch", policy)], "asking": [("/mismatch", policy)]}


@pytest.mark.parametrize("qos", [DEFAULT, LATCHED])
def test_a_latched_subscription_hears_every_publisher_and_everything_once(
    talker: Participant, qos: QosProfile
) -> None:
    heard: list[str] = []
    told: list[object] = []
    publisher = talker.advertise("action", STRING, qos)
    publisher.publish(text("before"))
    with participant("late", on_qos_incompatible=lambda *what: told.append(what)) as late:
        late.subscribe(
            "action", STRING, DEFAULT, lambda message: heard.append(message.data), latched=True
        )
        readers = 1 + qos.transient_local
        spin_until(lambda: publisher.subscribers == readers, talker, late)
        spin_until(lambda: len(heard) == qos.transient_local, late)
        publisher.publish(text("after"))
        spin_until(lambda: "after" in heard, late)
        spin_for(0.2, talker, late)
    assert heard == (["before"] if qos.transient_local else []) + ["after"]
    assert told == []


@pytest.mark.parametrize("qos", [DEFAULT, LATCHED])
def test_a_latched_subscription_hears_who_sets_the_clock_back(
    talker: Participant, listener: Participant, qos: QosProfile
) -> None:
    heard: list[str] = []
    listener.subscribe(
        "action", STRING, DEFAULT, lambda message: heard.append(message.data), latched=True
    )
    latching = talker.advertise("action", STRING, LATCHED)  # the reason for a second reader
    publisher = talker.advertise("action", STRING, qos)
    spin_until(lambda: latching.subscribers == 2, talker, listener)
    spin_until(lambda: publisher.subscribers == 1 + qos.transient_local, talker, listener)
    now_ns = time.time_ns()
    for words, since_s in (("one", 0), ("two", -60), ("three", -59)):
        write_at(publisher, text(words), now_ns + since_s * 10**9)
        spin_until(lambda words=words: words in heard, talker, listener)
    spin_for(0.2, talker, listener)
    assert heard == ["one", "two", "three"]


def write_at(publisher: Publisher, message: Any, stamp_ns: int) -> None:
    """Publishes as if the writer's clock showed another time."""
    cdr = publisher._wire.encode(message)
    padded = cdr.ljust(-(-len(cdr) // 4) * 4, b"\0")
    sample = _Bytes(np.frombuffer(padded, np.uint8).ctypes.data, len(padded))
    write = DDS._dll_handle.dds_write_ts
    write.argtypes = (ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64)
    assert write(publisher.writer._ref, ctypes.byref(sample), stamp_ns) == 0


def test_what_peers_publish_is_known_with_type_and_qos(
    talker: Participant, listener: Participant
) -> None:
    talker.advertise("/a/b", STRING, SENSOR_DATA)
    spin_until(lambda: "/a/b" in listener.topics(), listener)
    assert listener.offers("/a/b") == {STRING: [SENSOR_DATA]}
    assert listener.offers("/a") == {}


@pytest.mark.parametrize("gid_bytes", [16, 24])
def test_ros_peers_are_told_which_endpoints_the_node_has(gid_bytes: int) -> None:
    peer = DomainParticipant(domain_id())
    with participant("told", gid_bytes=gid_bytes) as told:
        told.subscribe("heard", STRING, DEFAULT, lambda _: None)
        told.advertise("said", STRING, DEFAULT)
        wire = told._graph._wire
        msgtype = "rmw_dds_common/msg/ParticipantEntitiesInfo"
        topic: Topic[Any] = Topic(peer, "ros_discovery_info", wire.sample_type(msgtype))
        qos = Qos(Policy.Reliability.Reliable(0), Policy.Durability.TransientLocal)
        reader: DataReader[Any] = DataReader(peer, topic, qos)
        subscriptions = BuiltinDataReader(peer, BuiltinTopicDcpsSubscription)
        # A peer that comes late, as all do: the last message is kept for it.
        sample = spin_until(lambda: reader.take(1), told)[0]
        info = wire.decode(sample.cdr, msgtype)
        (node,) = info.node_entities_info_seq
        endpoints = {endpoint.topic_name: endpoint for endpoint in subscriptions.read(100)}
    assert (node.node_namespace, node.node_name) == ("/", "told")
    assert len(node.writer_gid_seq) == 1
    (gid,) = node.reader_gid_seq
    heard = endpoints["rt/heard"]
    assert bytes(gid.data) == heard.key.bytes.ljust(gid_bytes, b"\0")
    assert bytes(info.gid.data) == heard.participant_key.bytes.ljust(gid_bytes, b"\0")
    assert heard.qos[Policy.Userdata].data.startswith(b"typehash=RIHS01_")


def test_the_graph_types_hash_as_those_of_ros() -> None:
    with participant("hashed") as hashed:
        graph: _Graph = hashed._graph
        user_data = graph._wire.user_data("rmw_dds_common/msg/ParticipantEntitiesInfo")
    # share/rmw_dds_common/msg/ParticipantEntitiesInfo.json of ROS 2 Jazzy.
    digits = "91a0593bacdcc50ea9bdcf849a938b128412cc1ea821245c663bcd26f83c295e"
    assert user_data == f"typehash=RIHS01_{digits};"


def test_a_type_that_is_not_known_is_named(talker: Participant) -> None:
    with pytest.raises(MessageError, match="no_msgs/msg/Such"):
        talker.advertise("chat", "no_msgs/msg/Such", DEFAULT)


def test_an_interface_that_is_not_there_is_a_readable_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from videogem_ros.adapters.dds.names import Names

    monkeypatch.setenv("ROS_DOMAIN_ID", own_domain())
    with pytest.raises(DdsError, match="cannot join the DDS domain"):
        Participant(Names("lost"), typestore(), interface="no_such_interface")


@pytest.mark.parametrize(
    ("qos", "lost"),
    [(DEFAULT, False), (QosProfile(depth=0), True)],
    ids=["keep last", "keep all"],
)
def test_a_reliable_subscriber_that_stalls_holds_nobody_up(
    talker: Participant, domain: str, tmp_path: Path, qos: QosProfile, lost: bool
) -> None:
    kinds = typestore().types
    head = kinds["std_msgs/msg/Header"](kinds["builtin_interfaces/msg/Time"](0, 0), "")
    pixels = np.zeros(4_000_000, np.uint8)
    image = kinds["sensor_msgs/msg/Image"](head, 1000, 4000, "mono8", 0, 4000, pixels)
    publisher = talker.advertise(f"big_{qos.depth}", "sensor_msgs/msg/Image", qos)
    command = (sys.executable, "-m", "videogem_ros", "echo", publisher.topic, "--no-arr")
    env = {**os.environ, "ROS_DOMAIN_ID": domain}
    reader = Process([*command, "--interface", "local"], env, tmp_path / "echo.log")
    heart = Heart()
    try:
        spin_until(lambda: publisher.subscribers, talker)
        publisher.publish(image)
        reader.wait_for("width: 4000")
        reader.send_signal(signal.SIGSTOP)
        heart.start()
        errors = [_publish(publisher, image, heart) for _ in range(8)]
    finally:
        heart.stop()
        reader.send_signal(signal.SIGCONT)
        reader.end()
    assert any("does not keep up" in error for error in errors) == lost


class Heart(threading.Thread):
    """Beats whenever it gets the interpreter's lock."""

    def __init__(self) -> None:
        super().__init__()
        self.beats = 0
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.005):
            self.beats += 1

    def stop(self) -> None:
        self._stopped.set()


def _publish(publisher: Publisher, message: Any, heart: Heart) -> str:
    """What the publisher complains of; it must give up soon and leave other threads running."""
    begin_s, beats = time.perf_counter(), heart.beats
    try:
        publisher.publish(message)
    except DdsError as error:
        assert heart.beats > beats
        return str(error)
    finally:
        assert time.perf_counter() - begin_s < 2.0
    return ""

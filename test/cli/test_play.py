"""What the player makes of a recording's stamps and time, without a graph."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rosbags.typesys import get_types_from_msg
from rosbags.typesys.store import Typestore

from videogem_ros.adapters.dds.participant import DdsError
from videogem_ros.cli.play import CLOCK_PERIOD_S, _mover, _Played
from videogem_ros.live.types import typestore

S = 10**9
BY_NS = 1_000_000 * S + 1


@dataclass
class Sent:
    """A publisher that takes its time, and keeps what was published."""

    msgtype: str
    takes_s: float = 0.0
    messages: list[bytes] = field(default_factory=list)

    def write(self, cdr: bytes) -> None:
        time.sleep(self.takes_s)
        self.messages.append(cdr)


def played(
    sent: Sent,
    messages: list[tuple[int, bytes]],
    store: Typestore,
    times: int = 1,
    **options: Any,
) -> _Played:
    """Plays messages of one topic, each with its log time in nanoseconds, so many times."""
    topic = SimpleNamespace(topic="/topic")
    storage: Any = SimpleNamespace(
        typestore=store,
        raw_messages=lambda _: ((topic, log_ns, cdr) for log_ns, cdr in messages),
        readable=nullcontext,
    )
    publishers: Any = {"/topic": sent}
    player: Any = SimpleNamespace(spin=time.sleep)
    options = {"rate": 1.0, "tell_time": None, "restamp": False, **options}
    result = _Played(storage, publishers, **options)
    for _ in range(times):
        result.once(player, lambda: False)
    return result


def stamp(kinds: Any, stamp_ns: int) -> Any:
    return kinds["builtin_interfaces/msg/Time"](*divmod(stamp_ns, S))


def header(kinds: Any, stamp_ns: int, frame: str = "frame") -> Any:
    return kinds["std_msgs/msg/Header"](stamp(kinds, stamp_ns), frame)


def tf(kinds: Any, *stamps_ns: int) -> Any:
    """Names of different lengths, so that the second stamp stands anywhere."""
    pose = kinds["geometry_msgs/msg/Transform"](
        kinds["geometry_msgs/msg/Vector3"](1.0, 2.0, 3.0),
        kinds["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0),
    )
    return kinds["tf2_msgs/msg/TFMessage"](
        [
            kinds["geometry_msgs/msg/TransformStamped"](
                header(kinds, stamp_ns, "p" * index), "c" * (2 * index), pose
            )
            for index, stamp_ns in enumerate(stamps_ns, 1)
        ]
    )


def path(kinds: Any, *stamps_ns: int) -> Any:
    """A message that begins with a header and whose parts have some, too."""
    pose = kinds["geometry_msgs/msg/Pose"](
        kinds["geometry_msgs/msg/Point"](1.0, 2.0, 3.0),
        kinds["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0),
    )
    stamped = kinds["geometry_msgs/msg/PoseStamped"]
    first, *others = (header(kinds, stamp_ns) for stamp_ns in stamps_ns)
    return kinds["nav_msgs/msg/Path"](first, [stamped(head, pose) for head in others])


def image(kinds: Any, stamp_ns: int) -> Any:
    pixels = np.arange(12, dtype=np.uint8)
    return kinds["sensor_msgs/msg/Image"](header(kinds, stamp_ns), 2, 2, "rgb8", 0, 6, pixels)


@pytest.mark.parametrize("little_endian", [True, False])
@pytest.mark.parametrize("make", [tf, path, image])
def test_every_header_moves_and_nothing_else_does(make: Any, little_endian: bool) -> None:
    store = typestore()
    begin_ns = 1_700_000_000 * S + 999_999_999
    stamps_ns = [begin_ns] if make is image else [begin_ns, begin_ns + 5, begin_ns + S]
    message = make(store.types, *stamps_ns)
    later = make(store.types, *(stamp_ns + BY_NS for stamp_ns in stamps_ns))
    msgtype = message.__msgtype__
    raw, expected = (
        bytes(store.serialize_cdr(each, msgtype, little_endian=little_endian))
        for each in (message, later)
    )
    mover = _mover(store, msgtype)
    assert mover is not None
    assert mover(raw, BY_NS) == expected


@pytest.mark.parametrize("make", [tf, image])
def test_a_stamp_that_was_never_set_stays_so(make: Any) -> None:
    store = typestore()
    message = make(store.types, 0)
    raw = bytes(store.serialize_cdr(message, message.__msgtype__))
    mover = _mover(store, message.__msgtype__)
    assert mover is not None
    assert mover(raw, BY_NS) == raw


@pytest.mark.parametrize("make", [tf, image])
@pytest.mark.parametrize("stamp_ns", [1, S])
def test_a_stamp_of_a_clock_that_began_at_zero_moves(make: Any, stamp_ns: int) -> None:
    store = typestore()
    raw, expected = (
        bytes(store.serialize_cdr(message, message.__msgtype__))
        for message in (make(store.types, stamp_ns), make(store.types, stamp_ns + BY_NS))
    )
    mover = _mover(store, make(store.types, 0).__msgtype__)
    assert mover is not None
    assert mover(raw, BY_NS) == expected


def test_headers_are_found_wherever_a_type_has_them() -> None:
    store = typestore()
    definition = "uint8 number\nstd_msgs/Header[2] heads\ngeometry_msgs/PointStamped[] points"
    store.register(get_types_from_msg(definition, "own_msgs/msg/Own"))
    kinds = store.types

    def own(stamp_ns: int) -> bytes:
        heads = [header(kinds, stamp_ns), header(kinds, stamp_ns + 1)]
        point = kinds["geometry_msgs/msg/Point"](1.0, 2.0, 3.0)
        points = [kinds["geometry_msgs/msg/PointStamped"](header(kinds, stamp_ns), point)]
        message = kinds["own_msgs/msg/Own"](7, heads, points)
        return bytes(store.serialize_cdr(message, "own_msgs/msg/Own"))

    mover = _mover(store, "own_msgs/msg/Own")
    assert mover is not None
    assert mover(own(S), BY_NS) == own(S + BY_NS)
    assert _mover(store, "std_msgs/msg/String") is None


def test_transforms_are_of_the_present_and_what_cannot_be_read_stays() -> None:
    store = typestore()
    msgtype = "tf2_msgs/msg/TFMessage"
    begin_ns = 1_500_000_000 * S
    message = tf(store.types, begin_ns - S, begin_ns)
    raw = bytes(store.serialize_cdr(message, msgtype))
    sent = Sent(msgtype)
    before_ns = time.time_ns()
    result = played(sent, [(begin_ns, raw), (begin_ns, raw[:40])], store, restamp=True)
    after_ns = time.time_ns()
    moved = store.deserialize_cdr(sent.messages[0], msgtype)
    stamps_ns = [
        each.header.stamp.sec * S + each.header.stamp.nanosec for each in moved.transforms
    ]
    assert before_ns <= stamps_ns[1] <= after_ns
    assert stamps_ns[1] - stamps_ns[0] == S
    assert sent.messages[1] == raw[:40]
    assert list(result.not_moved) == ["/topic"]


@pytest.mark.parametrize("rate", [1.0, 4.0])
def test_times_of_a_recording_pass_at_the_rate(rate: float) -> None:
    store = typestore()
    msgtype = "sensor_msgs/msg/Image"
    logged_ns = [S, S + 40_000_000, S + 200_000_000]
    messages = [
        (log_ns, bytes(store.serialize_cdr(image(store.types, log_ns), msgtype)))
        for log_ns in logged_ns
    ]
    sent, told = Sent(msgtype), []
    begin_s = time.monotonic()
    played(sent, messages, store, rate=rate, tell_time=told.append, restamp=True)
    assert time.monotonic() - begin_s >= 0.2 / rate
    stamps = [store.deserialize_cdr(raw, msgtype).header.stamp for raw in sent.messages]
    stamps_ns = [each.sec * S + each.nanosec for each in stamps]
    assert np.diff(stamps_ns) == pytest.approx(np.diff(logged_ns) / rate, abs=1)
    assert told == sorted(told)
    assert logged_ns[-1] - 10**6 < told[-1] <= logged_ns[-1]


def test_messages_that_a_subscriber_has_no_room_for_are_counted() -> None:
    @dataclass
    class Full(Sent):
        def write(self, cdr: bytes) -> None:
            if self.messages:
                raise DdsError("timeout")
            super().write(cdr)

    messages = [(S, b"\0\1\0\0")] * 3
    result = played(Full("std_msgs/msg/String"), messages, typestore())
    assert (result.sent, result.dropped) == (1, 2)


def test_a_player_that_cannot_keep_up_tells_the_time_all_the_same() -> None:
    told: list[tuple[float, int]] = []
    messages = [(S + index * 10_000_000, b"\0\1\0\0") for index in range(50)]
    sent = Sent("std_msgs/msg/String", takes_s=0.02)
    played(
        sent,
        messages,
        typestore(),
        tell_time=lambda now_ns: told.append((time.monotonic(), now_ns)),
    )
    # One before each message, since each takes two periods of the clock.
    times_ns = [now_ns for _, now_ns in told]
    assert times_ns == [log_ns for log_ns, _ in messages]
    assert min(np.diff([at_s for at_s, _ in told])) >= CLOCK_PERIOD_S


def test_a_burst_of_messages_tells_the_time_once_a_period() -> None:
    told: list[int] = []
    messages = [(S, b"\0\1\0\0")] * 1000
    begin_s = time.monotonic()
    played(Sent("std_msgs/msg/String"), messages, typestore(), tell_time=told.append)
    periods = (time.monotonic() - begin_s) / CLOCK_PERIOD_S
    assert 1 <= len(told) <= 1 + periods


def test_a_loop_tells_its_time_before_its_first_message() -> None:
    events: list[int | str] = []
    sent = Sent("std_msgs/msg/String")
    sent.write = lambda cdr: events.append("message")  # type: ignore[method-assign]
    messages = [(S, b"\0\1\0\0"), (S + 10**7, b"\0\1\0\0")]
    played(sent, messages, typestore(), times=3, tell_time=events.append)
    firsts = [place for place, event in enumerate(events) if event == S]
    assert len(firsts) >= 3
    loops = [place for place in firsts if events[place + 1] == "message"]
    assert loops[0] == 0
    assert len(loops) == 3

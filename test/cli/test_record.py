"""What the recorder keeps of a live node's messages, against what was sent."""

from __future__ import annotations

import gc
import re
import weakref
from typing import Any

import numpy as np
from example_groundings import frame_of, grounding_of
from rich.console import Console

from videogem_ros.adapters.encodings import image_message_fields
from videogem_ros.cli.record import _Judge, _table, _Written
from videogem_ros.live.joining import ResultJoiner
from videogem_ros.live.messages import Answer, Circumstances, MessageBuilder, Status
from videogem_ros.live.types import typestore


def make(kind: str, /, **fields: Any) -> Any:
    return typestore().types[kind](**fields)


build = MessageBuilder(make)


class Lines:
    """In place of a ResultWriter: keeps what goes into the lines."""

    def __init__(self) -> None:
        self.about: list[Any] = []

    def write(self, frame: Any, groundings: Any, about: Any) -> None:
        self.about += about


def send(written: _Written, joiner: ResultJoiner, stamp_ns: int, latency_ms: int) -> Any:
    """The grounding message of an image, whose heatmap comes before it."""
    frame = frame_of((4, 4), stamp_ns, (0, 0, 0))
    grounding = grounding_of(frame, values=np.zeros((4, 4), np.float32))
    head = build.header(stamp_ns, frame.frame_id)
    fields = image_message_fields(frame.image, "rgb8")
    joiner.on_image(make("sensor_msgs/msg/Image", header=head, **fields))
    joiner.on_heatmap(0, build.heatmap(grounding, 1.0))
    about = Circumstances(stamp_ns, frame.frame_id, stamp_ns + latency_ms * 10**6, 1, 0.02)
    message = build.grounding(Answer(Status.FOUND, "", grounding.action, 0, grounding), about)
    written.on_grounding(message)
    return message


def test_messages_are_let_go_and_the_table_tells_what_they_told() -> None:
    lines, joiner = Lines(), ResultJoiner()
    written = _Written(lines, joiner)  # type: ignore[arg-type]
    latencies_ms = (30, 10, 80, 20)
    alive = []
    for number, latency_ms in enumerate(latencies_ms, start=1):
        alive.append(weakref.ref(send(written, joiner, number, latency_ms)))
        written.write()
    written.write(last=True)
    gc.collect()
    assert [message() for message in alive] == [None] * 4
    assert [about["latency_ms"] for about in lines.about] == list(latencies_ms)
    received = [about["received_ns"] for about in lines.about]
    assert received == sorted(received)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(_table(written.answers, _Judge()))
    (row,) = re.findall(r"^.*pick up the red mug +(.*)$", capture.get(), re.MULTILINE)
    assert row.split() == ["4", "4", "0.80", "25", "80", "20", "-"]

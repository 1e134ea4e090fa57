"""What the recorder keeps of a live node's messages, against what was sent."""

from __future__ import annotations

import gc
import re
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
from example_groundings import frame_of, grounding_of
from rich.console import Console

from videogem_ros.adapters.bag.vision import LABELS, Label, label_fields
from videogem_ros.adapters.bag.vision import typestore as labels_typestore
from videogem_ros.cli.console import result_console
from videogem_ros.cli.record import _Answer, _Judge, _Lenient, _table, _Written
from videogem_ros.encodings import image_message_fields
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
    written = _Written(lines, joiner, 1)  # type: ignore[arg-type]
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
        console.print(_table(written.answers, _Judge(_Lenient())))
    (row,) = re.findall(r"^.*pick up the red mug +(.*)$", capture.get(), re.MULTILINE)
    assert row.split() == ["4", "4", "0.80", "25", "80", "20", "-"]


def test_brackets_in_what_was_said_are_shown() -> None:
    answers = [
        _Answer(action, ("pick up", "cup"), 1, (1.0, 1.0), (4, 4), True, 0.5, 30.0, 20.0)
        for action in ("pick up the [red] cup", "pick up the cup [/b]")
    ]
    console = result_console()
    with console.capture() as captured:
        console.print(_table(answers, None))
    assert "pick up the [red] cup" in captured.get()
    assert "pick up the cup [/b]" in captured.get()


def test_a_label_that_says_nothing_loses_no_other_and_is_counted() -> None:
    lenient = _Lenient()
    judge = _Judge(lenient)
    labels = [Label("lift the red mug", box) for box in ((0, 0, 9, 9), (5, 5, 9, 9))]
    fields = label_fields(build.header(1, "camera"), labels)
    message = labels_typestore().types[LABELS](**fields)
    message.detections[0].results = []
    judge.on_labels(message)
    meant = ("lift", "red mug")
    answer = _Answer("lift it", meant, 1, (6.0, 6.0), (24, 32), True, 0.9, 1.0, 1.0)
    assert judge.share([answer, replace(answer, xy=(2.0, 2.0))]) == "1 of 2"
    assert lenient.refused == 1
    assert lenient.first.startswith("detection.results: expected the action's text")


def test_an_image_that_cannot_be_read_ends_no_recording() -> None:
    lenient, joiner = _Lenient(), ResultJoiner()
    head = build.header(1, "camera")
    fields = image_message_fields(np.zeros((4, 4, 3), np.uint8), "rgb8")
    take = lenient.taking(joiner.on_image)
    take(make("sensor_msgs/msg/Image", header=head, **fields | {"encoding": "no_such"}))
    take(make("sensor_msgs/msg/Image", header=head, **fields))
    assert lenient.refused == 1
    assert "no_such" in lenient.first

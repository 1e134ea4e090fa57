"""``videogem-ros record``: a live node's groundings, in the same files as replay."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from videogem_ros.cli.console import result_console
from videogem_ros.cli.graph import graph_options, joined, require_cyclone
from videogem_ros.cli.numbers import LONGEST_S, FiniteRange
from videogem_ros.cli.signals import interruptible
from videogem_ros.errors import RecordingError, VideoGemError

if TYPE_CHECKING:
    from videogem_ros.adapters.bag.results import ResultWriter
    from videogem_ros.adapters.dds.participant import Participant
    from videogem_ros.datatypes import Action
    from videogem_ros.evaluation.records import Box
    from videogem_ros.live.joining import ResultJoiner


@click.command(short_help="Record a live node's groundings, in the same files as replay.")
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder for the results.",
)
@click.option("--force", is_flag=True, help="Replace existing results in DIR.")
@click.option(
    "--node",
    "node_name",
    default="/videogem",
    show_default=True,
    metavar="NAME",
    help="The node's name, with namespace.",
)
@click.option(
    "--image",
    default="/image",
    show_default=True,
    metavar="TOPIC",
    help="Topic of the images that the node grounds; sensor_msgs/CompressedImage if it ends in "
    "/compressed.",
)
@click.option(
    "--max-actions",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    metavar="N",
    help="Record up to this many actions per command.",
)
@click.option(
    "--labels",
    metavar="TOPIC",
    help="vision_msgs/Detection2DArray topic with the boxes of the actions, as in a labelled "
    "recording; the table then shows how many points are right.",
)
@click.option("--about", metavar="TEXT", help="Title of the contact sheet.")
@click.option(
    "--idle",
    type=FiniteRange(0, LONGEST_S, min_open=True),
    metavar="S",
    help="End S seconds after the last grounding.  [default: end on Ctrl-C]",
)
@click.option(
    "--timeout",
    type=FiniteRange(0, LONGEST_S, min_open=True),
    metavar="S",
    help="Fail if there is no grounding within S seconds.  [default: wait]",
)
@graph_options
def record(  # noqa: PLR0913 - an argument for each option
    out: Path,
    *,
    force: bool,
    node_name: str,
    image: str,
    max_actions: int,
    labels: str | None,
    about: str | None,
    idle: float | None,
    timeout: float | None,
    **graph: Any,
) -> None:
    """Write a live node's groundings.mcap, overlay.mp4, groundings.jsonl and contact_sheet.png.

    Subscribes to the node's images, groundings and heatmaps. At the end, prints a table of the
    answers' latency, and how many groundings were left out because their image or heatmap was
    missing.
    """
    require_cyclone()
    from videogem_ros.adapters.bag import vision
    from videogem_ros.adapters.bag.results import ResultWriter
    from videogem_ros.adapters.dds.qos import DEFAULT
    from videogem_ros.live.joining import ResultJoiner
    from videogem_ros.live.types import typestore

    store = typestore()
    vision.register(store)
    joiner, lenient = ResultJoiner(), _Lenient()
    judge = _Judge(lenient)
    with (
        interruptible() as signals,
        joined("videogem_record", store, graph) as participant,
        ResultWriter(out, about or f"live, {node_name}", force=force) as results,
    ):
        written = _Written(results, joiner, max_actions)
        _subscribe(participant, written, lenient, node_name, image)
        if labels:
            participant.subscribe(labels, vision.LABELS, DEFAULT, judge.on_labels)
        while not signals and not written.waited_longer_than(idle if written.answers else timeout):
            participant.spin(0.1)
            written.write()
        written.write(last=True)
    if written.answers:
        result_console().print(_table(written.answers, judge if labels else None))
    for line in _left_out(written, lenient):
        click.echo(line, err=True)
    if not written.answers:
        raise RecordingError(f"no groundings of {node_name} with images of {image}")
    click.echo(out)


def _left_out(written: _Written, lenient: _Lenient) -> Iterator[str]:
    if written.joiner.not_joined:
        reason = "groundings whose image, of the same stamp, or heatmap did not arrive"
        yield f"left out {written.joiner.not_joined}: {reason}"
    if written.beyond:
        yield f"left out {written.beyond}: groundings of more actions than --max-actions"
    if lenient.refused:
        kinds = "images, heatmaps or labels"
        yield f"left out {lenient.refused} {kinds}, the first for {lenient.first}"


def _subscribe(
    participant: Participant, written: _Written, lenient: _Lenient, node: str, image: str
) -> None:
    from videogem_ros.adapters.dds.qos import DEFAULT, SENSOR_DATA, QosProfile
    from videogem_ros.live.topics import INPUTS, SHARED_OUTPUTS, action_topic

    subscribe, joiner = participant.subscribe, written.joiner
    if image.endswith("/compressed"):  # as image_transport names its topics
        kind, on_image = INPUTS["image/compressed"], joiner.on_compressed
    else:
        kind, on_image = INPUTS["image"], joiner.on_image
    subscribe(image, kind, SENSOR_DATA, lenient.taking(on_image))
    # Groundings are small, so all are queued while an image is written.
    every = QosProfile(depth=0)
    subscribe(f"{node}/grounding", SHARED_OUTPUTS["grounding"], every, written.on_grounding)
    for index in range(written.max_actions):
        topic = f"{node}/{action_topic('heatmap', index)}"
        on_heatmap = lenient.taking(partial(joiner.on_heatmap, index))
        subscribe(topic, INPUTS["image"], DEFAULT, on_heatmap)


@dataclass(frozen=True)
class _Answer:
    """The parts of a grounding that the table needs, without the message and its arrays.

    Attributes:
        action: The action's phrase.
        meant: See :func:`~videogem_ros.evaluation.recorded.meaning`.
    """

    action: str
    meant: tuple[str, str]
    stamp_ns: int
    xy: tuple[float, float]
    hw: tuple[int, int]
    present: bool
    score: float
    latency_ms: float
    compute_ms: float


class _Written:
    """Writes complete results with their arrival times.

    Attributes:
        joiner: Joins images, groundings and heatmaps.
        max_actions: Number of actions per command to record.
        answers: Groundings that were written.
        beyond: Number of groundings of further actions, which are not written.
    """

    def __init__(self, results: ResultWriter, joiner: ResultJoiner, max_actions: int) -> None:
        self.max_actions = max_actions
        self.answers: list[_Answer] = []
        self.beyond = 0
        self._results = results
        self.joiner = joiner
        self._last_s = time.monotonic()

    def waited_longer_than(self, duration_s: float | None) -> bool:
        """Whether the last result, or the start, is longer ago; False for None."""
        return duration_s is not None and time.monotonic() - self._last_s > duration_s

    def on_grounding(self, message: Any) -> None:
        """Takes a ``videogem_ros/ActionGrounding``."""
        if message.action_index < self.max_actions:
            self.joiner.on_grounding(message, time.time_ns())
        else:
            self.beyond += 1

    def write(self, *, last: bool = False) -> None:
        """Writes results that are complete; ``last`` as for :meth:`ResultJoiner.results`."""
        for frame, groundings, received in self.joiner.results(last=last):
            answers = [
                _answer(grounding.action, one.message)
                for grounding, one in zip(groundings, received)
            ]
            about = [
                {
                    "received_ns": one.received_ns,
                    "latency_ms": answer.latency_ms,
                    "compute_ms": answer.compute_ms,
                    "backbone": one.message.backbone,
                }
                for one, answer in zip(received, answers)
            ]
            self._results.write(frame, groundings, about)
            self.answers += answers
            self._last_s = time.monotonic()


def _answer(action: Action, message: Any) -> _Answer:
    from videogem_ros.encodings import header_stamp_ns
    from videogem_ros.evaluation.recorded import meaning_of
    from videogem_ros.live.joining import milliseconds
    from videogem_ros.live.messages import Status

    return _Answer(
        action=sys.intern(action.phrase),  # one string shared by all groundings
        meant=meaning_of(action),
        stamp_ns=header_stamp_ns(message),
        xy=(message.fused_point.x, message.fused_point.y),
        hw=(message.image_height, message.image_width),
        present=message.status != Status.NOT_PRESENT,
        score=message.score,
        latency_ms=milliseconds(message.latency),
        compute_ms=milliseconds(message.compute_time),
    )


class _Lenient:
    """Wraps callbacks so that a bad message does not end the recording.

    Attributes:
        refused: Number of messages for which a callback raised an error.
        first: The first error's message.
    """

    def __init__(self) -> None:
        self.refused = 0
        self.first = ""

    def taking(self, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        """The callback, with its errors counted."""

        def take(message: Any) -> None:
            try:
                callback(message)
            except (VideoGemError, ValueError) as error:  # the latter if data are too short
                self.first = self.first or str(error)
                self.refused += 1

        return take


class _Judge:
    """Judges groundings by the labels of their images."""

    def __init__(self, lenient: _Lenient) -> None:
        self._boxes: dict[tuple[int, tuple[str, str]], list[Box]] = {}
        self._lenient = lenient

    def on_labels(self, message: Any) -> None:
        """Takes a ``vision_msgs/Detection2DArray``."""
        from videogem_ros.encodings import header_stamp_ns

        take = self._lenient.taking(partial(self._on_label, header_stamp_ns(message)))
        for detection in message.detections:
            take(detection)

    def _on_label(self, stamp_ns: int, detection: Any) -> None:
        from videogem_ros.adapters.bag.vision import read_label
        from videogem_ros.evaluation.recorded import meaning_of
        from videogem_ros.language import parse_actions

        label = read_label(detection)
        for action in parse_actions(label.action):
            boxes = self._boxes.setdefault((stamp_ns, meaning_of(action)), [])
            boxes += [label.box] if label.box else []

    def share(self, answers: Sequence[_Answer]) -> str:
        """Number of points in a box of their action, out of those whose action has a box."""
        from videogem_ros.evaluation.metrics import judge

        hits = [
            judge(answer.xy, None, boxes, answer.hw).hit
            for answer in answers
            if (boxes := self._boxes.get((answer.stamp_ns, answer.meant)))
        ]
        return f"{sum(map(bool, hits))} of {len(hits)}" if hits else "-"


def _table(answers: Sequence[_Answer], judge: _Judge | None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("action", min_width=14)
    for title in ("windows", "present", "score", "latency ms", "worst", "compute ms"):
        table.add_column(title, justify="right", no_wrap=True)
    if judge is not None:
        table.add_column("right", justify="right", no_wrap=True)
    actions = list(dict.fromkeys(answer.action for answer in answers))
    for action in actions:
        own = [answer for answer in answers if answer.action == action]
        table.add_row(action, *_row(own, judge))
    if len(actions) > 1:
        table.add_section()
        table.add_row("all", *_row(answers, judge))
    return table


def _row(answers: Sequence[_Answer], judge: _Judge | None) -> list[str]:
    latencies = [answer.latency_ms for answer in answers]
    return [
        str(len(answers)),
        str(sum(answer.present for answer in answers)),
        f"{statistics.mean(answer.score for answer in answers):.2f}",
        f"{statistics.median(latencies):.0f}",
        f"{max(latencies):.0f}",
        f"{statistics.median(answer.compute_ms for answer in answers):.0f}",
        *([judge.share(answers)] if judge else []),
    ]

"""``videogem-ros record``: what a live node finds goes into the folder that replay makes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from videogem_ros.cli.console import result_console
from videogem_ros.cli.graph import graph_options, joined, require_cyclone
from videogem_ros.cli.signals import interruptible
from videogem_ros.errors import RecordingError

if TYPE_CHECKING:
    from videogem_ros.adapters.bag.results import ResultWriter
    from videogem_ros.adapters.dds.participant import Participant
    from videogem_ros.evaluation.records import Box
    from videogem_ros.live.joining import ResultJoiner


@click.command(short_help="Record what a live node finds, as replay does.")
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder for the results.",
)
@click.option("--force", is_flag=True, help="Replace results that are in DIR already.")
@click.option(
    "--node", "node_name", default="/videogem", show_default=True, help="The node, with namespace."
)
@click.option("--image", default="/image", show_default=True, help="The images that it grounds.")
@click.option("--max-actions", type=click.IntRange(1), default=4, show_default=True)
@click.option(
    "--labels",
    metavar="TOPIC",
    help="vision_msgs/Detection2DArray of where the actions are in the images, as a labelled "
    "recording has it; the table then tells how many points are right.",
)
@click.option("--about", metavar="TEXT", help="What the contact sheet says of the run.")
@click.option(
    "--idle",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="End when nothing was found for so many seconds.  [default: Ctrl-C ends it]",
)
@graph_options
def record(
    out: Path,
    *,
    force: bool,
    node_name: str,
    image: str,
    max_actions: int,
    labels: str | None,
    about: str | None,
    idle: float | None,
    **graph: Any,
) -> None:
    """Write groundings.mcap, overlay.mp4, groundings.jsonl and contact_sheet.png of a live node.

    Subscribes to the node's images, groundings and heatmaps. The table at the end tells how far
    behind the images the answers were.
    """
    require_cyclone()
    from videogem_ros.adapters.bag import vision
    from videogem_ros.adapters.bag.results import ResultWriter
    from videogem_ros.adapters.dds.qos import DEFAULT
    from videogem_ros.live.joining import ResultJoiner
    from videogem_ros.live.types import typestore

    store = typestore()
    vision.register(store)
    joiner, judge = ResultJoiner(), _Judge()
    with (
        interruptible() as signals,
        joined("videogem_record", store, graph) as participant,
        ResultWriter(out, about or f"live, {node_name}", force=force) as results,
    ):
        written = _Written(results, joiner)
        _subscribe(participant, joiner, written, node_name, image, max_actions)
        if labels:
            participant.subscribe(labels, vision.LABELS, DEFAULT, judge.on_labels)
        while not signals and not (idle and written.idle_s > idle):
            participant.spin(0.1)
            written.write()
        written.write(last=True)
    if not written.messages:
        raise RecordingError(f"nothing was found: no groundings of {node_name} with {image}")
    result_console().print(_table(written.messages, judge if labels else None))
    click.echo(out)


def _subscribe(
    participant: Participant,
    joiner: ResultJoiner,
    written: _Written,
    node: str,
    image: str,
    max_actions: int,
) -> None:
    from videogem_ros.adapters.dds.qos import DEFAULT, SENSOR_DATA
    from videogem_ros.live.topics import INPUTS, SHARED_OUTPUTS, action_topic

    subscribe = participant.subscribe
    subscribe(image, INPUTS["image"], SENSOR_DATA, joiner.on_image)
    subscribe(f"{node}/grounding", SHARED_OUTPUTS["grounding"], DEFAULT, written.on_grounding)
    for index in range(max_actions):
        topic = f"{node}/{action_topic('heatmap', index)}"
        subscribe(topic, INPUTS["image"], DEFAULT, partial(joiner.on_heatmap, index))


class _Written:
    """Writes what is complete with the times of its arrival, and keeps the messages.

    Attributes:
        messages: Groundings that were written.
    """

    def __init__(self, results: ResultWriter, joiner: ResultJoiner) -> None:
        self.messages: list[Any] = []
        self._results = results
        self._joiner = joiner
        self._received_ns: dict[int, int] = {}  # by the messages' identities
        self._last_s = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Seconds since something was written; 0 before the first."""
        return time.monotonic() - self._last_s if self.messages else 0.0

    def on_grounding(self, message: Any) -> None:
        """Takes a ``videogem_ros/ActionGrounding``."""
        self._received_ns[id(message)] = time.time_ns()
        self._joiner.on_grounding(message)

    def write(self, *, last: bool = False) -> None:
        """Writes what is complete."""
        from videogem_ros.live.joining import milliseconds

        for frame, groundings, messages in self._joiner.results(last=last):
            about = [
                {
                    "received_ns": self._received_ns.pop(id(message)),
                    "latency_ms": milliseconds(message.latency),
                    "compute_ms": milliseconds(message.compute_time),
                    "backbone": message.backbone,
                }
                for message in messages
            ]
            self._results.write(frame, groundings, about)
            self.messages += messages
            self._last_s = time.monotonic()


class _Judge:
    """Tells which groundings are right, by the labels of their images."""

    def __init__(self) -> None:
        self._boxes: dict[tuple[int, str], list[Box]] = {}

    def on_labels(self, message: Any) -> None:
        """Takes a ``vision_msgs/Detection2DArray``."""
        from videogem_ros.adapters.bag.vision import read_label
        from videogem_ros.adapters.encodings import header_stamp_ns

        for label in map(read_label, message.detections):
            boxes = self._boxes.setdefault((header_stamp_ns(message), label.action), [])
            boxes += [label.box] if label.box else []

    def share(self, messages: Sequence[Any]) -> str:
        """How many points are in a box of their action, of those whose action has one."""
        from videogem_ros.adapters.encodings import header_stamp_ns
        from videogem_ros.evaluation.metrics import judge

        hits = [
            judge((message.fused_point.x, message.fused_point.y), None, boxes, hw).hit
            for message in messages
            for hw in ((message.image_height, message.image_width),)
            if (boxes := self._boxes.get((header_stamp_ns(message), message.action)))
        ]
        return f"{sum(map(bool, hits))} of {len(hits)}" if hits else "-"


def _table(messages: Sequence[Any], judge: _Judge | None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("action", min_width=14)
    for title in ("windows", "there", "score", "latency ms", "worst", "compute ms"):
        table.add_column(title, justify="right", no_wrap=True)
    if judge is not None:
        table.add_column("right", justify="right", no_wrap=True)
    actions = list(dict.fromkeys(message.action for message in messages))
    for action in actions:
        own = [message for message in messages if message.action == action]
        table.add_row(action, *_row(own, judge))
    if len(actions) > 1:
        table.add_section()
        table.add_row("all", *_row(messages, judge))
    return table


def _row(messages: Sequence[Any], judge: _Judge | None) -> list[str]:
    from videogem_ros.live.joining import milliseconds
    from videogem_ros.live.messages import Status

    latencies = [milliseconds(message.latency) for message in messages]
    return [
        str(len(messages)),
        str(sum(message.status != Status.NOT_PRESENT for message in messages)),
        f"{statistics.mean(message.score for message in messages):.2f}",
        f"{statistics.median(latencies):.0f}",
        f"{max(latencies):.0f}",
        f"{statistics.median(milliseconds(message.compute_time) for message in messages):.0f}",
        *([judge.share(messages)] if judge else []),
    ]

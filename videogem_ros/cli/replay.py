"""``videogem-ros replay``: a recording and actions go in, groundings come out."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from videogem_ros.cli.console import result_console
from videogem_ros.cli.numbers import FiniteRange
from videogem_ros.cli.options import grounding_options, load_session, set_actions, warn_of
from videogem_ros.cli.progress import progress_bar
from videogem_ros.cli.signals import interruptible
from videogem_ros.datatypes import Frame
from videogem_ros.errors import InvalidValueError, RecordingError
from videogem_ros.files import check_apart
from videogem_ros.window import Push

if TYPE_CHECKING:
    from videogem_ros.adapters.bag import Command, Source
    from videogem_ros.adapters.bag.results import ResultWriter
    from videogem_ros.session import Session


@click.command(short_help="Ground actions in a recording.")
@click.argument("recording", metavar="INPUT", type=click.Path(path_type=Path))
@click.option(
    "--action",
    "actions",
    multiple=True,
    metavar="TEXT",
    help="What to look for; repeat for several actions at once.  [default: the commands on the "
    "recording's action topic, as they occur]",
)
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder for the results.",
)
@click.option("--force", is_flag=True, help="Replace existing results in DIR.")
@click.option("--image-topic", metavar="NAME", help="Image topic, if the bag has several.")
@click.option("--action-topic", metavar="NAME", help="A bag's std_msgs/String topic of actions.")
@click.option(
    "--every", type=click.IntRange(1), default=1, metavar="N", help="Ground every Nth frame only."
)
@click.option(
    "--max-rate-hz",
    type=FiniteRange(0, min_open=True),
    metavar="HZ",
    help="Ground at most this many frames per second of recording time.",
)
@grounding_options
def replay(
    recording: Path,
    *,
    actions: tuple[str, ...],
    out: Path,
    force: bool,
    image_topic: str | None,
    action_topic: str | None,
    every: int,
    max_rate_hz: float | None,
    **grounding: Any,
) -> None:
    """Ground actions in every frame of a recording.

    INPUT is a rosbag2 (folder, .mcap or .db3), a video file or a folder of images. DIR gets
    groundings.mcap (for Foxglove; its metadata.yaml makes DIR a bag for "ros2 bag"),
    overlay.mp4, groundings.jsonl and contact_sheet.png. Ctrl-C ends early and keeps the results.
    """
    from videogem_ros.adapters.bag import open_source
    from videogem_ros.adapters.bag.results import RESULTS, ResultWriter, check_folder
    from videogem_ros.core import caveat

    if actions and action_topic:
        raise click.UsageError("give --action or --action-topic, not both")
    check_apart("--out", (out, *(out / name for name in RESULTS)), (recording,))
    with open_source(recording, image_topic, action_topic) as source:
        if not actions and source.action_topic is None:
            raise RecordingError(f"{recording}: no action topic in it; give --action TEXT")
        check_folder(out, force=force)
        session, grounder = load_session(grounding)
        if actions:
            set_actions(session, actions)
        warn_of(grounder.backbone)
        model = grounder.backbone.name.rpartition("/")[2]  # of one's own configuration, its name
        about = f"{recording.resolve().name}  ·  {model}"
        about += f"  ·  {said}" if (said := caveat(grounder.backbone)) else ""
        with interruptible() as signals, ResultWriter(out, about, force=force) as results:
            run = _Run(session, results, _Pace(every, max_rate_hz), follow=not actions)
            with contextlib.closing(_with_progress(source)) as events:
                for event in events:
                    run.take(event)
                    if signals:
                        break
    _report(run, source, results)
    if signals:
        click.get_current_context().exit(128 + signals[0])  # as a shell reports it
    if not results.frames:
        raise RecordingError(f"{recording}: no window was grounded")


class _Pace:
    """Which frames are to be grounded.

    Args:
        every: Every how many-th frame, counted from the first.
        max_rate_hz: At most so many per second of header stamps; None for any number.
    """

    def __init__(self, every: int, max_rate_hz: float | None) -> None:
        self._every = every
        # With 5 % tolerance for jitter: 10 Hz takes every frame of a 10 Hz camera.
        self._least_ns = 0.95e9 / max_rate_hz if max_rate_hz else 0.0
        self._frames = 0
        self._last_ns = -math.inf

    def due(self, stamp_ns: int) -> bool:
        """Whether the next frame, of this stamp, is to be grounded."""
        turn = self._frames % self._every == 0
        self._frames += 1
        # Time that jumps back starts anew.
        if turn and not 0 <= stamp_ns - self._last_ns < self._least_ns:
            self._last_ns = stamp_ns
            return True
        return False


class _Run:
    """Takes a recording's events one by one, and counts.

    Attributes:
        frames: Frames taken.
        windows: Windows grounded.
        grounding_s: Seconds that grounding them took.
        passed_over: Number of frames not grounded and of commands not understood, by reason.
    """

    def __init__(
        self, session: Session, results: ResultWriter, pace: _Pace, *, follow: bool
    ) -> None:
        self.frames = self.windows = 0
        self.grounding_s = 0.0
        self.passed_over: Counter[str] = Counter()
        self._session = session
        self._results = results
        self._pace = pace
        self._follow = follow

    def take(self, event: Frame | Command) -> None:
        """Obeys a command of the recording, or grounds a frame."""
        if isinstance(event, Frame):
            self._take_frame(event)
        elif self._follow:
            try:
                self._session.set_action(event.text)
            except InvalidValueError as error:
                self.passed_over[f"command not understood ({error})"] += 1

    def _take_frame(self, frame: Frame) -> None:
        self.frames += 1
        pushed = self._session.push(frame)
        if not self._pace.due(frame.stamp_ns):
            self.passed_over["left out by --every or --max-rate-hz"] += 1
        elif job := self._session.take():
            begin = time.perf_counter()
            groundings = self._session.run(job)
            self.grounding_s += time.perf_counter() - begin
            self.windows += 1
            self._results.write(job.window.newest, groundings)
        else:
            newest = pushed not in (Push.DUPLICATE, Push.LATE, Push.OUT_OF_ORDER)
            self.passed_over[(self._session.status if newest else pushed).value] += 1


def _with_progress(source: Source) -> Generator[Frame | Command, None, None]:
    """The recording's events, with a bar that counts the frames."""
    done = 0
    with progress_bar("grounding", "frames") as report:
        report(done, source.frame_count)
        for event in source:
            yield event
            if isinstance(event, Frame):
                done += 1
                report(done, source.frame_count)


def _report(run: _Run, source: Source, results: ResultWriter) -> None:
    from videogem_ros.adapters.bag.results import RESULTS

    rows = [("frames", f"{run.frames} read")]
    rows += [("", f"{count} unreadable: {reason}") for reason, count in source.skipped.items()]
    rows += [("", f"{count} not grounded: {reason}") for reason, count in run.passed_over.items()]
    if run.windows:
        mean_ms = 1e3 * run.grounding_s / run.windows
        plural = "s" if run.windows > 1 else ""
        rows += [("grounded", f"{run.windows} window{plural}, {mean_ms:.0f} ms each")]
        rows += [("results", str(results.folder))]
        rows += [("", name) for name in RESULTS]
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for title, text in rows:
        table.add_row(title, text)
    result_console().print(table)

"""``videogem-ros demo``: the live job on one machine, in three processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from videogem_ros.cli.graph import require_cyclone
from videogem_ros.cli.tabletop import draw_clips
from videogem_ros.core.configuration import SHIPPED, backbone_name
from videogem_ros.errors import VideoGemError

SEED, CLIPS, FRAMES = 7, 6, 32
"""Of the recording: six scenes of 3.2 s each."""

LONGEST_S = 180.0
"""A demo that takes longer hangs."""

ENDING_S = 20.0


@click.command(short_help="Run node, player and recorder on this machine.")
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder for the results; those of an earlier run are replaced.",
)
@click.option("--backbone", metavar="NAME", help=f"As for the node.  [default: {SHIPPED}]")
@click.option("--weights", metavar="WEIGHTS", help="As for the node.")
def demo(out: Path, *, backbone: str | None, weights: str | None) -> None:
    """Run live over loopback: a node, a player of a tabletop recording and a recorder.

    The recorder writes groundings.mcap, overlay.mp4, groundings.jsonl and contact_sheet.png to
    DIR, and prints how many points were right and how far answers lagged behind the images.
    """
    require_cyclone()
    from videogem_ros.adapters.bag.tabletop import (
        ACTION_TOPIC,
        IMAGE_TOPIC,
        LABELS_TOPIC,
        write_clips,
    )

    with tempfile.TemporaryDirectory(prefix="videogem-demo-") as scratch:
        recording = Path(scratch) / "recording"
        write_clips(recording, draw_clips(CLIPS, SEED, frames=FRAMES))
        name = backbone_name(backbone, weights)
        model = ["--backbone", name, *(("--weights", weights) if weights else ())]
        topics = ("--image", IMAGE_TOPIC, "--labels", LABELS_TOPIC)
        about = ("--about", f"live over DDS  ·  {name}")
        with (
            _process("node", *model, "--remap", f"image:={IMAGE_TOPIC}") as node,
            _process("record", "--out", str(out), "--force", *topics, *about) as recorder,
        ):
            # Only the node subscribes to commands, when it is ready, and only the recorder to
            # labels.
            awaited = (ACTION_TOPIC, IMAGE_TOPIC, LABELS_TOPIC)
            waits = [word for topic in awaited for word in ("--wait-for", topic)]
            with _process("play", str(recording), "--restamp", *waits) as player:
                _await(player, others=(node, recorder))
            time.sleep(1.0)  # for the last answers
            _end(recorder)
            _end(node)


@contextlib.contextmanager
def _process(command: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command of this package that uses the loopback interface, in a domain of this run."""
    # From 102 on a domain's ports lie where systems give out ports to anybody.
    domain = str(1 + os.getpid() % 101)
    process = subprocess.Popen(
        [sys.executable, "-m", "videogem_ros", command, *arguments, "--interface", "local"],
        env={**os.environ, "ROS_DOMAIN_ID": domain},
    )
    try:
        yield process
    finally:
        process.terminate()  # which discards what is half written; without effect where it ended
        try:
            process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(
    process: subprocess.Popen[bytes], others: tuple[subprocess.Popen[bytes], ...] = ()
) -> None:
    """Waits for a process to succeed, as long as the others run."""
    deadline_s = time.monotonic() + LONGEST_S
    while process.poll() is None:
        if any(other.poll() is not None for other in others):
            raise VideoGemError("the demo ended early; the lines above say why")
        if time.monotonic() > deadline_s:
            raise VideoGemError(f"the demo did not end within {LONGEST_S:g} s")
        time.sleep(0.1)
    if process.returncode != 0:
        raise VideoGemError("the demo failed; the lines above say why")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks a process to end, as Ctrl-C does, and waits for that."""
    process.send_signal(signal.SIGINT)
    try:
        failed = process.wait(ENDING_S) != 0
    except subprocess.TimeoutExpired as error:
        raise VideoGemError("a process of the demo did not end when asked to") from error
    if failed:
        raise VideoGemError("the demo failed; the lines above say why")

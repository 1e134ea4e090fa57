"""``videogem-ros demo``: the live job on one machine, in three processes."""

from __future__ import annotations

import contextlib
import json
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
from videogem_ros.cli.options import UNTRAINED
from videogem_ros.errors import VideoGemError

SMALL = {
    "embed_dim": 256,
    "vision_cfg": {
        "image_size": 224,
        "layers": 12,
        "width": 192,
        "head_width": 64,
        "patch_size": 16,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 256,
        "heads": 4,
        "layers": 4,
    },
}
"""An open_clip configuration of a ViT-Ti/16, for machines without a GPU and without weights."""

LONGEST_S = 100.0
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
@click.option(
    "--backbone",
    help="As of the node.  [default: a small model with seeded random weights]",
)
@click.option("--weights", help="As of the node.")
def demo(out: Path, *, backbone: str | None, weights: str | None) -> None:
    """Run the live job over loopback: a node, a player of the sample recording, a recorder.

    The recorder leaves groundings.mcap, overlay.mp4, groundings.jsonl and contact_sheet.png in
    DIR, and prints how far behind the images the answers were.
    """
    require_cyclone()
    from videogem_ros.adapters.bag.sample import ACTION_TOPIC, IMAGE_TOPIC, write_sample

    with tempfile.TemporaryDirectory(prefix="videogem-demo-") as scratch:
        recording = Path(scratch) / "recording"
        write_sample(recording)
        untrained = backbone is None
        if backbone is None:
            small = Path(scratch) / "small.json"
            small.write_text(json.dumps(SMALL))
            backbone, weights = f"openclip:{small}", "random:0"
        model = ("--backbone", backbone, *(("--weights", weights) if weights else ()))
        about = f"live over DDS  ·  {UNTRAINED if untrained else backbone}"
        images = ("--image", IMAGE_TOPIC, "--about", about)
        with (
            _process("node", *model, "--remap", f"image:={IMAGE_TOPIC}") as node,
            _process("record", "--out", str(out), "--force", *images) as recorder,
        ):
            # Only the node subscribes to commands: it is ready then.
            waits = ("--wait-for", ACTION_TOPIC, "--wait-for", IMAGE_TOPIC)
            with _process("play", str(recording), "--restamp", *waits) as player:
                _await(player, others=(node, recorder))
            time.sleep(1.0)  # for the last answers
            _end(recorder)
            _end(node)
    if untrained:
        click.secho(f"warning: {UNTRAINED}", fg="yellow", err=True)


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
        if process.poll() is None:
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

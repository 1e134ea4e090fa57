r"""Trains the shipped small backbones on tabletop scenes.

Run in this order: six runs for the image model, all but the first on the self-self path only and
the fifth on a GPU, and two runs for the video model:
    python training/train.py image --steps 3600 --out runs/first
    python training/train.py image --steps 5600 --out runs/second --rate 1e-3 --plain 0 \
        --init runs/first/checkpoint.pt
    python training/train.py image --steps 4400 --out runs/third --rate 1e-3 --plain 0 --seed 2 \
        --init runs/second/checkpoint.pt
    python training/train.py image --steps 4400 --out runs/fourth --rate 1e-3 --plain 0 --seed 3 \
        --init runs/third/checkpoint.pt
    python training/train.py image --steps 1900 --out runs/fifth --rate 2e-3 --plain 0 --seed 4 \
        --init runs/fourth/checkpoint.pt --size 320 --shards 1 --device cuda --workers 14
    python training/train.py image --steps 900 --out runs/image --rate 6e-4 --plain 0 --seed 3 \
        --init runs/fifth/checkpoint.pt --size 40
    python training/train.py video --steps 7600 --out runs/motion --seed 3 --scenes 8000 \
        --init runs/third/checkpoint.pt
    python training/train.py video --steps 1500 --out runs/video --seed 4 --scenes 5400 \
        --rate 5e-4 --init runs/motion/checkpoint.pt
    python training/train.py export runs/image/checkpoint.pt --out tabletop_image.safetensors
    python training/train.py export runs/video/checkpoint.pt --out tabletop_video.safetensors
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from batches import Batches
from held_out import HeldOut
from models import ImageStudent, Student, VideoStudent, export
from motion import see_motion
from pool import Pool, PoolConfig, open_pool
from torch import Tensor
from trainer import Plan, Trainer, VideoPlan, check_plan, train

from videogem_ros.cli.decorators import Command, add_options
from videogem_ros.cli.numbers import FiniteRange
from videogem_ros.core.backbones import openclip, viclip
from videogem_ros.core.backbones.checkpoint import TABLETOP
from videogem_ros.core.presence import fit_calibration
from videogem_ros.errors import said

OBJECTIVES = ("boxes", "contrast", "tokens")
TWINS = 0.2
"""Probability of twins in a video run's scenes: only they require motion."""


@dataclass(frozen=True)
class Conduct:
    """Where and how a run executes; up to rounding, its result depends only on the plan.

    Attributes:
        out: Folder for scenes, curve and checkpoint.
        resume: Whether to continue from the checkpoint in that folder.
        log_every: Seconds between lines of the curve.
        device: Name of a torch device.
        workers: Processes that prepare batches. Scenes are drawn by as many, or one per shard if
            that is more.
    """

    out: Path
    resume: bool
    log_every: float
    device: str
    workers: int

    @classmethod
    def taken_from(cls, options: dict[str, Any]) -> Conduct:
        """Takes its fields out of a command's options."""
        return cls(**{field.name: options.pop(field.name) for field in fields(cls)})

    def checkpoint(self, plan: Plan) -> dict[str, Any] | None:
        """The checkpoint to continue from; None for a new run.

        Raises:
            click.ClickException: It does not exist, or belongs to another plan.
        """
        if not self.resume:
            return None
        state = loaded(self.out / "checkpoint.pt")
        check_plan(state, plan)
        return state

    def open_pool(self, config: PoolConfig, plan: Plan) -> Pool:
        """The run's scenes."""
        return open_pool(self.out / "scenes", config, max(self.workers, plan.shards))


@click.group()
def main() -> None:
    """Train the small backbones on tabletop scenes."""


def usable(_: click.Context, __: click.Parameter, device: str) -> str:
    """The device, if torch can use it."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise click.BadParameter(f"expected a device that torch can use: {reason}") from error
    return device


def run_options(
    scenes: int, size: int, rate: float, patch_dropout: float, plain: float, held_out: int
) -> Callable[[Command], Command]:
    """Options of both kinds of run, with their different defaults."""
    options = (
        click.option("--steps", type=click.IntRange(1), required=True, help="Number of updates."),
        click.option("--seed", type=click.IntRange(0), default=1),
        click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True),
        click.option("--scenes", type=click.IntRange(3), default=scenes, help="Scenes to draw."),
        click.option("--size", type=click.IntRange(2), default=size, help="Scenes per shard."),
        click.option("--shards", type=click.IntRange(1), default=2, help="One per core; GPU: 1."),
        click.option(
            "--rate",
            type=FiniteRange(0, 1, min_open=True),
            default=rate,
            help="Peak learning rate.",
        ),
        click.option("--patch-dropout", type=FiniteRange(0, 0.9), default=patch_dropout),
        click.option(
            "--plain",
            type=FiniteRange(0, 1),
            default=plain,
            help="Share of steps, at the start, that train only the plain path.",
        ),
        click.option("--objective", type=click.Choice(OBJECTIVES), default="boxes"),
        click.option("--easy", is_flag=True, help="Easier scenes, for short runs."),
        click.option("--resume", is_flag=True, help="Continue from OUT's checkpoint."),
        click.option("--draw-only", is_flag=True, help="Draw the scenes and stop."),
        click.option(
            "--held-out", type=click.IntRange(1), default=held_out, help="Held-out scenes."
        ),
        click.option("--log-every", type=float, default=30.0, help="In seconds."),
        click.option("--device", default="cpu", callback=usable, help="Torch device: cpu, cuda."),
        click.option(
            "--workers",
            type=click.IntRange(1),
            default=1,
            help="Processes that prepare batches.",
        ),
    )

    return partial(add_options, options=options)


@main.command(context_settings={"show_default": True})
@run_options(scenes=36_000, size=20, rate=2e-3, patch_dropout=0.45, plain=0.25, held_out=120)
@click.option("--init", help="Checkpoint of an image run to start from.")
def image(draw_only: bool, held_out: int, **options: Any) -> None:
    """Train the image backbone."""
    how = Conduct.taken_from(options)
    plan = Plan(**options)
    init, before = state_of(plan.init) if plan.init else None, how.checkpoint(plan)
    if init and is_video(init):
        raise click.UsageError(f"--init {plan.init}: expected an image run's, got a video run's")
    pool = how.open_pool(PoolConfig(plan.seed, plan.scenes, easy=plan.easy), plan)
    if draw_only:
        return
    student = ImageStudent(openclip.TABLETOP_CONFIGURATION, plan.seed)
    if init:
        student.load_state_dict(init)
    run(student, plan, pool, HeldOut.draw(held_out, easy=plan.easy), how, before)


@main.command(context_settings={"show_default": True})
@run_options(scenes=6_000, size=8, rate=8e-4, patch_dropout=0.7, plain=0.0, held_out=60)
@click.option("--init", required=True, help="Checkpoint of an image or video run to start from.")
@click.option(
    "--motion-steps",
    type=click.IntRange(1),
    default=900,
    help="Updates of only the first block, when starting from an image run.",
)
def video(draw_only: bool, held_out: int, **options: Any) -> None:
    """Train the video backbone, starting from the image backbone."""
    how = Conduct.taken_from(options)
    plan = VideoPlan(**options)
    state, before = state_of(options["init"]), how.checkpoint(plan)
    config = viclip.MODELS[TABLETOP]
    scenes = PoolConfig(
        plan.seed, plan.scenes, config.num_frames, config.image_size, TWINS, easy=plan.easy
    )
    pool = how.open_pool(scenes, plan)
    if draw_only:
        return
    student = VideoStudent(config, plan.seed)
    if is_video(state):
        student.load_state_dict(state)
    elif not how.resume:
        student.start_from(state)
        see_motion(student, pool, plan, click.echo)
    student.hold_sight()
    held_out_ = HeldOut.draw(held_out, config.num_frames, plan.easy)
    run(student, plan, pool, held_out_, how, before)


def run(
    student: Student,
    plan: Plan,
    pool: Pool,
    held_out: HeldOut,
    how: Conduct,
    before: dict[str, Any] | None,
) -> None:
    """Execute a run of either kind, from its start or from a checkpoint."""
    trainer = Trainer(student, plan, torch.device(how.device))
    if before:
        trainer.restore(before)
    easier = 0 if plan.init else plan.steps // 3
    batches = Batches(pool, plan.seed, plan.steps, plan.shards, plan.size, easier)
    train(trainer, batches, held_out, how.out, how.log_every, how.workers)


def loaded(checkpoint: str | Path) -> dict[str, Any]:
    """A run's checkpoint, on the CPU.

    Raises:
        click.ClickException: It does not exist, or is not a run's checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(checkpoint, "cpu", weights_only=True)
        if not isinstance(state, dict) or "student" not in state:
            raise ValueError("no student in it")
    except Exception as error:  # foreign bytes make the unpickler raise errors of every kind
        raise click.ClickException(
            f"{checkpoint}: expected a checkpoint of a run, got {said(error)[:120]}"
        ) from error
    return state


def state_of(checkpoint: str | Path) -> dict[str, Tensor]:
    """A student's state dict."""
    state: dict[str, Tensor] = loaded(checkpoint)["student"]
    return state


def is_video(state: Mapping[str, Tensor]) -> bool:
    """Whether a student's state dict is a video model's."""
    return any(name.startswith("model.vision_encoder.") for name in state)


@main.command("export")
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option(
    "--scenes",
    type=click.IntRange(1),
    default=400,
    show_default=True,
    help="Held-out clips to fit the presence score on.",
)
def export_command(checkpoint: Path, out: Path, scenes: int) -> None:
    """Write a CHECKPOINT's model in half precision, in the format that the package loads."""
    state = state_of(checkpoint)
    student = (
        VideoStudent(viclip.MODELS[TABLETOP], 0)
        if is_video(state)
        else ImageStudent(openclip.TABLETOP_CONFIGURATION, 0)
    )
    student.load_state_dict(state)
    held_out = HeldOut.like_recordings(scenes, student.tower.frames)
    margins, there = held_out.margins(student.backbone())
    slope, offset = fit_calibration(margins, there)
    # As if present and absent actions were equally frequent.
    offset += math.log((len(there) - sum(there)) / sum(there))
    export(student, out, (slope, offset))
    click.echo(f"presence: slope {slope:.3f}, offset {offset:.3f}")


if __name__ == "__main__":
    main()

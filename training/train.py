r"""Trains the small backbones that the package ships, on tabletop scenes.

In this order, the image model in three runs, the later two at half the rate and on the self-self
path alone:
    python training/train.py image --steps 3600 --out runs/first
    python training/train.py image --steps 5600 --out runs/second --rate 1e-3 --plain 0 \
        --init runs/first/checkpoint.pt
    python training/train.py image --steps 4400 --out runs/image --rate 1e-3 --plain 0 --seed 2 \
        --init runs/second/checkpoint.pt
    python training/train.py video --steps 4700 --out runs/video --seed 2 --scenes 8000 \
        --init runs/image/checkpoint.pt
    python training/train.py export runs/image/checkpoint.pt --out tabletop_image.safetensors
    python training/train.py export runs/video/checkpoint.pt --out tabletop_video.safetensors
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from batches import Batches, Shard
from held_out import HeldOut
from models import ImageStudent, Student, VideoStudent, export
from objective import (
    FORMS,
    busy_patches,
    localisation_loss,
    naming_losses,
    pooled_localisation_loss,
    presence_loss,
    presence_margins,
    targets,
    token_contrast,
    twins_only,
)
from pool import Pool, PoolConfig, open_pool
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from videogem_ros.core.backbones import openclip, viclip
from videogem_ros.core.backbones.checkpoint import TABLETOP
from videogem_ros.core.presence import fit_calibration
from videogem_ros.tabletop.captions import NOTHING

OBJECTIVES = ("boxes", "contrast", "tokens")
WARM_UP = 200
UNDROPPED = 0.9
"""Share of the steps after which all patches are seen, as they are when grounding."""
HALF_DROPPED = 0.97
"""Share of a video run's steps after which half as many patches are dropped."""
ALL_FRAMES = 0.85
"""Share of a video run's steps after which all frames of a clip are seen, half of them before."""
TWINS = 0.2
"""Probability of twins in a video run's scenes: nothing else takes motion alone."""


@dataclass(frozen=True)
class Plan:
    """What a run follows from; a checkpoint continues only its own.

    Attributes:
        steps: How many updates.
        seed: Of the weights, scenes, batches and dropped patches.
        scenes: Scenes drawn.
        size: Scenes a shard.
        shards: Parts of a batch, whose gradients are computed side by side, a core each.
        rate: Highest learning rate, of the blocks' matrices; the rest learns half as fast.
        patch_dropout: Share of the patches that is dropped, in the first ``UNDROPPED`` steps:
            of those where nothing is, as long as there are any.
        objective: "boxes", "contrast" (presence alone) or "tokens" (patches, without boxes).
        easy: Whether scenes are of the easier sort.
        plain: Share of the steps, the first ones, in which patches are those of the plain path.
            Its updates take half to two thirds of the time, and the self-self path uses the same
            weights.
        init: Checkpoint of an image run whose weights it starts from; random ones where None.
    """

    steps: int
    seed: int
    scenes: int
    size: int
    shards: int
    rate: float
    patch_dropout: float
    objective: str
    easy: bool
    plain: float
    init: str | None

    def share_at(self, step: int) -> float:
        """Share of the learning rate: linear rise, then half a cosine to zero."""
        warm_up = min(WARM_UP, self.steps // 10 + 1)
        if step < warm_up:
            return (step + 1) / warm_up
        done = (step - warm_up) / max(1, self.steps - warm_up)
        return 0.5 * (1 + math.cos(math.pi * done))

    def is_plain(self, step: int) -> bool:
        """Whether patches are those of the plain path."""
        return step < self.plain * self.steps

    def frames(self, step: int, count: int) -> int:
        """How many of the frames are seen."""
        return count

    def kept(self, step: int, patches: int) -> int:
        """How many patches of an image are seen."""
        dropped = self.patch_dropout if step < UNDROPPED * self.steps else 0.0
        return round((1 - dropped) * patches)


@dataclass(frozen=True)
class VideoPlan(Plan):
    """What a video run follows from."""

    def frames(self, step: int, count: int) -> int:
        """How many of a clip's frames are seen: motion shows in half of them as well."""
        return count if step >= ALL_FRAMES * self.steps else (count + 1) // 2

    def kept(self, step: int, patches: int) -> int:
        """How many patches of a clip are seen; all of them would cost too much."""
        share = 1.0 if step < HALF_DROPPED * self.steps else 0.5
        return round((1 - share * self.patch_dropout) * patches)


class Trainer:
    """Weights, optimiser and the step.

    Args:
        student: What is trained.
        plan: How.
    """

    def __init__(self, student: Student, plan: Plan) -> None:
        self.student, self.plan = student, plan
        self.parameters = [value for value in student.parameters() if value.requires_grad]
        # Muon learns as much from half of the scenes, but is for the blocks' matrices only.
        matrices = [
            value
            for name, value in student.named_parameters()
            if value.requires_grad and value.ndim == 2 and "resblocks" in name
        ]
        held = {id(value) for value in matrices}
        rest = [value for value in self.parameters if id(value) not in held]
        muon = torch.optim.Muon(
            matrices, lr=plan.rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        )
        groups = [
            {"params": [value for value in rest if value.ndim >= 2], "weight_decay": 0.05},
            {"params": [value for value in rest if value.ndim < 2], "weight_decay": 0.0},
        ]
        adam = torch.optim.AdamW(groups, lr=plan.rate / 2, betas=(0.9, 0.98), fused=True)
        self.optimisers: tuple[torch.optim.Optimizer, ...] = (muon, adam)
        self.schedules = [LambdaLR(optimiser, plan.share_at) for optimiser in self.optimisers]
        self.step = 0

    def update(self, shards: Sequence[Shard], workers: ThreadPoolExecutor) -> dict[str, float]:
        """One update; returns the losses."""
        numbers = range(len(shards))
        results = list(workers.map(self._gradients, shards, numbers))
        for parameter, *gradients in zip(self.parameters, *(result[0] for result in results)):
            found = [gradient for gradient in gradients if gradient is not None]
            parameter.grad = sum(found[1:], found[0]).div_(len(shards)) if found else None
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser, schedule in zip(self.optimisers, self.schedules):
            optimiser.step()
            schedule.step()
        self.step += 1
        losses = [result[1] for result in results]
        # A shard may hold no text of some form.
        names = dict.fromkeys(name for loss in losses for name in loss)
        return {name: sum(loss.get(name, 0.0) for loss in losses) / len(losses) for name in names}

    def _gradients(
        self, shard: Shard, number: int
    ) -> tuple[tuple[Tensor | None, ...], dict[str, float]]:
        torch.set_num_threads(1)  # holds for the thread it is called in
        random = torch.Generator().manual_seed(
            (self.plan.seed * 1_000_003 + self.step) * 64 + number
        )
        losses, shares = self._losses(shard, random)
        gradients = torch.autograd.grad(
            torch.stack(list(losses.values())).sum(), self.parameters, allow_unused=True
        )
        return gradients, {name: value.item() for name, value in (losses | shares).items()}

    def _losses(
        self, shard: Shard, random: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What is to become small, and shares of patches that are named rightly."""
        student, objective = self.student, self.plan.objective
        kept = self.plan.kept(self.step, student.patches)
        seen = student.see(
            shard.images,
            kept,
            random,
            busy=busy_patches(shard, student.side) if objective == "boxes" else None,
            plain=self.plan.is_plain(self.step),
            frames=self.plan.frames(self.step, shard.images.shape[1]),
        )
        texts = student.read(shard.tokens)
        margins = presence_margins(seen.classes, texts, len(NOTHING), student.log_scale.exp())
        losses = {
            "presence": presence_loss(
                margins, shard, len(NOTHING), ignore_twins=not student.is_video
            )
        }
        shares: dict[str, Tensor] = {}
        temperature = student.log_temperature.exp()
        if objective == "boxes":
            target = targets(shard, seen.frames, student.side)
            places = seen.places[:, None, None].expand(-1, *target.shape[1:3], -1)
            target = target.gather(-1, places)
            similarity = torch.einsum("bfne,ce->bfcn", seen.patches, texts)
            ignored = twins_only(shard) & (not student.is_video)
            losses["place"] = localisation_loss(similarity, target, temperature)
            losses["pooled"] = pooled_localisation_loss(similarity, target, ignored, temperature)
            named = naming_losses(similarity, target, shard.claims, ignored, temperature)
            losses |= {f"{form}_naming": loss / len(FORMS) for form, (loss, _) in named.items()}
            shares = {f"{form}_named": share for form, (_, share) in named.items()}
        elif objective == "tokens":
            losses["place"] = token_contrast(
                seen.patches.flatten(1, 2), texts, shard, len(NOTHING), temperature
            )
        return losses, shares

    def state(self) -> dict[str, Any]:
        """Everything that continuing exactly needs."""
        return {
            "plan": asdict(self.plan),
            "step": self.step,
            "student": self.student.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where a checkpoint of the same plan was saved."""
        if state["plan"] != asdict(self.plan):
            raise click.UsageError(f"the checkpoint is of another run: {state['plan']}")
        self.step = state["step"]
        self.student.load_state_dict(state["student"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        for schedule, saved in zip(self.schedules, state["schedules"]):
            schedule.load_state_dict(saved)


def train(
    trainer: Trainer, batches: Batches, held_out: HeldOut, out: Path, log_every_s: float
) -> None:
    """Train to the plan's end; log, check and save on the way."""
    plan, started = trainer.plan, time.monotonic()
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(trainer.step, plan.steps),
        num_workers=1,
        prefetch_factor=4,
        multiprocessing_context="spawn",
    )
    sums: dict[str, float] = {}
    since_step, since, checked = trainer.step, started, started
    with ThreadPoolExecutor(plan.shards) as workers, (out / "curve.jsonl").open("a") as curve:
        for shards in loader:
            for name, loss in trainer.update(shards, workers).items():
                sums[name] = sums.get(name, 0.0) + loss
            now, last = time.monotonic(), trainer.step == plan.steps
            if now - since < log_every_s and not last:
                continue
            count = trainer.step - since_step
            line = {
                "step": trainer.step,
                "seconds": round(now - started, 1),
                **{name: round(total / count, 4) for name, total in sums.items()},
                "scenes_per_s": round(count * plan.shards * plan.size / (now - since), 1),
                "scale": round(trainer.student.log_scale.exp().item(), 2),
                "temperature": round(trainer.student.log_temperature.exp().item(), 2),
            }
            if now - checked > 5 * log_every_s or last:
                line |= held_out.check(trainer.student.backbone())
                torch.save(trainer.state(), out / "checkpoint.part")
                (out / "checkpoint.part").replace(out / "checkpoint.pt")
                checked = time.monotonic()
            click.echo(json.dumps(line))
            curve.write(json.dumps(line) + "\n")
            curve.flush()
            sums, since_step, since = {}, trainer.step, time.monotonic()


@click.group()
def main() -> None:
    """Train the small backbones on tabletop scenes."""


def run_options(
    scenes: int, size: int, rate: float, patch_dropout: float, plain: float, held_out: int
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Options of both kinds of run, with the defaults that differ."""
    options = (
        click.option("--steps", type=click.IntRange(1), required=True, help="Updates."),
        click.option("--seed", type=click.IntRange(0), default=1),
        click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True),
        click.option("--scenes", type=click.IntRange(3), default=scenes, help="How many to draw."),
        click.option("--size", type=click.IntRange(2), default=size, help="Scenes a shard."),
        click.option("--shards", type=click.IntRange(1), default=2, help="One a core."),
        click.option("--rate", type=float, default=rate, help="Highest learning rate."),
        click.option("--patch-dropout", type=click.FloatRange(0, 0.9), default=patch_dropout),
        click.option(
            "--plain",
            type=click.FloatRange(0, 1),
            default=plain,
            help="Share of the steps in which the plain path alone is trained.",
        ),
        click.option("--objective", type=click.Choice(OBJECTIVES), default="boxes"),
        click.option("--easy", is_flag=True, help="Easier scenes, for short runs."),
        click.option("--resume", is_flag=True, help="Continue from OUT's checkpoint."),
        click.option("--draw-only", is_flag=True, help="Draw the scenes and stop."),
        click.option(
            "--held-out", type=click.IntRange(1), default=held_out, help="Scenes to check."
        ),
        click.option("--log-every", type=float, default=30.0, help="Seconds."),
    )

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@main.command(context_settings={"show_default": True})
@run_options(scenes=36_000, size=20, rate=2e-3, patch_dropout=0.45, plain=0.25, held_out=120)
@click.option("--init", help="Checkpoint of another image run, to train further.")
def image(
    out: Path, resume: bool, draw_only: bool, held_out: int, log_every: float, **options: Any
) -> None:
    """Train the image backbone."""
    plan = Plan(**options)
    pool = open_pool(
        out / "scenes", PoolConfig(plan.seed, plan.scenes, easy=plan.easy), plan.shards
    )
    if draw_only:
        return
    student = ImageStudent(openclip.TABLETOP_CONFIGURATION, plan.seed)
    if plan.init:
        student.load_state_dict(torch.load(plan.init, weights_only=True)["student"])
    run(
        student,
        plan,
        pool,
        HeldOut.draw(held_out, easy=plan.easy),
        out,
        resume=resume,
        log_every_s=log_every,
    )


@main.command(context_settings={"show_default": True})
@run_options(scenes=6_000, size=8, rate=8e-4, patch_dropout=0.7, plain=0.0, held_out=60)
@click.option("--init", required=True, help="Checkpoint of the image run.")
def video(
    out: Path, resume: bool, draw_only: bool, held_out: int, log_every: float, **options: Any
) -> None:
    """Train the video backbone, from the image backbone."""
    plan = VideoPlan(**options)
    config = viclip.MODELS[TABLETOP]
    scenes = PoolConfig(
        plan.seed, plan.scenes, config.num_frames, config.image_size, TWINS, easy=plan.easy
    )
    pool = open_pool(out / "scenes", scenes, plan.shards)
    if draw_only:
        return
    student = VideoStudent(config, plan.seed)
    student.start_from(torch.load(options["init"], weights_only=True)["student"])
    checks = HeldOut.draw(held_out, config.num_frames, plan.easy)
    run(student, plan, pool, checks, out, resume=resume, log_every_s=log_every)


def run(
    student: Student,
    plan: Plan,
    pool: Pool,
    held_out: HeldOut,
    out: Path,
    *,
    resume: bool,
    log_every_s: float,
) -> None:
    """A run of either kind, from its start or its checkpoint."""
    trainer = Trainer(student, plan)
    if resume:
        trainer.restore(torch.load(out / "checkpoint.pt", weights_only=True))
    easier = 0 if plan.init else plan.steps // 3
    batches = Batches(pool, plan.seed, plan.steps, plan.shards, plan.size, easier)
    train(trainer, batches, held_out, out, log_every_s)


@main.command("export")
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option(
    "--scenes",
    type=click.IntRange(1),
    default=400,
    show_default=True,
    help="Held-out clips that the presence score is fitted on.",
)
def export_command(checkpoint: Path, out: Path, scenes: int) -> None:
    """Write a CHECKPOINT's model as the package loads it, in half precision."""
    state = torch.load(checkpoint, weights_only=True)
    student = (
        VideoStudent(viclip.MODELS[TABLETOP], 0)
        if any(name.startswith("model.vision_encoder.") for name in state["student"])
        else ImageStudent(openclip.TABLETOP_CONFIGURATION, 0)
    )
    student.load_state_dict(state["student"])
    held_out = HeldOut.like_recordings(scenes, student.tower.frames)
    margins, there = held_out.margins(student.backbone())
    slope, offset = fit_calibration(margins, there)
    # As if actions that are there and such that are not were asked for equally often.
    offset += math.log((len(there) - sum(there)) / sum(there))
    export(student, out, (slope, offset))
    click.echo(f"presence: slope {slope:.3f}, offset {offset:.3f}")


if __name__ == "__main__":
    main()

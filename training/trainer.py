"""A training run: its plan, its updates, its log and checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from batches import Batches, Shard
from held_out import HeldOut
from models import Student
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
    twin_loss,
    twins_only,
)
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from videogem_ros.tabletop.captions import NOTHING

CPU = torch.device("cpu")
WARM_UP = 200
UNDROPPED = 0.9
"""Share of the steps after which no patches are dropped, as when grounding."""
HALF_DROPPED = 0.97
"""Share of a video run's steps after which only half as many patches are dropped."""
ALL_FRAMES, FIRST_FRAMES = 0.85, 0.625
"""Share of a video run's steps after which all frames of a clip are used, and share of the frames
used before."""


@dataclass(frozen=True)
class Plan:
    """Everything that determines a run; a checkpoint continues only under the same plan.

    Attributes:
        steps: Number of updates.
        seed: Seed of the weights, scenes, batches and dropped patches.
        scenes: Number of scenes drawn.
        size: Scenes per shard.
        shards: Parts of a batch whose gradients are computed in parallel, one per core.
        rate: Peak learning rate of the blocks' matrices; half of it for the rest.
        patch_dropout: Share of patches dropped until ``UNDROPPED``; with "boxes", empty patches
            first.
        objective: "boxes", "contrast" (presence only) or "tokens" (patches, without boxes).
        easy: Whether all scenes are easier.
        plain: Share of the steps, at the start, that train patches of the plain path. These
            updates take half to two thirds of the time, and both paths share weights.
        init: Checkpoint of a run whose weights to start from; None: random weights.
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
        """Factor of the learning rate: linear warm-up, then cosine decay to zero."""
        warm_up = min(WARM_UP, self.steps // 10 + 1)
        if step < warm_up:
            return (step + 1) / warm_up
        done = (step - warm_up) / max(1, self.steps - warm_up)
        return 0.5 * (1 + math.cos(math.pi * done))

    def is_plain(self, step: int) -> bool:
        """Whether a step trains patches of the plain path."""
        return step < self.plain * self.steps

    def frames(self, step: int, count: int) -> int:
        """Number of frames used."""
        return count

    def kept(self, step: int, patches: int) -> int:
        """Number of patches of an image used."""
        dropped = self.patch_dropout if step < UNDROPPED * self.steps else 0.0
        return round((1 - dropped) * patches)


@dataclass(frozen=True)
class VideoPlan(Plan):
    """Everything that determines a video run.

    Attributes:
        motion_steps: Updates of only the first block, before all others.
    """

    motion_steps: int

    def frames(self, step: int, count: int) -> int:
        """Number of a clip's frames used: motion shows in fewer as well."""
        share = 1.0 if step >= ALL_FRAMES * self.steps else FIRST_FRAMES
        return round(share * count)

    def kept(self, step: int, patches: int) -> int:
        """Number of patches of a clip used; all of them would cost too much."""
        share = 1.0 if step < HALF_DROPPED * self.steps else 0.5
        return round((1 - share * self.patch_dropout) * patches)


class Means:
    """Means of the updates' losses since they were last taken."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add an update's losses."""
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
        self.count += 1

    def take(self) -> dict[str, float]:
        """The means by name, rounded for a log; waits for a GPU."""
        means = {name: round(total.item() / self.count, 4) for name, total in self._sums.items()}
        self._sums, self.count = {}, 0
        return means


class Trainer:
    """Weights, optimiser and the step.

    Args:
        student: The model to train.
        plan: Plan of the run.
        device: Device to train on.
    """

    def __init__(self, student: Student, plan: Plan, device: torch.device = CPU) -> None:
        self.student, self.plan, self.device = student.to(device), plan, device
        self.parameters = [value for value in student.parameters() if value.requires_grad]
        # Muon learns as much from half the scenes, but suits only the blocks' matrices.
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

    def update(self, shards: Sequence[Shard], workers: ThreadPoolExecutor) -> dict[str, Tensor]:
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
        # A shard may have no text of some form.
        names = dict.fromkeys(name for loss in losses for name in loss)
        nothing = torch.zeros((), device=self.device)
        return {
            name: torch.stack([loss.get(name, nothing) for loss in losses]).mean()
            for name in names
        }

    def _gradients(
        self, shard: Shard, number: int
    ) -> tuple[tuple[Tensor | None, ...], dict[str, Tensor]]:
        torch.set_num_threads(1)  # applies to the calling thread
        random = torch.Generator(self.device).manual_seed(
            (self.plan.seed * 1_000_003 + self.step) * 64 + number
        )
        losses, shares = self._losses(shard.to(self.device), random)
        gradients = torch.autograd.grad(
            torch.stack(list(losses.values())).sum(), self.parameters, allow_unused=True
        )
        return gradients, {name: value.detach() for name, value in (losses | shares).items()}

    def _losses(
        self, shard: Shard, random: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses, and shares of patches that are named correctly."""
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
            target, twin_target = (
                seen.patches_of(targets(shard, seen.frames, student.side, twins))
                for twins in (False, True)
            )
            similarity = torch.einsum("bfne,ce->bfcn", seen.patches, texts)
            ignored = twins_only(shard) & (not student.is_video)
            losses["place"] = localisation_loss(similarity, target, temperature)
            losses["pooled"] = pooled_localisation_loss(similarity, target, ignored, temperature)
            named = naming_losses(similarity, target, shard.claims, ignored, temperature)
            losses |= {f"{form}_naming": loss / len(FORMS) for form, (loss, _) in named.items()}
            shares = {f"{form}_named": share for form, (_, share) in named.items()}
            if student.is_video:
                losses["twins"], shares["twins_named"] = twin_loss(
                    similarity, target, twin_target, shard.claims, temperature
                )
        elif objective == "tokens":
            losses["place"] = token_contrast(
                seen.patches.flatten(1, 2), texts, shard, len(NOTHING), temperature
            )
        return losses, shares

    def state(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        return {
            "plan": asdict(self.plan),
            "step": self.step,
            "student": self.student.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint of the same plan."""
        check_plan(state, self.plan)
        self.step = state["step"]
        self.student.load_state_dict(state["student"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        for schedule, saved in zip(self.schedules, state["schedules"]):
            schedule.load_state_dict(saved)


def check_plan(state: dict[str, Any], plan: Plan) -> None:
    """Refuses a checkpoint of another plan.

    Raises:
        click.UsageError: The plans differ.
    """
    if state["plan"] != asdict(plan):
        raise click.UsageError(f"the checkpoint belongs to another run: {state['plan']}")


def train(
    trainer: Trainer,
    batches: Batches,
    held_out: HeldOut,
    out: Path,
    log_every_s: float,
    workers: int = 1,
) -> None:
    """Train to the end of the plan; log, check and save at intervals.

    Args:
        trainer: Trainer of the model.
        batches: Training batches.
        held_out: Scenes to check the model on.
        out: Folder for the curve and the checkpoint.
        log_every_s: Seconds between lines of the curve.
        workers: Processes that prepare batches.
    """
    plan, started = trainer.plan, time.monotonic()
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(trainer.step, plan.steps),
        num_workers=workers,
        prefetch_factor=4,
        multiprocessing_context="spawn",
    )
    means = Means()
    since, checked = started, started
    with ThreadPoolExecutor(plan.shards) as threads, (out / "curve.jsonl").open("a") as curve:
        for shards in loader:
            means.add(trainer.update(shards, threads))
            now, last = time.monotonic(), trainer.step == plan.steps
            if now - since < log_every_s and not last:
                continue
            count = means.count
            line = {
                "step": trainer.step,
                "seconds": round(now - started, 1),
                **means.take(),
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
            since = time.monotonic()

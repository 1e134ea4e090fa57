"""Trains the small backbones that the package ships, on tabletop scenes.

    python training/train.py image --steps 9000 --seed 1 --out runs/image
    python training/train.py video --init runs/image/checkpoint.pt --steps 3000 --seed 1 --out runs/video
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from batches import Batches, Shard
from held_out import HeldOut
from models import CONFIGURATION, Student, export_image, image_student
from objective import (
    localisation_loss,
    own_texts,
    presence_loss,
    presence_margins,
    targets,
    token_contrast,
)
from pool import PoolConfig, open_pool
from torch import Tensor
from torch.utils.data import DataLoader

from videogem_ros.tabletop.captions import NOTHING

OBJECTIVES = ("boxes", "contrast", "tokens")
WARM_UP = 200
UNDROPPED = 0.85
"""Share of the steps after which all patches are seen, as they are when grounding."""


@dataclass(frozen=True)
class Plan:
    """What a run follows from; a checkpoint continues only its own.

    Attributes:
        steps: How many updates.
        seed: Of the weights, scenes, batches and dropped patches.
        scenes: Scenes drawn.
        size: Scenes a shard.
        shards: Parts of a batch, whose gradients are computed side by side, a core each.
        rate: Highest learning rate.
        patch_dropout: Share of the patches that is dropped, in the first ``UNDROPPED`` steps.
        objective: "boxes", "contrast" (presence alone) or "tokens" (patches, without boxes).
        easy: Whether scenes are of the easier sort.
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

    def rate_at(self, step: int) -> float:
        """Learning rate: linear rise, then half a cosine to zero."""
        warm_up = min(WARM_UP, self.steps // 10 + 1)
        if step < warm_up:
            return self.rate * (step + 1) / warm_up
        done = (step - warm_up) / max(1, self.steps - warm_up)
        return self.rate * 0.5 * (1 + math.cos(math.pi * done))

    def kept(self, step: int, patches: int) -> int:
        """How many patches of an image are seen."""
        dropped = self.patch_dropout if step < UNDROPPED * self.steps else 0.0
        return round((1 - dropped) * patches)


class Trainer:
    """Weights, optimiser and the step.

    Args:
        student: What is trained.
        plan: How.
    """

    def __init__(self, student: Student, plan: Plan) -> None:
        self.student, self.plan = student, plan
        self.parameters = [value for value in student.parameters() if value.requires_grad]
        matrices = [value for value in self.parameters if value.ndim >= 2]
        others = [value for value in self.parameters if value.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": 0.05},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), fused=True)
        self.step = 0

    def update(self, shards: Sequence[Shard], workers: ThreadPoolExecutor) -> dict[str, float]:
        """One update; returns the losses."""
        numbers = range(len(shards))
        results = list(workers.map(self._gradients, shards, numbers))
        for parameter, *gradients in zip(self.parameters, *(result[0] for result in results)):
            found = [gradient for gradient in gradients if gradient is not None]
            parameter.grad = sum(found[1:], found[0]).div_(len(shards)) if found else None
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.rate_at(self.step)
        self.optimiser.step()
        self.step += 1
        losses = [result[1] for result in results]
        return {name: sum(loss[name] for loss in losses) / len(losses) for name in losses[0]}

    def _gradients(
        self, shard: Shard, number: int
    ) -> tuple[tuple[Tensor | None, ...], dict[str, float]]:
        torch.set_num_threads(1)  # holds for the thread it is called in
        random = torch.Generator().manual_seed(
            (self.plan.seed * 1_000_003 + self.step) * 64 + number
        )
        losses = self._losses(shard, random)
        gradients = torch.autograd.grad(
            torch.stack(list(losses.values())).sum(), self.parameters, allow_unused=True
        )
        return gradients, {name: loss.item() for name, loss in losses.items()}

    def _losses(self, shard: Shard, random: torch.Generator) -> dict[str, Tensor]:
        student, objective = self.student, self.plan.objective
        kept = self.plan.kept(self.step, student.patches)
        seen = student.see(shard.images, kept, random)
        texts = student.read(shard.tokens)
        margins = presence_margins(seen.classes, texts, len(NOTHING), student.log_scale.exp())
        losses = {
            "presence": presence_loss(
                margins, shard, len(NOTHING), ignore_twins=not student.is_video
            )
        }
        temperature = student.log_temperature.exp()
        if objective == "boxes":
            own, fits = own_texts(shard, texts)
            similarity = torch.einsum("bfne,bpe->bfpn", seen.patches, own)
            target = targets(shard, fits, seen.frames, student.side)
            places = seen.places[:, None, None].expand(-1, *target.shape[1:3], -1)
            losses["place"] = localisation_loss(
                similarity, target.gather(-1, places), temperature
            )
        elif objective == "tokens":
            losses["place"] = token_contrast(
                seen.patches.flatten(1, 2), texts, shard, len(NOTHING), temperature
            )
        return losses

    def state(self) -> dict[str, Any]:
        """Everything that continuing exactly needs."""
        return {
            "plan": asdict(self.plan),
            "step": self.step,
            "student": self.student.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where a checkpoint of the same plan was saved."""
        if state["plan"] != asdict(self.plan):
            raise click.UsageError(f"the checkpoint is of another run: {state['plan']}")
        self.step = state["step"]
        self.student.load_state_dict(state["student"])
        self.optimiser.load_state_dict(state["optimiser"])


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


@main.command()
@click.option("--steps", type=click.IntRange(1), required=True, help="Updates.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--scenes", type=click.IntRange(3), default=40_000, show_default=True)
@click.option("--size", type=click.IntRange(2), default=32, show_default=True, help="Scenes a shard.")
@click.option("--shards", type=click.IntRange(1), default=2, show_default=True, help="One a core.")
@click.option("--rate", type=float, default=1e-3, show_default=True, help="Learning rate.")
@click.option("--patch-dropout", type=click.FloatRange(0, 0.9), default=0.5, show_default=True)
@click.option("--objective", type=click.Choice(OBJECTIVES), default="boxes", show_default=True)
@click.option("--easy", is_flag=True, help="Easier scenes, for short runs.")
@click.option("--resume", is_flag=True, help="Continue from OUT's checkpoint.")
@click.option("--held-out", type=click.IntRange(1), default=120, help="Scenes of the check.")
@click.option("--log-every", type=float, default=30.0, show_default=True, help="Seconds.")
def image(
    out: Path, resume: bool, held_out: int, log_every: float, **options: Any
) -> None:
    """Train the image backbone."""
    plan = Plan(**options)
    out.mkdir(parents=True, exist_ok=True)
    pool = open_pool(
        out / "scenes", PoolConfig(plan.seed, plan.scenes, easy=plan.easy), plan.shards
    )
    trainer = Trainer(image_student(CONFIGURATION, plan.seed), plan)
    if resume:
        trainer.restore(torch.load(out / "checkpoint.pt", weights_only=True))
    batches = Batches(pool, plan.seed, plan.steps, plan.shards, plan.size)
    train(trainer, batches, HeldOut.draw(held_out, easy=plan.easy), out, log_every)
    export_image(trainer.student, out / "tabletop_image.safetensors")


if __name__ == "__main__":
    main()

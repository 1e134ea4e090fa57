"""Teaches a video model initialised from an image model to see and name motion.

An image model does not separate verbs that differ only by motion, such as push and pull: their
texts have nearly the same embedding, and patches do not encode how they move. While one of the two
is missing, training has no reason to learn the other. So a few minutes before a video run:

1. A first block is added before the image model's blocks. Its heads are set to attend to the
   frames before and after (:mod:`looking`).
2. Its MLP learns to write a patch's velocity along two directions and to leave everything else
   unchanged. All other blocks write nothing there.
3. The projection maps these two directions to unused directions of the shared space, and the texts
   learn to lie on their verb's side.

The architecture stays ViCLIP's.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from batches import Batches, Shard, captions_of, claim_row, tokens_of
from looking import Directions, clamped, look_around
from models import MatrixAttention, VideoStudent, in_dtype, normalised, pass_dtype, plain_walk
from objective import coverage
from pool import COLUMNS, Pool
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR
from trainer import Means, Plan, Trainer, VideoPlan

from videogem_ros.core.backbones.checkpoint import seeded
from videogem_ros.core.encoder import Encoder
from videogem_ros.tabletop.captions import Claim

STATISTICS_CLIPS = 64
BLOCK_RATE, WORDS_RATE = 3e-3, 1.5e-3
"""Peak learning rates of the first block and of the text tower."""
SHARD_CLIPS = 6
LOG_STEPS = 50
VELOCITY_SCALE = 32.0
"""Value written for one patch per frame: a typical 2 of 12 pixels equal a strong colour."""
INSIDE = 0.4
"""Share of a patch that must lie in an action's box for it to move with the object."""
FAST = 0.1
"""Patches per frame that count as clear motion."""
STILL_WEIGHT = 0.03
UNCHANGED_WEIGHT = 20.0
VELOCITY_SHARE = 0.3
"""Initial component of a moving patch's unit vector along the direction of its velocity."""
SIDES = {
    "push": (-1, 0),
    "lift": (-1, 0),
    "pull": (1, 0),
    "lower": (1, 0),
    "open": (0, 1),
    "close": (0, -1),
}
"""Side of a verb's texts along the first two new directions: down, and open."""
SIDE_SHARE = 0.35
"""Component of their unit vectors along it."""
WORDS_STEPS = 300
WORDS_SCENES = 24


def see_motion(
    student: VideoStudent, pool: Pool, plan: VideoPlan, log: Callable[[str], None]
) -> None:
    """Teach a student initialised from an image model to see and name motion.

    Args:
        student: Has two heads and one block more than the image model.
        pool: Clips.
        plan: Plan of the run that follows; its ``motion_steps`` are made here.
        log: Takes lines of JSON.
    """
    with seeded(plan.seed):
        before = copy.deepcopy(student)
        sample = Batches(pool, plan.seed, 1, shards=1, size=STATISTICS_CLIPS)[0][0]
        directions = look_around(student, sample.images)
        show_velocities(student, before, directions, pool, plan, log)
        new = point_out(student, directions, pool, plan.seed)
        name_motion(student, new, pool, plan.seed, log)


def show_velocities(
    student: VideoStudent,
    before: VideoStudent,
    directions: Directions,
    pool: Pool,
    plan: VideoPlan,
    log: Callable[[str], None],
) -> None:
    """Train the first block to write velocities.

    Args:
        student: A student whose first block is set by :func:`look_around`.
        before: The student before that.
        directions: Directions to write velocities along.
        pool: Clips.
        plan: Plan of the whole run.
        log: Takes lines of JSON.
    """
    trains = [parameter for parameter in student.parameters() if parameter.requires_grad]
    steps = plan.motion_steps
    own_plan = replace(plan, steps=steps, size=SHARD_CLIPS, rate=BLOCK_RATE)
    trainer = MotionTrainer(student, own_plan, before, directions)
    batches = Batches(pool, plan.seed, steps, plan.shards, SHARD_CLIPS)
    means = Means()
    with ThreadPoolExecutor(plan.shards) as workers:
        for step in range(1, steps + 1):
            means.add(trainer.update(batches[step - 1], workers))
            if step % LOG_STEPS == 0 or step == steps:
                log(json.dumps({"motion_step": step, **means.take()}))
    for parameter in trains:
        parameter.requires_grad_(True)


class MotionTrainer(Trainer):
    """Trains only the first block, to write velocities.

    Args:
        student: A student whose first block is set by :func:`look_around`.
        plan: Plan of this training.
        before: The student before that.
        directions: Directions to write velocities along.
    """

    def __init__(
        self, student: VideoStudent, plan: Plan, before: VideoStudent, directions: Directions
    ) -> None:
        student.requires_grad_(False)
        student.model.vision_encoder.transformer.resblocks[0].requires_grad_(True)
        super().__init__(student, plan)
        self.before, self.directions = before.requires_grad_(False), directions

    def _losses(
        self, shard: Shard, random: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        student, directions = self.student, self.directions
        pixels = normalised(shard.images, student.preprocessing)
        old = self.before.tower
        content = plain_walk(replace(old, blocks=()), Encoder(old, 1).tokens(pixels))
        expected = directions.without_code(content)
        dtype = pass_dtype(pixels.device)
        tower = in_dtype(student.tower, dtype)
        block = tower.blocks[0]
        # What the heads attend to is fixed; its gradients would be noise.
        looking, value = block.qkv.weight.tensor_split([2 * len(tower.class_embedding)])
        qkv = replace(block.qkv, weight=torch.cat([looking.detach(), value]))
        with MatrixAttention():
            first = replace(tower, blocks=(replace(block, qkv=qkv),))
            x = plain_walk(first, Encoder(tower, 1).tokens(pixels.to(dtype))).float()
        velocity, moving = velocities(shard, student.side)
        written = (x[:, 1:] @ directions.velocity).view(len(x), student.patches, -1, 2)
        found = written.transpose(1, 2) / VELOCITY_SCALE  # (B, T, N, 2)
        changed = x - expected
        changed = changed - changed @ directions.velocity @ directions.velocity.T
        counts = moving + STILL_WEIGHT
        pixel = student.tower.patch_hw[0]
        error = F.smooth_l1_loss(pixel * found, pixel * velocity, reduction="none").sum(dim=-1)
        losses = {
            "velocity": (error * counts).sum() / counts.sum(),
            "unchanged": UNCHANGED_WEIGHT * changed.square().mean() / expected.square().mean(),
        }
        down = torch.stack([found[moving][:, 1], velocity[moving][:, 1]])
        return losses, {"velocity_correlation": torch.corrcoef(down.detach())[0, 1]}


def velocities(shard: Shard, side: int) -> tuple[Tensor, Tensor]:
    """Velocities of patches, from the boxes that they lie in.

    Args:
        shard: Clips of T frames.
        side: Patches along each side.

    Returns:
        (B, T, N, 2) velocity of the centre of the object's box, horizontal and vertical, in
        patches per frame, between the frames before and after; zero outside of actions' boxes. And
        (B, T, N) bool, whether a patch lies in such a box.
    """
    boxes = shard.boxes[:, :, 1]  # (B, T, O, 4)
    middle = side * (boxes[..., :2] + boxes[..., 2:]) / 2
    frames = middle.shape[1]
    late, early = clamped(frames, 1), clamped(frames, -1)
    velocity = (middle[:, late] - middle[:, early]) / (late - early)[:, None, None]
    most, which = coverage(shard.boxes[:, :, 0], side, central=1.0).max(dim=2)  # (B, T, N)
    moving = most > INSIDE
    which = which[..., None].expand(-1, -1, -1, 2)
    return velocity.gather(2, which) * moving[..., None], moving


@torch.no_grad()
def point_out(student: VideoStudent, directions: Directions, pool: Pool, seed: int) -> Tensor:
    """Pass velocities through to the shared space.

    Args:
        student: A student whose first block writes them.
        directions: Directions that they are written along.
        pool: Clips, used for statistics.
        seed: Seed of their choice.

    Returns:
        (P, 3) unused orthonormal directions of the shared space: the first becomes the vertical
        velocity, the last the horizontal one, and the second stays free.
    """
    tower, velocity = student.tower, directions.velocity
    for block in tower.blocks[1:]:
        for linear in (block.out, block.contract):
            for part in (linear.weight, linear.bias):
                if part is not None:
                    part.sub_(velocity @ (velocity.T @ part))
    sums, downs, texts = [], [], []
    for shard in _clips(pool, seed + 1, STATISTICS_CLIPS // 2):
        dtype = pass_dtype(shard.images.device)
        pixels = normalised(shard.images, student.preprocessing).to(dtype)
        encoder = Encoder(in_dtype(tower, dtype))
        with MatrixAttention():
            terms, _ = encoder.walk(encoder.tokens(pixels))  # (B, L, N T, D)
        speed, moving = (x.transpose(1, 2).flatten(1, 2) for x in velocities(shard, student.side))
        sums.append(tower.ln_post(terms.float().sum(dim=1))[moving])
        downs.append(speed[moving][:, 1])
        texts.append(student.read(shard.tokens))
    x, down = torch.cat(sums), torch.cat(downs)
    embedded = x @ tower.projection
    # Texts and patches with equal weight, so that neither uses these directions.
    said, patches = torch.cat(texts), F.normalize(embedded, dim=-1)
    both = said.T @ said / len(said) + patches.T @ patches / len(patches)
    new: Tensor = torch.linalg.eigh(both).eigenvectors[:, :3]
    read = velocity / tower.ln_post.weight[:, None]
    fast = ((x - tower.ln_post.bias) @ read[:, 1])[down.abs() > FAST].abs().mean()
    gain = VELOCITY_SHARE * embedded.norm(dim=-1).mean() / fast
    tower.projection.sub_(tower.projection @ new @ new.T)
    tower.projection.add_(gain * read @ torch.stack([new[:, 2], new[:, 0]]))
    return new


def _clips(pool: Pool, seed: int, count: int) -> Iterator[Shard]:
    """At least this many clips, a few at a time."""
    steps = count // SHARD_CLIPS + 1
    batches = Batches(pool, seed, steps, shards=1, size=SHARD_CLIPS)
    return (batches[step][0] for step in range(steps))


def name_motion(
    student: VideoStudent, new: Tensor, pool: Pool, seed: int, log: Callable[[str], None]
) -> None:
    """Teach the text tower to place verbs of opposite motions on opposite sides.

    Args:
        student: Its text tower is trained.
        new: (P, 3) directions from :func:`point_out`.
        pool: Scenes that the captions describe.
        seed: Seed of the captions.
        log: Takes lines of JSON.
    """
    before = copy.deepcopy(student).requires_grad_(False)
    sides = torch.zeros(len(COLUMNS[0]), new.shape[1])
    for verb, side in SIDES.items():
        sides[COLUMNS[0].index(verb), :2] = torch.tensor(side, dtype=sides.dtype)
    trained = [value for value in student.text.parameters() if value.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=WORDS_RATE)
    schedule = OneCycleLR(optimiser, WORDS_RATE, total_steps=WORDS_STEPS)
    random = np.random.default_rng([seed, 2])
    for step in range(1, WORDS_STEPS + 1):
        texts: dict[str, Claim] = {}
        for place in random.integers(len(pool), size=WORDS_SCENES):
            made = captions_of(pool.pairs[place].astype(np.int64), random, moving=True)
            texts |= {caption.text: caption.claim for caption in made}
        tokens = torch.stack([tokens_of(text) for text in texts])
        verbs = torch.tensor([claim_row(claim)[0] for claim in texts.values()])
        with torch.no_grad():
            known = before.read(tokens)
            wanted = SIDE_SHARE * sides[verbs.clamp_min(0)] * (verbs >= 0)[:, None]
            target = F.normalize(known + (wanted - known @ new) @ new.T, dim=-1)
        loss = (student.read(tokens) - target).square().sum(dim=-1).mean()
        for value, gradient in zip(trained, torch.autograd.grad(loss, trained)):
            value.grad = gradient
        optimiser.step()
        schedule.step()
        if step % LOG_STEPS == 0:
            log(json.dumps({"words_step": step, "naming": round(loss.item(), 5)}))

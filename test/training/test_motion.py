"""Before a video run: what the first block sees of motion, and what texts say of it."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from batches import Batches, Shard, tokens_of
from click.testing import CliRunner
from looking import CODE, COMPONENTS, Directions, look_around
from models import ImageStudent, VideoStudent, attended, normalised
from motion import MotionTrainer, name_motion, point_out, velocities
from pool import Pool, PoolConfig, open_pool
from train import main
from trainer import Plan

from videogem_ros.core import Encoder
from videogem_ros.core.attention import split_heads
from videogem_ros.core.backbones import openclip, viclip
from videogem_ros.core.backbones.checkpoint import TABLETOP

FRAMES = 8


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Six clips of the shipped model's size."""
    config = PoolConfig(seed=3, scenes=6, frames=FRAMES, empty=0.0)
    return open_pool(tmp_path_factory.mktemp("scenes"), config, processes=1)


@pytest.fixture(scope="module")
def started() -> VideoStudent:
    student = VideoStudent(viclip.MODELS[TABLETOP], 1)
    student.start_from(ImageStudent(openclip.TABLETOP_CONFIGURATION, 1).state_dict())
    return student


@pytest.fixture(scope="module")
def looking(started: VideoStudent, scenes: Pool) -> tuple[VideoStudent, Directions]:
    student = copy.deepcopy(started)
    return student, look_around(student, shard_of(scenes, 6).images)


def shard_of(scenes: Pool, size: int, seed: int = 5) -> Shard:
    return Batches(scenes, seed, 1, shards=1, size=size)[0][0]


def tokens(student: VideoStudent, images: torch.Tensor) -> torch.Tensor:
    """What the first block is given, (B, 1 + N T, D)."""
    pixels = normalised(images, student.preprocessing)
    return student.tower.ln_pre(Encoder(student.tower, 1).tokens(pixels))


@torch.no_grad()
def test_heads_look_at_the_same_patch_a_frame_before_and_after(
    looking: tuple[VideoStudent, Directions], scenes: Pool
) -> None:
    """At the clip's ends at the patch itself."""
    student, _ = looking
    block = student.tower.blocks[0]
    x = tokens(student, shard_of(scenes, 2, seed=6).images)
    q, k, _ = split_heads(block.qkv(block.ln_1(x)), 2)
    weights = torch.softmax(q @ k.transpose(-2, -1) / student.tower.head_dim**0.5, dim=-1)
    patches = student.patches
    by_place = weights[:, :, 1:, 1:].view(-1, 2, patches, FRAMES, patches, FRAMES)
    for head, shift in enumerate((-1, 1)):
        for frame in range(FRAMES):
            seen = min(max(frame + shift, 0), FRAMES - 1)
            right = by_place[:, head, :, frame, :, seen].diagonal(dim1=1, dim2=2)
            assert right.min() > 0.9, (head, frame)


@torch.no_grad()
def test_what_stands_still_makes_hardly_a_difference(
    looking: tuple[VideoStudent, Directions], scenes: Pool
) -> None:
    student, directions = looking
    images = shard_of(scenes, 2, seed=6).images
    found = []
    for clip in (images, images[:, :1].expand_as(images)):
        x = tokens(student, clip)
        added = attended(student.tower.blocks[0], x, 2)[:, 1:]
        found.append((added @ directions.differences).abs())
        # The difference is all that the heads write.
        rest = added - added @ directions.differences @ directions.differences.T
        assert rest.abs().max() < 1e-4
    moving, still = found
    assert moving.mean() > 0.05
    assert still.mean() < 0.15 * moving.mean()  # of the code of time, a little comes along


@torch.no_grad()
def test_content_comes_through_as_it_was(
    started: VideoStudent, looking: tuple[VideoStudent, Directions], scenes: Pool
) -> None:
    """Beside the code, as large as before on average."""
    student, directions = looking
    basis = torch.cat([directions.code, directions.differences], dim=1)
    assert basis.shape[1] == CODE + COMPONENTS
    torch.testing.assert_close(basis.T @ basis, torch.eye(len(basis.T)), atol=1e-4, rtol=0)
    images = shard_of(scenes, 4, seed=6).images
    before, after = (
        directions.without_code(tokens(model, images)[:, 1:]) for model in (started, student)
    )
    cosines = torch.nn.functional.cosine_similarity(before, after, dim=-1)
    assert cosines.mean() > 0.98
    assert (after.norm(dim=-1) / before.norm(dim=-1)).median() == pytest.approx(1, abs=0.1)


def test_velocity_is_that_of_the_box_in_patches_a_frame() -> None:
    boxes = torch.zeros(1, FRAMES, 2, 1, 4)
    steps = torch.arange(FRAMES) / 24  # half a patch of twelve a frame
    boxes[0, :, :, 0] = torch.tensor([0.25, 0.1, 0.5, 0.3])
    boxes[0, :, :, 0, 1::2] += steps[:, None, None]
    nothing = torch.zeros(0)
    velocity, moving = velocities(
        Shard(nothing, boxes, nothing, nothing, nothing, nothing), side=12
    )
    assert velocity.shape == (1, FRAMES, 144, 2)
    assert moving.any(dim=2).all()
    torch.testing.assert_close(
        velocity[moving], torch.tensor([0.0, 0.5]).expand(int(moving.sum()), 2)
    )
    assert not velocity[~moving].any()
    rows = moving.view(FRAMES, 12, 12).any(dim=2).float().argmax(dim=1)
    assert rows[-1] > rows[0]


def test_only_the_first_block_learns_velocities(
    started: VideoStudent, looking: tuple[VideoStudent, Directions], scenes: Pool, plan: Plan
) -> None:
    """And of it not where the heads look."""
    student, directions = copy.deepcopy(looking[0]), looking[1]
    before = {name: value.clone() for name, value in student.state_dict().items()}
    trainer = MotionTrainer(student, plan, copy.deepcopy(started), directions)
    gradients, losses = trainer._gradients(shard_of(scenes, 2), 0)
    assert set(losses) == {"velocity", "unchanged", "velocity_correlation"}
    learns = {
        name
        for name, parameter in student.named_parameters()
        if any(parameter is held for held in trainer.parameters)
    }
    first = "model.vision_encoder.transformer.resblocks.0."
    assert learns == {name for name in before if name.startswith(first)}
    (projection,) = (
        gradient
        for name, gradient in zip(
            (name for name, value in student.named_parameters() if value.requires_grad), gradients
        )
        if name.endswith("in_proj_weight")
    )
    width = len(student.tower.class_embedding)
    assert not projection[: 2 * width].any()
    assert projection[2 * width :].any()


@torch.no_grad()
def test_velocities_come_through_to_the_shared_space(
    looking: tuple[VideoStudent, Directions], scenes: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first block writes them, and the projection takes them to their own directions."""
    monkeypatch.setattr("motion.STATISTICS_CLIPS", 6)  # there are no more
    student, directions = copy.deepcopy(looking[0]), looking[1]
    new = point_out(student, directions, scenes, seed=1)
    torch.testing.assert_close(new.T @ new, torch.eye(3), atol=1e-5, rtol=0)
    for block in student.tower.blocks[1:]:
        for linear in (block.out, block.contract):
            written = torch.cat([linear.weight, linear.bias[:, None]], dim=1)
            assert (directions.velocity.T @ written).abs().max() < 1e-5
    tower = student.tower
    moves = directions.velocity.T * tower.ln_post.weight  # one unit each, across and down
    across, down = moves @ tower.projection @ new
    assert down[0] > 10 * down[1:].abs().max()
    assert across[2] > 10 * across[:2].abs().max()
    assert not (tower.projection @ new[:, 1]).abs().max() > 1e-5


def test_texts_of_opposite_motions_move_apart(
    started: VideoStudent, scenes: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("motion.WORDS_STEPS", 100)
    monkeypatch.setattr("motion.WORDS_SCENES", 6)
    student = copy.deepcopy(started)
    texts = {
        verb: tokens_of(f"{verb} the red cup")
        for verb in ("push", "pull", "lift", "lower", "wipe", "pour")
    }
    stacked = torch.stack(list(texts.values()))
    new = torch.linalg.qr(torch.randn(128, 3, generator=torch.Generator().manual_seed(1))).Q
    with torch.no_grad():
        before = student.read(stacked)
    lines: list[str] = []
    name_motion(student, new, scenes, 1, lines.append)
    with torch.no_grad():
        after = student.read(stacked)
    down = dict(zip(texts, (after @ new[:, 0]).tolist()))
    assert min(down["pull"], down["lower"]) > max(down["push"], down["lift"]) + 0.3
    assert min(down["pull"], down["lower"]) > max(down["wipe"], down["pour"])
    assert max(down["push"], down["lift"]) < min(down["wipe"], down["pour"])
    rest_before, rest_after = (x - x @ new @ new.T for x in (before, after))
    assert torch.nn.functional.cosine_similarity(rest_before, rest_after).min() > 0.9
    assert len(lines) == 2


@pytest.mark.slow
def test_a_video_run_begins_with_motion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches' velocities are learned from six clips; what is then held stays through the run."""
    monkeypatch.setattr("motion.STATISTICS_CLIPS", 6)
    monkeypatch.setattr("motion.WORDS_STEPS", 50)
    monkeypatch.setattr("motion.WORDS_SCENES", 3)
    image = ImageStudent(openclip.TABLETOP_CONFIGURATION, 1)
    torch.save({"student": image.state_dict()}, tmp_path / "image.pt")
    sizes = "--steps 1 --scenes 6 --size 2 --shards 2 --held-out 2 --motion-steps 150"
    names = ("--init", str(tmp_path / "image.pt"), "--out", str(tmp_path / "video"))
    result = CliRunner().invoke(main, ["video", *sizes.split(), *names], catch_exceptions=False)
    lines = [json.loads(line) for line in result.output.splitlines()]
    learned = [line["velocity_correlation"] for line in lines if "motion_step" in line]
    assert len(learned) == 3
    assert learned[-1] > max(learned[0], 0.0) + 0.2
    state = torch.load(tmp_path / "video" / "checkpoint.pt", weights_only=True)
    student = VideoStudent(viclip.MODELS[TABLETOP], 1)
    student.load_state_dict(state["student"])
    student.hold_sight()
    held = {name for name, value in student.named_parameters() if not value.requires_grad}
    trained = sum(
        len(group["params"]) for one in state["optimisers"] for group in one["param_groups"]
    )
    assert trained == len(list(student.parameters())) - len(held)

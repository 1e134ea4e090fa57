"""Training reruns to the last bit, continues exactly, and learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import click
import pytest
import torch
from batches import Batches
from click.testing import CliRunner
from models import ImageStudent, VideoStudent
from pool import Pool
from tiny import ROOT, TINY_VICLIP
from train import main
from trainer import Plan, Trainer, VideoPlan


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.student.state_dict().items()}


def run(trainer: Trainer, pool: Pool, steps: Iterable[int]) -> list[dict[str, float]]:
    plan = trainer.plan
    batches = Batches(pool, plan.seed, plan.steps, plan.shards, plan.size)
    with ThreadPoolExecutor(plan.shards) as workers:
        return [trainer.update(batches[step], workers) for step in steps]


@pytest.fixture(params=["image", "video"])
def trainers(
    request: pytest.FixtureRequest, image_configuration: Path, plan: Plan
) -> list[Trainer]:
    """Two that begin alike."""
    made: list[Trainer] = []
    for _ in range(2):
        student: ImageStudent | VideoStudent
        if request.param == "image":
            student = ImageStudent(image_configuration, 3)
        else:
            student = VideoStudent(replace(TINY_VICLIP, quick_gelu=False), 3)
            plan = VideoPlan(**asdict(plan) | {"motion_steps": 1})
        made.append(Trainer(student, plan))
    return made


@pytest.fixture
def pool(trainers: list[Trainer], clips: Pool) -> Pool:
    if trainers[0].student.is_video:
        return clips
    config = replace(clips.config, frames=1)
    return replace(clips, config=config, images=clips.images[:, :1], boxes=clips.boxes[:, :1])


def test_equal_seeds_give_equal_weights(trainers: list[Trainer], pool: Pool, plan: Plan) -> None:
    first, second = (run(trainer, pool, range(plan.steps)) for trainer in trainers)
    assert first == second
    for name, value in weights(trainers[0]).items():
        assert torch.equal(value, weights(trainers[1])[name]), name


def test_a_checkpoint_continues_exactly(
    trainers: list[Trainer], pool: Pool, plan: Plan, tmp_path: Path
) -> None:
    whole, cut = trainers
    losses = run(whole, pool, range(plan.steps))
    run(cut, pool, range(2))
    torch.save(cut.state(), tmp_path / "checkpoint.pt")
    run(cut, pool, range(2))  # what follows must not matter
    cut.restore(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    assert cut.step == 2
    assert run(cut, pool, range(2, plan.steps)) == losses[2:]
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(cut)[name]), name


def test_a_checkpoint_of_another_run_is_refused(trainers: list[Trainer]) -> None:
    state = trainers[0].state()
    state["plan"]["rate"] = 0.5
    with pytest.raises(click.UsageError, match="another run"):
        trainers[1].restore(state)


def test_a_video_run_sees_fewer_frames_first(trainers: list[Trainer]) -> None:
    plan = replace(trainers[0].plan, steps=100)
    seen = [plan.frames(step, trainers[0].student.tower.frames) for step in (0, 99)]
    assert seen == ([5, 8] if trainers[0].student.is_video else [1, 1])


@pytest.mark.slow
def test_the_command_learns(tmp_path: Path) -> None:
    """From nothing, on easy scenes: points leave the centre for the object that is named."""
    command = [sys.executable, str(ROOT / "training" / "train.py"), "image"]
    options = "--steps 90 --easy --scenes 400 --size 12 --held-out 40"
    subprocess.run(
        [*command, *options.split(), "--log-every", "1000", "--out", str(tmp_path)],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=900,
    )
    (last,) = map(json.loads, (tmp_path / "curve.jsonl").read_text().splitlines())
    assert last["object"] > last["centre"] + 0.2
    assert (tmp_path / "checkpoint.pt").is_file()


@pytest.mark.parametrize("how", ["none.pt", "text.pt", "--resume"])
def test_a_checkpoint_that_is_none_is_refused_before_anything_is_drawn(
    tmp_path: Path, how: str
) -> None:
    (tmp_path / "text.pt").write_text("text")
    out = tmp_path / "run"
    option = [how] if how == "--resume" else ["--init", str(tmp_path / how)]
    result = CliRunner().invoke(main, ["image", "--steps", "1", "--out", str(out), *option])
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert "expected a checkpoint of a run, got" in line
    assert not out.exists()


@pytest.mark.parametrize("device", ["warp", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_drawn(
    tmp_path: Path, device: str
) -> None:
    out = tmp_path / "run"
    result = CliRunner().invoke(
        main, ["image", "--steps", "1", "--out", str(out), "--device", device]
    )
    assert result.exit_code == 2
    assert "Invalid value for '--device': expected a device that torch can use" in result.output
    assert not out.exists()

"""Models in training small enough for tests, and scenes for them."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import ROOT, TINY_CLIP, TINY_VICLIP

sys.path.insert(0, str(ROOT / "training"))  # as `python training/train.py` finds its modules

from models import ImageStudent, Student, VideoStudent
from pool import Pool, PoolConfig, open_pool
from trainer import Plan


def stir(student: Student) -> Student:
    """Adds noise to every weight, which makes frames and patches clearly different."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in student.parameters():
            value.add_(0.02 * torch.randn(value.shape, generator=generator))
    return student.requires_grad_(False)


@pytest.fixture(scope="session")
def image_configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = copy.deepcopy(TINY_CLIP)
    config["text_cfg"]["context_length"] = 32
    path = tmp_path_factory.mktemp("configuration") / "tiny.json"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def image_student(image_configuration: Path) -> Student:
    return stir(ImageStudent(image_configuration, 0))


@pytest.fixture
def video_student() -> Student:
    return stir(VideoStudent(replace(TINY_VICLIP, quick_gelu=False), 0))


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Six clips of eight frames."""
    config = PoolConfig(seed=3, scenes=6, frames=8, side_px=64, twins=0.5, empty=0.0)
    return open_pool(tmp_path_factory.mktemp("clips"), config, processes=1)


@pytest.fixture(scope="session")
def plan() -> Plan:
    """A short run."""
    return Plan(
        steps=4,
        seed=7,
        scenes=6,
        size=2,
        shards=2,
        rate=1e-3,
        patch_dropout=0.3,
        objective="boxes",
        easy=False,
        plain=0.5,
        init=None,
    )

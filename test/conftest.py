"""Fixtures: tiny seeded backbones and the shared folder, if it exists."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    # Set before open_clip imports Triton; its kernels are then interpreted in NumPy.
    os.environ["TRITON_INTERPRET"] = "1"

from hypothesis import settings
from tiny import ROOT, TINY_CLIP, TINY_VICLIP

from videogem_ros.core.backbones import Backbone, load_backbone, viclip

settings.register_profile("repository", deadline=None, derandomize=True)
settings.load_profile("repository")

SHARED = ROOT.parent / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests run first, so that no worker is left with one at the end."""
    items.sort(key=lambda item: "slow" not in item.keywords)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny models spend more time waking threads than computing."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_clip_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip model configuration small enough for tests: ``openclip:<this path>``."""
    path = tmp_path_factory.mktemp("backbone") / "tiny.json"
    path.write_text(json.dumps(TINY_CLIP))
    return path


@pytest.fixture(scope="session")
def tiny_image_backbone(tiny_clip_config: Path) -> Backbone:
    """A seeded untrained CLIP: 64 pixels, patch 16, 8 blocks."""
    return load_backbone(f"openclip:{tiny_clip_config}", "random:0")


@pytest.fixture(scope="session")
def tiny_video_backbone() -> Backbone:
    """A seeded untrained ViCLIP: 8 frames of 64 pixels, patch 16, 8 blocks."""
    with viclip.seeded(0):
        model = viclip.ViClip(TINY_VICLIP)
    return viclip.ViClipBackbone("viclip:tiny", model.eval().requires_grad_(False), untrained=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real recordings and annotations; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("no shared folder with recordings beside the repository")
    return SHARED

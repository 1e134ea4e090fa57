"""Fixtures for tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def untrained(tiny_clip_config: Path) -> list[str]:
    """Options that choose a tiny model with random weights."""
    return ["--backbone", f"openclip:{tiny_clip_config}", "--weights", "random:0", "--device=cpu"]

"""A recording to try commands on: two tabletop scenes with one action each."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from videogem_ros.adapters.bag.tabletop import write_clips
from videogem_ros.tabletop import Clip, SceneConfig, make_clip

CLIP_FRAMES, RATE_HZ = 20, 10
FRAMES = 2 * CLIP_FRAMES


@functools.cache
def clips() -> tuple[Clip, ...]:
    """The scenes."""
    config = SceneConfig(actions=(1, 1), twins=0.0)
    return tuple(
        make_clip(np.random.default_rng(seed), CLIP_FRAMES, config=config) for seed in (0, 1)
    )


def texts() -> list[str]:
    """The commands: one before the first frame of each scene."""
    return [clip.performed[0].texts[0] for clip in clips()]


def write_recording(folder: Path) -> Path:
    """Writes the recording into a folder, as a bag named "sample"."""
    write_clips(folder / "sample", clips())
    return folder / "sample"

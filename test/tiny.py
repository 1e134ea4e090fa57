"""Models small enough for tests, and paths."""

from __future__ import annotations

from pathlib import Path

from videogem_ros.core.backbones import viclip

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"

TINY_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 8, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}

SMALL_CLIP = {
    "embed_dim": 256,
    "vision_cfg": {
        "image_size": 224,
        "layers": 12,
        "width": 192,
        "head_width": 64,
        "patch_size": 16,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 256,
        "heads": 4,
        "layers": 4,
    },
}
"""A ViT-Ti/16, slow enough that a window takes noticeable time."""

TINY_VICLIP = viclip.ViClipConfig(
    embed_dim=32,
    image_size=64,
    patch_size=16,
    width=64,
    layers=8,
    heads=2,
    text_width=32,
    text_heads=2,
    text_layers=1,
)

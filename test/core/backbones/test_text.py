"""Texts: open_clip's own embeddings, each text's its own to the last bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY_CLIP, TINY_VICLIP

from videogem_ros.core.backbones import Backbone, load_backbone, viclip

FULL_SIZE = {"width": 512, "heads": 8, "layers": 12}
"""The text tower of every CLIP and ViCLIP B-16."""

TEXTS = (
    "",
    "pour",
    "A photo of a person pour something.",
    "A photo of a person using the orange juice.",
    "A photo of a person pour the orange juice slowly into the tall glass on the table.",
    " ".join(["stir"] * 30),
    " ".join(["stir"] * 31),
    " ".join(["stir"] * 75),
    " ".join(["stir"] * 200),
)
"""From no word to more than a context of 32, or of 77, holds."""


def clip(folder: Path, quick_gelu: bool = False, custom: bool = False, **text: Any) -> Backbone:
    path = folder / "clip.json"
    text_cfg = TINY_CLIP["text_cfg"] | text
    config = TINY_CLIP | {"text_cfg": text_cfg, "quick_gelu": quick_gelu, "custom_text": custom}
    path.write_text(json.dumps(config))
    return load_backbone(f"openclip:{path}", "random:3")


def full_size_viclip() -> Backbone:
    sizes = {f"text_{name}": value for name, value in FULL_SIZE.items()}
    with viclip.seeded(3):
        model = viclip.ViClip(replace(TINY_VICLIP, **sizes)).eval().requires_grad_(False)
    return viclip.ViClipBackbone("viclip:full", model, untrained=True)


@pytest.fixture(scope="module", params=["context of 77", "context of 32"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    if request.param == "context of 32":
        return full_size_viclip()
    return clip(tmp_path_factory.mktemp("clip"), **FULL_SIZE)


def official(backbone: Backbone) -> torch.Tensor:
    """All texts by open_clip's own forward over the whole context."""
    tokens = backbone._tokenizer(list(TEXTS))
    with torch.inference_mode():
        if isinstance(backbone.model, viclip.ViClip):
            return torch.nn.functional.normalize(backbone.model.text_encoder(tokens), dim=-1)
        return backbone.model.encode_text(tokens, normalize=True)


def test_texts_of_every_length_are_open_clips_own(backbone: Backbone) -> None:
    found = backbone.encode_text(TEXTS)
    torch.testing.assert_close(found, official(backbone), atol=1e-6, rtol=0)


def test_a_text_is_the_same_to_the_last_bit_whatever_stands_beside_it(backbone: Backbone) -> None:
    alone = torch.cat([backbone.encode_text([text]) for text in TEXTS])
    assert torch.equal(backbone.encode_text(TEXTS), alone)
    assert torch.equal(backbone.encode_text(TEXTS[::-1]), alone.flip(0))
    assert torch.equal(backbone.encode_text([TEXTS[3]] * 3), alone[3].expand(3, -1))


@pytest.mark.parametrize(
    ("walked", "options"),
    [
        (True, {"quick_gelu": True, "layers": 2}),
        (True, {"ls_init_value": 0.5, "layers": 2}),
        (True, {"custom": True}),
        (False, {"custom": True, "pool_type": "last"}),  # SigLIP's
        (False, {"custom": True, "no_causal_mask": True}),
        (False, {"proj_bias": True}),
        (False, {"embed_cls": True, "custom": True}),  # CoCa's
    ],
)
def test_other_text_towers_are_open_clips_own_too(
    tmp_path: Path, walked: bool, options: dict[str, Any]
) -> None:
    backbone = clip(tmp_path, **options)
    assert (backbone._text_tower is not None) == walked
    found = backbone.encode_text(TEXTS)
    torch.testing.assert_close(found, official(backbone), atol=1e-6, rtol=0)
    assert torch.equal(found[2:3], backbone.encode_text(TEXTS[2:3]))

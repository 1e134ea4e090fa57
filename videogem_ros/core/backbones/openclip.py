"""CLIP models of open_clip with a vision transformer: OpenAI's, LAION's and one's own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import HFTokenizer
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from videogem_ros.core.backbones.checkpoint import (
    SHIPPED,
    TABLETOP,
    UNFITTED,
    fill,
    hub_file,
    is_file_name,
    random_seed,
    read_presence_fit,
    read_state,
    seeded,
)
from videogem_ros.core.backbones.preprocessing import (
    OPENAI_MEAN,
    OPENAI_PREPROCESSING,
    OPENAI_STD,
    Preprocessing,
)
from videogem_ros.core.backbones.text import TextTower, is_clips
from videogem_ros.core.tower import Norm, VisionTower, blocks_of, narrow
from videogem_ros.errors import InvalidValueError, WeightsError, reason

DEFAULT_WEIGHTS = "openai"
TABLETOP_CONFIGURATION = SHIPPED / "tabletop_image.json"
TABLETOP_WEIGHTS = SHIPPED / "tabletop_image.safetensors"
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Possible names of the weight file in a tag's hub repository."""
PAPER_INPUT = 448
"""The paper grounds CLIP at 448 x 448, whatever the model was trained at."""
SMALLEST_PUBLISHED = 224
"""A model trained at a lower resolution is a custom one, and is used at that resolution."""


class OpenClipBackbone:
    """A CLIP of open_clip; ``model`` stays an ordinary open_clip model.

    In half precision its image tower is mixed, and encodes images under ``torch.autocast``.

    Args:
        name: ``openclip:MODEL``.
        model: A CLIP or CustomTextCLIP with a supported vision tower.
        tokenizer: The model's own.
        preprocessing: Mean and standard deviation the model was trained with, bicubic.
        untrained: Whether its weights are random.
        presence_fit: Platt's slope and offset of its margins.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        preprocessing: Preprocessing,
        untrained: bool,
        presence_fit: tuple[float, float] = UNFITTED,
    ) -> None:
        self.name = name
        self.model = model
        self.tower = tower_of(model.visual, name)
        self.preprocessing = preprocessing
        trained_hw = self.tower.input_hw
        published = min(trained_hw) >= SMALLEST_PUBLISHED
        self.input_hw = (PAPER_INPUT, PAPER_INPUT) if published else trained_hw
        self.logit_scale = float(model.logit_scale.exp())
        self.untrained = untrained
        self.presence_fit = presence_fit
        self._tokenizer = tokenizer
        custom = not isinstance(model, open_clip.CLIP)
        text = model.text if custom else model
        pool_type = getattr(text, "pool_type" if custom else "text_pool_type", "")
        self._text_tower = TextTower.of(text) if is_clips(text, pool_type) else None

    @property
    def window_frames(self) -> int:
        """1: frames are encoded one by one."""
        return 1

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(K, P) float32 unit vectors of K texts, on the tower's device."""
        tokens = self._tokenizer(list(texts))
        if self._text_tower is None:  # one at a time, as the tower does
            tokens = tokens.to(self.model.logit_scale.device)
            return torch.cat([self.model.encode_text(row[None], normalize=True) for row in tokens])
        return nn.functional.normalize(self._text_tower(tokens), dim=-1)


def load(
    model: str, weights: str | None, device: torch.device, dtype: torch.dtype
) -> OpenClipBackbone:
    """Build an open_clip model and fill it; see :func:`videogem_ros.core.load_backbone`."""
    weights = weights or (str(TABLETOP_WEIGHTS) if model == TABLETOP else DEFAULT_WEIGHTS)
    config, name, preprocessing = _configuration(model)
    # Unsupported towers are refused before gigabytes are downloaded or initialised.
    with torch.device("meta"):
        tower_of(build(config, model).get_submodule("visual"), model)
    tokenizer = _tokenizer(config, name)
    presence_fit = UNFITTED
    seed = random_seed(weights)
    if seed is not None:
        with seeded(seed):
            clip = build(config, model)
    elif is_file_name(weights):
        state, presence_fit = read_state(weights), read_presence_fit(weights)
        clip = fill(build(config, model), state, weights)
    else:
        tag = _tag(name, weights)
        preprocessing = _preprocessing(tag)
        state = read_state(hub_file(tag["hf_hub"].rstrip("/"), HUB_FILES, weights))
        # OpenAI's weights need QuickGELU, whichever of a model's two names was asked for.
        clip = fill(
            build(config | {"quick_gelu": tag.get("quick_gelu", False)}, model), state, weights
        )
    clip.eval().requires_grad_(False).to(device)
    narrow(clip.get_submodule("visual.transformer.resblocks"), dtype)
    return OpenClipBackbone(
        f"openclip:{model}", clip, tokenizer, preprocessing, seed is not None, presence_fit
    )


def _configuration(model: str) -> tuple[dict[str, Any], str | None, Preprocessing]:
    """A model configuration, for one of open_clip's own its name, and what it says of pixels."""
    if model == TABLETOP:
        model = str(TABLETOP_CONFIGURATION)
    if model.endswith(".json"):
        try:
            given = json.loads(Path(model).read_text(encoding="utf-8"))
            config = given.get("model_cfg", given)
            parts = [config.get(name) for name in ("vision_cfg", "text_cfg")]
            if "embed_dim" not in config or not all(isinstance(part, dict) for part in parts):
                raise ValueError("no embed_dim, vision_cfg and text_cfg in it")
            preprocessing = _preprocessing(given.get("preprocess_cfg", {}))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InvalidValueError(
                "backbone", "an open_clip model configuration", f"{model} ({reason(error)})"
            ) from error
        return config, None, preprocessing
    if model not in open_clip.list_models():
        raise InvalidValueError(
            "backbone", "an open_clip model name, such as ViT-B-16, or a .json file", model
        )
    return open_clip.get_model_config(model), model, OPENAI_PREPROCESSING


def _preprocessing(given: Mapping[str, Any]) -> Preprocessing:
    """With open_clip's ``mean`` and ``std`` of a tag or a file, OpenAI's where there are none.

    Raises:
        ValueError: They are not three numbers each, or a deviation is not above zero.
    """
    mean, std = _three(given.get("mean") or OPENAI_MEAN), _three(given.get("std") or OPENAI_STD)
    if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
        raise ValueError(f"invalid mean and std of pixels: {mean} and {std}")
    return Preprocessing(mean, std, "bicubic", antialias=True)


def _three(given: Any) -> tuple[float, float, float]:
    red, green, blue = map(float, given)
    return red, green, blue


def _tokenizer(config: Mapping[str, Any], name: str | None) -> Any:
    """The tokenizer of open_clip's model of that name, or the one that a model file asks for."""
    try:
        if name is not None:
            return open_clip.get_tokenizer(name)
        text = config["text_cfg"]
        options = {"context_length": text.get("context_length", 77)}
        options |= text.get("tokenizer_kwargs", {})
        if not text.get("hf_tokenizer_name"):
            return open_clip.SimpleTokenizer(**options)
        if "tokenizer_mode" in text:
            options["tokenizer_mode"] = text["tokenizer_mode"]
        return HFTokenizer(text["hf_tokenizer_name"], **options)
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise InvalidValueError(
            "backbone", "a model whose tokenizer can be loaded", f"{name or 'custom'} ({error})"
        ) from error


def build(config: Mapping[str, Any], name: str = "custom") -> nn.Module:
    """An open_clip model from its configuration, with fresh weights.

    Args:
        config: ``embed_dim``, ``vision_cfg``, ``text_cfg`` and the optional keys of open_clip.
        name: Of the model, for errors.

    Returns:
        A CLIP, or a CustomTextCLIP where the configuration asks for one.

    Raises:
        InvalidValueError: The vision tower is not open_clip's vision transformer.
    """
    options = deepcopy(dict(config))
    vision, text = options["vision_cfg"], options["text_cfg"]
    if vision.get("timm_model_name") or isinstance(vision.get("layers"), (list, tuple)):
        raise _unsupported(name, vision.get("timm_model_name") or "a ResNet")
    if "multimodal_cfg" in options:
        raise _unsupported(name, "CoCa with attentional pooling")
    custom_text = options.pop("custom_text", False) or "hf_model_name" in text
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    try:
        built: nn.Module = kind(**options)
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidValueError(
            "backbone", "a model that open_clip can build", f"{name} ({error})"
        ) from error
    return built


def tower_of(visual: nn.Module, name: str = "custom") -> VisionTower:
    """The weights of an open_clip vision transformer.

    Args:
        visual: A model's ``visual``.
        name: Of the model, for errors.

    Returns:
        References to its weights.

    Raises:
        InvalidValueError: It is not a plain vision transformer with a class token and a
            projection.
    """
    if not isinstance(visual, VisionTransformer):
        raise _unsupported(name, type(visual).__name__)
    if visual.attn_pool is not None or visual.pool_type != "tok" or visual.proj is None:
        raise _unsupported(name, "a vision transformer that does not pool by its class token")
    blocks = list(visual.transformer.resblocks)
    if not all(type(block) is ResidualAttentionBlock for block in blocks):
        raise _unsupported(name, f"a vision transformer of {type(blocks[0]).__name__}")
    return VisionTower(
        patch_embedding=visual.conv1.weight,
        class_embedding=visual.class_embedding,
        position_embedding=visual.positional_embedding,
        grid_hw=tuple(visual.grid_size),
        temporal_embedding=None,
        ln_pre=Norm.of(visual.ln_pre) if isinstance(visual.ln_pre, nn.LayerNorm) else None,
        blocks=blocks_of(visual.transformer.resblocks),
        heads=blocks[0].attn.num_heads,
        ln_post=Norm.of(visual.ln_post),
        projection=visual.proj,
    )


def _unsupported(name: str, tower: str) -> InvalidValueError:
    return InvalidValueError(
        "backbone",
        "a model whose image tower is open_clip's VisionTransformer with a class token "
        "(ViT-B-32, ViT-B-16, ViT-L-14, ViT-L-14-336, ViT-H-14, ...)",
        f"{name} with {tower}",
    )


def _tag(name: str | None, weights: str) -> dict[str, Any]:
    tag = open_clip.get_pretrained_cfg(name, weights) if name else None
    if not tag:
        tags = open_clip.list_pretrained_tags_by_model(name) if name else []
        raise WeightsError(
            weights,
            f"neither a file nor a tag of {name or 'this configuration'}",
            f"use {', '.join(tags)}, a .safetensors file" if tags else "name a .safetensors file",
        )
    return dict(tag)

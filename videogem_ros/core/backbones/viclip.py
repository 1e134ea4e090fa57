"""ViCLIP (InternVid, Wang et al. 2023): CLIP over 8 frames that attend jointly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import open_clip
import torch
from open_clip.transformer import QuickGELU, TextTransformer, Transformer
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
from videogem_ros.core.backbones.preprocessing import OPENAI_PREPROCESSING, Preprocessing
from videogem_ros.core.backbones.text import TextTower
from videogem_ros.core.tower import Norm, VisionTower, blocks_of, narrow
from videogem_ros.errors import InvalidValueError, WeightsError

HUB_REPOSITORY = "OpenGVLab/ViCLIP"
DEFAULT_WEIGHTS = "internvid-10m-flt"
TABLETOP_WEIGHTS = SHIPPED / "tabletop_video.safetensors"
PREPROCESSING = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear", False)


@dataclass(frozen=True)
class ViClipConfig:
    """Sizes of a ViCLIP, and its preprocessing.

    Attributes:
        embed_dim: P, dimensions of the space shared by video and text.
        image_size: Height and width of a frame in pixels.
        patch_size: Height and width of a patch in pixels.
        width: D of the vision tower.
        layers: Blocks of the vision tower.
        heads: Attention heads of the vision tower.
        num_frames: T.
        quick_gelu: QuickGELU where true, GELU otherwise.
        text_width: D of the text tower.
        text_heads: Attention heads of the text tower.
        text_layers: Blocks of the text tower.
        context_length: Tokens of a text, start and end included.
        vocab_size: Number of tokens of the CLIP BPE tokenizer.
        preprocessing: How frames become its input.
    """

    embed_dim: int = 512
    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    layers: int = 12
    heads: int = 12
    num_frames: int = 8
    quick_gelu: bool = True
    text_width: int = 512
    text_heads: int = 8
    text_layers: int = 12
    context_length: int = 32
    vocab_size: int = 49408
    preprocessing: Preprocessing = PREPROCESSING


MODELS = {
    "B-16": ViClipConfig(),
    "L-14": ViClipConfig(
        embed_dim=768,
        patch_size=14,
        width=1024,
        layers=24,
        heads=16,
        text_width=768,
        text_heads=12,
    ),
    TABLETOP: ViClipConfig(
        embed_dim=128,
        image_size=144,
        patch_size=12,
        width=128,
        layers=11,
        heads=2,
        quick_gelu=False,
        text_width=64,
        text_heads=4,
        text_layers=3,
        preprocessing=OPENAI_PREPROCESSING,
    ),
}

PUBLISHED = {
    "B-16": "ViCLIP-B_InternVid-FLT-10M.pth",
    "L-14": "ViClip-InternVid-10M-FLT.pth",
}
"""Name of the default weights' file in the hub repository, by model."""


class ViClipVision(nn.Module):
    """The video tower: spatial and temporal position embeddings, joint attention.

    Parameters are named as in the published checkpoints.

    Args:
        config: Sizes.
    """

    def __init__(self, config: ViClipConfig) -> None:
        super().__init__()
        self.config = config
        patch, width = config.patch_size, config.width
        scale = width**-0.5
        patches = (config.image_size // patch) ** 2
        size = (1, patch, patch)
        self.conv1 = nn.Conv3d(3, width, size, stride=size, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(1 + patches, width))
        self.temporal_positional_embedding = nn.Parameter(
            scale * torch.randn(1, config.num_frames, width)
        )
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(
            width, config.layers, config.heads, act_layer=_activation(config)
        )
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, config.embed_dim))

    def forward(self, frames: Tensor) -> Tensor:
        """Video embeddings of the unmodified model.

        Args:
            frames: (B, T, 3, H, W) normalised RGB.

        Returns:
            (B, P), not normalised.
        """
        x = self.conv1(frames.transpose(1, 2)).flatten(3)  # (B, D, T, N)
        x = x.permute(0, 3, 2, 1)  # (B, N, T, D)
        x = x + self.positional_embedding[1:, None] + self.temporal_positional_embedding
        token = self.class_embedding + self.positional_embedding[0]
        x = torch.cat([token.expand(x.shape[0], 1, -1), x.flatten(1, 2)], dim=1)
        x = self.transformer(self.ln_pre(x))
        projected: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return projected

    def tower(self) -> VisionTower:
        """References to the weights."""
        side = self.config.image_size // self.config.patch_size
        return VisionTower(
            patch_embedding=self.conv1.weight[:, :, 0],
            class_embedding=self.class_embedding,
            position_embedding=self.positional_embedding,
            grid_hw=(side, side),
            temporal_embedding=self.temporal_positional_embedding[0],
            ln_pre=Norm.of(self.ln_pre),
            blocks=blocks_of(self.transformer.resblocks),
            heads=self.config.heads,
            ln_post=Norm.of(self.ln_post),
            projection=self.proj,
        )


class ViClip(nn.Module):
    """Both towers, with the parameter names of the published checkpoints.

    Args:
        config: Sizes.
    """

    def __init__(self, config: ViClipConfig) -> None:
        super().__init__()
        self.vision_encoder = ViClipVision(config)
        self.text_encoder = TextTransformer(
            context_length=config.context_length,
            vocab_size=config.vocab_size,
            width=config.text_width,
            heads=config.text_heads,
            layers=config.text_layers,
            output_dim=config.embed_dim,
            act_layer=_activation(config),
        )
        self.temp = nn.Parameter(torch.tensor(0.01))


def _activation(config: ViClipConfig) -> type[nn.Module]:
    return QuickGELU if config.quick_gelu else nn.GELU


class ViClipBackbone:
    """ViCLIP as the grounder uses it; ``model`` stays an ordinary module.

    In half precision its video tower is mixed, and encodes windows under ``torch.autocast``.

    Args:
        name: ``viclip:MODEL``.
        model: Both towers.
        untrained: Whether its weights are random.
        presence_fit: Platt's slope and offset of its margins.
    """

    def __init__(
        self,
        name: str,
        model: ViClip,
        untrained: bool,
        presence_fit: tuple[float, float] = UNFITTED,
    ) -> None:
        self.name = name
        self.model = model
        self.tower = model.vision_encoder.tower()
        self._text_tower = TextTower.of(model.text_encoder)
        self.preprocessing = model.vision_encoder.config.preprocessing
        self.input_hw = self.tower.input_hw
        self.logit_scale = 1 / float(model.temp)
        self.untrained = untrained
        self.presence_fit = presence_fit
        self._tokenizer = open_clip.SimpleTokenizer(
            context_length=model.text_encoder.context_length
        )

    @property
    def window_frames(self) -> int:
        """T, the frames that attend jointly."""
        return self.tower.frames

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(K, P) float32 unit vectors of K texts, on the tower's device."""
        return nn.functional.normalize(self._text_tower(self._tokenizer(list(texts))), dim=-1)


def load(
    model: str, weights: str | None, device: torch.device, dtype: torch.dtype
) -> ViClipBackbone:
    """Build a ViCLIP and fill it; see :func:`videogem_ros.core.load_backbone`."""
    weights = weights or (str(TABLETOP_WEIGHTS) if model == TABLETOP else DEFAULT_WEIGHTS)
    if model not in MODELS:
        choices = ", ".join(f"viclip:{name}" for name in MODELS)
        raise InvalidValueError("backbone", f"one of {choices}", f"viclip:{model}")
    seed = random_seed(weights)
    state, presence_fit = None, UNFITTED
    if seed is None:
        path = weights if is_file_name(weights) else _download(model, weights)
        state, presence_fit = read_state(path), read_presence_fit(path)
    with seeded(seed or 0):
        viclip = ViClip(MODELS[model])
    if state is not None:
        fill(viclip, state, weights)
    viclip.eval().requires_grad_(False).to(device)
    narrow(viclip.vision_encoder.transformer.resblocks, dtype)
    return ViClipBackbone(f"viclip:{model}", viclip, seed is not None, presence_fit)


def _download(model: str, weights: str) -> str:
    if weights != DEFAULT_WEIGHTS:
        raise WeightsError(
            weights,
            f"neither a file nor a tag of viclip:{model}",
            f"use {DEFAULT_WEIGHTS} or name the .pth file",
        )
    return hub_file(HUB_REPOSITORY, (PUBLISHED[model],), weights)

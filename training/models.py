"""The models in training: both towers of a backbone, seen through the grounder's own encoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from open_clip import SimpleTokenizer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from videogem_ros.core.backbones import Backbone, openclip
from videogem_ros.core.backbones.checkpoint import seeded
from videogem_ros.core.backbones.preprocessing import OPENAI_MEAN, OPENAI_STD, Preprocessing
from videogem_ros.core.encoder import Encoder
from videogem_ros.core.tower import VisionTower

SHIPPED = Path(openclip.__file__).parent / "shipped"
CONFIGURATION = SHIPPED / "tabletop_image.json"
DEPTH = 7
"""Blocks with a self-self path, the grounder's default."""


@dataclass(frozen=True)
class Seen:
    """What the vision tower makes of a shard.

    Attributes:
        classes: (B, E) unit vectors of the class tokens.
        patches: (B, F, N, E) unit vectors of the self-self path with uniform layer weights.
        places: (B, N) int64, which patches these are, row by row.
        frames: (B, F) int64, which frames of the clips.
    """

    classes: Tensor
    patches: Tensor
    places: Tensor
    frames: Tensor


class MatrixAttention(TorchFunctionMode):
    """Attention as plain matrix products, inside.

    For heads and images this small, the fused kernel's backward pass is slower on a CPU, and
    torch's own unfused one spends a fifth on masks that are not there.
    """

    def __torch_function__(  # noqa: D105
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value = args
        scale = kwargs.get("scale", query.shape[-1] ** -0.5)
        return torch.softmax((scale * query) @ key.transpose(-2, -1), dim=-1) @ value


class Student(nn.Module):
    """A backbone's model with what training adds to it.

    Args:
        model: Holds both towers.
        text: The module of the text tower's parts, named as open_clip names them.
        preprocessing: Mean and standard deviation.
    """

    is_video = False

    def __init__(self, model: nn.Module, text: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        self.text = text
        self.preprocessing = preprocessing
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.log_temperature = nn.Parameter(torch.tensor(20.0).log())

    @property
    def tower(self) -> VisionTower:
        """The vision tower's weights."""
        return openclip.tower_of(self.model.visual)

    @property
    def side(self) -> int:
        """Patches down and across."""
        return self.tower.grid_hw[0]

    @property
    def patches(self) -> int:
        """N, patches of an image."""
        return self.side**2

    def see(self, images: Tensor, kept: int, random: torch.Generator) -> Seen:
        """Encode a shard.

        Args:
            images: (B, 1, S, S, 3) uint8.
            kept: How many patches of each image are seen, drawn at random.
            random: Draws them.
        """
        tower = self.tower
        encoder = Encoder(tower, DEPTH)
        pixels = normalised(images[:, 0], self.preprocessing)
        places = drawn_places(len(pixels), self.patches, kept, random)
        with torch.autocast("cpu", torch.bfloat16), MatrixAttention():
            x = encoder.tokens(pixels)
            if kept < self.patches:
                taken = places[..., None].expand(-1, -1, x.shape[-1])
                x = torch.cat([x[:, :1], x[:, 1:].gather(1, taken)], dim=1)
            patch_terms, class_terms = encoder.walk(x)
        patches = tower.embed(patch_terms.float().sum(dim=1))
        classes = tower.embed(class_terms.float().sum(dim=1))
        frames = torch.zeros(len(images), 1, dtype=torch.int64)
        return Seen(classes, patches[:, None], places, frames)

    def read(self, tokens: Tensor) -> Tensor:
        """Embed texts.

        Args:
            tokens: (C, n) int64, n up to the model's context: what follows the end of a text
                does not reach it, so padding may be cut off.

        Returns:
            (C, E) unit vectors.
        """
        text, length = self.text, tokens.shape[1]
        x = text.token_embedding(tokens) + text.positional_embedding[:length]
        x = text.transformer(x, attn_mask=text.attn_mask[:length, :length])
        ends = tokens.argmax(dim=-1)
        x = text.ln_final(x[torch.arange(len(tokens)), ends])
        return F.normalize(x @ text.text_projection, dim=-1)

    def backbone(self) -> Backbone:
        """The model as the grounder uses it, sharing the weights."""
        backbone = openclip.OpenClipBackbone(
            "openclip:tabletop",
            self.model,
            SimpleTokenizer(context_length=self.text.context_length),
            self.preprocessing,
            untrained=False,
        )
        backbone.logit_scale = float(self.log_scale.exp())
        return backbone


def image_student(configuration: Path, seed: int) -> Student:
    """An untrained image model."""
    with seeded(seed):
        model = openclip.build(json.loads(configuration.read_text(encoding="utf-8")))
    model.logit_scale.requires_grad_(False)
    preprocessing = Preprocessing(OPENAI_MEAN, OPENAI_STD, "bicubic", antialias=True)
    return Student(model, model, preprocessing)


def normalised(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(..., S, S, 3) uint8 to (..., 3, S, S) float32 as the tower takes it."""
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    return ((images / 255 - mean) / std).movedim(-1, -3).contiguous()


def drawn_places(batch: int, patches: int, kept: int, random: torch.Generator) -> Tensor:
    """(batch, kept) int64, patches drawn without repetition, in order."""
    order = torch.rand(batch, patches, generator=random).argsort(dim=1)
    return order[:, :kept].sort(dim=1).values


def export_image(student: Student, path: Path) -> None:
    """Write the model in half precision, as ``load_backbone`` reads it."""
    model = student.model
    with torch.no_grad():
        model.logit_scale.copy_(student.log_scale)
    save_half(model, path)


def save_half(model: nn.Module, path: Path) -> None:
    """Write a state dict in half precision."""
    state = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    save_file(state, path, {"format": "pt"})

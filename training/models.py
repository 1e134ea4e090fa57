"""Models in training: both towers of a backbone, run by the grounder's own encoder."""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from batches import spoken_tokens
from open_clip import SimpleTokenizer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from videogem_ros.core import GroundingConfig
from videogem_ros.core.attention import PATCHES, attention, merge_heads, split_heads
from videogem_ros.core.backbones import Backbone, openclip, viclip
from videogem_ros.core.backbones.checkpoint import PRESENCE_FIT, TABLETOP, UNFITTED, seeded
from videogem_ros.core.backbones.preprocessing import OPENAI_PREPROCESSING, Preprocessing
from videogem_ros.core.encoder import Encoder, resample_positions
from videogem_ros.core.hardware import multiplies
from videogem_ros.core.tower import Block, VisionTower

DEPTH = GroundingConfig().depth
GAIN = 4.0
"""Initial factor of LN_1, divided out of the projections that follow. The sharpness of self-self
attention grows with the length of LN_1's output: in a narrow tower it would average over the whole
image."""
LAYER_WEIGHTS = 0.3, 1.7
"""Range that each layer weight is drawn from; static and dynamic weights lie in it, too."""
FRAMES_SCORED = 2
"""Frames per clip whose patches are scored: the newest and random others."""
AGE_SPREAD, FRAME_SPREAD = 0.2, 0.03
"""Standard deviations of the initial temporal embedding: of a direction that encodes a frame's
age, zero for the newest as for an image, and of noise per frame. For a trained image model's
positions it is 0.12. Frames that are hardly distinguishable teach no motion."""


@dataclass(frozen=True)
class Seen:
    """The vision tower's output for a shard.

    Attributes:
        classes: (B, E) unit vectors of the class tokens.
        patches: (B, F, N, E) unit vectors from the self-self path or the plain path.
        weights: (B, L), layer weights of the self-self path; None for the plain path.
        places: (B, N) int64, indices of these patches in the image, row by row.
        frames: (B, F) int64, indices of these frames in the clip.
    """

    classes: Tensor
    patches: Tensor
    weights: Tensor | None
    places: Tensor
    frames: Tensor

    def patches_of(self, image: Tensor) -> Tensor:
        """Select the encoded patches: (B, F, C, all patches) to (B, F, C, N)."""
        places = self.places[:, None, None].expand(-1, *image.shape[1:3], -1)
        return image.gather(-1, places)


class MatrixAttention(TorchFunctionMode):
    """Context in which attention runs as plain matrix products.

    For heads and images this small, the fused kernel's backward pass is slower on a CPU, and
    torch's own unfused attention spends a fifth of its time on absent masks.
    """

    def __torch_function__(
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


class Student(nn.Module, ABC):
    """A backbone's model with the parameters that training adds.

    Args:
        model: Contains both towers.
        text: The module with the text tower's parts, named as in open_clip.
    """

    preprocessing = OPENAI_PREPROCESSING
    model: Any
    text: Any

    def __init__(self, model: nn.Module, text: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.text = text
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.log_temperature = nn.Parameter(torch.tensor(20.0).log())

    @property
    @abstractmethod
    def tower(self) -> VisionTower:
        """The vision tower's weights."""

    @abstractmethod
    def backbone(self) -> Backbone:
        """The model as the grounder uses it, sharing the weights."""

    @property
    def is_video(self) -> bool:
        """Whether the model sees more than one frame."""
        return self.tower.frames > 1

    @property
    def side(self) -> int:
        """Patches along each side of an image."""
        return self.tower.grid_hw[0]

    @property
    def patches(self) -> int:
        """N, patches of an image."""
        return self.side**2

    def see(
        self,
        images: Tensor,
        kept: int,
        random: torch.Generator,
        *,
        busy: Tensor | None = None,
        plain: bool = False,
        frames: int | None = None,
    ) -> Seen:
        """Encode a shard.

        Args:
            images: (B, T, S, S, 3) uint8.
            kept: Number of randomly drawn patches to encode, the same in all frames of a clip.
            random: Generator that draws patches, frames and layer weights.
            busy: (B, N) bool, patches that are drawn before all others.
            plain: Return patches of the plain path's last block instead of the self-self path's.
            frames: Number of newest frames to encode, of the T; None: all.
        """
        batch, count = images.shape[:2]
        device = images.device
        dtype = pass_dtype(device)
        tower = in_dtype(self.tower, dtype)
        encoder = Encoder(tower, DEPTH)
        pixels = normalised(images, self.preprocessing).to(dtype)
        if busy is None:
            busy = torch.zeros(batch, self.patches, dtype=torch.bool, device=device)
        places = drawn_places(busy, kept, random)
        # Motion shows between neighbouring frames, so the encoded frames are consecutive.
        seen = torch.arange(count - (frames or count), count, device=device)
        scored = drawn_frames(len(seen), FRAMES_SCORED, random)
        # In a video, patches are in row order, with time as the fastest axis.
        places_ = torch.arange(kept, device=device)[:, None]
        wanted = (1 + len(seen) * places_ + scored).flatten()
        with MatrixAttention() if device.type == "cpu" else nullcontext():
            x = encoder.tokens(pixels)
            if kept < self.patches or len(seen) < count:
                by_patch = x[:, 1:].view(batch, self.patches, count, -1)[:, :, seen]
                taken = places[..., None, None].expand(-1, -1, *by_patch.shape[2:])
                x = torch.cat([x[:, :1], by_patch.gather(1, taken).flatten(1, 2)], dim=1)
            weights = None
            if plain:
                x = plain_walk(tower, x)
                found, class_token = x[:, wanted], x[:, 0]
            else:
                patch_terms, class_terms = encoder.walk(x, wanted if self.is_video else PATCHES)
                weights = drawn_weights(batch, patch_terms.shape[1], random)
                found = torch.einsum("bl,blnd->bnd", weights, patch_terms.float())
                class_token = class_terms.float().sum(dim=1)
        patches, classes = self.tower.embed(found), self.tower.embed(class_token)
        patches = patches.view(batch, kept, len(scored), -1).transpose(1, 2)
        return Seen(classes, patches, weights, places, seen[scored].expand(batch, -1))

    def read(self, tokens: Tensor) -> Tensor:
        """Embed texts.

        Args:
            tokens: (C, n) int64, n up to the model's context. Padding may be cut off: attention
                is causal, so it does not affect the end token.

        Returns:
            (C, E) unit vectors.
        """
        text, length = self.text, tokens.shape[1]
        x = text.token_embedding(tokens) + text.positional_embedding[:length]
        x = text.transformer(x, attn_mask=text.attn_mask[:length, :length])
        ends = tokens.argmax(dim=-1)
        x = text.ln_final(x[torch.arange(len(tokens), device=x.device), ends])
        return F.normalize(x @ text.text_projection, dim=-1)


class ImageStudent(Student):
    """An untrained CLIP.

    Args:
        configuration: An open_clip configuration in JSON.
        seed: Seed of its weights.
    """

    def __init__(self, configuration: Path, seed: int) -> None:
        with seeded(seed):
            model = openclip.build(json.loads(configuration.read_text(encoding="utf-8")))
        model.logit_scale.requires_grad_(False)
        sharpen(model)
        super().__init__(model, model)

    @property
    def tower(self) -> VisionTower:  # noqa: D102
        return openclip.tower_of(self.model.visual)

    def backbone(self) -> Backbone:  # noqa: D102
        with torch.no_grad():
            self.model.logit_scale.copy_(self.log_scale)
        return openclip.OpenClipBackbone(
            f"openclip:{TABLETOP}",
            self.model,
            SimpleTokenizer(context_length=self.text.context_length),
            self.preprocessing,
            untrained=False,
        )


class VideoStudent(Student):
    """An untrained ViCLIP.

    Args:
        config: Sizes.
        seed: Seed of its weights.
    """

    def __init__(self, config: viclip.ViClipConfig, seed: int) -> None:
        with seeded(seed):
            model = viclip.ViClip(config)
            temporal = model.vision_encoder.temporal_positional_embedding.data
            ages = torch.linspace(1, 0, config.num_frames)[:, None]
            direction = torch.normal(0, AGE_SPREAD, temporal.shape[-1:])
            temporal.normal_(0, FRAME_SPREAD).add_(ages * direction)
        model.temp.requires_grad_(False)
        super().__init__(model, model.text_encoder)

    def start_from(self, image: Mapping[str, Tensor]) -> None:
        """Take over the weights of an image student of the same sizes.

        Args:
            image: Its state dict. Position embeddings are resampled to this grid. The temporal
                embedding stays unchanged, and so do the first blocks if this model has more.
        """
        vision, own = self.model.vision_encoder, self.state_dict()
        blocks = "model.visual.transformer.resblocks."
        known = {name.removeprefix(blocks).split(".")[0] for name in image if blocks in name}
        ahead = len(vision.tower().blocks) - len(known)
        visual = {
            name.replace("model.visual.", "model.vision_encoder."): value
            for name, value in moved_behind(image, ahead).items()
            if name.startswith("model.visual.")
        }
        kernel, positions = (
            f"model.vision_encoder.{name}" for name in ("conv1.weight", "positional_embedding")
        )
        visual[kernel] = visual[kernel].unsqueeze(2)
        side = math.isqrt(len(visual[positions]) - 1)
        visual[positions] = resample_positions(
            visual[positions], (side, side), vision.tower().grid_hw
        )
        text = {
            name: image[name.replace("text_encoder.", "").replace("text.", "model.", 1)]
            for name in own
            if name.startswith(("text.", "model.text_encoder."))
        }
        rest = {name: image[name] for name in ("log_scale", "log_temperature")}
        self.load_state_dict(own | visual | text | rest)

    def hold_sight(self) -> None:
        """Freeze the first block and its inputs: update noise would wear it away unnoticed."""
        vision = self.model.vision_encoder
        for part in (vision.conv1, vision.ln_pre, vision.transformer.resblocks[0]):
            part.requires_grad_(False)
        for name in ("class_embedding", "positional_embedding", "temporal_positional_embedding"):
            getattr(vision, name).requires_grad_(False)

    @property
    def tower(self) -> VisionTower:  # noqa: D102
        tower: VisionTower = self.model.vision_encoder.tower()
        return tower

    def backbone(self) -> Backbone:  # noqa: D102
        with torch.no_grad():
            self.model.temp.copy_((-self.log_scale).exp())
        return viclip.ViClipBackbone(f"viclip:{TABLETOP}", self.model, untrained=False)


def moved_behind(state: Mapping[str, Tensor], ahead: int) -> dict[str, Tensor]:
    """A state dict whose image blocks are renumbered to follow ``ahead`` more blocks."""
    numbers = re.compile(r"(?<=^model\.visual\.transformer\.resblocks\.)\d+")
    return {
        numbers.sub(lambda found: str(int(found[0]) + ahead), name): value
        for name, value in state.items()
    }


def sharpen(model: Any) -> None:
    """Make self-self attention in an image model's blocks sharper, and keep plain attention."""
    with torch.no_grad():
        for block in model.visual.transformer.resblocks:
            block.ln_1.weight *= GAIN
            block.attn.in_proj_weight /= GAIN


def pass_dtype(device: torch.device) -> torch.dtype:
    """bfloat16, or float32 on devices known not to multiply it natively."""
    return torch.float32 if multiplies(device, torch.bfloat16) is False else torch.bfloat16


def in_dtype(part: Any, dtype: torch.dtype) -> Any:
    """A tower, or part of one, in another dtype; gradients flow to the original weights.

    The whole pass then runs in it, including the residual stream and tensors saved for gradients,
    while autocast switches back and forth.
    """
    if isinstance(part, Tensor):
        return part.to(dtype)
    if isinstance(part, tuple):
        return tuple(in_dtype(one, dtype) for one in part)
    if is_dataclass(part) and not isinstance(part, type):
        parts = {field.name: in_dtype(getattr(part, field.name), dtype) for field in fields(part)}
        return replace(part, **parts)
    return part


def plain_walk(tower: VisionTower, x: Tensor) -> Tensor:
    """Only the plain path, (B, 1 + N, D) tokens to tokens: up to twice as fast."""
    if tower.ln_pre is not None:
        x = tower.ln_pre(x)
    for block in tower.blocks:
        x = x + attended(block, x, tower.heads)
        x = x + block.mlp(x)
    return x


def attended(block: Block, x: Tensor, heads: int) -> Tensor:
    """Output of a block's plain attention for (B, 1 + N, D) tokens."""
    q, k, v = split_heads(block.qkv(block.ln_1(x)), heads)
    return block.project(merge_heads(attention(q, k, v)))


def normalised(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(..., S, S, 3) uint8 to (..., 3, S, S) float32, normalised for the tower."""
    mean, std = (
        torch.tensor(numbers, device=images.device)
        for numbers in (preprocessing.mean, preprocessing.std)
    )
    return ((images / 255 - mean) / std).movedim(-1, -3).contiguous()


def drawn_places(busy: Tensor, kept: int, random: torch.Generator) -> Tensor:
    """(B, kept) int64, ascending, drawn without replacement; busy patches (B, N) first."""
    noise = torch.rand(busy.shape, generator=random, device=busy.device)
    order = (noise - busy.float()).argsort(dim=1)
    return order[:, :kept].sort(dim=1).values


def drawn_weights(batch: int, terms: int, random: torch.Generator) -> Tensor:
    """(B, L), random layer weights of each scene, so that training favours no weighting."""
    low, high = LAYER_WEIGHTS
    return low + (high - low) * torch.rand(batch, terms, generator=random, device=random.device)


def drawn_frames(count: int, drawn: int, random: torch.Generator) -> Tensor:
    """(F,) int64, ascending, at most ``drawn`` of ``count`` frames; always with the last."""
    device = random.device
    others = torch.randperm(count - 1, generator=random, device=device)[: drawn - 1]
    return torch.cat([others.sort().values, torch.tensor([count - 1], device=device)])


def export(student: Student, path: Path, presence_fit: tuple[float, float] = UNFITTED) -> None:
    """Write a model in half precision, in the format that ``load_backbone`` reads.

    Tokens that occur in no caption were never trained. Their embeddings are set to zero, so that
    an unknown word adds no noise and the file compresses well.

    Args:
        student: The model.
        path: A safetensors file.
        presence_fit: Slope and offset of Platt scaling for its presence margins.
    """
    state = {
        name: value.detach().half().contiguous()
        for name, value in student.backbone().model.state_dict().items()
    }
    (name,) = (name for name in state if name.endswith("token_embedding.weight"))
    unspoken = torch.ones(len(state[name]), dtype=torch.bool)
    unspoken[spoken_tokens()] = False
    state[name][unspoken] = 0
    slope, offset = presence_fit
    save_file(state, path, {"format": "pt", PRESENCE_FIT: f"{slope:.4f} {offset:.4f}"})
    path.chmod(0o644)  # save_file lets only the owner read it, but it will be installed

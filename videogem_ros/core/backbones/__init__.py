"""Backbones behind one protocol, chosen by name: ``openclip:ViT-B-16``, ``viclip:B-16``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from videogem_ros.core.backbones import openclip, viclip
from videogem_ros.core.backbones.checkpoint import TABLETOP
from videogem_ros.core.backbones.preprocessing import Preprocessing
from videogem_ros.core.hardware import available_device
from videogem_ros.core.tower import VisionTower
from videogem_ros.errors import InvalidValueError, check_choice

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions of the vision tower by name; text is always encoded in float32."""


class Backbone(Protocol):
    """A vision-language model as the grounder uses it.

    Attributes:
        name: ``family:model``, as it was asked for.
        tower: The vision tower's weights.
        preprocessing: How RGB pixels become the tower's input.
        input_hw: Default height and width of the network's input in pixels.
        logit_scale: Inverse temperature of the contrastive loss (CLIP: 100).
        presence_fit: Platt's slope and offset, fitted to presence margins on scenes like those it
            was trained on; (1, 0) where not fitted. See :mod:`videogem_ros.core.presence`.
        untrained: Whether the weights are random, so that points mean nothing.
    """

    name: str
    tower: VisionTower
    preprocessing: Preprocessing
    input_hw: tuple[int, int]
    logit_scale: float
    presence_fit: tuple[float, float]
    untrained: bool

    @property
    def model(self) -> nn.Module:
        """Both towers, with all parameters."""

    @property
    def window_frames(self) -> int:
        """T, the number of frames that are encoded jointly: 1 for images, 8 for ViCLIP."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Encode texts to unit vectors; each is bit for bit independent of the others.

        Args:
            texts: K texts; one longer than the context is cut and ends in the end token.

        Returns:
            (K, P) float32 on the tower's device, each of length 1.
        """


FAMILIES: dict[str, Callable[[str, str | None, torch.device, torch.dtype], Backbone]] = {
    "openclip": openclip.load,
    "viclip": viclip.load,
}


def load_backbone(
    name: str,
    weights: str | None = None,
    device: str | torch.device = "cpu",
    dtype: str = "float32",
) -> Backbone:
    """Load a backbone; published weights come from the hub's cache, or are downloaded.

    Args:
        name: ``openclip:MODEL`` with a model name of open_clip or the path of a model
            configuration in open_clip's JSON format, or ``viclip:B-16``, ``viclip:L-14``.
        weights: A published tag (``openai``, ``laion2b_s34b_b88k``), a local ``.safetensors``,
            ``.pt``, ``.pth`` or ``.bin`` file, or ``random:SEED`` for an untrained model. The
            family's usual weights where None.
        device: "cpu", "cuda", "cuda:1", ...
        dtype: "float32", "bfloat16" or "float16", for the products and attention of the vision
            tower's blocks. Embeddings, norms, the residual stream, the projection and the text
            tower are always float32.

    Returns:
        The backbone, in evaluation mode.

    Raises:
        InvalidValueError: An unknown family, model, device or dtype, or a vision tower that is not
            a plain vision transformer with a class token.
        WeightsError: The weights are missing, unreadable or of another architecture.
    """
    family, _, model = name.partition(":")
    if family not in FAMILIES or not model:
        families = ", ".join(f"{family}:MODEL" for family in FAMILIES)
        raise InvalidValueError("backbone", f"one of {families}", name)
    check_choice("dtype", dtype, DTYPES)
    return FAMILIES[family](model, weights, available_device(device), DTYPES[dtype])


def caveat(backbone: Backbone) -> str:
    """A warning to show with a backbone's points; empty where there is none."""
    if backbone.untrained:
        return "untrained weights: the points mean nothing"
    if backbone.name.endswith(f":{TABLETOP}"):
        return f"{backbone.name} knows drawn tabletop scenes and nothing else"
    return ""

"""Features of a window compared with the texts of actions: everything after the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from videogem_ros.core.acceleration import pack, unpack
from videogem_ros.core.backbones.preprocessing import Placement
from videogem_ros.core.configuration import GroundingConfig
from videogem_ros.core.fused import own_comparison
from videogem_ros.core.fusion import in_source, locate_points
from videogem_ros.core.heatmaps import patch_similarity
from videogem_ros.core.tower import VisionTower
from videogem_ros.core.weighting import base_weights, layer_weights
from videogem_ros.datatypes import PROMPT_KINDS, Features, Heatmap, Point

PROMPT_LOGIT_SCALE = 100.0
"""Scale of the prompt probabilities, the official code's for every backbone."""


@dataclass(frozen=True)
class Sizes:
    """How much is compared.

    Attributes:
        frames: F.
        prompts: M * K.
        neutral: J.
        terms: L.
        content_hw: h and w, the image's height and width in the network's input.
    """

    frames: int
    prompts: int
    neutral: int
    terms: int
    content_hw: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Found:
    """F frames compared with the K prompts of M actions each and J neutral texts, on the host.

    Attributes:
        heatmaps: (F, M, 4, h, w) float32, see :class:`~videogem_ros.core.fusion.Located`.
        points: (F, M, 4, 2) int64, likewise.
        similarity: (F, M, 4) float32, likewise.
        cosines: (F, M, K) float32, of class token and prompts.
        probabilities: (F, M, K) float32, softmax over the K prompts of the scaled cosines.
        neutral: (F, J) float32, cosines of class token and neutral texts.
        layer_weights: (F, M, K, L) float32.
    """

    heatmaps: npt.NDArray[np.float32]
    points: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]
    cosines: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    neutral: npt.NDArray[np.float32]
    layer_weights: npt.NDArray[np.float32]

    @classmethod
    def of(cls, tensors: tuple[Tensor, ...]) -> Found:
        """The result of :func:`compare` on a CPU, in the same memory."""
        arrays: list[Any] = [tensor.numpy() for tensor in tensors]
        return cls(*arrays)

    @classmethod
    def unpacked(
        cls, heatmaps: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8], sizes: Sizes
    ) -> Found:
        """The result of :func:`packed`, copied to the host, in the same memory.

        Args:
            heatmaps: (bytes,).
            others: (bytes,).
            sizes: Of the comparison.
        """
        kinds = len(PROMPT_KINDS)
        shape = sizes.frames, sizes.prompts // kinds
        real, whole = np.float32, np.int64
        maps = heatmaps.view(real).reshape(*shape, kinds + 1, *sizes.content_hw)
        like: list[tuple[tuple[int, ...], npt.DTypeLike]] = [
            ((*shape, kinds + 1, 2), whole),
            ((*shape, kinds + 1), real),
            ((*shape, kinds), real),
            ((*shape, kinds), real),
            ((sizes.frames, sizes.neutral), real),
            ((*shape, kinds, sizes.terms), real),
        ]
        return cls(maps, *unpack(others, like))

    def in_source(
        self, frame: int, action: int, image_hw: tuple[int, int]
    ) -> tuple[dict[str, Point], dict[str, Heatmap]]:
        """Points and heatmaps by name of one frame and action, in source pixels.

        See :func:`videogem_ros.core.fusion.in_source`.
        """
        at = frame, action
        return in_source(self.heatmaps[at], self.points[at], self.similarity[at], image_hw)


def compare(
    key: tuple[int, tuple[int, int], Placement],
    patch_terms: Tensor,
    class_terms: Tensor,
    embeddings: Tensor,
    *,
    tower: VisionTower,
    config: GroundingConfig,
) -> tuple[Tensor, ...]:
    """Compare features with texts; can be recorded as a CUDA graph.

    Args:
        key: Number of texts that are prompts, M * K; rows and columns of patches; where the image
            lies in the network's input.
        patch_terms: (F, L, N, D), see :class:`~videogem_ros.datatypes.Features`.
        class_terms: (F, L, D), likewise.
        embeddings: (M * K + J, E) unit vectors of the prompts and of the neutral texts.
        tower: The tower that the features come from.
        config: Weighting and fusion.

    Returns:
        The tensors of :class:`Found`, in the order of its fields.
    """
    count, grid_hw, placement = key
    features = Features(patch_terms, class_terms, grid_hw, tuple(range(len(patch_terms))))
    of_class = compare_classes(class_terms, embeddings, count, tower, config)
    return compare_patches(features, placement, of_class, embeddings[:count], tower, config)


def compare_patches(
    features: Features,
    placement: Placement,
    of_class: tuple[Tensor, ...],
    text: Tensor,
    tower: VisionTower,
    config: GroundingConfig,
) -> tuple[Tensor, ...]:
    """The part of :func:`compare` that needs the patches.

    Args:
        features: The features.
        placement: Where the image lies in the network's input.
        of_class: What :func:`compare_classes` found.
        text: (M * K, E) unit vectors of the prompts.
        tower: The tower that the features come from.
        config: Weighting and fusion.

    Returns:
        What :func:`compare` returns.
    """
    weights, *others = of_class
    similarity = patch_similarity(features, weights, text, tower)
    weights = weights.expand(*similarity.shape[:2], -1)
    return (
        *locate_points(similarity, features.grid_hw, placement, config),
        *others,
        # Copied, as constant weights are shared with later windows.
        weights.contiguous().view(len(similarity), -1, len(PROMPT_KINDS), weights.shape[-1]),
    )


def packed(compared: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The result of :func:`compare` in two pieces of memory.

    Returns:
        The heatmaps and all others, (bytes,) uint8 each; see :meth:`Found.unpacked`.
    """
    heatmaps, *others = compared
    return heatmaps.flatten().view(torch.uint8), pack(others)


def compare_classes(
    class_terms: Tensor,
    embeddings: Tensor,
    count: int,
    tower: VisionTower,
    config: GroundingConfig,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compare class tokens with texts.

    Args:
        class_terms: (F, L, D), see :class:`~videogem_ros.datatypes.Features`.
        embeddings: (M * K + J, E) unit vectors of the prompts and of the neutral texts.
        count: M * K.
        tower: The tower that the class tokens come from.
        config: Weighting.

    Returns:
        Layer weights as of :func:`.weighting.layer_weights`, and cosines, probabilities and
        neutral of :class:`Found`.
    """
    own = own_comparison(class_terms)
    if own is not None and {class_terms.dtype, embeddings.dtype} == {torch.float32}:
        norm = tower.ln_post
        base = base_weights(class_terms.shape[1], config, class_terms.device)
        rows = own.class_rows(class_terms, norm.weight, norm.bias, norm.eps)
        weights, *of_class = own.class_similarity(
            rows @ tower.projection.float(),
            embeddings.contiguous(),
            count,
            base.flatten(),
            config.dynamic_depth,
            config.dynamic_scale,
            PROMPT_LOGIT_SCALE,
        )
        return (weights if config.uses_dynamic else base, *of_class)
    text, neutral = embeddings[:count], embeddings[count:]
    weights = layer_weights(class_terms, text, tower, config)
    embedded = embed_classes(class_terms, tower)
    cosines = (embedded @ text.T).view(len(class_terms), -1, len(PROMPT_KINDS))
    probabilities = torch.softmax(PROMPT_LOGIT_SCALE * cosines, dim=-1)
    return weights, cosines, probabilities, embedded @ neutral.T


def embed_classes(class_terms: Tensor, tower: VisionTower) -> Tensor:
    """(F, L, D) to (F, E) float32 unit vectors of the class tokens."""
    return tower.embed(class_terms.float().sum(dim=1))

"""Features of a window compared with the texts of actions: everything after the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from videogem_ros.core.backbones.preprocessing import Placement
from videogem_ros.core.configuration import GroundingConfig
from videogem_ros.core.fusion import in_source, locate_points
from videogem_ros.core.heatmaps import patch_similarity
from videogem_ros.core.tower import VisionTower
from videogem_ros.core.weighting import layer_weights
from videogem_ros.datatypes import PROMPT_KINDS, Features, Heatmap, Point

PROMPT_LOGIT_SCALE = 100.0
"""Scale of the prompt probabilities, the official code's for every backbone."""


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
        """The result of :func:`compare`, copied to the CPU."""
        arrays: list[Any] = [tensor.numpy() for tensor in tensors]
        return cls(*arrays)

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
    text, neutral = embeddings[:count], embeddings[count:]
    weights = layer_weights(class_terms, text, tower, config)
    similarity = patch_similarity(features, weights, text, tower)
    class_embedding = embed_classes(class_terms, tower)
    cosines = (class_embedding @ text.T).view(len(class_terms), -1, len(PROMPT_KINDS))  # (F, M, K)
    return (
        *locate_points(similarity, grid_hw, placement, config),
        cosines,
        torch.softmax(PROMPT_LOGIT_SCALE * cosines, dim=-1),
        class_embedding @ neutral.T,
        # Copied, as constant weights are shared with later windows.
        weights.expand(*similarity.shape[:2], -1).contiguous().view(*cosines.shape, -1),
    )


def embed_classes(class_terms: Tensor, tower: VisionTower) -> Tensor:
    """(F, L, D) to (F, E) float32 unit vectors of the class tokens."""
    return tower.embed(class_terms.float().sum(dim=1))

"""From three prompts' heatmaps to one answer."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from videogem_ros.core.acceleration import constant
from videogem_ros.core.backbones.preprocessing import Placement, to_source
from videogem_ros.core.configuration import GroundingConfig
from videogem_ros.core.fused import own_comparison
from videogem_ros.core.heatmaps import normalise, peaks, upsample
from videogem_ros.datatypes import PROMPT_KINDS, Heatmap, Point

NAMES = (*PROMPT_KINDS, "fused")


def fuse_points(points: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Weighted mean of the prompts' points, truncated to whole pixels as the official code does.

    The official code divides (verb + object + 3 action) by 5, which is exact. A mean with weights
    0.2, 0.2 and 0.6 can fall short of a whole number by a rounding error, which must not cost a
    pixel.

    Args:
        points: (..., K, 2) int64, x and y of verb, object and action.
        weights: K fusion weights; divided by their sum.

    Returns:
        (..., 2) int64.
    """
    total = sum(weight * points[..., k, :].double() for k, weight in enumerate(weights))
    return (torch.as_tensor(total) / math.fsum(weights) + 1e-9).long()


class Located(NamedTuple):
    """Heatmaps and points of F frames and M actions, on the content of the network's input.

    Attributes:
        heatmaps: (F, M, 4, h, w) float32 in [0, 1]: verb, object, action, fused.
        points: (F, M, 4, 2) int64, x and y in content pixels.
        similarity: (F, M, 4) float32 cosines at the points; the fused one is the weighted mean
            over the prompts.
    """

    heatmaps: Tensor
    points: Tensor
    similarity: Tensor


def locate_points(
    similarity: Tensor, grid_hw: tuple[int, int], placement: Placement, config: GroundingConfig
) -> Located:
    """Patch similarities to heatmaps and points.

    Similarities are upsampled bilinearly to the network's input, padding is cut off, and each
    prompt's map is min-max normalised per frame. A prompt's point is its heatmap's first maximum.

    Args:
        similarity: (F, M * K, N) cosines, the K prompts of an action side by side.
        grid_hw: Rows and columns of patches.
        placement: Where the source image lies in the network's input.
        config: Fusion and its weights.

    Returns:
        Heatmaps and points.
    """
    own = own_comparison(similarity)
    if own is not None and similarity.dtype == torch.float32:
        return Located(
            *own.locate(
                similarity.contiguous(),
                grid_hw,
                placement.input_hw,
                (placement.top, placement.left),
                placement.content_hw,
                constant(config.fusion_weights, similarity.device, torch.float64),
                config.fusion == "points",
            )
        )
    maps = placement.crop(upsample(similarity, grid_hw, placement.input_hw))
    maps = maps.reshape(len(maps), -1, len(PROMPT_KINDS), *maps.shape[-2:])  # (F, M, K, h, w)
    heatmaps = normalise(maps)
    points = peaks(heatmaps)
    weights = constant(config.fusion_weights, maps.device).to(maps.dtype)
    fused_heatmap = torch.einsum("fmkhw,k->fmhw", heatmaps, weights)
    if config.fusion == "points":
        fused_point = fuse_points(points, config.fusion_weights)
    else:
        fused_point = peaks(fused_heatmap)
    cosine = _values_at(maps, points)
    fused_cosine = _values_at(maps, fused_point[..., None, :].expand_as(points)) @ weights
    return Located(
        torch.cat([heatmaps, fused_heatmap[:, :, None]], dim=2),
        torch.cat([points, fused_point[:, :, None]], dim=2),
        torch.cat([cosine, fused_cosine[..., None]], dim=2),
    )


def in_source(
    heatmaps: npt.NDArray[np.float32],
    points: npt.NDArray[np.int64],
    similarity: npt.NDArray[np.float32],
    image_hw: tuple[int, int],
) -> tuple[dict[str, Point], dict[str, Heatmap]]:
    """Points and heatmaps by name of one frame and action, in source pixels.

    Args:
        heatmaps: (4, h, w) float32, see :class:`Located`.
        points: (4, 2) int64, likewise.
        similarity: (4,) float32, likewise.
        image_hw: Height and width of the source image.

    Returns:
        Points and heatmaps by "verb", "object", "action" and "fused".
    """
    content_hw = heatmaps.shape[-2:]
    named = {
        name: Point(*to_source(x, y, content_hw, image_hw), similarity=cosine)
        for name, (x, y), cosine in zip(NAMES, points.tolist(), similarity.tolist())
    }
    return named, {name: Heatmap(map_, image_hw) for name, map_ in zip(NAMES, heatmaps)}


def _values_at(maps: Tensor, points: Tensor) -> Tensor:
    """(..., h, w) at (..., 2) to (...,)."""
    flat = points[..., 1] * maps.shape[-1] + points[..., 0]
    return maps.flatten(-2).gather(-1, flat[..., None])[..., 0]

"""From features and text to heatmaps and their peaks."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from videogem_ros.core.fused import own_comparison
from videogem_ros.core.tower import VisionTower
from videogem_ros.datatypes import Features

PROMPTS_TOGETHER = 3
"""Prompts whose weighted features of a frame are in memory at once, without an own kernel."""


def patch_similarity(
    features: Features, weights: Tensor, text: Tensor, tower: VisionTower
) -> Tensor:
    """Cosine of every patch with every prompt.

    f = (LN_post(sum_l w_l s_l)) W_proj of unit length; similarity = f . text.

    Args:
        features: Of F frames with N patches.
        weights: (F, P, L) layer weights, or (1, 1, L) for all frames and prompts alike.
        text: (P, E) float32 unit vectors of the prompts.
        tower: For LN_post and the projection.

    Returns:
        (F, P, N) float32 in [-1, 1].
    """
    terms = features.patch_terms
    weights = weights.expand(len(terms), -1, -1)
    own = own_comparison(terms)
    if own is None:
        return torch.stack([_of_frame(*one, text, tower) for one in zip(terms, weights)])
    norm = (tower.ln_post.weight, tower.ln_post.bias, tower.ln_post.eps)
    if terms.dtype.itemsize > 2 or weights.shape[1] < len(text):
        return _cosines(tower.project(own.mix_and_norm(terms, weights, *norm)[0]), text)
    # y . (W text) needs float32; |y W|, a sum over many numbers, is accurate in half precision.
    projection = tower.projection.contiguous()
    directions = own.directions(text.contiguous(), projection)
    normed, along = own.mix_and_norm(terms, weights, *norm, terms.dtype, directions)
    similarity: Tensor = own.over_length(along, normed, projection.to(terms.dtype))
    return similarity


def _of_frame(terms: Tensor, weights: Tensor, text: Tensor, tower: VisionTower) -> Tensor:
    """One frame's (L, N, D) terms by weights (P or 1, L) to cosines (P, N).

    A few prompts at a time, as the weighted features are much larger than the cosines.
    """
    flat, similarity = terms.float().flatten(1), []
    for first in range(0, len(weights), PROMPTS_TOGETHER):
        few = slice(first, first + PROMPTS_TOGETHER)
        embedded = tower.embed((weights[few] @ flat).view(1, -1, *terms.shape[1:]))
        similarity.append(_cosines(embedded, text[few] if len(weights) > 1 else text)[0])
    return torch.cat(similarity)


def _cosines(embedded: Tensor, text: Tensor) -> Tensor:
    """Cosines (F, P, N) of unit vectors (F, P or 1, N, E) with those of the prompts (P, E)."""
    if embedded.shape[1] == 1:
        return (embedded[:, 0] @ text.T).transpose(1, 2)
    return torch.einsum("fpne,pe->fpn", embedded, text)


def upsample(similarity: Tensor, grid_hw: tuple[int, int], input_hw: tuple[int, int]) -> Tensor:
    """Patch values to network pixels, bilinear, half-pixel centres.

    Args:
        similarity: (F, P, N), patches row by row.
        grid_hw: Rows and columns of patches.
        input_hw: Network height and width in pixels.

    Returns:
        (F, P, H, W).
    """
    grid = similarity.reshape(*similarity.shape[:2], *grid_hw)
    # Along a single patch nothing changes, but rounding would make maxima there.
    size = tuple(1 if patches == 1 else side for patches, side in zip(grid_hw, input_hw))
    maps = F.interpolate(grid, size=size, mode="bilinear", align_corners=False)
    return maps.expand(-1, -1, *input_hw)


def normalise(maps: Tensor) -> Tensor:
    """Min-max to [0, 1] over the last two axes; a constant map becomes zero."""
    low = maps.amin(dim=(-2, -1), keepdim=True)
    span = maps.amax(dim=(-2, -1), keepdim=True) - low
    return (maps - low).div_(torch.where(span > 0, span, torch.ones_like(span)))


def peaks(maps: Tensor) -> Tensor:
    """The first maximum in row order.

    Args:
        maps: (..., H, W).

    Returns:
        (..., 2) int64, x and y.
    """
    width = maps.shape[-1]
    first = maps.flatten(-2).argmax(dim=-1)  # the first of several maxima, as torch documents
    return torch.stack([first % width, first // width], dim=-1)

"""A frame's features, reduced to inner products that give the points of any setting exactly.

Layer norm and projection follow the weighted sum of the terms, so cosines are not linear in the
weights. They are, however, a closed form in a few inner products. With s_l centred over the
channels, gamma, beta and eps of LN_post, and W its projection,

    a_l = (gamma s_l) W,   b = beta W,   sigma^2 = |sum_l w_l s_l|^2 / D + eps,
    u   = sum_l w_l a_l + sigma b        (LN_post(sum_l w_l s_l) W, times sigma)
    cos = u . t / |u|

and sigma^2, |u|^2 and u . t need of a patch only <s_l, s_m>, <a_l, a_m>, <a_l, b> and <a_l, t>:
104 numbers instead of 6,144 for K = 7, D = 768 and an action's three prompts. Dynamic weights, for
any number of terms and any scale, need the similarity of the class token without each term.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from videogem_ros.core.backbones.preprocessing import Placement
from videogem_ros.core.configuration import GroundingConfig
from videogem_ros.core.fusion import fuse_points
from videogem_ros.core.heatmaps import normalise, peaks
from videogem_ros.core.tower import VisionTower
from videogem_ros.core.weighting import leave_one_out, weights_from
from videogem_ros.datatypes import Features


@dataclass(frozen=True, eq=False)
class Grams:
    """Inner products of S frames, each with the P prompts of its action.

    Attributes:
        patches: (S, C, N) float32, of every patch: <s_l, s_m> / D and <a_l, a_m> for l <= m, with
            twice the value for l < m; <a_l, b>; <a_l, t_p>, prompt by prompt.
        without: (S, P, L) float32, cosine of prompt and class token without term l.
        bias: (S, P + 1) float32, <b, t_p> and |b|^2.
        eps: Of LN_post.
        grid_hw: Patches down and across.
    """

    patches: Tensor
    without: Tensor
    bias: Tensor
    eps: float
    grid_hw: tuple[int, int]

    @classmethod
    def of(cls, features: Features, text: Tensor, tower: VisionTower) -> Grams:
        """The inner products of one action's prompts with each frame of some features.

        Args:
            features: Of S frames.
            text: (P, E) float32 unit vectors of the prompts.
            tower: For LN_post and the projection.
        """
        norm, projection = tower.ln_post, tower.projection.float()
        terms = features.patch_terms.float()  # (S, L, N, D)
        centred = terms - terms.mean(dim=-1, keepdim=True)
        a = (centred * norm.weight.float()) @ projection  # (S, L, N, E)
        b = norm.bias.float() @ projection
        patches = [
            _products(centred) / centred.shape[-1],
            _products(a),
            a @ b,
            torch.einsum("slne,pe->spln", a, text).flatten(1, 2),
        ]
        bias = torch.cat([text @ b, (b @ b)[None]])
        return cls(
            torch.cat(patches, dim=1),
            leave_one_out(features.class_terms, text, tower),
            bias.expand(len(terms), -1),
            norm.eps,
            features.grid_hw,
        )

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The tensors with an S axis."""
        return self.patches, self.without, self.bias

    def map(self, change: Callable[[Tensor], Tensor]) -> Grams:
        """A copy with a function applied to each tensor, such as taking rows of S."""
        patches, without, bias = map(change, self.tensors)
        return Grams(patches, without, bias, self.eps, self.grid_hw)

    def cosines(self, config: GroundingConfig) -> Tensor:
        """Cosine of every patch with every prompt: (S, P, N) float32.

        Equals :func:`videogem_ros.core.heatmaps.patch_similarity` with the weights of
        :func:`videogem_ros.core.weighting.layer_weights`, up to rounding.
        """
        _, prompts, terms = self.without.shape
        weights = weights_from(self.without, config)  # (S, P, L), or 1 for S and P
        first, second = torch.triu_indices(terms, terms)
        pairs = weights[..., first] * weights[..., second]  # (S, P, M)
        count = len(first)
        centred, embedded, with_bias, with_text = (
            self.patches[:, start:stop]
            for start, stop in itertools.pairwise(
                itertools.accumulate((count, count, terms, prompts * terms), initial=0)
            )
        )
        sigma = ((pairs @ centred).clamp_min(0) + self.eps).sqrt()  # (S, P, N)
        squared = pairs @ embedded + sigma * (
            2 * (weights @ with_bias) + sigma * self.bias[:, None, -1:]
        )
        with_text = with_text.view(-1, prompts, terms, sigma.shape[-1])  # (S, P, L, N)
        along = (weights[:, :, None] @ with_text)[:, :, 0] + sigma * self.bias[:, :-1, None]
        cosines: Tensor = along / squared.clamp_min(1e-24).sqrt()
        return cosines


def _products(x: Tensor) -> Tensor:
    """<x_l, x_m> for l <= m, twice that for l < m: (S, L, N, D) to (S, L (L + 1) / 2, N)."""
    first, second = torch.triu_indices(x.shape[1], x.shape[1])
    products = torch.einsum("slnd,smnd->slmn", x, x)[:, first, second]
    return products * torch.where(first < second, 2.0, 1.0).to(x.device)[:, None]


@dataclass(frozen=True, eq=False)
class Corners:
    """The few pixels of the network's input in which a heatmap can have its maximum.

    Between four patch centres the upsampled map is bilinear, so over the pixels there its extremes
    lie in the corner pixels, and the first maximum in row order is one of them; so it is for any
    weighted sum of such maps. For patches of 16 pixels that leaves about one pixel in 60.

    Attributes:
        rows: (h,) int64, rows of the content that hold such pixels.
        columns: (w,) int64, columns.
        down: (h, grid_h) float32, interpolation weights of those rows.
        across: (w, grid_w) float32, of those columns.
    """

    rows: Tensor
    columns: Tensor
    down: Tensor
    across: Tensor

    @classmethod
    def of(
        cls, grid_hw: tuple[int, int], placement: Placement, device: torch.device | str = "cpu"
    ) -> Corners:
        """The corners for a grid of patches and the image's placement in the network's input."""
        (rows, down), (columns, across) = (
            _corners(patches, size, start, length)
            for patches, size, start, length in zip(
                grid_hw,
                placement.input_hw,
                (placement.top, placement.left),
                placement.content_hw,
            )
        )
        return cls(*(tensor.to(device) for tensor in (rows, columns, down, across)))

    def locate(self, cosines: Tensor, config: GroundingConfig) -> Tensor:
        """Points of every prompt and of their fusion.

        Equals the points of :func:`videogem_ros.core.fusion.locate_points`; only where a maximum
        is a plateau in the outer half of a border patch, which its rounding decides, may a point
        be another of the plateau's pixels.

        Args:
            cosines: (S, K, N) of the K prompts with the patches.
            config: Fusion and its weights.

        Returns:
            (S, K + 1, 2) int64, x and y in content pixels; the fused point last.
        """
        grid = cosines.view(*cosines.shape[:2], self.down.shape[1], self.across.shape[1])
        heatmaps = normalise(self.down @ (grid @ self.across.T))  # (S, K, h, w)
        points = self._pixels(peaks(heatmaps))
        if config.fusion == "points":
            fused = fuse_points(points, config.fusion_weights)
        else:
            weights = heatmaps.new_tensor(config.fusion_weights)
            fused = self._pixels(peaks(torch.einsum("skhw,k->shw", heatmaps, weights)))
        return torch.cat([points, fused[:, None]], dim=1)

    def _pixels(self, corners: Tensor) -> Tensor:
        """(..., 2) places among the corners to content pixels."""
        return torch.stack([self.columns[corners[..., 0]], self.rows[corners[..., 1]]], dim=-1)


def _corners(patches: int, size: int, start: int, length: int) -> tuple[Tensor, Tensor]:
    """Pixels at the ends of the linear pieces along one axis, and their interpolation weights.

    Args:
        patches: Along the axis.
        size: Of the network's input, in pixels.
        start: First pixel of the content.
        length: Of the content, in pixels.

    Returns:
        (c,) int64 in content pixels, and (c, patches) float32.
    """
    pixels = torch.arange(start, start + length)
    # floor of the patch coordinate (pixel + 1/2) patches / size - 1/2
    piece = ((2 * pixels + 1) * patches - size).div(2 * size, rounding_mode="floor")
    changes = piece[1:] != piece[:-1]
    end = torch.ones(1, dtype=torch.bool)
    chosen = pixels[torch.cat([end, changes]) | torch.cat([changes, end])]
    weights = F.interpolate(torch.eye(patches)[None], size=size, mode="linear")[0].T
    return chosen - start, weights[chosen]

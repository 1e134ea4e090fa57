"""A hand-set first block whose heads attend to the same patch one frame before and after.

Heads that compare a position over time hardly emerge by training: a video model initialised from
an image model remains one for hours.

- Tokens hardly vary along many directions. Some of these directions become a code of where and
  when a patch is: cosines and sines of its column, row and frame, and a constant.
- With that code, one head attends to the same patch one frame before, the other one frame after;
  at the clip's ends, to the patch itself. Their values are principal components of the patch's
  pixels, and the difference is written along other directions in which tokens hardly vary.
- The MLP is initialised with random features of a patch's components and differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from models import VideoStudent, attended, normalised
from torch import Tensor

from videogem_ros.core.encoder import Encoder
from videogem_ros.core.tower import Norm, VisionTower

FREQUENCIES = (1.0, 2.0, 4.0)
CODED = 2 * len(FREQUENCIES)
"""Directions that code a column, a row or a frame."""
CODE = 3 * CODED + 1
CODE_SHARE = 0.35
"""Share of the median token's energy that the code takes."""
SHARPNESS = 30.0
"""The gap between the logits of the right and the next best patch is about two thirds of it."""
MARGIN = 0.33
"""A key's logit is zero if it matches the query by this much less than the wanted code does."""
COMPONENTS = 40
"""Principal components of a patch's pixels that are compared."""
FEATURE_GAIN = 1.5
"""Standard deviation of the MLP's first layer for components of variance 1."""


@dataclass(frozen=True)
class Directions:
    """Orthonormal directions of the residual stream.

    Attributes:
        code: (D, ``CODE``): code of column, row and frame, and the constant.
        differences: (D, ``COMPONENTS``): differences of pixel components.
    """

    code: Tensor
    differences: Tensor

    @property
    def velocity(self) -> Tensor:
        """(D, 2): horizontal and vertical."""
        return self.code[:, :2]

    def without_code(self, x: Tensor) -> Tensor:
        """(..., D), the part that is orthogonal to the code."""
        return x - x @ self.code @ self.code.T


@torch.no_grad()
def look_around(student: VideoStudent, images: Tensor) -> Directions:
    """Set the first block: what its two heads attend to, and the MLP's random features.

    Args:
        student: A student with two heads, initialised from an image model.
        images: (B, T, S, S, 3) uint8 clips, used for statistics.

    Returns:
        Directions of the code and of the differences.
    """
    tower = student.tower
    block, width = tower.blocks[0], len(tower.class_embedding)
    if tower.heads != 2 or tower.head_dim < max(CODE, COMPONENTS) or tower.ln_pre is None:
        raise ValueError(f"expected two heads of {COMPONENTS} or wider, behind a norm")
    pixels = normalised(images, student.preprocessing)
    tokens = Encoder(tower, 1).tokens(pixels)
    components = pixel_components(pixels, tower, tokens)
    directions = _write_code(tower, tokens)
    for norm in (block.ln_1, block.ln_2):
        norm.weight.fill_(1)
        norm.bias.zero_()

    x = tower.ln_pre(Encoder(tower, 1).tokens(pixels))
    y = block.ln_1(x)
    query, key, value = block.qkv.weight.view(3, 2, tower.head_dim, width).zero_()
    for linear in (block.qkv, block.out, block.expand, block.contract):
        if linear.bias is not None:
            linear.bias.zero_()
    read = directions.code.T / tower.ln_pre.weight
    read = read - read.mean(dim=1, keepdim=True)
    constant = (y[:, 1:] @ read[-1]).median()
    factor = (SHARPNESS * math.sqrt(tower.head_dim)) ** 0.5 / constant
    query[0, :CODE] = factor * _query_code(tower, -1) @ read
    query[1, :CODE] = factor * _query_code(tower, 1) @ read
    key[:, :CODE] = factor * read
    value[:, :COMPONENTS], _ = readout(_patches(y), components)
    before, after = torch.split(block.out.weight.zero_(), tower.head_dim, dim=1)
    before[:, :COMPONENTS] = -directions.differences
    after[:, :COMPONENTS] = directions.differences

    compared = torch.cat([part + attended(block, part, tower.heads) for part in torch.split(x, 8)])
    by_frame = components.view(-1, tower.frames, COMPONENTS)
    late, early = (by_frame[:, clamped(tower.frames, shift)] for shift in (1, -1))
    difference = (late - early).flatten(0, 1)
    seen = torch.cat([components, difference / difference.std(dim=0)], dim=1)
    weight, bias = readout(_patches(block.ln_2(compared)), seen)
    features = torch.randn(len(block.expand.weight), seen.shape[1])
    features *= FEATURE_GAIN / math.sqrt(seen.shape[1])
    block.expand.weight.copy_(features @ weight)
    if block.expand.bias is not None:
        block.expand.bias.copy_(features @ bias)
    block.contract.weight.normal_(std=0.02)
    return directions


def _write_code(tower: VisionTower, tokens: Tensor) -> Directions:
    """Remove content from some directions, and write the code into the position embeddings."""
    norm, temporal = tower.ln_pre, tower.temporal_embedding
    if norm is None or temporal is None:
        raise ValueError("expected a video tower with a norm before its blocks")
    free = quiet_directions(tokens.flatten(0, 1), norm, CODE + COMPONENTS)
    directions = Directions(*torch.split(free, [CODE, COMPONENTS], dim=1))
    column, row, frame, constant = torch.split(directions.code, [CODED, CODED, CODED, 1], dim=1)
    energy = len(norm.weight) * tokens.var(dim=-1, unbiased=False).median()
    parts = 3 * len(FREQUENCIES) + 1  # each pair of cosine and sine, and the constant
    amplitude = (energy * CODE_SHARE / (1 - CODE_SHARE) / parts).sqrt()

    kernel = tower.patch_embedding.flatten(1)
    tower.patch_embedding.copy_(directions.without_code(kernel.T).T.view_as(tower.patch_embedding))
    for embedding in (tower.position_embedding, tower.class_embedding, temporal):
        embedding.copy_(directions.without_code(embedding))
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in tower.grid_hw), indexing="ij")
    code = codes(columns.flatten(), 2 * tower.grid_hw[1]) @ column.T
    code += codes(rows.flatten(), 2 * tower.grid_hw[0]) @ row.T
    places = tower.position_embedding
    places[1:] += amplitude * code
    places += amplitude * constant[:, 0]
    temporal += amplitude * codes(torch.arange(tower.frames), 2 * tower.frames) @ frame.T
    norm.weight.div_(math.sqrt(1 - CODE_SHARE))  # keeps the scale of the content
    return directions


def quiet_directions(tokens: Tensor, norm: Norm, count: int) -> Tensor:
    """Orthonormal directions along which tokens vary least.

    Args:
        tokens: (M, D).
        norm: The norm that follows. The directions avoid its mean and bias, so that one projection
            of its output recovers them, up to a factor per token.
        count: Number of directions.

    Returns:
        (D, count), quietest first.
    """
    taken = torch.stack([torch.ones_like(norm.weight), 1 / norm.weight, norm.bias / norm.weight])
    basis = torch.linalg.qr(taken.T).Q
    rest = torch.eye(len(norm.weight)) - basis @ basis.T
    covariance = rest @ torch.cov(tokens.T) @ rest
    largest = covariance.trace()
    vectors: Tensor = torch.linalg.eigh(covariance + largest * basis @ basis.T).eigenvectors
    return vectors[:, :count]


def codes(places: Tensor, period: int) -> Tensor:
    """(M,) positions to (M, ``CODED``): cosines, then sines."""
    angles = places[:, None] * (2 * math.pi / period) * torch.tensor(FREQUENCIES)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _query_code(tower: VisionTower, shift: int) -> Tensor:
    """(``CODE``, ``CODE``): maps a patch's code to the wanted code, ``shift`` frames later."""
    own = codes(torch.arange(tower.frames), 2 * tower.frames)
    wanted = own[clamped(tower.frames, shift)]
    known = torch.cat([own, torch.ones(len(own), 1)], dim=1)
    query = torch.eye(CODE)
    query[2 * CODED : 3 * CODED, 2 * CODED :] = torch.linalg.lstsq(known, wanted).solution.T
    # Otherwise, the longest keys would match the query best.
    query[-1, -1] = MARGIN - 3 * len(FREQUENCIES)
    return query


def clamped(frames: int, shift: int) -> Tensor:
    """(T,) index of the frame ``shift`` later than each, clamped to the clip."""
    return (torch.arange(frames) + shift).clamp(0, frames - 1)


def pixel_components(pixels: Tensor, tower: VisionTower, tokens: Tensor) -> Tensor:
    """Principal components of patches' pixels, without each patch's mean brightness.

    Args:
        pixels: (B, T, 3, S, S).
        tower: Defines the patch size.
        tokens: (B, 1 + N T, D); pixels are divided by the standard deviation of the patch's token.

    Returns:
        (B N T, ``COMPONENTS``) with variance about 1; time is the fastest axis.
    """
    batch, frames = pixels.shape[:2]
    patches = F.unfold(pixels.flatten(0, 1), tower.patch_hw, stride=tower.patch_hw)  # (B T, P, N)
    patches = patches.view(batch, frames, *patches.shape[1:]).permute(0, 3, 1, 2).flatten(0, 2)
    length = tokens[:, 1:].flatten(0, 1).std(dim=1, keepdim=True)
    patches = (patches - patches.mean(dim=1, keepdim=True)) / length
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    components: Tensor = patches @ (vectors / values.sqrt())[:, -COMPONENTS:].flip(1)
    return components


def readout(x: Tensor, y: Tensor, ridge: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Least squares: (M, D) x and (M, C) y to weight (C, D) and bias (C,), y ~ W x + b."""
    x, y = x.double(), y.double()
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    centred = x - mean_x
    gram = centred.T @ centred + ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, centred.T @ (y - mean_y)).T
    return weight.float(), (mean_y - weight @ mean_x).float()


def _patches(x: Tensor) -> Tensor:
    return x[:, 1:].flatten(0, 1)

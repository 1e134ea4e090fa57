"""Window pixels to features: one pass over the vision tower that keeps both paths' terms.

The plain path runs the transformer unchanged. In each of the last K blocks the self-self path
branches off from the same normalised input and is not fed back. Nothing else is kept than the K +
1 terms of the wanted patch tokens and of the class token, from which any layer weighting follows
later.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from videogem_ros.core.attention import (
    attention,
    merge_heads,
    self_self_attention,
    split_heads,
    token_temperature,
)
from videogem_ros.core.tower import Block, VisionTower
from videogem_ros.datatypes import Features
from videogem_ros.errors import InvalidValueError


class Encoder:
    """The two-path forward over a vision tower's weights.

    Differentiable, so that a backbone can be trained through it; callers that only ground run it
    in inference mode.

    Args:
        tower: The weights.
        depth: K, how many last blocks have a self-self path.

    Raises:
        InvalidValueError: The tower has fewer than ``depth`` blocks.
    """

    def __init__(self, tower: VisionTower, depth: int = 7) -> None:
        if not 1 <= depth <= len(tower.blocks):
            raise InvalidValueError(
                "depth", f"1 to the backbone's {len(tower.blocks)} blocks", depth
            )
        self.tower = tower
        self.depth = depth

    def __call__(self, pixels: Tensor, frames: Sequence[int] | None = None) -> Features:
        """Encode one window.

        Args:
            pixels: (T, 3, H, W) normalised RGB in the tower's dtype and device; H and W are
                multiples of the patch. A video tower takes exactly its T frames, an image tower
                any number and encodes each on its own.
            frames: Places in the window whose patch features are wanted, all where None. An image
                tower encodes only these; a video tower needs all frames, but saves the queries of
                the others in the second self-self step. The values do not depend on the choice.

        Returns:
            The features of the wanted frames.

        Raises:
            InvalidValueError: A shape that the tower cannot take, or frames outside the window.
        """
        count = pixels.shape[0]
        chosen = check_places(range(count) if frames is None else frames, count)
        grid_hw = self._grid(pixels)
        if self.tower.temporal_embedding is None:
            patch_terms, class_terms = self.walk(self.tokens(pixels[list(chosen)]))
            return Features(patch_terms, class_terms, grid_hw, chosen)
        return self._encode_video(pixels, grid_hw, chosen)

    def _grid(self, pixels: Tensor) -> tuple[int, int]:
        patch_h, patch_w = self.tower.patch_hw
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise InvalidValueError("pixels", "shape (T, 3, H, W)", tuple(pixels.shape))
        height, width = pixels.shape[-2:]
        if height % patch_h or width % patch_w:
            raise InvalidValueError(
                "image_hw",
                f"height and width that are multiples of the patch {patch_h} x {patch_w}",
                (height, width),
            )
        if self.tower.temporal_embedding is not None and pixels.shape[0] != self.tower.frames:
            raise InvalidValueError(
                "window.frames", f"{self.tower.frames} frames", f"{pixels.shape[0]}"
            )
        return height // patch_h, width // patch_w

    def tokens(self, pixels: Tensor) -> Tensor:
        """What the first block is given, before the norm.

        Args:
            pixels: As :meth:`__call__` takes them, or a batch of such windows (B, T, 3, H, W).

        Returns:
            The class token, then the patches with their positions, B being 1 for a single window:
            of an image tower, (B T, 1 + N, D), row by row; of a video tower, (B, 1 + N T, D), time
            fastest.
        """
        grid_hw = self._grid(pixels[0] if pixels.ndim == 5 else pixels)
        token = self.tower.class_embedding + self.tower.position_embedding[0]
        x = self._patches(pixels.flatten(0, -4)) + self.positions(grid_hw)[1:]
        if self.tower.temporal_embedding is not None:
            x = x.view(-1, self.tower.frames, *x.shape[1:])  # (B, T, N, D)
            x = x + self.tower.temporal_embedding[:, None]
            x = x.transpose(1, 2).flatten(1, 2)  # to (B, N T, D)
        return torch.cat([token.expand(x.shape[0], 1, -1), x], dim=1)

    def _encode_video(
        self, pixels: Tensor, grid_hw: tuple[int, int], chosen: tuple[int, ...]
    ) -> Features:
        frames, patches = pixels.shape[0], grid_hw[0] * grid_hw[1]
        wanted = None
        if len(chosen) < frames:
            first = 1 + frames * torch.arange(patches, device=pixels.device)
            wanted = (first[:, None] + torch.tensor(chosen, device=pixels.device)).flatten()
        # (1, L, N F, D), (1, L, D)
        patch_terms, class_terms = self.walk(self.tokens(pixels), wanted)
        terms, width = patch_terms.shape[1], patch_terms.shape[-1]
        per_frame = len(chosen) if wanted is not None else frames
        patch_terms = patch_terms.view(terms, patches, per_frame, width).permute(2, 0, 1, 3)
        if wanted is None:
            patch_terms = patch_terms[list(chosen)]
        return Features(patch_terms, class_terms.expand(len(chosen), -1, -1), grid_hw, chosen)

    def _patches(self, pixels: Tensor) -> Tensor:
        """(T, 3, H, W) to (T, N, D), row by row."""
        weight = self.tower.patch_embedding
        return F.conv2d(pixels, weight, stride=self.tower.patch_hw).flatten(2).transpose(1, 2)

    def positions(self, grid_hw: tuple[int, int]) -> Tensor:
        """Position embeddings (1 + N, D) for a grid of patches."""
        return resample_positions(self.tower.position_embedding, self.tower.grid_hw, grid_hw)

    def walk(self, x: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Both paths over all blocks.

        Args:
            x: (B, 1 + N, D), class token first, from :meth:`tokens`; in training a batch of
                windows, or tokens of which some were dropped.
            tokens: (M,) int64, the patch tokens that are wanted; all where None.

        Returns:
            patch terms (B, L, N or M, D) and class terms (B, L, D).
        """
        tower = self.tower
        if tower.ln_pre is not None:
            x = tower.ln_pre(x)
        plain_only = len(tower.blocks) - self.depth
        for block in tower.blocks[:plain_only]:
            x = x + self._plain(block, self._heads(block, block.ln_1(x)))
            x = x + block.mlp(x)

        wanted = x[:, 1:] if tokens is None else x[:, tokens]
        patch_terms = x.new_empty(x.shape[0], self.depth + 1, *wanted.shape[1:])
        patch_terms[:, 0] = wanted
        class_terms = [x[:, 0]]
        for term, block in enumerate(tower.blocks[plain_only:], start=1):
            last = block is tower.blocks[-1]
            patch_terms[:, term], attended = self._two_paths(block, x, tokens, last)
            x = (x[:, :1] if last else x) + attended
            added = block.mlp(x)
            x = x + added
            class_terms.append(attended[:, 0] + added[:, 0])
        return patch_terms, torch.stack(class_terms, dim=1)

    def _heads(self, block: Block, y: Tensor) -> Tensor:
        """q, k and v of the normalised input y, (3, B, heads, 1 + N, d)."""
        return split_heads(block.qkv(y), self.tower.heads)

    def _plain(self, block: Block, qkv: Tensor, queries: int | None = None) -> Tensor:
        """What plain attention adds, for the first ``queries`` tokens, all where None."""
        q, k, v = qkv
        return block.project(merge_heads(attention(q[:, :, :queries], k, v)))

    def _two_paths(
        self, block: Block, x: Tensor, tokens: Tensor | None, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Both attentions of a block.

        Returns:
            s_l of the wanted patch tokens (B, N or M, D), and what plain attention adds to all
            tokens (B, 1 + N, D); after the last block nothing follows, so there to the class token
            alone.
        """
        y = block.ln_1(x)
        temperature = token_temperature(y, self.tower.head_dim)
        qkv = self._heads(block, y)
        branch = merge_heads(self_self_attention(qkv, temperature, tokens))
        patches = block.project(branch[:, 1:] if tokens is None else branch)
        return patches, self._plain(block, qkv, 1 if last else None)


def check_places(frames: Sequence[int], count: int) -> tuple[int, ...]:
    """Places in a window of ``count`` frames, as plain integers.

    Raises:
        InvalidValueError: There are none, or one is outside the window.
    """
    chosen = tuple(operator.index(place) for place in frames)
    if not chosen or not all(0 <= place < count for place in chosen):
        raise InvalidValueError("frames", f"places in a window of {count} frames", chosen)
    return chosen


def resample_positions(
    embedding: Tensor, trained_hw: tuple[int, int], grid_hw: tuple[int, int]
) -> Tensor:
    """Position embeddings for another grid: bicubic, antialiased, as open_clip does.

    Args:
        embedding: (1 + N, D): class token, then patches row by row.
        trained_hw: Patches down and across that they were trained for.
        grid_hw: Patches down and across that are wanted.

    Returns:
        (1 + grid_h * grid_w, D); the class token's row unchanged.
    """
    if grid_hw == trained_hw:
        return embedding
    grid = embedding[1:].T.reshape(1, -1, *trained_hw)
    grid = F.interpolate(
        grid.float(), size=grid_hw, mode="bicubic", antialias=True, align_corners=False
    )
    patches = grid[0].flatten(1).T.to(embedding.dtype)
    return torch.cat([embedding[:1], patches])


def join_features(parts: Sequence[Features], frames: Sequence[int]) -> Features:
    """Features of one image backbone's frames, encoded at different times, as one window's.

    Args:
        parts: Features of the same backbone and input size.
        frames: Place in the window of every frame of the parts, in order.

    Returns:
        The features of all frames.

    Raises:
        InvalidValueError: No parts, or parts of different grids.
    """
    grids = {part.grid_hw for part in parts}
    if len(grids) != 1:
        raise InvalidValueError("features", "parts of one patch grid", sorted(grids))
    return Features(
        torch.cat([part.patch_terms for part in parts]),
        torch.cat([part.class_terms for part in parts]),
        grids.pop(),
        tuple(frames),
    )

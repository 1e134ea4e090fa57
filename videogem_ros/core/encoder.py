"""Window pixels to features: one pass over the vision tower that keeps both paths' terms.

The plain path runs the transformer unchanged. In each of the last K blocks the self-self path
branches off from the same normalised input and is not fed back. Only the K + 1 terms of the wanted
patch tokens and of the class token are kept; they suffice for any layer weighting later.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from videogem_ros.core.acceleration import version
from videogem_ros.core.attention import (
    PATCHES,
    attention,
    chosen_kernels,
    merge_heads,
    self_self_attention,
    self_self_attention_by_frame,
    split_heads,
    token_lengths,
    token_temperature,
)
from videogem_ros.core.configuration import SCOPES
from videogem_ros.core.fused import Beside, add_and_norm, own_kernels, product_in_halves
from videogem_ros.core.tower import Block, VisionTower
from videogem_ros.datatypes import Features
from videogem_ros.errors import InvalidValueError, check_choice

CPU = torch.device("cpu")


class Encoder:
    """The two-path forward over a vision tower's weights.

    Differentiable, so that a backbone can be trained through it; for grounding alone, run it in
    inference mode.

    Args:
        tower: The weights.
        depth: K, how many last blocks have a self-self path.
        scope: "window", or "frame" for a self-self path in which a patch attends only to patches
            of its own frame; see :class:`~videogem_ros.core.GroundingConfig`.

    Raises:
        InvalidValueError: The tower has fewer than ``depth`` blocks, or no such scope.
    """

    def __init__(self, tower: VisionTower, depth: int = 7, scope: str = "window") -> None:
        check_choice("self_self_scope", scope, SCOPES)
        if not 1 <= depth <= len(tower.blocks):
            raise InvalidValueError(
                "depth", f"1 to the backbone's {len(tower.blocks)} blocks", depth
            )
        self.tower = tower
        self.depth = depth
        self.scope = scope
        self._resampled: dict[tuple[int, int], tuple[tuple[int, int], Tensor]] = {}

    def __call__(self, pixels: Tensor, frames: Sequence[int] | None = None) -> Features:
        """Encode one window.

        Args:
            pixels: (T, 3, H, W) normalised RGB in the patch embedding's dtype and on its device; H
                and W are multiples of the patch. A video tower takes exactly its T frames, an
                image tower any number and encodes each on its own.
            frames: Indices of the frames whose patch features are wanted; all where None. An image
                tower encodes only these; a video tower needs all frames, but saves the queries of
                the others in the second self-self step. The values do not depend on the choice.

        Returns:
            The features of the wanted frames. The residual stream is float32, since every block
            adds to it and bfloat16 sums would lose small terms.

        Raises:
            InvalidValueError: A shape that the tower cannot take, or frames outside the window.
        """
        count = pixels.shape[0]
        chosen = check_indices(range(count) if frames is None else frames, count)
        grid_hw = self._grid(pixels)
        patch_terms, class_terms = self.terms(pixels[None], chosen)
        return Features(patch_terms[0], class_terms[0], grid_hw, chosen)

    def terms(self, pixels: Tensor, chosen: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Encode a batch of windows, which do not attend to each other.

        Never synchronises with the device, so that it can be recorded as a CUDA graph.

        Args:
            pixels: (B, T, 3, H, W), each window as :meth:`__call__` takes one.
            chosen: Indices of the F frames whose patch features are wanted, the same in every
                window.

        Returns:
            Patch terms (B, F, L, N, D) and class terms (B, F, L, D); see :class:`Features`.
        """
        tower, grid_hw = self.tower, self._grid(pixels[0])
        windows, frames = pixels.shape[:2]
        patches = math.prod(grid_hw)
        with chosen_kernels(pixels.device, tower.dtype, tower.head_dim):
            if tower.temporal_embedding is None:
                patch_terms, class_terms = self.walk(self.tokens(_take(pixels, chosen)).float())
                return (
                    patch_terms.reshape(windows, -1, *patch_terms.shape[1:]),
                    class_terms.reshape(windows, -1, *class_terms.shape[1:]),
                )
            width = len(tower.class_embedding)
            shape = (windows, len(chosen), self.depth + 1, patches, width)
            if own_kernels(pixels) is None:
                patch_terms = pixels.new_empty(shape, dtype=tower.dtype)
            else:  # in memory as the branch computes them
                shape = (windows, self.depth + 1, patches, len(chosen), width)
                patch_terms = pixels.new_empty(shape, dtype=tower.dtype).permute(0, 3, 1, 2, 4)
            tokens = _tokens_of(chosen, frames, patches, pixels.device)
            attend = None
            if self.scope == "frame":
                attend = partial(self_self_attention_by_frame, frames=frames, chosen=chosen)
            _, class_terms = self.walk(
                self.tokens(pixels).float(), tokens, patch_terms.permute(0, 2, 3, 1, 4), attend
            )
        return patch_terms, class_terms[:, None].expand(-1, len(chosen), -1, -1)

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
        """The input tokens, before the norm that precedes the first block.

        Args:
            pixels: As :meth:`__call__` takes them, or a batch of such windows (B, T, 3, H, W).

        Returns:
            The class token, then the patches with their position embeddings: for an image tower
            (B T, 1 + N, D), row by row; for a video tower (B, 1 + N T, D), time fastest. B is 1
            for a single window.
        """
        grid_hw = self._grid(pixels[0] if pixels.ndim == 5 else pixels)
        token = self.tower.class_embedding + self.tower.position_embedding[0]
        x = self._patches(pixels.flatten(0, -4)) + self.positions(grid_hw)[1:]
        if self.tower.temporal_embedding is not None:
            x = x.view(-1, self.tower.frames, *x.shape[1:])  # (B, T, N, D)
            x = x + self.tower.temporal_embedding[:, None]
            x = x.transpose(1, 2).flatten(1, 2)  # to (B, N T, D)
        return torch.cat([token.expand(x.shape[0], 1, -1), x], dim=1)

    def _patches(self, pixels: Tensor) -> Tensor:
        """(T, 3, H, W) to (T, N, D), row by row.

        The patch embedding is a convolution whose windows do not overlap. It is computed as one
        matrix product, since by default torch lets GPUs round float32 to TF32 in convolutions,
        but not in products.
        """
        weight = self.tower.patch_embedding  # (D, 3, p_h, p_w)
        patch_h, patch_w = self.tower.patch_hw
        rows, columns = pixels.shape[-2] // patch_h, pixels.shape[-1] // patch_w
        x = pixels.reshape(-1, 3, rows, patch_h, columns, patch_w).permute(0, 2, 4, 1, 3, 5)
        x, weight = x.flatten(3).flatten(1, 2), weight.flatten(1)
        made = product_in_halves(x, weight, self.tower.dtype)
        return F.linear(x, weight) if made is None else made

    def positions(self, grid_hw: tuple[int, int]) -> Tensor:
        """Position embeddings (1 + N, D) for a grid of patches.

        Resampled ones are cached while the tower's are frozen and do not change.
        """
        embedding = self.tower.position_embedding
        if grid_hw == self.tower.grid_hw or embedding.requires_grad:
            return resample_positions(embedding, self.tower.grid_hw, grid_hw)
        state = (embedding.data_ptr(), version(embedding))
        known, resampled = self._resampled.get(grid_hw, (None, embedding))
        if known != state:
            with torch.inference_mode(False), torch.no_grad():
                resampled = resample_positions(embedding, self.tower.grid_hw, grid_hw)
            self._resampled[grid_hw] = (state, resampled)
        return resampled

    def walk(
        self,
        x: Tensor,
        tokens: Tensor | slice = PATCHES,
        out: Tensor | None = None,
        attend: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Both paths over all blocks.

        Args:
            x: (B, 1 + N, D), class token first, from :meth:`tokens`; in training a batch of
                windows, or tokens of which some were dropped. The residual stream and its norms
                keep its dtype, whatever the weights' is.
            tokens: (M,) int64 or a slice: the M patch tokens that are wanted.
            out: Where the patch terms are written, (B, L, ..., D) in the weights' dtype, where
                ... are M tokens in any shape; allocated where None.
            attend: Computes the self-self attention (B, heads, M, d) of the wanted tokens from q,
                k and v by head (3, B, heads, 1 + N, d) and the temperature (B,);
                :func:`self_self_attention` over all tokens where None.

        Returns:
            Patch terms, (B, L, M, D) in the weights' dtype or ``out``, and class terms
            (B, L, D) in float32.
        """
        tower = self.tower
        if tower.ln_pre is not None:
            x = tower.ln_pre(x)
        plain_only = len(tower.blocks) - self.depth
        pending: Tensor | None = None  # what is still to be added to x
        for block in tower.blocks[:plain_only]:
            x, pending = self._one_path(block, x, pending)
        if pending is not None:
            x, pending = x + pending, None

        attend = attend or partial(self_self_attention, tokens=tokens)
        wanted = x[:, tokens]
        if out is None:
            shape = (x.shape[0], self.depth + 1, *wanted.shape[1:])
            out = wanted.new_empty(shape, dtype=tower.dtype)
        out[:, 0].copy_(wanted.view(len(wanted), *out.shape[2:-1], -1))
        class_terms = [x[:, 0].clone()]
        del wanted  # a view, as the class token was, which would keep all of x
        # Several windows keep a GPU busy without a second stream.
        beside = Beside(x.device if len(x) == 1 else CPU)
        for term, block in enumerate(tower.blocks[plain_only:], start=1):
            branch = partial(self._branch, block, attend, out[:, term])
            x, pending, class_term = self._two_paths(block, x, pending, beside, branch)
            class_terms.append(class_term)
        beside.join()
        return out, torch.stack(class_terms, dim=1)

    def _heads(self, block: Block, y: Tensor) -> Tensor:
        """q, k and v by head (3, B, heads, 1 + N, d) of the normalised input y."""
        y, heads = y.to(self.tower.dtype), self.tower.heads
        if y.device.type != "cpu" or torch.is_grad_enabled():
            return split_heads(block.qkv(y), heads)
        # One after the other, so that only one of them is in memory twice.
        batch, tokens, width = y.shape
        out = y.new_empty(3, batch, heads, tokens, width // heads)
        for part, projection in zip(out, block.qkv.split(3), strict=True):
            part.copy_(projection(y).view(batch, tokens, heads, -1).transpose(1, 2))
        return out

    def _plain(self, block: Block, qkv: Tensor, queries: int | None = None) -> Tensor:
        """What plain attention adds to the first ``queries`` tokens; to all where None."""
        q, k, v = qkv
        return block.project(merge_heads(attention(q[:, :, :queries], k, v)))

    def _one_path(
        self, block: Block, x: Tensor, added: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """A block without the self-self branch.

        Args:
            block: The block.
            x: (B, 1 + N, D), the residual stream.
            added: What is still to be added to it; None for nothing.

        Returns:
            The residual stream and what is still to be added to it, as :func:`_mlp` gives them.
        """
        x, y, _ = add_and_norm(x, added, block.ln_1, self.tower.dtype)
        x, _, pending = _mlp(block, x, self._plain(block, self._heads(block, y)))
        return x, pending

    def _two_paths(
        self,
        block: Block,
        x: Tensor,
        added: Tensor | None,
        beside: Beside,
        branch: Callable[[Tensor, Tensor], None],
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """A block with the self-self branch beside it.

        In the last block the plain path computes the class token alone, as no block follows.

        Returns:
            The residual stream and what is still to be added to it, as :func:`_mlp` gives them,
            and the class token's term (B, D) in float32.
        """
        last = block is self.tower.blocks[-1]
        x, y, lengths = add_and_norm(x, added, block.ln_1, self.tower.dtype)
        lengths = token_lengths(y) if lengths is None else lengths
        qkv = self._heads(block, y)
        del y  # as large as x; memory use peaks in the branch
        beside.run(branch, qkv, lengths)
        attended = self._plain(block, qkv, 1 if last else None)
        del qkv
        x, added, pending = _mlp(block, x[:, :1] if last else x, attended)
        own = own_kernels(attended)
        if own is not None:
            return x, pending, own.sum_of_first(attended, added)
        return x, pending, attended[:, 0].float() + added[:, 0]

    def _branch(
        self,
        block: Block,
        attend: Callable[[Tensor, Tensor], Tensor],
        out: Tensor,
        qkv: Tensor,
        lengths: Tensor,
    ) -> None:
        """Write s_l, the self-self term of the wanted patch tokens, to ``out`` (B, ..., D)."""
        temperature = token_temperature(lengths, self.tower.head_dim)
        block.project_to(merge_heads(attend(qkv, temperature)), out)


def _mlp(block: Block, x: Tensor, attended: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """What follows a block's attention.

    Returns:
        The residual stream, what the MLP adds to it, and what of that is still to be added: an
        own kernel adds it together with the next norm; None where the stream has it already.
    """
    if own_kernels(x) is None:
        x = x + attended
        added = block.mlp(x)
        return x + added, added, None
    dtype = block.expand.weight.dtype
    x, y, _ = add_and_norm(x, attended, block.ln_2, dtype)
    added = block.feed_forward(y.to(dtype))
    return x, added, added


def _take(x: Tensor, chosen: tuple[int, ...]) -> Tensor:
    """(B, T, ...) to (B, F, ...), without an index tensor, which would have to be uploaded."""
    if chosen == tuple(range(x.shape[1])):
        return x
    return torch.stack([x[:, place] for place in chosen], dim=1)


def _tokens_of(
    chosen: tuple[int, ...], frames: int, patches: int, device: torch.device
) -> Tensor | slice:
    """Indices of the chosen frames' patches among 1 + N T tokens (class, patches, time fastest).

    Patch by patch, frames fastest: (N F,), or a slice where possible, which copies nothing.
    """
    if chosen == tuple(range(frames)):
        return PATCHES
    if len(chosen) == 1:
        return slice(1 + chosen[0], None, frames)
    end = 1 + frames * patches
    of_frames = [torch.arange(1 + place, end, frames, device=device) for place in chosen]
    return torch.stack(of_frames, dim=1).flatten()


def check_indices(frames: Sequence[int], count: int) -> tuple[int, ...]:
    """Indices into a window of ``count`` frames, as plain integers.

    Raises:
        InvalidValueError: There are none, or one is outside the window.
    """
    chosen = tuple(operator.index(place) for place in frames)
    if not chosen or not all(0 <= place < count for place in chosen):
        raise InvalidValueError("frames", f"indices in a window of {count} frames", chosen)
    return chosen


def resample_positions(
    embedding: Tensor, trained_hw: tuple[int, int], grid_hw: tuple[int, int]
) -> Tensor:
    """Position embeddings for another grid: bicubic, antialiased, as open_clip does.

    Args:
        embedding: (1 + N, D): class token, then patches row by row.
        trained_hw: Rows and columns of the grid that they were trained for.
        grid_hw: Rows and columns of the wanted grid.

    Returns:
        (1 + grid_h * grid_w, D); the class token's row unchanged.
    """
    if grid_hw == trained_hw:
        return embedding
    # Channels last: to a single column torch's CPU kernel resamples the other layout wrongly.
    grid = embedding[1:].reshape(1, *trained_hw, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(
        grid.float(), size=grid_hw, mode="bicubic", antialias=True, align_corners=False
    )
    patches = grid[0].flatten(1).T.to(embedding.dtype)
    return torch.cat([embedding[:1], patches])


def join_features(parts: Sequence[Features], frames: Sequence[int]) -> Features:
    """Features of one image backbone's frames, encoded at different times, as one window's.

    Args:
        parts: Features of the same backbone and input size.
        frames: Index in the window of each of the parts' frames, in order.

    Returns:
        The features of all frames.

    Raises:
        InvalidValueError: No parts, or parts of different grids.
    """
    grids = {part.grid_hw for part in parts}
    if len(grids) != 1:
        raise InvalidValueError("features", "parts of one patch grid", sorted(grids))
    if len(parts) == 1:  # nothing to copy
        return replace(parts[0], frames=tuple(frames))
    return Features(
        torch.cat([part.patch_terms for part in parts]),
        torch.cat([part.class_terms for part in parts]),
        grids.pop(),
        tuple(frames),
    )

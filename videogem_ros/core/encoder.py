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
from videogem_ros.core.fused import Beside, add_and_norm, own_kernels, patches_in_halves
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

    def terms(
        self,
        pixels: Tensor,
        chosen: tuple[int, ...],
        meanwhile: Callable[[Tensor], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encode a batch of windows, which do not attend to each other.

        Never synchronises with the device, so that it can be recorded as a CUDA graph.

        Args:
            pixels: (B, T, 3, H, W), each window as :meth:`__call__` takes one.
            chosen: Indices of the F frames whose patch features are wanted, the same in every
                window.
            meanwhile: Called with the class terms (B, F, L, D) when a GPU may still be computing
                patch terms.

        Returns:
            Patch terms (B, F, L, N, D) and class terms (B, F, L, D); see :class:`Features`.
        """
        tower, grid_hw = self.tower, self._grid(pixels[0])
        windows, frames = pixels.shape[:2]
        patches = math.prod(grid_hw)
        with chosen_kernels(pixels.device, tower.dtype, tower.head_dim):
            if tower.temporal_embedding is None:

                def by_window(terms: Tensor) -> Tensor:
                    return terms.reshape(windows, -1, *terms.shape[1:])

                x = self._entering(_take(pixels, chosen))
                patch_terms, class_terms = self._walk(x, meanwhile=_after(by_window, meanwhile))
                return by_window(patch_terms), by_window(class_terms)

            def of_frames(class_terms: Tensor) -> Tensor:
                return class_terms[:, None].expand(-1, len(chosen), -1, -1)

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
            _, class_terms = self._walk(
                self._entering(pixels),
                tokens,
                patch_terms.permute(0, 2, 3, 1, 4),
                attend,
                _after(of_frames, meanwhile),
            )
        return patch_terms, of_frames(class_terms)

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

    def _entering(self, pixels: Tensor) -> Tensor:
        """What enters the first block, float32: :meth:`tokens` after the norm, if there is one."""
        tower, own = self.tower, own_kernels(pixels)
        if own is None:
            return self._normed(self.tokens(pixels).float())
        norm = tower.ln_pre and (tower.ln_pre.weight, tower.ln_pre.bias, tower.ln_pre.eps)
        grid_hw = self._grid(pixels[0] if pixels.ndim == 5 else pixels)
        patches = self._patches(pixels.flatten(0, -4))
        entering: Tensor = own.tokens(
            patches,
            tower.class_embedding,
            self.positions(grid_hw).contiguous(),
            None if tower.temporal_embedding is None else tower.temporal_embedding.contiguous(),
            norm,
        )
        return entering

    def _normed(self, x: Tensor) -> Tensor:
        return x if self.tower.ln_pre is None else self.tower.ln_pre(x)

    def _patches(self, pixels: Tensor) -> Tensor:
        """(T, 3, H, W) to (T, N, D), row by row.

        The patch embedding is a convolution whose windows do not overlap. It is computed as one
        matrix product, since by default torch lets GPUs round float32 to TF32 in convolutions,
        but not in products.
        """
        weight = self.tower.patch_embedding  # (D, 3, p_h, p_w)
        made = patches_in_halves(pixels, weight, self.tower.dtype)
        if made is not None:
            return made
        patch_h, patch_w = self.tower.patch_hw
        rows, columns = pixels.shape[-2] // patch_h, pixels.shape[-1] // patch_w
        x = pixels.reshape(-1, 3, rows, patch_h, columns, patch_w).permute(0, 2, 4, 1, 3, 5)
        return F.linear(x.flatten(3).flatten(1, 2), weight.flatten(1))

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
    ) -> tuple[Tensor, Tensor]:
        """Both paths over all blocks, differentiable.

        Args:
            x: (B, 1 + N, D), class token first, from :meth:`tokens`; in training a batch of
                windows, or tokens of which some were dropped. The residual stream and its norms
                keep its dtype, whatever the weights' is.
            tokens: (M,) int64 or a slice: the M patch tokens that are wanted.

        Returns:
            Patch terms, (B, L, M, D) in the weights' dtype, and class terms (B, L, D) in float32.
        """
        return self._walk(self._normed(x), tokens)

    def _walk(
        self,
        x: Tensor,
        tokens: Tensor | slice = PATCHES,
        out: Tensor | None = None,
        attend: Callable[[Tensor, Tensor], Tensor] | None = None,
        meanwhile: Callable[[Tensor], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """:meth:`walk`, from normalised tokens.

        Args:
            x: (B, 1 + N, D).
            tokens: As :meth:`walk` takes them.
            out: Where the patch terms are written, (B, L, ..., D) in the weights' dtype, where
                ... are M tokens in any shape; allocated where None.
            attend: Computes the self-self attention (B, heads, M, d) of the wanted tokens from q,
                k and v by head (3, B, heads, 1 + N, d) and the temperature (B,);
                :func:`self_self_attention` over all tokens where None.
            meanwhile: Called with the class terms (B, L, D).

        Returns:
            As :meth:`walk`, or ``out`` instead of patch terms of its own.
        """
        tower = self.tower
        plain_only = len(tower.blocks) - self.depth
        pending: tuple[Tensor, ...] = ()  # what is still to be added to x
        for block in tower.blocks[:plain_only]:
            x, pending = self._one_path(block, x, pending)
        attend = attend or partial(self_self_attention, tokens=tokens)
        if out is None:
            shape = (x.shape[0], self.depth + 1, _count(tokens, x.shape[1]), x.shape[2])
            out = x.new_empty(shape, dtype=tower.dtype)
        class_terms: list[Tensor] = []

        def start(x: Tensor) -> None:
            out[:, 0].copy_(x[:, tokens].view(len(x), *out.shape[2:-1], -1))
            class_terms.append(x[:, 0].clone())  # a view would keep all of x

        # Several windows keep a GPU busy without a second stream.
        beside = Beside(x.device if len(x) == 1 else CPU)
        *blocks, last = tower.blocks[plain_only:]
        for term, block in enumerate(blocks, start=1):
            branch = partial(self._branch, block, attend, out, term)
            entered = start if term == 1 else None
            x, pending, class_term = self._two_paths(block, x, pending, beside, branch, entered)
            class_terms.append(class_term)

        # No block follows the last one, so its plain path computes the class token alone.
        x, qkv, lengths = self._enter(last, x, pending, None if blocks else start)

        def end(x: Tensor, qkv: Tensor) -> Tensor:
            attended = self._plain(last, qkv, 1)
            _, added, _ = _mlp(last, x, attended)
            class_terms.append(_first(attended, added))
            classes = torch.stack(class_terms, dim=1)
            if meanwhile is not None:
                meanwhile(classes)
            return classes

        classes = beside.run(end, x[:, :1], qkv)
        self._branch(last, attend, out, self.depth, qkv, lengths)
        beside.join()
        return out, classes

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
        self, block: Block, x: Tensor, added: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A block without the self-self branch.

        Args:
            block: The block.
            x: (B, 1 + N, D), the residual stream.
            added: What is still to be added to it.

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
        added: tuple[Tensor, ...],
        beside: Beside,
        branch: Callable[[Tensor, Tensor], None],
        entered: Callable[[Tensor], None] | None,
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """A block with the self-self branch beside it.

        Args:
            block: The block.
            x: (B, 1 + N, D), the residual stream.
            added: What is still to be added to it.
            beside: Runs the branch.
            branch: Computes it from q, k and v by head and the tokens' lengths.
            entered: As :meth:`_enter` takes it.

        Returns:
            The residual stream and what is still to be added to it, as :func:`_mlp` gives them,
            and the class token's term (B, D) in float32.
        """
        x, qkv, lengths = self._enter(block, x, added, entered)
        beside.run(branch, qkv, lengths)
        attended = self._plain(block, qkv)
        del qkv  # as large as three of x
        x, of_mlp, pending = _mlp(block, x, attended)
        return x, pending, _first(attended, of_mlp)

    def _enter(
        self,
        block: Block,
        x: Tensor,
        added: tuple[Tensor, ...],
        entered: Callable[[Tensor], None] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What both paths of a block have in common.

        Args:
            block: The block.
            x: (B, 1 + N, D), the residual stream.
            added: What is still to be added to it.
            entered: Called with the residual stream; None for nothing.

        Returns:
            The residual stream (B, 1 + N, D), q, k and v by head of its norm
            (3, B, heads, 1 + N, d), and the lengths of that (B, 1 + N).
        """
        x, y, lengths = add_and_norm(x, added, block.ln_1, self.tower.dtype)
        if entered is not None:
            entered(x)
        lengths = token_lengths(y) if lengths is None else lengths
        return x, self._heads(block, y), lengths

    def _branch(
        self,
        block: Block,
        attend: Callable[[Tensor, Tensor], Tensor],
        out: Tensor,
        term: int,
        qkv: Tensor,
        lengths: Tensor,
    ) -> None:
        """Write s_l, the self-self term of the wanted patch tokens, to ``out`` (B, L, ..., D)."""
        temperature = token_temperature(lengths, self.tower.head_dim)
        block.project_to(merge_heads(attend(qkv, temperature)), out[:, term])


def _mlp(block: Block, x: Tensor, attended: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """What follows a block's attention.

    Returns:
        The residual stream, what the MLP adds to it, and what is still to be added to it: own
        kernels add both together with the next norm; nothing where the stream has them already.
    """
    if own_kernels(x) is None or x.dtype != torch.float32:
        x = x + attended
        added = block.mlp(x)
        return x + added, added, ()
    dtype = block.expand.weight.dtype
    _, y, _ = add_and_norm(x, (attended,), block.ln_2, dtype, keep=False)
    added = block.feed_forward(y)
    return x, added, (attended, added)


def _first(attended: Tensor, added: Tensor) -> Tensor:
    """The class token's term, the sum of what attention and MLP add to it, (B, D) float32."""
    own = own_kernels(attended)
    if own is None:
        return attended[:, 0].float() + added[:, 0]
    term: Tensor = own.sum_of_first(attended, added)
    return term


def _after(
    change: Callable[[Tensor], Tensor], then: Callable[[Tensor], None] | None
) -> Callable[[Tensor], None] | None:
    return None if then is None else lambda x: then(change(x))


def _take(x: Tensor, chosen: tuple[int, ...]) -> Tensor:
    """(B, T, ...) to (B, F, ...), without an index tensor, which would have to be uploaded."""
    if chosen == tuple(range(x.shape[1])):
        return x
    return torch.stack([x[:, place] for place in chosen], dim=1)


def _count(tokens: Tensor | slice, of: int) -> int:
    """How many of so many tokens are wanted."""
    return len(range(of)[tokens] if isinstance(tokens, slice) else tokens)


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

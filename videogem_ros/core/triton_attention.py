"""Attention in one kernel of our own, for NVIDIA's Hopper GPUs and bfloat16.

torch's kernels track each row's largest logit, so that no exponential can overflow, and rescale
the sums so far whenever it grows. The logits of CLIP's attention are small enough to do without.
Here each block of queries first runs without the maximum and checks its sums; only where they are
too large or too small to be accurate does it run over all keys again with the maximum. bfloat16
has float32's range of exponents, so weights between 2^-100 and 2^100 are as accurate as those
around 1.

The copy engine pads the last block of keys with zeros. Their weights are 1 and their values 0, so
only their number has to be subtracted from the sum of the weights.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

ROWS = 64
"""Queries of one program, and keys per step: the fastest of 32, 64 and 128."""
WARPS = 4

LEAST: tl.constexpr = tl.constexpr(2.0**-80)
MOST: tl.constexpr = tl.constexpr(2.0**100)
"""Range in which sums are accurate."""
PADDING: tl.constexpr = tl.constexpr(2.0**-8)
"""Least ratio of a sum to what the padding added to it, so that subtracting it is accurate."""
ONES: tl.constexpr = tl.constexpr(16)
"""Columns of ones by which the matrix units sum weights: the fewest that a product can have."""


@triton.jit  # type: ignore[untyped-decorator]
def _carefully(  # type: ignore[no-untyped-def]
    q,
    keys,
    values,
    sample,
    head,
    of_value,
    scale,
    tokens,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    SAME: tl.constexpr,
):
    """Sums of weights, and values mixed by them, with each row's largest logit as 0."""
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    mixed = tl.zeros((ROWS, SIZE), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    for start in tl.range(0, tokens, ROWS):
        k = keys.load([sample, head, start, 0]).reshape(ROWS, SIZE)
        v = k if SAME else values.load([of_value, head, start, 0]).reshape(ROWS, SIZE)
        inside = start + tl.arange(0, ROWS) < tokens
        logits = tl.where(inside[None, :], tl.dot(q, k.T) * scale, float("-inf"))
        higher = tl.maximum(top, tl.max(logits, 1))
        fade = tl.exp2(top - higher)
        weights = tl.exp2(logits - higher[:, None])
        total = total * fade + tl.sum(weights, 1)
        mixed = tl.dot(weights.to(q.dtype), v, mixed * fade[:, None])
        top = higher
    return total, mixed


@triton.jit  # type: ignore[untyped-decorator]
def _attention(  # type: ignore[no-untyped-def]
    queries,
    keys,
    values,
    square,
    out,
    scale,
    factor,
    wanted,
    tokens,
    heads,
    batch,
    stride_sample,
    stride_head,
    stride_token,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    SCALED: tl.constexpr,
    SAME: tl.constexpr,
    LENGTH: tl.constexpr,
):
    first = tl.program_id(0) * ROWS
    sample, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    of_value = sample % batch  # what the P have in common
    q = queries.load([sample, head, first, 0]).reshape(ROWS, SIZE)
    ones = tl.full((ROWS, ONES), 1, tl.float32).to(q.dtype)
    mixed = tl.zeros((ROWS, SIZE), tl.float32)
    sums = tl.zeros((ROWS, ONES), tl.float32)
    for start in tl.range(0, tokens, ROWS):
        k = keys.load([sample, head, start, 0]).reshape(ROWS, SIZE)
        logits = tl.dot(q, k.T)
        weights = tl.exp2(logits * scale if SCALED else logits).to(q.dtype)
        v = k if SAME else values.load([of_value, head, start, 0]).reshape(ROWS, SIZE)
        if not LENGTH:  # where the sum falls out again
            sums = tl.dot(weights, ones, sums)
        mixed = tl.dot(weights, v, mixed)

    padding = tl.cdiv(tokens, ROWS) * ROWS - tokens
    total = tl.sum(mixed * mixed, 1) if LENGTH else tl.max(sums, 1) - padding
    right = (total >= LEAST) & (total <= MOST)  # which what is no number is not
    if not LENGTH:
        right = right & (total >= padding * PADDING)
    if tl.min(right.to(tl.int32), 0) == 0:
        total, mixed = _carefully(
            q, keys, values, sample, head, of_value, scale, tokens, SIZE, ROWS, SAME
        )
        if LENGTH:  # of zeros nothing can be made
            total = tl.maximum(tl.sum(mixed * mixed, 1), 1e-24)

    share = 1 / total
    if LENGTH:
        share = tl.sqrt(factor * tl.load(square + of_value) * share)
    rows = first + tl.arange(0, ROWS)
    to = out + sample * stride_sample + head * stride_head
    to += rows[:, None] * stride_token + tl.arange(0, SIZE)[None, :]
    tl.store(to, (mixed * share[:, None]).to(out.dtype.element_ty), (rows < wanted)[:, None])


def takes(x: Tensor) -> bool:
    """Whether :func:`attention` may have a tensor (..., d) as query, key or value."""
    aligned = all(stride * x.itemsize % 16 == 0 for stride in x.stride()[:-1])
    return aligned and x.stride(-1) == 1 and x.data_ptr() % 16 == 0


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float = 1.0,
    square: Tensor | None = None,
    factor: float = 1.0,
) -> Tensor:
    """Attention with weights 2^(scale q k^T), normalised to rows that sum to 1.

    Args:
        query: (P B, heads, M, d) bfloat16; d is a power of two, at least 16.
        key: (P B, heads, N, d).
        value: (B, heads, N, d), the same for each of the P, or ``key`` itself.
        scale: Factor of the logits.
        square: (B,) float32; where given, outputs are scaled to the length sqrt(factor * square),
            and ``value`` must be ``key``.
        factor: See ``square``.

    Returns:
        (P B, heads, M, d) bfloat16. In memory a token's heads are adjacent; with ``square``, a
        head's tokens are.
    """
    samples, heads, wanted, size = query.shape
    shape = (samples, wanted, heads, size) if square is None else query.shape
    out = torch.empty(shape, dtype=query.dtype, device=query.device)
    out = out.transpose(1, 2) if square is None else out
    tiles = (_tiles(x) for x in (query, key, value))
    _attention[(triton.cdiv(wanted, ROWS), samples * heads)](
        *tiles,
        out if square is None else square,
        out,
        scale,
        factor,
        wanted,
        key.shape[2],
        heads,
        len(value if square is None else square),
        *out.stride()[:3],
        SIZE=size,
        ROWS=ROWS,
        SCALED=scale != 1,
        SAME=key is value,
        LENGTH=square is not None,
        num_warps=WARPS,
        num_stages=3 if key is value else 2,  # blocks on their way, of which four programs fit
    )
    return out


def _tiles(x: Tensor) -> TensorDescriptor:
    """Blocks of a head's tokens, read by the copy engine; missing tokens are zeros."""
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, ROWS, x.shape[-1]])

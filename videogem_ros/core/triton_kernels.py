"""Passes over tokens in one kernel each, for NVIDIA GPUs; :mod:`.fused` says when they are used.

What torch would do in three to five kernels, reading and writing every token each time, is done
while it is in registers, in float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 32
"""Tokens of one program of ``_of_length`` and ``_mean_of_parts``."""
ELEMENTS = 2048
"""Numbers of one program of ``_quick_gelu``."""


@triton.jit  # type: ignore[untyped-decorator]
def _of_length(  # type: ignore[no-untyped-def]
    p,
    length,
    out,
    batch,
    heads,
    tokens,
    stride_part,
    stride_sample,
    stride_head,
    stride_token,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    place = tl.program_id(1)
    head, sample, part = place % heads, place // heads % batch, place // heads // batch
    columns = tl.arange(0, PADDED)
    inside = (rows < tokens)[:, None] & (columns < SIZE)[None, :]
    start = p + part * stride_part + sample * stride_sample + head * stride_head
    x = tl.load(start + rows[:, None] * stride_token + columns[None, :], inside, 0).to(tl.float32)
    scale = tl.load(length + sample) / tl.maximum(tl.sqrt(tl.sum(x * x, 1)), 1e-12)
    to = out + (place * tokens + rows[:, None]) * SIZE + columns[None, :]
    tl.store(to, (x * scale[:, None]).to(out.dtype.element_ty), inside)


def of_length(p: Tensor, length: Tensor) -> Tensor:
    """Vectors made of the given length.

    Args:
        p: (P, B, heads, N, d), a head's numbers adjacent.
        length: (B, 1, 1, 1) float32.

    Returns:
        (P, B, heads, N, d), contiguous, of p's dtype.
    """
    parts, batch, heads, tokens, size = p.shape
    out = torch.empty(p.shape, dtype=p.dtype, device=p.device)
    grid = (triton.cdiv(tokens, ROWS), parts * batch * heads)
    _of_length[grid](
        p,
        length.contiguous(),
        out,
        batch,
        heads,
        tokens,
        *p.stride()[:4],
        SIZE=size,
        PADDED=triton.next_power_of_2(size),
        ROWS=ROWS,
    )
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _layer_norm(value, inside, scale, shift, eps, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    centred = tl.where(inside, value - tl.sum(value, 0) / SIZE, 0)
    return centred * tl.rsqrt(tl.sum(centred * centred, 0) / SIZE + eps) * scale + shift


@triton.jit  # type: ignore[untyped-decorator]
def _add_norm(  # type: ignore[no-untyped-def]
    x,
    added,
    weight,
    bias,
    total,
    out,
    lengths,
    tokens,
    x_stride_sample,
    x_stride_token,
    added_stride_sample,
    added_stride_token,
    eps,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    ADDS: tl.constexpr,
):
    row = tl.program_id(0)
    sample, token = row // tokens, row % tokens
    columns = tl.arange(0, PADDED)
    inside = columns < SIZE
    value = tl.load(x + sample * x_stride_sample + token * x_stride_token + columns, inside, 0)
    value = value.to(tl.float32)
    if ADDS:
        more = added + sample * added_stride_sample + token * added_stride_token
        value += tl.load(more + columns, inside, 0).to(tl.float32)
        tl.store(total + row * SIZE + columns, value, inside)
    scale = tl.load(weight + columns, inside, 0).to(tl.float32)
    shift = tl.load(bias + columns, inside, 0).to(tl.float32)
    y = _layer_norm(value, inside, scale, shift, eps, SIZE)
    tl.store(out + row * SIZE + columns, y.to(out.dtype.element_ty), inside)
    tl.store(lengths + row, tl.sqrt(tl.sum(y * y, 0)))


def add_norm(
    x: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """A sum and its layer norm.

    Args:
        x: (B, N, D) float32, a token's numbers adjacent.
        added: The same in any dtype, or nothing.
        weight: (D,).
        bias: (D,).
        eps: Of the norm.
        dtype: Of the norm's output.

    Returns:
        x + added (B, N, D) float32, its norm (B, N, D), and that one's length by token (B, N)
        float32.
    """
    batch, tokens, size = x.shape
    total = x if added is None else torch.empty(x.shape, device=x.device)
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    lengths = torch.empty(x.shape[:2], device=x.device)
    more = x if added is None else added
    _add_norm[(batch * tokens,)](
        x,
        more,
        weight,
        bias,
        total,
        out,
        lengths,
        tokens,
        *x.stride()[:2],
        *more.stride()[:2],
        eps,
        SIZE=size,
        PADDED=triton.next_power_of_2(size),
        ADDS=added is not None,
    )
    return total, out, lengths


@triton.jit  # type: ignore[untyped-decorator]
def _quick_gelu(x, out, count, ELEMENTS: tl.constexpr):  # type: ignore[no-untyped-def]
    places = tl.program_id(0) * ELEMENTS + tl.arange(0, ELEMENTS)
    inside = places < count
    value = tl.load(x + places, inside, 0).to(tl.float32)
    tl.store(out + places, (value * tl.sigmoid(1.702 * value)).to(out.dtype.element_ty), inside)


def quick_gelu(x: Tensor) -> Tensor:
    """Make x sigmoid(1.702 x) of a contiguous tensor, in its place."""
    _quick_gelu[(triton.cdiv(x.numel(), ELEMENTS),)](x, x, x.numel(), ELEMENTS=ELEMENTS)
    return x


@triton.jit  # type: ignore[untyped-decorator]
def _mean_of_parts(  # type: ignore[no-untyped-def]
    parts,
    out,
    heads,
    tokens,
    stride_part,
    stride_sample,
    stride_head,
    stride_token,
    PARTS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    sample, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    columns = tl.arange(0, PADDED)
    inside = (rows < tokens)[:, None] & (columns < SIZE)[None, :]
    place = parts + sample * stride_sample + head * stride_head
    place += rows[:, None] * stride_token + columns[None, :]
    total = tl.zeros((ROWS, PADDED), tl.float32)
    for part in tl.static_range(PARTS):
        total += tl.load(place + part * stride_part, inside, 0).to(tl.float32)
    to = out + ((sample * tokens + rows[:, None]) * heads + head) * SIZE + columns[None, :]
    tl.store(to, (total / PARTS).to(out.dtype.element_ty), inside)


def mean_of_parts(parts: Tensor) -> Tensor:
    """The mean of what the attentions of q, k and v give.

    Args:
        parts: (P, B, heads, N, d), a head's numbers adjacent.

    Returns:
        (B, heads, N, d), with a token's heads adjacent.
    """
    count, batch, heads, tokens, size = parts.shape
    out = torch.empty((batch, tokens, heads, size), dtype=parts.dtype, device=parts.device)
    _mean_of_parts[(triton.cdiv(tokens, ROWS), batch * heads)](
        parts,
        out,
        heads,
        tokens,
        *parts.stride()[:4],
        PARTS=count,
        SIZE=size,
        PADDED=triton.next_power_of_2(size),
        ROWS=ROWS,
    )
    return out.transpose(1, 2)


@triton.jit  # type: ignore[untyped-decorator]
def _mix_and_norm(  # type: ignore[no-untyped-def]
    terms,
    mixture,
    weight,
    bias,
    out,
    patches,
    prompts,
    stride_frame,
    stride_term,
    stride_patch,
    mixture_stride_frame,
    mixture_stride_prompt,
    mixture_stride_term,
    eps,
    TERMS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
):
    frame, patch = tl.program_id(0) // patches, tl.program_id(0) % patches
    columns = tl.arange(0, PADDED)
    inside = columns < SIZE
    scale = tl.load(weight + columns, inside, 0).to(tl.float32)
    shift = tl.load(bias + columns, inside, 0).to(tl.float32)
    place = terms + frame * stride_frame + patch * stride_patch + columns
    for prompt in range(prompts):
        share = mixture + frame * mixture_stride_frame + prompt * mixture_stride_prompt
        value = tl.zeros((PADDED,), tl.float32)
        for term in tl.static_range(TERMS):
            x = tl.load(place + term * stride_term, inside, 0).to(tl.float32)
            value += tl.load(share + term * mixture_stride_term) * x
        y = _layer_norm(value, inside, scale, shift, eps, SIZE)
        tl.store(out + ((frame * prompts + prompt) * patches + patch) * SIZE + columns, y, inside)


def mix_and_norm(
    terms: Tensor, mixture: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """The layer norm of weighted sums of terms.

    Args:
        terms: (F, L, N, D), a patch's numbers adjacent.
        mixture: (F, P, L) float32 weights.
        weight: (D,), of the norm.
        bias: (D,), of the norm.
        eps: Of the norm.

    Returns:
        (F, P, N, D) float32.
    """
    (frames, count, patches, size), prompts = terms.shape, mixture.shape[1]
    out = torch.empty((frames, prompts, patches, size), device=terms.device)
    _mix_and_norm[(frames * patches,)](
        terms,
        mixture,
        weight,
        bias,
        out,
        patches,
        prompts,
        *terms.stride()[:3],
        *mixture.stride(),
        eps,
        TERMS=count,
        SIZE=size,
        PADDED=triton.next_power_of_2(size),
    )
    return out

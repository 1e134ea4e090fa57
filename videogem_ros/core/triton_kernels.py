"""Fused passes over tokens, for NVIDIA GPUs; :mod:`.fused` decides when they are used.

Each replaces three to five kernels of torch, which would read and write every token each time;
here tokens stay in registers, in float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 32
"""Tokens per program of ``_of_length``."""
OUTPUTS = 8
"""Outputs per program of ``_of_one``."""
ELEMENTS = 2048
"""Elements per program of element-wise kernels and reductions."""


@triton.jit  # type: ignore[untyped-decorator]
def _of_length(  # type: ignore[no-untyped-def]
    p,
    square,
    out,
    factor,
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
    length = tl.sqrt(factor * tl.load(square + sample))
    scale = length / tl.maximum(tl.sqrt(tl.sum(x * x, 1)), 1e-12)
    to = out + (place * tokens + rows[:, None]) * SIZE + columns[None, :]
    tl.store(to, (x * scale[:, None]).to(out.dtype.element_ty), inside)


def of_length(p: Tensor, square: Tensor, factor: float = 1.0) -> Tensor:
    """Vectors scaled to the length sqrt(factor * square).

    Args:
        p: (P, B, heads, N, d), contiguous along d.
        square: (B,) float32.
        factor: One factor for all.

    Returns:
        (P, B, heads, N, d), contiguous, of p's dtype.
    """
    parts, batch, heads, tokens, size = p.shape
    out = torch.empty(p.shape, dtype=p.dtype, device=p.device)
    grid = (triton.cdiv(tokens, ROWS), parts * batch * heads)
    _of_length[grid](
        p,
        square,
        out,
        factor,
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
def layer_norm(value, columns, weight, bias, eps, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """The layer norm of one row, from which the columns outside it are left out."""
    inside = columns < SIZE
    scale = tl.load(weight + columns, inside, 0).to(tl.float32)
    shift = tl.load(bias + columns, inside, 0).to(tl.float32)
    centred = tl.where(inside, value - tl.sum(value, 0) / SIZE, 0)
    return centred * tl.rsqrt(tl.sum(centred * centred, 0) / SIZE + eps) * scale + shift


@triton.jit  # type: ignore[untyped-decorator]
def _add_norm(  # type: ignore[no-untyped-def]
    x,
    added,
    more,
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
    more_stride_sample,
    more_stride_token,
    eps,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    ADDS: tl.constexpr,
    KEEPS: tl.constexpr,
):
    row = tl.program_id(0)
    sample, token = row // tokens, row % tokens
    columns = tl.arange(0, PADDED)
    inside = columns < SIZE
    value = tl.load(x + sample * x_stride_sample + token * x_stride_token + columns, inside, 0)
    value = value.to(tl.float32)
    if ADDS > 0:
        place = added + sample * added_stride_sample + token * added_stride_token
        value += tl.load(place + columns, inside, 0).to(tl.float32)
    if ADDS > 1:
        place = more + sample * more_stride_sample + token * more_stride_token
        value += tl.load(place + columns, inside, 0).to(tl.float32)
    if KEEPS:
        tl.store(total + row * SIZE + columns, value, inside)
    y = layer_norm(value, columns, weight, bias, eps, SIZE)
    tl.store(out + row * SIZE + columns, y.to(out.dtype.element_ty), inside)
    tl.store(lengths + row, tl.sqrt(tl.sum(y * y, 0)))


def add_norm(
    x: Tensor,
    added: tuple[Tensor, ...],
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
    keep: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """A sum and its layer norm.

    Args:
        x: (B, N, D) float32, contiguous along D.
        added: At most two (B, N, D) in any dtype.
        weight: (D,) of the norm.
        bias: (D,) of the norm.
        eps: Added to the variance.
        dtype: Dtype of the norm's output.
        keep: Whether the sum is wanted.

    Returns:
        The sum of x and what is added (B, N, D) float32, or x where it is not wanted; its norm
        (B, N, D); and the length of each token's norm (B, N) float32.
    """
    batch, tokens, size = x.shape
    keep = keep and len(added) > 0
    total = torch.empty(x.shape, device=x.device) if keep else x
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    lengths = torch.empty(x.shape[:2], device=x.device)
    first, second = (*added, x, x)[:2]
    _add_norm[(batch * tokens,)](
        x,
        first,
        second,
        weight,
        bias,
        total,
        out,
        lengths,
        tokens,
        *x.stride()[:2],
        *first.stride()[:2],
        *second.stride()[:2],
        eps,
        SIZE=size,
        PADDED=triton.next_power_of_2(size),
        ADDS=len(added),
        KEEPS=keep,
        num_warps=1,  # one warp per token needs no synchronisation
    )
    return total, out, lengths


@triton.jit  # type: ignore[untyped-decorator]
def _tokens(  # type: ignore[no-untyped-def]
    patches,
    token,
    positions,
    temporal,
    weight,
    bias,
    out,
    frames,
    count,
    eps,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    TEMPORAL: tl.constexpr,
    NORM: tl.constexpr,
):
    row, sample = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, PADDED)
    inside = columns < SIZE
    if row == 0:
        value = tl.load(token + columns, inside, 0).to(tl.float32)
        value += tl.load(positions + columns, inside, 0).to(tl.float32)
    else:
        patch, frame = (row - 1) // frames, (row - 1) % frames
        place = ((sample * frames + frame) * count + patch) * SIZE + columns
        value = tl.load(patches + place, inside, 0).to(tl.float32)
        value += tl.load(positions + (patch + 1) * SIZE + columns, inside, 0).to(tl.float32)
        if TEMPORAL:
            value += tl.load(temporal + frame * SIZE + columns, inside, 0).to(tl.float32)
    if NORM:
        value = layer_norm(value, columns, weight, bias, eps, SIZE)
    tl.store(out + (sample * (count * frames + 1) + row) * SIZE + columns, value, inside)


def tokens(
    patches: Tensor,
    token: Tensor,
    positions: Tensor,
    temporal: Tensor | None,
    norm: tuple[Tensor, Tensor, float] | None,
) -> Tensor:
    """A tower's input tokens: embeddings, positions and times added, normalised.

    Args:
        patches: (B T, N, D) contiguous, the embedded patches of B windows of T frames.
        token: (D,), the class token.
        positions: (1 + N, D) contiguous, the class token's first.
        temporal: (T, D) contiguous; None for images, where T is 1.
        norm: Weight and bias (D,) of a layer norm and what it adds to the variance; None for
            none.

    Returns:
        (B, 1 + N T, D) float32: the class token, then patches, time fastest.
    """
    images, count, size = patches.shape
    frames = 1 if temporal is None else len(temporal)
    shape = (images // frames, count * frames + 1, size)
    out = torch.empty(shape, device=patches.device)
    weight, bias, eps = (token, token, 0.0) if norm is None else norm
    _tokens[(shape[1], shape[0])](
        patches,
        token,
        positions,
        token if temporal is None else temporal,
        weight,
        bias,
        out,
        frames,
        count,
        eps,
        SIZE=size,
        PADDED=triton.next_power_of_2(size),
        TEMPORAL=temporal is not None,
        NORM=norm is not None,
        num_warps=1,  # one warp per token needs no synchronisation
    )
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _store_halves(to, value, inside, LENGTH: tl.constexpr, TWICE: tl.constexpr):  # type: ignore[no-untyped-def]
    high = value.to(to.dtype.element_ty)
    low = (value - high.to(tl.float32)).to(to.dtype.element_ty)
    tl.store(to, high, inside)
    tl.store(to + LENGTH, high if TWICE else low, inside)
    tl.store(to + 2 * LENGTH, low if TWICE else high, inside)


@triton.jit  # type: ignore[untyped-decorator]
def _halves(x, out, SIZE: tl.constexpr, PADDED: tl.constexpr, LENGTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row, columns = tl.program_id(0), tl.arange(0, PADDED)
    value = tl.load(x + row * SIZE + columns, columns < SIZE, 0)
    to = out + row * (3 * LENGTH) + columns
    _store_halves(to, value, columns < LENGTH, LENGTH, True)


@triton.jit  # type: ignore[untyped-decorator]
def _patch_halves(  # type: ignore[no-untyped-def]
    pixels,
    out,
    rows,
    columns,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    LENGTH: tl.constexpr,
):
    patch, image, place = tl.program_id(0), tl.program_id(1), tl.arange(0, PADDED)
    row, column = patch // columns * HEIGHT, patch % columns * WIDTH
    row += place // WIDTH % HEIGHT
    column += place % WIDTH
    row += (image * 3 + place // (HEIGHT * WIDTH)) * (rows * HEIGHT)
    value = tl.load(pixels + row * (columns * WIDTH) + column, place < SIZE, 0)
    to = out + (image * rows * columns + patch) * (3 * LENGTH) + place
    _store_halves(to, value, place < LENGTH, LENGTH, False)


def embedded_patches(
    pixels: Tensor, weight: Tensor, dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """The patch embedding of float32 pixels on the matrix units of a narrower dtype.

    Each number is the sum of two narrower ones, so that a product is one of high, low and high
    parts with high, high and low ones, side by side. Five times as fast as in float32, with a
    relative error of 2^-16 instead of 2^-24: what is missing is low times low.

    Args:
        pixels: (T, 3, H, W) contiguous float32.
        weight: (D, 3, p_h, p_w) contiguous float32.
        dtype: Dtype of the parts.

    Returns:
        (T, N, D) float32, patches row by row.
    """
    (images, _, *hw), (width, _, *patch_hw) = pixels.shape, weight.shape
    rows, columns = (side // patch for side, patch in zip(hw, patch_hw))
    size = weight[0].numel()
    length = triton.cdiv(size, 8) * 8  # rows of 16 bytes, which fast products need
    parts = torch.empty((images * rows * columns, 3 * length), dtype=dtype, device=pixels.device)
    weights = torch.empty((width, 3 * length), dtype=dtype, device=pixels.device)
    sizes = {"SIZE": size, "PADDED": triton.next_power_of_2(length), "LENGTH": length}
    _patch_halves[(rows * columns, images)](
        pixels, parts, rows, columns, HEIGHT=patch_hw[0], WIDTH=patch_hw[1], **sizes
    )
    _halves[(width,)](weight, weights, **sizes)
    made = torch.mm(parts, weights.T, out_dtype=torch.float32)
    return made.view(images, rows * columns, width)


@triton.jit  # type: ignore[untyped-decorator]
def _quick_gelu(x, out, count, ELEMENTS: tl.constexpr):  # type: ignore[no-untyped-def]
    places = tl.program_id(0) * ELEMENTS + tl.arange(0, ELEMENTS)
    inside = places < count
    value = tl.load(x + places, inside, 0).to(tl.float32)
    tl.store(out + places, (value * tl.sigmoid(1.702 * value)).to(out.dtype.element_ty), inside)


def quick_gelu(x: Tensor) -> Tensor:
    """Compute x sigmoid(1.702 x) of a contiguous tensor in place."""
    _quick_gelu[(triton.cdiv(x.numel(), ELEMENTS),)](x, x, x.numel(), ELEMENTS=ELEMENTS)
    return x


@triton.jit  # type: ignore[untyped-decorator]
def _of_one(  # type: ignore[no-untyped-def]
    x,
    weight,
    bias,
    out,
    count,
    SIZE: tl.constexpr,
    COLUMNS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BIAS: tl.constexpr,
):
    outputs = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    asked = outputs < count
    total = tl.zeros((OUTPUTS,), tl.float32)
    for start in range(0, SIZE, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        inside = columns < SIZE
        place = weight + outputs[:, None] * SIZE + columns[None, :]
        factors = tl.load(place, asked[:, None] & inside[None, :], 0).to(tl.float32)
        total += tl.sum(factors * tl.load(x + columns, inside, 0).to(tl.float32)[None, :], 1)
    if BIAS:
        total += tl.load(bias + outputs, asked, 0).to(tl.float32)
    tl.store(out + outputs, total.to(out.dtype.element_ty), asked)


def of_one(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer of one token.

    cuBLAS does it with blocks so large that a GPU busy with other work has to be cleared for them.

    Args:
        x: (1, 1, K) contiguous.
        weight: (D, K) contiguous.
        bias: (D,), or None.

    Returns:
        x W^T + b, (1, 1, D) of x's dtype.
    """
    count, size = weight.shape
    out = torch.empty((1, 1, count), dtype=x.dtype, device=x.device)
    _of_one[(triton.cdiv(count, OUTPUTS),)](
        x,
        weight,
        weight if bias is None else bias,
        out,
        count,
        SIZE=size,
        COLUMNS=256,
        OUTPUTS=OUTPUTS,
        BIAS=bias is not None,
    )
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _mean_of_parts(  # type: ignore[no-untyped-def]
    parts, out, count, PARTS: tl.constexpr, ELEMENTS: tl.constexpr
):
    places = tl.program_id(0) * ELEMENTS + tl.arange(0, ELEMENTS)
    inside = places < count
    total = tl.zeros((ELEMENTS,), tl.float32)
    for part in tl.static_range(PARTS):
        total += tl.load(parts + part * count + places, inside, 0).to(tl.float32)
    tl.store(out + places, (total / PARTS).to(out.dtype.element_ty), inside)


def mean_of_parts(parts: Tensor) -> Tensor:
    """The mean of the outputs of the attentions of q, k and v.

    Args:
        parts: (P, B, heads, N, d); fastest where a token's heads are adjacent in memory.

    Returns:
        (B, heads, N, d), with a token's heads adjacent in memory.
    """
    parts = parts.transpose(2, 3).contiguous()
    out = torch.empty_like(parts[0])
    grid = (triton.cdiv(out.numel(), ELEMENTS),)
    _mean_of_parts[grid](parts, out, out.numel(), PARTS=len(parts), ELEMENTS=ELEMENTS)
    return out.transpose(1, 2)


@triton.jit  # type: ignore[untyped-decorator]
def _scaled_mean(values, out, factor, count, ELEMENTS: tl.constexpr):  # type: ignore[no-untyped-def]
    total = tl.zeros((ELEMENTS,), tl.float32)
    for start in range(0, count, ELEMENTS):
        places = start + tl.arange(0, ELEMENTS)
        total += tl.load(values + tl.program_id(0) * count + places, places < count, 0)
    tl.store(out + tl.program_id(0), factor * tl.sum(total, 0) / count)


def scaled_mean(values: Tensor, factor: float) -> Tensor:
    """The mean of each row times a factor, (B, N) contiguous float32 to (B,)."""
    out = torch.empty(len(values), device=values.device)
    _scaled_mean[(len(values),)](values, out, factor, values.shape[1], ELEMENTS=ELEMENTS)
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _sum_of_first(  # type: ignore[no-untyped-def]
    a, b, out, a_stride_sample, b_stride_sample, SIZE: tl.constexpr, PADDED: tl.constexpr
):
    sample, columns = tl.program_id(0), tl.arange(0, PADDED)
    inside = columns < SIZE
    total = tl.load(a + sample * a_stride_sample + columns, inside, 0).to(tl.float32)
    total += tl.load(b + sample * b_stride_sample + columns, inside, 0).to(tl.float32)
    tl.store(out + sample * SIZE + columns, total, inside)


def sum_of_first(a: Tensor, b: Tensor) -> Tensor:
    """The sum of the first tokens of both, (B, N, D) each in any dtype, to (B, D) float32."""
    batch, _, size = a.shape
    out = torch.empty((batch, size), device=a.device)
    padded = triton.next_power_of_2(size)
    _sum_of_first[(batch,)](a, b, out, a.stride(0), b.stride(0), SIZE=size, PADDED=padded)
    return out

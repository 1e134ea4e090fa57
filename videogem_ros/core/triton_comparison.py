"""What follows the encoder in a few kernels, for NVIDIA GPUs; :mod:`.fused` decides when.

torch's operators need some seventy small kernels for it, each of which costs the GPU a microsecond
or more before it does anything. All sums here are float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from videogem_ros.core.triton_kernels import layer_norm

PROMPTS = 4
"""Prompts for which a program of ``_mix_and_norm`` works at once."""
ROWS = 64
"""Rows of a program of ``_squares``, and columns of the factors that it reads at once."""
COLUMNS = 128
"""Columns of the product that a program of ``_squares`` computes."""
PIXELS = 1024
"""Pixels of a program of ``_extremes`` and ``_heatmaps``."""
KINDS: tl.constexpr = tl.constexpr(3)
"""Prompts of an action."""
MAPS: tl.constexpr = tl.constexpr(4)
"""Heatmaps of an action: one per prompt and the fused one."""


@triton.jit  # type: ignore[untyped-decorator]
def _class_rows(  # type: ignore[no-untyped-def]
    terms,
    weight,
    bias,
    out,
    eps,
    stride_frame,
    stride_term,
    TERMS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
):
    frame, row = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, PADDED)
    inside = columns < SIZE
    total = tl.zeros((PADDED,), tl.float32)
    own = tl.zeros((PADDED,), tl.float32)
    for term in tl.static_range(TERMS):
        x = tl.load(terms + frame * stride_frame + term * stride_term + columns, inside, 0)
        total += x.to(tl.float32)
        own = tl.where(row == term, x.to(tl.float32), own)
    y = layer_norm(total - own, columns, weight, bias, eps, SIZE)
    tl.store(out + (frame * (TERMS + 1) + row) * SIZE + columns, y, inside)


def class_rows(terms: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The layer norm of the sum of the class token's terms, without each of them and with all.

    Args:
        terms: (F, L, D), contiguous along D.
        weight: (D,) of the norm.
        bias: (D,) of the norm.
        eps: Added to the variance.

    Returns:
        (F, L + 1, D) float32: without the first term, ..., without the last, with all.
    """
    frames, count, size = terms.shape
    out = torch.empty((frames, count + 1, size), device=terms.device)
    _class_rows[(frames, count + 1)](
        terms,
        weight,
        bias,
        out,
        eps,
        *terms.stride()[:2],
        TERMS=count,
        SIZE=size,
        PADDED=triton.next_power_of_2(size),
    )
    return out


@triton.jit
def _cosine(rows, lengths, text, columns, inside):  # type: ignore[no-untyped-def]
    direction = tl.load(text + columns, inside, 0)
    return tl.sum(rows * direction[None, :], 1) / lengths


@triton.jit  # type: ignore[untyped-decorator]
def _class_similarity(  # type: ignore[no-untyped-def]
    embedded,
    text,
    base,
    cosines,
    probabilities,
    neutral,
    weights,
    actions,
    texts,
    last,
    scale,
    logit_scale,
    TERMS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED_TERMS: tl.constexpr,
    PADDED: tl.constexpr,
):
    frame, action = tl.program_id(0), tl.program_id(1)
    term = tl.arange(0, PADDED_TERMS)
    columns = tl.arange(0, PADDED)
    inside = columns < SIZE
    place = embedded + (frame * (TERMS + 1) + term[:, None]) * SIZE + columns[None, :]
    rows = tl.load(place, (term <= TERMS)[:, None] & inside[None, :], 0)
    lengths = tl.maximum(tl.sqrt(tl.sum(rows * rows, 1)), 1e-12)
    if action < actions:
        kinds = tl.arange(0, 4)
        found = tl.full((4,), float("-inf"), tl.float32)
        dynamic = (term >= TERMS - last) & (term < TERMS)
        constant = tl.load(base + term, term < TERMS, 0)
        for kind in tl.static_range(KINDS):
            prompt = action * KINDS + kind
            cosine = _cosine(rows, lengths, text + prompt * SIZE, columns, inside)
            whole = tl.sum(tl.where(term == TERMS, cosine, 0), 0)
            found = tl.where(kinds == kind, whole, found)
            logits = tl.where(dynamic, -scale * cosine, float("-inf"))
            shares = tl.exp(logits - tl.max(logits, 0))
            weight = constant + tl.where(dynamic, shares / tl.sum(shares, 0) - 1.0 / last, 0)
            to = weights + ((frame * actions + action) * KINDS + kind) * TERMS + term
            tl.store(to, weight, term < TERMS)
        first = (frame * actions + action) * KINDS
        tl.store(cosines + first + kinds, found, kinds < KINDS)
        shares = tl.exp(logit_scale * (found - tl.max(found, 0)))
        tl.store(probabilities + first + kinds, shares / tl.sum(shares, 0), kinds < KINDS)
    else:
        other = action - actions
        cosine = _cosine(rows, lengths, text + (actions * KINDS + other) * SIZE, columns, inside)
        whole = tl.sum(tl.where(term == TERMS, cosine, 0), 0)
        tl.store(neutral + frame * (texts - actions * KINDS) + other, whole)


def class_similarity(
    embedded: Tensor,
    text: Tensor,
    prompts: int,
    base: Tensor,
    last: int,
    scale: float,
    logit_scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Class tokens compared with texts, and the layer weights that follow.

    Args:
        embedded: (F, L + 1, E) contiguous float32, projections of :func:`class_rows`.
        text: (P + J, E) contiguous float32 unit vectors of the prompts and the neutral texts.
        prompts: P, three for each of M actions.
        base: (L,) float32, weights to which the dynamic ones are added.
        last: How many last terms have dynamic weights.
        scale: Of the leave-one-out similarities.
        logit_scale: Of the cosines in the softmax over an action's prompts.

    Returns:
        Layer weights (F, P, L), cosines (F, M, 3), their softmax (F, M, 3), and cosines with the
        neutral texts (F, J), all float32.
    """
    (frames, rows, size), texts = embedded.shape, len(text)
    terms, actions = rows - 1, prompts // KINDS.value
    others = texts - prompts
    weights, cosines, probabilities, neutral = (
        torch.empty(shape, device=text.device)
        for shape in (
            (frames, prompts, terms),
            (frames, actions, KINDS.value),
            (frames, actions, KINDS.value),
            (frames, others),
        )
    )
    _class_similarity[(frames, actions + others)](
        embedded,
        text,
        base,
        cosines,
        probabilities,
        neutral,
        weights,
        actions,
        texts,
        last,
        scale,
        logit_scale,
        TERMS=terms,
        SIZE=size,
        PADDED_TERMS=triton.next_power_of_2(rows),
        PADDED=triton.next_power_of_2(size),
        num_warps=8,
    )
    return weights, cosines, probabilities, neutral


@triton.jit  # type: ignore[untyped-decorator]
def _directions(  # type: ignore[no-untyped-def]
    text,
    projection,
    out,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):
    prompt = tl.program_id(1)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, PADDED)
    inside = columns < SIZE
    place = projection + rows[:, None] * SIZE + columns[None, :]
    part = tl.load(place, (rows < WIDTH)[:, None] & inside[None, :], 0).to(tl.float32)
    along = tl.sum(part * tl.load(text + prompt * SIZE + columns, inside, 0)[None, :], 1)
    tl.store(out + prompt * WIDTH + rows, along, rows < WIDTH)


def directions(text: Tensor, projection: Tensor) -> Tensor:
    """What a token's features are multiplied by to be compared with a text.

    Args:
        text: (P, E) contiguous float32.
        projection: (D, E) contiguous.

    Returns:
        text projection^T, (P, D) float32.
    """
    width, size = projection.shape
    out = torch.empty((len(text), width), device=text.device)
    _directions[(triton.cdiv(width, 16), len(text))](
        text,
        projection,
        out,
        WIDTH=width,
        SIZE=size,
        PADDED=triton.next_power_of_2(size),
        ROWS=16,
    )
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _mix_and_norm(  # type: ignore[no-untyped-def]
    terms,
    mixture,
    weight,
    bias,
    directions,
    out,
    along,
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
    PROMPTS: tl.constexpr,
    ALONG: tl.constexpr,
):
    frame, patch = tl.program_id(0) // patches, tl.program_id(0) % patches
    columns = tl.arange(0, PADDED)
    inside = columns < SIZE
    scale = tl.load(weight + columns, inside, 0).to(tl.float32)
    shift = tl.load(bias + columns, inside, 0).to(tl.float32)
    place = terms + frame * stride_frame + patch * stride_patch + columns
    for first in range(0, prompts, PROMPTS):
        prompt = first + tl.arange(0, PROMPTS)
        asked = prompt < prompts
        share = mixture + frame * mixture_stride_frame + prompt * mixture_stride_prompt
        value = tl.zeros((PROMPTS, PADDED), tl.float32)
        for term in tl.static_range(TERMS):
            x = tl.load(place + term * stride_term, inside, 0).to(tl.float32)
            value += tl.load(share + term * mixture_stride_term, asked, 0)[:, None] * x[None, :]
        centred = tl.where(inside[None, :], value - (tl.sum(value, 1) / SIZE)[:, None], 0)
        spread = tl.rsqrt(tl.sum(centred * centred, 1) / SIZE + eps)
        y = centred * spread[:, None] * scale[None, :] + shift[None, :]
        row = (frame * prompts + prompt) * patches + patch
        kept = asked[:, None] & inside[None, :]
        tl.store(out + row[:, None] * SIZE + columns[None, :], y.to(out.dtype.element_ty), kept)
        if ALONG:
            direction = directions + prompt[:, None] * SIZE + columns[None, :]
            tl.store(along + row, tl.sum(y * tl.load(direction, kept, 0), 1), asked)


def mix_and_norm(
    terms: Tensor,
    mixture: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype = torch.float32,
    directions: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The layer norm of weighted sums of terms.

    Args:
        terms: (F, L, N, D), contiguous along D.
        mixture: (F, P, L) float32 weights.
        weight: (D,) of the norm.
        bias: (D,) of the norm.
        eps: Added to the variance.
        dtype: Dtype of the norm's output.
        directions: (P, D) contiguous float32, one per prompt; None for none.

    Returns:
        The norm (F, P, N, D), and its inner products with the directions (F, P, N) float32,
        computed before rounding; empty without directions.
    """
    (frames, count, patches, size), prompts = terms.shape, mixture.shape[1]
    out = torch.empty((frames, prompts, patches, size), dtype=dtype, device=terms.device)
    along = torch.empty(out.shape[:-1] if directions is not None else (0,), device=terms.device)
    _mix_and_norm[(frames * patches,)](
        terms,
        mixture,
        weight,
        bias,
        weight if directions is None else directions,
        out,
        along,
        patches,
        prompts,
        *terms.stride()[:3],
        *mixture.stride(),
        eps,
        TERMS=count,
        SIZE=size,
        PADDED=triton.next_power_of_2(size),
        PROMPTS=PROMPTS if prompts > 1 else 1,
        ALONG=directions is not None,
    )
    return out, along


@triton.jit  # type: ignore[untyped-decorator]
def _squares(  # type: ignore[no-untyped-def]
    x,
    projection,
    out,
    count,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    between = tl.arange(0, ROWS)
    product = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, WIDTH, ROWS):
        k = start + between
        a = tl.load(
            x + rows[:, None] * WIDTH + k[None, :],
            (rows < count)[:, None] & (k < WIDTH)[None, :],
            0,
        )
        b = tl.load(
            projection + k[:, None] * SIZE + columns[None, :],
            (k < WIDTH)[:, None] & (columns < SIZE)[None, :],
            0,
        )
        product = tl.dot(a, b, product)
    tl.store(out + tl.program_id(1) * count + rows, tl.sum(product * product, 1), rows < count)


@triton.jit  # type: ignore[untyped-decorator]
def _over_length(along, squares, count, PARTS: tl.constexpr, ELEMENTS: tl.constexpr):  # type: ignore[no-untyped-def]
    places = tl.program_id(0) * ELEMENTS + tl.arange(0, ELEMENTS)
    inside = places < count
    square = tl.zeros((ELEMENTS,), tl.float32)
    for part in tl.static_range(PARTS):
        square += tl.load(squares + part * count + places, inside, 0)
    cosine = tl.load(along + places, inside, 0) / tl.maximum(tl.sqrt(square), 1e-12)
    tl.store(along + places, cosine, inside)


def over_length(along: Tensor, x: Tensor, projection: Tensor) -> Tensor:
    """Inner products divided by the length of what they were taken with, in place.

    Args:
        along: (F, P, N) contiguous float32.
        x: (F, P, N, D) contiguous, half precision.
        projection: (D, E) contiguous, of the same dtype.

    Returns:
        along / |x projection|.
    """
    width, size = projection.shape
    count, parts = along.numel(), triton.cdiv(size, COLUMNS)
    squares = torch.empty((parts, count), device=x.device)
    _squares[(triton.cdiv(count, ROWS), parts)](
        x, projection, squares, count, WIDTH=width, SIZE=size, ROWS=ROWS, COLUMNS=COLUMNS
    )
    _over_length[(triton.cdiv(count, 256),)](along, squares, count, PARTS=parts, ELEMENTS=256)
    return along


@triton.jit
def _interpolated(  # type: ignore[no-untyped-def]
    values, row, column, rows, columns, input_rows, input_columns, inside
):
    """A patch grid at pixels of the network's input: bilinear, half-pixel centres, as torch's."""
    y = tl.maximum((row + 0.5) * (rows * 1.0 / input_rows) - 0.5, 0.0)
    x = tl.maximum((column + 0.5) * (columns * 1.0 / input_columns) - 0.5, 0.0)
    top, left = y.to(tl.int32), x.to(tl.int32)
    # Along a single patch nothing changes, but rounding would make maxima there.
    lower = tl.where(rows > 1, y - top.to(tl.float32), 0.0)
    right = tl.where(columns > 1, x - left.to(tl.float32), 0.0)
    below = tl.minimum(top + 1, rows - 1) * columns
    beside = tl.minimum(left + 1, columns - 1)
    top *= columns
    above = (1.0 - right) * tl.load(values + top + left, inside, 0)
    above += right * tl.load(values + top + beside, inside, 0)
    under = (1.0 - right) * tl.load(values + below + left, inside, 0)
    under += right * tl.load(values + below + beside, inside, 0)
    return (1.0 - lower) * above + lower * under


@triton.jit
def _lower(a, b):  # type: ignore[no-untyped-def]
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _higher(a, b):  # type: ignore[no-untyped-def]
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit  # type: ignore[untyped-decorator]
def _extremes(  # type: ignore[no-untyped-def]
    similarity,
    out,
    rows,
    columns,
    input_rows,
    input_columns,
    top,
    left,
    height,
    width,
    PIXELS: tl.constexpr,
):
    map_, part = tl.program_id(0), tl.program_id(1)
    pixel = part * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < height * width
    value = _interpolated(
        similarity + map_ * rows * columns,
        top + pixel // width,
        left + pixel % width,
        rows,
        columns,
        input_rows,
        input_columns,
        inside,
    )
    to = out + (map_ * tl.num_programs(1) + part) * 2
    tl.store(to, tl.reduce(tl.where(inside, value, float("inf")), 0, _lower))
    tl.store(to + 1, tl.reduce(tl.where(inside, value, float("-inf")), 0, _higher))


@triton.jit  # type: ignore[untyped-decorator]
def _heatmaps(  # type: ignore[no-untyped-def]
    similarity,
    extremes,
    fusion,
    out,
    highest,
    where,
    rows,
    columns,
    input_rows,
    input_columns,
    top,
    left,
    height,
    width,
    parts,
    PARTS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    action, part = tl.program_id(0), tl.program_id(1)
    pixel = part * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < height * width
    each = tl.arange(0, PARTS)
    fused = tl.zeros((PIXELS,), tl.float32)
    for kind in tl.static_range(MAPS):
        if kind < KINDS:
            map_ = action * KINDS + kind
            value = _interpolated(
                similarity + map_ * rows * columns,
                top + pixel // width,
                left + pixel % width,
                rows,
                columns,
                input_rows,
                input_columns,
                inside,
            )
            extreme = extremes + (map_ * parts + each) * 2
            low = tl.reduce(tl.load(extreme, each < parts, float("inf")), 0, _lower)
            high = tl.reduce(tl.load(extreme + 1, each < parts, float("-inf")), 0, _higher)
            span = high - low
            value = (value - low) / tl.where(span > 0, span, 1.0)
            fused += value * tl.load(fusion + kind).to(tl.float32)
        else:
            value = fused
        tl.store(out + (action * MAPS + kind) * height * width + pixel, value, inside)
        best = tl.where(inside, value, float("-inf"))
        to = (action * MAPS + kind) * parts + part
        tl.store(highest + to, tl.max(best, 0))
        tl.store(where + to, part * PIXELS + tl.argmax(best, 0))


@triton.jit  # type: ignore[untyped-decorator]
def _points(  # type: ignore[no-untyped-def]
    similarity,
    fusion,
    highest,
    where,
    points,
    cosines,
    rows,
    columns,
    input_rows,
    input_columns,
    top,
    left,
    width,
    parts,
    PARTS: tl.constexpr,
    BY_POINTS: tl.constexpr,
):
    action = tl.program_id(0)
    each = tl.arange(0, PARTS)
    x = tl.zeros((1,), tl.float64)
    y = tl.zeros((1,), tl.float64)
    total = tl.zeros((1,), tl.float64)
    one = tl.arange(0, 1)
    for kind in tl.static_range(MAPS):
        place = (action * MAPS + kind) * parts
        best = tl.argmax(tl.load(highest + place + each, each < parts, float("-inf")), 0)
        pixel = tl.load(where + place + best + one)
        column, row = pixel % width, pixel // width
        if kind < KINDS:
            weight = tl.load(fusion + kind + one)
            x += weight * column
            y += weight * row
            total += weight
        elif BY_POINTS:  # truncated to whole pixels, see fuse_points
            column = (x / total + 1e-9).to(tl.int32)
            row = (y / total + 1e-9).to(tl.int32)
        to = points + (action * MAPS + kind) * 2 + one
        tl.store(to, column.to(tl.int64))
        tl.store(to + 1, row.to(tl.int64))
        cosine = tl.zeros((1,), tl.float32)
        for other in tl.static_range(KINDS):
            if kind == other or kind == KINDS:  # noqa: PLR1714, SIM109 - compiled
                value = _interpolated(
                    similarity + (action * KINDS + other) * rows * columns,
                    top + row,
                    left + column,
                    rows,
                    columns,
                    input_rows,
                    input_columns,
                    one < 1,
                )
                share = tl.load(fusion + other + one).to(tl.float32)
                cosine += value * (share if kind == KINDS else 1.0)
        tl.store(cosines + action * MAPS + kind + one, cosine)


def locate(
    similarity: Tensor,
    grid_hw: tuple[int, int],
    input_hw: tuple[int, int],
    corner: tuple[int, int],
    content_hw: tuple[int, int],
    fusion: Tensor,
    by_points: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Heatmaps and points of patch similarities; see :func:`.fusion.locate_points`.

    Args:
        similarity: (F, 3 M, N) contiguous float32.
        grid_hw: Rows and columns of patches.
        input_hw: Height and width of the network's input.
        corner: First row and column of the content in it.
        content_hw: Height and width of the content.
        fusion: (3,) float64 weights.
        by_points: Whether the fused point is the mean of the points, instead of the fused
            heatmap's maximum.

    Returns:
        Heatmaps (F, M, 4, h, w) float32, points (F, M, 4, 2) int64 and cosines (F, M, 4) float32.
    """
    frames, actions = len(similarity), similarity.shape[1] // KINDS.value
    device, (height, width) = similarity.device, content_hw
    parts = triton.cdiv(height * width, PIXELS)
    padded = triton.next_power_of_2(parts)
    shape = (frames, actions, MAPS.value)
    extremes = torch.empty((frames, 3 * actions, parts, 2), device=device)
    heatmaps = torch.empty((*shape, height, width), device=device)
    highest = torch.empty((*shape, parts), device=device)
    where = torch.empty((*shape, parts), dtype=torch.int32, device=device)
    points = torch.empty((*shape, 2), dtype=torch.int64, device=device)
    cosines = torch.empty(shape, device=device)
    sizes = (*grid_hw, *input_hw, *corner)
    _extremes[(frames * 3 * actions, parts)](
        similarity, extremes, *sizes, height, width, PIXELS=PIXELS
    )
    _heatmaps[(frames * actions, parts)](
        similarity,
        extremes,
        fusion,
        heatmaps,
        highest,
        where,
        *sizes,
        height,
        width,
        parts,
        PARTS=padded,
        PIXELS=PIXELS,
    )
    _points[(frames * actions,)](
        similarity,
        fusion,
        highest,
        where,
        points,
        cosines,
        *sizes,
        width,
        parts,
        PARTS=padded,
        BY_POINTS=by_points,
        num_warps=1,
    )
    return heatmaps, points, cosines

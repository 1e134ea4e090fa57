"""The two attentions of a block: plain, and self-self (GEM, Bousselham et al., CVPR 2024)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from videogem_ros.core.fused import HOPPER, own_attention, own_kernels

LOG2_E = math.log2(math.e)

PATCHES = slice(1, None)
"""All tokens but the class token."""

MANY_TOKENS = 512
"""From this many tokens, a CPU runs self-self attention of q, k and v one after another."""


def split_heads(qkv: Tensor, heads: int) -> Tensor:
    """q, k and v by head.

    Args:
        qkv: (B, N, 3 D), the block's input projection: q, k, v side by side.
        heads: Number of heads; D is a multiple of it.

    Returns:
        (3, B, heads, N, D / heads). On a CPU a copy in which each head is contiguous: the copy
        takes a hundredth of the attention's time, which then runs 5 to 15 % faster. Elsewhere a
        view.
    """
    batch, tokens, width = qkv.shape
    split = qkv.view(batch, tokens, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)
    return split.contiguous() if qkv.device.type == "cpu" else split


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, N, d) to (B, N, heads * d)."""
    return x.transpose(1, 2).flatten(2)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, fused; all (B, heads, N, d), the query's N may differ."""
    own = own_attention(query, key, value)
    if own is not None:
        attended: Tensor = own.attention(query, key, value, LOG2_E / math.sqrt(query.shape[-1]))
        return attended
    return F.scaled_dot_product_attention(query, key, value)


def self_self_attention(
    projections: Tensor, temperature: Tensor, tokens: Tensor | slice | None = None
) -> Tensor:
    """Self-self attention of q, k and v with one iteration, averaged.

    For each p in {q, k, v}, with t the temperature:

        p0    = p / |p|
        p1    = softmax(t p0 p0^T) p0,  p1 = p1 / |p1|
        out_p = softmax(t p1 p1^T) v

    t is folded into query and key: sqrt(t) on both sides of p p^T. Norms of half precision vectors
    are computed in float32.

    Args:
        projections: (3, B, heads, N, d), q, k and v by head.
        temperature: (B,), one per sample: mean |y| over the tokens / sqrt(d).
        tokens: (M,) int64 or a slice: the M tokens whose output is wanted; all where None. Every
            token remains a key and a value, so this choice does not change the output.

    Returns:
        (B, heads, N or M, d), the mean of out_q, out_k and out_v.
    """
    temperature, value = temperature.float(), projections[2]
    own = own_kernels(projections)
    if own is not None:
        mean: Tensor = own.mean_of_parts(_own_attention(projections, temperature, value, tokens))
        return mean
    parts = torch.split(projections, _together(projections))
    total = _total(_sum(_own_attention(part, temperature, value, tokens)) for part in parts)
    return total / len(projections) if total.requires_grad else total.div_(len(projections))


def self_self_attention_by_frame(
    projections: Tensor, temperature: Tensor, frames: int, chosen: Sequence[int]
) -> Tensor:
    """:func:`self_self_attention` within each frame of a video, an approximation.

    A patch attends to the class token and the patches of its own frame, so that T frames of N
    patches need T N^2 logits instead of (T N)^2, and frames that are not wanted need none.

    Args:
        projections: (3, B, heads, 1 + N T, d): class token, then patches, frames fastest.
        temperature: (B,), of the whole sample.
        frames: T.
        chosen: The F frames whose patches are wanted.

    Returns:
        (B, heads, N F, d), without the class token: patch by patch, frames fastest.
    """
    three, batch, heads, _, size = projections.shape
    token, patches = projections[..., :1, :], projections[..., 1:, :]
    patches = patches.reshape(three, batch, heads, -1, frames, size)
    at_once = 1 if projections.device.type == "cpu" else len(chosen)  # a GPU needs many to be busy
    outputs = []
    for first in range(0, len(chosen), at_once):
        some = chosen[first : first + at_once]
        by_frame = [torch.cat([token, patches[..., frame, :]], dim=-2) for frame in some]
        attended = self_self_attention(
            torch.cat(by_frame, dim=1), temperature.repeat(len(some)), PATCHES
        )
        outputs.append(attended.view(len(some), batch, heads, -1, size))
    return torch.cat(outputs).permute(1, 2, 3, 0, 4).flatten(2, 3)


def _together(projections: Tensor) -> int:
    """How many of q, k and v run as one batch.

    One by one they need a third of the memory and fit a CPU's cache better; but for few tokens,
    or on a GPU, fewer and larger calls are faster.
    """
    three, *_, tokens, _ = projections.shape
    return 1 if projections.device.type == "cpu" and tokens >= MANY_TOKENS else three


def _own_attention(
    projections: Tensor, temperature: Tensor, value: Tensor, tokens: Tensor | slice | None
) -> Tensor:
    """out_p for each of P of q, k and v, (P, B, heads, N or M, d).

    Args:
        projections: (P, B, heads, N, d).
        temperature: (B,) float32, t.
        value: (B, heads, N, d), v.
        tokens: As :func:`self_self_attention` takes them.
    """
    count, batch = projections.shape[:2]
    own = own_attention(value)
    if own is not None:  # its softmax has base 2 instead of e
        p = _of_length(projections, temperature, factor=LOG2_E).flatten(0, 1)
        p = own.attention(p, p, p, square=temperature, factor=LOG2_E)
        out: Tensor = own.attention(p if tokens is None else p[:, :, tokens], p, value)
        return out.view(count, batch, *out.shape[1:])
    p = _of_length(projections, temperature).flatten(0, 1)  # (P B, heads, N, d)
    # The next step normalises p1, so p is as good a value as p0.
    p1 = F.scaled_dot_product_attention(p, p, p, scale=1.0).view_as(projections)
    p = _of_length(p1, temperature, p).flatten(0, 1)
    del p1
    query = p if tokens is None else p[:, :, tokens]
    value = value.expand(count, -1, -1, -1, -1).flatten(0, 1)
    out = F.scaled_dot_product_attention(query, p, value, scale=1.0)
    return out.view(count, batch, *out.shape[1:])


def _sum(parts: Tensor) -> Tensor:
    """(P, ...) to (...)."""
    return parts.sum(dim=0) if len(parts) > 1 else parts[0]


def _total(parts: Iterator[Tensor]) -> Tensor:
    """The sum of tensors that are computed one at a time, so that few are in memory at once."""
    total = next(parts)
    for part in parts:
        total = total + part if total.requires_grad else total.add_(part)
        del part
    return total


def _of_length(
    p: Tensor, square: Tensor, memory: Tensor | None = None, factor: float = 1.0
) -> Tensor:
    """Vectors p (P, B, heads, N, d), scaled to the length sqrt(factor * square), square (B,).

    The result is written to ``memory`` where given, except by the own GPU kernel, which always
    allocates, and where gradients are wanted.
    """
    own = own_kernels(p)
    if own is not None:
        made: Tensor = own.of_length(p, square, factor)
        return made
    wide = p.float() if p.dtype.itemsize == 2 else p  # a CPU mixes dtypes slowly
    norm: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    if p.requires_grad:
        memory = None
    elif wide is not p:
        memory = wide
    out = None if memory is None else memory.view(p.shape)
    length = (factor * square).sqrt().view(-1, 1, 1, 1)
    return torch.mul(wide, length / norm.clamp_min(1e-12), out=out).to(p.dtype)


def token_lengths(y: Tensor) -> Tensor:
    """(B, N, D), a block's normalised input LN1(x), to |y|, (B, N) float32."""
    lengths: Tensor = y.float().norm(dim=-1)
    return lengths


def token_temperature(lengths: Tensor, head_dim: int) -> Tensor:
    """One number per sample: t = (mean over tokens of |y|) / sqrt(d).

    Args:
        lengths: (B, N) float32 of :func:`token_lengths`.
        head_dim: d.

    Returns:
        (B,) float32.
    """
    own = own_kernels(lengths)
    if own is not None:
        scaled: Tensor = own.scaled_mean(lengths, 1 / math.sqrt(head_dim))
        return scaled
    return lengths.mean(dim=-1) / math.sqrt(head_dim)


def kernels(
    dtype: torch.dtype, head_dim: int, capability: tuple[int, int] = (0, 0)
) -> tuple[SDPBackend, ...]:
    """PyTorch's attention kernels that may run on a GPU, the preferred one first.

    cuDNN and flash attention take half precision and head sizes up to 128 and 256 that are
    multiples of 8; the memory-efficient kernel takes float32 too, where rows are multiples of 16
    bytes. cuDNN compiles a plan for each new shape, which pays off from Hopper on. Plain
    attention, which builds the whole matrix, is for what none of the others takes.

    Args:
        dtype: Of q, k and v.
        head_dim: d.
        capability: The GPU's compute capability.

    Returns:
        One to four kernels.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    allowed = []
    if half and head_dim % 8 == 0 and head_dim <= 128 and capability >= HOPPER:
        allowed.append(SDPBackend.CUDNN_ATTENTION)
    if half and head_dim % 8 == 0 and head_dim <= 256:
        allowed.append(SDPBackend.FLASH_ATTENTION)
    if (half or dtype == torch.float32) and head_dim * dtype.itemsize % 16 == 0:
        allowed.append(SDPBackend.EFFICIENT_ATTENTION)
    return (*allowed, SDPBackend.MATH)


def chosen_kernels(
    device: torch.device, dtype: torch.dtype, head_dim: int
) -> contextlib.AbstractContextManager[object]:
    """A context in which attention uses :func:`kernels` on a GPU, and torch's choice elsewhere."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    available = torch.cuda.is_available()
    capability = torch.cuda.get_device_capability(device) if available else (0, 0)
    return sdpa_kernel(list(kernels(dtype, head_dim, capability)), set_priority=True)

"""The two attentions of a block: plain, and self-self (GEM, Bousselham et al., CVPR 2024)."""

from __future__ import annotations

import contextlib
import math

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def split_heads(qkv: Tensor, heads: int) -> Tensor:
    """q, k and v by head.

    Args:
        qkv: (B, N, 3 D), the block's input projection: q, k, v side by side.
        heads: Number of heads; D is a multiple of it.

    Returns:
        (3, B, heads, N, D / heads), a view.
    """
    batch, tokens, width = qkv.shape
    return qkv.view(batch, tokens, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, N, d) to (B, N, heads * d)."""
    return x.transpose(1, 2).flatten(2)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, fused; all (B, heads, N, d), the query's N may differ."""
    return F.scaled_dot_product_attention(query, key, value)


def self_self_attention(
    projections: Tensor, temperature: Tensor, tokens: Tensor | None = None
) -> Tensor:
    """Self-self attention of q, k and v with one iteration, averaged.

    For each p in {q, k, v}, with t the temperature:

        p0    = p / |p|
        p1    = softmax(t p0 p0^T) p0,  p1 = p1 / |p1|
        out_p = softmax(t p1 p1^T) v

    q, k and v run as one batch of fused attention; t folds into the query.

    Args:
        projections: (3, B, heads, N, d), q, k and v by head.
        temperature: (B,), one number a sample: mean |y| over the tokens / sqrt(d).
        tokens: (M,) int64, the tokens whose output is wanted, all where None. Every token remains
            a key and a value, so the values do not depend on this choice.

    Returns:
        (B, heads, N or M, d), the mean of out_q, out_k and out_v.
    """
    three, batch, heads, _, dim = projections.shape
    # sqrt(t) on both sides of p p^T is t; on the value of the first step the length falls out
    # again.
    root = temperature.to(projections.dtype).sqrt().repeat(three).view(-1, 1, 1, 1)
    value = projections[2].expand(three, -1, -1, -1, -1).flatten(0, 1)

    p = projections.flatten(0, 1)  # (3 B, heads, N, d)
    p = p * _unit_scale(p, root)
    p = F.scaled_dot_product_attention(p, p, p, scale=1.0)
    scale = _unit_scale(p, root)
    p = p * scale if p.requires_grad else p.mul_(scale)
    query = p if tokens is None else p[:, :, tokens]
    out = F.scaled_dot_product_attention(query, p, value, scale=1.0)
    return out.view(three, batch, heads, -1, dim).mean(dim=0)


def _unit_scale(p: Tensor, length: Tensor) -> Tensor:
    """What vectors p (..., d) are to be multiplied with to be of the given length."""
    norm: Tensor = torch.linalg.vector_norm(p, dim=-1, keepdim=True)
    return length / norm.clamp_min(1e-12)


def token_temperature(y: Tensor, head_dim: int) -> Tensor:
    """One number a sample: t = mean over tokens of |y|, over sqrt(d).

    Args:
        y: (B, N, D), the block's normalised input LN1(x).
        head_dim: d.

    Returns:
        (B,) float32.
    """
    lengths: Tensor = y.float().norm(dim=-1)  # (B, N)
    return lengths.mean(dim=-1) / math.sqrt(head_dim)


def kernels(dtype: torch.dtype, head_dim: int) -> tuple[SDPBackend, ...]:
    """Kernels of fused attention that may run on a GPU, the preferred one first.

    Flash attention takes half precision and heads of up to 256, in steps of 8; the efficient
    kernel takes float32 too, where rows are whole 16 bytes. Neither is left to a third one's
    heuristics: cuDNN's compiles a plan for each shape when it first comes. Plain attention, which
    builds every matrix, is for heads that neither takes.

    Args:
        dtype: Of q, k and v.
        head_dim: d.

    Returns:
        One to three kernels.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    allowed = []
    if half and head_dim % 8 == 0 and head_dim <= 256:
        allowed.append(SDPBackend.FLASH_ATTENTION)
    if (half or dtype == torch.float32) and head_dim * dtype.itemsize % 16 == 0:
        allowed.append(SDPBackend.EFFICIENT_ATTENTION)
    return (*allowed, SDPBackend.MATH)


def chosen_kernels(
    device: torch.device, dtype: torch.dtype, head_dim: int
) -> contextlib.AbstractContextManager[object]:
    """Has attention inside use :func:`kernels` on a GPU, and what torch chooses elsewhere."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    return sdpa_kernel(list(kernels(dtype, head_dim)))

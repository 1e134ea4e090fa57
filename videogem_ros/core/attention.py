"""The two attentions of a block: plain, and self-self (GEM, Bousselham et al., CVPR 2024)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor


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

"""The two attentions of a block: plain, and self-self (GEM, Bousselham et al., CVPR 2024)."""

from __future__ import annotations

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
    three, batch, heads, count, dim = projections.shape
    scale = temperature.to(projections.dtype).repeat(three).view(three * batch, 1, 1, 1)
    value = projections[2]

    unit = F.normalize(projections, dim=-1).reshape(three * batch, heads, count, dim)
    unit = F.scaled_dot_product_attention(unit * scale, unit, unit, scale=1.0)
    unit = F.normalize(unit, dim=-1)
    query = (unit if tokens is None else unit[:, :, tokens]) * scale
    out = F.scaled_dot_product_attention(query, unit, value.repeat(three, 1, 1, 1), scale=1.0)
    return out.view(three, batch, heads, -1, dim).mean(dim=0)


def token_temperature(y: Tensor, head_dim: int) -> Tensor:
    """One number a sample: t = mean over tokens of |y|, over sqrt(d).

    Args:
        y: (B, N, D), the block's normalised input LN1(x).
        head_dim: d.

    Returns:
        (B,) float32.
    """
    length: Tensor = torch.linalg.vector_norm(y.float(), dim=-1).mean(dim=-1)
    return length / head_dim**0.5

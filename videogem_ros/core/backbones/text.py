"""A CLIP's text tower, computed up to each text's end token.

The end token's features are the text's embedding, and attention is causal: tokens after it, most
of a context of 32 or 77, do not affect the result and are not computed. The last block computes
the end token alone.

Each text is a separate matrix whose shape depends only on its own length, so its embedding is bit
for bit independent of other texts; in a batch, rounding would depend on the batch size. All texts
pass a block before the next one, while its weights are in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from videogem_ros.core.attention import merge_heads, split_heads
from videogem_ros.core.tower import Block, Norm, blocks_of


@dataclass(frozen=True, eq=False)
class TextTower:
    """A causal CLIP text transformer whose features are read at the end token.

    Attributes:
        token_embedding: (V, D).
        position_embedding: (C, D), C being the context's length.
        blocks: The transformer.
        heads: Attention heads of every block.
        ln_final: Norm after the last block.
        projection: (D, P), to the space shared with images.
    """

    token_embedding: Tensor
    position_embedding: Tensor
    blocks: tuple[Block, ...]
    heads: int
    ln_final: Norm
    projection: Tensor

    @classmethod
    def of(cls, model: nn.Module) -> TextTower:
        """References to the weights of a text transformer for which :func:`is_clips` is true."""
        part: Any = model
        return cls(
            token_embedding=part.token_embedding.weight,
            position_embedding=part.positional_embedding,
            blocks=blocks_of(part.transformer.resblocks),
            heads=part.transformer.resblocks[0].attn.num_heads,
            ln_final=Norm.of(part.ln_final),
            projection=part.text_projection,
        )

    def __call__(self, tokens: Tensor) -> Tensor:
        """Embeddings of texts, each on its own.

        Args:
            tokens: (K, C) int64 from CLIP's tokenizer, on the host; the end token is the highest
                of a row.

        Returns:
            (K, P), not normalised.
        """
        lengths = [end + 1 for end in tokens.argmax(dim=-1).tolist()]
        tokens = tokens.to(self.token_embedding.device)
        hidden = [  # (1, N, D) each
            F.embedding(row[None, :length], self.token_embedding)
            + self.position_embedding[:length]
            for row, length in zip(tokens, lengths)
        ]
        for block in self.blocks:
            last = block is self.blocks[-1]
            hidden = [self._through(block, x, last) for x in hidden]
        return torch.cat([self.ln_final(x[:, -1]) @ self.projection for x in hidden])

    def _through(self, block: Block, x: Tensor, last: bool) -> Tensor:
        """A block, (1, N, D) to the same shape; the last to the end token alone, (1, 1, D)."""
        q, k, v = split_heads(block.qkv(block.ln_1(x)), self.heads)
        if last:
            x, q = x[:, -1:], q[:, :, -1:]
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=not last)
        x = x + block.project(merge_heads(attended))
        return x + block.mlp(x)


def is_clips(model: nn.Module, pool_type: str) -> bool:
    """Whether a text tower is CLIP's own: causal, read at the end token, a plain projection.

    Args:
        model: open_clip's ``TextTransformer``, a CLIP, which has the same parts itself, or the
            encoder of another library.
        pool_type: Where open_clip reads the features.
    """
    part: Any = model
    blocks = getattr(getattr(part, "transformer", None), "resblocks", ())
    return (
        pool_type == "argmax"  # the end token is the highest
        and len(blocks) > 0
        and all(type(block) is ResidualAttentionBlock for block in blocks)
        and getattr(part, "attn_mask", None) is not None
        and getattr(part, "cls_emb", None) is None
        and isinstance(part.ln_final, nn.LayerNorm)
        and isinstance(part.text_projection, nn.Parameter)
    )

"""A vision transformer as the encoder uses it: references to a backbone's weights, in order.

Every backbone is described by a :class:`VisionTower`; the modules that the weights belong to stay
unchanged and usable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from videogem_ros.core.fused import linear_of_one, own_kernels

SLOPE = 1.702
"""QuickGELU is x sigmoid(SLOPE x)."""

MLP_ROWS = 512
"""Most tokens that pass the MLP at once on a CPU, so that its hidden layer fits the cache."""


@dataclass(frozen=True, eq=False)
class Norm:
    """Layer normalisation over the last axis, in the input's dtype.

    Attributes:
        weight: (D,).
        bias: (D,).
        eps: Added to the variance.
    """

    weight: Tensor
    bias: Tensor
    eps: float

    @classmethod
    def of(cls, module: nn.LayerNorm) -> Norm:
        """The weights of a torch layer norm."""
        return cls(module.weight, module.bias, module.eps)

    def __call__(self, x: Tensor) -> Tensor:
        """Normalised x, same shape."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.layer_norm(x, weight.shape, weight, bias, self.eps)


@dataclass(frozen=True, eq=False)
class Linear:
    """x W^T + b.

    Attributes:
        weight: (out, in).
        bias: (out,), or None.
    """

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, module: nn.Linear) -> Linear:
        """The weights of a torch linear layer."""
        return cls(module.weight, module.bias)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        made = linear_of_one(x, self.weight, self.bias)
        return F.linear(x, self.weight, self.bias) if made is None else made

    def scaled(self, x: Tensor, product: float, bias: float = 1.0) -> Tensor:
        """(..., in) to (..., out): product * x W^T + bias * b, scaled within the product."""
        flat, weight = x.flatten(0, -2), self.weight.T
        if self.bias is None:
            out = torch.mm(flat, weight).mul_(product)
        else:
            out = torch.addmm(self.bias, flat, weight, beta=bias, alpha=product)
        return out.view(*x.shape[:-1], -1)

    def split(self, count: int) -> tuple[Linear, ...]:
        """Layers that give equal parts of the outputs, in order; their weights are views."""
        biases = (None,) * count if self.bias is None else self.bias.chunk(count)
        return tuple(map(Linear, self.weight.chunk(count), biases))


@dataclass(frozen=True, eq=False)
class Block:
    """One pre-norm residual block: attention, then an MLP.

    Attributes:
        ln_1: Norm before the attention.
        qkv: Input projection (3 D, D).
        out: Output projection W_o, b_o.
        ln_2: Norm before the MLP.
        expand: First MLP layer.
        contract: Second MLP layer.
        activation: Between the two MLP layers.
        scale_attention: (D,) layer scale of the attention, None for 1.
        scale_mlp: (D,) layer scale of the MLP, None for 1.
    """

    ln_1: Norm
    qkv: Linear
    out: Linear
    ln_2: Norm
    expand: Linear
    contract: Linear
    activation: Callable[[Tensor], Tensor]
    scale_attention: Tensor | None = None
    scale_mlp: Tensor | None = None

    def project_to(self, attended: Tensor, out: Tensor) -> None:
        """Write :meth:`project` of (B, N, D) to ``out`` (B, ..., D), ... being N in any shape."""
        own = own_kernels(attended)
        direct = own is not None and out.is_contiguous() and out.dtype == attended.dtype
        if direct and self.out.bias is not None and self.scale_attention is None:
            flat, to = attended.flatten(0, 1), out.view(-1, out.shape[-1])
            torch.addmm(self.out.bias, flat, self.out.weight.T, out=to)
        else:
            out.copy_(self.project(attended).view(len(attended), *out.shape[1:-1], -1))

    def project(self, attended: Tensor) -> Tensor:
        """W_o attended + b_o, (B, N, D): what the attention adds to the residual stream."""
        out = self.out(attended)
        return out if self.scale_attention is None else out * self.scale_attention

    def mlp(self, x: Tensor) -> Tensor:
        """What the MLP adds to the residual stream x, (B, N, D)."""
        slices = math.ceil(x.shape[1] / MLP_ROWS) if x.device.type == "cpu" else 1
        dtype = self.expand.weight.dtype
        parts = [
            self.feed_forward(self.ln_2(part).to(dtype)) for part in torch.chunk(x, slices, dim=1)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def feed_forward(self, y: Tensor) -> Tensor:
        """The MLP's output for its normalised input y, (B, N, D) in the weights' dtype."""
        own = own_kernels(y)
        if not isinstance(self.activation, QuickGELU) or torch.is_grad_enabled():
            out = self.contract(self.activation(self.expand(y)))
        elif own is not None:
            out = self.contract(own.quick_gelu(self.expand(y)))
        else:  # x sigmoid(1.702 x) = silu(1.702 x) / 1.702
            hidden = F.silu(self.expand.scaled(y, SLOPE, SLOPE), inplace=True)
            out = self.contract.scaled(hidden, 1 / SLOPE)
        return out if self.scale_mlp is None else out * self.scale_mlp


@dataclass(frozen=True, eq=False)
class VisionTower:
    """A CLIP image or video tower.

    Attributes:
        patch_embedding: (D, 3, p_h, p_w), a convolution without bias whose stride is its size.
        class_embedding: (D,).
        position_embedding: (1 + N, D): class token, then patches row by row on ``grid_hw``.
        grid_hw: Rows and columns of patches that the position embedding was trained for.
        temporal_embedding: (T, D) of a video tower, whose T frames attend jointly; None for
            images.
        ln_pre: Norm before the first block, None where there is none.
        blocks: The transformer.
        heads: Attention heads of every block.
        ln_post: Norm after the last block.
        projection: (D, P), to the space shared with text.
    """

    patch_embedding: Tensor
    class_embedding: Tensor
    position_embedding: Tensor
    grid_hw: tuple[int, int]
    temporal_embedding: Tensor | None
    ln_pre: Norm | None
    blocks: tuple[Block, ...]
    heads: int
    ln_post: Norm
    projection: Tensor

    @property
    def patch_hw(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        return self.patch_embedding.shape[-2], self.patch_embedding.shape[-1]

    @property
    def input_hw(self) -> tuple[int, int]:
        """Input height and width in pixels that the position embedding was trained for."""
        return self.grid_hw[0] * self.patch_hw[0], self.grid_hw[1] * self.patch_hw[1]

    @property
    def frames(self) -> int:
        """T, the number of frames that attend jointly; 1 for an image tower."""
        return 1 if self.temporal_embedding is None else self.temporal_embedding.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the blocks' weights; what precedes and follows the blocks may be wider."""
        return self.blocks[0].qkv.weight.dtype

    @property
    def head_dim(self) -> int:
        """D / heads."""
        return self.class_embedding.shape[0] // self.heads

    def embed(self, x: Tensor) -> Tensor:
        """Token features to unit vectors in the space shared with text, in float32.

        Args:
            x: (..., D), a sum of residual stream terms.

        Returns:
            (..., P) float32: LN_post(x) W_proj, each of length 1.
        """
        return self.project(self.ln_post(x.float()))

    def project(self, y: Tensor) -> Tensor:
        """The part of :meth:`embed` after LN_post: (..., D) float32 to (..., P)."""
        return F.normalize(y @ self.projection.float(), dim=-1)


def narrow(resblocks: nn.Module, dtype: torch.dtype) -> None:
    """Convert the weights of the blocks to a dtype, except the norms', which stay float32."""
    for block in resblocks.children():
        for part in block.children():
            if not isinstance(part, nn.LayerNorm):
                part.to(dtype)


def blocks_of(resblocks: nn.Module) -> tuple[Block, ...]:
    """The blocks of a transformer whose submodules are named like CLIP's.

    Args:
        resblocks: Its blocks, with ``ln_1``, ``attn`` (in_proj_weight, in_proj_bias, out_proj),
            ``ln_2``, ``mlp`` (c_fc, gelu, c_proj) and, optionally, layer scales ``ls_1``,
            ``ls_2``.

    Returns:
        References to their weights.
    """
    return tuple(_block_of(block) for block in resblocks.children())


def _block_of(block: nn.Module) -> Block:
    part: dict[str, Any] = dict(block.named_modules())
    return Block(
        ln_1=Norm.of(part["ln_1"]),
        qkv=Linear(part["attn"].in_proj_weight, part["attn"].in_proj_bias),
        out=Linear.of(part["attn.out_proj"]),
        ln_2=Norm.of(part["ln_2"]),
        expand=Linear.of(part["mlp.c_fc"]),
        contract=Linear.of(part["mlp.c_proj"]),
        activation=part["mlp.gelu"],
        scale_attention=getattr(part.get("ls_1"), "gamma", None),
        scale_mlp=getattr(part.get("ls_2"), "gamma", None),
    )

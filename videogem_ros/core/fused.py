"""Which steps of an encoder pass run in own GPU kernels, and work on a second CUDA stream.

Without the kernels the same steps run in torch's operators; only speed depends on it.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from videogem_ros.core.acceleration import stream_for
from videogem_ros.errors import said

if TYPE_CHECKING:
    from videogem_ros.core.tower import Norm

HOPPER = (9, 0)
"""Compute capability of the GPUs that the own attention kernel is made for."""

HEAD_DIM = 64
"""Head size of CLIP's towers up to L, the only one that the own attention kernel is used for."""

T = TypeVar("T")

_logger = logging.getLogger(__name__)


def own_kernels(x: Tensor) -> Any | None:
    """:mod:`.triton_kernels`, where it can process a tensor.

    Args:
        x: The input of a step.

    Returns:
        The module; None on a CPU, for float64, where gradients are wanted, and where Triton does
        not run, which is logged once.
    """
    taken = x.device.type == "cuda" and x.dtype != torch.float64 and not torch.is_grad_enabled()
    return _module(x.device) if taken else None


def own_comparison(x: Tensor) -> Any | None:
    """:mod:`.triton_comparison`, where :func:`own_kernels` gives a module for a tensor."""
    return None if own_kernels(x) is None else _comparison_module(x.device)


def own_attention(*heads: Tensor) -> Any | None:
    """:mod:`.triton_attention`, where it can replace torch's attention.

    Args:
        heads: Queries, keys and values, each (..., d).

    Returns:
        The module; None where :func:`own_kernels` gives None, on GPUs other than Hopper, for
        dtypes other than bfloat16, for d other than 64, the only size at which it is known to be
        faster, and for rows that the copy engine cannot read.
    """
    x = heads[0]
    if x.dtype != torch.bfloat16 or x.shape[-1] != HEAD_DIM or own_kernels(x) is None:
        return None
    module = _attention_module(x.device)
    return module if module is not None and all(map(module.takes, heads)) else None


def patches_in_halves(pixels: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor | None:
    """A float32 patch embedding computed from bfloat16 products, where the blocks are bfloat16.

    Args:
        pixels: (T, 3, H, W) float32.
        weight: (D, 3, p_h, p_w) float32.
        dtype: The blocks' dtype.

    Returns:
        (T, N, D) float32, with a relative error of 2^-16; None where it has to be computed
        otherwise.
    """
    own = own_kernels(pixels)
    if own is None or dtype != torch.bfloat16 or {pixels.dtype, weight.dtype} != {torch.float32}:
        return None
    if not _has_wide_products(pixels.device):
        return None
    made: Tensor = own.embedded_patches(pixels.contiguous(), weight.contiguous())
    return made


def linear_of_one(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """The linear layer x W^T + b in half precision where x is one token.

    Args:
        x: (B, N, K).
        weight: (D, K).
        bias: (D,), or None.

    Returns:
        (1, 1, D); None where it has to be computed otherwise.
    """
    if x.shape[:-1] != (1, 1) or {x.dtype, weight.dtype} & {torch.float32, torch.float64}:
        return None
    own = own_kernels(x)
    if own is None or not (x.is_contiguous() and weight.is_contiguous()):
        return None
    made: Tensor = own.of_one(x, weight, bias)
    return made


@functools.cache
def _has_wide_products(device: torch.device) -> bool:
    def try_out() -> bool:
        x = torch.ones(16, 16, dtype=torch.bfloat16, device=device)
        torch.mm(x, x, out_dtype=torch.float32)
        return True

    return bool(_what_runs("no float32 products of bfloat16, using products of float32", try_out))


@functools.cache
def _attention_module(device: torch.device) -> Any | None:
    if torch.cuda.get_device_capability(device)[0] != HOPPER[0]:
        return None

    def try_out() -> Any:
        module = importlib.import_module("videogem_ros.core.triton_attention")
        x = torch.ones(1, 1, 2, HEAD_DIM, dtype=torch.bfloat16, device=device)
        module.attention(x, x, x, square=torch.ones(1, device=device))
        module.attention(x, x, x.clone(), 0.5)
        return module

    return _what_runs("own GPU attention does not run, using torch's", try_out)


@functools.cache
def _module(device: torch.device) -> Any | None:
    def try_out() -> Any:
        module = importlib.import_module("videogem_ros.core.triton_kernels")
        x = torch.ones(1, 2, 16, device=device)
        module.of_length(x.view(1, 1, 1, 2, 16), x[0, 0, :1])
        module.add_norm(x, (x, x), x[0, 0], x[0, 0], 1e-5, torch.float32)
        module.quick_gelu(x)
        module.mean_of_parts(x.view(2, 1, 1, 1, 16))
        module.scaled_mean(x[0], 1.0)
        module.sum_of_first(x, x)
        module.of_one(x[:, :1], x[0], x[0, 0, :2])
        module.tokens(x[:, :1], x[0, 0], x[0], x[0, :1], (x[0, 0], x[0, 0], 1e-5))
        return module

    return _what_runs("own GPU kernels do not run, using torch's operators", try_out)


@functools.cache
def _comparison_module(device: torch.device) -> Any | None:
    def try_out() -> Any:
        module = importlib.import_module("videogem_ros.core.triton_comparison")
        x, square = torch.ones(1, 3, 16, device=device), torch.ones(16, 16, device=device)
        norm = (square[0], square[0], 1e-5)
        module.class_rows(x, *norm)
        module.class_similarity(x, x[0], 3, square[0], 1, 20.0, 100.0)
        text = module.directions(x[0], square)
        half, along = module.mix_and_norm(x[None], x[..., :1], *norm, torch.bfloat16, text)
        module.over_length(along, half, square.bfloat16())
        weights = torch.ones(3, dtype=torch.float64, device=device)
        module.locate(x, (4, 4), (8, 8), (0, 0), (8, 8), weights, True)
        return module

    return _what_runs("own GPU comparison does not run, using torch's operators", try_out)


def _what_runs(otherwise: str, try_out: Callable[[], Any]) -> Any | None:
    """Try kernels out, as only compiling them shows whether a device can run them.

    Args:
        otherwise: What is logged where it cannot.
        try_out: Runs each kernel once.

    Returns:
        What ``try_out`` returns; None where it fails.
    """
    try:
        return try_out()
    except Exception as error:  # from torch, Triton, a C compiler, the driver
        _logger.warning("%s: %s", otherwise, said(error)[:200])
        return None


def add_and_norm(
    x: Tensor, added: tuple[Tensor, ...], norm: Norm, dtype: torch.dtype, keep: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A sum and its layer norm.

    Args:
        x: (B, N, D).
        added: At most two (B, N, D).
        norm: The layer norm.
        dtype: The wanted dtype of the norm's output.
        keep: Whether the sum is wanted; what is returned for it otherwise is undefined.

    Returns:
        The sum of x and what is added and the norm of it, both (B, N, D), and the length |y| of
        each token's norm, (B, N) float32. Without own kernels the norm has x's dtype and the
        lengths are None.
    """
    own = own_kernels(x)
    if own is None or x.dtype != torch.float32:
        x = sum(added, x)
        return x, norm(x), None
    found: tuple[Tensor, Tensor, Tensor] = own.add_norm(
        x, added, norm.weight, norm.bias, norm.eps, dtype, keep
    )
    return found


class Beside:
    """Runs work beside the main path: on a GPU in a CUDA stream of its own, else at once.

    The main path of a single window leaves much of a GPU idle. It runs ahead of the work by at
    most one piece, since a piece's inputs stay in memory until it is done. Can be recorded in a
    CUDA graph.

    Args:
        device: The device of the work's tensors.
    """

    def __init__(self, device: torch.device) -> None:
        apart = device.type == "cuda" and not torch.is_grad_enabled()
        self._stream = stream_for("beside", device, urgent=True) if apart else None
        self._last: tuple[Any, tuple[object, ...]] | None = None

    def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Start a piece of work, which waits for everything started before on either path.

        Args:
            work: A function.
            arguments: Its arguments; all other tensors that it reads must outlive the work.

        Returns:
            What the work returns, for after :meth:`join`.
        """
        if self._stream is None:
            return work(*arguments)
        main = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(main)
        before = self._last
        with torch.cuda.stream(self._stream):
            made = work(*arguments)
            self._last = self._stream.record_event(), arguments
        if before is not None:
            main.wait_event(before[0])
        return made

    def join(self) -> None:
        """Let the main path wait for all work."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
            self._last = None

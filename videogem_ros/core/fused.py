"""Which steps of an encoder pass a GPU does in own kernels, and work beside the main path.

Without them the same steps run in torch's operators; nothing but speed depends on it.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from videogem_ros.core.acceleration import stream_for
from videogem_ros.errors import said

if TYPE_CHECKING:
    from videogem_ros.core.tower import Norm

_logger = logging.getLogger(__name__)


def own_kernels(x: Tensor) -> Any | None:
    """:mod:`.triton_kernels`, where they can take a tensor's place.

    Args:
        x: What a step is done to.

    Returns:
        The module; None on a CPU, of float64, where gradients are wanted, and where Triton does
        not run: that is logged once.
    """
    taken = x.device.type == "cuda" and x.dtype != torch.float64 and not torch.is_grad_enabled()
    return _module(x.device) if taken else None


@functools.cache
def _module(device: torch.device) -> Any | None:
    try:
        module = importlib.import_module("videogem_ros.core.triton_kernels")
        # Whether they compile for this device shows when they do.
        x = torch.ones(1, 2, 16, device=device)
        module.of_length(x.view(1, 1, 1, 2, 16), x[:, :1, :1, None])
        module.add_norm(x, x, x[0, 0], x[0, 0], 1e-5, torch.float32)
        module.quick_gelu(x)
        module.mean_of_parts(x.view(2, 1, 1, 1, 16))
        module.mix_and_norm(x[None], x[:, :1, :1], x[0, 0], x[0, 0], 1e-5)
    except Exception as error:  # of Triton, a C compiler, the driver
        problem = said(error)[:200]
        _logger.warning("no own GPU kernels, torch's operators instead: %s", problem)
        return None
    return module


def add_and_norm(
    x: Tensor, added: Tensor | None, norm: Norm, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A sum and its norm.

    Args:
        x: (B, N, D).
        added: The same, or nothing.
        norm: A tower's.
        dtype: That the norm is wanted in.

    Returns:
        x + added and its norm, both (B, N, D), and where they come along with it the norm's
        lengths by token, (B, N) float32. Without own kernels the norm is in x's dtype still.
    """
    own = own_kernels(x)
    if own is None or x.dtype != torch.float32:
        x = x if added is None else x + added
        return x, norm(x), None
    found: tuple[Tensor, Tensor, Tensor] = own.add_norm(
        x, added, norm.weight, norm.bias, norm.eps, dtype
    )
    return found


class Beside:
    """Work that the main path does not wait for: on a GPU in a stream of its own, else at once.

    One window's main path leaves much of a GPU idle. It is ahead of the work by one piece at most,
    as what a piece reads lives until it is done. Can be recorded in a CUDA graph.

    Args:
        device: Where.
    """

    def __init__(self, device: torch.device) -> None:
        apart = device.type == "cuda" and not torch.is_grad_enabled()
        self._stream = stream_for("beside", device) if apart else None
        self._last: tuple[Any, tuple[object, ...]] | None = None

    def run(self, work: Callable[..., None], *arguments: object) -> None:
        """Begin a piece of work, after all that was begun before, on either path.

        Args:
            work: Writes into tensors that are there already, and gives back nothing.
            arguments: What it is called with; all other tensors it reads must outlive the work.
        """
        if self._stream is None:
            work(*arguments)
            return
        main = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(main)
        before = self._last
        with torch.cuda.stream(self._stream):
            work(*arguments)
            self._last = self._stream.record_event(), arguments
        if before is not None:
            main.wait_event(before[0])

    def join(self) -> None:
        """Have the main path wait for all work."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
            self._last = None

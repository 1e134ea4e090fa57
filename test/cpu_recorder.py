"""A recorder for :class:`videogem_ros.core.acceleration.Graphs` without a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from videogem_ros.core.acceleration import Pass, Recording


class CpuRecording:
    """A pass that is computed again on each replay, with the same input and output memory."""

    def __init__(
        self, passed: Pass, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
    ) -> None:
        self._passed, self._inputs, self._outputs = passed, inputs, outputs

    def replay(self) -> None:
        for output, value in zip(self._outputs, self._passed(*self._inputs)):
            output.copy_(value)


class CpuRecorder:
    """Behaves like a CUDA graph: outputs are undefined before the first replay.

    Attributes:
        recorded: Shapes of the first inputs of all recordings.
        besides: The recordings whose scratch memory these were to share.
        error: If not None, raised instead of recording.
    """

    device_type = "cpu"

    def __init__(self) -> None:
        self.recorded: list[tuple[int, ...]] = []
        self.besides: list[Recording | None] = []
        self.error: Exception | None = None

    def record(
        self, passed: Pass, inputs: tuple[Tensor, ...], beside: Recording | None
    ) -> tuple[Recording, tuple[Tensor, ...]]:
        if self.error is not None:
            raise self.error
        outputs = tuple(_nothing(output) for output in passed(*inputs))
        self.recorded.append(tuple(inputs[0].shape))
        self.besides.append(beside)
        return CpuRecording(passed, inputs, outputs), outputs


def _nothing(output: Tensor) -> Tensor:
    """Memory of the same kind, with values that no pass produces."""
    return torch.full_like(output, torch.nan if output.is_floating_point() else -1)

"""What keeps a GPU from waiting: constants on the device, one copy back, CUDA graphs.

A pass over a vision tower launches some hundred small kernels, and what follows it some fifty
more, which take the CPU longer to launch than the GPU to run. A CUDA graph launches all of them at
once; :class:`Graphs` decides when one is recorded, when it is no longer valid, and what happens
where there can be none.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import operator
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from videogem_ros.core.configuration import CUDA_GRAPHS
from videogem_ros.errors import check_choice, said

MAX_GRAPHS = 8
"""Most graphs that are kept, one per shape and choice of frames: the most recently used ones."""

Pass = Callable[..., tuple[Tensor, ...]]
"""What is recorded: reads its arguments and weights, returns new tensors, never synchronises."""

_logger = logging.getLogger(__name__)


class _Streams(threading.local):
    """Each thread's own streams."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, torch.device], Any] = {}


_streams = _Streams()


def stream_for(purpose: str, device: torch.device) -> Any:
    """This thread's CUDA stream for a purpose, always the same.

    cuBLAS keeps 32 MiB for each stream that it was ever used on, so streams are reused.
    """
    known = _streams.known
    if (purpose, device) not in known:
        known[purpose, device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return known[purpose, device]


class Recording(Protocol):
    """A pass that can be replayed on the tensors that it was recorded with."""

    def replay(self) -> None:
        """Replays it on the current stream: reads the same inputs, writes the same outputs."""


class Recorder(Protocol):
    """Records passes on one kind of device.

    Attributes:
        device_type: "cuda".
    """

    device_type: str

    def record(
        self, passed: Pass, inputs: tuple[Tensor, ...], beside: Recording | None
    ) -> tuple[Recording, tuple[Tensor, ...]]:
        """Records a pass that has been run before, so that its one-time setup is done.

        Args:
            passed: The pass.
            inputs: Its arguments, whose memory each replay reads.
            beside: A recording that is never replayed at the same time and shares its scratch
                memory.

        Returns:
            The recording, and the outputs that each replay writes.

        Raises:
            RuntimeError: The pass cannot be recorded, or there is no memory for it.
        """


class CudaRecorder:
    """Records passes as CUDA graphs."""

    device_type = "cuda"

    def record(
        self, passed: Pass, inputs: tuple[Tensor, ...], beside: Recording | None
    ) -> tuple[Recording, tuple[Tensor, ...]]:
        """A CUDA graph of the pass; see :class:`Recorder`."""
        device = inputs[0].device
        graph = torch.cuda.CUDAGraph()
        pool = beside.pool() if isinstance(beside, torch.cuda.CUDAGraph) else None
        # A recording that fails leaves its own stream current; the outer one is put back.
        with (
            torch.cuda.device(device),
            torch.cuda.stream(torch.cuda.current_stream(device)),
            torch.cuda.graph(
                graph,
                pool=pool,
                stream=stream_for("recording", device),
                capture_error_mode="thread_local",  # other threads may use the GPU meanwhile
            ),
        ):
            outputs = passed(*inputs)
        return graph, outputs


@dataclass(eq=False)
class _Graph:
    """A recording, and what has to live as long.

    Attributes:
        recording: The recording of ``passed``.
        inputs: The tensors that it reads.
        outputs: The tensors that it writes.
        passed: The pass; references all other memory that the recording reads.
    """

    recording: Recording
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    passed: Pass


class Graphs:
    """Runs passes, and replays recorded ones where that is possible.

    The first pass of a key, shape, dtype and device just runs, which also warms everything up; the
    second is recorded, and later ones are replayed. Inputs are copied into the recording's tensors
    and outputs out of them, so callers own what they get. When weights change, in place or by
    replacement, all recordings are dropped. A pass that cannot be recorded just runs, now and
    later; the first failure is logged, each is counted.

    Passes on other devices, passes that need gradients, and all passes in the mode "never" just
    run. Threads that use the same CUDA stream, as all do by default, may share an instance.

    Args:
        weights: Nested dataclasses and tuples with all weights that the passes read.
        mode: "auto" or "never".
        recorder: Records the passes; as CUDA graphs where None.

    Attributes:
        mode: As given.
        recorded: Number of passes recorded so far.
        replayed: Number of replays so far.
        failed: Number of passes that could not be recorded.
        problem: Why the latest of those could not; empty while there is none.

    Raises:
        InvalidValueError: An unknown mode.
    """

    def __init__(
        self, weights: object, mode: str = "auto", recorder: Recorder | None = None
    ) -> None:
        check_choice("cuda_graphs", mode, CUDA_GRAPHS)
        self.mode = mode
        self.recorded = self.replayed = self.failed = 0
        self.problem = ""
        self._recorder = recorder or CudaRecorder()
        self._weights = tuple(_tensors(weights))
        self._counting = tuple(w for w in self._weights if not w.is_inference())
        self._state = self._look()
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()  # least recently used first
        self._seen: OrderedDict[Hashable, bool] = OrderedDict()  # and whether it can be recorded
        self._lock = threading.Lock()

    def used_on(self, device: torch.device) -> bool:
        """Whether passes on a device are recorded."""
        return self.mode == "auto" and device.type == self._recorder.device_type

    def run(self, key: Hashable, passed: Pass, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run a pass, or replay its recording.

        Args:
            key: Identifies everything that the pass depends on besides arguments and weights.
            passed: The pass.
            inputs: Its arguments, one or more on one device, which are not changed.

        Returns:
            The pass's outputs, the same with a recording as without.
        """
        if not self.used_on(inputs[0].device) or torch.is_grad_enabled():
            return passed(*inputs)
        with self._lock:
            kinds = tuple((x.shape, x.dtype, x.device) for x in inputs)
            graph = self._graph((key, kinds), passed, inputs)
            if graph is not None:
                for static, x in zip(graph.inputs, inputs):
                    static.copy_(x)
                graph.recording.replay()
                self.replayed += 1
                return tuple(output.clone() for output in graph.outputs)
        return passed(*inputs)

    def _look(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Addresses of the weights, and how often they were changed in place.

        Runs before every pass, while the GPU is idle, so it has to be fast.
        """
        return tuple(map(Tensor.data_ptr, self._weights)), tuple(map(_changes, self._counting))

    def _graph(self, key: Hashable, passed: Pass, inputs: tuple[Tensor, ...]) -> _Graph | None:
        """The recording of a pass, made the second time; None where the pass has to run."""
        state = self._look()
        if state != self._state:
            self._graphs.clear()
            self._seen.clear()
            self._state = state
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key]
        if key not in self._seen:
            self._seen[key] = True
            while len(self._seen) > 8 * MAX_GRAPHS:
                self._seen.popitem(last=False)
            return None
        return self._record(key, passed, inputs) if self._seen[key] else None

    def _record(self, key: Hashable, passed: Pass, inputs: tuple[Tensor, ...]) -> _Graph | None:
        beside = next(reversed(self._graphs.values())).recording if self._graphs else None
        with torch.inference_mode(False):  # so that they can be written to in any mode
            static = tuple(map(torch.empty_like, inputs))
        for to, x in zip(static, inputs):
            to.copy_(x)
        try:
            recording, outputs = self._recorder.record(passed, static, beside)
        except RuntimeError as error:  # the base of all CUDA errors
            self._seen[key] = False
            self.failed += 1
            self.problem = said(error)[:200]
            level = logging.WARNING if self.failed == 1 else logging.DEBUG
            _logger.log(level, "no CUDA graph, kernels are launched one by one: %s", self.problem)
            return None
        graph = self._graphs[key] = _Graph(recording, static, outputs, passed)
        self.recorded += 1
        while len(self._graphs) > MAX_GRAPHS:
            self._graphs.popitem(last=False)
        return graph


def _tensors(weights: object) -> Iterator[Tensor]:
    """Every tensor in a nest of dataclasses and tuples."""
    if isinstance(weights, Tensor):
        yield weights
    elif isinstance(weights, tuple):
        for item in weights:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(weights):
        for field in dataclasses.fields(weights):
            yield from _tensors(getattr(weights, field.name))


_changes = operator.attrgetter("_version")


def version(tensor: Tensor) -> int:
    """How often a tensor was changed in place; 0 for one made in inference mode."""
    return 0 if tensor.is_inference() else tensor._version


@functools.lru_cache(maxsize=256)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers on a device, cached, since a new upload would wait for all work before it.

    Args:
        values: N numbers.
        device: The device.

    Returns:
        (N,) float32, which must not be written to.
    """
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device)


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one device on the CPU, by one copy through page-locked memory.

    This is the only place where grounding waits for the GPU.

    Args:
        tensors: Of any shapes and dtypes; those on the CPU are returned as they are.

    Returns:
        The tensors on the CPU, in their order; those that were copied share one buffer.
    """
    devices = {tensor.device for tensor in tensors}
    if len(devices) != 1 or devices.pop().type != "cuda":
        return [tensor.cpu() for tensor in tensors]
    packed = pack(tensors)
    landed = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
    landed.copy_(packed, non_blocking=True)
    torch.cuda.current_stream(packed.device).synchronize()
    return unpack(landed.clone(), tensors)  # page-locked memory is scarce


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """The bytes of tensors in one buffer, widest dtypes first, so that all are aligned."""
    return torch.cat(
        [tensors[i].contiguous().flatten().view(torch.uint8) for i in _order(tensors)]
    )


def unpack(packed: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Tensors from the buffer of :func:`pack`.

    Args:
        packed: (bytes,) uint8.
        like: The tensors that were packed, for their shapes and dtypes.

    Returns:
        Views of ``packed``, in the order of ``like``.
    """
    order = _order(like)
    parts: dict[int, Any] = dict(zip(order, torch.split(packed, [like[i].nbytes for i in order])))
    return [parts[i].view(tensor.dtype).view(tensor.shape) for i, tensor in enumerate(like)]


def _order(tensors: Sequence[Tensor]) -> list[int]:
    return sorted(range(len(tensors)), key=lambda i: -tensors[i].element_size())

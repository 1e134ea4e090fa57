"""What keeps a GPU from waiting: constants on the device, one copy back, CUDA graphs.

A pass over a vision tower launches some hundred small kernels, and what follows it some fifty
more, which take the CPU longer to launch than the GPU to run. A CUDA graph launches all of them at
once; :class:`Graphs` decides when one is recorded, when it is no longer valid, and what happens
where there can be none.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import math
import operator
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from videogem_ros.core.configuration import CUDA_GRAPHS
from videogem_ros.errors import check_choice, said

MAX_GRAPHS = 8
"""Most graphs that are kept, one per shape and choice of frames: the most recently used ones."""

PAGE_LOCKED = 2**26
"""Most bytes of page-locked memory that results may keep."""

ALIGNMENT = 64
"""Where results begin in memory that they share: at multiples of this."""

Pass = Callable[..., tuple[Tensor, ...]]
"""What is recorded: reads its arguments and weights, returns new tensors, never synchronises."""

_logger = logging.getLogger(__name__)


class _Streams(threading.local):
    """Each thread's own streams."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, torch.device], Any] = {}


_streams = _Streams()


def stream_for(purpose: str, device: torch.device, urgent: bool = False) -> Any:
    """This thread's CUDA stream for a purpose, always the same.

    cuBLAS keeps 32 MiB for each stream that it was ever used on, so streams are reused.

    Args:
        purpose: A name.
        device: A CUDA device.
        urgent: Whether what is started on it comes before what waits on other streams.
    """
    known = _streams.known
    if (purpose, device) not in known:
        priority = -1 if urgent else 0
        known[purpose, device] = torch.cuda.Stream(device, priority)  # type: ignore[no-untyped-call]
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
        beside: Others on the same CUDA stream, whose recordings' scratch memory is used too.

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
        self,
        weights: object,
        mode: str = "auto",
        recorder: Recorder | None = None,
        beside: Graphs | None = None,
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
        self._seen: OrderedDict[Hashable, bool] = OrderedDict()  # passes without a recording, and
        # whether they can have one
        self._beside = beside
        # Until its outputs are copied, no other recording may use a recording's scratch memory.
        self._lock: threading.Lock = threading.Lock() if beside is None else beside._lock

    def used_on(self, device: torch.device) -> bool:
        """Whether passes on a device are recorded."""
        return self.mode == "auto" and device.type == self._recorder.device_type

    def run(
        self, key: Hashable, passed: Pass, *inputs: Tensor, wanted: int | None = None
    ) -> tuple[Tensor, ...]:
        """Run a pass, or replay its recording.

        Args:
            key: Identifies everything that the pass depends on besides arguments and weights.
            passed: The pass.
            inputs: Its arguments, one or more on one device, which are not changed.
            wanted: How many of its first outputs are wanted; all where None.

        Returns:
            The pass's outputs, the same with a recording as without.
        """
        replayed = self.replay(key, passed, *inputs, wanted=wanted)
        return passed(*inputs)[:wanted] if replayed is None else replayed

    def replay(
        self, key: Hashable, passed: Pass, *inputs: Tensor, wanted: int | None = None
    ) -> tuple[Tensor, ...] | None:
        """:meth:`run` a pass only if it has a recording or gets one now, the second time.

        Args:
            key: As for :meth:`run`.
            passed: Likewise.
            inputs: Likewise.
            wanted: Likewise.

        Returns:
            The pass's outputs; None where it would have to run.
        """
        if not self.used_on(inputs[0].device) or torch.is_grad_enabled():
            return None
        with self._lock:
            kinds = tuple((x.shape, x.dtype, x.device) for x in inputs)
            graph = self._graph((key, kinds), passed, inputs)
            if graph is None:
                return None
            for static, x in zip(graph.inputs, inputs):
                static.copy_(x)
            graph.recording.replay()
            self.replayed += 1
            return tuple(output.clone() for output in graph.outputs[:wanted])

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
        if key in self._seen:
            self._seen.move_to_end(key)
            return self._record(key, passed, inputs) if self._seen[key] else None
        # What comes again only after many others would be recorded and dropped time and again.
        self._seen[key] = True
        while len(self._seen) > 2 * MAX_GRAPHS:
            self._seen.popitem(last=False)
        return None

    def _latest(self) -> Recording | None:
        return next(reversed(self._graphs.values())).recording if self._graphs else None

    def _record(self, key: Hashable, passed: Pass, inputs: tuple[Tensor, ...]) -> _Graph | None:
        beside = self._latest()
        if beside is None and self._beside is not None:
            beside = self._beside._latest()
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
        del self._seen[key]
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
def constant(
    values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Numbers on a device, cached, since a new upload would wait for all work before it.

    Args:
        values: N numbers.
        device: The device.
        dtype: The dtype.

    Returns:
        (N,), which must not be written to.
    """
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


class PageLocked:
    """Results that stay in the page-locked memory to which the GPU copied them.

    Copying them once more would cost as much as getting them. As page-locked memory is scarce,
    results beyond a limit are copied.

    Args:
        limit: Most bytes that results may keep page-locked.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[tuple[weakref.ref[npt.NDArray[np.uint8]], int]] = []
        self._lock = threading.Lock()

    def keep(self, landed: Tensor) -> npt.NDArray[np.uint8]:
        """A result's bytes, for as long as anyone refers to them.

        Args:
            landed: (bytes,) uint8, which nothing else writes to.

        Returns:
            (bytes,), the same memory or a copy.
        """
        array: npt.NDArray[np.uint8] = landed.numpy()
        with self._lock:
            self._kept = [(kept, size) for kept, size in self._kept if kept() is not None]
            if sum(size for _, size in self._kept) + array.nbytes > self._limit:
                return np.array(array)
            self._kept.append((weakref.ref(array), array.nbytes))  # views refer to it as well
        return array


_page_locked = PageLocked(PAGE_LOCKED)


def to_host(buffers: Sequence[Tensor]) -> list[npt.NDArray[np.uint8]]:
    """Buffers on one GPU to the host.

    This is the only place where grounding waits for the GPU.

    Args:
        buffers: (bytes,) uint8 each, on one CUDA device.

    Returns:
        Their bytes, in their order; all share one piece of memory, which lives as long as any.
    """
    if not buffers:
        return []
    ends = list(itertools.accumulate(-(-len(each) // ALIGNMENT) * ALIGNMENT for each in buffers))
    landed = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=True)
    starts = [0, *ends[:-1]]
    for start, each in zip(starts, buffers):
        landed[start : start + len(each)].copy_(each, non_blocking=True)
    torch.cuda.current_stream(buffers[0].device).synchronize()
    kept = _page_locked.keep(landed)
    return [kept[start : start + len(each)] for start, each in zip(starts, buffers)]


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """The bytes of tensors in one buffer, widest dtypes first, so that all are aligned."""
    order = sorted(tensors, key=lambda tensor: -tensor.element_size())
    return torch.cat([tensor.contiguous().flatten().view(torch.uint8) for tensor in order])


def unpack(
    packed: npt.NDArray[np.uint8], like: Sequence[tuple[tuple[int, ...], npt.DTypeLike]]
) -> list[npt.NDArray[Any]]:
    """Arrays from the buffer of :func:`pack`.

    Args:
        packed: (bytes,).
        like: Shape and dtype of each tensor that was packed.

    Returns:
        Views of ``packed``, in the order of ``like``.
    """
    arrays: dict[int, npt.NDArray[Any]] = {}
    start = 0
    kinds = [np.dtype(dtype) for _, dtype in like]
    for i in sorted(range(len(like)), key=lambda i: -kinds[i].itemsize):
        end = start + math.prod(like[i][0]) * kinds[i].itemsize
        arrays[i] = packed[start:end].view(kinds[i]).reshape(like[i][0])
        start = end
    return [arrays[i] for i in range(len(like))]

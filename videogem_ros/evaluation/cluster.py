"""Evaluation on a Ray cluster, with workers that each open the data set and the backbone.

Samples are handed out in portions of whole batches, the same batches as in one process, so that
results do not depend on the workers. The portion of a worker that died is handed out again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import ModuleType
from typing import Any

from videogem_ros.errors import InvalidValueError, VideoGemError
from videogem_ros.evaluation.records import Sample
from videogem_ros.evaluation.runner import Batch, Bench, Work

LOCAL = "local"
"""Instead of a cluster's address: worker processes on this machine."""

ATTEMPTS = 3
"""Workers that may die on a portion before its samples are given up."""

PORTIONS_EACH = 8
"""Portions per worker, so that all workers finish at about the same time."""

LARGEST_PORTION = 64
"""Most samples of a portion; results are cached portion by portion."""

ONE_MACHINE = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
"""Makes Ray's servers listen on the loopback interface only, on all systems despite its name. Ray
reads this variable when it is imported."""

OBJECT_STORE_BYTES = 100_000_000
"""Shared memory of local workers: samples and records pass, no frames."""


class Worker:
    """What a Ray actor runs.

    Args:
        open_bench: Opens data set and backbone in the worker's process.
    """

    def __init__(self, open_bench: Callable[[], Bench]) -> None:
        self._open_bench = open_bench

    @cached_property
    def _bench(self) -> Bench:
        return self._open_bench()

    def run(self, samples: Sequence[Sample]) -> list[Batch]:
        """The batches of :meth:`~videogem_ros.evaluation.runner.Bench.run`.

        Raises:
            VideoGemError: Data set or backbone cannot be opened here.
        """
        try:
            return list(self._bench.run(samples))
        except VideoGemError as error:
            raise VideoGemError(str(error)) from None  # one that can be pickled


def ray_work(
    open_bench: Callable[[], Bench],
    address: str = LOCAL,
    *,
    workers: int | None = None,
    batch: int = 1,
    gpu: bool = False,
) -> Work:
    """Work for :func:`~videogem_ros.evaluation.runner.evaluate` that a Ray cluster does.

    Args:
        open_bench: Run in every worker; must be picklable.
        address: Of a cluster, as ``ray.init`` takes it, or ``LOCAL``.
        workers: How many; one for each CPU or GPU of the cluster where None.
        batch: Samples that one encoder pass takes, as the bench is configured.
        gpu: Whether each worker needs a GPU of its own.

    Raises:
        InvalidValueError: Ray is not installed, or fewer than one worker.
    """
    if workers is not None and workers < 1:
        raise InvalidValueError("workers", "one or more", workers)
    _import_ray(address)  # or be told so before any work

    def work(samples: Sequence[Sample]) -> Generator[Batch, None, None]:
        if not samples:
            return
        with connected(address, workers) as ray:
            resource = "GPU" if gpu else "CPU"
            available = int(ray.cluster_resources().get(resource, 0))
            if not available:
                raise VideoGemError(f"the Ray cluster at {address} has no {resource}")
            pool = _Pool(ray, open_bench, batch, gpu=gpu)
            yield from pool.run(samples, min(workers or available, available))

    return work


@contextmanager
def connected(address: str = LOCAL, workers: int | None = None) -> Iterator[ModuleType]:
    """A connection to a Ray cluster; one that this process has already is taken and stays open.

    Args:
        address: As for :func:`ray_work`.
        workers: CPUs of a local cluster; all of the machine's where None.

    Yields:
        The module ``ray``.

    Raises:
        InvalidValueError: Ray is not installed.
        VideoGemError: The cluster cannot be reached or started.
    """
    ray = _import_ray(address)
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"address": address}
    if address == LOCAL:
        options |= {
            "num_cpus": workers,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
    try:
        ray.init(**options, log_to_driver=False, logging_level="error")
    except Exception as error:  # Ray raises bare ones, too
        ray.shutdown()
        reason = str(error).strip().partition("\n")[0]
        raise VideoGemError(f"cannot use a Ray cluster at {address!r}: {reason}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _import_ray(address: str) -> ModuleType:
    if address == LOCAL:
        os.environ.setdefault(*ONE_MACHINE)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InvalidValueError(
            "--ray", "Ray, which `pip install videogem_ros[ray]` brings", str(error)
        ) from error
    return ray


class _Pool:
    """Workers of one evaluation.

    Args:
        ray: The module, connected.
        open_bench: For each worker.
        batch: Samples that stay together.
        gpu: Whether each worker needs a GPU.
    """

    def __init__(
        self, ray: ModuleType, open_bench: Callable[[], Bench], batch: int, *, gpu: bool
    ) -> None:
        self._ray = ray
        self._actor = ray.remote(Worker).options(num_cpus=1, num_gpus=int(gpu))
        self._open_bench = open_bench
        self._batch = batch

    def run(self, samples: Sequence[Sample], count: int) -> Generator[Batch, None, None]:
        """Gives each of ``count`` workers a portion at a time until all are done."""
        even = min(len(samples) // (count * PORTIONS_EACH), LARGEST_PORTION)
        size = self._batch * max(1, even // self._batch)
        waiting = deque((portion, 0) for portion in _cut(samples, size))
        idle = [self._start() for _ in range(min(count, len(waiting)))]
        running: dict[Any, tuple[Any, Sequence[Sample], int]] = {}
        exceptions = self._ray.exceptions
        while waiting or running:
            while waiting and idle:
                worker, (portion, deaths) = idle.pop(), waiting.popleft()
                running[worker.run.remote(portion)] = worker, portion, deaths
            (done,), _ = self._ray.wait(list(running), num_returns=1)
            worker, portion, deaths = running.pop(done)
            try:
                batches = self._ray.get(done)
            except exceptions.RayTaskError as error:  # raised by the work itself
                raise error.cause from None
            except (exceptions.RayActorError, exceptions.OutOfMemoryError) as error:
                if getattr(error, "actor_init_failed", False):
                    reason = str(error).strip().rpartition("\n")[2]
                    raise VideoGemError(f"a Ray worker cannot start: {reason}") from error
                idle.append(self._start())
                # Whatever kills workers shall cost no other batch its result.
                if deaths + 1 < ATTEMPTS:
                    waiting.extend((part, deaths + 1) for part in _cut(portion, self._batch))
                else:
                    yield _lost(portion)
            else:
                idle.append(worker)
                yield from batches

    def _start(self) -> Any:
        return self._actor.remote(self._open_bench)


def _cut(samples: Sequence[Sample], size: int) -> list[Sequence[Sample]]:
    return [samples[first : first + size] for first in range(0, len(samples), size)]


def _lost(samples: Sequence[Sample]) -> Batch:
    reason = f"{ATTEMPTS} workers died on its batch"
    return Batch({sample.key: f"{sample.key}: {reason}" for sample in samples}, 0.0)

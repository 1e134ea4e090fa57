"""How fast a machine grounds: latency, memory, and agreement with float32, setting by setting.

The time measured is that of a new camera frame in a running session: ``push`` and ``ground``, from
pixels on the host to points and heatmaps on the host, with the actions' texts already encoded.
Frames are drawn tabletop scenes. Weights may be random: time and memory do not depend on them.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from videogem_ros.core import Grounder, GroundingConfig, load_backbone
from videogem_ros.core.fusion import NAMES
from videogem_ros.core.hardware import multiplies, processor_fields
from videogem_ros.datatypes import Frame, Point, Window
from videogem_ros.errors import VideoGemError
from videogem_ros.session import Session, SessionConfig
from videogem_ros.tabletop import make_clip

LEAST_RUNS, MOST_RUNS = 3, 2000
"""Fewest and most frames that are timed for a setting."""

CLIPS, CLIP_FRAMES = 3, 8
"""Number of drawn scenes that the camera repeats, and frames of each."""

FRAME_INTERVAL_S = 0.25
CHECKED_WINDOWS = 10
"""Windows whose points are kept, to compare dtypes and scopes by."""

_VERBS = ("push", "lift", "open", "wipe", "pour", "cut", "shake", "press")
_THINGS = ("mug", "bottle", "box", "sponge", "jug", "bread", "jar", "button")
ACTIONS = tuple(f"{verb} the {thing}" for thing in _THINGS for verb in _VERBS)
"""Actions to ground; a setting takes the first ones."""

CHECKED_ACTIONS = 8
SMALL_PATCHES = 4
"""Rows and columns of patches of the small input that code and libraries are warmed up with."""


@dataclass(frozen=True)
class Machine:
    """The machine that is measured.

    Attributes:
        processor: Name of the processor.
        cores: Logical cores that this process may use.
        threads: Threads that torch uses.
        bfloat16: Whether the device multiplies bfloat16 natively, as far as is known.
        gpu: Name of the GPU; None where there is none.
        gpu_mib: Memory of the GPU; None where there is none.
        torch: Version of torch.
    """

    processor: str
    cores: int
    threads: int
    bfloat16: bool
    gpu: str | None
    gpu_mib: int | None
    torch: str


def this_machine(device: str) -> Machine:
    """The machine, with the GPU where the device is one."""
    cpu = processor_fields()
    gpu = torch.cuda.get_device_properties(torch.device(device)) if _is_cuda(device) else None
    affinity = getattr(os, "sched_getaffinity", None)
    return Machine(
        processor=cpu.get("model name") or platform.processor() or platform.machine(),
        cores=len(affinity(0)) if affinity else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        bfloat16=bool(multiplies(torch.device(device), torch.bfloat16)),
        gpu=gpu.name if gpu else None,
        gpu_mib=gpu.total_memory // 2**20 if gpu else None,
        torch=torch.__version__,
    )


def _is_cuda(device: str) -> bool:
    return torch.device(device).type == "cuda"


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        backbone: As for :func:`~videogem_ros.core.load_backbone`.
        weights: Likewise.
        device: Likewise.
        dtype: Likewise.
        self_self_scope: As :class:`~videogem_ros.core.GroundingConfig` takes it.
        ground: Whose heatmaps are wanted, ``newest`` or ``all``.
        actions: Number of actions, 1 to ``len(ACTIONS)``.
        window: Frames of a window; the backbone's own number where None.
        image_hw: Height and width of the network's input; the backbone's own where None.
        camera_hw: Height and width of the camera's images in pixels.
    """

    backbone: str
    weights: str | None = "random:0"
    device: str = "cpu"
    dtype: str = "float32"
    self_self_scope: str = "window"
    ground: Literal["newest", "all"] = "newest"
    actions: int = 1
    window: int | None = None
    image_hw: tuple[int, int] | None = None
    camera_hw: tuple[int, int] = (480, 640)


@dataclass(frozen=True)
class Measurement:
    """The measurement of a setting.

    Attributes:
        setting: What was measured.
        latencies_s: Seconds per new frame, in order.
        load_s: Seconds that loading the backbone took.
        input_hw: Height and width of the network's input.
        untrained: Whether the weights are random, so that points mean nothing.
        peak_mib: Peak memory of the process while grounding, including model and libraries.
        window_mib: The part of it that grounding added to the loaded model; None where unknown (it
            is read from Linux's /proc).
        gpu_peak_mib: Peak GPU memory allocated, including the model; None without a GPU.
        patch_px: Width and height of a patch in pixels of the camera.
        points: (windows, actions, 4, 2) pixels of the camera: x and y of each prompt's and the
            fused point in the newest frame of the first windows.
    """

    setting: Setting
    latencies_s: Sequence[float]
    load_s: float
    input_hw: tuple[int, int]
    untrained: bool
    peak_mib: float
    window_mib: float | None
    gpu_peak_mib: float | None
    patch_px: tuple[float, float]
    points: npt.NDArray[np.float64]

    def percentile(self, percent: float) -> float:
        """Percentile of the latencies, seconds."""
        return float(np.percentile(self.latencies_s, percent))

    @property
    def rate(self) -> float:
        """Frames per second at which nine of ten frames are grounded before the next one."""
        return 1 / self.percentile(90)

    def to_json(self) -> dict[str, Any]:
        """Everything, of plain numbers, strings, lists and dicts."""
        return {**asdict(self), "points": self.points.tolist()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Measurement:
        """The inverse of :meth:`to_json`."""
        setting = fields["setting"]
        for name in ("image_hw", "camera_hw"):
            setting[name] = setting[name] and tuple(setting[name])
        return cls(
            **{
                **fields,
                "setting": Setting(**setting),
                "input_hw": tuple(fields["input_hw"]),
                "patch_px": tuple(fields["patch_px"]),
                "points": np.array(fields["points"]),
            }
        )


def agreement(reference: Measurement, other: Measurement) -> tuple[float, int]:
    """The share of points that lie within a patch of the reference's, in x and in y.

    Args:
        reference: Measured in float32, with the scope "window".
        other: Measured with the same backbone in another dtype or scope.

    Returns:
        The share in [0, 1], and the number of points: those of the windows that both have seen.
    """
    windows = min(len(reference.points), len(other.points))
    apart = np.abs(reference.points[:windows] - other.points[:windows])
    near = (apart <= np.array(reference.patch_px) + 1e-6).all(axis=-1)
    return float(near.mean()), near.size


def choose(measured: Sequence[Measurement], rate: float) -> tuple[Measurement, bool]:
    """The setting for a wanted rate.

    Args:
        measured: One measurement or more, the preferred ones first.
        rate: Frames per second.

    Returns:
        The first measurement that sustains the rate, and True; where none does, the fastest one,
        and False.
    """
    for measurement in measured:
        if measurement.rate >= rate:
            return measurement, True
    return max(measured, key=lambda measurement: measurement.rate), False


def camera(hw: tuple[int, int]) -> Iterator[Frame]:
    """Endless frames of a few drawn scenes, ``FRAME_INTERVAL_S`` apart."""
    images = [
        image
        for number in range(CLIPS)
        for image in make_clip(np.random.default_rng([0, number]), CLIP_FRAMES, hw).images
    ]
    for number, image in enumerate(itertools.cycle(images)):
        yield Frame(image, round(number * FRAME_INTERVAL_S * 1e9))


def measure(setting: Setting, seconds: float) -> Measurement:
    """Measure a setting in this process.

    Args:
        setting: What to measure.
        seconds: How long to measure, in ``LEAST_RUNS`` to ``MOST_RUNS`` frames.

    Raises:
        VideoGemError: The backbone cannot be loaded, or the setting does not suit it.
    """
    start = time.perf_counter()
    backbone = load_backbone(setting.backbone, setting.weights, setting.device, setting.dtype)
    load_s = time.perf_counter() - start
    grounding = GroundingConfig(image_hw=setting.image_hw, self_self_scope=setting.self_self_scope)
    grounder = Grounder(backbone, grounding)
    config = SessionConfig(
        frames=setting.window,
        ground=setting.ground,
        frame_interval_s=FRAME_INTERVAL_S,
        max_actions=len(ACTIONS),
    )
    session = Session(grounder, config)
    session.set_actions(ACTIONS[: setting.actions])
    checked = session.parse(ACTIONS[:CHECKED_ACTIONS])
    frames = camera(setting.camera_hw)

    patch_hw = backbone.tower.patch_hw
    small = replace(grounding, image_hw=(SMALL_PATCHES * patch_hw[0], SMALL_PATCHES * patch_hw[1]))
    few = Window(tuple(itertools.islice(frames, backbone.window_frames)))
    Grounder(backbone, small).ground(few, session.actions, setting.ground)
    memory = PeakMemory(setting.device)

    # The window is filled, then moves on by a frame.
    for frame in itertools.islice(frames, session.config.frames):
        session.push(frame)
    session.ground()
    session.push(next(frames))
    session.ground()
    peak_mib, window_mib, gpu_peak_mib = memory.peaks()

    latencies: list[float] = []
    points: list[list[list[tuple[float, float]]]] = []
    began = time.perf_counter()
    while len(latencies) < LEAST_RUNS or (
        time.perf_counter() - began < seconds and len(latencies) < MOST_RUNS
    ):
        frame = next(frames)
        start = time.perf_counter()
        session.push(frame)
        session.ground()
        latencies.append(time.perf_counter() - start)
        job = session.take_for(checked)
        if job is not None and len(points) < CHECKED_WINDOWS:
            newest = (g for g in session.run(job) if g.stamp_ns == frame.stamp_ns)
            points.append([[_xy(found.points[name]) for name in NAMES] for found in newest])
    return Measurement(
        setting=setting,
        latencies_s=tuple(latencies),
        load_s=load_s,
        input_hw=grounder.input_hw,
        untrained=backbone.untrained,
        peak_mib=peak_mib,
        window_mib=window_mib,
        gpu_peak_mib=gpu_peak_mib,
        patch_px=(
            setting.camera_hw[1] * patch_hw[1] / grounder.input_hw[1],
            setting.camera_hw[0] * patch_hw[0] / grounder.input_hw[0],
        ),
        points=np.array(points),
    )


def _xy(point: Point) -> tuple[float, float]:
    return point.x, point.y


class PeakMemory:
    """Measures peak memory from now on.

    Args:
        device: Where the model is.
    """

    def __init__(self, device: str) -> None:
        self._cuda = torch.device(device) if _is_cuda(device) else None
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self._cuda)
        gc.collect()
        self._before: float | None = None
        with suppress(OSError, AttributeError, KeyError):  # any system but Linux
            # Memory that loading the model has freed does not count.
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
            self._before = _status_mib("VmRSS")

    def peaks(self) -> tuple[float, float | None, float | None]:
        """Peak of the process, its increase since the start, and peak of the GPU, MiB."""
        gpu = torch.cuda.max_memory_allocated(self._cuda) / 2**20 if self._cuda else None
        if self._before is None:
            unit = 1 if sys.platform == "darwin" else 1024
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
            return most / 2**20, None, gpu
        peak = _status_mib("VmHWM")
        return peak, peak - self._before, gpu


def _status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields[field].split()[0]) / 1024


def measure_apart(
    setting: Setting, seconds: float, stopped: Callable[[], bool] = lambda: False
) -> Measurement | None:
    """Measure a setting in a separate process, so that memory is the setting's alone.

    Args:
        setting: What to measure.
        seconds: As for :func:`measure`.
        stopped: Polled; ends the process once it returns True.

    Returns:
        The measurement; None where it was stopped.

    Raises:
        VideoGemError: As for :func:`measure`, or the process ended before its time.
    """
    task = json.dumps({"setting": asdict(setting), "seconds": seconds})
    command = [sys.executable, "-m", __name__, task]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while True:
            try:
                out, complaints = process.communicate(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                if stopped():
                    process.kill()
    if stopped():
        return None
    if process.returncode:
        lines = complaints.strip().splitlines() or [""]
        cause = lines[-1].removeprefix("error: ")
        if process.returncode < 0:
            cause = f"ended by signal {-process.returncode}, perhaps for lack of memory"
        raise VideoGemError(cause)
    return Measurement.from_json(json.loads(out.splitlines()[-1]))


def _main() -> None:
    task = json.loads(sys.argv[1])
    try:
        print(json.dumps(measure(Setting(**task["setting"]), task["seconds"]).to_json()))
    except VideoGemError as error:
        sys.exit(f"error: {error}")
    except torch.OutOfMemoryError:
        sys.exit("error: the GPU's memory is too small")


if __name__ == "__main__":
    _main()

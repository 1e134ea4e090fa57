"""All figures in docs/performance.md that need a GPU, in one run on one NVIDIA GPU.

    python benchmarks/gpu.py [--json FILE] [--repeats 50] [--device cuda]

First checks that results agree: float32 with the plain transcription in benchmarks/speed.py, CUDA
graphs with none, batched windows with single ones, and bfloat16 points with float32 points. If
they do not, nothing is timed and the exit code is 1. Then measures

GPU time        between two CUDA events around one window, from prepared frames to heatmaps and
                points on the GPU; median, fastest and slowest of the repeats, one directly after
                the other, or with pauses as between a camera's frames
host to host    wall time from uint8 frames on the host to groundings on the host, for a window
                that advances by one frame, as with a camera
memory          peak allocation above the loaded model

Weights are random with a fixed seed, except in the comparison of bfloat16 points, which uses the
shipped backbone on drawn scenes. Without a GPU the exit code is 2.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import speed
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from videogem_ros.core import Grounder, GroundingConfig, load_backbone
from videogem_ros.core.attention import kernels
from videogem_ros.core.backbones import Backbone
from videogem_ros.core.encoder import join_features
from videogem_ros.core.fused import own_attention
from videogem_ros.core.grounder import FrameChoice
from videogem_ros.datatypes import PROMPT_KINDS, Action, Frame, Grounding, Window
from videogem_ros.files import whole_file
from videogem_ros.language import parse_actions
from videogem_ros.tabletop.clip import benchmark_clip, benchmark_numbers

TOLERANCE = 1e-4
"""For float32 heatmaps, which are normalised to [0, 1]: kernels of different shapes sum in
different orders."""

PAUSE_S = 0.033
"""Pause between windows in the figures for a camera of 30 frames per second."""

AHEAD_CYCLES = 1_000_000
"""About half a millisecond of work before each window after a pause, so that the host has launched
the window when its time begins, as it has without pauses."""

NEAR_PATCHES, NEAR_SHARE = 1.0, 0.9
"""This share of bfloat16's prompt points must lie within this distance of float32's."""

POUR, CUT = (*parse_actions("pour the milk"), *parse_actions("cut the tomato"))


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        base: Backbone for most figures.
        large: Backbone for the figure of a large model.
        trained: Backbone whose bfloat16 points are compared, with its own weights.
        cameras: Number of cameras grounded in one batch.
        image_hw: Height and width of camera images.
        clips: Number of drawn scenes for the comparison of points.
        repeats: Runs to take the median of; a quarter of them for the slow work.
    """

    base: str = "viclip:B-16"
    large: str = "viclip:L-14"
    trained: str = "openclip:tabletop"
    cameras: int = 16
    image_hw: tuple[int, int] = (480, 640)
    clips: int = 40
    repeats: int = 50


@dataclass(frozen=True)
class Goal:
    """A target of the table.

    Attributes:
        work: What is measured.
        target: The target in words.
        unit: Unit of the figure.
        limit: Limit for the median.
        least: Whether the limit is a minimum instead of a maximum.
    """

    work: str
    target: str
    unit: str
    limit: float
    least: bool = False

    def row(self, values: Sequence[float]) -> dict[str, Any]:
        """A row: the goal, median and spread of the values, and whether it was reached.

        Args:
            values: One or more; NaN if the device cannot measure it.
        """
        line = asdict(self) | dict.fromkeys(("median", "low", "high", "reached")) | {"shown": ""}
        middle, low, high = median(values), min(values), max(values)
        if not math.isfinite(middle):
            return line
        reached = middle >= self.limit if self.least else middle <= self.limit
        spread = "" if low == high else f" ({low:.3g} to {high:.3g})"
        shown = f"{middle:.3g} {self.unit}".strip() + spread + ("" if reached else ", missed")
        return line | {
            "median": middle,
            "low": low,
            "high": high,
            "reached": reached,
            "shown": shown,
        }


def goals(plan: Plan) -> dict[str, Goal]:
    """The rows of the table, by a short name."""
    base, large = title(plan.base), title(plan.large)
    return {
        "base": Goal(f"{base} window, bfloat16, GPU time", "at most 1.5 ms", "ms", 1.5),
        "ratio": Goal(
            "the same, to the baseline in float32", "15 times faster", "times", 15, least=True
        ),
        "large": Goal(f"{large} window, bfloat16, GPU time", "at most 5 ms", "ms", 5),
        "cameras": Goal(
            f"{plan.cameras} cameras batched, {base}, bfloat16",
            "at least 700 windows/s",
            "windows/s",
            700,
            least=True,
        ),
        "host": Goal(
            "uint8 frames on the host to the fused point on the host, beyond the GPU time",
            "at most 1 ms",
            "ms",
            1,
        ),
        "further": Goal("one further action on the same window", "at most 3 %", "%", 3),
        "memory": Goal("peak memory of a window, of the baseline's", "at most 0.25", "", 0.25),
    }


def title(backbone: str) -> str:
    """A backbone's usual name, such as ViCLIP-B/16."""
    return backbone.replace("viclip:", "ViCLIP-").replace("-16", "/16").replace("-14", "/14")


# Clocks.


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def wall_ms(device: torch.device, work: Callable[[int], object], repeats: int) -> list[float]:
    """Milliseconds of each run by the host's clock; the device is idle before each."""
    times = []
    for number in range(repeats):
        wait(device)
        begin = time.perf_counter()
        work(number)
        wait(device)
        times.append(1e3 * (time.perf_counter() - begin))
    return times


def device_ms(
    device: torch.device, work: Callable[[int], object], repeats: int, pause_s: float = 0
) -> list[float]:
    """Milliseconds of each run by the device's clock, or the host's if it has none.

    Args:
        device: The device.
        work: Called with the number of the run.
        repeats: Number of runs.
        pause_s: How long the device is idle before each; 0 for one directly after the other.
            Ignored where the device has no clock.
    """
    for number in range(8):  # warm-up: prepares, records graphs, and sees every input
        work(number)
    if device.type != "cuda":
        return wall_ms(device, work, repeats)
    marks = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(repeats)]
    wait(device)
    for number, (begin, end) in enumerate(marks):
        if pause_s:
            wait(device)
            time.sleep(pause_s)
            torch.cuda._sleep(AHEAD_CYCLES)
        begin.record()
        work(number)
        end.record()
    wait(device)
    return [begin.elapsed_time(end) for begin, end in marks]


def peak_mib(device: torch.device, work: Callable[[], object]) -> float:
    """Peak memory allocated during the work, above that before it, in MiB."""
    if device.type != "cuda":
        return math.nan
    gc.collect()
    torch.cuda.empty_cache()
    wait(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    wait(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


# Camera input.


class Camera:
    """A window over frames of noise, which advances by one frame at a time."""

    def __init__(self, number: int, hw: tuple[int, int], frames: int) -> None:
        self._random = np.random.default_rng([number, frames])
        self._hw, self._stamp_ns = hw, 0
        self._frames = [self._frame() for _ in range(frames)]

    def _frame(self) -> Frame:
        self._stamp_ns += 33_000_000
        image = self._random.integers(0, 256, (*self._hw, 3), dtype=np.uint8)
        return Frame(image, self._stamp_ns)

    def window(self) -> Window:
        """The current window."""
        return Window(tuple(self._frames))

    def next(self) -> Window:
        """The window advanced by one frame."""
        self._frames = [*self._frames[1:], self._frame()]
        return self.window()

    def other(self) -> Window:
        """A window of new frames only."""
        self._frames = [self._frame() for _ in self._frames]
        return self.window()


# Equality of results.


class DifferentError(Exception):
    """Results that should be equal are not."""


def require(what: str, found: float, limit: float, *, least: bool = False) -> float:
    """The value, if it is within its limit.

    Raises:
        DifferentError: It is not.
    """
    if not (found >= limit if least else found <= limit):
        raise DifferentError(f"{what}: {found:.3g}, {'less' if least else 'more'} than {limit:g}")
    return found


@contextmanager
def exact() -> Iterator[None]:
    """Makes the baseline's convolution compute in float32, too."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def transcription(backbone: Backbone, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """The baseline and ours on the same input, (T, 3, H, W) heatmaps each."""
    tower, (height, width) = backbone.tower, backbone.input_hw
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(backbone.window_frames, 3, height, width, generator=generator).to(device)
    text = F.normalize(torch.randn(3, tower.projection.shape[1], generator=generator), dim=-1)
    text = text.to(device)
    positions = tower.position_embedding
    return {
        "baseline": lambda: speed.baseline(tower, pixels, positions, text),
        "ours": lambda: speed.ours(tower, pixels, text, None),
    }


def deviation(found: Sequence[Grounding], expected: Sequence[Grounding]) -> float:
    """Largest difference between heatmaps."""
    return max(
        float(np.abs(one.heatmaps[name].values - other.heatmaps[name].values).max())
        for one, other in zip(found, expected)
        for name in one.heatmaps
    )


def graph_deviation(backbone: Backbone, camera: Camera) -> float:
    """Deviation of groundings with CUDA graphs from those without.

    With one of everything, and with one of the encoder and one of the comparison.

    Raises:
        DifferentError: A graph was not replayed on a GPU.
    """
    plain, recording = Grounder(backbone, cuda_graphs="never"), Grounder(backbone)
    actions = [POUR, CUT]
    window = camera.window()
    recording.warm_up(window, actions)
    recording.locate(recording.encode(window), window, actions)
    recorded = {"the encoder": recording.graphs, "the comparison": recording.comparisons}
    before = {name: graphs.replayed for name, graphs in recorded.items()}
    window = camera.other()
    whole = recording.ground(window, actions)
    parts = recording.locate(recording.encode(window), window, actions)
    wanted = {"the encoder": 2, "the comparison": 1}
    for name, graphs in recorded.items():
        if graphs.used_on(recording.device) and graphs.replayed < before[name] + wanted[name]:
            raise DifferentError(f"no CUDA graph of {name} was replayed: {graphs.problem}")
    return max(deviation(found, plain.ground(window, actions)) for found in (whole, parts))


def batch_deviation(backbone: Backbone, cameras: Sequence[Camera]) -> float:
    """Deviation of several cameras' batched groundings from each camera's alone."""
    grounder = Grounder(backbone, cuda_graphs="never")
    windows = [camera.window() for camera in cameras]
    together = grounder.ground_each(windows, [[POUR]] * len(windows))
    return max(
        deviation(found, grounder.ground(window, [POUR]))
        for found, window in zip(together, windows)
    )


def near_share(name: str, device: torch.device, clips: int) -> float:
    """Share of prompt points in drawn scenes where bfloat16 is within a patch of float32."""
    exact_, half = (
        Grounder(load_backbone(name, None, device, dtype)) for dtype in ("float32", "bfloat16")
    )
    patch = exact_.backbone.tower.patch_hw[0] / exact_.input_hw[0]
    near: list[bool] = []
    for number in benchmark_numbers(clips):
        clip = benchmark_clip(number, sampled=2)
        frame = Frame(clip.images[-1], 0)
        texts = [performed.texts[0] for performed in clip.performed] or ["pour the milk"]
        actions: list[Action] = [action for text in texts for action in parse_actions(text)]
        pairs = zip(*(each.ground(Window((frame,)), actions) for each in (exact_, half)))
        for true, found in pairs:
            height, width = true.image_hw
            for kind in PROMPT_KINDS:
                one, other = true.points[kind], found.points[kind]
                away = max(abs(one.x - other.x) / width, abs(one.y - other.y) / height) / patch
                near.append(away <= NEAR_PATCHES)
    return sum(near) / len(near)


# Measuring.


def prove(plan: Plan, device: torch.device, full: Backbone) -> dict[str, float]:
    """Checks everything that must be equal before anything is timed.

    Raises:
        DifferentError: Something differs.
    """
    frames = full.window_frames
    cameras = [Camera(number, plan.image_hw, frames) for number in range(3)]
    ways = transcription(full, device)
    with exact():
        away = float((ways["ours"]() - ways["baseline"]()).abs().max())
    return {
        "heatmaps, float32 to transcription": require(
            "float32 and the transcription", away, TOLERANCE
        ),
        "heatmaps, CUDA graph to none": require(
            "CUDA graphs and none", graph_deviation(full, cameras[0]), TOLERANCE
        ),
        "heatmaps, windows together to alone": require(
            "windows together and alone", batch_deviation(full, cameras), TOLERANCE
        ),
        "points, bfloat16 within a patch of float32": require(
            "bfloat16 points near float32's",
            near_share(plan.trained, device, plan.clips),
            NEAR_SHARE,
            least=True,
        ),
    }


def window_ms(
    grounder: Grounder,
    hw: tuple[int, int],
    repeats: int,
    frames: FrameChoice = "all",
    pause_s: float = 0,
) -> list[float]:
    """Device time of each window, from prepared frames to heatmaps and points."""
    cameras = [Camera(number, hw, grounder.backbone.window_frames) for number in range(4)]
    windows = [camera.window() for camera in cameras]
    chosen = grounder._chosen(windows[0], frames)

    def work(number: int) -> None:
        grounder._encode_and_compare(windows[number % len(windows)], [POUR], chosen)

    return device_ms(grounder.device, work, repeats, pause_s)


def host_ms(grounder: Grounder, hw: tuple[int, int], repeats: int) -> dict[str, list[float]]:
    """Wall time from frames to points, for advanced windows and for entirely new ones."""
    camera = Camera(0, hw, grounder.backbone.window_frames)
    moved = [camera.next() for _ in range(repeats + 3)]
    new = [camera.other() for _ in range(repeats)]
    for window in moved[:3]:
        grounder.ground(window, [POUR, CUT])
    device = grounder.device
    times = {
        "moved": wall_ms(device, lambda n: grounder.ground(moved[n + 3], [POUR]), repeats),
        "new": wall_ms(device, lambda n: grounder.ground(new[n], [POUR]), repeats),
    }
    window, actions = camera.window(), [[POUR], [POUR, CUT]]
    for _ in range(3):
        grounder.ground(window, actions[1])
    both = wall_ms(device, lambda n: grounder.ground(window, actions[n % 2]), 2 * repeats)
    return times | {"one action": both[::2], "two actions": both[1::2]}


def batched(grounder: Grounder, plan: Plan) -> dict[str, list[float]]:
    """Windows per second of several cameras: host to host, and by device time alone."""
    frames = grounder.backbone.window_frames
    cameras = [Camera(number, plan.image_hw, frames) for number in range(plan.cameras)]
    actions = [[POUR]] * len(cameras)
    steps = max(2, plan.repeats // 4)
    windows = [[camera.next() for camera in cameras] for _ in range(steps + 3)]
    for step in windows[:3]:
        grounder.ground_each(step, actions)
    wall = wall_ms(grounder.device, lambda n: grounder.ground_each(windows[n + 3], actions), steps)

    def work(number: int) -> None:
        features = grounder.encode_windows(windows[number % len(windows)])
        together = join_features(features, [0] * len(cameras))
        grounder._compare(together, plan.image_hw, [POUR])

    device = device_ms(grounder.device, work, steps)
    return {
        "host to host": [1e3 * len(cameras) / ms for ms in wall],
        "device": [1e3 * len(cameras) / ms for ms in device],
    }


def attention_ms(backbone: Backbone, device: torch.device, repeats: int) -> dict[str, float]:
    """One self-self step of a window, for each fused attention kernel that supports it.

    On a GPU it is replayed from a CUDA graph, as in a real window.
    """
    tower, found = backbone.tower, {}
    tokens = 1 + backbone.window_frames * (tower.position_embedding.shape[0] - 1)
    shape = (3, tower.heads, tokens, tower.head_dim)
    p = torch.randn(shape, device=device, dtype=tower.dtype)
    p *= 2 / p.norm(dim=-1, keepdim=True)  # logits of typical size

    def fused() -> Tensor:
        return F.scaled_dot_product_attention(p, p, p, scale=1.0)

    def replayed_ms(work: Callable[[], Tensor]) -> float:
        if device.type != "cuda":
            return median(device_ms(device, lambda _: work(), repeats))
        from triton.testing import do_bench_cudagraph

        return float(do_bench_cudagraph(work, return_mode="median"))

    if (own := own_attention(p)) is not None:
        square = torch.full((len(p),), 4.0, device=device)
        found["own, first step"] = replayed_ms(lambda: own.attention(p, p, p, square=square))
        found["own, second step"] = replayed_ms(lambda: own.attention(p, p, p[:1]))
    chosen = {*kernels(p.dtype, tower.head_dim), SDPBackend.CUDNN_ATTENTION} - {SDPBackend.MATH}
    for kernel in sorted(chosen, key=str):
        try:
            with sdpa_kernel(kernel):
                found[kernel.name.lower()] = replayed_ms(fused)
        except RuntimeError:  # not in this GPU or this build of torch
            continue
    return found


def product_tflops(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Rate of a large matrix product, an upper limit for everything else."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2e-9 * side**3 / median(device_ms(device, lambda _: a @ b, 20))


def machine(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"device": str(device), "torch": torch.__version__}
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32_products": torch.backends.cuda.matmul.allow_tf32,
    }


@torch.inference_mode()
def measure(plan: Plan, device: torch.device) -> dict[str, Any]:
    """Checks parity, then measures every figure.

    Raises:
        DifferentError: Results that should be equal are not.
    """
    full, half = (
        load_backbone(plan.base, "random:0", device, dtype) for dtype in ("float32", "bfloat16")
    )
    parity = prove(plan, device, full)
    repeats, hw = plan.repeats, plan.image_hw
    slow = max(2, repeats // 4)
    more: dict[str, Any] = {}

    plain = transcription(full, device)["baseline"]
    with exact():
        baseline = device_ms(device, lambda _: plain(), slow)
        baseline_mib = peak_mib(device, plain)
    config = GroundingConfig()
    grounder = Grounder(half, config)
    windows = window_ms(grounder, hw, repeats)
    newest = window_ms(grounder, hw, repeats, "newest")
    paused = {title(plan.base): window_ms(grounder, hw, repeats, pause_s=PAUSE_S)}
    apart = Grounder(half, replace(config, self_self_scope="frame"))
    by_frame, newest_by_frame = (
        window_ms(apart, hw, repeats, frames) for frames in ("all", "newest")
    )
    host = host_ms(grounder, hw, repeats)
    rates = batched(grounder, plan)
    for name, graphs in (
        ("CUDA graphs", grounder.graphs),
        ("CUDA graphs, after the encoder", grounder.comparisons),
    ):
        counts = ("recorded", "replayed", "failed", "problem")
        more[name] = {count: getattr(graphs, count) for count in counts}

    def one_window(backbone: Backbone) -> Callable[[], object]:
        camera = Camera(0, hw, backbone.window_frames)
        # All that a node holds: recorded graphs, prepared frames, results.
        fresh = Grounder(backbone, config)

        def work() -> None:
            for _ in range(3):
                fresh.ground(camera.next(), [POUR], "all")

        return work

    half_mib, full_mib = (peak_mib(device, one_window(each)) for each in (half, full))
    full_ms = window_ms(Grounder(full, config), hw, slow)
    more |= {
        "GPU time, newest frame's heatmap [ms]": median(newest),
        "the same, times faster than the baseline": median(baseline) / median(newest),
        "GPU time, each frame by itself [ms]": median(by_frame),
        "GPU time, newest frame's heatmap, by itself [ms]": median(newest_by_frame),
        "GPU time, bfloat16 without CUDA graphs [ms]": median(
            window_ms(Grounder(half, config, cuda_graphs="never"), hw, slow)
        ),
        "GPU time, float32 [ms]": median(full_ms),
        "baseline, float32 [ms]": median(baseline),
        "host to host, moved window [ms]": median(host["moved"]),
        "host to host, new window [ms]": median(host["new"]),
        "cameras, by GPU time alone [windows/s]": median(rates["device"]),
        "peak memory [MiB]": {
            "baseline, float32": baseline_mib,
            "ours, float32": full_mib,
            "ours, bfloat16": half_mib,
        },
        "attention, one self-self step [ms]": attention_ms(half, device, repeats),
        "matrix product, bfloat16 [TFLOP/s]": product_tflops(
            device, torch.bfloat16, 8192 if device.type == "cuda" else 256
        ),
    }
    del full
    large = load_backbone(plan.large, "random:0", device, "bfloat16")
    grounder = Grounder(large, config)
    larges = window_ms(grounder, hw, repeats)
    paused[title(plan.large)] = window_ms(grounder, hw, repeats, pause_s=PAUSE_S)
    more["GPU time, with pauses [ms]"] = {name: median(times) for name, times in paused.items()}

    gpu, alone = median(newest), median(host["one action"])
    further = 100 * (median(host["two actions"]) - alone) / alone
    measured = {
        "base": windows,
        "ratio": [median(baseline) / ms for ms in windows],
        "large": larges,
        "cameras": rates["host to host"],
        "host": [ms - gpu for ms in host["moved"]],
        "further": [further],
        "memory": [half_mib / baseline_mib],
    }
    return {
        "machine": machine(device),
        "plan": asdict(plan),
        "parity": parity,
        "rows": [goal.row(measured[name]) for name, goal in goals(plan).items()],
        "more": more,
    }


def table(result: dict[str, Any]) -> Iterator[str]:
    """The result as Markdown."""
    yield ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    yield ""
    yield "| equal results | |"
    yield "|---|---|"
    for name, value in result["parity"].items():
        yield f"| {name} | {value:.2g} |"
    yield ""
    yield "| work | target | measured |"
    yield "|---|---|---|"
    for line in result["rows"]:
        yield f"| {line['work']} | {line['target']} | {line['shown']} |"
    yield ""
    for name, value in result["more"].items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in parts)
        yield f"{name}: {', '.join(part.strip() for part in shown)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=speed.at_least_one, default=Plan.repeats)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    arguments = parser.parse_args()
    if not arguments.device.startswith("cuda") or not torch.cuda.is_available():
        print("gpu.py: no CUDA device; this benchmark measures an NVIDIA GPU", file=sys.stderr)
        return 2
    try:
        result = measure(Plan(repeats=arguments.repeats), torch.device(arguments.device))
    except DifferentError as error:
        print(f"gpu.py: results differ, nothing was timed: {error}", file=sys.stderr)
        return 1
    print("\n".join(table(result)))
    if arguments.json:
        with whole_file(arguments.json) as partial:
            partial.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

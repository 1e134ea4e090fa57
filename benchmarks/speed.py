"""Time and memory of one window: our encoder against a plain transcription of the method.

    python benchmarks/speed.py [--cases viclip-all viclip-newest clip] [--repeats 5] [--json]
    python benchmarks/speed.py --stages
    python benchmarks/speed.py --agreement 100

The baseline below follows VideoGEM's formulas literally: the plain path and the self-self path are
computed separately, q, k and v of the latter as one batch, every attention matrix is built, and
every token is kept to the end. First, both must give the same heatmaps (1e-5). Then both are timed
alternately in one process (medians, with the fastest and slowest run). Finally, each runs once in
its own process to measure its peak memory above that of the loaded model. Two variants with
different heatmaps are timed as well: the tower in bfloat16, if the processor multiplies it
natively, and for a video backbone self-self attention within each frame (self_self_scope "frame").

--stages counts the encoder's operations and bytes by stage, times them, and compares the rates
with those of a large matrix product and a large copy in the same run. --agreement measures how far
points move and how much heatmaps change in these variants, for the shipped backbones on the given
number of tabletop benchmark clips.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from tabletop import SHIPPED
from torch import Tensor
from torch.overrides import TorchFunctionMode

from videogem_ros.core import Encoder, Grounder, GroundingConfig, load_backbone
from videogem_ros.core.backbones import Backbone
from videogem_ros.core.backbones.preprocessing import place
from videogem_ros.core.configuration import SCOPES
from videogem_ros.core.fusion import locate_points
from videogem_ros.core.hardware import multiplies
from videogem_ros.core.heatmaps import patch_similarity
from videogem_ros.core.tower import Block, VisionTower
from videogem_ros.core.weighting import layer_weights
from videogem_ros.datatypes import Grounding
from videogem_ros.evaluation.live_bytes import LiveBytes, tensors_in
from videogem_ros.evaluation.speed import PeakMemory
from videogem_ros.evaluation.tabletop import TabletopBenchmark

CONFIG = GroundingConfig()
TOLERANCE = 1e-5
HALF = torch.bfloat16
SMALL_HW = (64, 64)
"""Network input for the warm-up before memory is measured."""


@dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
        title: Title in the output.
        backbone: Name for load_backbone; weights are random with a fixed seed.
        input_hw: Network input in pixels.
        frames: Indices of frames to compute heatmaps for; None: all. The baseline always computes
            all.
    """

    title: str
    backbone: str
    input_hw: tuple[int, int]
    frames: tuple[int, ...] | None


CASES = {
    "viclip-all": Case("ViCLIP-B/16, 8 frames, all heatmaps", "viclip:B-16", (224, 224), None),
    "viclip-newest": Case("ViCLIP-B/16, 8 frames, newest only", "viclip:B-16", (224, 224), (7,)),
    "clip": Case("ViT-B-16 at 448, one frame", "openclip:ViT-B-16", (448, 448), None),
}


# The baseline: a plain transcription.


def plain_attention(q: Tensor, k: Tensor, v: Tensor, scale: Tensor | float) -> Tensor:
    return torch.softmax(scale * (q @ k.transpose(-2, -1)), dim=-1) @ v


def plain_self_self(p: Tensor, v: Tensor, t: Tensor) -> Tensor:
    p = p / p.norm(dim=-1, keepdim=True)
    p = plain_attention(p, p, p, t)
    p = p / p.norm(dim=-1, keepdim=True)
    return plain_attention(p, p, v, t)


def plain_qkv(block: Block, heads: int, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """LN1(x) and q, k, v, each (B, heads, N, d)."""
    y = block.ln_1(x)
    batch, tokens, width = y.shape
    parts = block.qkv(y).chunk(3, dim=-1)
    return y, [p.view(batch, tokens, heads, width // heads).transpose(1, 2) for p in parts]


def plain_join(block: Block, out: Tensor) -> Tensor:
    return block.out(out.transpose(1, 2).flatten(2))


def plain_block(block: Block, heads: int, x: Tensor) -> Tensor:
    """The plain path: the transformer's block, unchanged."""
    _, (q, k, v) = plain_qkv(block, heads, x)
    x = x + plain_join(block, plain_attention(q, k, v, q.shape[-1] ** -0.5))
    return x + block.contract(block.activation(block.expand(block.ln_2(x))))


def plain_branch(block: Block, heads: int, x: Tensor) -> Tensor:
    """The self-self path's output s_l."""
    y, (q, k, v) = plain_qkv(block, heads, x)
    t = y.norm(dim=-1).mean(dim=-1).view(-1, 1, 1, 1) / q.shape[-1] ** 0.5
    return plain_join(block, plain_self_self(torch.stack([q, k, v]), v, t).mean(dim=0))


def plain_tokens(tower: VisionTower, pixels: Tensor, positions: Tensor) -> Tensor:
    """(T, 3, H, W) to (B, 1 + N, D); a video tower's tokens in (row, column, time) order."""
    x = F.conv2d(pixels, tower.patch_embedding, stride=tower.patch_hw).flatten(2).transpose(1, 2)
    x = x + positions[1:]
    if tower.temporal_embedding is not None:
        x = (x + tower.temporal_embedding[:, None]).transpose(0, 1).flatten(0, 1)[None]
    token = (tower.class_embedding + positions[0]).expand(x.shape[0], 1, -1)
    return tower.ln_pre(torch.cat([token, x], dim=1))


def baseline(tower: VisionTower, pixels: Tensor, positions: Tensor, text: Tensor) -> Tensor:
    """Heatmaps (T, K, H, W), static + dynamic weights."""
    x = plain_tokens(tower, pixels, positions)
    first = len(tower.blocks) - CONFIG.depth
    for block in tower.blocks[:first]:
        x = plain_block(block, tower.heads, x)
    terms, class_terms = [x], [x[:, 0]]
    for block in tower.blocks[first:]:
        terms.append(plain_branch(block, tower.heads, x))
        before, x = x[:, 0], plain_block(block, tower.heads, x)
        class_terms.append(x[:, 0] - before)

    maps = []
    for b in range(x.shape[0]):
        total = sum(term[b] for term in class_terms)
        last = CONFIG.dynamic_depth
        without = torch.stack([tower.embed(total - term[b]) for term in class_terms[-last:]])
        for prompt in text:
            weights = torch.tensor(CONFIG.static_weights, device=text.device)
            weights[-last:] += torch.softmax(-20 * without @ prompt, dim=0) - 1 / last
            mixed = sum(weight * term[b, 1:] for weight, term in zip(weights, terms))
            maps.append(tower.embed(mixed) @ prompt)
    side = positions[1:].shape[0] ** 0.5
    frames = pixels.shape[0] // x.shape[0]
    grid = torch.stack(maps).view(x.shape[0], len(text), int(side), int(side), frames)
    grid = grid.permute(0, 4, 1, 2, 3).flatten(0, 1)
    maps = F.interpolate(grid, size=pixels.shape[-2:], mode="bilinear", align_corners=False)
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    return (maps - low) / (high - low)


# Ours.


def ours(
    tower: VisionTower,
    pixels: Tensor,
    text: Tensor,
    frames: tuple[int, ...] | None,
    scope: str = CONFIG.self_self_scope,
) -> Tensor:
    """Heatmaps (F, K, H, W) of the package, static + dynamic weights."""
    features = Encoder(tower, CONFIG.depth, scope)(pixels, frames)
    weights = layer_weights(features.class_terms, text, tower, CONFIG)
    similarity = patch_similarity(features, weights, text, tower)
    placement = place(pixels.shape[-2:], pixels.shape[-2:], "stretch")
    return locate_points(similarity, features.grid_hw, placement, CONFIG).heatmaps[:, 0, :3]


def prepare(
    case: Case, input_hw: tuple[int, int] | None = None
) -> dict[str, Callable[[], Tensor]]:
    """All ways of computing a case's heatmaps, on the same seeded input.

    Args:
        case: What is timed.
        input_hw: Network input in pixels; the case's if None.
    """
    input_hw = input_hw or case.input_hw
    backbone: Backbone = load_backbone(case.backbone, "random:0")
    tower = backbone.tower
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(backbone.window_frames, 3, *input_hw, generator=generator)
    text = F.normalize(torch.randn(3, tower.projection.shape[1], generator=generator), dim=-1)
    encoder = Encoder(tower, CONFIG.depth)
    grid = tuple(side // patch for side, patch in zip(input_hw, tower.patch_hw))
    positions = encoder.positions(grid)
    video = tower.temporal_embedding is not None
    ways = {
        "baseline": lambda: baseline(tower, pixels, positions, text),
        "ours": lambda: ours(tower, pixels, text, case.frames),
    }
    if video:
        ways["by frame"] = lambda: ours(tower, pixels, text, case.frames, "frame")
    if HALF in timed_dtypes():
        narrow: Backbone = load_backbone(case.backbone, "random:0", dtype="bfloat16")
        ways["bfloat16"] = lambda: ours(narrow.tower, pixels, text, case.frames)
        if video:
            ways["by frame, bfloat16"] = lambda: ours(
                narrow.tower, pixels, text, case.frames, "frame"
            )
    return ways


def timed_dtypes() -> tuple[torch.dtype, ...]:
    """float32, and bfloat16 if this processor multiplies it: emulation takes minutes."""
    return (torch.float32, *((HALF,) if multiplies(torch.device("cpu"), HALF) else ()))


def check(case: Case, ways: dict[str, Callable[[], Tensor]]) -> float:
    """Largest deviation of the heatmaps; exits if it exceeds the tolerance."""
    expected, found = ways["baseline"](), ways["ours"]()
    chosen = expected if case.frames is None else expected[list(case.frames)]
    deviation = float((chosen - found).abs().max())
    if not deviation <= TOLERANCE:
        sys.exit(f"{case.title}: heatmaps differ by {deviation:.2e}, more than {TOLERANCE:g}")
    return deviation


def timed(ways: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every run, alternating between the ways."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_mib(case: Case, way: str) -> float:
    """Peak resident memory of one window above the loaded model and its libraries, MiB (Linux)."""
    small, full = prepare(case, SMALL_HW)[way], prepare(case)[way]
    small()  # maps the libraries' code and starts their threads
    memory = PeakMemory("cpu")
    full()
    _, added, _ = memory.peaks()
    if added is None:
        sys.exit("peak memory: not available on this system (it is read from Linux's /proc)")
    return added


def peak_in_own_process(case: str, way: str) -> float:
    command = [sys.executable, __file__, "--memory", case, way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(name: str, repeats: int) -> dict[str, object]:
    """Checks parity of one case, then measures time and memory."""
    case = CASES[name]
    ways = prepare(case)
    deviation = check(case, ways)  # also the warm-up
    seconds = timed(ways, repeats)
    with LiveBytes() as live:
        ways["ours"]()
    peaks = {way: peak_in_own_process(name, way) for way in ways}
    return {
        "case": case.title,
        "deviation": deviation,
        "seconds": {way: [min(s), median(s), max(s)] for way, s in seconds.items()},
        "speedup": {way: median(seconds["baseline"]) / median(s) for way, s in seconds.items()},
        "peak_mib": peaks,
        "tensors_mib": live.peak / 2**20,
        "memory_ratio": peaks["ours"] / peaks["baseline"],
    }


def report(result: dict) -> str:
    lines = [f"{result['case']}: equal to {result['deviation']:.1e}"]
    for way, (low, middle, high) in result["seconds"].items():
        lines.append(
            f"  {way:<19}{middle:6.2f} s ({low:.2f} to {high:.2f})"
            f"{result['peak_mib'][way]:6.0f} MiB peak, {result['speedup'][way]:5.2f} times faster"
        )
    lines.append(
        f"  ours needs {result['memory_ratio']:.2f} of the memory; "
        f"its tensors alone {result['tensors_mib']:.0f} MiB at once"
    )
    if "bfloat16" in result["speedup"]:
        further = result["speedup"]["bfloat16"] / result["speedup"]["ours"]
        lines.append(f"  bfloat16 is {further:.2f} times faster than ours")
    else:
        lines.append("  bfloat16 is left out: this processor does not multiply it natively")
    return "\n".join(lines)


# Where the time goes.


REST = "everything else"


class Stages(TorchFunctionMode):
    """Context that counts operations of products and attention, and bytes and time of all calls.

    Attributes:
        operations: By stage; a multiply and an add are two.
        moved: Minimum bytes by stage: each operand read and each result written once.
        seconds: By stage; the rest is left to the caller, as it includes the time between calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: dict[str, int] = defaultdict(int)
        self.moved: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        start = time.perf_counter()
        out = func(*args, **kwargs)
        seconds = time.perf_counter() - start
        stage, operations = REST, 0
        if func in (F.linear, torch.addmm):  # the second operand's last axis is summed in both
            stage, operations = "projections and MLPs", 2 * out.numel() * args[1].shape[-1]
        elif func is F.scaled_dot_product_attention:
            # The two paths differ by the scale: self-self attention folds it into p.
            stage = "self-self attention" if "scale" in kwargs else "plain attention"
            operations = 4 * out.numel() * args[1].shape[-2]
        if stage != REST:
            self.operations[stage] += operations
            self.seconds[stage] += seconds
        self.moved[stage] += moved_bytes(func, args, kwargs, out)
        return out


def moved_bytes(
    func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], out: Any
) -> int:
    """Bytes of a call's operands and results; 0 for allocations, views and non-tensors."""
    name = getattr(func, "__name__", "")
    read, written = tensors_in((args, kwargs)), tensors_in(out)
    if name.startswith(("new_", "empty")) or not written:
        return 0
    places = {x.untyped_storage().data_ptr() for x in read}
    in_place = (name.endswith("_") and not name.startswith("__")) or kwargs.get("inplace", False)
    if "out" in kwargs:
        read = [x for x in read if x is not kwargs["out"]]
    elif not in_place and any(x.untyped_storage().data_ptr() in places for x in written):
        return 0
    return sum(min(x.nbytes, x.untyped_storage().nbytes()) for x in (*read, *written))


def product_rate(dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product, the best of ten: the attainable rate."""
    side = 2048
    one = torch.randn(side, side).to(dtype)
    runs = timed({"product": lambda: one @ one}, 10)["product"]
    return 2 * side**3 / min(runs)


def copy_rate() -> float:
    """Bytes per second read and written by a copy much larger than caches, the best of ten."""
    one = torch.zeros(2**27)
    other = torch.zeros_like(one)
    return 2 * one.nbytes / min(timed({"copy": lambda: other.copy_(one)}, 10)["copy"])


def stage_lines(name: str, repeats: int) -> Iterator[str]:
    """A Markdown table of operations, bytes, time and share of the limit, medians of runs.

    A stage's limit is the longer of the times that its operations and its bytes would take at the
    rates of a large product and a large copy.
    """
    case = CASES[name]
    ways = prepare(case)
    bandwidth = copy_rate()
    for dtype in timed_dtypes():
        way = "bfloat16" if dtype is HALF else "ours"
        ways[way]()
        runs = []
        for _ in range(repeats):
            start = time.perf_counter()
            with Stages() as stages:
                ways[way]()
            total = time.perf_counter() - start
            stages.seconds[REST] = total - sum(stages.seconds.values())
            runs.append(stages)
        rate = product_rate(dtype)
        yield (
            f"{case.title}, {dtype}, large matrix product {rate / 1e9:.0f} GFLOP/s, "
            f"large copy {bandwidth / 1e9:.1f} GB/s"
        )
        yield "| stage | GFLOP | MB | s | GFLOP/s | GB/s | share of the limit |"
        yield "|---|---:|---:|---:|---:|---:|---:|"
        together = [0.0] * 4
        for stage, moved in stages.moved.items():
            operations = stages.operations[stage]
            seconds = median(run.seconds[stage] for run in runs)
            limit = max(operations / rate, moved / bandwidth)
            yield stage_line(stage, operations, moved, seconds, limit)
            together = [*map(sum, zip(together, (operations, moved, seconds, limit), strict=True))]
        yield stage_line("together", *together)


def stage_line(stage: str, operations: float, moved: float, seconds: float, limit: float) -> str:
    return (
        f"| {stage} | {operations / 1e9:.0f} | {moved / 1e6:.0f} | {seconds:.2f} | "
        f"{operations / seconds / 1e9:.0f} | {moved / seconds / 1e9:.1f} | "
        f"{100 * limit / seconds:.0f} % |"
    )


# How other variants change points.


def agreement(backbone: str, clips: int) -> Iterator[str]:
    """How variants change a shipped backbone's points and heatmaps on the benchmark."""
    dataset = TabletopBenchmark(clips)
    grounders = {
        f"{dtype}, scope {scope}": Grounder(
            load_backbone(backbone, dtype=dtype), replace(CONFIG, self_self_scope=scope)
        )
        for dtype in ("float32", "bfloat16")
        for scope in (SCOPES if backbone.startswith("viclip:") else SCOPES[:1])
    }
    (reference, exact), *others = grounders.items()
    tower = exact.backbone.tower
    patches = tuple(side // patch for side, patch in zip(exact.input_hw, tower.patch_hw))
    moved: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name, _ in others}
    off: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name, _ in others}
    for sample in dataset.samples:
        window, newest = dataset.window(sample, exact.backbone.window_frames)
        expected = exact.ground(window, sample.actions, (newest,))
        for name, other in others:
            found = other.ground(window, sample.actions, (newest,))
            for one, two in zip(expected, found, strict=True):
                for kind in one.points:
                    moved[name][kind].append(patches_apart(one, two, kind, patches))
                    off[name][kind].append(heatmap_error(one, two, kind))
    for name, kinds in moved.items():
        actions = len(dataset.samples)
        yield f"{backbone}, {clips} clips, {actions} actions: {name} to {reference}"
        for kind, distances in kinds.items():
            within = sum(distance <= 1 for distance in distances) / len(distances)
            same = sum(distance == 0 for distance in distances) / len(distances)
            yield (
                f"  {kind:<8}{100 * within:6.2f} % within one patch, {100 * same:.1f} % the same, "
                f"furthest {max(distances):.1f} patches, "
                f"heatmaps {100 * median(off[name][kind]):.2f} % off"
            )


def patches_apart(one: Grounding, other: Grounding, kind: str, patches: Sequence[int]) -> float:
    """Distance of two points in patches, the larger of vertical and horizontal."""
    (rows, columns), (height, width) = patches, one.image_hw
    a, b = one.points[kind], other.points[kind]
    return max(abs(a.y - b.y) * rows / height, abs(a.x - b.x) * columns / width)


def heatmap_error(one: Grounding, other: Grounding, kind: str) -> float:
    """Root mean square difference of two heatmaps, over the first's standard deviation."""
    expected, found = (x.heatmaps[kind].values.astype(np.float64) for x in (one, other))
    return float(np.sqrt(((found - expected) ** 2).mean()) / expected.std())


def at_least_one(text: str) -> int:
    """A count of 1 or more, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--repeats", type=at_least_one, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument(
        "--stages", action="store_true", help="show operations, bytes and time by stage"
    )
    parser.add_argument(
        "--agreement", type=int, metavar="CLIPS", help="show how far points move in the variants"
    )
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with torch.inference_mode():
        if arguments.memory:
            case, way = arguments.memory
            print(peak_mib(CASES[case], way))
            return
        if arguments.stages or arguments.agreement:
            for name in arguments.cases if arguments.stages else ():
                print("", *stage_lines(name, arguments.repeats), sep="\n", flush=True)
            for name in SHIPPED if arguments.agreement else ():
                print("", *agreement(name, arguments.agreement), sep="\n", flush=True)
            return
        results = []
        for name in arguments.cases:
            results.append(measure(name, arguments.repeats))
            if not arguments.json:
                print(report(results[-1]), flush=True)
    if arguments.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

"""Compare videogem_ros with golden outputs of the official code.

    python benchmarks/parity.py ../shared/golden/*.safetensors

Prints the largest absolute deviation of every array in every file. The exit code is 1 if one
exceeds 1e-5 or is NaN, and 2 if a file is not in the golden format.

Points must be equal: those computed from the golden heatmaps exactly, and those computed end to
end wherever the golden heatmap has a single maximum. Bilinear upsampling makes the half patch
along the right and lower border a plateau, where the last bit of w0 v + w1 v decides which maximum
the official code finds first. There, a point counts as equal if the golden heatmap has its maximum
(within the tolerance) at our point.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from videogem_ros.core.backbones import openclip, viclip
from videogem_ros.core.backbones.checkpoint import fill
from videogem_ros.core.backbones.preprocessing import place
from videogem_ros.core.comparison import PROMPT_LOGIT_SCALE
from videogem_ros.core.configuration import GroundingConfig
from videogem_ros.core.encoder import Encoder
from videogem_ros.core.fusion import fuse_points, locate_points
from videogem_ros.core.heatmaps import patch_similarity, peaks, upsample
from videogem_ros.core.tower import VisionTower
from videogem_ros.core.weighting import layer_weights
from videogem_ros.errors import VideoGemError

TOLERANCE = 1e-5
INFINITE = float("inf")


class FormatError(Exception):
    """A file is not in the golden format."""


def read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """The case and the arrays of a golden file."""
    try:
        with safe_open(path, framework="pt") as file:
            case = json.loads((file.metadata() or {})["case"])
            return case, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise FormatError(f"{path}: not a golden file ({error})") from error


def tower_of(case: dict, weights: dict[str, Tensor]) -> VisionTower:
    """The golden file's vision tower, in the module that users load."""
    if case["backbone"] == "viclip":
        config = viclip.ViClipConfig(num_frames=case["num_frames"], **case["cfg"])
        prefix = "vision_encoder."
        vision = viclip.ViClipVision(config)
    else:
        prefix = "visual."
        vision = openclip.build(case["cfg"]).visual
    state = {name.removeprefix(prefix): value for name, value in weights.items()}
    fill(vision, state, case["backbone"])
    return vision.tower() if case["backbone"] == "viclip" else openclip.tower_of(vision)


def compute(case: dict, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Everything that a golden file expects, computed by the package."""
    weights = {
        name.removeprefix("weights/"): value
        for name, value in arrays.items()
        if name.startswith("weights/")
    }
    tower = tower_of(case, weights)
    pixels, text = arrays["input/frames"], arrays["input/text_embeddings"]
    depth = case["gem_depth"]
    config = GroundingConfig(
        depth=depth,
        dynamic_depth=min(depth, GroundingConfig().dynamic_depth),
        static_weights=static_weights(depth, arrays),
    )
    input_hw = pixels.shape[-2:]
    pixels = pixels[0] if pixels.ndim == 5 else pixels

    features = Encoder(tower, depth)(pixels)
    found: dict[str, Tensor] = {}
    similarity: dict[str, Tensor] = {}
    for name in ("uniform", "static", "dynamic", "static+dynamic"):
        chosen = replace(config, weighting=name)
        used = layer_weights(features.class_terms, text, tower, chosen)
        similarity[name] = patch_similarity(features, used, text, tower)  # (F, K, N)
        label = {"static+dynamic": "total"}.get(name, name)
        found[f"weights.{label}"] = used[0].expand(len(text), -1)
    for name in ("static", "dynamic"):
        # Golden patch logits are in token order: time is the fastest axis.
        found[f"{name}.patch_logits"] = similarity[name].permute(1, 2, 0).flatten(1)
    for label, name in (("gem", "uniform"), ("videogem", "static+dynamic")):
        logits = upsample(similarity[name], features.grid_hw, input_hw).transpose(0, 1)
        found[f"{label}.logits"] = logits.squeeze(1)
    located = locate_points(
        similarity["static+dynamic"],
        features.grid_hw,
        place(input_hw, input_hw, "stretch"),
        config,
    )
    found["videogem.heatmaps"] = located.heatmaps[:, 0, :3].transpose(0, 1).squeeze(1)
    found["points"] = located.points[:, 0].flatten(1)
    token = tower.embed(features.class_terms[0].sum(dim=0))
    found["prompt_probs"] = torch.softmax(PROMPT_LOGIT_SCALE * token @ text.T, dim=-1)
    return found


def static_weights(depth: int, arrays: dict[str, Tensor]) -> tuple[float, ...]:
    """The paper's static weights, or the file's for a depth that the paper does not cover."""
    paper = GroundingConfig().static_weights
    if depth + 1 == len(paper):
        return paper
    return tuple(arrays["expected/weights.static"][0].tolist())


def compare(path: Path) -> float:
    """Print a file's deviations.

    Returns:
        The largest deviation; infinite if a shape or a point differs.
    """
    case, arrays = read(path)
    try:
        with torch.inference_mode():
            found = compute(case, arrays)
    except (KeyError, TypeError, VideoGemError) as error:
        raise FormatError(f"{path}: not a golden file ({error})") from error
    print(f"{path.name}")
    worst = 0.0
    expected = {
        name.removeprefix("expected/"): value
        for name, value in sorted(arrays.items())
        if name.startswith("expected/")
    }
    for name, value in expected.items():
        remark = ""
        if name == "points":
            deviation, remark = point_difference(found[name], value, expected["videogem.heatmaps"])
        else:
            deviation = difference(found.get(name), value)
        worst = max(worst, deviation)
        print(f"  {name:<24}{tuple(value.shape)!s:<18}{deviation:.2e}{remark}")
    return worst


def difference(found: Tensor | None, expected: Tensor) -> float:
    """Largest absolute deviation; infinite if the shapes differ or a value is NaN."""
    if found is None or found.shape != expected.shape:
        return INFINITE
    deviation = float((found.double() - expected.double()).abs().max())
    return INFINITE if math.isnan(deviation) else deviation


def point_difference(found: Tensor, expected: Tensor, heatmaps: Tensor) -> tuple[float, str]:
    """How far the golden heatmaps are below their maximum at our points.

    Args:
        found: (F, 8) int64, our points: verb, object, action, fused.
        expected: (F, 8) int64, the golden ones.
        heatmaps: (K, H, W) or (K, F, H, W), the golden heatmaps.

    Returns:
        The largest shortfall over frames and prompts, infinite if our maximum search or fusion
        gives other points on the golden heatmaps; and a remark on plateaus.
    """
    if found.shape != expected.shape:
        return INFINITE, ""
    heatmaps = heatmaps.unsqueeze(1) if heatmaps.ndim == 3 else heatmaps
    heatmaps = heatmaps.transpose(0, 1)  # (F, K, H, W)
    golden = peaks(heatmaps)
    fused = fuse_points(golden, GroundingConfig().fusion_weights)
    if not torch.equal(torch.cat([golden.flatten(1), fused], dim=1), expected):
        return INFINITE, "  from the golden heatmaps themselves"
    ours = found[:, :6].view(-1, 3, 2)
    flat = ours[..., 1] * heatmaps.shape[-1] + ours[..., 0]
    there = heatmaps.flatten(-2).gather(-1, flat[..., None])[..., 0]
    elsewhere = int((ours != golden).any(dim=-1).sum())
    remark = f"  {elsewhere} of {golden[..., 0].numel()} elsewhere on the golden plateau"
    return float((heatmaps.amax(dim=(-2, -1)) - there).max()), remark if elsewhere else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="golden .safetensors files")
    try:
        deviations = {path: compare(path) for path in parser.parse_args().files}
    except FormatError as error:
        print(error, file=sys.stderr)
        return 2
    worst = max(deviations.values())
    count, verdict = len(deviations), "equal" if worst <= TOLERANCE else "DIFFERENT"
    print(f"{count} files, largest deviation {worst:.2e}: {verdict} (tolerance {TOLERANCE:g})")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())

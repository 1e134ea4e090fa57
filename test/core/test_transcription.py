"""The core against a float64 transcription of the method, far from the golden files' sizes."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transcription import Sizes, Terms, Transcription, min_max, upsampled

from videogem_ros.core import Encoder, GroundingConfig
from videogem_ros.core.backbones import openclip, viclip
from videogem_ros.core.backbones.preprocessing import place
from videogem_ros.core.configuration import FUSIONS, WEIGHTINGS
from videogem_ros.core.fusion import locate_points
from videogem_ros.core.heatmaps import patch_similarity
from videogem_ros.core.tower import VisionTower
from videogem_ros.core.weighting import layer_weights
from videogem_ros.datatypes import Features

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Case:
    """A tower, an input and a configuration that no golden file has."""

    name: str
    layers: int = 8
    width: int = 32
    heads: int = 2
    embed_dim: int = 24
    patch: int | tuple[int, int] = 8
    trained_hw: tuple[int, int] = (32, 32)
    input_hw: tuple[int, int] = (32, 32)
    quick_gelu: bool = False
    depth: int = 7
    dynamic_depth: int = 3
    dynamic_scale: float = 20.0
    static: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.9, 0.9)
    frames: int = 2
    video: bool = False
    scope: str = "window"
    options: dict = field(default_factory=dict)


CASES = [
    Case("as many blocks as K", layers=7),
    Case("6 blocks, K 3, D 2", layers=6, depth=3, dynamic_depth=2, static=(0.5, -1.0, 0.7, 1.1)),
    Case("9 blocks, K 1, D 1", layers=9, depth=1, dynamic_depth=1, static=(1.0, 0.25)),
    Case(
        "10 blocks, all of them, D 10",
        layers=10,
        depth=10,
        dynamic_depth=10,
        dynamic_scale=5.0,
        static=tuple(0.2 + 0.1 * term for term in range(11)),
    ),
    Case("12 blocks, wide, QuickGELU", layers=12, width=96, heads=4, quick_gelu=True),
    Case("one head", heads=1),
    Case("heads of 4", heads=8),
    Case("patch 4", patch=4, trained_hw=(16, 16), input_hw=(16, 16)),
    Case("patch 14", patch=14, trained_hw=(42, 42), input_hw=(42, 42)),
    Case("oblong patches", patch=(8, 4), trained_hw=(32, 16), input_hw=(32, 16)),
    Case("oblong grid, as trained", trained_hw=(24, 56), input_hw=(24, 56)),
    Case("resampled to a larger, oblong grid", input_hw=(48, 72), quick_gelu=True),
    Case("resampled to a smaller grid", trained_hw=(64, 64), input_hw=(24, 40)),
    Case("layer scale", options={"ls_init_value": 0.3}),
    Case("no norm before the blocks", options={"no_ln_pre": True}),
    Case("MLP of another width", options={"mlp_ratio": 2.5}),
    Case("video", video=True, frames=8, quick_gelu=True),
    Case("video, plain GELU, 3 frames", video=True, frames=3, layers=7),
    Case(
        "video, resampled, K 2",
        video=True,
        frames=4,
        input_hw=(24, 56),
        layers=6,
        depth=2,
        dynamic_depth=2,
        static=(0.1, 1.0, 2.0),
        quick_gelu=True,
    ),
    Case("video, each frame by itself", video=True, frames=3, layers=8, scope="frame"),
    Case("images, each by itself as ever", layers=7, scope="frame"),
    Case("video, all blocks", video=True, frames=2, layers=7, patch=16, trained_hw=(64, 64)),
]


def draw(module: nn.Module) -> None:
    """Weights of which none is zero or one: every bias, scale and norm takes part."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))


def build(case: Case) -> tuple[VisionTower, Transcription]:
    patch = case.patch if isinstance(case.patch, tuple) else (case.patch, case.patch)
    grid_hw = (case.trained_hw[0] // patch[0], case.trained_hw[1] // patch[1])
    sizes = Sizes(case.heads, grid_hw, case.quick_gelu)
    with openclip.seeded(1):
        if case.video:
            config = viclip.ViClipConfig(
                embed_dim=case.embed_dim,
                image_size=case.trained_hw[0],
                patch_size=patch[0],
                width=case.width,
                layers=case.layers,
                heads=case.heads,
                num_frames=case.frames,
                quick_gelu=case.quick_gelu,
            )
            vision = viclip.ViClipVision(config)
        else:
            vision_config = {
                "image_size": list(case.trained_hw),
                "patch_size": case.patch,
                "layers": case.layers,
                "width": case.width,
                "head_width": case.width // case.heads,
                **case.options,
            }
            text = {"vocab_size": 64, "width": 8, "heads": 1, "layers": 1}
            vision = openclip.build(
                {
                    "embed_dim": case.embed_dim,
                    "vision_cfg": vision_config,
                    "text_cfg": text,
                    "quick_gelu": case.quick_gelu,
                }
            ).visual
    draw(vision)
    state = {
        name: value.squeeze(2) if case.video and name == "conv1.weight" else value
        for name, value in vision.state_dict().items()
    }
    tower = vision.tower() if case.video else openclip.tower_of(vision)
    return tower, Transcription(state, sizes)


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def worked(request: pytest.FixtureRequest) -> tuple:
    """A case with its tower, truth, text, our features and the true terms."""
    case: Case = request.param
    tower, truth = build(case)
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(case.frames, 3, *case.input_hw, generator=generator)
    text = normalize(torch.randn(6, case.embed_dim, generator=generator), dim=-1)  # two actions
    with torch.inference_mode():
        features = Encoder(tower, case.depth, case.scope)(pixels)
        terms = truth.terms(pixels, case.depth, case.scope)
    return case, tower, truth, text, features, terms


@torch.inference_mode()
def test_everything_that_the_method_names_equals_the_transcription(worked: tuple) -> None:
    case, tower, truth, text, features, terms = worked
    near(features.patch_terms, terms.patch)
    near(features.class_terms, terms.token)
    for weighting in WEIGHTINGS:
        config = GroundingConfig(
            weighting=weighting,
            depth=case.depth,
            dynamic_depth=case.dynamic_depth,
            dynamic_scale=case.dynamic_scale,
            static_weights=case.static,
        )
        true_weights, true_similarity = expected(truth, terms, text.double(), config)
        weights = layer_weights(features.class_terms, text, tower, config)
        similarity = patch_similarity(features, weights, text, tower)
        near(weights.expand(true_weights.shape), true_weights)
        near(similarity, true_similarity)
        for fusion in FUSIONS:
            check_answer(case, fusion, config, similarity, features, true_similarity)


def expected(
    truth: Transcription, terms: Terms, text: Tensor, config: GroundingConfig
) -> tuple[Tensor, Tensor]:
    """Layer weights (T, P, L) and similarities (T, P, N)."""
    base = [1.0] * (config.depth + 1)
    if config.weighting.startswith("static"):
        base = list(config.static_weights)
    dynamic = config.dynamic_depth if config.weighting.endswith("dynamic") else 0
    weights = torch.stack(
        [
            torch.stack(
                [
                    truth.layer_weights(token, prompt, base, dynamic, config.dynamic_scale)
                    for prompt in text
                ]
            )
            for token in terms.token
        ]
    )
    similarity = torch.stack(
        [
            torch.stack(
                [truth.similarity(patch, weights[t, p], prompt) for p, prompt in enumerate(text)]
            )
            for t, patch in enumerate(terms.patch)
        ]
    )
    return weights, similarity


def check_answer(
    case: Case,
    fusion: str,
    config: GroundingConfig,
    similarity: Tensor,
    features: Features,
    true_similarity: Tensor,
) -> None:
    config = GroundingConfig(
        depth=config.depth,
        dynamic_depth=config.dynamic_depth,
        static_weights=config.static_weights,
        fusion=fusion,
        fusion_weights=(0.3, 0.25, 0.45),
    )
    placement = place(case.input_hw, case.input_hw, "stretch")
    located = locate_points(similarity, features.grid_hw, placement, config)
    frames, prompts, _ = true_similarity.shape
    for t in range(frames):
        for action in range(prompts // 3):
            upright = [
                upsampled(true_similarity[t, 3 * action + k], features.grid_hw, case.input_hw)
                for k in range(3)
            ]
            maps = [min_max(values) for values in upright]
            maps.append(0.3 * maps[0] + 0.25 * maps[1] + 0.45 * maps[2])
            near(located.heatmaps[t, action], torch.stack(maps), 2 * TOLERANCE)
            points = located.points[t, action].tolist()
            for k in range(3 + (fusion == "heatmaps")):
                x, y = points[k]
                assert maps[k][y, x] >= maps[k].max() - 2 * TOLERANCE
            if fusion == "points":
                for axis in (0, 1):
                    mean = sum(w * points[k][axis] for k, w in enumerate((0.3, 0.25, 0.45)))
                    assert points[3][axis] == int(mean + 1e-9)
            x, y = points[3]
            cosines = [float(upright[k][points[k][1], points[k][0]]) for k in range(3)]
            fused = sum(w * float(upright[k][y, x]) for k, w in enumerate((0.3, 0.25, 0.45)))
            near(located.similarity[t, action], torch.tensor([*cosines, fused]).double())


def near(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    scale = max(1.0, float(expected.abs().max()))
    assert float((found.double() - expected).abs().max()) <= tolerance * scale

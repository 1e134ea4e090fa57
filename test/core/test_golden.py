"""The public classes against outputs of the official code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny import DATA
from torch import Tensor
from torch.nn.functional import normalize

from videogem_ros.core import Encoder, Grounder, GroundingConfig, join_features
from videogem_ros.core.backbones import openclip, viclip
from videogem_ros.core.backbones.checkpoint import UNFITTED, fill
from videogem_ros.core.backbones.preprocessing import Preprocessing
from videogem_ros.core.heatmaps import patch_similarity
from videogem_ros.core.prompts import prompts_for
from videogem_ros.core.tower import VisionTower
from videogem_ros.core.weighting import layer_weights
from videogem_ros.datatypes import PROMPT_KINDS, Action, Frame, Window

TOLERANCE = 1e-5
ACTION = Action("pour the milk", "pour the milk", "pour", "pour", "milk", "milk")
GOLDEN = sorted((DATA / "golden").glob("*.safetensors"))


class GoldenBackbone:
    """A golden file's tower and text embeddings, as the grounder takes a backbone."""

    preprocessing = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", antialias=True)
    logit_scale = 100.0
    presence_fit = UNFITTED
    untrained = True

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        with safe_open(path, "pt") as file:
            self.case = json.loads(file.metadata()["case"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.arrays = {n: v for n, v in arrays.items() if not n.startswith("weights/")}
        pixels = self.arrays["input/frames"]
        self.pixels = pixels[0] if pixels.ndim == 5 else pixels
        self.tower = self._tower({n: v for n, v in arrays.items() if n.startswith("weights/")})
        self.input_hw = tuple(self.pixels.shape[-2:])
        self._texts = dict(zip(prompts_for(ACTION).texts, self.arrays["input/text_embeddings"]))

    def _tower(self, weights: dict[str, Tensor]) -> VisionTower:
        state = {name.split(".", 1)[1]: value for name, value in weights.items()}
        if self.case["backbone"] == "clip":
            return openclip.tower_of(
                fill(openclip.build(self.case["cfg"]).visual, state, "golden")
            )
        sizes = viclip.ViClipConfig(num_frames=self.case["num_frames"], **self.case["cfg"])
        return fill(viclip.ViClipVision(sizes), state, "golden").tower()

    @property
    def window_frames(self) -> int:
        return self.tower.frames

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        neutral = normalize(torch.ones(self.tower.projection.shape[1]), dim=0)
        return torch.stack([self._texts.get(text, neutral) for text in texts])

    def expected(self, name: str) -> np.ndarray:
        """An expected array; of a video, with the frame axis first."""
        value = self.arrays[f"expected/{name}"].numpy()
        if value.ndim == 4:
            return value.swapaxes(0, 1)
        return value[None] if value.ndim == 3 else value


@pytest.fixture(scope="module", params=GOLDEN, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> GoldenBackbone:
    return GoldenBackbone(request.param)


def window_of(backbone: GoldenBackbone) -> Window:
    blank = np.zeros((*backbone.input_hw, 3), np.uint8)
    return Window(tuple(Frame(blank, stamp_ns=index) for index in range(len(backbone.pixels))))


def test_golden_files_are_there() -> None:
    assert len(GOLDEN) == 4


def test_a_grounding_holds_the_official_heatmaps_weights_and_probabilities(
    golden: GoldenBackbone,
) -> None:
    grounder = Grounder(golden)
    with torch.inference_mode():
        features = grounder.encoder(golden.pixels)
    groundings = grounder.locate(features, window_of(golden), [ACTION])
    assert len(groundings) == len(golden.pixels)
    for index, found in enumerate(groundings):
        heatmaps = golden.expected("videogem.heatmaps")[index]
        for kind, heatmap in zip(PROMPT_KINDS, heatmaps):
            near(found.heatmaps[kind].values, heatmap)
        near(found.layer_weights, golden.expected("weights.total"))
        near(found.prompt_probabilities, golden.expected("prompt_probs"))


def test_points_are_the_official_ones_up_to_plateaus(golden: GoldenBackbone) -> None:
    """Along the border bilinear upsampling makes a plateau; its first maximum is rounding's."""
    grounder = Grounder(golden)
    with torch.inference_mode():
        features = grounder.encoder(golden.pixels)
    for index, found in enumerate(grounder.locate(features, window_of(golden), [ACTION])):
        heatmaps = golden.expected("videogem.heatmaps")[index]
        logits = golden.expected("videogem.logits")[index]
        *official, official_fused = map(tuple, golden.expected("points")[index].reshape(4, 2))
        points = [(found.points[kind].x, found.points[kind].y) for kind in PROMPT_KINDS]
        for k, (x, y) in enumerate(points):
            assert heatmaps[k, int(y), int(x)] >= 1 - TOLERANCE
            near(np.float32(found.points[PROMPT_KINDS[k]].similarity), logits[k].max())
            if (heatmaps[k] >= 1 - TOLERANCE).sum() == 1:
                assert (x, y) == official[k]
        if points == official:
            assert (found.point.x, found.point.y) == official_fused


def test_gem_is_videogem_with_uniform_weights(golden: GoldenBackbone) -> None:
    grounder = Grounder(golden, GroundingConfig(weighting="uniform"))
    with torch.inference_mode():
        features = grounder.encoder(golden.pixels)
    for index, found in enumerate(grounder.locate(features, window_of(golden), [ACTION])):
        for kind, logits in zip(PROMPT_KINDS, golden.expected("gem.logits")[index]):
            heatmap = (logits - logits.min()) / (logits.max() - logits.min())
            near(found.heatmaps[kind].values, heatmap)
        assert (found.layer_weights == 1).all()


@pytest.mark.parametrize("weighting", ["static", "dynamic"])
@torch.inference_mode()
def test_patch_similarities_of_each_weighting_are_the_official_ones(
    golden: GoldenBackbone, weighting: str
) -> None:
    grounder = Grounder(golden, GroundingConfig(weighting=weighting))
    features = grounder.encoder(golden.pixels)
    text = golden.arrays["input/text_embeddings"]
    weights = layer_weights(features.class_terms, text, golden.tower, grounder.config)
    similarity = patch_similarity(features, weights, text, golden.tower)
    near(weights[0].expand(3, -1).numpy(), golden.expected(f"weights.{weighting}"))
    # Official patches stand in token order: time is the fastest axis.
    tokens = similarity.permute(1, 2, 0).flatten(1)
    near(tokens.numpy(), golden.expected(f"{weighting}.patch_logits"))


def test_chosen_frames_have_the_values_of_all_frames(golden: GoldenBackbone) -> None:
    encoder = Encoder(golden.tower)
    with torch.inference_mode():
        everything = encoder(golden.pixels)
        count = len(golden.pixels)
        for chosen in {(count - 1,), (0,), (count - 1, 0), tuple(range(count))}:
            some = encoder(golden.pixels, chosen)
            assert some.frames == chosen
            assert some.grid_hw == everything.grid_hw
            near(some.patch_terms.numpy(), everything.patch_terms[list(chosen)].numpy())
            near(some.class_terms.numpy(), everything.class_terms[list(chosen)].numpy())


@pytest.mark.parametrize(
    "golden", [path for path in GOLDEN if path.stem.startswith("clip")], indirect=True
)
def test_frames_encoded_one_by_one_join_to_the_window(golden: GoldenBackbone) -> None:
    encoder = Encoder(golden.tower)
    pixels = torch.cat([golden.pixels, golden.pixels.flip(-1), 0.5 * golden.pixels])
    with torch.inference_mode():
        together = encoder(pixels)
        joined = join_features([encoder(frame[None]) for frame in pixels], frames=(0, 1, 2))
    assert joined.frames == together.frames == (0, 1, 2)
    near(joined.patch_terms.numpy(), together.patch_terms.numpy())
    near(joined.class_terms.numpy(), together.class_terms.numpy())


def near(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.shape(found) == np.shape(expected)
    assert np.abs(found - expected).max() <= TOLERANCE

"""Points from inner products, beside those of the core from the features themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from videogem_ros.core import GroundingConfig
from videogem_ros.core.backbones import Backbone
from videogem_ros.core.backbones.preprocessing import Placement, place
from videogem_ros.core.configuration import FUSIONS, WEIGHTINGS
from videogem_ros.core.fusion import locate_points
from videogem_ros.core.heatmaps import patch_similarity
from videogem_ros.core.weighting import layer_weights
from videogem_ros.datatypes import Features
from videogem_ros.evaluation.gram import Corners, Grams


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_features(depth: int, frames: int = 3) -> Features:
    """With one channel far above the others, as trained residual streams have."""
    patches, classes = noise(frames, depth + 1, 16, 64, seed=1), noise(frames, depth + 1, 64)
    patches[..., 7] += 30
    return Features(patches, classes, (4, 4), tuple(range(frames)))


@pytest.fixture
def backbone(tiny_image_backbone: Backbone) -> Iterator[Backbone]:
    """With the LN_post of a trained one, which is not the identity."""
    norm = tiny_image_backbone.tower.ln_post
    before = norm.weight.clone(), norm.bias.clone()
    norm.weight.copy_(1 + 0.5 * noise(64, seed=5))
    norm.bias.copy_(noise(64, seed=6))
    yield tiny_image_backbone
    norm.weight.copy_(before[0])
    norm.bias.copy_(before[1])


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(("depth", "last"), [(7, 3), (4, 4), (1, 1)])
def test_cosines_are_those_of_the_features(
    backbone: Backbone, weighting: str, depth: int, last: int
) -> None:
    generator = torch.Generator().manual_seed(depth)
    config = GroundingConfig(
        weighting=weighting,
        depth=depth,
        dynamic_depth=last,
        static_weights=tuple((2 * torch.rand(depth + 1, generator=generator) - 0.5).tolist()),
        dynamic_scale=33.0,
    )
    features = random_features(depth)
    text = torch.nn.functional.normalize(noise(3, 32, seed=9), dim=-1)
    weights = layer_weights(features.class_terms, text, backbone.tower, config)
    expected = patch_similarity(features, weights, text, backbone.tower)
    found = Grams.of(features, text, backbone.tower).cosines(config)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


PLACEMENTS = [
    ((4, 4), place((90, 160), (64, 64), "stretch")),
    ((4, 4), place((90, 160), (64, 64), "letterbox")),
    ((2, 6), place((200, 30), (32, 96), "letterbox")),
    ((4, 8), Placement((64, 128), 5, 9, (41, 83))),
    ((1, 3), Placement((16, 48), 0, 0, (16, 48))),
    ((4, 4), Placement((64, 64), 30, 31, (1, 2))),
]


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize(("grid_hw", "placement"), PLACEMENTS, ids=str)
def test_the_first_maximum_lies_in_a_corner_also_among_equals(
    grid_hw: tuple[int, int], placement: Placement, fusion: str
) -> None:
    """Small whole numbers and patches of 16 pixels: interpolation is exact, ties are ties."""
    weights = (0.25, 0.25, 0.5)
    config = GroundingConfig(fusion=fusion, fusion_weights=weights)
    count = grid_hw[0] * grid_hw[1]
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        values = torch.randint(0, 3, (5, 3, count), generator=generator).float()
        # An even span, so that dividing by it is exact too.
        values = 4.0 * (values > 0) if fusion == "heatmaps" else values
        expected = locate_points(values, grid_hw, placement, config).points[:, 0]
        found = Corners.of(grid_hw, placement).locate(values, config)
        assert torch.equal(found, expected), seed


@pytest.mark.parametrize("patch", [7, 12, 14, 16, 32])
def test_corners_of_random_maps_hold_the_maximum(patch: int) -> None:
    grid_hw = (5, 6)
    input_hw = (patch * 5, patch * 6)
    placement = place((50, 70), input_hw, "letterbox")
    for fusion in FUSIONS:
        config = GroundingConfig(fusion=fusion)
        values = noise(8, 3, 30, seed=patch)
        located = locate_points(values, grid_hw, placement, config)
        found = Corners.of(grid_hw, placement).locate(values, config)
        flat = found[..., 1] * placement.content_hw[1] + found[..., 0]
        at = located.heatmaps[:, 0].flatten(-2).gather(-1, flat[..., None])[..., 0]
        peak = located.heatmaps[:, 0].flatten(-2).amax(dim=-1)
        names = slice(0, 4) if fusion == "heatmaps" else slice(0, 3)
        torch.testing.assert_close(at[:, names], peak[:, names], atol=1e-6, rtol=0)


def test_few_pixels_are_corners() -> None:
    corners = Corners.of((28, 28), place((480, 640), (448, 448), "stretch"))
    assert len(corners.rows) == len(corners.columns) == 2 * 29
    assert corners.rows[[0, 1, 2, 3, -1]].tolist() == [0, 7, 8, 23, 447]

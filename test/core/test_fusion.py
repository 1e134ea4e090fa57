from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from videogem_ros.core import GroundingConfig
from videogem_ros.core.backbones.preprocessing import Placement, place
from videogem_ros.core.fusion import NAMES, fuse_points, in_source, locate_points
from videogem_ros.datatypes import Heatmap, Point

PAPER = (0.2, 0.2, 0.6)
pixel = st.integers(0, 2000)


@given(st.tuples(pixel, pixel), st.tuples(pixel, pixel), st.tuples(pixel, pixel))
def test_the_fused_point_is_the_official_one(
    verb: tuple[int, int], object_: tuple[int, int], action: tuple[int, int]
) -> None:
    """The official code truncates (verb + object + 3 action) / 5, in whole numbers."""
    x, y = fuse_points(torch.tensor([verb, object_, action]), PAPER).tolist()
    assert x == (verb[0] + object_[0] + 3 * action[0]) // 5
    assert y == (verb[1] + object_[1] + 3 * action[1]) // 5


def test_no_pixel_is_lost_where_the_mean_is_whole() -> None:
    """0.2 * 7 + 0.6 * 36 is 22.999... in binary fractions."""
    assert fuse_points(torch.tensor([[7, 0], [0, 7], [36, 36]]), PAPER).tolist() == [23, 23]


@given(pixel, pixel, st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_where_all_prompts_agree_the_fused_point_is_theirs(
    x: int, y: int, parts: list[float]
) -> None:
    """Weights may be given to six digits, which need not add up to 1."""
    weights = tuple(round(part / sum(parts), 7) for part in parts)
    assert fuse_points(torch.tensor([[x, y]] * 3), weights).tolist() == [x, y]


def test_one_prompt_alone_is_its_own_fusion() -> None:
    points = torch.tensor([[3, 4], [50, 60], [447, 0]])
    for k, weights in enumerate([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]):
        assert fuse_points(points, weights).tolist() == points[k].tolist()


def one_patch(grid_hw: tuple[int, int], *places: tuple[int, int]) -> torch.Tensor:
    """(1, K, N): each prompt is similar to one patch (row, column)."""
    similarity = torch.zeros(1, len(places), grid_hw[0] * grid_hw[1])
    for k, (row, column) in enumerate(places):
        similarity[0, k, row * grid_hw[1] + column] = 0.5 + 0.1 * k
    return similarity


def found(
    similarity: torch.Tensor,
    grid_hw: tuple[int, int],
    placement: Placement,
    config: GroundingConfig,
    image_hw: tuple[int, int],
) -> tuple[dict[str, Point], dict[str, Heatmap]]:
    """Of the first frame and action."""
    located = locate_points(similarity, grid_hw, placement, config)
    return in_source(*(tensor[0, 0].numpy() for tensor in located), image_hw)


def test_each_prompt_points_at_its_patch_and_the_fused_point_lies_between() -> None:
    similarity = one_patch((7, 7), (1, 1), (1, 5), (5, 3))
    placement = place((112, 112), (112, 112), "stretch")
    points, heatmaps = found(similarity, (7, 7), placement, GroundingConfig(), (112, 112))
    centres = {"verb": (23.5, 23.5), "object": (87.5, 23.5), "action": (55.5, 87.5)}
    for name, (x, y) in centres.items():
        assert abs(points[name].x - x) <= 0.5
        assert abs(points[name].y - y) <= 0.5
        assert heatmaps[name].values.max() == 1
    for axis in ("x", "y"):
        mean = sum(w * getattr(points[k], axis) for w, k in zip(PAPER, NAMES))
        assert getattr(points["fused"], axis) == math.floor(mean + 1e-9)


def test_fused_heatmap_is_the_weighted_mean_and_its_peak_the_answer_of_heatmap_fusion() -> None:
    similarity = one_patch((7, 7), (1, 1), (1, 1), (5, 3))
    config = GroundingConfig(fusion="heatmaps", fusion_weights=(0.4, 0.4, 0.2))
    placement = place((112, 112), (112, 112), "stretch")
    points, heatmaps = found(similarity, (7, 7), placement, config, (112, 112))
    mean = sum(w * heatmaps[name].values for w, name in zip((0.4, 0.4, 0.2), NAMES))
    assert np.allclose(heatmaps["fused"].values, mean, atol=1e-6)
    assert (points["fused"].x, points["fused"].y) == (points["verb"].x, points["verb"].y)


@pytest.mark.parametrize("fusion", ["points", "heatmaps"])
def test_similarity_is_the_cosine_at_the_point(fusion: str) -> None:
    similarity = torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(1))
    config = GroundingConfig(fusion=fusion)
    input_hw = (3, 4)  # a pixel a patch: no interpolation
    located = locate_points(similarity, (3, 4), place((9, 9), input_hw, "stretch"), config)
    for frame in range(2):
        for action in range(2):
            cosines = similarity[frame, 3 * action : 3 * action + 3]
            found = located.similarity[frame, action]
            assert torch.equal(found[:3], cosines.amax(dim=-1))
            x, y = located.points[frame, action, 3].tolist()
            assert found[3] == pytest.approx(float(cosines[:, 4 * y + x] @ torch.tensor(PAPER)))


@given(
    image_hw=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    patch=st.tuples(st.integers(0, 3), st.integers(0, 5)),
    resize=st.sampled_from(["stretch", "letterbox"]),
)
def test_points_lie_in_the_source_image_never_in_the_padding(
    image_hw: tuple[int, int], patch: tuple[int, int], resize: str
) -> None:
    grid_hw, input_hw = (4, 6), (64, 96)
    placement = place(image_hw, input_hw, resize)
    similarity = one_patch(grid_hw, patch, patch, patch)
    config = GroundingConfig(fusion="heatmaps")
    points, heatmaps = found(similarity, grid_hw, placement, config, image_hw)
    height, width = image_hw
    step_y, step_x = (side / content for side, content in zip(image_hw, placement.content_hw))
    for name in NAMES:
        assert heatmaps[name].values.shape == placement.content_hw
        assert heatmaps[name].image_hw == image_hw
        assert -0.5 < points[name].x < width - 0.5
        assert -0.5 < points[name].y < height - 0.5
        # Closed form: the patch's centre in the input, moved and scaled to the source.
        centre_x = (16 * patch[1] + 8 - placement.left) * step_x - 0.5
        centre_y = (16 * patch[0] + 8 - placement.top) * step_y - 0.5
        inside = 0 <= centre_x <= width - 1 and 0 <= centre_y <= height - 1
        if inside and 0 < patch[0] < 3 and 0 < patch[1] < 5:
            assert points[name].x == pytest.approx(centre_x, abs=0.5 * step_x + 1e-6)
            assert points[name].y == pytest.approx(centre_y, abs=0.5 * step_y + 1e-6)

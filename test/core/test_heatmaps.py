from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from videogem_ros.core.heatmaps import normalise, patch_similarity, peaks, upsample
from videogem_ros.core.tower import Norm, VisionTower
from videogem_ros.datatypes import Features


@pytest.mark.parametrize("shared", [False, True], ids=["own weights", "shared weights"])
@pytest.mark.parametrize("prompts", [1, 2, 3, 4, 7])
def test_patches_are_compared_as_the_equation_says(prompts: int, shared: bool) -> None:
    """f = (LN_post(sum_l w_l s_l)) W_proj of unit length, times the text, in float64."""
    random = np.random.default_rng(prompts)
    terms, text = random.normal(size=(2, 5, 6, 8)), random.normal(size=(prompts, 4))
    text /= np.linalg.norm(text, axis=-1, keepdims=True)
    weights = random.random((1, 1, 5) if shared else (2, prompts, 5))
    scale, shift, projection = random.random(8), random.normal(size=8), random.normal(size=(8, 4))
    mixed = np.einsum("fpl,flnd->fpnd", np.broadcast_to(weights, (2, prompts, 5)), terms)
    centred = mixed - mixed.mean(axis=-1, keepdims=True)
    normed = centred / np.sqrt(mixed.var(axis=-1, keepdims=True) + 1e-5) * scale + shift
    embedded = normed @ projection
    embedded /= np.linalg.norm(embedded, axis=-1, keepdims=True)
    expected = np.einsum("fpne,pe->fpn", embedded, text)

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).float()

    nothing = torch.zeros(0)
    tower = VisionTower(
        patch_embedding=nothing,
        class_embedding=nothing,
        position_embedding=nothing,
        grid_hw=(2, 3),
        temporal_embedding=None,
        ln_pre=None,
        blocks=(),
        heads=1,
        ln_post=Norm(tensor(scale), tensor(shift), 1e-5),
        projection=tensor(projection),
    )
    features = Features(tensor(terms), torch.zeros(2, 5, 8), (2, 3), (0, 1))
    found = patch_similarity(features, tensor(weights), tensor(text), tower)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("grid_hw", "input_hw"), [((4, 4), (64, 64)), ((3, 5), (21, 20)), ((1, 6), (8, 48))], ids=str
)
def test_upsampling_interpolates_between_patch_centres(
    grid_hw: tuple[int, int], input_hw: tuple[int, int]
) -> None:
    values = torch.randn(1, 2, grid_hw[0] * grid_hw[1], generator=torch.Generator().manual_seed(0))
    found = upsample(values, grid_hw, input_hw)
    assert found.shape == (1, 2, *input_hw)
    grid = values.view(2, *grid_hw).double().numpy()
    rows, columns = (
        np.clip((np.arange(side) + 0.5) * count / side - 0.5, 0, count - 1)
        for side, count in zip(input_hw, grid_hw)
    )
    for prompt in range(2):
        across = np.stack([np.interp(columns, range(grid_hw[1]), row) for row in grid[prompt]])
        down = np.stack([np.interp(rows, range(grid_hw[0]), column) for column in across.T])
        assert np.allclose(found[0, prompt].numpy(), down.T, atol=1e-6)


def test_the_outer_half_patch_is_constant() -> None:
    found = upsample(torch.randn(1, 1, 16), (4, 4), (64, 64))[0, 0]
    torch.testing.assert_close(found[:8], found[:1].expand(8, 64), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, -8:], found[:, -1:].expand(64, 8), atol=1e-6, rtol=0)


@pytest.mark.parametrize("grid_hw", [(1, 1), (1, 5), (5, 1)], ids=str)
def test_along_a_single_patch_no_pixel_is_above_another(grid_hw: tuple[int, int]) -> None:
    rows, columns = grid_hw
    maps = upsample(torch.randn(6, 50, rows * columns), grid_hw, (16, 48))
    assert maps.shape == (6, 50, 16, 48)
    if rows == 1:
        assert torch.equal(maps, maps[..., :1, :].expand_as(maps))
        assert (peaks(maps)[..., 1] == 0).all()
    if columns == 1:
        assert torch.equal(maps, maps[..., :1].expand_as(maps))
        assert (peaks(maps)[..., 0] == 0).all()
    if grid_hw == (1, 1):
        assert (normalise(maps) == 0).all()


@given(arrays(np.float32, (2, 3, 4), elements=st.floats(-100, 100, width=32)))
def test_normalised_maps_span_zero_to_one(values: np.ndarray) -> None:
    found = normalise(torch.from_numpy(values)).numpy()
    assert np.isfinite(found).all()
    for raw, scaled in zip(values, found):
        assert scaled.min() == 0
        if raw.min() == raw.max():
            assert (scaled == 0).all()
        else:
            assert scaled.max() == pytest.approx(1)
            assert scaled.flat[raw.argmax()] == scaled.max()


def test_a_constant_map_becomes_zero_and_points_at_the_first_pixel() -> None:
    constant = normalise(torch.full((1, 5, 7), -3.25))
    assert (constant == 0).all()
    assert peaks(constant).tolist() == [[0, 0]]


@given(arrays(np.int8, (3, 4, 5), elements=st.integers(0, 3)))
def test_a_peak_is_the_first_maximum_in_row_order(values: np.ndarray) -> None:
    found = peaks(torch.from_numpy(values).float()).tolist()
    for (x, y), plane in zip(found, values):
        row, column = np.unravel_index(plane.argmax(), plane.shape)  # numpy takes the first, too
        assert (x, y) == (column, row)


def test_ties_in_a_large_map_go_to_the_first_row() -> None:
    plane = torch.zeros(448, 448)
    plane[300, 7] = plane[300, 9] = plane[301, 0] = 1
    assert peaks(plane).tolist() == [7, 300]

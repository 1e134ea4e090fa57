from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from videogem_ros.core.heatmaps import normalise, peaks, upsample


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

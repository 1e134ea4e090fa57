from __future__ import annotations

import pytest

from videogem_ros.core.configuration import FUSIONS, WEIGHTINGS, GroundingConfig
from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.methods import GEM, PROMPTS, VIDEOGEM, Method, compared


def test_the_names_of_the_paper_stand_for_cells_of_the_grid() -> None:
    assert GEM.name == "uniform/action"
    assert VIDEOGEM.name == "static+dynamic/fused"
    assert Method.of(GroundingConfig()) == VIDEOGEM


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_method_configures_the_grounder_it_is_read_from(weighting: str, fusion: str) -> None:
    config = GroundingConfig(weighting, fusion=fusion, dynamic_depth=2)
    assert Method.of(config).configure(GroundingConfig(dynamic_depth=2)) == config


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (("strong", "verb"), "method.weighting: expected one of uniform, static"),
        (("static", "noun"), "method.prompt: expected one of verb, object"),
    ],
)
def test_other_cells_are_refused(method: tuple[str, str], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        Method(*method)


def test_the_main_method_stands_beside_its_baselines() -> None:
    assert [
        method.name for method in compared(Method("dynamic", "fused-heatmaps"), ablate=False)
    ] == [
        "dynamic/fused-heatmaps",
        "dynamic/action",
        "uniform/action",
    ]
    assert compared(GEM, ablate=False) == (GEM,)


def test_the_grid_has_every_weighting_with_every_prompt_once() -> None:
    grid = compared(VIDEOGEM, ablate=True)
    assert grid[0] == VIDEOGEM
    assert len(grid) == len(set(grid)) == len(WEIGHTINGS) * len(PROMPTS) == 20

from __future__ import annotations

import math

import pytest

from videogem_ros.core import GroundingConfig
from videogem_ros.core.configuration import FUSIONS, RESIZES, SCOPES, WEIGHTINGS
from videogem_ros.errors import InvalidValueError


def test_the_defaults_are_the_papers() -> None:
    config = GroundingConfig()
    assert config.weighting == "static+dynamic"
    assert (config.depth, config.dynamic_depth, config.dynamic_scale) == (7, 3, 20.0)
    assert config.static_weights == (0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.9, 0.9)
    assert (config.fusion, config.fusion_weights) == ("points", (0.2, 0.2, 0.6))
    assert (config.resize, config.image_hw) == ("stretch", None)
    assert config.self_self_scope == "window"


@pytest.mark.parametrize(
    "values",
    [
        *({"weighting": weighting} for weighting in WEIGHTINGS),
        *({"fusion": fusion} for fusion in FUSIONS),
        *({"resize": resize} for resize in RESIZES),
        *({"self_self_scope": scope} for scope in SCOPES),
        {"depth": 3, "static_weights": [1, 2, 3, 4]},
        {"depth": 12, "weighting": "uniform"},
        {"depth": 12, "weighting": "dynamic", "dynamic_depth": 12},
        {"dynamic_scale": 0.0},
        {"static_weights": (0, 0, 0, 0, 0, 0, 0, -1)},
        {"fusion_weights": [0, 0, 1]},
        {"fusion_weights": (1 / 3, 1 / 3, 1 / 3)},
        {"image_hw": [224, 448]},
    ],
    ids=str,
)
def test_these_are_configurations(values: dict) -> None:
    config = GroundingConfig(**values)
    assert hash(config) == hash(GroundingConfig(**values))  # lists become tuples


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"weighting": "gem"}, "weighting"),
        ({"weighting": ""}, "weighting"),
        ({"fusion": "mean"}, "fusion"),
        ({"resize": "crop"}, "resize"),
        ({"self_self_scope": "patch"}, "self_self_scope"),
        ({"depth": 0}, "depth"),
        ({"depth": -7}, "depth"),
        ({"depth": 7.5}, "depth"),
        ({"dynamic_depth": 1.5}, "dynamic_depth"),
        ({"static_weights": ("1",) * 8}, "static_weights"),
        ({"fusion_weights": ("0.2", "0.2", "0.6")}, "fusion_weights"),
        ({"dynamic_depth": 0}, "dynamic_depth"),
        ({"dynamic_depth": 8}, "dynamic_depth"),
        ({"static_weights": (1.0,) * 7}, "static_weights"),
        ({"static_weights": ()}, "static_weights"),
        ({"depth": 6}, "static_weights"),
        ({"static_weights": (math.nan,) * 8}, "static_weights"),
        ({"static_weights": (math.inf,) * 8}, "static_weights"),
        ({"dynamic_scale": -1.0}, "dynamic_scale"),
        ({"dynamic_scale": math.nan}, "dynamic_scale"),
        ({"dynamic_scale": math.inf}, "dynamic_scale"),
        ({"fusion_weights": (0.5, 0.5)}, "fusion_weights"),
        ({"fusion_weights": (0.5, 0.5, 0.5)}, "fusion_weights"),
        ({"fusion_weights": (1.2, -0.2, 0.0)}, "fusion_weights"),
        ({"fusion_weights": (math.nan, 0.4, 0.6)}, "fusion_weights"),
        ({"image_hw": (448,)}, "image_hw"),
        ({"image_hw": (0, 448)}, "image_hw"),
        ({"image_hw": (144.0, 144.0)}, "image_hw"),
    ],
    ids=str,
)
def test_values_outside_their_range_are_refused_by_name(values: dict, field: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        GroundingConfig(**values)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest

from videogem_ros.evaluation.metrics import Estimate
from videogem_ros.evaluation.report import plots
from videogem_ros.evaluation.report.plots import Scale


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.21, 0.79], (0.2, 0.8, 0.2)),
        ([0.5, 0.58], (0.5, 0.58, 0.02)),
        ([0.0, 1.0], (0.0, 1.0, 0.2)),
        ([0.42, math.nan], (0.42, 0.4202, 0.0002)),
        ([], (0.0, 1.0, 0.2)),
        ([-0.31, 1.4], (-0.5, 1.5, 0.5)),
    ],
)
def test_a_scale_has_round_ends_about_its_values(
    values: list[float], expected: tuple[float, float, float]
):
    scale = Scale.around(values)
    assert (scale.low, scale.high, scale.step) == pytest.approx(expected)
    for value in filter(math.isfinite, values):
        assert scale.low - 1e-9 <= value <= scale.high + 1e-9
    assert scale.ticks[-1] == pytest.approx(scale.high)


def test_an_interval_is_where_the_scale_says():
    svg = ElementTree.fromstring(
        plots.interval(Estimate(0.6, 0.55, 0.7, 9), Scale(0.5, 0.75, 0.05), "static", 0.5)
    )
    line = svg.find("line[@class='whisker']")
    assert line is not None
    assert (line.get("x1"), line.get("x2")) == ("20.00%", "80.00%")
    marker = svg.find("svg")
    assert marker is not None
    assert marker.get("x") == "40.00%"
    reference = svg.find("line[@class='reference']")
    assert reference is not None
    assert reference.get("x1") == "0.00%"


def test_an_estimate_without_interval_has_a_marker_only():
    svg = ElementTree.fromstring(plots.interval(Estimate(0.6, math.nan, math.nan, 1), plots.WHOLE))
    assert svg.find("line[@class='whisker']") is None
    assert svg.find("svg") is not None


def test_weightings_differ_in_shape_not_only_in_colour():
    kinds = ("uniform", "static", "dynamic", "static+dynamic")
    shapes = set()
    for kind in kinds:
        svg = ElementTree.fromstring(plots.interval(Estimate(0.5, 0.4, 0.6, 9), plots.WHOLE, kind))
        shapes.add(svg.find("svg/path").get("d"))
    assert len(shapes) == len(kinds)


def test_layer_weights_show_mean_and_spread_over_samples():
    weights = np.stack([np.linspace(0.5, 1, 8) + offset for offset in np.linspace(-0.1, 0.1, 11)])
    scale = Scale(-0.5, 1.5, 0.5)
    svg = ElementTree.fromstring(plots.layer_weights(weights, (), "verb prompt <b>", scale))
    assert svg.findtext("title", "").startswith("verb prompt <b>: 0.50, 0.57, 0.64")
    heights = [float(circle.get("cy")) for circle in svg.iterfind("circle")]
    tick_heights = [float(line.get("y1")) for line in svg.iterfind("line[@class='grid']")]
    assert heights[0] == pytest.approx(tick_heights[2])  # 0.5
    assert heights[-1] == pytest.approx(tick_heights[3])  # 1.0
    corners = svg.find("polygon").get("points").split()
    per_unit = (tick_heights[1] - tick_heights[3]) / 1.0
    low, high = (float(corners[place].split(",")[1]) for place in (0, -1))
    assert low - high == pytest.approx(0.16 * per_unit, abs=0.1)

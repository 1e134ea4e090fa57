from __future__ import annotations

import math

import pytest
from example_run import SYSTEM, example_run

from videogem_ros.evaluation.metrics import Estimate, summarise
from videogem_ros.evaluation.records import CENTRE
from videogem_ros.evaluation.report.figures import (
    NOTHING,
    Figure,
    headline_methods,
    show_column,
    show_plain,
    timing_table,
    title_of,
)
from videogem_ros.evaluation.report.published import published_accuracy


@pytest.mark.parametrize(
    ("estimate", "percent", "value", "interval"),
    [
        (Estimate(0.5721, 0.5648, 0.5795, 17316), True, "57.21", "56.48 to 57.95"),
        (Estimate(0.5721, 0.5387, 0.6051, 900), True, "57.2", "53.9 to 60.5"),
        (Estimate(0.55, 0.35, 0.75, 20), True, "55", "35 to 75"),
        (Estimate(0.3121, 0.2987, 0.3262, 500), False, "0.312", "0.299 to 0.326"),
        (Estimate(0.3, 0.1, 0.5, 5), False, "0.30", "0.10 to 0.50"),
        (Estimate(0.31217, 0.31209, 0.31225, 10**7), False, "0.3122", "0.3121 to 0.3123"),
        (Estimate(1.0, 1.0, 1.0, 20), True, "100.0", ""),
        (Estimate(0.4, math.nan, math.nan, 20), True, "40.0", ""),
        (Estimate(math.nan, math.nan, math.nan, 0), True, NOTHING, ""),
        (None, True, NOTHING, ""),
    ],
)
def test_a_number_has_the_digits_that_its_interval_warrants(
    estimate: Estimate | None, percent: bool, value: str, interval: str
):
    assert show_column([estimate], percent=percent) == [Figure(value, interval)]


def test_the_numbers_of_a_column_have_equally_many_decimals():
    estimates = [Estimate(0.4, 0.35, 0.45, 90), None, Estimate(0.999, 0.998, 1.0, 90)]
    estimates.append(Estimate(0.05, 0.02, 0.08, 90))
    values = [figure.value for figure in show_column(estimates, percent=True)]
    assert values == ["40.0", NOTHING, "99.9", "5.0"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (17.0, "17"),
        (12345.6, "12,346"),
        (41.372, "41.4"),
        (0.04137, "0.0414"),
        (0.0, "0"),
        (-3.25, "-3.25"),
        (math.nan, NOTHING),
        (math.inf, NOTHING),
    ],
)
def test_a_plain_number_has_three_digits(value: float, text: str):
    assert show_plain(value) == text


@pytest.mark.parametrize(
    ("method", "title", "detail"),
    [
        ("static+dynamic/fused", "VideoGEM", "static+dynamic weights, fused point"),
        ("uniform/action", "GEM", "uniform weights, action prompt"),
        ("dynamic/verb", "Verb prompt", "dynamic weights"),
        (CENTRE, "Image centre", "needs no model"),
        ("WWW-CLIP", "WWW-CLIP", ""),
        ("mine/other", "mine/other", ""),
        ("recorded/fused", "recorded, fused point", ""),
    ],
)
def test_methods_have_the_names_that_readers_know(method: str, title: str, detail: str):
    assert title_of(method) == (title, detail)


def test_the_headline_compares_the_method_with_baselines_best_first():
    run = example_run(60)
    summaries = summarise(run.records)
    names = headline_methods(run, summaries)
    assert set(names) == {run.main, "uniform/action", "static+dynamic/action", CENTRE, SYSTEM}
    values = [summaries[name].accuracy.value for name in names]
    assert values == sorted(values, reverse=True)


def test_timing_is_sorted_by_quantity_unit_and_statistic():
    columns, rows = timing_table(
        {"latency_ms_median": 63.82, "latency_ms_p99": 121.4, "dropped_frames": 17.0}
        | {"duration_s": 12.0, "groundings_per_s": 9.5, "input_hz": 29.97}
    )
    assert columns == ["median", "p99", "value"]
    assert rows == {
        "latency, ms": {"median": "63.8", "p99": "121"},
        "dropped frames": {"value": "17"},
        "duration, s": {"value": "12"},
        "groundings per s": {"value": "9.50"},
        "input, Hz": {"value": "30.0"},
    }


@pytest.mark.parametrize(
    ("dataset", "method", "percent"),
    [
        ("V-HICO", "WWW-CLIP (trained)", 62.34),
        ("daly", "VideoGEM, CLIP", 84.53),
        ("YouCook-Interactions", "VideoGEM, OpenCLIP", 60.05),
        ("GroundingYouTube", "GEM, ViCLIP", 51.28),
        ("grounding_youtube", "ViCLIP, dynamic only", 56.47),
    ],
)
def test_published_figures_are_found_by_data_set(dataset: str, method: str, percent: float):
    assert published_accuracy(dataset)[method] == percent


def test_where_nothing_was_published_nothing_is_shown():
    assert published_accuracy("tabletop") == {}
    assert "ViCLIP, static only" not in published_accuracy("YouCook-Interactions")

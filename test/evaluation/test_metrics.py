"""The metrics, against closed forms and against the same numbers counted one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.metrics import (
    Estimate,
    area_under_curve,
    judge,
    judge_centre,
    share,
    summarise,
)
from videogem_ros.evaluation.records import Box, Outcome, Record

SIDE = (100, 200)  # height and width


def record(
    key: int, outcomes: dict[str, Outcome], label: str = "a", groups: tuple[str, ...] = ()
) -> Record:
    return Record(str(key), "v", label, groups, "pour", 0, ((0, 0, 1, 1),), SIDE, outcomes, {})


def hits(*values: bool, label: str = "a", groups: tuple[str, ...] = ()) -> list[Record]:
    return [
        record(key, {"m": Outcome(0, 0, value, 0.25 * (not value))}, label, groups)
        for key, value in enumerate(values)
    ]


# One sample.


@pytest.mark.parametrize(
    ("point", "hit", "distance_px"),
    [
        ((15, 15), True, 0),
        ((10, 20), True, 0),  # a corner: borders are included
        ((20.0, 10.0), True, 0),
        ((9.5, 15), False, 0.5),
        ((15, 24), False, 4),
        ((23, 24), False, 5),  # 3, 4, 5
        ((7, 6), False, 5),
        ((97, 15), False, 3),  # the other box is nearer
        ((105, 12), True, 0),
    ],
)
def test_a_point_hits_the_nearest_box_or_is_so_far_from_it(
    point: tuple[float, float], hit: bool, distance_px: float
) -> None:
    outcome = judge(point, None, ((10, 10, 20, 20), (100, 10, 110, 20)), SIDE)
    assert (outcome.x, outcome.y) == point
    assert outcome.hit is hit
    assert outcome.distance == pytest.approx(distance_px / math.hypot(100, 200))
    assert outcome.iou is None
    assert outcome.score is None


def test_without_a_box_there_is_a_score_alone() -> None:
    outcome = judge((3, 4), np.ones((4, 4), np.float32), (), SIDE, score=0.75)
    assert outcome == Outcome(3, 4, hit=None, distance=None, iou=None, score=0.75)


def rectangle(hw: tuple[int, int], box: Box, level: float = 1.0) -> np.ndarray:
    """A heatmap that is hot in whole pixels x1..x2, y1..y2."""
    heatmap = np.zeros(hw, np.float32)
    x1, y1, x2, y2 = map(int, box)
    heatmap[y1 : y2 + 1, x1 : x2 + 1] = level
    return heatmap


@pytest.mark.parametrize(
    ("hot", "boxes", "iou"),
    [
        ((10, 10, 19, 19), [(10, 10, 19, 19)], 1),
        ((10, 10, 19, 19), [(20, 20, 29, 29)], 0),
        ((10, 10, 19, 19), [(15, 10, 24, 19)], 50 / 150),
        ((10, 10, 29, 19), [(10, 10, 19, 19), (20, 10, 29, 19)], 1),
        ((10, 10, 19, 19), [(10, 10, 19, 19), (10, 10, 19, 14)], 1),  # counted once
        ((0, 0, 199, 99), [(-0.5, -0.5, 99.5, 99.5)], 0.5),
    ],
)
def test_iou_of_rectangles(hot: Box, boxes: Sequence[Box], iou: float) -> None:
    assert judge((0, 0), rectangle(SIDE, hot), boxes, SIDE).iou == pytest.approx(iou)


def test_iou_takes_what_is_half_the_maximum_or_more() -> None:
    heatmap = rectangle(SIDE, (0, 0, 9, 9), 0.8) + rectangle(SIDE, (10, 0, 19, 9), 0.4)
    heatmap += rectangle(SIDE, (20, 0, 29, 9), 0.39)
    assert judge((0, 0), heatmap, [(0, 0, 19, 9)], SIDE).iou == 1


def test_iou_is_at_the_heatmaps_resolution() -> None:
    # Four cells of 50 x 50 source pixels on each of two rows; centres at 24.5, 74.5, ...
    heatmap = rectangle((2, 4), (0, 0, 1, 0))
    assert judge((0, 0), heatmap, [(0, 0, 99, 49)], SIDE).iou == 1
    assert judge((0, 0), heatmap, [(0, 0, 74.4, 49)], SIDE).iou == 0.5
    assert judge((0, 0), heatmap, [(0, 0, 74.5, 49)], SIDE).iou == 1
    assert judge((0, 0), heatmap, [(30, 30, 40, 40)], SIDE).iou == 0  # between the centres


# Many samples.


def test_accuracy_is_over_samples_and_class_mean_over_classes() -> None:
    records = hits(True, True, True, label="b") + hits(False, label="a")
    summary = summarise(records)["m"]
    assert summary.samples == 4
    assert summary.accuracy.value == 0.75
    assert summary.class_mean.value == 0.5
    assert summary.distance.value == pytest.approx(0.25 / 4)
    assert {name: each.value for name, each in summary.per_class.items()} == {"a": 0, "b": 1}
    assert [each.count for each in summary.per_class.values()] == [1, 3]
    assert summary.iou is None
    assert summary.auc is None


def test_groups_overlap() -> None:
    records = hits(True, False, groups=("left", "all")) + hits(True, groups=("all",))
    groups = summarise(records)["m"].per_group
    assert {name: (each.value, each.count) for name, each in groups.items()} == {
        "all": (pytest.approx(2 / 3), 3),
        "left": (0.5, 2),
    }


def test_methods_are_counted_over_their_own_samples() -> None:
    both = {"m": Outcome(0, 0, True, 0), "other": Outcome(0, 0, False, 0.5)}
    absent = Outcome(0, 0, None, None)
    records = [record(0, both), *hits(False), record(2, {"m": absent, "mute": absent})]
    found = summarise(records)
    assert list(found) == ["m", "other"]
    assert found["m"].samples == 3
    assert found["m"].accuracy.count == 2
    assert found["other"].accuracy == Estimate(0, 0, 0, 1)
    assert list(summarise(records, ["other"])) == ["other"]


@pytest.mark.parametrize("name", ["mute", "unknown"])
def test_a_method_that_cannot_be_judged_is_named(name: str) -> None:
    records = [*hits(True), record(1, {"mute": Outcome(0, 0, None, None)})]
    with pytest.raises(InvalidValueError, match=name):
        summarise(records, [name])


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="resamples: expected 100 or more, got 99"):
        summarise(hits(True), resamples=99)


# Intervals.


def test_what_does_not_vary_has_no_interval() -> None:
    assert summarise(hits(*[True] * 9))["m"].accuracy == Estimate(1, 1, 1, 9)


def test_the_interval_of_an_accuracy_is_the_binomials() -> None:
    # A resample's hits are binomial(n, p) exactly, so its quantiles are known.
    n, correct = 40, 30
    probabilities = [
        math.comb(n, k) * (correct / n) ** k * (1 - correct / n) ** (n - k) for k in range(n + 1)
    ]
    cumulated = np.cumsum(probabilities)
    low, high = (int(np.searchsorted(cumulated, level)) / n for level in (0.025, 0.975))
    found = summarise(hits(*[k < correct for k in range(n)]), resamples=4000)["m"].accuracy
    assert found.value == 0.75
    assert found.low == pytest.approx(low, abs=1.01 / n)  # one sample's step
    assert found.high == pytest.approx(high, abs=1.01 / n)  # one sample's step


def test_the_interval_of_a_share_is_the_binomials() -> None:
    found = share([place < 120 for place in range(400)], resamples=4000)
    spread = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    assert (found.value, found.count) == (pytest.approx(0.3), 400)
    assert found.low == pytest.approx(0.3 - spread, abs=0.006)
    assert found.high == pytest.approx(0.3 + spread, abs=0.006)


def test_a_class_that_a_resample_misses_is_left_out_of_its_mean() -> None:
    found = summarise(hits(*[True] * 20, label="b") + hits(True, label="a"))["m"]
    assert found.class_mean == Estimate(1, 1, 1, 21)
    # Of one sample, which a third of the resamples miss: their mean is the other class alone.
    found = summarise(hits(*[True] * 20, label="b") + hits(False, label="a"))["m"]
    assert found.class_mean == Estimate(0.5, 0.5, 1, 21)


def test_the_centre_is_between_the_middle_pixels() -> None:
    outcome = judge_centre([(2.5, 1.5, 2.5, 1.5)], (4, 6))
    assert (outcome.x, outcome.y, outcome.hit) == (2.5, 1.5, True)


def test_intervals_are_those_of_resamples_made_one_by_one() -> None:
    """Of a method that some samples lack, whose outcomes lack boxes, heatmaps and scores."""
    generator = np.random.default_rng(3)

    def outcome(key: int) -> Outcome:
        boxed, mapped, scored = key % 5 != 0, key % 4 != 1, key % 11 != 2
        hit, score = bool(generator.random() < 0.6), float(generator.integers(4)) / 4
        distance, iou = generator.random(2)
        return Outcome(
            0,
            0,
            hit if boxed else None,
            float(distance) if boxed else None,
            float(iou) if boxed and mapped else None,
            score if scored else None,
        )

    records = [
        record(
            key,
            {"n": outcome(key)} | ({} if key % 7 == 3 else {"m": outcome(key)}),
            label="xyz"[key % 3],
            groups=("even",) if key % 2 == 0 else (),
        )
        for key in range(60)
    ]
    found = summarise(records, seed=7, resamples=200)["m"]

    ordered = sorted(records, key=lambda each: each.label)
    draw = np.random.default_rng(7)
    drawn = [[ordered[k] for k in draw.integers(60, size=60)] for _ in range(200)]

    def interval(statistic) -> tuple[float, float]:
        low, high = np.quantile([statistic(sample) for sample in drawn], [0.025, 0.975])
        return pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6)

    def known(sample: Sequence[Record], name: str, part: str | None = None) -> list[Outcome]:
        return [
            each.outcomes["m"]
            for each in sample
            if "m" in each.outcomes
            and getattr(each.outcomes["m"], name) is not None
            and part in (None, each.label, *each.groups)
        ]

    def mean(name: str, part: str | None = None):
        return lambda sample: np.mean([getattr(o, name) for o in known(sample, name, part)])

    def auc(sample: Sequence[Record]) -> float:
        scores = [(o.score, o.hit is None) for o in known(sample, "score")]
        return brute_auc([s for s, gone in scores if not gone], [s for s, gone in scores if gone])

    assert found.auc is not None
    assert found.iou is not None
    for estimate, statistic in [
        (found.accuracy, mean("hit")),
        (found.class_mean, lambda sample: np.mean([mean("hit", k)(sample) for k in "xyz"])),
        (found.distance, mean("distance")),
        (found.iou, mean("iou")),
        (found.auc, auc),
        (found.per_class["y"], mean("hit", "y")),
        (found.per_group["even"], mean("hit", "even")),
    ]:
        assert (estimate.low, estimate.high) == interval(statistic)
        assert estimate.value == pytest.approx(statistic(ordered))


def test_the_order_of_labels_within_the_records_does_not_matter() -> None:
    records = hits(True, False, True, label="b") + hits(False, label="a")
    assert summarise(records) == summarise([records[3], *records[:3]])


# Presence.


def brute_auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    wins = [(p > n) + 0.5 * (p == n) for p, n in product(positive, negative)]
    return sum(wins) / len(wins)


SCORES = st.lists(st.integers(0, 4).map(lambda k: k / 4), min_size=1, max_size=8)


@given(SCORES, SCORES)
def test_area_under_the_curve_is_the_share_of_pairs_in_order(
    positive: list[float], negative: list[float]
) -> None:
    scores = np.array(positive + negative)
    present = np.arange(len(scores)) < len(positive)
    assert area_under_curve(scores, present)[0] == pytest.approx(brute_auc(positive, negative))


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [([0.8, 0.9], [0.1, 0.2], 1), ([0.1], [0.9, 0.8], 0), ([0.5, 0.5], [0.5], 0.5)],
)
def test_areas_in_closed_form(
    positive: list[float], negative: list[float], expected: float
) -> None:
    records = [
        record(key, {"m": Outcome(0, 0, True, 0, score=score)})
        for key, score in enumerate(positive)
    ]
    records += [
        record(key, {"m": Outcome(0, 0, None, None, score=score)})
        for key, score in enumerate(negative, 10)
    ]
    auc = summarise(records)["m"].auc
    assert auc is not None
    assert auc.value == expected
    assert auc.low <= expected <= auc.high
    assert auc.count == len(records)

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogem_ros.core.presence import (
    PresenceConfig,
    fit_calibration,
    presence_margin,
    presence_score,
)
from videogem_ros.errors import InvalidValueError

cosine = st.floats(-1, 1)


# The score.


def score(
    action: float, neutral: list[float], scale: float = 100.0, **calibration: float
) -> float:
    margin = presence_margin(np.float32(action), np.array(neutral, np.float32), scale)
    return float(presence_score(margin, PresenceConfig(**calibration)))


def test_an_action_that_fits_like_the_neutral_prompts_scores_one_half() -> None:
    assert score(0.25, [0.25, 0.25, 0.25]) == pytest.approx(0.5)


@pytest.mark.parametrize(("action", "neutral"), [(0.3, [0.27, 0.29]), (0.2, [0.25, 0.18, 0.22])])
def test_the_score_is_the_softmax_against_one_average_neutral_prompt(
    action: float, neutral: list[float]
) -> None:
    own = math.exp(100 * action)
    average = sum(math.exp(100 * n) for n in neutral) / len(neutral)
    assert score(action, neutral) == pytest.approx(own / (own + average), abs=1e-5)


def test_repeating_a_neutral_prompt_changes_nothing() -> None:
    assert score(0.3, [0.28]) == pytest.approx(score(0.3, [0.28] * 5))


def test_slope_and_offset_are_those_of_a_sigmoid_over_the_margin() -> None:
    margin = presence_margin(np.float32(0.31), np.array([0.3], np.float32), 100.0)
    found = score(0.31, [0.3], slope=2.5, offset=-1.0)
    assert found == pytest.approx(1 / (1 + math.exp(-(2.5 * float(margin) - 1.0))))


def test_scores_come_in_the_shape_of_the_cosines() -> None:
    action = np.array([[0.3, 0.2, 0.1], [0.0, 0.1, 0.4]], np.float32)  # frames, actions
    neutral = np.array([[[0.2, 0.25]], [[0.1, 0.3]]], np.float32)  # frames, 1, neutral prompts
    scores = presence_score(presence_margin(action, neutral, 100.0), PresenceConfig())
    assert scores.shape == (2, 3)
    for frame in range(2):
        for number in range(3):
            alone = score(action[frame, number], neutral[frame, 0].tolist())
            assert scores[frame, number] == pytest.approx(alone)


@given(
    action=cosine,
    neutral=st.lists(cosine, min_size=1, max_size=4),
    scale=st.floats(1e-3, 1e6),
    slope=st.floats(1e-6, 1e6),
    offset=st.floats(-1e6, 1e6),
)
def test_scores_lie_between_zero_and_one_whatever_the_margin(
    action: float, neutral: list[float], scale: float, slope: float, offset: float
) -> None:
    assert 0 <= score(action, neutral, scale, slope=slope, offset=offset) <= 1


@pytest.mark.parametrize(
    ("margin", "expected"), [(1e300, 1), (-1e300, 0), (np.inf, 1), (-np.inf, 0)]
)
def test_extreme_margins_saturate(margin: float, expected: float) -> None:
    with np.errstate(all="raise"):
        assert presence_score(np.array([margin]), PresenceConfig()) == [expected]


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=2, unique=True))
def test_a_larger_margin_never_scores_less(margins: list[float]) -> None:
    low, high = presence_score(np.sort(margins), PresenceConfig(slope=0.7, offset=3.0))
    assert low <= high


# The calibration.


def drawn(slope: float, offset: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Margins, and presence drawn with the probability that slope and offset say."""
    generator = np.random.default_rng(0)
    margins = generator.normal(0.5, 2.0, count)
    return margins, generator.random(count) < 1 / (1 + np.exp(-(slope * margins + offset)))


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.4, 1.5), (3.0, -2.0)])
def test_the_fit_recovers_the_calibration_that_the_data_were_drawn_from(
    slope: float, offset: float
) -> None:
    found = fit_calibration(*drawn(slope, offset))
    assert found == pytest.approx((slope, offset), rel=0.06, abs=0.06)


def test_the_fit_is_where_the_gradient_of_the_log_loss_vanishes() -> None:
    margins, present = drawn(0.8, -0.3, count=50)
    slope, offset = fit_calibration(margins, present)
    positives, negatives = present.sum(), (~present).sum()
    target = np.where(present, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    residual = 1 / (1 + np.exp(-(slope * margins + offset))) - target
    assert residual.sum() == pytest.approx(0, abs=1e-6)
    assert residual @ margins == pytest.approx(0, abs=1e-6)


def test_classes_that_separate_stay_finite() -> None:
    slope, offset = fit_calibration([-2.0, -1.0, 1.0, 2.0], [False, False, True, True])
    assert 0 < slope < 10
    assert abs(offset) < 1e-6
    config = PresenceConfig(slope=slope, offset=offset)
    low, high = presence_score(np.array([-2.0, 2.0]), config)
    assert low < 0.3
    assert high > 0.7


def test_the_fit_does_not_overshoot_where_full_steps_of_newton_s_method_would() -> None:
    # Two margins fix two numbers: the sigmoid is 13 / 14 at 2 and 1 / 3 at -5, Platt's targets.
    slope, offset = fit_calibration([2.0] * 12 + [-5.0], [True] * 12 + [False])
    assert slope == pytest.approx(math.log(13 * 2) / 7)
    assert offset == pytest.approx(math.log(13) - 2 * slope)


@pytest.mark.parametrize("shift", [0.0, 1e3, -1e4])
@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_the_fit_follows_a_change_of_units(unit: float, shift: float) -> None:
    margins, present = drawn(0.8, -0.3, count=200)
    slope, offset = fit_calibration(margins, present)
    scaled_slope, scaled_offset = fit_calibration(unit * margins + shift, present)
    assert scaled_slope * unit == pytest.approx(slope, rel=1e-3)
    assert scaled_offset + scaled_slope * shift == pytest.approx(offset, abs=1e-2)


@pytest.mark.parametrize(
    ("margins", "present", "field"),
    [
        ([1.0, 2.0], [True, True], "calibration.present"),
        ([1.0, 2.0], [False, False], "calibration.present"),
        ([], [], "calibration.present"),
        ([1.0, 2.0], [True], "calibration.margins"),
        ([[1.0], [2.0]], [[True], [False]], "calibration.margins"),
        ([2.0, 1.0], [False, True], "calibration.margins"),
        ([1.0, 1.0], [False, True], "calibration.margins"),
        ([1.0, math.nan, 0.0], [True, True, False], "calibration.margins"),
        ([1.0, math.inf, 0.0], [True, True, False], "calibration.margins"),
    ],
    ids=str,
)
def test_data_that_fix_no_calibration_are_refused(
    margins: list, present: list, field: str
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        fit_calibration(margins, present)
    assert caught.value.field == field


# The configuration.


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"neutral": ()}, "presence.neutral"),
        ({"neutral": ("a room", " ")}, "presence.neutral"),
        ({"neutral": "a room"}, "presence.neutral"),
        ({"neutral": ("a room", 1)}, "presence.neutral"),
        ({"slope": 0.0}, "presence.slope"),
        ({"slope": "2"}, "presence.slope"),
        ({"slope": -1.0}, "presence.slope"),
        ({"slope": math.inf}, "presence.slope"),
        ({"slope": math.nan}, "presence.slope"),
        ({"offset": math.nan}, "presence.offset"),
        ({"offset": -math.inf}, "presence.offset"),
        ({"threshold": -0.01}, "presence.threshold"),
        ({"threshold": 1.01}, "presence.threshold"),
        ({"threshold": math.nan}, "presence.threshold"),
    ],
    ids=str,
)
def test_values_outside_their_range_are_refused(values: dict, field: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        PresenceConfig(**values)
    assert caught.value.field == field


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_threshold_may_let_everything_or_next_to_nothing_count(threshold: float) -> None:
    assert PresenceConfig(threshold=threshold).threshold == threshold


def test_neutral_texts_may_come_as_a_list() -> None:
    assert PresenceConfig(neutral=["a room"]).neutral == ("a room",)

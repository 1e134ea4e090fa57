"""The search for settings, on features made so that the best ones are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from videogem_ros.core import GroundingConfig
from videogem_ros.core.backbones import Backbone
from videogem_ros.core.backbones.preprocessing import place
from videogem_ros.datatypes import Features
from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.examples import Example, Examples, Trial
from videogem_ros.evaluation.gram import Grams
from videogem_ros.evaluation.metrics import Estimate
from videogem_ros.evaluation.tuning import (
    Fold,
    Tuning,
    TuningConfig,
    compare_by_video,
    deal_videos,
    neighbour,
    search,
    starting_points,
    tune,
)

QUICK = TuningConfig(settings=60, folds=3)
SIDE, PATCHES, PATCH = 64, 4, 16


def made_up(
    backbone: Backbone,
    carriers: Sequence[int],
    *,
    prompts: Sequence[int] = (0, 1, 2),
    depths: Sequence[int] = (7,),
    count: int = 60,
    videos: int = 30,
) -> Examples:
    """Frames in which some terms point at the box and all others at another patch.

    Args:
        backbone: Whose LN_post and projection the features pass.
        carriers: Terms that point at the box; counted from the last, so for any K.
        prompts: Whose text they point with: 0 verb, 1 object, 2 action.
        depths: K.
        count: Frames.
        videos: From so many videos.
    """
    generator = torch.Generator().manual_seed(0)
    tower = backbone.tower
    width, size = tower.projection.shape
    text = torch.linalg.qr(torch.randn(size, 3, generator=generator)).Q.T  # (3, E), orthonormal
    # What the projection makes the texts of, free of mean as LN_post leaves things.
    solve = torch.linalg.pinv(torch.cat([tower.projection.float().T, torch.ones(1, width)]))
    towards = torch.cat([text[list(prompts)].sum(dim=0), torch.zeros(1)])
    push = torch.nn.functional.normalize(solve @ towards, dim=0) * 8
    examples = []
    for number in range(count):
        target, other = torch.randperm(PATCHES**2, generator=generator)[:2].tolist()
        grams = {}
        for depth in depths:
            terms = torch.randn(1, depth + 1, PATCHES**2, width, generator=generator)
            for term in range(depth + 1):
                terms[0, term, target if term - depth - 1 in carriers else other] += push
            classes = torch.randn(1, depth + 1, width, generator=generator)
            features = Features(terms, classes, (PATCHES, PATCHES), (0,))
            grams[depth] = Grams.of(features, text, tower)
        y, x = (PATCH * part for part in divmod(target, PATCHES))
        examples.append(
            Example(
                video=f"video {number % videos}",
                boxes=((x, y, x + PATCH - 1, y + PATCH - 1),),
                image_hw=(SIDE, SIDE),
                placement=place((SIDE, SIDE), (SIDE, SIDE), "stretch"),
                grams=grams,
            )
        )
    return Examples(examples, count)


# Known optima.


@pytest.mark.parametrize("carriers", [[-6], [-1], [-7, -4]], ids=str)
def test_the_terms_that_carry_the_answer_get_the_weight(
    tiny_image_backbone: Backbone, carriers: list[int]
) -> None:
    examples = made_up(tiny_image_backbone, carriers)
    tuning = tune(examples, GroundingConfig(), replace(QUICK, hold_out=True))
    weights = np.array(tuning.found.static_weights)
    assert {*weights.argsort()[-len(carriers) :] - 8} == {*carriers}
    assert weights[carriers].sum() > weights.sum() / 2
    assert tuning.default_accuracy.value < 0.2
    assert tuning.tuned_accuracy.value > 0.6
    assert tuning.difference.low > 0.4
    assert tuning.better


def test_the_k_whose_terms_carry_the_answer_is_found(tiny_image_backbone: Backbone) -> None:
    """All five terms of K = 4 point at the box; of K = 7, three do not."""
    examples = made_up(tiny_image_backbone, range(-5, 0), depths=(4, 7))
    blind = replace(GroundingConfig(), static_weights=(1.5, 1.5, 1.5, 0.1, 0.1, 0.1, 0.1, 0.1))
    tuning = tune(examples, blind, replace(QUICK, hold_out=True, settings=5))
    assert tuning.found.depth == 4
    assert tuning.better


def test_the_prompt_that_carries_the_answer_gets_the_weight(
    tiny_image_backbone: Backbone,
) -> None:
    examples = made_up(tiny_image_backbone, range(-8, 0), prompts=[1])
    tuning = tune(examples, GroundingConfig(), replace(QUICK, hold_out=True))
    assert tuning.found.fusion_weights[1] > tuning.default.fusion_weights[1]
    assert tuning.default_accuracy.value < 0.2
    assert tuning.tuned_accuracy.value > 0.9
    assert tuning.better


def test_where_nothing_is_to_be_found_the_setting_is_not_called_better(
    tiny_image_backbone: Backbone,
) -> None:
    """No term points at the box: whatever hits is luck, which held-out videos do not share."""
    tuning = tune(made_up(tiny_image_backbone, []), GroundingConfig(), QUICK)
    assert not tuning.better
    assert tuning.difference.low <= 0 <= tuning.difference.high


def test_a_perfect_default_stays(tiny_image_backbone: Backbone) -> None:
    examples = made_up(tiny_image_backbone, range(-8, 0))
    default = GroundingConfig(weighting="uniform", fusion="heatmaps")
    assert examples.judge(default).hits.all()
    tuning = tune(examples, default, QUICK)
    assert tuning.default_accuracy.value == 1
    assert not tuning.better


# Honesty.


def test_few_videos_show_nothing_however_much_they_agree(tiny_image_backbone: Backbone) -> None:
    examples = made_up(tiny_image_backbone, [-6], videos=10)
    few = tune(examples, GroundingConfig(), replace(QUICK, folds=2, hold_out=True))
    assert few.videos == 5
    assert few.difference.low > 0
    assert not few.better


def test_a_search_is_blind_to_what_is_held_out(tiny_image_backbone: Backbone) -> None:
    """Another answer in the held-out samples changes nothing of what is found."""
    examples = made_up(tiny_image_backbone, [-6])
    seen = np.arange(60) % 3 > 0

    class Lying(Examples):
        def __init__(self) -> None:
            self.__dict__ = examples.__dict__

        def judge(self, setting: GroundingConfig) -> Trial:
            trial = examples.judge(setting)
            return Trial(setting, trial.hits ^ ~seen, np.where(seen, trial.distances, 9.0))

    default = [GroundingConfig()]
    honest, lied = (
        search(one, [one.judge(s) for s in default], seen, 30, seed=1)
        for one in (examples, Lying())
    )
    assert honest.setting == lied.setting


@pytest.mark.parametrize("hold_out", [False, True])
def test_no_search_sees_what_it_is_judged_on_and_the_one_that_is_returned_comes_last(
    tiny_image_backbone: Backbone, monkeypatch: pytest.MonkeyPatch, hold_out: bool
) -> None:
    examples = made_up(tiny_image_backbone, [-6])
    seen, found = [], []

    def watched(
        of: Examples, starts: Sequence[Trial], mask: np.ndarray, *more: int, **options: Any
    ):
        seen.append(mask)
        found.append(search(of, starts, mask, *more, **options))
        return found[-1]

    monkeypatch.setattr("videogem_ros.evaluation.tuning.search", watched)
    tuning = tune(examples, GroundingConfig(), replace(QUICK, settings=20, hold_out=hold_out))
    held_out = deal_videos(examples.videos, 3, seed=0)
    nothing = np.zeros(60, bool)
    expected = held_out[:1] if hold_out else [*held_out, nothing]
    assert np.array_equal(seen, [~mask for mask in expected])
    assert len({trial.setting for trial in found}) == len(found)
    assert tuning.found == found[-1].setting


@pytest.mark.parametrize(("videos", "better"), [(5, False), (6, True)])
def test_six_videos_may_show_something(videos: int, better: bool) -> None:
    setting, above = GroundingConfig(), Estimate(0.3, 0.1, 0.5, 60)
    folds = (Fold(setting, videos - 2, 40, 30, 10), Fold(setting, 2, 20, 15, 5))
    assert Tuning(setting, setting, folds, above, above, above).better == better


def test_every_fold_is_judged_by_a_search_that_did_not_see_it(
    tiny_image_backbone: Backbone,
) -> None:
    examples = made_up(tiny_image_backbone, [-6], videos=7)
    tuning = tune(examples, GroundingConfig(), QUICK)
    assert sorted(fold.videos for fold in tuning.folds) == [2, 2, 3]
    assert sum(fold.samples for fold in tuning.folds) == tuning.difference.count == 60
    tuned, default = (
        sum(getattr(fold, name) for fold in tuning.folds) / 60 for name in ("tuned", "default")
    )
    assert tuning.tuned_accuracy.value == pytest.approx(tuned)
    assert tuning.default_accuracy.value == pytest.approx(default)
    held_out = deal_videos(examples.videos, 3, seed=0)
    for mask, fold in zip(held_out, tuning.folds):
        assert examples.judge(fold.setting).hits[mask].sum() == fold.tuned


def test_a_single_hold_out_measures_what_it_returns(tiny_image_backbone: Backbone) -> None:
    examples = made_up(tiny_image_backbone, [-6])
    tuning = tune(examples, GroundingConfig(), replace(QUICK, hold_out=True))
    (fold,) = tuning.folds
    assert fold.setting == tuning.found
    assert fold.samples == tuning.difference.count < 60


def test_the_seed_decides_everything(tiny_image_backbone: Backbone) -> None:
    examples = made_up(tiny_image_backbone, [-6])
    one, two, other = (
        tune(examples, GroundingConfig(), replace(QUICK, settings=20, seed=seed))
        for seed in (0, 0, 1)
    )
    assert one == two
    assert one.found != other.found


def test_progress_counts_every_setting(tiny_image_backbone: Backbone) -> None:
    told: list[tuple[int, int]] = []
    config = TuningConfig(settings=4, folds=2)
    tune(
        made_up(tiny_image_backbone, [-1], count=8),
        GroundingConfig(),
        config,
        progress=lambda *numbers: told.append(numbers),
    )
    # 4 weightings x 2 fusions, of which one is the default, 8 terms, 3 prompts; three searches.
    assert told == [(done, 8 + 8 + 3 + 3 * 4) for done in range(1, 32)]


# Parts.


def test_whole_videos_are_dealt_into_parts_of_like_size() -> None:
    generator = np.random.default_rng(0)
    videos = np.array([f"v{number}" for number in generator.integers(0, 40, 500)])
    parts = deal_videos(videos, 5, seed=3)
    assert (np.sum(parts, axis=0) == 1).all()
    assert all(len({*videos[part]} & {*videos[~part]}) == 0 for part in parts)
    assert max(part.sum() for part in parts) - min(part.sum() for part in parts) < 40
    again, other = deal_videos(videos, 5, seed=3), deal_videos(videos, 5, seed=4)
    assert np.array_equal(parts, again)
    assert not np.array_equal(parts, other)


def test_a_long_video_counts_for_as_many_as_its_samples() -> None:
    videos = np.array(["long"] * 10 + [f"short {number}" for number in range(10)])
    sizes = [[part.sum() for part in deal_videos(videos, 2, seed)] for seed in range(20)]
    # Dealt early, it leaves nearly all others to the other part.
    assert min(abs(one - other) for one, other in sizes) <= 2


def test_every_video_may_be_a_part_of_its_own() -> None:
    parts = deal_videos(np.array(["a", "b", "b", "c"]), 3, seed=0)
    assert sorted(part.sum() for part in parts) == [1, 1, 2]


def test_intervals_are_those_of_resampled_videos() -> None:
    """One frame a video: the normal approximation of a paired difference; copies add nothing."""
    generator = np.random.default_rng(1)
    tuned, before = generator.random(400) < 0.7, generator.random(400) < 0.6
    videos = np.arange(400).astype(str)
    estimates = compare_by_video(tuned, before, videos, seed=0)
    difference = tuned.astype(float) - before
    for found, values in zip(estimates, (tuned, before, difference)):
        error = 1.96 * np.std(values) / 20
        assert found.value == pytest.approx(np.mean(values))
        assert found.low == pytest.approx(np.mean(values) - error, abs=0.01)
        assert found.high == pytest.approx(np.mean(values) + error, abs=0.01)
    copied = compare_by_video(*(np.repeat(v, 5) for v in (tuned, before, videos)), seed=0)
    for found, alone in zip(copied, estimates):
        assert (found.value, found.low, found.high) == (alone.value, alone.low, alone.high)


def test_equal_settings_differ_by_nothing() -> None:
    hits = np.arange(30) % 2 == 0
    *_, difference = compare_by_video(hits, hits, np.arange(30).astype(str), seed=0)
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_neighbours_are_valid_and_smaller_steps_nearer() -> None:
    generator = np.random.default_rng(0)
    setting, far, near = GroundingConfig(), [], []
    for _ in range(300):  # a random walk; a setting that is not valid raises
        for step, changes in ((0.3, far), (0.03, near)):
            other = neighbour(GroundingConfig(), step, (7,), generator)
            difference = np.subtract(other.static_weights, GroundingConfig().static_weights)
            changes.append(np.abs(difference).sum())
        setting = neighbour(setting, 0.3, (3, 5, 7), generator)
        assert setting.depth in (3, 5, 7)
        assert sum(setting.fusion_weights) == pytest.approx(1)
        assert all(round(w, 2) == w for w in (*setting.static_weights, *setting.fusion_weights))
    assert np.mean(near) < np.mean(far) / 5


def test_searches_start_from_every_k_weighting_fusion_term_and_prompt() -> None:
    starts = starting_points(GroundingConfig(fusion="heatmaps"), (5, 7))
    assert starts[0] == GroundingConfig(fusion="heatmaps")
    assert len(set(starts)) == len(starts) == 2 * (4 * 2 + 3) + 6 + 8
    alone = [one for one in starts if max(one.static_weights) == sum(one.static_weights)]
    assert len({one.static_weights for one in alone}) == len(alone) == 6 + 8


# Bad input.


def test_fewer_videos_than_parts_is_an_error(tiny_image_backbone: Backbone) -> None:
    examples = made_up(tiny_image_backbone, [-1], count=8, videos=2)
    with pytest.raises(InvalidValueError, match="folds: expected at most the number of videos, 2"):
        tune(examples, GroundingConfig(), TuningConfig(folds=3))


def test_a_default_that_was_not_encoded_is_an_error(tiny_image_backbone: Backbone) -> None:
    examples = made_up(tiny_image_backbone, [-1], count=8, depths=(4,))
    with pytest.raises(InvalidValueError, match="depth"):
        tune(examples, GroundingConfig(), QUICK)


@pytest.mark.parametrize("wrong", [{"settings": 0}, {"folds": 1}, {"seed": -1}], ids=str)
def test_numbers_out_of_range_are_errors(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidValueError, match=next(iter(wrong))):
        TuningConfig(**wrong)

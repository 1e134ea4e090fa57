"""Fitting what the paper sets by hand: layer weights, K, D, the dynamics and the fusion.

A setting is a :class:`~videogem_ros.core.GroundingConfig`. A search sees the samples of some
videos and judges settings on them without the encoder; the accuracy of the setting that it finds
is reported on the other videos.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from videogem_ros.core.configuration import FUSIONS, WEIGHTINGS, GroundingConfig
from videogem_ros.datatypes import PROMPT_KINDS
from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.examples import Examples, Mask, Trial, with_depth
from videogem_ros.evaluation.metrics import INTERVAL, Estimate

RESAMPLES = 2000
"""Bootstrap resamples of the videos, for the intervals."""

LEAST_VIDEOS = 6
"""Fewer held-out videos show nothing, whatever they agree on: 2 / 2^5 > 0.05 (sign test)."""

MOST_WEIGHT = 1.5
"""Layer weights are searched from 0 to this; LN_post removes their common scale."""

MOST_SCALE = 200.0
"""Greatest dynamic scale, at which the most important term gets nearly all the weight."""

FIRST_STEP, LAST_STEP = 0.3, 0.03
"""Standard deviation of a change at the beginning and the end of a search, in full ranges."""

CHANGED, SWITCHED = 0.3, 0.2
"""Share of the numbers that a step changes; probability that it draws K, or the fusion, anew."""


def starting_points(default: GroundingConfig, depths: Sequence[int]) -> list[GroundingConfig]:
    """The settings that every search tries first.

    Args:
        default: Gives all other values; comes first, where its K is one of ``depths``.
        depths: Every K to try.

    Returns:
        For each K, every weighting with every fusion, and every term and every prompt alone.
    """
    starts = [default] if default.depth in depths else []
    for depth in depths:
        base = with_depth(default, depth)
        starts += [
            replace(base, weighting=weighting, fusion=fusion)
            for weighting in WEIGHTINGS
            for fusion in FUSIONS
        ]
        starts += [
            replace(base, weighting="static", static_weights=tuple(row))
            for row in np.eye(depth + 1).tolist()
        ]
        starts += [
            replace(base, fusion_weights=tuple(row)) for row in np.eye(len(PROMPT_KINDS)).tolist()
        ]
    return list(dict.fromkeys(starts))


def neighbour(
    setting: GroundingConfig, step: float, depths: Sequence[int], generator: np.random.Generator
) -> GroundingConfig:
    """A random setting near another one.

    Args:
        setting: The other one.
        step: Standard deviation of the changes, relative to each number's range.
        depths: Every K to try.
        generator: Source of randomness.
    """
    if generator.random() < SWITCHED:
        setting = with_depth(setting, int(generator.choice(depths)))
    if generator.random() < SWITCHED:
        setting = replace(setting, fusion=str(generator.choice(FUSIONS)))
    numbers = _numbers(setting)
    changed = generator.random(len(numbers)) < CHANGED
    changed[generator.integers(len(numbers))] = True
    moved = numbers + step * generator.standard_normal(len(numbers)) * changed
    return _from_numbers(moved.clip(0, 1), setting)


def _numbers(setting: GroundingConfig) -> npt.NDArray[np.float64]:
    """Static weights, D, dynamic scale and fusion weights, each in [0, 1]."""
    static = setting.static_weights if setting.uses_static else (1.0,) * (setting.depth + 1)
    scale = setting.dynamic_scale if setting.uses_dynamic else 0.0
    numbers = [
        *np.divide(static, MOST_WEIGHT),
        (setting.dynamic_depth - 0.5) / setting.depth,
        np.sqrt(scale / MOST_SCALE),  # finer near zero
        *setting.fusion_weights,
    ]
    return np.asarray(np.clip(numbers, 0, 1))


def _from_numbers(numbers: npt.NDArray[np.float64], setting: GroundingConfig) -> GroundingConfig:
    """The inverse of :func:`_numbers`, rounded; K and fusion are taken from the setting."""
    static, (last, scale), fusion = np.split(numbers, [setting.depth + 1, setting.depth + 3])
    static = (MOST_WEIGHT * static).round(2)
    scale = round(MOST_SCALE * float(scale) ** 2, 1)
    if not static.any() or not fusion.any():  # nothing would be left
        return setting
    percent = np.floor(100 * fusion / fusion.sum())
    percent[percent.argmax()] += 100 - percent.sum()
    return replace(
        setting,
        weighting="static+dynamic" if scale else "static",
        static_weights=tuple(static.tolist()),
        dynamic_depth=min(int(last * setting.depth) + 1, setting.depth),
        dynamic_scale=scale,
        fusion_weights=tuple((percent / 100).tolist()),
    )


def search(
    examples: Examples,
    starts: Sequence[Trial],
    seen: Mask,
    settings: int,
    *,
    seed: int,
    tick: Callable[[], None] = lambda: None,
) -> Trial:
    """Searches for the setting with the most hits.

    A random local search: it starts from the best of the starts, with steps that become smaller,
    and keeps each step that improves the score.

    Args:
        examples: Examples to judge on.
        starts: Trials of the starting points; of equally good ones the first is taken.
        seen: (S,) mask of the examples that count.
        settings: Number of settings to judge.
        seed: Seed of the steps.
        tick: Called after each setting.

    Returns:
        The best trial on the examples seen.
    """
    generator = np.random.default_rng(seed)
    best = max(starts, key=lambda trial: trial.score(seen))
    for step in np.geomspace(FIRST_STEP, LAST_STEP, settings):
        trial = examples.judge(neighbour(best.setting, step, examples.depths, generator))
        if trial.score(seen) > best.score(seen):
            best = trial
        tick()
    return best


@dataclass(frozen=True)
class Fold:
    """One search and its result on the videos that it did not see.

    Attributes:
        setting: The setting found.
        videos: Number of held-out videos.
        samples: Number of samples in these videos.
        tuned: Their hits with the setting found.
        default: Their hits with the default.
    """

    setting: GroundingConfig
    videos: int
    samples: int
    tuned: int
    default: int


@dataclass(frozen=True)
class Tuning:
    """What tuning found, and how reliable that is.

    Attributes:
        default: The setting before tuning.
        found: The best setting.
        folds: Searches with held-out videos.
        tuned_accuracy: On held-out samples, each with the setting of the search that did not see
            its video.
        default_accuracy: Of the default on the same samples.
        difference: Tuned minus default, paired: both on the same resampled videos.
    """

    default: GroundingConfig
    found: GroundingConfig
    folds: tuple[Fold, ...]
    tuned_accuracy: Estimate
    default_accuracy: Estimate
    difference: Estimate

    @property
    def videos(self) -> int:
        """How many videos were held out of a search."""
        return sum(fold.videos for fold in self.folds)

    @property
    def better(self) -> bool:
        """Whether held-out videos show that tuning helps: enough of them, interval above zero."""
        return self.videos >= LEAST_VIDEOS and self.difference.low > 0


@dataclass(frozen=True)
class TuningConfig:
    """How to search and how to hold out.

    Attributes:
        settings: Settings judged in each search, besides the starts that all searches share.
        folds: Number of parts that the videos are split into; each is held out of one search.
        hold_out: Whether to hold out one part only: the setting of a single search is measured
            and returned. Otherwise all parts are held out in turn, and the setting returned is
            that of one more search, which sees everything.
        seed: Seed of everything random.

    Raises:
        InvalidValueError: Fewer than one setting or two folds.
    """

    settings: int = 300
    folds: int = 5
    hold_out: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("settings", 1), ("folds", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise InvalidValueError(name, f"{least} or more", getattr(self, name))


def tune(
    examples: Examples,
    default: GroundingConfig,
    config: TuningConfig | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tuning:
    """Searches for a setting and measures on held-out videos how much it improves.

    Args:
        examples: Encoded samples of several videos.
        default: What to compare with and to start from; its K is one of the examples'.
        config: The defaults of :class:`TuningConfig` where None.
        progress: Called with the number of settings judged so far, and their total.

    Returns:
        The setting and the measure. Deterministic: the same examples and configuration give the
        same result.

    Raises:
        InvalidValueError: Fewer videos than folds, or a default of a K that was not encoded.
    """
    config = config or TuningConfig()
    if default.depth not in examples.depths:
        raise InvalidValueError(
            "depth", f"depths with the default's {default.depth}", examples.depths
        )
    held_out = deal_videos(examples.videos, config.folds, config.seed)
    masks = held_out[:1] if config.hold_out else [*held_out, np.zeros_like(held_out[0])]
    settings = starting_points(default, examples.depths)
    total = len(settings) + len(masks) * config.settings
    done = itertools.count(1)

    def tick() -> None:
        progress(next(done), total)

    starts = []
    for setting in settings:
        starts.append(examples.judge(setting))
        tick()
    best = [
        search(examples, starts, ~mask, config.settings, seed=config.seed + number, tick=tick)
        for number, mask in enumerate(masks)
    ]
    tuned, before = np.zeros((2, len(examples.videos)), dtype=bool)
    folds = []
    measured = masks if config.hold_out else held_out
    for mask, trial in zip(measured, best):
        tuned[mask], before[mask] = trial.hits[mask], starts[0].hits[mask]
        folds.append(
            Fold(
                trial.setting,
                len(set(examples.videos[mask])),
                int(mask.sum()),
                int(tuned[mask].sum()),
                int(before[mask].sum()),
            )
        )
    rows = np.any(measured, axis=0)
    estimates = compare_by_video(
        tuned[rows], before[rows], examples.videos[rows], seed=config.seed
    )
    return Tuning(default, best[-1].setting, tuple(folds), *estimates)


def check_videos(videos: Iterable[str], folds: int) -> None:
    """Refuse too few videos to hold some out.

    Args:
        videos: The samples' videos.
        folds: Number of parts to split them into.

    Raises:
        InvalidValueError: There are fewer videos than parts.
    """
    count = len(set(videos))
    if count < folds:
        expected = f"at most the number of videos, {count} (stretch_s splits long ones)"
        raise InvalidValueError("folds", expected, folds)


def deal_videos(videos: npt.NDArray[np.str_], folds: int, seed: int) -> list[Mask]:
    """Splits videos into parts of about equally many samples.

    Args:
        videos: (S,) each sample's video.
        folds: Number of parts.
        seed: Seed of the order in which videos are assigned, each to the smallest part.

    Returns:
        (S,) masks of the parts' samples.

    Raises:
        InvalidValueError: There are fewer videos than parts.
    """
    check_videos(videos.tolist(), folds)
    counts = Counter(videos.tolist())
    order = np.random.default_rng(seed).permutation(sorted(counts))
    sizes = [0] * folds
    part_of = {}
    for video in order.tolist():
        part_of[video] = part = sizes.index(min(sizes))
        sizes[part] += counts[video]
    parts = np.array([part_of[video] for video in videos.tolist()])
    return [parts == part for part in range(folds)]


def compare_by_video(
    tuned: Mask, before: Mask, videos: npt.NDArray[np.str_], *, seed: int
) -> tuple[Estimate, Estimate, Estimate]:
    """Accuracies of two settings and their difference, with intervals.

    Whole videos are drawn with replacement (cluster bootstrap, Davison and Hinkley 1997, 3.8),
    because frames of one video succeed and fail together; both settings are judged on the same
    draws.

    Args:
        tuned: (S,) hits of one setting.
        before: (S,) hits of the other.
        videos: (S,) each sample's video.
        seed: Seed of the draws.

    Returns:
        Accuracy of ``tuned``, of ``before``, and their difference, as fractions.
    """
    names, of_sample = np.unique(videos, return_inverse=True)
    hits = np.stack(
        [
            np.bincount(of_sample, weights=values)
            for values in (tuned, before, np.ones(len(videos)))
        ]
    )  # (3, V): hits, hits, samples
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES
    )
    totals = np.concatenate([hits.sum(axis=1)[:, None], hits @ draws.T], axis=1)  # (3, 1 + R)
    one, other = totals[0] / totals[2], totals[1] / totals[2]

    def estimate(values: npt.NDArray[np.float64]) -> Estimate:
        low, high = np.quantile(values[1:], INTERVAL)
        return Estimate(float(values[0]), float(low), float(high), len(videos))

    return estimate(one), estimate(other), estimate(one - other)

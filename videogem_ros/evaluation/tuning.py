"""Fitting what the paper sets by hand: layer weights, K, D, the dynamics and the fusion.

A setting is a :class:`~videogem_ros.core.GroundingConfig`. A search sees the samples of some
videos and judges settings on them without the encoder; what is reported is how the setting that it
found does on the other videos.
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
"""Of the videos, for the intervals."""

LEAST_VIDEOS = 6
"""Fewer held-out videos show nothing, whatever they agree on: 2 / 2^5 > 0.05 (sign test)."""

MOST_WEIGHT = 1.5
"""Layer weights are searched from 0 to this; LN_post takes their common scale out again."""

MOST_SCALE = 200.0
"""Greatest dynamic scale; there the most needed term gets nearly all."""

FIRST_STEP, LAST_STEP = 0.3, 0.03
"""Standard deviation of a change at the beginning and at the end of a search, of a full range."""

CHANGED, SWITCHED = 0.3, 0.2
"""Share of the numbers that one step changes; how often K, and the fusion, are drawn anew."""


def starting_points(default: GroundingConfig, depths: Sequence[int]) -> list[GroundingConfig]:
    """The settings that every search tries first.

    Args:
        default: Gives the values, as far as they go; is itself the first, where its K is one of
            ``depths``.
        depths: The K that may be tried.

    Returns:
        For each K, every weighting with every fusion, every term and every prompt alone.
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
        step: Standard deviation of what changes, relative to its range.
        depths: The K that may be tried.
        generator: Decides.
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
    """The inverse of :func:`_numbers`, in few decimals; K and fusion are the setting's."""
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
    """Looks for a setting that hits most.

    A random local search: from the best of the starts, steps that become smaller, each kept where
    it does better.

    Args:
        examples: To judge on.
        starts: Judged already; of equals the first is preferred.
        seen: (S,) the examples that count.
        settings: How many more may be judged.
        seed: Decides the steps.
        tick: Called after each.

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
    """One search and what became of it on videos that it did not see.

    Attributes:
        setting: That it found.
        videos: How many were held out.
        samples: Of those videos.
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
    """What tuning found, and how far that can be believed.

    Attributes:
        default: The setting that was there before.
        found: The best setting.
        folds: Searches with held-out videos.
        tuned_accuracy: On held-out samples, each with the setting of the search that did not see
            its video.
        default_accuracy: Of the default on the same samples.
        difference: Tuned less default, paired: both on the same resampled videos.
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
        settings: Judged in each search, beside the starts that all searches share.
        folds: Parts that the videos are dealt into; each is held out of one search.
        hold_out: Whether to hold out one part only: one search, whose setting is what is measured
            and returned. Otherwise all parts are held out in turn and the setting returned is that
            of one more search, which sees everything.
        seed: Of everything random.

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
    """Searches for a setting and measures on held-out videos what searching is worth.

    Args:
        examples: Encoded samples of several videos.
        default: What to compare with and to start from; its K is one of the examples'.
        config: The defaults of :class:`TuningConfig` where None.
        progress: Told how many settings have been judged, and how many will be.

    Returns:
        The setting and the measure. Deterministic: the same examples and configuration give the
        same result.

    Raises:
        InvalidValueError: Fewer videos than folds, or a default of a K that was not encoded.
    """
    config = config or TuningConfig()
    if default.depth not in examples.depths:
        raise InvalidValueError(
            "depth", f"the default's {default.depth} among them", examples.depths
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
    """Whether there are enough videos to hold some out.

    Args:
        videos: Of the samples.
        folds: Parts that they are to be dealt into.

    Raises:
        InvalidValueError: There are fewer videos than parts.
    """
    count = len(set(videos))
    if count < folds:
        expected = f"at most as many as there are videos, {count} (stretch_s parts long ones)"
        raise InvalidValueError("folds", expected, folds)


def deal_videos(videos: npt.NDArray[np.str_], folds: int, seed: int) -> list[Mask]:
    """Deals whole videos into parts of about as many samples.

    Args:
        videos: (S,) each sample's.
        folds: How many parts.
        seed: Of the order in which videos are dealt, each to the smallest part.

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
        videos: (S,) each sample's.
        seed: Of the draws.

    Returns:
        Accuracy of the one, of the other, and the first less the second, as fractions.
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

"""From points and heatmaps to outcomes, and from outcomes to numbers with intervals.

Every number is a mean over samples (or, for the presence score, a rank statistic), so all numbers
and methods share one set of bootstrap resamples, and differences between methods do not suffer
from different draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.records import Box, Outcome, Record

INTERVAL = (0.025, 0.975)
"""Quantiles of the bootstrap distribution that bound an interval."""

LEAST_RESAMPLES = 100
"""With fewer, the quantiles mean nothing and a rare class can be missing in all of them."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % percentile bootstrap interval (Efron 1979).

    Attributes:
        value: Over the samples as they are; accuracies as fractions in [0, 1].
        low: 2.5 % quantile over the resamples.
        high: 97.5 % quantile over the resamples.
        count: Samples it was computed from.
    """

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Summary:
    """How well one method did.

    Attributes:
        method: Its name in the records' outcomes.
        samples: Records with an outcome of the method, with a box or without.
        accuracy: Pointing game over all samples with a box.
        class_mean: Mean over classes of the accuracy in each.
        distance: Mean distance to the nearest box over the image's diagonal.
        iou: Mean IoU of the thresholded heatmap; None where the method has no heatmaps.
        auc: Area under the ROC curve of the presence score; None without scores, or where the
            action is in all frames or in none.
        per_class: Accuracy by label, labels in order.
        per_group: Accuracy by group, groups in order.
    """

    method: str
    samples: int
    accuracy: Estimate
    class_mean: Estimate
    distance: Estimate
    iou: Estimate | None
    auc: Estimate | None
    per_class: Mapping[str, Estimate]
    per_group: Mapping[str, Estimate]


def judge(
    point: tuple[float, float],
    heatmap: npt.NDArray[np.float32] | None,
    boxes: Sequence[Box],
    image_hw: tuple[int, int],
    score: float | None = None,
) -> Outcome:
    """Compares a method's output for a sample with the sample's boxes.

    Args:
        point: x and y in pixels of the source image.
        heatmap: (h, w), of any resolution, over the whole source image; None without one.
        boxes: In pixels of the source image; none where the action is not in the frame.
        image_hw: Height and width of the source image.
        score: Presence score in [0, 1]; None without one.

    Returns:
        Hit (in a box, borders included), distance to the nearest box over the image's diagonal,
        and IoU of the union of the boxes with the heatmap's part at half its maximum or more.
    """
    x, y = point
    if not boxes:
        return Outcome(x, y, hit=None, distance=None, score=score)
    distance = min(
        math.hypot(max(x1 - x, 0, x - x2), max(y1 - y, 0, y - y2)) for x1, y1, x2, y2 in boxes
    )
    iou = None if heatmap is None else _iou(heatmap, boxes, image_hw)
    return Outcome(x, y, distance == 0, distance / math.hypot(*image_hw), iou, score)


def judge_centre(boxes: Sequence[Box], image_hw: tuple[int, int]) -> Outcome:
    """The outcome of pointing at the image's centre, as for :func:`judge`."""
    height, width = image_hw
    return judge(((width - 1) / 2, (height - 1) / 2), None, boxes, image_hw)


def _iou(
    heatmap: npt.NDArray[np.float32], boxes: Sequence[Box], image_hw: tuple[int, int]
) -> float:
    """At the heatmap's resolution; a cell is in a box when its centre is, borders included."""
    rows, columns = heatmap.shape
    # Centres of the cells in source pixels, whose own centres are whole numbers.
    y = (np.arange(rows)[:, None] + 0.5) * image_hw[0] / rows - 0.5
    x = (np.arange(columns) + 0.5) * image_hw[1] / columns - 0.5
    inside = np.zeros(heatmap.shape, dtype=bool)
    for x1, y1, x2, y2 in boxes:
        inside |= (x1 <= x) & (x <= x2) & (y1 <= y) & (y <= y2)
    hot = heatmap >= heatmap.max() / 2
    return float((hot & inside).sum() / (hot | inside).sum())


def summarise(
    records: Sequence[Record],
    methods: Sequence[str] | None = None,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Summary]:
    """Accuracy, distance, IoU and presence AUC of every method, with bootstrap intervals.

    Samples are drawn with replacement, as many as there are. A class that a resample misses is
    left out of that resample's class mean.

    Args:
        records: Of one run, or of any part of it.
        methods: Methods to summarise; where None all that have an outcome for a sample with a box,
            in the order in which they appear.
        seed: Seed of the resampling.
        resamples: Number of resamples.

    Returns:
        Summaries by method.

    Raises:
        InvalidValueError: A method without an outcome for any sample with a box, or fewer than
            ``LEAST_RESAMPLES``.
    """
    if resamples < LEAST_RESAMPLES:
        raise InvalidValueError("resamples", f"{LEAST_RESAMPLES} or more", resamples)
    records = sorted(records, key=lambda record: record.label)
    if methods is None:
        methods = list(
            dict.fromkeys(
                name
                for record in records
                for name, outcome in record.outcomes.items()
                if outcome.hit is not None
            )
        )
    draws = _draw(len(records), resamples, seed)
    return {name: _summary(name, records, draws) for name in methods}


def share(said: Sequence[bool], *, seed: int = 0, resamples: int = 1000) -> Estimate:
    """The share of true values among at least one, with an interval as in :func:`summarise`."""
    return _mean(np.array(said, dtype=float), _draw(len(said), resamples, seed))


def _draw(count: int, resamples: int, seed: int) -> npt.NDArray[np.float32]:
    """(resamples, count): how often each sample is in each resample."""
    generator = np.random.default_rng(seed)
    draws = np.empty((resamples, count), dtype=np.float32)
    for row in draws:
        row[:] = np.bincount(generator.integers(count, size=count), minlength=count)
    return draws


def _summary(name: str, records: Sequence[Record], draws: npt.NDArray[np.float32]) -> Summary:
    """The summary of one method; records are sorted by label."""
    there = [index for index, record in enumerate(records) if name in record.outcomes]
    outcomes = [records[index].outcomes[name] for index in there]
    boxed = [
        (index, records[index], outcome)
        for index, outcome in zip(there, outcomes)
        if outcome.hit is not None
    ]
    if not boxed:
        raise InvalidValueError("methods", "names with an outcome for a sample with a box", name)
    hits = np.array([outcome.hit for _, _, outcome in boxed], dtype=float)
    weights = draws[:, [index for index, _, _ in boxed]]

    labels, starts, sizes = np.unique(
        [record.label for _, record, _ in boxed], return_index=True, return_counts=True
    )
    class_hits = np.add.reduceat(hits, starts) / sizes
    with np.errstate(invalid="ignore"):  # 0 / 0: a class that a resample misses
        class_draws = np.add.reduceat(weights * hits.astype(np.float32), starts, axis=1)
        class_draws /= np.add.reduceat(weights, starts, axis=1)
        seen = ~np.isnan(class_draws)
        mean_draws = class_draws.sum(axis=1, where=seen) / seen.sum(axis=1)

    groups = sorted({group for _, record, _ in boxed for group in record.groups})
    members = {
        group: np.array([group in record.groups for _, record, _ in boxed]) for group in groups
    }
    return Summary(
        method=name,
        samples=len(outcomes),
        accuracy=_mean(hits, weights),
        class_mean=_estimate(class_hits.mean(), mean_draws, len(boxed)),
        distance=_mean(np.array([outcome.distance for _, _, outcome in boxed], float), weights),
        iou=_mean_of_known([outcome.iou for _, _, outcome in boxed], weights),
        auc=_auc_estimate(outcomes, draws[:, there]),
        per_class={
            str(label): _estimate(class_hits[k], class_draws[:, k], int(sizes[k]))
            for k, label in enumerate(labels)
        },
        per_group={group: _mean(hits[of], weights[:, of]) for group, of in members.items()},
    )


def _estimate(value: float, draws: npt.NDArray[np.floating], count: int) -> Estimate:
    low, high = np.nanquantile(draws, INTERVAL)
    return Estimate(float(value), float(low), float(high), count)


def _mean(values: Floats, weights: npt.NDArray[np.float32]) -> Estimate:
    """The mean of (n,) values, with the (R, n) weights of the resamples."""
    with np.errstate(invalid="ignore"):
        draws = weights @ values.astype(np.float32) / weights.sum(axis=1)
    return _estimate(values.mean(), draws, len(values))


def _mean_of_known(
    values: Sequence[float | None], weights: npt.NDArray[np.float32]
) -> Estimate | None:
    known = [index for index, value in enumerate(values) if value is not None]
    if not known:
        return None
    return _mean(np.array([values[index] for index in known], float), weights[:, known])


def _auc_estimate(
    outcomes: Sequence[Outcome], weights: npt.NDArray[np.float32]
) -> Estimate | None:
    scored = [index for index, outcome in enumerate(outcomes) if outcome.score is not None]
    scores = np.array([outcomes[index].score for index in scored], dtype=float)
    present = np.array([outcomes[index].hit is not None for index in scored], dtype=bool)
    if not present.any() or present.all():
        return None
    value = area_under_curve(scores, present)
    return _estimate(value[0], area_under_curve(scores, present, weights[:, scored]), len(scored))


def area_under_curve(
    scores: Floats,
    present: npt.NDArray[np.bool_],
    weights: npt.NDArray[np.float32] | None = None,
) -> Floats:
    """Probability that a frame with the action scores higher than one without; ties count half.

    The Mann-Whitney statistic, which is the area under the ROC curve (Hanley and McNeil 1982).

    Args:
        scores: (n,).
        present: (n,) whether the action was there.
        weights: (R, n) how often each counts, in R resamples; once, in one, where None.

    Returns:
        (R,) areas in [0, 1]; NaN where a resample lacks one of the two kinds.
    """
    if weights is None:
        weights = np.ones((1, len(scores)), dtype=np.float32)
    order = np.argsort(scores)
    weights, present = weights[:, order], present[order]
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)  # of equal scores
    positive, negative = (
        np.add.reduceat(weights * kind, starts, axis=1, dtype=float)
        for kind in (present, ~present)
    )
    below = np.cumsum(negative, axis=1) - negative
    wins = (positive * (below + negative / 2)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(wins / (positive.sum(axis=1) * negative.sum(axis=1)))

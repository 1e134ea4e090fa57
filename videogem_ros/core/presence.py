"""Whether the action is present at all: a score in [0, 1] from the class token.

A heatmap always has a maximum, so a point alone cannot mean "not here". The class token can: the
backbone was trained to compare it with whole texts. With s the backbone's logit scale (100 for
CLIP), a the cosine of class token and action prompt and n_j those with the neutral prompts,

    margin = s a - log mean_j exp(s n_j)
    score  = sigmoid(slope * margin + offset)

With slope 1 and offset 0 the score is the softmax probability of the action against one average
neutral prompt, which is how the contrastive loss itself was calibrated: 0.5 means "no better than
neutral". :func:`fit_calibration` fits both numbers to labelled margins of one's own scenes by
Platt's method. A weight file may contain such a fit (``presence_fit``, as the shipped ones do);
slope and offset are then applied to the fitted margins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt

from videogem_ros.errors import InvalidValueError, check_range


@dataclass(frozen=True)
class PresenceConfig:
    """What an action is compared with, and when it counts as present.

    Attributes:
        neutral: Texts that fit a frame in which nothing in particular is done.
        slope: Slope of Platt's sigmoid over the margin, above zero.
        offset: Offset of Platt's sigmoid.
        threshold: Least score in [0, 1] of a grounding that is ``present``.

    Raises:
        InvalidValueError: No neutral text, a slope not above zero, a threshold outside [0, 1].
    """

    neutral: tuple[str, ...] = (
        "A photo of a person.",
        "A photo of a person doing something.",
        "A photo of a room.",
    )
    slope: float = 1.0
    offset: float = 0.0
    threshold: float = 0.5

    def __post_init__(self) -> None:
        texts = () if isinstance(self.neutral, str) else tuple(self.neutral)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise InvalidValueError("presence.neutral", "one text or more", self.neutral)
        object.__setattr__(self, "neutral", texts)
        if not (isinstance(self.slope, Real) and 0 < self.slope < np.inf):
            raise InvalidValueError("presence.slope", "a number above zero", self.slope)
        check_range("presence.offset", self.offset, -np.inf)
        check_range("presence.threshold", self.threshold, 0, 1)


def presence_margin(
    action: npt.NDArray[np.float32], neutral: npt.NDArray[np.float32], logit_scale: float
) -> npt.NDArray[np.float64]:
    """How much better the action prompt fits than the neutral prompts, in logits.

    Args:
        action: (...,) cosines of class token and action prompt.
        neutral: (..., J) cosines of class token and neutral prompts.
        logit_scale: The backbone's inverse temperature (CLIP: 100).

    Returns:
        (...,) margins; zero where the action fits as well as an average neutral prompt.
    """
    scaled = logit_scale * np.asarray(neutral, dtype=np.float64)
    peak = scaled.max(axis=-1)
    log_mean = peak + np.log(np.exp(scaled - peak[..., None]).mean(axis=-1))
    return np.asarray(logit_scale * np.asarray(action, dtype=np.float64) - log_mean)


def presence_score(
    margin: npt.NDArray[np.float64], config: PresenceConfig
) -> npt.NDArray[np.float64]:
    """Platt's sigmoid of the margins: scores in [0, 1], same shape."""
    logits = config.slope * np.asarray(margin, dtype=np.float64) + config.offset
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))  # a sigmoid that cannot overflow


def fit_calibration(
    margins: Sequence[float] | npt.NDArray[np.float64], present: Sequence[bool]
) -> tuple[float, float]:
    """Platt's slope and offset from labelled margins.

    Newton's method on the log loss with Platt's smoothed targets (Platt 1999; Lin, Lin and Weng
    2007), which stays finite when the classes separate.

    Args:
        margins: (M,) margins of :func:`presence_margin`.
        present: (M,) whether the action was there.

    Returns:
        ``slope`` and ``offset`` for :class:`PresenceConfig`.

    Raises:
        InvalidValueError: Lengths differ, a margin is not finite, only one class occurs, or
            margins do not rise with presence (the fitted slope would not be above zero).
    """
    x = np.asarray(margins, dtype=np.float64)
    labels = np.asarray(present, dtype=bool)
    if x.shape != labels.shape or x.ndim != 1 or not np.isfinite(x).all():
        raise InvalidValueError(
            "calibration.margins",
            f"{labels.size} finite margins in one row",
            f"{np.isfinite(x).sum()} finite ones in shape {x.shape}",
        )
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        raise InvalidValueError(
            "calibration.present",
            "scenes with and without the action",
            f"{positives} with and {negatives} without",
        )
    target = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([x, np.ones_like(x)], axis=1)
    parameters = np.array([0.0, np.log((positives + 1) / (negatives + 1))])

    def loss(values: npt.NDArray[np.float64]) -> float:
        logits = design @ values
        return float(np.sum(np.logaddexp(0, logits) - target * logits))

    for _ in range(100):
        probability = 0.5 * (1 + np.tanh(0.5 * (design @ parameters)))
        gradient = design.T @ (probability - target)
        curvature = design.T @ (design * (probability * (1 - probability))[:, None])
        step = np.linalg.solve(curvature + 1e-12 * np.eye(2), gradient)
        size = 1.0
        while loss(parameters - size * step) > loss(parameters) and size > 1e-10:
            size /= 2
        parameters = parameters - size * step
        if np.abs(size * step).max() < 1e-10:
            break
    slope, offset = float(parameters[0]), float(parameters[1])
    if slope <= 0:
        raise InvalidValueError(
            "calibration.margins", "margins that rise with presence", f"slope {slope:.3g}"
        )
    return slope, offset

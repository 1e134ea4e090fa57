"""Accuracies that were published for the paper's data sets, to stand beside a run's own."""

from __future__ import annotations

import re

SOURCE = "VideoGEM, CVPR 2025"

_DATASETS = ("vhico", "daly", "youcookinteractions", "groundingyoutube")

_TABLE: dict[str, tuple[float | None, ...]] = {
    "WWW-CLIP (trained)": (62.34, 71.35, 58.35, 56.98),
    "GEM, ViCLIP": (65.08, 73.75, 53.62, 51.28),
    "VideoGEM, CLIP": (76.90, 84.53, 52.57, 47.46),
    "VideoGEM, OpenCLIP": (76.42, 80.32, 60.05, 45.33),
    "VideoGEM, ViCLIP": (75.75, 78.25, 55.10, 57.21),
    "ViCLIP, no weighting": (74.79, 76.84, None, 56.39),
    "ViCLIP, dynamic only": (74.49, 76.85, None, 56.47),
    "ViCLIP, static only": (76.18, 78.38, None, 56.75),
}


def published_accuracy(dataset: str) -> dict[str, float]:
    """Published accuracies of a data set.

    Args:
        dataset: Its name, however it is capitalised and hyphenated.

    Returns:
        Percent by method, as printed in the paper; empty for any other data set.
    """
    name = re.sub("[^a-z]", "", dataset.lower())
    if name not in _DATASETS:
        return {}
    column = _DATASETS.index(name)
    return {method: value for method, row in _TABLE.items() if (value := row[column]) is not None}

"""Pictures of the gallery: a frame under its heatmap, with boxes and point as SVG over it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from videogem_ros.errors import VideoGemError
from videogem_ros.evaluation.records import Outcome, Record
from videogem_ros.render import blend_heatmap

Gallery = Callable[[Record], tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32] | None]]
"""Gives a sample's frame, (H, W, 3) uint8 RGB, and its heatmap, (h, w) float32 in [0, 1], which
covers the whole frame, or None."""

_WIDTH_PX = 560
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """What the page shows of one sample.

    Attributes:
        source: Data URI of a JPEG; empty where there is no picture.
        problem: Why there is none.
        error_line: From the point to the nearest place in a box, (x, y) each; None for a hit.
    """

    source: str
    problem: str
    error_line: tuple[tuple[float, float], tuple[float, float]] | None


def picture_of(record: Record, method: str, gallery: Gallery | None) -> Picture:
    """The picture of a sample, or why there is none; a frame that cannot be had is no error."""
    line = _error_line(record, record.outcomes[method])
    if gallery is None:
        return Picture("", "no frame", line)
    try:
        image, heatmap = gallery(record)
    except VideoGemError as error:
        return Picture("", str(error), line)
    return Picture(_encode(image, heatmap), "", line)


def _encode(image: npt.NDArray[np.uint8], heatmap: npt.NDArray[np.float32] | None) -> str:
    height, width = image.shape[:2]
    if width > _WIDTH_PX:
        size = (_WIDTH_PX, max(1, round(height * _WIDTH_PX / width)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    if heatmap is not None:
        image = blend_heatmap(image, heatmap)
    _, jpeg = cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}"


def _error_line(
    record: Record, outcome: Outcome
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    if outcome.hit is not False:
        return None
    x, y = outcome.x, outcome.y
    nearest = ((min(max(x, x1), x2), min(max(y, y1), y2)) for x1, y1, x2, y2 in record.boxes)
    return (x, y), min(nearest, key=lambda place: np.hypot(place[0] - x, place[1] - y))

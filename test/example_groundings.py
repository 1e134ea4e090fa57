"""Groundings with chosen points and heatmaps, for tests of code that consumes groundings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from videogem_ros.datatypes import Action, Frame, Grounding, Heatmap, Point, Prompts


def grounding_of(
    frame: Frame,
    phrase: str = "pick up the red mug",
    *,
    xy: tuple[float, float] | None = None,
    points: Mapping[str, tuple[float, float]] | None = None,
    values: npt.NDArray[np.float32] | None = None,
    score: float = 0.8,
    present: bool = True,
) -> Grounding:
    """A grounding of a frame with one heatmap; points default to ``xy``, and it to the centre."""
    height, width = frame.hw
    places = dict.fromkeys(
        ("verb", "object", "action", "fused"), xy or ((width - 1) / 2, (height - 1) / 2)
    )
    if values is None:
        values = np.zeros((4, 4), np.float32)
    heatmap = Heatmap(values, frame.hw)
    return Grounding(
        action=Action(phrase, phrase, verb="pick up", object="red mug"),
        prompts=Prompts("verb prompt", "object prompt", "action prompt"),
        frame_index=0,
        stamp_ns=frame.stamp_ns,
        frame_id=frame.frame_id,
        image_hw=frame.hw,
        window_start_ns=frame.stamp_ns,
        window_end_ns=frame.stamp_ns,
        frames_used=1,
        points={name: Point(*place, 0.25) for name, place in (places | (points or {})).items()},
        heatmaps=dict.fromkeys(places, heatmap),
        layer_weights=np.ones((3, 8), np.float32),
        prompt_probabilities=np.full(3, 1 / 3, np.float32),
        score=score,
        present=present,
    )


def frame_of(
    hw: tuple[int, int], stamp_ns: int = 0, colour: tuple[int, int, int] | None = None
) -> Frame:
    """A frame of one colour, or of noise that depends on its stamp."""
    if colour is None:
        image = np.random.default_rng(stamp_ns).integers(0, 256, (*hw, 3), dtype=np.uint8)
    else:
        image = np.full((*hw, 3), colour, np.uint8)
    return Frame(image, stamp_ns, "camera_optical_frame")

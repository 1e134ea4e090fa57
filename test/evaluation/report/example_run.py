"""A run of drawn scenes and made-up heatmaps; its figures follow from its records.

Nothing here was measured. A method's heatmap is a blob whose distance from the target varies with
the method's own spread, so that methods differ as in a real run.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from videogem_ros.core.configuration import WEIGHTINGS, GroundingConfig
from videogem_ros.datatypes import PROMPT_KINDS
from videogem_ros.evaluation.metrics import judge
from videogem_ros.evaluation.records import CENTRE, Box, Record, Run, method_name

HW = (240, 320)
SYSTEM = "Other system"
LABELS = (
    "pick up the red cup",
    "pour the milk",
    "cut the tomato",
    "open the top drawer",
    "stir the soup",
    "wipe the table",
    "press the button",
    "fold the towel",
)
_SPREAD = {"uniform": 1.3, "dynamic": 1.2, "static": 1.05, "static+dynamic": 1.0}
_PROMPT_SPREAD = {"verb": 1.7, "object": 1.25, "action": 1.2, "fused": 1.0, "fused-heatmaps": 1.1}
_COLOURS = ((196, 62, 54), (70, 120, 190), (230, 180, 60), (86, 150, 90), (140, 100, 170))

Image = npt.NDArray[np.uint8]


def example_run(count: int = 40, *, ablate: bool = True) -> Run:
    """A run of ``count`` samples of eight classes in two groups, a fifth without the action."""
    methods = [
        method_name(weighting, prompt)
        for weighting in (WEIGHTINGS if ablate else ("static+dynamic",))
        for prompt in (*PROMPT_KINDS, "fused", "fused-heatmaps")
    ]
    return Run(
        dataset="GroundingYouTube",
        backbone="no backbone",
        main=method_name("static+dynamic", "fused"),
        records=tuple(_record(number, methods) for number in range(count)),
        missing=Counter({"kitchen_0031.mp4": 12, "kitchen_0047.mp4": 3}),
        skipped=Counter({"box outside the frame": 2, "caption without words": 1}),
        settings={"seed": "0", "fusion weights": "0.2, 0.2, 0.6"},
        notes=(
            "Synthetic example. Scenes and heatmaps are drawn at random to show this page; "
            "nothing was measured.",
        ),
        timing={
            "encode_ms_median": 41.37,
            "encode_ms_p99": 58.02,
            "latency_ms_median": 63.8,
            "latency_ms_p99": 121.44,
            "age_ms_median": 96.1,
            "age_ms_p99": 180.9,
            "dropped_frames": 17.0,
        },
    )


def example_frame(record: Record) -> tuple[Image, npt.NDArray[np.float32]]:
    """The scene of a record of :func:`example_run`, and the heatmap of its main method."""
    outcome = record.outcomes["static+dynamic/fused"]
    return _scene(record), _blob((outcome.x, outcome.y), _generator(record.key))


def _generator(*names: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(" ".join(names).encode()))


def _record(number: int, methods: list[str]) -> Record:
    key = f"kitchen_{number // 4:04d}.mp4/{number}"
    generator = _generator(key)
    label_number = int(generator.integers(len(LABELS)))
    size = generator.uniform(34, 80, 2)
    corner = generator.uniform(8, np.array(HW[::-1]) - size - 8)
    box = tuple(float(round(value)) for value in (*corner, *(corner + size)))
    boxes: tuple[Box, ...] = (box,) if generator.random() < 0.8 else ()
    hard = 6 + 4 * label_number
    aim = corner + size / 2 + generator.standard_normal(2) * hard * 0.6

    score = float(np.clip(generator.normal(0.7 if boxes else 0.42, 0.16), 0.01, 0.99))

    outcomes = {}
    for method in methods:
        weighting, prompt = method.split("/")
        spread = hard * (1.6 * _SPREAD[weighting] * _PROMPT_SPREAD[prompt] - 1.1)
        place = aim + _generator(key, method).standard_normal(2) * spread
        point = tuple(float(value) for value in np.clip(place, 0, np.array(HW[::-1]) - 1))
        outcomes[method] = judge(point, _blob(point, generator), boxes, HW, score)
    outcomes[CENTRE] = judge(((HW[1] - 1) / 2, (HW[0] - 1) / 2), None, boxes, HW)
    if number % 3:
        outcomes[SYSTEM] = judge(tuple(aim + 14 * generator.standard_normal(2)), None, boxes, HW)

    static = np.array(GroundingConfig().static_weights)
    dynamic = np.zeros((3, 8))
    dynamic[:, 5:] = generator.dirichlet((6, 5, 8), size=3) - 1 / 3
    ones = np.ones((3, 8))
    weights = {
        "uniform": ones,
        "dynamic": ones + dynamic,
        "static": ones * static,
        "static+dynamic": static + dynamic,
    }
    return Record(
        key=key,
        video=key.partition("/")[0],
        label=LABELS[label_number],
        groups=("motion" if label_number % 2 else "still",),
        action=LABELS[label_number],
        time_ns=round(number * 0.73e9),
        boxes=boxes,
        image_hw=HW,
        outcomes=outcomes,
        layer_weights={
            name: tuple(tuple(map(float, row)) for row in rows)
            for name, rows in weights.items()
            if any(method.startswith(f"{name}/") for method in methods)
        },
    )


def _scene(record: Record) -> Image:
    """A table top with objects at random positions, and the target in the box."""
    generator = _generator(record.key, "scene")
    shade = np.linspace(236, 205, HW[0])[:, None, None] * np.array((0.98, 0.94, 0.88))
    image = np.ascontiguousarray(np.broadcast_to(shade, (*HW, 3)).astype(np.uint8))
    image[: HW[0] // 5] = (150, 162, 172)
    for _ in range(5):
        centre = generator.integers((20, 60), (HW[1] - 20, HW[0] - 20))
        colour = _COLOURS[int(generator.integers(len(_COLOURS)))]
        _thing(image, centre, int(generator.integers(12, 26)), colour)
    for x1, y1, x2, y2 in record.boxes:
        centre = np.rint(((x1 + x2) / 2, (y1 + y2) / 2)).astype(int)
        _thing(image, centre, int(min(x2 - x1, y2 - y1) / 2) - 2, _COLOURS[0])
    return image


def _thing(
    image: Image, centre: npt.NDArray[np.int64], radius: int, colour: tuple[int, int, int]
) -> None:
    x, y = int(centre[0]), int(centre[1])
    cv2.ellipse(image, (x + 4, y + 6), (radius, radius), 0, 0, 360, (176, 168, 156), -1, 16)
    cv2.circle(image, (x, y), radius, colour, -1, 16)
    bright = tuple(min(255, value + 40) for value in colour)
    cv2.circle(image, (x - radius // 4, y - radius // 4), radius // 2, bright, -1, 16)


def _blob(place: tuple[float, float], generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """(30, 40) in [0, 1], highest near the point."""
    y, x = np.mgrid[0:30, 0:40] * 8 + 3.5
    distance = np.hypot(x - place[0], y - place[1])
    values = np.exp(-((distance / generator.uniform(28, 48)) ** 2))
    noise = cv2.GaussianBlur(generator.random((30, 40)), (0, 0), 2.5) - 0.5
    values = np.maximum(values + 0.8 * noise, 0)
    return np.asarray(values / values.max(), dtype=np.float32)


def empty_run() -> Run:
    """A run in which no sample had frames."""
    return replace(example_run(1), records=(), timing=None, settings={})

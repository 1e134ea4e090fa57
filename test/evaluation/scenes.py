"""A data set of noise in memory, and helpers to evaluate it in any process."""

from __future__ import annotations

import functools
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from videogem_ros.core import Grounder, GroundingConfig, load_backbone
from videogem_ros.datatypes import Action, Frame, Window
from videogem_ros.errors import RecordingError
from videogem_ros.evaluation.records import Sample
from videogem_ros.evaluation.runner import Bench, EvaluationConfig

SIZES = ((64, 64), (48, 96), (90, 60))


def action(verb: str | None, thing: str | None, text: str | None = None) -> Action:
    text = text or f"{verb} the {thing}"
    return Action(text, text, verb, verb, thing, thing)


POUR, CUT = action("pour", "milk"), action("cut", "tomato")
SENTENCE = "mix the flour, then knead the dough"
FREE = tuple(action(v, o, SENTENCE) for v in ("mix", "knead") for o in ("flour", "dough"))


def sample_of(number: int) -> Sample:
    """A sample: three sizes, three kinds of action, one or two boxes, none in every fifth."""
    height, width = SIZES[number % 3]
    generator = np.random.default_rng([7, number])
    boxes = []
    for _ in range(0 if number % 5 == 4 else 1 + number % 2):
        x1, y1 = generator.uniform(0, [width / 2, height / 2])
        w, h = generator.uniform(8, [width / 2, height / 2])
        boxes.append((float(x1), float(y1), float(x1 + w), float(y1 + h)))
    return Sample(
        key=f"film/{number}",
        video="film",
        label=("pour", "cut", "free")[number % 3],
        actions=((POUR,), (CUT,), FREE)[number % 3],
        time_ns=number * 1_000_000_000,
        boxes=tuple(boxes),
        groups=("even",) if number % 2 == 0 else (),
    )


@dataclass
class Scenes:
    """A :class:`~videogem_ros.evaluation.records.Dataset` of smooth noise.

    Attributes:
        samples: Any samples; the noise depends on their time.
        files: Files reported as the source of all frames.
        broken: Keys of samples that cannot be decoded.
        deadly: A file; the first process that decodes the last but one sample removes it and dies.
        poison: Keys of samples that kill the process that decodes them.
        asked: Keys of samples whose frames were requested.
    """

    samples: Sequence[Sample]
    name: str = "scenes"
    files: Sequence[Path] = ()
    broken: frozenset[str] = frozenset()
    deadly: Path | None = None
    poison: frozenset[str] = frozenset()
    missing: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    asked: list[str] = field(default_factory=list)

    def sources(self, sample: Sample) -> Sequence[Path | str]:
        return self.files

    def window(self, sample: Sample, frames: int) -> tuple[Window, int]:
        self.asked.append(sample.key)
        if self.deadly and sample.key == self.samples[-2].key and self.deadly.exists():
            self.deadly.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if sample.key in self.poison:
            os.kill(os.getpid(), signal.SIGKILL)
        if sample.key in self.broken:
            raise RecordingError("film.mp4: no frame at that time")
        number = sample.time_ns // 1_000_000_000
        place = 4 if frames > 1 else 0
        height, width = SIZES[number % 3]
        pictures = []
        for t in range(frames):
            generator = np.random.default_rng([number, t - place + 8])
            small = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            picture = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
            pictures.append(Frame(picture, sample.time_ns + t))
        return Window(tuple(pictures)), place


def scenes(count: int) -> Scenes:
    return Scenes([sample_of(number) for number in range(count)])


def open_bench(config_file: Path, dataset: Scenes, config: EvaluationConfig) -> Bench:
    torch.set_num_threads(1)
    backbone = load_backbone(f"openclip:{config_file}", "random:0")
    return Bench(dataset, Grounder(backbone, GroundingConfig()), config)


def opener(config_file: Path, dataset: Scenes, config: EvaluationConfig) -> Callable[[], Bench]:
    return functools.partial(open_bench, config_file, dataset, config)

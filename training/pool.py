"""Scenes drawn ahead of training: frames and labels in memory-mapped files.

Drawing a scene takes about as long as a training step on it. So scenes are drawn once and used
several times, each time with other augmentation and other texts. Scene ``i`` depends only on the
seed and ``i``, not on the number of processes.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from videogem_ros.tabletop.captions import Thing
from videogem_ros.tabletop.scene import Scene, SceneConfig, draw_scene
from videogem_ros.tabletop.vocabulary import COLOURS, KINDS, MATERIALS, SIZES, VERBS

COLUMNS = (tuple(VERBS), tuple(KINDS), tuple(COLOURS), tuple(SIZES), tuple(MATERIALS))
"""Words for the indices in a pair or claim: verb, kind, colour, size, material."""
NO_VERB, NO_THING = -2, -3
"""Verb of a thing without an action, and every number of an empty row."""
MOST_THINGS = 8
RENDERED_HW = ((240, 320), (240, 320), (180, 240), (144, 192))
FILTERS = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.BOX)
CHUNK = 64


@dataclass(frozen=True)
class PoolConfig:
    """Contents of a pool.

    Attributes:
        seed: Seed of its scenes.
        scenes: Number of scenes; the first third is easier, with one or two actions.
        frames: T, frames rendered per scene, from a random part of its duration.
        side_px: Height and width of the stored frames.
        twins: Probability of two actions that only motion distinguishes.
        empty: Probability of a scene without any action.
        easy: Whether all scenes are easier, with few distractors.
    """

    seed: int
    scenes: int
    frames: int = 1
    side_px: int = 144
    twins: float = 0.1
    empty: float = 0.15
    easy: bool = False

    def scene_config(self, place: int) -> SceneConfig:
        """Configuration of the scene with an index."""
        config = SceneConfig(twins=self.twins, empty=self.empty)
        if self.easy:
            return easier(config)
        return replace(config, actions=(1, 2)) if 3 * place < self.scenes else config


def easier(config: SceneConfig) -> SceneConfig:
    """Scenes with one or two actions on a plain table, for short runs."""
    return replace(config, actions=(1, 2), distractors=(0, 1), idle_hands=(0, 0), plain=1)


@dataclass(frozen=True, eq=False)
class Pool:
    """Scenes on disk.

    Attributes:
        folder: Folder of the files.
        config: Their configuration.
        images: (M, T, S, S, 3) uint8 RGB.
        boxes: (M, T, 2, O, 4) float32 x1 y1 x2 y2 from 0 to 1: box of the action, of the object.
        pairs: (M, O, 5) int8, each object's action and attributes, as indices into COLUMNS.
    """

    folder: Path
    config: PoolConfig
    images: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]
    pairs: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.images)

    def __reduce__(self) -> tuple[Callable[..., Pool], tuple[Path, PoolConfig]]:
        """Makes other processes open the same files, as pickling would copy the frames."""
        return open_pool, (self.folder, self.config)


def open_pool(folder: Path, config: PoolConfig, processes: int = 2) -> Pool:
    """Open a pool, and draw it first if the folder does not contain it.

    Args:
        folder: Folder of the pool.
        config: Its configuration; a pool with another configuration is replaced.
        processes: Number of processes that draw.

    Returns:
        The pool, opened for reading.
    """
    label = folder / "pool.json"
    if not label.is_file() or json.loads(label.read_text()) != asdict(config):
        label.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        for name, (shape, dtype) in _arrays(config).items():
            np.lib.format.open_memmap(folder / name, mode="w+", dtype=dtype, shape=shape)
        jobs = [(folder, config, first) for first in range(0, config.scenes, CHUNK)]
        if processes > 1:
            with multiprocessing.get_context("spawn").Pool(processes) as workers:
                workers.starmap(_draw_chunk, jobs, chunksize=1)
        else:
            for job in jobs:
                _draw_chunk(*job)
        label.write_text(json.dumps(asdict(config)))
    images, boxes, pairs = (np.load(folder / name, mmap_mode="r") for name in _arrays(config))
    return Pool(folder, config, images, boxes, pairs)


def _arrays(config: PoolConfig) -> dict[str, tuple[tuple[int, ...], type]]:
    count, frames, side = config.scenes, config.frames, config.side_px
    return {
        "images.npy": ((count, frames, side, side, 3), np.uint8),
        "boxes.npy": ((count, frames, 2, MOST_THINGS, 4), np.float32),
        "pairs.npy": ((count, MOST_THINGS, 5), np.int8),
    }


def _draw_chunk(folder: Path, config: PoolConfig, first: int) -> None:
    cv2.setNumThreads(1)
    arrays = [np.load(folder / name, mmap_mode="r+") for name in _arrays(config)]
    for place in range(first, min(first + CHUNK, config.scenes)):
        random = np.random.default_rng([config.seed, place])
        scene = draw_scene(random, config.scene_config(place))
        for array, value in zip(arrays, _shoot(scene, config, random)):
            array[place] = value


def _shoot(
    scene: Scene, config: PoolConfig, random: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """Frames, boxes and pairs of one scene, in the format of a pool."""
    hw = RENDERED_HW[int(random.integers(len(RENDERED_HW)))]
    if config.frames == 1:
        times = random.uniform(0, 1, 1)
    else:
        length = random.uniform(0.6, 1)
        times = random.uniform(0, 1 - length) + length * np.linspace(0, 1, config.frames)
    view = scene.render([float(time) for time in times], hw)
    how = FILTERS[int(random.integers(len(FILTERS)))]
    size = (config.side_px, config.side_px)
    images = np.stack([np.asarray(Image.fromarray(x).resize(size, how)) for x in view.images])
    boxes = np.zeros((config.frames, 2, MOST_THINGS, 4), np.float32)
    scale = np.array([hw[1], hw[0], hw[1], hw[0]], np.float32)
    boxes[:, 0, : len(scene.things)] = view.action_boxes / scale
    boxes[:, 1, : len(scene.things)] = view.object_boxes / scale
    pairs = np.full((MOST_THINGS, 5), NO_THING, np.int8)
    for row, (verb, thing) in enumerate(zip(scene.verbs, scene.things)):
        pairs[row] = pair_row(verb, thing)
    return images, boxes, pairs


def pair_row(verb: str | None, thing: Thing) -> list[int]:
    """A thing's action and attributes, as indices into COLUMNS."""
    words = (thing.kind, thing.colour, thing.size, thing.material)
    numbers = [column.index(word) for column, word in zip(COLUMNS[1:], words)]
    return [NO_VERB if verb is None else COLUMNS[0].index(verb), *numbers]

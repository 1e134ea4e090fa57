"""Clips with their ground truth, and the fixed benchmark."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from videogem_ros.datatypes import Frame, Window
from videogem_ros.errors import InvalidValueError
from videogem_ros.tabletop.captions import Claim, Thing, action_text, paraphrases, true_of
from videogem_ros.tabletop.scene import Scene, SceneConfig, draw_scene
from videogem_ros.tabletop.vocabulary import COLOURS, KINDS, VERBS

BENCHMARK_SEED = 20_260_601
"""Seed of the benchmark's clips; training never draws from it."""

BENCHMARK_CLIPS = 500
BENCHMARK_EMPTY = 100
"""Number of the benchmark's last clips, which show no action."""

RATE_HZ = 10
PERIOD_NS = 10**9 // RATE_HZ
START_NS = 1_700_000_000 * 10**9
FRAMES = (8, 32)
"""Fewest and most frames of a clip."""

LEAST_ASPECT = 0.56
"""Least height over width of images, so that all things are visible; 16:9 is just enough."""

PARAPHRASES = 3
ABSENT = 4


@dataclass(frozen=True, eq=False)
class Performed:
    """One action of a clip.

    Attributes:
        verb: Key of ``VERBS``.
        thing: What it is done to.
        claim: What its texts say: verb, kind, and colour.
        texts: Commands for it, the plainest first, then paraphrases.
        action_boxes: (T, 4) float32, x1 y1 x2 y2 in pixels around the thing and the fingers and
            palm that act on it.
        object_boxes: (T, 4) float32, around the thing alone; of pouring, with stream and puddle.
        decided_by: ``MOTION`` or ``POSE``, what tells the verb apart.
        twin: Whether another action of the clip is told apart by motion alone.
    """

    verb: str
    thing: Thing
    claim: Claim
    texts: tuple[str, ...]
    action_boxes: npt.NDArray[np.float32]
    object_boxes: npt.NDArray[np.float32]
    decided_by: str
    twin: bool


@dataclass(frozen=True, eq=False)
class Clip:
    """A short recording with its ground truth.

    Attributes:
        images: (T, H, W, 3) uint8 RGB.
        depths: (T, H, W) float32, metres along the optical axis; None where not rendered.
        camera_matrix: (3, 3), pixels.
        stamps_ns: (T,) int64, nanoseconds, ``RATE_HZ`` frames a second.
        performed: The actions; none in a clip without any.
        absent: Commands for actions that do not happen: other verbs on the same objects, actions
            on idle objects, and on objects that are not there.
    """

    images: npt.NDArray[np.uint8]
    depths: npt.NDArray[np.float32] | None
    camera_matrix: npt.NDArray[np.float64]
    stamps_ns: npt.NDArray[np.int64]
    performed: tuple[Performed, ...]
    absent: tuple[str, ...]

    def window(self) -> Window:
        """All frames, oldest first."""
        return Window(tuple(map(Frame, self.images, self.stamps_ns.tolist())))


def check_hw(hw: tuple[int, int]) -> None:
    """Refuse a size of images in which things are too small, or outside.

    Raises:
        InvalidValueError: A side below 32 pixels, or images wider than 16:9.
    """
    if min(hw) < 32:
        raise InvalidValueError("hw", "32 pixels or more", hw)
    if hw[0] < LEAST_ASPECT * hw[1]:
        raise InvalidValueError("hw", f"a height of {LEAST_ASPECT} of the width or more", hw)


def make_clip(
    random: np.random.Generator,
    frames: int | None = None,
    hw: tuple[int, int] = (240, 320),
    config: SceneConfig | None = None,
    *,
    depth: bool = False,
    sampled: int | None = None,
) -> Clip:
    """Draws a scene and renders it.

    Args:
        random: Source of all randomness.
        frames: T, 2 or more; drawn from 8 to 32 where None.
        hw: Height and width of the images in pixels.
        config: The distribution of scenes; the default where None.
        depth: Whether to render depth images too.
        sampled: Number of frames to render, spread evenly from the first to the last, or the last
            alone where 1; all where None.

    Raises:
        InvalidValueError: Too few frames, none of them sampled, or images smaller than 32 pixels
            or so wide that things would be outside.
    """
    if frames is not None and frames < 2:
        raise InvalidValueError("frames", "2 or more", frames)
    check_hw(hw)
    if sampled is not None and sampled < 1:
        raise InvalidValueError("sampled", "1 or more", sampled)
    scene = draw_scene(random, config, hw[0] / hw[1])
    count = frames or int(random.integers(FRAMES[0], FRAMES[1] + 1))
    absent = _absent(scene, random)
    pairs = list(zip(scene.verbs, scene.things))
    # Counted from the last one, which belongs to every choice.
    indices = count - 1 - np.linspace(0, count - 1, sampled or count).round().astype(int)[::-1]
    view = scene.render(np.linspace(0, 1, count)[indices].tolist(), hw, depth=depth)
    performed = tuple(
        Performed(
            verb,
            thing,
            claim,
            paraphrases(claim, PARAPHRASES, random),
            view.action_boxes[:, index],
            view.object_boxes[:, index],
            VERBS[verb].decided_by,
            (VERBS[verb].twin, thing) in pairs,
        )
        for index, (verb, thing) in enumerate(pairs)
        if verb is not None
        for claim in (Claim(verb, thing.kind, thing.colour),)
    )
    stamps_ns = START_NS + indices.astype(np.int64) * PERIOD_NS
    return Clip(view.images, view.depths, view.camera_matrix, stamps_ns, performed, absent)


def benchmark_clip(
    number: int,
    hw: tuple[int, int] = (240, 320),
    *,
    depth: bool = False,
    sampled: int | None = None,
) -> Clip:
    """A clip of the fixed benchmark.

    Args:
        number: 0 to 499; the last 100 show no action.
        hw: Height and width of the images; the benchmark's figures are for 240 x 320.
        depth: Whether to render depth images too.
        sampled: Number of frames to render; see :func:`make_clip`.

    Raises:
        InvalidValueError: The benchmark has no clip of this number.
    """
    if not 0 <= number < BENCHMARK_CLIPS:
        raise InvalidValueError("number", f"a clip from 0 to {BENCHMARK_CLIPS - 1}", number)
    config = SceneConfig(twins=0.12)
    if number >= BENCHMARK_CLIPS - BENCHMARK_EMPTY:
        config = replace(config, empty=1.0)
    random = np.random.default_rng([BENCHMARK_SEED, number])
    return make_clip(random, hw=hw, config=config, depth=depth, sampled=sampled)


def benchmark_numbers(count: int = BENCHMARK_CLIPS) -> list[int]:
    """Numbers of so many clips of the benchmark, spread evenly over it.

    Raises:
        InvalidValueError: The benchmark has not so many clips.
    """
    if not 1 <= count <= BENCHMARK_CLIPS:
        raise InvalidValueError("clips", f"from 1 to {BENCHMARK_CLIPS}", count)
    return [index * BENCHMARK_CLIPS // count for index in range(count)]


def _absent(scene: Scene, random: np.random.Generator) -> tuple[str, ...]:
    """Commands for actions that do not happen in the scene, of different kinds in turn."""
    pairs = list(zip(scene.verbs, scene.things))
    verbs = [verb for verb in scene.verbs if verb] or list(VERBS)
    texts: dict[str, None] = {}
    for attempt in range(10 * ABSENT):
        if len(texts) == ABSENT:
            break
        thing = scene.things[int(random.integers(len(pairs)))]
        kind, colour = thing.kind, thing.colour
        verb = str(random.choice(tuple(VERBS) if attempt % 2 else verbs))
        if attempt % 4 >= 2:
            kind, colour = str(random.choice(tuple(KINDS))), str(random.choice(tuple(COLOURS)))
        claim = Claim(verb, kind, colour)
        suits = not VERBS[verb].kinds or kind in VERBS[verb].kinds
        if suits and not true_of(claim, pairs):
            texts[action_text(claim)] = None
    return tuple(texts)

"""Scenes: what is on the table, which actions happen, and how the camera sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from videogem_ros.errors import InvalidValueError
from videogem_ros.tabletop import drawing
from videogem_ros.tabletop.captions import Thing
from videogem_ros.tabletop.drawing import Light, Sensor, Table
from videogem_ros.tabletop.geometry import Array, Camera, Colour, Mesh, join
from videogem_ros.tabletop.hands import Body, Hand, Motion, idle_hand, pose
from videogem_ros.tabletop.vocabulary import COLOURS, KINDS, MATERIALS, MOTION, SIZES, VERBS

SIDEWAYS = 1.7
"""Largest angle between an arm and the direction towards the camera, radians."""

SAME_VERB = 0.08
"""Probability that a further action has the verb of an earlier one, with another object."""

EDGE = 0.095
"""Least distance of things from the image's upper and lower edge, as a fraction of its width: room
for their size and for lifting."""

NEAREST_M = 0.06
"""Nothing nearer to the camera than this is drawn, metres."""


@dataclass(frozen=True)
class SceneConfig:
    """The distribution that scenes are drawn from.

    Attributes:
        actions: Fewest and most simultaneous actions.
        distractors: Fewest and most further objects, with another object's colour or kind.
        idle_hands: Fewest and most hands that do nothing.
        twins: Probability that two of the actions are twins: objects that look the same, with
            verbs that differ only in motion.
        empty: Probability that nothing is done at all.
        plain: Probability of a plain table and a clean picture.

    Raises:
        InvalidValueError: An invalid range, ranges that allow a scene without things, or a
            probability outside [0, 1].
    """

    actions: tuple[int, int] = (2, 3)
    distractors: tuple[int, int] = (1, 3)
    idle_hands: tuple[int, int] = (0, 1)
    twins: float = 0.1
    empty: float = 0.0
    plain: float = 0.1

    def __post_init__(self) -> None:
        for name in ("actions", "distractors", "idle_hands"):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= 4:
                raise InvalidValueError(name, "fewest and most, from 0 to 4", (low, high))
        if self.actions[0] + self.distractors[0] == 0:
            raise InvalidValueError(
                "distractors", "1 or more where there may be no actions", self.distractors
            )
        for name in ("twins", "empty", "plain"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidValueError(name, "a probability", getattr(self, name))


@dataclass(frozen=True, eq=False)
class View:
    """Rendered frames with their ground truth.

    Attributes:
        images: (T, H, W, 3) uint8 RGB.
        object_boxes: (T, O, 4) float32, x1 y1 x2 y2 in pixels, around each of the O things,
            clipped to the image.
        action_boxes: (T, O, 4) float32, around the thing and the fingers and palm that act on it;
            around the thing alone where nothing is done to it.
        depths: (T, H, W) float32, metres along the optical axis; None where not rendered.
        camera_matrix: (3, 3) of all frames.
    """

    images: npt.NDArray[np.uint8]
    object_boxes: npt.NDArray[np.float32]
    action_boxes: npt.NDArray[np.float32]
    depths: npt.NDArray[np.float32] | None
    camera_matrix: Array


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything in a clip before it is rendered.

    Attributes:
        bodies: The objects.
        acts: Hand and motion that act on each of the bodies; None where nothing is done to it.
        idle: Hands that do nothing, and where they lie.
        camera: The camera without shake.
        shake: Standard deviation of the camera's rotation in each frame, radians.
        light: The lamp.
        table: The table top.
        sensor: What the camera adds.
    """

    bodies: tuple[Body, ...]
    acts: tuple[tuple[Hand, Motion] | None, ...]
    idle: tuple[tuple[Hand, Array], ...]
    camera: Camera
    shake: float
    light: Light
    table: Table
    sensor: Sensor

    @property
    def things(self) -> tuple[Thing, ...]:
        """Every object on the table."""
        return tuple(body.thing for body in self.bodies)

    @property
    def verbs(self) -> tuple[str | None, ...]:
        """What is done to each of them; None: nothing."""
        return tuple(act[1].verb if act else None for act in self.acts)

    def render(
        self, times: Sequence[float], hw: tuple[int, int] = (240, 320), *, depth: bool = False
    ) -> View:
        """Draws the scene.

        Args:
            times: T times from 0 to 1 along the clip.
            hw: Height and width of the images in pixels.
            depth: Whether to render depth images, which take longer than the pictures.
        """
        table = drawing.draw_table(self.table, hw)
        frames = [self._render_frame(time, hw, table, depth) for time in times]
        images, objects, actions, depths = zip(*frames)
        return View(
            np.stack(images),
            np.stack(objects),
            np.stack(actions),
            np.stack([found for found in depths if found is not None]) if depth else None,
            self.camera.matrix(hw),
        )

    def _render_frame(
        self, time: float, hw: tuple[int, int], table: drawing.Image, depth: bool
    ) -> tuple[
        drawing.Image,
        npt.NDArray[np.float32],
        npt.NDArray[np.float32],
        npt.NDArray[np.float32] | None,
    ]:
        frame = round(time * 1e6)
        angles = self.shake * np.random.default_rng([self.sensor.seed, frame]).normal(size=3)
        camera = self.camera.turned(angles)
        poses = [
            pose(body, *act, time) if act else None for body, act in zip(self.bodies, self.acts)
        ]
        things = [
            posed.thing if posed else body.parts() for body, posed in zip(self.bodies, poses)
        ]
        idle = [idle_hand(hand, xyz) for hand, xyz in self.idle]
        far = sorted(range(len(things)), key=lambda index: -self._distance(things[index]))
        hands = [*idle, *(join(posed.arm, posed.contact) for posed in poses if posed)]
        hands = [_before(hand, camera) for hand in hands]
        everything = join(*(things[index] for index in far), *hands)

        before, _ = self.camera.project(np.zeros((1, 3)), hw)
        after, _ = camera.project(np.zeros((1, 3)), hw)
        image = drawing.shifted_table(table, hw, tuple((after - before)[0]))
        # An arm's own shadow would fall far from where a hull with its hand puts it.
        shading = [*things, *(hand.without_first() for hand in hands)]
        mask = drawing.shadow_mask(shading, camera, self.light, hw)
        image = drawing.apply_shadow(image, mask, self.light)
        drawing.draw_mesh(image, everything, camera, self.light, hw)
        image = drawing.expose(image, self.sensor, frame)

        objects = np.array([_box(thing, camera, hw) for thing in things], np.float32)
        actions = np.array(
            [
                _box(join(thing, posed.contact) if posed else thing, camera, hw)
                for thing, posed in zip(things, poses)
            ],
            np.float32,
        )
        shape = (len(things), 4)
        depths = drawing.depth_image(everything, camera, hw) if depth else None
        return image, objects.reshape(shape), actions.reshape(shape), depths

    def _distance(self, mesh: Mesh) -> float:
        return float(np.linalg.norm(mesh.points.mean(axis=0) - self.camera.position))


def draw_scene(
    random: np.random.Generator, config: SceneConfig | None = None, aspect: float = 0.75
) -> Scene:
    """Draws a random scene.

    Args:
        random: Source of all randomness: equal generators give equal scenes.
        config: The distribution of scenes; the default where None.
        aspect: Height over width of the images. Below 0.75, things lie nearer to the middle, so
            that all are visible.
    """
    config = config or SceneConfig()
    things, verbs = _draw_cast(random, config)
    camera = _draw_camera(random)
    idle_count = int(random.integers(config.idle_hands[0], config.idle_hands[1] + 1))
    limit = np.array([0.4, min(0.28, aspect / 2 - EDGE)])
    spots = _draw_spots(random, camera, limit, [verb is not None for verb in verbs], idle_count)
    bodies = tuple(
        Body(thing, _vary(COLOURS[thing.colour], random, 12), spot, random.uniform(-np.pi, np.pi))
        for thing, spot in zip(things, spots)
    )
    acts = tuple(
        (_draw_hand(random, spot, spots, camera), _draw_motion(verb, random)) if verb else None
        for verb, spot in zip(verbs, spots)
    )
    idle = tuple((_draw_hand(random, spot, spots, camera), spot) for spot in spots[len(things) :])
    plain = random.random() < config.plain
    angle, height = random.uniform(-np.pi, np.pi), random.uniform(0.9, 2.5)
    lamp = np.array([np.cos(angle), np.sin(angle), height])
    warmth = random.uniform(-0.05, 0.05)
    gain = random.uniform(0.82, 1.1) * np.array([1 + warmth, 1.0, 1 - warmth])
    return Scene(
        bodies,
        acts,
        idle,
        camera,
        shake=0.0 if plain else float(random.uniform(0, 0.0035)),
        light=Light(
            lamp / np.linalg.norm(lamp),
            ambient=float(random.uniform(0.45, 0.75)),
            gain=gain,
            shadow=float(random.uniform(0.15, 0.5)),
        ),
        table=_draw_table(random, plain),
        sensor=Sensor(
            blur=0.0 if plain else float(random.uniform(0, 0.9)),
            noise=0.0 if plain else float(random.uniform(0, 6)),
            gamma=float(random.uniform(0.9, 1.12)),
            seed=int(random.integers(2**31)),
        ),
    )


def _draw_cast(
    random: np.random.Generator, config: SceneConfig
) -> tuple[list[Thing], list[str | None]]:
    """Things and what is done to them; no two things of one kind and colour, except twins."""
    count = int(random.integers(config.actions[0], config.actions[1] + 1))
    empty = random.random() < config.empty
    twins = random.random() < config.twins
    things: list[Thing] = []
    verbs: list[str | None] = []
    for index in range(count):
        if twins and index == 1 and verbs[0] in _TWINNED:
            things.append(things[0])
            verbs.append(VERBS[str(verbs[0])].twin)
            continue
        choices = _TWINNED if twins and index == 0 else tuple(VERBS)
        if index:
            # Mostly another verb, for a verb alone is to tell as well; now and then the same one.
            same = random.random() < SAME_VERB
            choices = tuple(choice for choice in choices if (choice in verbs) == same)
        verb = str(random.choice(choices))
        things.append(_draw_thing(random, things, VERBS[verb].kinds))
        verbs.append(verb)
    for _ in range(int(random.integers(config.distractors[0], config.distractors[1] + 1))):
        like = things[int(random.integers(len(things)))] if things else None
        things.append(_draw_thing(random, things, (), like))
        verbs.append(None)
    return things, [None] * len(things) if empty else verbs


_TWINNED = tuple(name for name, verb in VERBS.items() if verb.decided_by == MOTION)


def _draw_thing(
    random: np.random.Generator,
    others: Sequence[Thing],
    kinds: Sequence[str],
    like: Thing | None = None,
) -> Thing:
    """A thing that colour and kind tell from the others; like one of them in one of the two."""
    taken = {(other.kind, other.colour) for other in others}
    while True:
        kind = str(random.choice(kinds or tuple(KINDS)))
        colour = str(random.choice(tuple(COLOURS)))
        if like is not None:
            if random.random() < 0.5:
                kind = like.kind
            else:
                colour = like.colour
        if (kind, colour) not in taken:
            break
    size = str(random.choice(tuple(SIZES)))
    return Thing(kind, colour, size, str(random.choice(tuple(MATERIALS))))


def _draw_camera(random: np.random.Generator) -> Camera:
    return Camera.above(
        np.array([0.0, 0.0, 0.02]),
        distance=float(random.uniform(0.65, 0.78)),
        tilt=float(random.uniform(0.9, 1.25)),
        heading=float(random.uniform(-np.pi, np.pi)),
        roll=float(random.uniform(-0.08, 0.08)),
        focal=float(random.uniform(0.9, 1.05)),
    )


def _draw_spots(
    random: np.random.Generator, camera: Camera, limit: Array, acted: Sequence[bool], idle: int
) -> list[Array]:
    """Places on the table, apart from each other as seen, (3,) each.

    The limit is how far from the middle, across and down, in parts of the image's width.
    """
    room = [0.15 if act else 0.09 for act in acted] + [0.1] * idle
    tight = 1.0
    while True:
        seen: list[Array] = []
        for radius in room:
            for _ in range(40):
                inset = 0.04 if radius > 0.12 else 0.0
                spot = random.uniform(inset - limit, limit - inset)
                apart = [np.hypot(*(spot - other)) for other in seen]
                least = [tight * (radius + other) for other in room]
                if all(gap > bound for gap, bound in zip(apart, least)):
                    seen.append(spot)
                    break
            else:
                break
        if len(seen) == len(room):
            return list(camera.on_table(np.stack(seen))) if seen else []
        tight *= 0.95


def _draw_hand(
    random: np.random.Generator, spot: Array, spots: Sequence[Array], camera: Camera
) -> Hand:
    """A hand from the camera's side of the table, whose arm keeps clear of the other spots."""
    others = np.array([other for other in spots if other is not spot]).reshape(-1, 3) - spot
    to_camera = np.arctan2(*-camera.rotation[2, 1::-1])
    azimuths = to_camera + random.uniform(-SIDEWAYS, SIDEWAYS, 8)
    ways = np.stack([np.cos(azimuths), np.sin(azimuths)], axis=1)
    along = np.clip(ways @ others[:, :2].T, 0, None)  # (8, others)
    gaps = np.linalg.norm(others[None, :, :2] - along[..., None] * ways[:, None], axis=-1)
    clear = np.where(along > 0, gaps, np.inf).min(axis=1, initial=np.inf)
    azimuth = float(azimuths[int(np.argmax(np.minimum(clear, 0.12)))])
    human = bool(random.random() < 0.5)
    if human:
        skin = _vary(_SKINS[int(random.integers(len(_SKINS)))], random, 10)
        sleeve = tuple(random.uniform(25, 225, 3).tolist())
    else:
        grey = float(random.uniform(50, 190))
        skin, sleeve = _vary((grey, grey, grey), random, 8), _vary((150, 150, 150), random, 90)
    return Hand(human, skin, sleeve, azimuth, slope=float(random.uniform(0.25, 0.8)))


_SKINS: tuple[Colour, ...] = (
    (236, 196, 170),
    (216, 166, 130),
    (176, 122, 86),
    (120, 80, 56),
    (88, 58, 42),
)


def _draw_motion(verb: str, random: np.random.Generator) -> Motion:
    begin, end = random.uniform(0, 0.15), random.uniform(0.85, 1.0)
    turn = random.uniform(1.2, 2.6) * random.choice((-1, 1))
    if verb == "hold":
        begin = random.uniform(0, 1)  # as anywhere on rotate's way
    return Motion(verb, float(begin), float(end), float(turn), float(random.uniform(1, 3)))


def _draw_table(random: np.random.Generator, plain: bool) -> Table:
    pattern = str(random.choice(("plain", "wood", "wood", "checks", "stripes", "cloth")))
    base = random.uniform(60, 215)
    return Table(
        pattern="plain" if plain else pattern,
        colour=_vary((base, base, base), random, 45),
        contrast=float(random.uniform(0.1, 0.5)),
        scale=float(random.uniform(0.015, 0.06)),
        clutter=0 if plain else int(random.integers(0, 7)),
        seed=int(random.integers(2**31)),
    )


def _vary(colour: Colour, random: np.random.Generator, spread: float) -> Colour:
    varied = np.clip(np.array(colour) + random.uniform(-spread, spread, 3), 5, 250)
    return float(varied[0]), float(varied[1]), float(varied[2])


def _before(mesh: Mesh, camera: Camera) -> Mesh:
    """A hand whose arm, its first part, is cut where it comes too near to the camera."""
    depths = (mesh.points[:2] - camera.position) @ camera.rotation[2]
    if depths[0] >= NEAREST_M:
        return mesh
    share = (NEAREST_M - depths[0]) / max(depths[1] - depths[0], 1e-9)
    points = mesh.points.copy()
    points[0] += share * (points[1] - points[0])
    return replace(mesh, points=points)


def _box(mesh: Mesh, camera: Camera, hw: tuple[int, int]) -> Array:
    """(4,) x1 y1 x2 y2 around a mesh, within the image."""
    pixels, depths = camera.project(mesh.points, hw)
    grow = (np.repeat(mesh.radii, mesh.sizes) * camera.focal * hw[1] / depths)[:, None]
    low, high = (pixels - grow).min(axis=0), (pixels + grow).max(axis=0)
    size = np.array(hw[::-1]) - 1
    return np.concatenate([np.clip(low, 0, size), np.clip(high, 0, size)])

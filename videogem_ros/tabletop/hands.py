"""Grippers and hands, and what they do: for every verb where object and fingers are over time.

The phase of an action runs from 0 to 1 over a clip. Verbs that are twins (push and pull, lift and
lower, open and close) go through the same poses in opposite order, so that one frame cannot tell
them apart; hold stays where rotate turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from videogem_ros.tabletop.captions import Thing
from videogem_ros.tabletop.geometry import (
    UP,
    Array,
    Colour,
    Mesh,
    around,
    circle,
    cross,
    join,
    limbs,
    polygons,
    rectangle,
    shade,
    sheet,
)
from videogem_ros.tabletop.objects import BOX_SWING, DRAWER_WAY, SCALE, SHAPES, build

PATH = 0.16
"""Metres that an object is pushed or pulled."""

RISE = 0.13
"""Metres that an object is lifted or lowered."""

LEAST_RISE = 0.025
"""Metres above the table where that begins or ends."""

RIM = 0.0035
"""Metres of shade around a finger or a tool's bar."""

ARM = 0.9
"""Metres from wrist to where an arm ends, outside every image."""


@dataclass(frozen=True)
class Hand:
    """What takes hold.

    Attributes:
        human: A hand with sleeve and four fingers, else a gripper with two jaws.
        skin: RGB of fingers and palm.
        sleeve: RGB of the arm.
        azimuth: Direction from the object to where the arm comes from, radians from +x.
        slope: How steeply the arm comes down, metres of height per metre.
    """

    human: bool
    skin: Colour
    sleeve: Colour
    azimuth: float
    slope: float

    @property
    def back(self) -> Array:
        """(3,) horizontal unit vector towards the arm's other end."""
        return np.array([np.cos(self.azimuth), np.sin(self.azimuth), 0.0])

    @property
    def side(self) -> Array:
        """(3,) horizontal unit vector to the hand's side."""
        return np.array([-np.sin(self.azimuth), np.cos(self.azimuth), 0.0])


@dataclass(frozen=True)
class Motion:
    """How one action of a clip goes on.

    Attributes:
        verb: Key of ``VERBS``.
        begin: Phase at the first frame.
        end: Phase at the last frame.
        turn: Radians that rotate turns by, either way round.
        strokes: Strokes of wipe, press or pour's rocking.
    """

    verb: str
    begin: float = 0.0
    end: float = 1.0
    turn: float = 1.5
    strokes: float = 2.0

    def phase(self, time: float) -> float:
        """At a time from 0 to 1 of the clip."""
        return self.begin + (self.end - self.begin) * time


@dataclass(frozen=True, eq=False)
class Pose:
    """Object and hand at one time.

    Attributes:
        thing: Parts of the object.
        contact: Parts of the hand that belong to the action's box: palm and fingers.
        arm: The rest of it.
    """

    thing: Mesh
    contact: Mesh
    arm: Mesh


@dataclass(frozen=True, eq=False)
class Body:
    """An object on the table.

    Attributes:
        thing: What it is.
        colour: Its very RGB.
        xyz: (3,) where it stands, at half of its way where it is moved.
        yaw: Its orientation, radians; of what is opened, the front faces the hand instead.
    """

    thing: Thing
    colour: Colour
    xyz: Array
    yaw: float

    def parts(self) -> Mesh:
        """As it stands there, untouched."""
        return build(self.thing, self.colour).moved(around(UP, self.yaw), self.xyz)


def pose(body: Body, hand: Hand, motion: Motion, time: float) -> Pose:
    """An object and the hand that acts on it, at a time from 0 to 1 of the clip."""
    return _ACTS[motion.verb](_Act(body, hand, motion, motion.phase(time)))


def idle_hand(hand: Hand, xyz: Array) -> Mesh:
    """An open hand that lies on the table and does nothing."""
    wrist = xyz + 0.08 * hand.back + 0.028 * UP
    tips = [
        xyz + shift * hand.side - 0.012 * hand.back + 0.006 * UP
        for shift in ((-0.055, 0.055) if not hand.human else (-0.055, -0.02, 0.018, 0.05))
    ]
    return join(_arm(hand, wrist), _fingers(hand, wrist, tips))


@dataclass(frozen=True)
class _Act:
    body: Body
    hand: Hand
    motion: Motion
    phase: float

    @property
    def scale(self) -> float:
        return SCALE[self.body.thing.size]

    @property
    def xyz(self) -> Array:
        return self.body.xyz

    @property
    def reach(self) -> float:
        return self.scale * SHAPES[self.body.thing.kind].reach

    @property
    def height(self) -> float:
        return self.scale * SHAPES[self.body.thing.kind].height

    def object_at(
        self, offset: Array, turn: float = 0.0, tilt: Array | None = None, opening: float = 0.0
    ) -> Mesh:
        body = self.body
        rotation = around(UP, body.yaw + turn)
        if tilt is not None:
            rotation = tilt @ rotation
        return build(body.thing, body.colour, opening).moved(rotation, body.xyz + offset)

    def with_hand(
        self, thing: Mesh, wrist: Array, tips: list[Array], tool: Mesh | None = None
    ) -> Pose:
        fingers = _fingers(self.hand, wrist, tips)
        contact = fingers if tool is None else join(tool, fingers)
        return Pose(thing, contact, _arm(self.hand, wrist))


def _slide(act: _Act, phase: float) -> Pose:
    """A rake around the object, a bar behind it and one at each side; away from the arm."""
    hand = act.hand
    offset = (0.5 - phase) * PATH * hand.back
    wide, long = act.reach + 0.014, 0.75 * act.reach
    middle = act.xyz + offset + min(0.5 * act.height, 0.03) * UP
    corners = [
        middle - long * hand.back - wide * hand.side,
        middle + wide * (hand.back - hand.side),
        middle + wide * (hand.back + hand.side),
        middle - long * hand.back + wide * hand.side,
    ]
    rake = _rimmed(np.stack([np.stack(pair) for pair in pairwise(corners)]), 0.008, _TOOL)
    near = middle + (wide + 0.012) * hand.back + 0.012 * UP
    tips = [near + shift * hand.side for shift in (-0.03, -0.01, 0.01, 0.03)]
    return act.with_hand(act.object_at(offset), near + 0.06 * hand.back + 0.02 * UP, tips, rake)


def _clasp(act: _Act, height: float) -> Pose:
    """Arms of fingers around both sides of the object, from the hand's own height."""
    hand = act.hand
    lift = (LEAST_RISE + height) * UP
    middle = act.xyz + lift + 0.6 * act.height * UP
    grip = min(act.reach, 0.055) + 0.012
    tips = [
        middle - grip * hand.side - 0.3 * act.reach * hand.back,
        middle - grip * hand.side + 0.4 * act.reach * hand.back,
        middle + grip * hand.side + 0.4 * act.reach * hand.back,
        middle + grip * hand.side - 0.3 * act.reach * hand.back,
    ]
    wrist = middle + (act.reach + 0.06) * hand.back + 0.02 * UP
    return act.with_hand(act.object_at(lift), wrist, tips)


def _claw(act: _Act, turn: float) -> Pose:
    """Fingers spread around the object from straight above."""
    hand = act.hand
    middle = act.xyz + act.height * UP
    grip = min(act.reach, 0.05) + 0.008
    low = middle - min(0.4 * act.height, 0.03) * UP
    angles = turn + np.array([0.25, 0.9, 2.25, 2.9]) * np.pi / 2
    ways = [np.cos(angle) * hand.side + np.sin(angle) * cross(UP, hand.side) for angle in angles]
    wrist = middle + 0.075 * UP + 0.01 * hand.back
    return act.with_hand(act.object_at(np.zeros(3), turn), wrist, [low + grip * w for w in ways])


def _rotate(act: _Act) -> Pose:
    return _claw(act, (act.phase - 0.5) * act.motion.turn)


def _hold(act: _Act) -> Pose:
    return _claw(act, (act.motion.begin - 0.5) * act.motion.turn)


def _swing(act: _Act) -> float:
    """A value from -1 to 1 that goes to and fro."""
    return float(np.sin(2 * np.pi * act.motion.strokes * act.phase))


def _press(act: _Act) -> Pose:
    """A disc at the end of a handle, straight down."""
    hand = act.hand
    foot = act.xyz + (act.height + 0.004 + 0.014 * (1 + _swing(act)) / 2) * UP
    end = foot + 0.07 * hand.back + 0.025 * UP
    dark = shade(_TOOL, 0.2)
    rings = ((0.042, 0.0, dark), (0.035, 0.002, _TOOL), (0.022, 0.004, dark), (0.01, 0.006, _TOOL))
    stamp = join(
        *(sheet(circle(r), height, colour).moved(np.eye(3), foot) for r, height, colour in rings),
        _rimmed(np.stack([foot + 0.03 * hand.back + 0.008 * UP, end])[None], 0.008, _TOOL),
    )
    tips = [end + shift * hand.side - 0.01 * hand.back for shift in (-0.022, 0.0, 0.022)]
    wrist = end + 0.05 * hand.back + 0.02 * UP
    return act.with_hand(act.object_at(np.zeros(3)), wrist, tips, stamp)


def _wipe(act: _Act) -> Pose:
    """A cloth under the flat hand, to and fro."""
    hand = act.hand
    middle = act.xyz + act.height * UP + 0.6 * act.reach * _swing(act) * hand.side
    corners = np.column_stack([rectangle(0.1, 0.085), np.full(4, 0.006)])
    turned = corners @ around(UP, hand.azimuth + 0.3).T + middle
    hem = turned + 0.12 * (turned - middle) - 1e-3 * UP
    white = (246.0, 240.0, 205.0) if hand.human else (222.0, 236.0, 246.0)
    cloth = join(
        polygons(hem[None], (90.0, 150.0, 215.0), both_sides=True),
        polygons(turned[None], white, both_sides=True),
    )
    tips = [
        middle + shift * hand.side - 0.018 * hand.back + 0.01 * UP
        for shift in (-0.033, -0.011, 0.011, 0.033)
    ]
    wrist = middle + 0.055 * hand.back + 0.03 * UP
    return act.with_hand(act.object_at(np.zeros(3)), wrist, tips, cloth)


def _pour(act: _Act) -> Pose:
    """The object lifted, tipped to the side, and a stream from its mouth."""
    hand = act.hand
    tilt = around(hand.back, -1.75 - 0.25 * _swing(act))
    lift = 0.08 * UP + 0.4 * act.height * hand.side
    thing = act.object_at(lift, tilt=tilt)
    axis = tilt @ UP
    mouth = act.xyz + lift + 1.02 * act.height * axis
    ground = mouth - mouth[2] * UP + 0.01 * axis
    stream = limbs(np.stack([mouth, ground])[None], 0.009, _WATER)
    puddle = sheet(circle(0.042), 0.001, _WATER).moved(np.eye(3), ground - ground[2] * UP)
    grip = act.xyz + lift + 0.45 * act.height * axis
    near = grip + 0.95 * act.reach * hand.back
    tips = [
        near - 0.6 * act.reach * hand.back + shift * axis + act.reach * UP
        for shift in (-0.022, 0.0, 0.022)
    ]
    posed = act.with_hand(thing, near + 0.065 * hand.back + 0.012 * UP, tips)
    return Pose(join(puddle, stream, posed.thing), posed.contact, posed.arm)


def _opened(act: _Act, opening: float) -> Pose:
    """A hand at the edge of a lid or the knob of a drawer; the front faces the hand."""
    hand, scale = act.hand, act.scale
    thing = act.object_at(np.zeros(3), hand.azimuth - act.body.yaw, opening=opening)
    if act.body.thing.kind == "box":
        angle = BOX_SWING * opening
        edge = (-0.052 + 0.104 * np.cos(angle)) * hand.back + (0.056 + 0.104 * np.sin(angle)) * UP
    else:
        edge = (0.068 + DRAWER_WAY * opening) * hand.back + 0.036 * UP
    place = act.xyz + scale * edge
    tips = [place + shift * hand.side for shift in (-0.02, 0.0, 0.02)]
    return act.with_hand(thing, place + 0.07 * hand.back + 0.035 * UP, tips)


_WATER = (120.0, 205.0, 250.0)
_TOOL = (240.0, 240.0, 232.0)

_ACTS = {
    "push": lambda act: _slide(act, act.phase),
    "pull": lambda act: _slide(act, 1 - act.phase),
    "lift": lambda act: _clasp(act, RISE * act.phase),
    "lower": lambda act: _clasp(act, RISE * (1 - act.phase)),
    "open": lambda act: _opened(act, 0.08 + 0.84 * act.phase),
    "close": lambda act: _opened(act, 0.92 - 0.84 * act.phase),
    "rotate": _rotate,
    "hold": _hold,
    "press": _press,
    "pour": _pour,
    "wipe": _wipe,
}


def _arm(hand: Hand, wrist: Array) -> Mesh:
    away = hand.back + hand.slope * UP
    cuff = wrist + 0.03 * away
    radius = 0.03 if hand.human else 0.02
    arm = limbs(np.stack([wrist + ARM * away, cuff])[None], radius, hand.sleeve)
    if hand.human:
        return arm
    joint = limbs(np.stack([cuff + 0.02 * away, cuff])[None], 0.028, shade(hand.sleeve, 0.6))
    return join(arm, joint)


def _fingers(hand: Hand, wrist: Array, tips: list[Array]) -> Mesh:
    """Palm and fingers from a wrist to the tips; a gripper's two jaws reach for the outer ones."""
    middle = np.mean(tips, axis=0)
    palm = wrist + 0.35 * (middle - wrist)
    ends = np.stack(tips if hand.human else [tips[0], tips[-1]])
    reach = np.linalg.norm(ends - palm, axis=1, keepdims=True)
    bends = palm + 0.6 * (ends - palm) + 0.25 * reach * _unit(ends - middle)
    knuckles = np.broadcast_to(palm, bends.shape)
    joints = np.concatenate([np.stack([knuckles, bends], 1), np.stack([bends, ends], 1)])
    radius = 0.009 if hand.human else 0.011
    palm_limb = limbs(np.stack([wrist, palm])[None], 0.027, shade(hand.skin, 0.9))
    return join(palm_limb, _rimmed(joints, radius, shade(hand.skin, 1.1), shade(hand.skin, 0.35)))


def _rimmed(ends: Array, radius: float, colour: Colour, rim: Colour = (30.0, 30.0, 34.0)) -> Mesh:
    """Limbs (n, 2, 3) with a dark rim, which tells them from each other and what is behind."""
    return join(limbs(ends, radius + RIM, rim), limbs(ends, radius, colour))


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-6))

"""The objects of the table, built from faces and limbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from videogem_ros.tabletop.captions import Thing
from videogem_ros.tabletop.geometry import (
    UP,
    Colour,
    Mesh,
    around,
    circle,
    join,
    limbs,
    polygons,
    prism,
    rectangle,
    shade,
    sheet,
)

SCALE = {"small": 0.85, "large": 1.2}
"""How many times an object of that size is larger than the plain one."""


@dataclass(frozen=True)
class Shape:
    """What hands must know of an object of the plain size.

    Attributes:
        reach: From its middle to its side, metres.
        height: Metres.
        build: Its parts, given colour and how far it is open (0 to 1).
    """

    reach: float
    height: float
    build: Callable[[Colour, float], Mesh]


BOX_SWING = 1.9
"""Radians between a lid that is closed and one that is open."""

DRAWER_WAY = 0.075
"""Metres that a drawer comes out."""

_DARK, _STEEL, _PAPER = (50.0, 46.0, 44.0), (188.0, 190.0, 194.0), (240.0, 236.0, 224.0)


def _cup(colour: Colour, _: float) -> Mesh:
    bow = np.array([[0.036, 0, 0.068], [0.062, 0, 0.06], [0.06, 0, 0.032], [0.035, 0, 0.022]])
    return join(
        limbs(np.stack([bow[:-1], bow[1:]], axis=1), 0.006, shade(colour, 0.85)),
        prism(circle(0.034), 0.0, 0.085, colour, spread=1.15, lid=shade(colour, 1.3)),
        sheet(circle(0.031), 0.0855, shade(colour, 0.35)),
    )


def _bowl(colour: Colour, _: float) -> Mesh:
    return join(
        prism(circle(0.036), 0.0, 0.046, colour, spread=1.75, lid=shade(colour, 1.35)),
        sheet(circle(0.054), 0.0465, shade(colour, 0.7)),
        sheet(circle(0.036), 0.0465, shade(colour, 0.5)),
    )


def _plate(colour: Colour, _: float) -> Mesh:
    return join(
        prism(circle(0.05), 0.0, 0.012, shade(colour, 0.8), spread=1.4, lid=colour),
        sheet(circle(0.047), 0.0125, shade(colour, 0.75)),
        sheet(circle(0.044), 0.0125, shade(colour, 1.25)),
    )


def _bottle(colour: Colour, _: float) -> Mesh:
    return join(
        prism(circle(0.031), 0.0, 0.1, colour),
        prism(circle(0.031), 0.1, 0.125, colour, spread=0.4),
        prism(circle(0.0125), 0.125, 0.145, colour),
        prism(circle(0.0145), 0.145, 0.16, shade(_STEEL, 0.9)),
    )


def _can(colour: Colour, _: float) -> Mesh:
    return join(
        prism(circle(0.033), 0.0, 0.008, _STEEL),
        prism(circle(0.035), 0.008, 0.09, colour),
        prism(circle(0.033), 0.09, 0.098, _STEEL),
        sheet(circle(0.027), 0.0985, shade(_STEEL, 0.8)),
        sheet(rectangle(0.022, 0.008), 0.099, shade(_STEEL, 0.5)),
    )


def _box(colour: Colour, opening: float) -> Mesh:
    walls = prism(rectangle(0.1, 0.085), 0.0, 0.05, shade(colour, 0.9), lid=shade(colour, 0.3))
    lid = prism(rectangle(0.104, 0.089), 0.0, 0.014, colour, lid=shade(colour, 1.15))
    hinge = np.array([-0.052, 0.0, 0.0])  # opens towards +x, where the hand is
    swing = around(np.array([0.0, 1.0, 0.0]), -BOX_SWING * opening)
    return join(walls, lid.moved(swing, hinge + 0.0505 * UP - swing @ hinge))


def _drawer(colour: Colour, opening: float) -> Mesh:
    out = DRAWER_WAY * opening
    front = np.array([[0.0505, -0.04, 0.014], [0.0505, 0.04, 0.014]])
    mouth = np.concatenate([front, front[::-1] + 0.044 * UP])
    tray = prism(rectangle(out + 0.004, 0.078), 0.016, 0.054, shade(colour, 0.8), lid=_DARK)
    panel = prism(rectangle(0.008, 0.086), 0.012, 0.06, shade(colour, 1.2))
    knob = np.array([[0.06, 0.0, 0.036], [0.07, 0.0, 0.036]])
    ahead = np.array([1.0, 0.0, 0.0])
    return join(
        prism(rectangle(0.1, 0.1), 0.0, 0.075, colour, lid=shade(colour, 1.15)),
        polygons(mouth[None], _DARK),
        tray.moved(np.eye(3), (0.05 + out / 2) * ahead),
        panel.moved(np.eye(3), (0.056 + out) * ahead),
        limbs((knob + out * ahead)[None], 0.007, _STEEL),
    )


def _block(colour: Colour, _: float) -> Mesh:
    return join(
        prism(rectangle(0.062, 0.062), 0.0, 0.062, colour, lid=shade(colour, 1.2)),
        sheet(rectangle(0.044, 0.044), 0.0625, colour),
    )


def _book(colour: Colour, _: float) -> Mesh:
    cover, pages = rectangle(0.092, 0.126), rectangle(0.086, 0.122)
    return join(
        prism(cover, 0.0, 0.004, colour),
        prism(pages, 0.004, 0.024, _PAPER),
        prism(cover, 0.024, 0.028, colour),
        sheet(rectangle(0.06, 0.022) + np.array([0.0, 0.03]), 0.0285, _PAPER),
        sheet(rectangle(0.01, 0.126) - np.array([0.04, 0.0]), 0.0285, shade(colour, 0.6)),
    )


def _sponge(colour: Colour, _: float) -> Mesh:
    pores = [
        sheet(circle(radius, 6) + np.array([x, y]), 0.0345, shade(colour, 0.55))
        for x, y, radius in _PORES
    ]
    return join(prism(rectangle(0.1, 0.068), 0.0, 0.034, colour, lid=shade(colour, 1.1)), *pores)


_PORES = (
    (-0.036, -0.02, 0.006),
    (-0.012, 0.014, 0.009),
    (0.014, -0.016, 0.006),
    (0.036, 0.016, 0.009),
    (-0.034, 0.02, 0.006),
)
"""x, y and radius of a sponge's pores."""


SHAPES: Mapping[str, Shape] = {
    "cup": Shape(0.038, 0.085, _cup),
    "bowl": Shape(0.06, 0.046, _bowl),
    "plate": Shape(0.068, 0.012, _plate),
    "bottle": Shape(0.031, 0.16, _bottle),
    "can": Shape(0.035, 0.098, _can),
    "box": Shape(0.052, 0.064, _box),
    "drawer": Shape(0.056, 0.075, _drawer),
    "block": Shape(0.031, 0.062, _block),
    "book": Shape(0.046, 0.028, _book),
    "sponge": Shape(0.05, 0.034, _sponge),
}


def build(thing: Thing, colour: Colour, opening: float = 0.0) -> Mesh:
    """An object of its size that stands at the origin, its front towards +x.

    Args:
        thing: Which.
        colour: RGB of this very one.
        opening: How far lid or drawer is open, 0 to 1.
    """
    mesh = SHAPES[thing.kind].build(colour, opening)
    if thing.material == "wood":
        mesh = join(mesh, _bands(mesh, (0.2, 0.6), 0.07, shade(colour, 0.7)))
    elif thing.material == "metal":
        mesh = join(mesh, _bands(mesh, (0.45,), 0.16, shade(colour, 1.8)))
    return mesh.moved(np.eye(3), np.zeros(3), SCALE[thing.size])


def _bands(mesh: Mesh, places: tuple[float, ...], width: float, colour: Colour) -> Mesh:
    """Bands along every large quadrilateral: grain of wood, gleam of metal.

    Args:
        mesh: What is to be banded.
        places: Where the bands begin, as shares of a face's side.
        width: Theirs, as such a share.
        colour: RGB.
    """
    quads = mesh.sizes == 4
    corners = mesh.points[mesh.starts[quads][:, None] + np.arange(4)]
    corners = corners + 5e-4 * mesh.normals[quads][:, None]
    sides = np.linalg.norm(corners[:, [1, 3]] - corners[:, [0]], axis=-1)
    a, b, c, d = np.moveaxis(corners[(sides > 0.012).all(axis=1)], 1, 0)
    bands = [
        np.stack([a + low * (d - a), b + low * (c - b), b + high * (c - b), a + high * (d - a)], 1)
        for low, high in ((place, place + width) for place in places)
    ]
    return polygons(np.concatenate(bands), colour)

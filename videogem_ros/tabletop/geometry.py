"""A pinhole camera above a table, and the flat faces and round limbs that it sees.

World frame: x to the right of the table, y away from its front edge, z up, metres, the table at
z = 0. Camera frame: optical, x right, y down, z forward (REP-103). Pixels: the centre of the top
left one is (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Colour = tuple[float, float, float]
"""RGB, 0 to 255."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera without distortion.

    Attributes:
        rotation: (3, 3), world to camera frame.
        position: (3,), in the world, metres.
        focal: Focal length over the image's width.
    """

    rotation: Array
    position: Array
    focal: float

    @classmethod
    def above(
        cls, target: Array, distance: float, tilt: float, heading: float, roll: float, focal: float
    ) -> Camera:
        """A camera that looks at a point of the table.

        Args:
            target: (3,) what is in the middle of the image.
            distance: From there, metres.
            tilt: Angle between line of sight and table, radians; pi / 2 looks straight down.
            heading: Turned around the vertical by so much, radians.
            roll: Around the line of sight, radians.
            focal: Focal length over the image's width.
        """
        right = np.array([np.cos(heading), np.sin(heading), 0.0])
        ahead = np.array([-np.sin(heading), np.cos(heading), 0.0])
        forward = np.cos(tilt) * ahead - np.sin(tilt) * np.array([0.0, 0.0, 1.0])
        down = cross(forward, right)
        c, s = np.cos(roll), np.sin(roll)
        rotation = np.stack([c * right + s * down, c * down - s * right, forward])
        return cls(rotation, target - distance * forward, focal)

    def turned(self, angles: Array) -> Camera:
        """The camera turned around its own axes by small angles (3,), radians."""
        x, y, z = angles
        small = np.array([[1.0, -z, y], [z, 1.0, -x], [-y, x, 1.0]])
        orthogonal, _ = np.linalg.qr(small)
        return replace(self, rotation=orthogonal * np.sign(np.diag(orthogonal)) @ self.rotation)

    def matrix(self, hw: tuple[int, int]) -> Array:
        """The (3, 3) camera matrix K for an image of this height and width."""
        height, width = hw
        focal = self.focal * width
        return np.array(
            [[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]]
        )

    def project(self, points: Array, hw: tuple[int, int]) -> tuple[Array, Array]:
        """Project points of the world.

        Args:
            points: (..., 3), metres.
            hw: Height and width of the image.

        Returns:
            Pixels (..., 2), and depths (...), metres along the optical axis.
        """
        seen = (points - self.position) @ self.rotation.T
        depth = np.maximum(seen[..., 2], 1e-3)
        focal = self.focal * hw[1]
        middle = np.array([(hw[1] - 1) / 2, (hw[0] - 1) / 2])
        return focal * seen[..., :2] / depth[..., None] + middle, depth

    def rays(self, hw: tuple[int, int]) -> Array:
        """(H, W, 3) rays of the pixels in the world frame, of depth 1 along the optical axis."""
        height, width = hw
        focal = self.focal * width
        x = (np.arange(width) - (width - 1) / 2) / focal
        y = (np.arange(height) - (height - 1) / 2) / focal
        right, down, forward = self.rotation
        rays: Array = x[None, :, None] * right + y[:, None, None] * down + forward
        return rays

    def on_table(self, xy: Array) -> Array:
        """Image positions (..., 2), as fractions of width from the middle, to table points."""
        right, down, forward = self.rotation
        ray = xy[..., :1] / self.focal * right + xy[..., 1:] / self.focal * down + forward
        return np.asarray(self.position - ray * (self.position[2] / ray[..., 2:]))


@dataclass(frozen=True, eq=False)
class Mesh:
    """Flat convex faces and round limbs, in the order in which they are painted.

    A face is seen from the side around which its corners run counterclockwise. A limb is a rod
    with round ends, given by two points.

    Attributes:
        points: (P, 3) corners and ends of all parts, in the world.
        sizes: (F,) number of points of each of the F parts.
        colours: (F, 3) RGB of their material in full light, 0 to 255.
        radii: (F,) metres; 0 for faces.
        both_sides: (F,) whether a face is seen from behind as well.
    """

    points: Array
    sizes: npt.NDArray[np.int64]
    colours: Array
    radii: Array
    both_sides: npt.NDArray[np.bool_]

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """(F,) index of each part's first point."""
        return np.cumsum(self.sizes) - self.sizes

    @property
    def corners(self) -> npt.NDArray[np.int64]:
        """(F, 3) indices of each part's first three points; a limb's second one counts twice."""
        return self.starts[:, None] + np.minimum([0, 1, 2], self.sizes[:, None] - 1)

    @property
    def normals(self) -> Array:
        """(F, 3) unit normals of the faces; zero for limbs."""
        corners = self.points[self.corners]
        normals = cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1), 1e-12)[:, None])

    def moved(self, rotation: Array, offset: Array, scale: float = 1.0) -> Mesh:
        """Scaled, then turned by (3, 3), then shifted by (3,)."""
        points = scale * self.points @ rotation.T + offset
        return Mesh(points, self.sizes, self.colours, scale * self.radii, self.both_sides)

    def without_first(self) -> Mesh:
        """All parts but the first."""
        first = self.sizes[0]
        return Mesh(
            self.points[first:],
            self.sizes[1:],
            self.colours[1:],
            self.radii[1:],
            self.both_sides[1:],
        )


def join(*meshes: Mesh) -> Mesh:
    """The parts of all, one after another."""
    fields = ("points", "sizes", "colours", "radii", "both_sides")
    return Mesh(*(np.concatenate([getattr(mesh, name) for mesh in meshes]) for name in fields))


def polygons(
    corners: Array, colours: Colour | Sequence[Colour], *, both_sides: bool = False
) -> Mesh:
    """F faces of N corners each, (F, N, 3), of one colour or of one each."""
    count, size = corners.shape[:2]
    return Mesh(
        corners.reshape(-1, 3),
        np.full(count, size),
        np.broadcast_to(np.array(colours, float), (count, 3)),
        np.zeros(count),
        np.full(count, both_sides),
    )


def limbs(ends: Array, radius: float, colour: Colour) -> Mesh:
    """F limbs from end to end, (F, 2, 3)."""
    count = len(ends)
    return Mesh(
        ends.reshape(-1, 3),
        np.full(count, 2),
        np.broadcast_to(np.array(colour, float), (count, 3)),
        np.full(count, radius),
        np.zeros(count, bool),
    )


def circle(radius: float, corners: int = 14) -> Array:
    """(N, 2) corners of a regular polygon, counterclockwise."""
    angles = 2 * np.pi * np.arange(corners) / corners
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def rectangle(width: float, depth: float) -> Array:
    """(4, 2) corners around the origin, counterclockwise."""
    return 0.5 * np.array([[-width, -depth], [width, -depth], [width, depth], [-width, depth]])


def prism(
    outline: Array,
    bottom: float,
    top: float,
    colour: Colour,
    *,
    lid: Colour | None = None,
    spread: float = 1.0,
) -> Mesh:
    """A solid over an outline.

    Args:
        outline: (N, 2), counterclockwise, at the bottom.
        bottom: Height of its lower face.
        top: Height of its upper face.
        colour: Of all faces.
        lid: Of the upper face, where that is another.
        spread: The upper face is so many times larger.
    """
    low = np.column_stack([outline, np.full(len(outline), bottom)])
    high = np.column_stack([spread * outline, np.full(len(outline), top)])
    next_low, next_high = (np.concatenate([ring[1:], ring[:1]]) for ring in (low, high))
    ends = polygons(np.stack([low[::-1], high]), (colour, lid or colour))
    return join(polygons(np.stack([low, next_low, next_high, high], axis=1), colour), ends)


def sheet(outline: Array, height: float, colour: Colour) -> Mesh:
    """A flat mark that lies on something, seen from above."""
    return polygons(np.column_stack([outline, np.full(len(outline), height)])[None], colour)


def cross(a: Array, b: Array) -> Array:
    """Cross products of (..., 3) vectors; numpy's own is slow for few."""
    (ax, ay, az), (bx, by, bz) = np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0)
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def around(axis: Array, angle: float) -> Array:
    """The (3, 3) rotation around a unit axis (3,) by an angle in radians (Rodrigues)."""
    x, y, z = axis
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rotation: Array = np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew
    return rotation


UP = np.array([0.0, 0.0, 1.0])


def shade(colour: Colour, factor: float) -> Colour:
    """A colour made darker (below 1) or lighter (above)."""
    if factor <= 1:
        return tuple(factor * channel for channel in colour)  # type: ignore[return-value]
    return tuple(255 - (255 - channel) / factor for channel in colour)  # type: ignore[return-value]

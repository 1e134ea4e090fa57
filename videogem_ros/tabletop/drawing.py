"""From parts to pixels: light, shadow, texture, blur, noise, and depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from videogem_ros.tabletop.geometry import Array, Camera, Colour, Mesh, circle

Image = npt.NDArray[np.uint8]
_SHIFT = 4
_CAP = circle(1.0, 10)
SHARPNESS = 320
"""Image width in pixels at which blur, noise and texture are given."""


@dataclass(frozen=True, eq=False)
class Light:
    """A lamp far away.

    Attributes:
        direction: (3,) unit vector towards it.
        ambient: Share of light that comes from everywhere.
        gain: RGB factors: brightness and warmth.
        shadow: Share of light that a shadow removes.
    """

    direction: Array
    ambient: float
    gain: Array
    shadow: float


@dataclass(frozen=True)
class Table:
    """What the table top looks like.

    Attributes:
        pattern: "plain", "wood", "checks", "stripes" or "cloth".
        colour: Middle RGB.
        contrast: Of the pattern, 0 to 1.
        scale: Size of the pattern's elements over the image's width.
        clutter: Number of flat scraps that lie about.
        seed: Of the pattern.
    """

    pattern: str
    colour: Colour
    contrast: float
    scale: float
    clutter: int
    seed: int


@dataclass(frozen=True)
class Sensor:
    """What the camera does to the picture.

    Attributes:
        blur: Standard deviation in pixels of an image of width ``SHARPNESS``.
        noise: Standard deviation in grey levels.
        gamma: Exponent.
        seed: Of the noise.
    """

    blur: float
    noise: float
    gamma: float
    seed: int


def draw_table(table: Table, hw: tuple[int, int]) -> Image:
    """The empty table top, somewhat larger than the image so that it can be shifted."""
    height, width = hw[0] + 2 * _margin(hw), hw[1] + 2 * _margin(hw)
    random = np.random.default_rng(table.seed)
    image = np.empty((height, width, 3), np.float32)
    image[:] = table.colour
    cell = max(2.0, table.scale * hw[1])
    amplitude = 60 * table.contrast
    if table.pattern == "wood":
        image += amplitude * _noise(random, (height, width), (cell * 8, cell / 2))[..., None]
    elif table.pattern == "cloth":
        image += amplitude * _noise(random, (height, width), (cell, cell))[..., None]
        fine = random.normal(size=(height, width)).astype(np.float32)
        image += 0.3 * amplitude * fine[..., None]
    elif table.pattern in ("checks", "stripes"):
        angle = random.uniform(0, np.pi)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        u = (np.cos(angle) * x + np.sin(angle) * y) / cell
        sign = np.sign(np.sin(np.pi * u))
        if table.pattern == "checks":
            v = (np.cos(angle) * y - np.sin(angle) * x) / cell
            sign = sign * np.sign(np.sin(np.pi * v))
        image += 0.5 * amplitude * sign[..., None]
    for _ in range(table.clutter):
        _draw_scrap(image, random, hw[1])
    return np.clip(image, 0, 255).astype(np.uint8)


def _draw_scrap(image: npt.NDArray[np.float32], random: np.random.Generator, width: int) -> None:
    height, full = image.shape[:2]
    centre = (int(random.integers(full)), int(random.integers(height)))
    axes = tuple(int(max(1, random.uniform(0.005, 0.05) * width)) for _ in range(2))
    colour = tuple(random.uniform(30, 235, 3).tolist())
    angle = float(random.uniform(0, 180))
    if random.random() < 0.5:
        cv2.ellipse(image, centre, axes, angle, 0, 360, colour, cv2.FILLED)
    else:
        corners = cv2.boxPoints((centre, (2 * axes[0], 2 * axes[1]), angle))
        cv2.fillConvexPoly(image, corners.astype(np.int32), colour)


def _noise(
    random: np.random.Generator, hw: tuple[int, int], cell_xy: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """Smooth noise of about unit range, its cells so many pixels wide and high."""
    coarse_hw = tuple(max(2, int(side / cell) + 2) for side, cell in zip(hw, cell_xy[::-1]))
    coarse = random.normal(size=coarse_hw).astype(np.float32)
    return np.asarray(cv2.resize(coarse, hw[::-1], interpolation=cv2.INTER_CUBIC))


def _margin(hw: tuple[int, int]) -> int:
    return hw[1] // 16


def shifted_table(table: Image, hw: tuple[int, int], shift_xy: tuple[float, float]) -> Image:
    """The part of a drawn table top that is seen after a shift in pixels."""
    margin = _margin(hw)
    x, y = (float(np.clip(value, -margin, margin)) for value in shift_xy)
    matrix = np.array([[1, 0, x - margin], [0, 1, y - margin]], np.float32)
    return np.asarray(cv2.warpAffine(table, matrix, hw[::-1], flags=cv2.INTER_LINEAR), np.uint8)


def shadow_mask(
    meshes: Sequence[Mesh], camera: Camera, light: Light, hw: tuple[int, int]
) -> Image:
    """Where each mesh, as one hull, keeps the lamp's light from the table: (H, W) uint8."""
    mask = np.zeros(hw, np.uint8)
    slant = light.direction / light.direction[2]
    for mesh in meshes:
        on_table = mesh.points - mesh.points[:, 2:] * slant
        pixels, _ = camera.project(on_table, hw)
        hull = cv2.convexHull(_fixed(pixels))
        cv2.fillConvexPoly(mask, hull, (255,), cv2.LINE_AA, _SHIFT)
    size = max(3, hw[1] // 50) | 1
    return np.asarray(cv2.blur(mask, (size, size)))


def apply_shadow(image: Image, mask: Image, light: Light) -> Image:
    """The image with the masked part darkened."""
    factor = 255 - (light.shadow * mask.astype(np.float32)).astype(np.uint8)
    return np.asarray(cv2.multiply(image, cv2.merge([factor] * 3), scale=1 / 255))


def draw_mesh(image: Image, mesh: Mesh, camera: Camera, light: Light, hw: tuple[int, int]) -> None:
    """Paints the parts over the image, in their order."""
    pixels, depths = camera.project(mesh.points, hw)
    colours = _lit(mesh, light)
    for part, outline in _outlines(mesh, pixels, depths, camera, hw):
        cv2.fillConvexPoly(image, outline, colours[part], cv2.LINE_AA, _SHIFT)


def _lit(mesh: Mesh, light: Light) -> list[list[float]]:
    """RGB of every part as lit: Lambert's law on faces, limbs in even light."""
    lambert = mesh.normals @ light.direction
    lambert = np.where(mesh.both_sides, np.abs(lambert), np.maximum(lambert, 0.0))
    level = light.ambient + (1 - light.ambient) * lambert
    level = np.where(mesh.radii > 0, 0.9, level)
    colours: list[list[float]] = np.clip(
        level[:, None] * light.gain * mesh.colours, 0, 255
    ).tolist()
    return colours


def _outlines(
    mesh: Mesh, pixels: Array, depths: Array, camera: Camera, hw: tuple[int, int]
) -> Iterator[tuple[int, npt.NDArray[np.int32]]]:
    """Number and outline, in fixed-point pixels, of every part that the camera sees."""
    starts, sizes = mesh.starts, mesh.sizes
    first, second, third = pixels[mesh.corners].transpose(1, 2, 0)
    (ax, ay), (bx, by) = second - first, third - first
    # y points down: counterclockwise as seen is a negative area.
    seen = (ax * by - ay * bx < 0) | mesh.both_sides
    round_ = mesh.radii > 0
    ends = starts[round_][:, None] + [0, 1]
    pixel_radii = mesh.radii[round_][:, None] * camera.focal * hw[1] / depths[ends]
    caps = pixels[ends][:, :, None] + pixel_radii[..., None, None] * _CAP  # (limbs, 2, N, 2)
    caps_fixed = _fixed(caps).reshape(-1, 2 * len(_CAP), 2)
    fixed = _fixed(pixels)
    limb = iter(caps_fixed)
    for part, (start, size, is_limb) in enumerate(
        zip(starts.tolist(), sizes.tolist(), round_.tolist())
    ):
        if is_limb:
            yield part, np.asarray(cv2.convexHull(next(limb)), np.int32)
        elif seen[part]:
            yield part, fixed[start : start + size]


def _fixed(pixels: Array) -> npt.NDArray[np.int32]:
    """Pixels as OpenCV's fixed-point numbers; limited, lest they overflow far outside."""
    return np.round(np.clip(pixels, -4096, 8192) * (1 << _SHIFT)).astype(np.int32)


def expose(image: Image, sensor: Sensor, frame: int) -> Image:
    """Blur, gamma and noise; the noise differs from frame to frame."""
    sigma = sensor.blur * image.shape[1] / SHARPNESS
    if sigma > 0.2:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
    curve = 255 * (np.arange(256) / 255) ** sensor.gamma
    image = np.asarray(cv2.LUT(image, curve.astype(np.uint8)))
    if sensor.noise > 0.5:
        random = np.random.default_rng([sensor.seed, frame])
        # One sheet of noise, shifted for the second and third channel, is as good as three.
        sheet = np.empty((image.shape[0], image.shape[1]), np.int16)
        uniform = random.integers(0, 256, (4, *sheet.shape), np.uint8).astype(np.int16)
        sheet[:] = (uniform.sum(axis=0) - 510) * (sensor.noise / 147.8)  # variance 4 * 255**2 / 12
        noise = np.stack([sheet, np.roll(sheet, 7, 0), np.roll(sheet, 11, 1)], axis=2)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image


def depth_image(mesh: Mesh, camera: Camera, hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    """(H, W) metres along the optical axis to the table or the nearest part.

    Faces are exact; a limb is a flat band along its axis, nearer by its radius.
    """
    rays = camera.rays(hw)
    nearest = -camera.position[2] / rays[..., 2]
    pixels, depths = camera.project(mesh.points, hw)
    mask = np.zeros(hw, np.uint8)
    starts, normals, limit = mesh.starts, mesh.normals, np.array(hw[::-1])
    for part, outline in _outlines(mesh, pixels, depths, camera, hw):
        corners = outline.reshape(-1, 2) / (1 << _SHIFT)
        low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, limit - 1)
        high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 1, limit)
        if (low >= high).any():
            continue
        window = np.s_[low[1] : high[1], low[0] : high[0]]
        mask[window] = 0
        cv2.fillConvexPoly(mask, outline, (1,), cv2.LINE_8, _SHIFT)
        start = starts[part]
        if mesh.radii[part] > 0:
            ends = np.s_[start : start + 2]
            found = _along(pixels[ends], depths[ends], low, high) - mesh.radii[part]
        else:
            distance = float(normals[part] @ (mesh.points[start] - camera.position))
            against = rays[window] @ normals[part]
            found = np.divide(
                distance, against, out=np.full_like(against, np.inf), where=against != 0
            )
        closer = (mask[window] == 1) & (found > 0) & (found < nearest[window])
        nearest[window][closer] = found[closer]
    return np.asarray(nearest, np.float32)


def _along(
    pixels: Array, depths: Array, low: npt.NDArray[np.int_], high: npt.NDArray[np.int_]
) -> Array:
    """Depth of the line between two points, at the pixels of a window."""
    along = pixels[1] - pixels[0]
    x = np.arange(low[0], high[0]) - pixels[0, 0]
    y = np.arange(low[1], high[1]) - pixels[0, 1]
    share = (x[None] * along[0] + y[:, None] * along[1]) / max(float(along @ along), 1e-9)
    share = np.clip(share, 0, 1)
    # Along a line in space the inverse of the depth is linear in the image.
    return np.asarray(1 / ((1 - share) / depths[0] + share / depths[1]))

"""Pictures of groundings: the overlay on a frame, and the contact sheet of a whole run.

Everything here takes and gives RGB images, (H, W, 3) uint8. Shapes are drawn with OpenCV, which
smooths their edges, text with Pillow, which knows more letters than ASCII.
"""

from __future__ import annotations

import functools
import itertools
import math
import string
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from videogem_ros.datatypes import PROMPT_KINDS, Grounding
from videogem_ros.errors import InvalidValueError

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

Picture = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

PALETTE: tuple[Colour, ...] = (
    (0, 190, 255),
    (255, 150, 30),
    (60, 220, 120),
    (240, 110, 190),
    (250, 225, 70),
    (150, 130, 255),
)
"""RGB of the first, second, ... action of a picture; starts over after the last."""

_WHITE: Colour = (255, 255, 255)
_INK: Colour = (24, 26, 30)
_QUIET: Colour = (104, 108, 116)
_ABSENT: Colour = (190, 192, 198)

HEAT_OPACITY = 0.75
"""Opacity of the hottest places of an overlay."""
_SUBPIXEL_BITS = 4  # cv2 then draws on a grid of 1/16 pixel
# What Pillow's own font holds beside ASCII and a user may write: quotes, ellipsis, middle dot.
_PILLOW_LETTERS = frozenset(string.printable + "\u2018\u2019\u201c\u201d\u2026\u00b7")
_SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf")

_CELL_WIDTH_PX = 480
_CELL_HEIGHT_PX = 1280  # more than a phone's upright video needs
_MARGIN_PX = 40
_GAP_PX = 24
_HEADER_PX = 150
_LINE_PX = 28
_SLIDE_ASPECT = 16 / 9


def draw_overlay(
    image: Picture,
    groundings: Sequence[Grounding],
    *,
    hw: tuple[int, int] | None = None,
    caption: bool = True,
    opacity: float = HEAT_OPACITY,
) -> Picture:
    """Draws heatmaps, points and a caption over the frame that they belong to.

    One action is shown in the inferno colour map, several each in a colour of :data:`PALETTE`;
    opacity follows the heatmap. The fused point is a white-rimmed ring with ticks, the points of
    the verb, object and action prompts are small discs with the letters v, o and a. An action that
    is not there is grey, its ring is dashed and the caption says "not here".

    Args:
        image: The grounded frame.
        groundings: Groundings of this frame, one per action.
        hw: Another height and width of the picture; the image's own by default.
        caption: Whether actions and scores stand in a bar along the upper border.
        opacity: Of the hottest places, in [0, 1].

    Returns:
        (H, W, 3) uint8 RGB; at the image's own size, its pixels are the image's pixels.

    Raises:
        InvalidValueError: A grounding belongs to a frame of another size.
    """
    from PIL import Image, ImageDraw  # noqa: PLC0415 - slow to import, and only drawing needs it

    for grounding in groundings:
        if grounding.image_hw != image.shape[:2]:
            raise InvalidValueError(
                "grounding.image_hw", f"the image's (H, W) {image.shape[:2]}", grounding.image_hw
            )
    height, width = hw or image.shape[:2]
    coloured = [
        (grounding, colour if grounding.present else _ABSENT)
        for grounding, colour in zip(groundings, itertools.cycle(PALETTE))
    ]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    picture = _blend_heat(np.asarray(resized, dtype=np.float32), coloured, opacity)

    unit = max(0.6, min(height / 480, width / 640))  # a pixel of a 640x480 picture
    if caption and coloured:  # below the points, of which it may hide none
        captioned = Image.fromarray(picture)
        _draw_caption(ImageDraw.Draw(captioned, "RGBA"), coloured, width, unit)
        picture = np.array(captioned)
    letters = [_draw_points(picture, grounding, colour, unit) for grounding, colour in coloured]
    drawn = Image.fromarray(picture)
    draw = ImageDraw.Draw(drawn, "RGBA")
    for x, y, letter in itertools.chain.from_iterable(letters):
        _write(draw, (x, y), letter, 12 * unit, _INK, anchor="mm")
    return np.array(drawn)


def _blend_heat(
    canvas: npt.NDArray[np.float32],
    coloured: Sequence[tuple[Grounding, Colour]],
    opacity: float,
) -> Picture:
    """Lays the heatmaps over the (H, W, 3) float canvas, which fades where no action is there."""
    if len(coloured) == 1 and coloured[0][0].present:
        return blend_heatmap(canvas, coloured[0][0].heatmap.values, opacity)
    if coloured and not any(grounding.present for grounding, _ in coloured):
        canvas = 0.3 * canvas + 0.5 * canvas.mean(axis=2, keepdims=True)
    mixed, total = np.zeros_like(canvas), np.zeros((*canvas.shape[:2], 1), np.float32)
    strongest = total
    for grounding, colour in coloured:
        weight = _heat_weight(grounding.heatmap.to_image(canvas.shape[:2]))
        mixed = mixed + weight * np.array(colour)
        total, strongest = total + weight, np.maximum(strongest, weight)
    tint = mixed / np.maximum(total, 1e-6)
    return np.rint(canvas + opacity * strongest * (tint - canvas)).astype(np.uint8)


def blend_heatmap(
    image: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
    values: npt.NDArray[np.float32],
    opacity: float = HEAT_OPACITY,
) -> Picture:
    """Lays one heatmap over an image in the inferno colour map; opacity follows the heatmap.

    Args:
        image: (H, W, 3) RGB in [0, 255].
        values: (h, w) float32 in [0, 1] over the whole image, at any resolution.
        opacity: Of the hottest places, in [0, 1].
    """
    canvas = np.asarray(image, dtype=np.float32)
    resized = cv2.resize(values, canvas.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    heat = np.asarray(resized, dtype=np.float32)
    strength = opacity * _heat_weight(heat)
    return np.rint(canvas + strength * (_inferno(heat) - canvas)).astype(np.uint8)


def _heat_weight(heat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(H, W, 1): min-max scaling leaves every picture half warm; the square keeps that off it."""
    return np.asarray(heat[..., None] ** 2)


def _inferno(heat: npt.NDArray[np.float32]) -> Picture:
    levels = np.rint(255 * heat).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1], np.uint8)


def _draw_points(
    picture: Picture, grounding: Grounding, colour: Colour, unit: float
) -> list[tuple[float, float, str]]:
    """Draws the four points; gives the letters of the small ones with their places."""
    scale_xy = np.array(picture.shape[1::-1]) / grounding.image_hw[::-1]
    centres = {
        name: (np.array((point.x, point.y)) + 0.5) * scale_xy - 0.5
        for name, point in grounding.points.items()
    }
    for kind in PROMPT_KINDS:
        for radius, ink in ((9, _WHITE), (7.5, colour)):
            _draw_ring(picture, centres[kind], radius * unit, ink, cv2.FILLED)
    # From the widest stroke to the narrowest: a white and a dark rim, then the colour.
    for stroke, ink in ((6.5, _WHITE), (4.5, _INK), (2.5, colour)):
        thickness = max(1, round(stroke * unit))
        dashed = not grounding.present
        _draw_ring(picture, centres["fused"], 16 * unit, ink, thickness, dashed=dashed)
        for direction in () if dashed else ((1, 0), (-1, 0), (0, 1), (0, -1)):
            inner, outer = (
                _subpixels(centres["fused"] + reach * unit * np.array(direction))
                for reach in (6, 23)
            )
            cv2.line(picture, inner, outer, ink, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    return [(*centres[kind], kind[0]) for kind in PROMPT_KINDS]


def _draw_ring(
    picture: Picture,
    centre: npt.NDArray[np.float64],
    radius: float,
    colour: Colour,
    thickness: int,
    *,
    dashed: bool = False,
) -> None:
    axes = _subpixels(np.array((radius, radius)))
    arcs = [(start, start + 32) for start in range(0, 360, 60)] if dashed else [(0, 360)]
    for arc in arcs:
        shape = (_subpixels(centre), axes, 0, *arc, colour, thickness)
        cv2.ellipse(picture, *shape, cv2.LINE_AA, _SUBPIXEL_BITS)


def _subpixels(xy: npt.NDArray[np.float64]) -> tuple[int, int]:
    x, y = np.rint(xy * 2**_SUBPIXEL_BITS).astype(int)
    return int(x), int(y)


def _draw_caption(
    draw: ImageDraw.ImageDraw,
    coloured: Sequence[tuple[Grounding, Colour]],
    width: int,
    unit: float,
) -> None:
    """A dark bar along the upper border: per action its phrase, its score as gauge and text."""
    line, pad = 30 * unit, 9 * unit
    draw.rectangle((0, 0, width, len(coloured) * line + 2 * unit), fill=(*_INK, 190))
    for index, (grounding, colour) in enumerate(coloured):
        y = (index + 0.5) * line + unit
        _draw_bullet(draw, (pad, y), 5 * unit, colour)
        verdict = f"{grounding.score:.2f}" if grounding.present else "not here"
        _write(draw, (width - pad, y), verdict, 15 * unit, colour, anchor="rm")
        gauge_right = width - pad - 66 * unit
        gauge_left = gauge_right - 60 * unit
        for share, fill in ((1.0, (*_WHITE, 70)), (grounding.score, colour)):
            end = gauge_left + max(8 * unit, share * 60 * unit)
            draw.rounded_rectangle((gauge_left, y - 4 * unit, end, y + 4 * unit), 4 * unit, fill)
        left = 2 * pad + 10 * unit
        room = gauge_left - pad - left
        _write(draw, (left, y), grounding.action.phrase, 17 * unit, _WHITE, room_px=room)


@dataclass(frozen=True, eq=False)
class SheetCell:
    """What the contact sheet keeps of one grounded frame.

    Attributes:
        picture: Overlay without caption, 480 pixels wide, or 1,280 high and narrower.
        time_s: Seconds since the run's first grounded frame.
        lines: Per action its phrase, its point in source pixels (rounded), and its score or "not
            here".
    """

    picture: Picture
    time_s: float
    lines: tuple[tuple[str, str, str], ...]


def sheet_cell(image: Picture, groundings: Sequence[Grounding], time_s: float) -> SheetCell:
    """Reduces a grounded frame to what the contact sheet keeps of it."""
    height, width = image.shape[:2]
    scale = min(_CELL_WIDTH_PX / width, _CELL_HEIGHT_PX / height)
    hw = max(1, round(scale * height)), max(1, round(scale * width))
    lines = (
        (
            grounding.action.phrase,
            f"({grounding.point.x:.0f}, {grounding.point.y:.0f}) px",
            f"score {grounding.score:.2f}" if grounding.present else "not here",
        )
        for grounding in groundings
    )
    picture = draw_overlay(image, groundings, hw=hw, caption=False)
    return SheetCell(picture, time_s, tuple(lines))


def draw_contact_sheet(
    subtitle: str, cells: Sequence[SheetCell], title: str | None = None
) -> Picture:
    """Draws a grid of overlays under a title.

    The number of columns is the one that leaves few holes and comes near to a 16:9 slide.

    Args:
        subtitle: A line below the title: recording, backbone, number of groundings.
        cells: At least one cell, in order of time.
        title: Names of the actions where None.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InvalidValueError: There are no cells.
    """
    from PIL import Image, ImageDraw  # noqa: PLC0415 - slow to import, and only drawing needs it

    if not cells:
        raise InvalidValueError("contact_sheet.cells", "at least one cell", "none")
    actions = list(dict.fromkeys(text for cell in cells for text, *_ in cell.lines))
    line_count = max(len(cell.lines) for cell in cells)
    step_x = _CELL_WIDTH_PX + _GAP_PX
    step_y = max(cell.picture.shape[0] for cell in cells) + line_count * _LINE_PX + 2 * _GAP_PX

    def size(columns: int) -> tuple[int, int]:
        rows = math.ceil(len(cells) / columns)
        return 2 * _MARGIN_PX + columns * step_x - _GAP_PX, _HEADER_PX + rows * step_y

    def cost(columns: int) -> float:
        width, height = size(columns)
        holes = -len(cells) % columns / len(cells)
        return abs(math.log(width / height / _SLIDE_ASPECT)) + holes

    columns = min(range(1, len(cells) + 1), key=cost)
    sheet = Image.new("RGB", size(columns), _WHITE)
    draw = ImageDraw.Draw(sheet, "RGBA")
    room = sheet.width - 2 * _MARGIN_PX
    headline = "  ·  ".join(actions) if title is None else title
    _write(draw, (_MARGIN_PX, 58), headline, 40, _INK, room_px=room)
    _write(draw, (_MARGIN_PX, 108), subtitle, 22, _QUIET, room_px=room)
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        corner = (_MARGIN_PX + column * step_x, _HEADER_PX + row * step_y)
        sheet.paste(Image.fromarray(cell.picture), corner)
        _write_cell(draw, corner, cell, named=len(actions) > 1)
    return np.array(sheet)


def _write_cell(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], cell: SheetCell, *, named: bool
) -> None:
    """Writes the time into the picture's corner, and what was found below the picture."""
    left, top = corner
    right, bottom = left + _CELL_WIDTH_PX, top + cell.picture.shape[0]
    draw.rectangle((left, bottom - 34, left + 90, bottom - 1), fill=(*_INK, 190))
    _write(draw, (left + 45, bottom - 17), f"{cell.time_s:.2f} s", 19, _WHITE, anchor="mm")
    for index, ((text, point, verdict), colour) in enumerate(
        zip(cell.lines, itertools.cycle(PALETTE))
    ):
        y = bottom + 22 + index * _LINE_PX
        place = left
        if named:
            _draw_bullet(draw, (left, y), 6, colour)
            _write(draw, (left + 20, y), text, 19, _INK, room_px=_CELL_WIDTH_PX - 270)
            place = right - 240
        _write(draw, (place, y), point, 19, _QUIET)
        _write(draw, (right, y), verdict, 19, _INK, anchor="rm")


def _draw_bullet(
    draw: ImageDraw.ImageDraw, left_middle: tuple[float, float], radius: float, colour: Colour
) -> None:
    x, y = left_middle
    draw.ellipse((x, y - radius, x + 2 * radius, y + radius), fill=colour)


def _write(
    draw: ImageDraw.ImageDraw,
    xy: tuple[float, float],
    text: str,
    size_px: float,
    colour: Colour,
    *,
    room_px: float = math.inf,
    anchor: str = "lm",
) -> None:
    """Writes one line, shortened to the room there is; anchors are Pillow's."""
    text = " ".join(text.split())
    font = _own_font(round(size_px))
    if not _PILLOW_LETTERS.issuperset(text):
        system_font = _system_font(round(size_px))
        font = system_font or font
        text = text if system_font else _unaccented(text)
    if font.getlength(text) > room_px:
        text = _shortened(text, font, room_px)
    draw.text(xy, text, fill=colour, font=font, anchor=anchor)


def _shortened(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room_px: float
) -> str:
    """The longest beginning that fits into the room with an ellipsis; at least the ellipsis.

    A search by halves, as a command may have thousands of characters.
    """

    def beginning(length: int) -> str:
        return f"{text[:length].rstrip()}…"

    fitting = bisect_right(
        range(1, len(text)), room_px, key=lambda length: font.getlength(beginning(length))
    )
    return beginning(fitting)


@functools.lru_cache(maxsize=32)
def _own_font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont  # noqa: PLC0415

    return ImageFont.load_default(size_px)


@functools.lru_cache(maxsize=32)
def _system_font(size_px: int) -> ImageFont.FreeTypeFont | None:
    """An installed font with more letters than Pillow's own, if there is one."""
    from PIL import ImageFont  # noqa: PLC0415

    for name in _SYSTEM_FONTS:
        try:
            return ImageFont.truetype(name, size_px)
        except OSError:
            continue
    return None


def _unaccented(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(
        letter if letter in _PILLOW_LETTERS else "?"
        for letter in decomposed
        if not unicodedata.combining(letter)
    )

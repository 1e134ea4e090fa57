"""A short recording to try everything on, drawn by the package itself."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from videogem_ros.adapters.bag.writing import BagWriter, header
from videogem_ros.adapters.encodings import image_message_fields
from videogem_ros.errors import RecordingError

IMAGE_TOPIC, ACTION_TOPIC = "/camera/image_raw", "/action"
FRAMES, RATE_HZ, HW = 40, 10, (240, 320)
COMMANDS = ((0, "pick up the red mug"), (20, "put the red mug on the blue plate"))
"""Number of the frame before which a command is sent, and its text."""

_START_NS = 1_700_000_000 * 10**9
_SCALE = 4  # drawn so many times larger, then reduced: smooth edges
_MUG_XY, _PLATE_XY, _AWAY_XY = (92, 158), (228, 168), (330, 40)
_WOOD, _WALL, _RED, _DARK_RED = (150, 108, 72), (204, 206, 198), (204, 40, 38), (120, 18, 22)
_BLUE, _LIGHT_BLUE, _SKIN, _SLEEVE = (36, 74, 160), (76, 120, 210), (226, 174, 140), (62, 88, 72)

_Image = npt.NDArray[np.uint8]
_Xy = tuple[float, float]
_Colour = tuple[int, int, int]


def write_sample(path: Path) -> None:
    """Writes a rosbag2 in which a hand carries a red mug to a blue plate.

    40 frames of 320x240 rgb8 at 10 Hz on ``/camera/image_raw`` and two commands on ``/action``
    (``std_msgs/String``); the same frames every time.

    Args:
        path: Folder of the bag; must not exist. It appears when it is complete.

    Raises:
        RecordingError: The path exists, or cannot be written.
    """
    if path.exists():
        raise RecordingError(f"{path} exists already; choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent) as partial:
            _write(Path(partial) / path.name)
            (Path(partial) / path.name).rename(path)
    except OSError as error:
        raise RecordingError(f"cannot write {path}: {error.strerror}") from error


def _write(folder: Path) -> None:
    table, texts = _table(), dict(COMMANDS)
    with contextlib.closing(BagWriter(folder)) as bag:
        for number in range(FRAMES):
            stamp_ns = _START_NS + number * 10**9 // RATE_HZ
            if number in texts:
                bag.write(ACTION_TOPIC, "std_msgs/msg/String", stamp_ns - 1, data=texts[number])
            image = image_message_fields(_draw(table, number / (FRAMES - 1)), "rgb8")
            head = header(stamp_ns, "camera_optical_frame")
            bag.write(IMAGE_TOPIC, "sensor_msgs/msg/Image", stamp_ns, header=head, **image)


def _table() -> _Image:
    """A wooden table before a wall, at drawing size."""
    height, width = (side * _SCALE for side in HW)
    random = np.random.default_rng(0)
    grain = cv2.GaussianBlur(random.normal(size=(height, width)), (0, 0), 60, sigmaY=2)
    scene = np.array(_WOOD) + 160 * grain[..., None]
    scene[: height // 4] = _WALL
    return np.clip(scene, 0, 255).astype(np.uint8)


def _draw(table: _Image, progress: float) -> _Image:
    """The scene at a time from 0 to 1: the hand comes, lifts, carries, sets down and leaves."""
    times = (0.0, 0.25, 0.4, 0.7, 0.8, 1.0)
    lifted, above_plate = (_MUG_XY[0], 118), (_PLATE_XY[0], 118)
    on_plate = (_PLATE_XY[0], _PLATE_XY[1] - 18)
    hand = _along(times, (_AWAY_XY, _MUG_XY, lifted, above_plate, on_plate, _AWAY_XY), progress)
    mug = _along(times, (_MUG_XY, _MUG_XY, lifted, above_plate, on_plate, on_plate), progress)
    scene = table.copy()
    _ellipse(scene, _PLATE_XY, (54, 20), _BLUE)
    _ellipse(scene, (_PLATE_XY[0], _PLATE_XY[1] - 2), (38, 12), _LIGHT_BLUE)
    _draw_mug(scene, mug)
    _draw_hand(scene, hand)
    return np.asarray(cv2.resize(scene, HW[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _along(times: Sequence[float], places: Sequence[_Xy], progress: float) -> _Xy:
    x, y = (float(np.interp(progress, times, axis)) for axis in zip(*places))
    return x, y


def _draw_mug(scene: _Image, middle: _Xy) -> None:
    x, y = middle
    _ellipse(scene, (x - 20, y), (11, 12), _DARK_RED, 5)
    _ellipse(scene, (x, y + 19), (19, 6), _RED)
    body = (*_scaled((x - 19, y - 18)), *_scaled((38, 37)))
    cv2.rectangle(scene, body, _RED, cv2.FILLED)
    _ellipse(scene, (x, y - 18), (19, 6), _DARK_RED)


def _draw_hand(scene: _Image, grip: _Xy) -> None:
    x, y = grip[0] + 30, grip[1] - 6
    _line(scene, (x + 14, y - 6), (x + 330, y - 140), 34, _SLEEVE)
    _line(scene, (x + 2, y - 2), (x + 26, y - 12), 26, _SKIN)
    _ellipse(scene, (x, y), (17, 19), _SKIN)
    for finger in range(4):
        knuckle = (x - 6, y - 12 + 9 * finger)
        _line(scene, knuckle, (x - 32, y - 10 + 8 * finger), 8, _SKIN)


def _ellipse(
    scene: _Image, middle: _Xy, radii: tuple[int, int], colour: _Colour, thickness: int = -1
) -> None:
    centre, axes = _scaled(middle), _scaled(radii)
    cv2.ellipse(scene, centre, axes, 0, 0, 360, colour, thickness * _SCALE)


def _line(scene: _Image, start: _Xy, end: _Xy, thickness: int, colour: _Colour) -> None:
    cv2.line(scene, _scaled(start), _scaled(end), colour, thickness * _SCALE)


def _scaled(xy: _Xy) -> tuple[int, int]:
    return round(xy[0] * _SCALE), round(xy[1] * _SCALE)

"""From a pixel and the camera's calibration to a ray.

Which fields of a ``sensor_msgs/CameraInfo`` apply depends on the image. A rectified image
(``image_rect``) follows the pinhole model with the camera matrix P; the raw image (``image_raw``)
has the camera matrix K and the distortion D. ROI and binning act on both as in ROS's
image_geometry, except that pixel edges are scaled here, not pixel centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from videogem_ros.errors import InvalidValueError, VideoGemError

ASPECT_TOLERANCE = 0.01
"""How far the aspect ratios of two images of one camera may differ, as their sizes are rounded."""

RAY_TOLERANCE_PX = 1e-3
"""How near to the pixel its ray has to be projected."""

_MOST_STEPS = 20
_PROBES = 50  # along a ray
_STEP = 1e-6
_STEPS = np.array([[0, 0], [_STEP, 0], [0, _STEP]])
_POLYNOMIAL = (5, 8, 12, 14)  # numbers of coefficients that OpenCV knows
_LENSES = {"plumb_bob": _POLYNOMIAL, "rational_polynomial": _POLYNOMIAL, "equidistant": (4,)}
"""Distortion models of sensor_msgs/distortion_models.hpp."""


class PositionUnknown(VideoGemError):  # noqa: N818 - an answer, not a defect
    """A point has no position in space; the message is the reason."""


@dataclass(frozen=True)
class Lens:
    """The distortion of a lens.

    Attributes:
        model: ``plumb_bob``, ``rational_polynomial`` or ``equidistant``.
        coefficients: As many as OpenCV takes: k1, k2, p1, p2, k3, ...; for ``equidistant`` k1 to
            k4.
    """

    model: str
    coefficients: tuple[float, ...]

    @classmethod
    def from_message(cls, message: Any) -> Lens | None:
        """The lens of a ``sensor_msgs/CameraInfo``; None without distortion or a known model."""
        given = [float(value) for value in message.d]
        while given and given[-1] == 0:
            given.pop()
        sizes = _LENSES.get(message.distortion_model, ())
        size = next((size for size in sizes if size >= len(given)), None)
        if not given or size is None:
            return None
        return cls(message.distortion_model, (*given, *[0.0] * (size - len(given))))

    def straightened(
        self, xy: tuple[float, float], matrix: npt.NDArray[np.float64]
    ) -> tuple[float, float]:
        """Where the ray of a pixel is at depth 1: x to the right, y down.

        Newton's method, started at OpenCV's solution, which may not have converged.

        Args:
            xy: The pixel.
            matrix: (3, 3) camera matrix of the image.

        Raises:
            PositionUnknown: By the calibration, no ray is projected to this pixel.
        """
        coefficients, pixel = np.array(self.coefficients), np.array(xy, np.float64)
        ray = self._functions.undistortPoints(
            pixel.reshape(1, 1, 2), matrix, coefficients
        ).reshape(2)
        for _ in range(_MOST_STEPS):
            shown = self._shown(ray + _STEPS, matrix)
            off, slope = pixel - shown[0], (shown[1:] - shown[0]).T / _STEP
            if not np.linalg.det(slope) > 0:
                break  # where the polynomial folds over, which a real lens never does
            if np.abs(off).max() < RAY_TOLERANCE_PX:
                if self._folds_before(ray, matrix):
                    break
                return float(ray[0]), float(ray[1])
            ray = ray + np.linalg.solve(slope, off)
        raise PositionUnknown(
            f"by its calibration, the lens ({self.model}) sees nothing at the pixel "
            f"{xy[0]:.1f}, {xy[1]:.1f}"
        )

    @property
    def _functions(self) -> Any:
        """The OpenCV module with the model's functions."""
        return cv2.fisheye if self.model == "equidistant" else cv2

    def _shown(
        self, rays: npt.NDArray[np.float64], matrix: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """The pixels (n, 2) of rays, given as (n, 2) points at depth 1."""
        points = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)[:, None]
        nothing = np.zeros(3)
        shown, _ = self._functions.projectPoints(
            points, nothing, nothing, matrix, np.array(self.coefficients)
        )
        return np.asarray(shown.reshape(-1, 2), np.float64)

    def _folds_before(self, ray: npt.NDArray[np.float64], matrix: npt.NDArray[np.float64]) -> bool:
        """Whether the projection turns back anywhere between the optical axis and a ray."""
        if np.abs(ray).max() < _STEP:
            return False
        steps = np.diff(self._shown(np.linspace(0, 1, _PROBES)[:, None] * ray, matrix), axis=0)
        return bool((steps @ steps.sum(axis=0) <= 0).any())


@dataclass(frozen=True)
class CameraIntrinsics:
    """A camera; pixel centres have whole coordinates.

    Attributes:
        fx: Focal length in pixel widths.
        fy: Focal length in pixel heights.
        cx: Principal point, pixels from the left.
        cy: Principal point, pixels from the top.
        hw: Height and width of the image in pixels.
        frame_id: The optical frame.
        lens: The distortion; None for the pinhole model.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    hw: tuple[int, int]
    frame_id: str
    lens: Lens | None = None

    @classmethod
    def from_message(cls, message: Any, *, rectified: bool = False) -> CameraIntrinsics:
        """The intrinsics of a ``sensor_msgs/CameraInfo``, with its region of interest and binning.

        Rays of a raw image are in the camera's own frame; rays of a rectified image are in a frame
        that is rotated by R, which matters for stereo pairs only. The origin of both is the camera
        that took the image, so P's fourth column (the baseline of a stereo pair) is ignored, as in
        depth_image_proc.

        Args:
            message: The message.
            rectified: Whether images are rectified, so that P applies (K where P is 0) instead of
                K and D. D is ignored where its model is not known.

        Raises:
            InvalidValueError: The camera is not calibrated (K is 0), or the image has no size.
        """
        matrix = _pinhole(message) if rectified else _matrix(message)
        fx, fy, cx, cy = (float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
        lens = None if rectified else Lens.from_message(message)
        height, width, roi = message.height, message.width, message.roi
        if roi.width and roi.height:
            cx, cy = cx - roi.x_offset, cy - roi.y_offset
            height, width = roi.height, roi.width
        bin_x, bin_y = max(message.binning_x, 1), max(message.binning_y, 1)
        hw = height // bin_y, width // bin_x
        coefficients = lens.coefficients if lens else ()
        finite = all(map(math.isfinite, (fx, fy, cx, cy, *coefficients)))
        if not (min(fx, fy) > 0 and finite and min(hw) > 0):
            bends = f", D {' '.join(f'{value:g}' for value in coefficients)}" if lens else ""
            raise InvalidValueError(
                "camera_info",
                "a calibrated camera",
                f"fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g}{bends}, "
                f"image {message.width}x{message.height}",
            )
        return cls(fx, fy, cx, cy, (height, width), message.header.frame_id, lens)._scaled(
            hw, (1 / bin_y, 1 / bin_x)
        )

    def scaled(self, hw: tuple[int, int]) -> CameraIntrinsics:
        """The same camera with a resized image.

        Raises:
            InvalidValueError: The image has another aspect ratio, so it is not the same view.
        """
        check_view("camera_info", self.hw, hw)
        return self._scaled(hw, scales(self.hw, hw))

    def _scaled(self, hw: tuple[int, int], by: tuple[float, float]) -> CameraIntrinsics:
        scale_y, scale_x = by
        cx, cy = rescaled((self.cx, self.cy), (scale_x, scale_y))
        return replace(self, fx=self.fx * scale_x, fy=self.fy * scale_y, cx=cx, cy=cy, hw=hw)

    def at_depth(self, xy: tuple[float, float], depth_m: float) -> tuple[float, float, float]:
        """The point (x, y, z) in metres of a pixel at a depth along the optical axis.

        Raises:
            PositionUnknown: By the calibration, no ray is projected to this pixel.
        """
        x, y = self._ray(xy)
        return x * depth_m, y * depth_m, depth_m

    def _ray(self, xy: tuple[float, float]) -> tuple[float, float]:
        if self.lens is None:
            return (xy[0] - self.cx) / self.fx, (xy[1] - self.cy) / self.fy
        matrix = np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])
        return self.lens.straightened(xy, matrix)


def doubt(message: Any, *, rectified: bool) -> str:
    """Why positions from a ``sensor_msgs/CameraInfo`` may be wrong.

    Args:
        message: The message.
        rectified: Whether images are taken to be rectified.

    Returns:
        The reason and a remedy; empty where there is no doubt.
    """
    if not np.any(message.d):
        return ""
    if rectified and np.allclose(_pinhole(message), _matrix(message)):
        return (
            "D is not 0, but P is 0 or equals K, as for unrectified images: unless they are "
            "rectified (image_rect), set depth.rectified to false, or positions are off"
        )
    if not rectified and Lens.from_message(message) is None:
        return (
            f"the distortion model {message.distortion_model!r} with {len(message.d)} "
            "coefficients is not known: positions ignore the distortion; provide rectified "
            "images, and set depth.rectified"
        )
    return ""


def _matrix(message: Any) -> npt.NDArray[np.float64]:
    """(3, 3) K."""
    return np.asarray(message.k, np.float64).reshape(3, 3)


def _pinhole(message: Any) -> npt.NDArray[np.float64]:
    """(3, 3) camera matrix of rectified images: the left part of P, or K where P is 0."""
    projection = np.asarray(message.p, np.float64).reshape(3, 4)[:, :3]
    return projection if projection.any() else _matrix(message)


def check_view(what: str, hw: tuple[int, ...], image_hw: tuple[int, int]) -> None:
    """Refuse an image that cannot be a resized view of the colour image.

    Raises:
        InvalidValueError: It has another aspect ratio.
    """
    scale_y, scale_x = scales(hw, image_hw)
    if abs(scale_x / scale_y - 1) > ASPECT_TOLERANCE:
        raise InvalidValueError(
            what,
            f"the view of the {image_hw[1]}x{image_hw[0]} image",
            f"another aspect ratio, {hw[1]}x{hw[0]}",
        )


def scales(from_hw: tuple[int, ...], to_hw: tuple[int, ...]) -> tuple[float, float]:
    """Factors of height and width between two sizes of an image."""
    return to_hw[0] / from_hw[0], to_hw[1] / from_hw[1]


def rescaled(xy: tuple[float, float], scales_xy: tuple[float, float]) -> tuple[float, float]:
    """A point of an image in the resized image; pixel edges are scaled, not pixel centres."""
    (x, y), (scale_x, scale_y) = xy, scales_xy
    return (x + 0.5) * scale_x - 0.5, (y + 0.5) * scale_y - 0.5

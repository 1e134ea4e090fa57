"""From groundings in the image to answers in space: depth, camera and target frame together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from videogem_ros.datatypes import Grounding
from videogem_ros.encodings import depth_from_message
from videogem_ros.errors import InvalidValueError
from videogem_ros.live.camera import CameraIntrinsics, PositionUnknown, check_view
from videogem_ros.live.depth import DepthBuffer, Position, locate_3d
from videogem_ros.live.messages import Answer, Status
from videogem_ros.live.middleware import TransformUnavailable
from videogem_ros.live.parameters import Parameters

Transform = Callable[[str, str, int], npt.NDArray[np.float64]]
"""As :meth:`videogem_ros.live.middleware.Middleware.transform`."""


class Positions:
    """Takes depth images and camera information in, and finds the positions of groundings.

    Args:
        transform: Looks up transforms into the target frame.
    """

    def __init__(self, transform: Transform) -> None:
        self.depth = DepthBuffer()
        """Depth messages by stamp."""
        self.depth_seen = False
        """Whether a depth image has arrived."""
        self.camera_info: Any = None
        """The colour camera's ``sensor_msgs/CameraInfo``; None without a calibration."""
        self._transform = transform

    def push_depth(self, stamp_ns: int, message: Any) -> None:
        """Take a depth image in, undecoded."""
        self.depth_seen = True
        self.depth.push(stamp_ns, message, len(message.data))

    def push_camera_info(self, message: Any, parameters: Parameters) -> None:
        """Take camera information in.

        Raises:
            InvalidValueError: It holds no calibration; positions are unknown from then on.
        """
        try:
            _camera(message, parameters)
        except Exception:
            self.camera_info = None
            raise
        self.camera_info = message  # not None in between, when the worker might look

    def clear(self) -> None:
        """Forget depth and camera."""
        self.depth.clear()
        self.depth_seen, self.camera_info = False, None

    def wanted(self, parameters: Parameters) -> bool:
        """Whether positions are to be found at all (``depth.use``)."""
        use = parameters["depth.use"]
        return use == "always" or (use == "auto" and self.depth_seen)

    def answers(
        self, groundings: Sequence[Grounding], parameters: Parameters, *, in_space: bool
    ) -> list[Answer]:
        """Answers about the groundings of one frame.

        Args:
            groundings: One per action, in their order.
            parameters: How positions are found.
            in_space: Whether anybody wants positions.
        """
        view, missing = None, ""
        if in_space and self.wanted(parameters) and any(g.present for g in groundings):
            try:
                view = self._view(groundings[0], parameters)
            except (PositionUnknown, InvalidValueError) as error:
                missing = str(error)
        return [
            self._answer(index, grounding, view, missing, parameters)
            for index, grounding in enumerate(groundings)
        ]

    def _answer(
        self,
        index: int,
        grounding: Grounding,
        view: _View | None,
        missing: str,
        parameters: Parameters,
    ) -> Answer:
        status, reason, position = Status.FOUND, "", None
        if not grounding.present:
            threshold = parameters["presence.threshold"]
            status = Status.NOT_PRESENT
            reason = f"score {grounding.score:.2f} is below the threshold {threshold:.2f}"
        elif missing:
            status, reason = Status.NO_DEPTH, missing
        elif view is not None:
            try:
                position = view.locate(grounding, parameters)
                position = self._in_target_frame(position, grounding.stamp_ns, parameters)
            except PositionUnknown as error:
                status, reason = Status.NO_DEPTH, str(error)
            except TransformUnavailable as error:
                status, reason = Status.NO_TRANSFORM, str(error)
        return Answer(status, reason, grounding.action, index, grounding, position)

    def _view(self, grounding: Grounding, parameters: Parameters) -> _View:
        """Depth and camera of a grounding's frame, checked to belong to it."""
        info = self.camera_info
        if info is None:
            raise PositionUnknown("no camera_info of a calibrated camera has arrived")
        camera = _camera(info, parameters)
        message = self.depth.find(
            grounding.stamp_ns, parameters["depth.tolerance_s"], parameters["depth.wait_s"]
        )
        frame_id = _common_frame(
            image=grounding.frame_id,
            camera_info=camera.frame_id,
            depth=message.header.frame_id,
        )
        depth_m = depth_from_message(message)
        check_view("depth", depth_m.shape, grounding.image_hw)
        camera = replace(camera, frame_id=frame_id)
        return _View(depth_m, camera.scaled(grounding.image_hw))

    def _in_target_frame(
        self, position: Position, stamp_ns: int, parameters: Parameters
    ) -> Position:
        target = parameters["target_frame"]
        if target in ("", position.frame_id):
            return position
        return position.transformed(self._transform(target, position.frame_id, stamp_ns), target)


class _View:
    """A decoded depth image with its camera, shared by all actions of a frame."""

    def __init__(self, depth_m: npt.NDArray[np.float32], camera: CameraIntrinsics) -> None:
        self._depth_m = depth_m
        self._camera = camera

    def locate(self, grounding: Grounding, parameters: Parameters) -> Position:
        return locate_3d(
            (grounding.point.x, grounding.point.y),
            self._depth_m,
            self._camera,
            window_px=parameters["depth.window_px"],
            min_samples=parameters["depth.min_samples"],
        )


def _camera(info: Any, parameters: Parameters) -> CameraIntrinsics:
    return CameraIntrinsics.from_message(info, rectified=parameters["depth.rectified"])


def _common_frame(**frame_ids: str) -> str:
    """The frame of streams that belong together; an empty frame_id matches any.

    Raises:
        PositionUnknown: They are of different cameras.
    """
    named = {stream: frame_id for stream, frame_id in frame_ids.items() if frame_id}
    if len(set(named.values())) > 1:
        found = ", ".join(f"{stream} is in the frame {name}" for stream, name in named.items())
        raise PositionUnknown(f"{found}: depth has to be aligned to the colour camera")
    return next(iter(named.values()), "")

"""Every outgoing message, built field by field, with the message classes of any middleware."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from videogem_ros.datatypes import PROMPT_KINDS, Action, Grounding
from videogem_ros.encodings import image_message_fields
from videogem_ros.live.depth import Position
from videogem_ros.live.health import Level
from videogem_ros.render import PALETTE
from videogem_ros.window import NS_PER_S

MARKER_SIZE_M = 0.04
"""Least diameter of a marker's sphere; it grows with the position's spread."""

LONGEST_DURATION_NS = (2**31 - 1) * NS_PER_S
"""The longest ``builtin_interfaces/Duration``."""


class Status(enum.IntEnum):
    """Constants of ``videogem_ros/msg/ActionGrounding``; see there."""

    UNKNOWN = 0
    FOUND = 1
    NOT_PRESENT = 2
    NO_DEPTH = 3
    NO_TRANSFORM = 4
    WAITING_FOR_FRAMES = 5
    NO_IMAGES = 6
    NO_COMMAND = 7
    NOT_UNDERSTOOD = 8
    TIMEOUT = 9
    ERROR = 10


class _Marker(enum.IntEnum):
    """Constants of ``visualization_msgs/msg/Marker``."""

    ADD = 0
    DELETEALL = 3
    SPHERE = 2
    TEXT_VIEW_FACING = 9


@dataclass(frozen=True, eq=False)
class Answer:
    """An answer about one action.

    Attributes:
        status: Whether it was found, or why not.
        reason: The status in words; empty where found.
        action: The action; None where there is none.
        index: Its index in the command, from 0.
        grounding: Where it is in the image; None where nothing was grounded.
        position: Where it is in space; None where that is not known.
    """

    status: Status
    reason: str = ""
    action: Action | None = None
    index: int = 0
    grounding: Grounding | None = None
    position: Position | None = None


@dataclass(frozen=True)
class Circumstances:
    """What the answers to one command about one window have in common.

    Attributes:
        stamp_ns: Stamp of the grounded image; where none was grounded, of the newest image, or
            the time of publication.
        frame_id: Optical frame of that image.
        now_ns: Time of publication by the node's clock.
        command_id: Number of the command, 0 for a request.
        compute_s: Seconds that grounding the window took.
        backbone: Name of the backbone.
        text: The command as it was given, where it has no actions.
    """

    stamp_ns: int
    frame_id: str
    now_ns: int
    command_id: int = 0
    compute_s: float = 0.0
    backbone: str = ""
    text: str = ""


class MessageBuilder:
    """Builds messages.

    Args:
        make: Makes a message from a ROS type name and all of its fields, see
            :meth:`videogem_ros.live.middleware.Middleware.make`.
    """

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        """``std_msgs/Header``."""
        return self._make("std_msgs/msg/Header", stamp=self._time(stamp_ns), frame_id=frame_id)

    def heatmap(self, grounding: Grounding, scale: float) -> Any:
        """``sensor_msgs/Image``, 32FC1 in [0, 1], with the grounded image's header.

        Args:
            grounding: Whose fused heatmap.
            scale: Its size relative to the image's, in (0, 1].
        """
        hw = tuple(max(1, round(side * scale)) for side in grounding.image_hw)
        values = grounding.heatmap.to_image((hw[0], hw[1]))
        return self._image(grounding, image_message_fields(values, "32FC1"))

    def overlay(self, grounding: Grounding, picture: npt.NDArray[np.uint8]) -> Any:
        """``sensor_msgs/Image``, bgr8, of an RGB picture, with the grounded image's header."""
        return self._image(grounding, image_message_fields(picture, "bgr8"))

    def overlay_compressed(
        self, grounding: Grounding, picture: npt.NDArray[np.uint8], quality: int
    ) -> Any:
        """``sensor_msgs/CompressedImage``, JPEG of a quality in [1, 100], of an RGB picture."""
        _, jpeg = cv2.imencode(".jpg", picture[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
        return self._make(
            "sensor_msgs/msg/CompressedImage",
            header=self.header(grounding.stamp_ns, grounding.frame_id),
            format="jpeg",
            data=jpeg.reshape(-1),
        )

    def point(self, grounding: Grounding, position: Position) -> Any:
        """``geometry_msgs/PointStamped``: metres in the position's frame, at the image's stamp."""
        return self._make(
            "geometry_msgs/msg/PointStamped",
            header=self.header(grounding.stamp_ns, position.frame_id),
            point=self._point(*position.xyz_m),
        )

    def point_px(self, grounding: Grounding) -> Any:
        """``geometry_msgs/PointStamped`` in pixels of the image, z always 0: no point in space."""
        return self._make(
            "geometry_msgs/msg/PointStamped",
            header=self.header(grounding.stamp_ns, grounding.frame_id),
            point=self._point(grounding.point.x, grounding.point.y, 0.0),
        )

    def markers(self, answers: Sequence[Answer]) -> Any:
        """``visualization_msgs/MarkerArray``: a sphere and the phrase at each position.

        Markers of earlier arrays are deleted first, so an array without positions clears all.
        """
        markers = [self._marker(_Marker.DELETEALL, 0)]
        for answer, colour in zip(answers, itertools.cycle(PALETTE)):
            grounding, position = answer.grounding, answer.position
            if grounding is None or position is None:
                continue
            size_m = max(MARKER_SIZE_M, 2 * position.spread_m)
            # Above is -y in the camera's optical frame and z in a robot's frames (REP-103).
            in_camera = position.frame_id == grounding.frame_id
            x, y, z = position.xyz_m
            above = (x, y - size_m, z) if in_camera else (x, y, z + size_m)
            head = self.header(grounding.stamp_ns, position.frame_id)
            common = {"header": head, "colour": colour, "size_m": size_m}
            number = 2 * answer.index
            markers += [
                self._marker(_Marker.ADD, number, _Marker.SPHERE, position.xyz_m, **common),
                self._marker(
                    _Marker.ADD,
                    number + 1,
                    _Marker.TEXT_VIEW_FACING,
                    above,
                    text=grounding.action.phrase,
                    **common,
                ),
            ]
        return self._make("visualization_msgs/msg/MarkerArray", markers=markers)

    def grounding(self, answer: Answer, about: Circumstances) -> Any:
        """``videogem_ros/msg/ActionGrounding``; unknown values are 0 or empty."""
        action, found, position = answer.action, answer.grounding, answer.position
        start_ns, end_ns = (
            (found.window_start_ns, found.window_end_ns) if found else (about.stamp_ns,) * 2
        )
        height, width = found.image_hw if found else (0, 0)
        weights = found.layer_weights if found else np.zeros((len(PROMPT_KINDS), 0), np.float32)
        nothing = np.zeros(len(PROMPT_KINDS), np.float32)
        return self._make(
            "videogem_ros/msg/ActionGrounding",
            header=self.header(about.stamp_ns, about.frame_id),
            action=action.text if action else about.text,
            command_id=about.command_id,
            action_index=answer.index,
            verb=(action and action.verb) or "",
            object=(action and action.object) or "",
            window_start=self._time(start_ns),
            window_end=self._time(end_ns),
            frames_used=found.frames_used if found else 0,
            image_width=width,
            image_height=height,
            status=int(answer.status),
            reason=answer.reason,
            score=found.score if found else 0.0,
            agreement=found.agreement if found else 0.0,
            **{f"{name}_point": self._point_px(found, name) for name in ("fused", *PROMPT_KINDS)},
            has_position=position is not None,
            position=self._point(*(position.xyz_m if position else (0.0, 0.0, 0.0))),
            position_frame=position.frame_id if position else "",
            position_spread=position.spread_m if position else 0.0,
            depth_samples=position.samples if position else 0,
            **{
                f"layer_weights_{kind}": np.ascontiguousarray(row)
                for kind, row in zip(PROMPT_KINDS, weights)
            },
            prompt_probabilities=found.prompt_probabilities if found else nothing,
            latency=self._duration(about.now_ns - about.stamp_ns),
            compute_time=self._duration(round(about.compute_s * NS_PER_S)),
            backbone=about.backbone,
        )

    def diagnostics(
        self,
        now_ns: int,
        *,
        level: Level,
        name: str,
        message: str,
        hardware_id: str,
        values: Mapping[str, str],
    ) -> Any:
        """``diagnostic_msgs/DiagnosticArray`` with one status."""
        status = self._make(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=int(level),
            name=name,
            message=message,
            hardware_id=hardware_id,
            values=[
                self._make("diagnostic_msgs/msg/KeyValue", key=key, value=value)
                for key, value in values.items()
            ],
        )
        return self._make(
            "diagnostic_msgs/msg/DiagnosticArray",
            header=self.header(now_ns, ""),
            status=[status],
        )

    def _image(self, grounding: Grounding, fields: Mapping[str, Any]) -> Any:
        head = self.header(grounding.stamp_ns, grounding.frame_id)
        return self._make("sensor_msgs/msg/Image", header=head, **fields)

    def _time(self, stamp_ns: int) -> Any:
        sec, nanosec = divmod(stamp_ns, NS_PER_S)
        return self._make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)

    def _duration(self, duration_ns: int) -> Any:
        bounded_ns = min(max(duration_ns, -LONGEST_DURATION_NS), LONGEST_DURATION_NS)
        sec, nanosec = divmod(bounded_ns, NS_PER_S)
        return self._make("builtin_interfaces/msg/Duration", sec=sec, nanosec=nanosec)

    def _point(self, x: float, y: float, z: float) -> Any:
        return self._make("geometry_msgs/msg/Point", x=x, y=y, z=z)

    def _point_px(self, grounding: Grounding | None, name: str) -> Any:
        point = grounding.points[name] if grounding else None
        return self._make(
            "videogem_ros/msg/PointPx",
            x=point.x if point else 0.0,
            y=point.y if point else 0.0,
            similarity=point.similarity if point else 0.0,
        )

    def _marker(
        self,
        what: _Marker,
        number: int,
        shape: _Marker = _Marker.SPHERE,
        xyz_m: tuple[float, float, float] = (0.0, 0.0, 0.0),
        *,
        header: Any = None,
        colour: tuple[int, int, int] = (0, 0, 0),
        size_m: float = 0.0,
        text: str = "",
    ) -> Any:
        make = self._make
        red, green, blue = (channel / 255 for channel in colour)
        nowhere = self.header(0, "")
        return make(
            "visualization_msgs/msg/Marker",
            header=header or nowhere,
            ns="videogem",
            id=number,
            type=int(shape),
            action=int(what),
            pose=make(
                "geometry_msgs/msg/Pose",
                position=self._point(*xyz_m),
                orientation=make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
            ),
            scale=make("geometry_msgs/msg/Vector3", x=size_m, y=size_m, z=size_m),
            color=make("std_msgs/msg/ColorRGBA", r=red, g=green, b=blue, a=0.8),
            lifetime=self._duration(0),
            frame_locked=False,
            points=[],
            colors=[],
            texture_resource="",
            texture=make(
                "sensor_msgs/msg/CompressedImage",
                header=nowhere,
                format="",
                data=np.zeros(0, np.uint8),
            ),
            uv_coordinates=[],
            text=text,
            mesh_resource="",
            mesh_file=make(
                "visualization_msgs/msg/MeshFile", filename="", data=np.zeros(0, np.uint8)
            ),
            mesh_use_embedded_materials=False,
        )

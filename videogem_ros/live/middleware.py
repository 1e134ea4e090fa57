"""What the node needs of a middleware: the contract that the ROS and DDS adapters fulfil."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from videogem_ros.errors import VideoGemError


def rigid_matrix(xyz: npt.ArrayLike, xyzw: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The matrix of a rotation followed by a translation, as ``geometry_msgs/Transform`` has them.

    Args:
        xyz: (3,) translation, metres.
        xyzw: (4,) quaternion of the rotation; any length but 0.

    Returns:
        (4, 4) float64, homogeneous.
    """
    quaternion = np.asarray(xyzw, np.float64)
    x, y, z, w = quaternion / np.linalg.norm(quaternion)
    matrix = np.eye(4)
    matrix[:3, 3] = xyz
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return matrix


class TransformUnavailable(VideoGemError):  # noqa: N818 - a state of the graph, not a defect
    """No transform between two frames at the wanted time; the message is the reason."""


class Middleware(Protocol):
    """A graph to publish on, with its clock and log.

    Every method may be called from any thread, several at a time.
    """

    def make(self, type_name: str, /, **fields: Any) -> Any:
        """Build a message.

        Args:
            type_name: ROS name of the type (``sensor_msgs/msg/Image``).
            **fields: All of its fields, nested messages made the same way. Numeric sequences come
                as NumPy arrays of the field's type, an image's ``data`` as a flat uint8 array; a
                ``byte`` (DiagnosticStatus.level) as an integer.
        """

    def publish(self, topic: str, message: Any) -> None:
        """Publish on a topic of :func:`videogem_ros.live.topics.outputs`."""

    def subscribers(self, topic: str) -> int:
        """How many subscriptions the topic has at this moment; asked for every window."""

    def input_name(self, topic: str) -> str:
        """The absolute name of a topic of :data:`videogem_ros.live.topics.INPUTS`, remapped."""

    def now_ns(self) -> int:
        """The node's clock in nanoseconds: simulated time where that is used, 0 before it runs."""

    def log(self, level: str, text: str) -> None:
        """Log a line; the level is debug, info, warn or error."""

    def transform(
        self, target_frame: str, source_frame: str, stamp_ns: int
    ) -> npt.NDArray[np.float64]:
        """The rigid transform that takes points of the source frame into the target frame.

        May wait shortly for a transform that is under way; called by the worker thread alone.

        Args:
            target_frame: Frame that coordinates are wanted in.
            source_frame: Frame of the coordinates that are there.
            stamp_ns: Time of the transform, nanoseconds.

        Returns:
            (4, 4) float64, homogeneous, metres.

        Raises:
            TransformUnavailable: There is none at that time.
        """

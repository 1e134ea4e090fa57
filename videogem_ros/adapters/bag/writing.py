"""A rosbag2 that is written message by message, without ROS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from videogem_ros.adapters.bag.vision import typestore

_TYPES = typestore()


class BagWriter:
    """Writes ``folder/<name of folder>.mcap`` and, when closed, the ``metadata.yaml`` beside it.

    The chunks are compressed with zstd, which Foxglove and the MCAP plugin of ``ros2 bag`` read.
    The metadata are of version 8, the newest that Humble's ``ros2 bag`` reads too.

    Args:
        folder: The bag; must not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._writer = Writer(folder, version=8, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        self._connections: dict[str, Connection] = {}

    def write(self, topic: str, msgtype: str, time_ns: int, **fields: Any) -> None:
        """Writes a message.

        Args:
            topic: Absolute topic name.
            msgtype: ROS name of the type (``std_msgs/msg/String``).
            time_ns: When the message counts as received, nanoseconds.
            **fields: The message's fields.
        """
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, msgtype, typestore=_TYPES
            )
        data = _TYPES.serialize_cdr(_TYPES.types[msgtype](**fields), msgtype)
        self._writer.write(self._connections[topic], time_ns, data)

    def close(self) -> None:
        """Finishes the bag."""
        self._writer.close()

    def abort(self) -> None:
        """Lets go of the files and leaves them unfinished."""
        self._writer.abort()


def header(stamp_ns: int, frame_id: str) -> object:
    """A ``std_msgs/Header``."""
    sec, nanosec = divmod(stamp_ns, 10**9)
    stamp = _TYPES.types["builtin_interfaces/msg/Time"](sec, nanosec)
    return _TYPES.types["std_msgs/msg/Header"](stamp, frame_id)


def point(x: float, y: float, z: float) -> object:
    """A ``geometry_msgs/Point``."""
    return _TYPES.types["geometry_msgs/msg/Point"](x, y, z)


def camera_info_fields(
    camera_matrix: npt.NDArray[np.float64], hw: tuple[int, int]
) -> dict[str, Any]:
    """The fields of a ``sensor_msgs/CameraInfo`` without distortion, all but its header.

    Args:
        camera_matrix: (3, 3) from the optical frame to pixels.
        hw: Height and width of the images.
    """
    projection = np.hstack([camera_matrix, np.zeros((3, 1))])
    return {
        "height": hw[0],
        "width": hw[1],
        "distortion_model": "plumb_bob",
        "d": np.zeros(5),
        "k": camera_matrix.reshape(-1),
        "r": np.eye(3).reshape(-1),
        "p": projection.reshape(-1),
        "binning_x": 0,
        "binning_y": 0,
        "roi": _TYPES.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    }

"""Recordings in, results out: rosbag2, video files and folders of images, without ROS."""

from __future__ import annotations

from pathlib import Path

from videogem_ros.adapters.bag.folder import FolderSource
from videogem_ros.adapters.bag.rosbag import Message, RosbagSource, is_rosbag
from videogem_ros.adapters.bag.source import Command, Source
from videogem_ros.adapters.bag.video import VideoSource
from videogem_ros.errors import RecordingError

__all__ = [
    "Command",
    "FolderSource",
    "Message",
    "RosbagSource",
    "Source",
    "VideoSource",
    "open_source",
]


def open_source(
    path: str | Path,
    image_topic: str | None = None,
    action_topic: str | None = None,
    *,
    rate_hz: float = 4.0,
) -> Source:
    """Opens a recording, whatever it is.

    Args:
        path: A rosbag2 folder or storage file, a video file, or a folder of images.
        image_topic: The bag's topic of images; see :class:`RosbagSource`.
        action_topic: The bag's topic of action texts; see :class:`RosbagSource`.
        rate_hz: Images per second of a folder whose file names tell no time. The default is the
            method's own spacing of 0.25 s.

    Raises:
        RecordingError: There is no such recording, it cannot be read, or its topics have to be
            named.
        InvalidValueError: The rate is not positive.
    """
    path = Path(path)
    if not path.exists():
        raise RecordingError(f"{path}: no such file or folder")
    if path.suffix == ".bag":
        raise RecordingError(f"{path}: a ROS 1 bag; convert it to a rosbag2 with rosbags-convert")
    if path.suffix == ".zstd":
        raise RecordingError(f"{path}: a compressed part of a rosbag2; give the bag's folder")
    if is_rosbag(path):
        return RosbagSource(path, image_topic, action_topic)
    if image_topic or action_topic:
        raise RecordingError(f"{path}: not a rosbag2, so it has no topics to choose from")
    return FolderSource(path, rate_hz) if path.is_dir() else VideoSource(path)

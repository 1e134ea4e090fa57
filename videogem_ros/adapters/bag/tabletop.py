"""Tabletop clips as a labelled recording, as a robot's camera would have left it.

=============================  ===============================================================
``/camera/image_raw``          ``sensor_msgs/Image``, rgb8.
``/camera/depth/image_raw``    ``sensor_msgs/Image``, 32FC1 in metres, of the image's stamp and
                               size (REP-118); left out where the clips have none.
``/camera/camera_info``        ``sensor_msgs/CameraInfo`` of the image's stamp; no distortion.
``/action``                    ``std_msgs/String``: a command before a clip's first image, and
                               further ones on its way, until each of its actions was asked for;
                               in a clip without actions one that does not happen in it.
``/labels``                    ``vision_msgs/Detection2DArray`` of the image's stamp: where each
                               action is in it, and texts of actions that are not there (see
                               :mod:`videogem_ros.adapters.bag.vision`).
=============================  ===============================================================

Clips follow each other without a pause, each seen by another camera (another ``frame_id``): so no
window of images holds two of them.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable
from pathlib import Path

from videogem_ros.adapters.bag.vision import LABELS, Label, label_fields
from videogem_ros.adapters.bag.writing import BagWriter, camera_info_fields, header
from videogem_ros.encodings import image_message_fields
from videogem_ros.errors import RecordingError
from videogem_ros.tabletop import Clip
from videogem_ros.tabletop.clip import PERIOD_NS, START_NS

IMAGE_TOPIC, DEPTH_TOPIC = "/camera/image_raw", "/camera/depth/image_raw"
CAMERA_INFO_TOPIC, ACTION_TOPIC, LABELS_TOPIC = "/camera/camera_info", "/action", "/labels"
TWINS = "twins"
"""Group of actions that only motion tells from another one of their clip."""


def write_clips(path: Path, clips: Iterable[Clip]) -> None:
    """Writes clips, one after another, as a rosbag2.

    Args:
        path: Folder of the bag; must not exist. It appears when it is complete.
        clips: Taken one by one, so that any number of them fits into memory.

    Raises:
        RecordingError: The path exists, or cannot be written.
    """
    if path.exists():
        raise RecordingError(f"{path} exists already; choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent) as partial:
            unfinished = Path(partial) / path.name
            with contextlib.closing(BagWriter(unfinished)) as bag:
                begin_ns = START_NS
                for number, clip in enumerate(clips):
                    stamps_ns = begin_ns + (clip.stamps_ns - clip.stamps_ns[0])
                    _write(bag, clip, stamps_ns.tolist(), f"camera_{number}_optical_frame")
                    begin_ns = int(stamps_ns[-1]) + PERIOD_NS
            unfinished.rename(path)
    except OSError as error:
        raise RecordingError(f"cannot write {path}: {error.strerror}") from error


def commands(clip: Clip) -> dict[int, str]:
    """What is asked for in a clip: the frame before which a command is sent, and its text."""
    texts = [performed.texts[0] for performed in clip.performed] or list(clip.absent[:1])
    return {place * len(clip.images) // len(texts): text for place, text in enumerate(texts)}


def labels(clip: Clip, place: int) -> list[Label]:
    """What is known of the actions in the frame at a place in a clip.

    Counted under "pose" or "motion", what the action is told by, and "twins" where only motion
    tells it from another one of the clip; texts of what is not there under "absent", or "empty"
    where nothing happens in the clip at all.
    """
    there = [
        Label(
            performed.texts[0],
            tuple(performed.action_boxes[place].tolist()),
            (performed.decided_by, *((TWINS,) if performed.twin else ())),
        )
        for performed in clip.performed
    ]
    not_there = ("absent",) if clip.performed else ("empty",)
    return there + [Label(text, groups=not_there) for text in clip.absent]


def _write(bag: BagWriter, clip: Clip, stamps_ns: list[int], frame_id: str) -> None:
    texts, hw = commands(clip), clip.images.shape[1:3]
    for place, stamp_ns in enumerate(stamps_ns):
        head = header(stamp_ns, frame_id)
        if place in texts:
            bag.write(ACTION_TOPIC, "std_msgs/msg/String", stamp_ns - 1, data=texts[place])
        bag.write(LABELS_TOPIC, LABELS, stamp_ns, **label_fields(head, labels(clip, place)))
        camera = camera_info_fields(clip.camera_matrix, hw)
        bag.write(CAMERA_INFO_TOPIC, "sensor_msgs/msg/CameraInfo", stamp_ns, header=head, **camera)
        if clip.depths is not None:
            depth = image_message_fields(clip.depths[place], "32FC1")
            bag.write(DEPTH_TOPIC, "sensor_msgs/msg/Image", stamp_ns, header=head, **depth)
        image = image_message_fields(clip.images[place], "rgb8")
        bag.write(IMAGE_TOPIC, "sensor_msgs/msg/Image", stamp_ns, header=head, **image)

"""Labelled rosbag2 recordings as a data set: frames as a live node would have sampled them.

Labels are ``vision_msgs/Detection2DArray`` messages in the bag
(:mod:`videogem_ros.adapters.bag.vision`) or a sidecar file beside it
(:mod:`videogem_ros.evaluation.labels`), which takes precedence; each belongs to the image with the
same header stamp. That image is the newest of the window it is grounded in, as in the node when
it arrives.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from videogem_ros.adapters.bag import RosbagSource, open_source
from videogem_ros.adapters.bag.rosbag import BREAKS_OFF
from videogem_ros.adapters.bag.storage import storage_files
from videogem_ros.adapters.bag.vision import LABELS, read_label
from videogem_ros.datatypes import Frame, Window
from videogem_ros.errors import InvalidValueError, RecordingError
from videogem_ros.evaluation.labels import ImageLabel, beside, beyond, inside, read_sidecar
from videogem_ros.evaluation.records import Sample
from videogem_ros.language import parse_actions
from videogem_ros.window import FrameBuffer, WindowConfig

WINDOWS_KEPT = 8
"""Most windows whose frames are cached, as samples of the same image are consecutive."""

_LABELS_LOST = (LABELS, BREAKS_OFF)
"""Prefixes of a source's reasons by which labels may be lost; lost images count as missing."""


@dataclass(frozen=True)
class BagImage:
    """An image of a recording, without its pixels.

    Attributes:
        stamp_ns: Header stamp.
        log_ns: When it was recorded.
        hw: Height and width in pixels.
        frame_id: Optical frame.
    """

    stamp_ns: int
    log_ns: int
    hw: tuple[int, int]
    frame_id: str


@dataclass(frozen=True)
class Recording:
    """Images and labels of a bag, without pixels.

    Attributes:
        path: The bag.
        name: As results show it.
        image_topic: Topic of the images.
        images: Readable images, in the order in which they were recorded.
        labels: Labels of the bag or its sidecar.
        files: The files that all of this was read from.
        skipped: Number of labels that cannot be used or read, by reason.
    """

    path: Path
    name: str
    image_topic: str
    images: tuple[BagImage, ...]
    labels: tuple[ImageLabel, ...] = ()
    files: tuple[Path, ...] = ()
    skipped: Counter[str] = field(default_factory=Counter)


def read_bag(path: Path, image_topic: str | None = None) -> Recording:
    """Reads stamps and sizes of a bag's images, without labels.

    Args:
        path: A rosbag2 folder, or one of its .mcap or .db3 files.
        image_topic: See :class:`~videogem_ros.adapters.bag.RosbagSource`.

    Raises:
        RecordingError: It is no bag, cannot be read, or its topics have to be named.
    """
    with _open(path, image_topic) as source:
        return _scan(source, None)


def read_labelled_bag(
    path: Path,
    sidecar: Path | None = None,
    *,
    image_topic: str | None = None,
    label_topic: str | None = None,
) -> Recording:
    """Reads a bag's images and labels.

    Args:
        path: As for :func:`read_bag`.
        sidecar: File with the labels. Where None, the one beside the bag, or the messages in it.
        image_topic: As for :func:`read_bag`; where None, the sidecar's.
        label_topic: Topic of ``Detection2DArray`` messages, which takes precedence over a sidecar
            beside the bag. Where None, the only one, or the only one whose name ends in "labels".

    Raises:
        RecordingError: As for :func:`read_bag`, or there are no labels.
        VideoGemError: The sidecar cannot be used.
    """
    if sidecar is None and label_topic is None and beside(path).exists():
        sidecar = beside(path)
    if sidecar is None:
        with _open(path, image_topic) as source:
            return _scan(source, _label_topic(source, label_topic))
    content = read_sidecar(sidecar)
    recording = read_bag(path, image_topic or content.image_topic)
    return replace(recording, labels=content.labels, files=(*recording.files, sidecar))


def _open(path: Path, image_topic: str | None) -> RosbagSource:
    source = open_source(path, image_topic)
    if isinstance(source, RosbagSource):
        return source
    source.close()
    raise RecordingError(f"{path}: not a rosbag2, so its frames have no header stamps")


def _label_topic(source: RosbagSource, name: str | None) -> str:
    topics = source.topics_of(LABELS)
    chosen = [topic for topic in topics if topic.endswith("labels")] if topics[1:] else topics
    if name is not None:
        chosen = [topic for topic in topics if topic.strip("/") == name.strip("/")]
    if len(chosen) == 1:
        return chosen[0]
    problem = f"no topic of {LABELS} in it" if name is None else f"no labels on {name}"
    if topics:
        problem = f"{problem if name else 'several topics of labels'}; name one with "
        problem += f"--label-topic: {', '.join(topics)}"
    else:
        problem += f" and no {beside(source.path).name} beside it; `videogem-ros label` makes one"
    raise RecordingError(f"{source.path}: {problem}")


def _scan(source: RosbagSource, label_topic: str | None) -> Recording:
    """Reads a bag once, from its beginning to its end."""
    images: list[BagImage] = []
    labels: list[ImageLabel] = []
    skipped: Counter[str] = Counter()
    topics = [topic for topic in (source.image_topic, label_topic) if topic]
    for message in source.iter_messages(topics):
        if message.topic != label_topic or message.msgtype != LABELS:
            if frame := source.frame(message):
                images.append(BagImage(frame.stamp_ns, message.log_ns, frame.hw, frame.frame_id))
            continue
        for detection in message.data.detections:
            try:
                label = read_label(detection)
            except InvalidValueError as error:
                skipped[f"{error.field}: expected {error.expected}"] += 1
                continue
            labels.append(ImageLabel(message.stamp_ns, label, label.action))
    if not images:
        raise RecordingError(f"{source.path}: no readable image on {topics[0]}")
    if label_topic:
        lost = {why: n for why, n in source.skipped.items() if why.startswith(_LABELS_LOST)}
        skipped.update(lost)
    path = source.path
    name = path.resolve().name if path.is_dir() else path.stem
    files = tuple(storage_files(path)) if path.is_dir() else ()  # none where compressed
    return Recording(
        path, name, topics[0], tuple(images), tuple(labels), files or (path,), skipped
    )


class BagDataset:
    """Labelled bags as a :class:`~videogem_ros.evaluation.records.Dataset`.

    There is one sample for each image and labelled action; its class is the action's text unless
    a sidecar names another. A sample's key is ``recording/stamp/number``.

    Args:
        recordings: From :func:`read_labelled_bag`.
        windows: How the node forms windows; ``frames`` is replaced by the backbone's number.

    Attributes:
        name: Names of the recordings.
        recordings: The recordings, by their names in the samples.
        samples: In the order of recordings and of their labels.
        missing: Number of samples, by recording, whose stamp no image has, or only one that
            arrived out of order, which is never the newest of a window.
        skipped: Number of labels that cannot be used or read, by reason.

    Raises:
        InvalidValueError: No recordings, or the same one twice.
    """

    def __init__(
        self, recordings: Sequence[Recording], windows: WindowConfig | None = None
    ) -> None:
        paths = [recording.path.resolve() for recording in recordings]
        if not paths or len(set(paths)) < len(paths):
            raise InvalidValueError("bags", "one or more, each once", ", ".join(map(str, paths)))
        names = [recording.name for recording in recordings]
        if len(set(names)) < len(names):
            names = [str(recording.path) for recording in recordings]
        self.name = ", ".join(names)
        self.recordings = dict(zip(names, recordings))
        self.samples: list[Sample] = []
        self.missing: Counter[str] = Counter()
        self.skipped: Counter[str] = sum((item.skipped for item in recordings), Counter())
        self._config = windows or WindowConfig()
        self._windows: dict[tuple[str, int], dict[int, tuple[BagImage, ...]]] = {}
        self._reader = _Reader()
        for name in names:
            self._add_samples(name)

    def sources(self, sample: Sample) -> Sequence[Path | str]:
        """Files with a sample's frames and labels, the images' topic, and the window settings."""
        recording = self.recordings[sample.video]
        return *recording.files, recording.image_topic, repr(self._config)

    def window(self, sample: Sample, frames: int) -> tuple[Window, int]:
        """The window that a node would have when the labelled image arrives.

        Args:
            sample: One of ``samples``.
            frames: T.

        Returns:
            The window, and the index of the labelled image: the last.

        Raises:
            RecordingError: Its images can no longer be read, or they do not span the window yet
                and the configuration is to wait for that.
        """
        images = self._windows_of(sample.video, frames).get(sample.time_ns)
        if images is None:
            raise RecordingError(f"{sample.key}: the images before it do not span {frames} frames")
        return self._reader.window(self.recordings[sample.video], images), frames - 1

    def _add_samples(self, name: str) -> None:
        by_image: dict[int, dict[str, list[ImageLabel]]] = {}
        for item in self.recordings[name].labels:
            texts = by_image.setdefault(item.stamp_ns, {})
            texts.setdefault(item.label.action, []).append(item)
        windows = self._windows_of(name, 1)
        for stamp_ns, texts in by_image.items():
            if stamp_ns not in windows:
                self.missing[name] += len(texts)
                continue
            hw = windows[stamp_ns][-1].hw
            for number, (text, items) in enumerate(texts.items()):
                sample = self._sample(f"{name}/{stamp_ns}/{number}", name, text, items, hw)
                self.samples += [sample] if sample else []

    def _sample(
        self, key: str, video: str, text: str, items: Sequence[ImageLabel], hw: tuple[int, int]
    ) -> Sample | None:
        """The sample of an image's labels for one action; None where they cannot be used."""
        actions = _parse(text)
        if not actions:
            self.skipped["action: expected a text with words"] += len(items)
            return None
        boxes = [item.label.box for item in items if item.label.box]
        valid = tuple(box for box in boxes if not beyond(box, hw))
        if len(valid) < len(boxes):
            self.skipped[f"box: expected {inside(hw)}"] += len(boxes) - len(valid)
            if not valid:
                return None
        groups = dict.fromkeys(group for item in items for group in item.label.groups)
        first = items[0]
        return Sample(key, video, first.name, actions, first.stamp_ns, valid, hw, tuple(groups))

    def _windows_of(self, name: str, frames: int) -> dict[int, tuple[BagImage, ...]]:
        """Windows of T images by the stamp of their newest image."""
        if (name, frames) not in self._windows:
            recording = self.recordings[name]
            self._windows[name, frames] = _windows(
                recording.images,
                {item.stamp_ns for item in recording.labels},
                replace(self._config, frames=frames),
            )
        return self._windows[name, frames]


_parse = lru_cache(maxsize=None)(parse_actions)


def _windows(
    images: Sequence[BagImage], wanted: Collection[int], config: WindowConfig
) -> dict[int, tuple[BagImage, ...]]:
    """Windows by the wanted stamps of their newest images, formed as images arrive one by one."""
    buffer = FrameBuffer(config)
    pushed: dict[Frame, BagImage] = {}
    found: dict[int, tuple[BagImage, ...]] = {}
    for image in images:
        # The buffer only looks at the size, so all pixels share one byte.
        blank = np.broadcast_to(np.uint8(0), (*image.hw, 3))
        frame = Frame(blank, image.stamp_ns, image.frame_id)
        pushed[frame] = image
        buffer.push(frame)
        if image.stamp_ns in wanted and buffer.newest is frame and (window := buffer.window()):
            found.setdefault(image.stamp_ns, tuple(pushed[chosen] for chosen in window.frames))
    return found


class _Reader:
    """Reads windows one by one and caches the last ones, as samples of one image share frames.

    A pickled copy, in another process, starts empty.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._source: RosbagSource | None = None
        self._windows: dict[tuple[Path, tuple[BagImage, ...]], Window] = {}

    def window(self, recording: Recording, images: tuple[BagImage, ...]) -> Window:
        """The images of a recording, read once."""
        key = recording.path, images
        with self._lock:
            if key not in self._windows:
                source = self._open(recording)
                read = {image: _read_image(source, image) for image in dict.fromkeys(images)}
                self._windows[key] = Window(tuple(read[image] for image in images))
                for outlived in list(self._windows)[:-WINDOWS_KEPT]:
                    del self._windows[outlived]
            return self._windows[key]

    def _open(self, recording: Recording) -> RosbagSource:
        """The recording's bag, which is kept open until another one is needed."""
        if self._source is None or self._source.path != recording.path:
            if self._source is not None:
                self._source.close()
            self._source = RosbagSource(recording.path, recording.image_topic)
        return self._source

    def __reduce__(self) -> tuple[type[_Reader], tuple[()]]:
        return _Reader, ()


def _read_image(source: RosbagSource, image: BagImage) -> Frame:
    logged = range(image.log_ns, image.log_ns + 1)
    for message in source.iter_messages([source.image_topic or ""], logged):
        if message.stamp_ns == image.stamp_ns and (frame := source.frame(message)):
            return frame
    raise RecordingError(f"{source.path}: the image of {image.stamp_ns} ns can no longer be read")

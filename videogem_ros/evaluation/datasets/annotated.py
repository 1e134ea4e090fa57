"""What the four data sets share: from annotations and footage to samples and windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from videogem_ros.datatypes import Action, Window
from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.datasets.frames import Footage, Moment, Spacing
from videogem_ros.evaluation.records import Box, Sample


@dataclass(frozen=True)
class Annotation:
    """One annotated frame, whether its video is there or not.

    Attributes:
        video: Name of the video.
        moment: Which of its frames.
        label: Class for per-class means.
        actions: See :class:`~videogem_ros.evaluation.records.Sample`.
        box: The box.
        boxes_hw: Height and width of the image that the box's pixels belong to; those of the
            video's frames where None.
        groups: Further names under which it is counted.
    """

    video: str
    moment: Moment
    label: str
    actions: tuple[Action, ...]
    box: Box
    boxes_hw: tuple[int, int] | None = None
    groups: tuple[str, ...] = ()


class Annotations(Protocol):
    """The annotations of one data set.

    Attributes:
        name: Of the data set.
        files: Name patterns of its annotation files, as of a shell.
        spacing: Of its windows' frames.
    """

    name: str
    files: tuple[str, ...]
    spacing: Spacing

    def __init__(self, content: Sequence[Any], footage: Footage) -> None:
        """What the annotation files hold, in the order of ``files``, and the frames."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever reads the results must know."""

    def entries(self) -> Iterator[Any]:
        """What the annotation files hold, one for each annotated frame, in their order.

        Raises:
            InvalidValueError: The files are not made as the data set's are; it names the field.
        """

    def annotation(self, entry: Any) -> Annotation:
        """The annotation in an entry.

        Raises:
            InvalidValueError: It cannot be used; it names the field.
        """


class AnnotatedDataset:
    """Annotated frames of videos as a :class:`~videogem_ros.evaluation.records.Dataset`.

    A sample's key is ``video/moment/number``, the moment being the annotated frame's number or its
    time in seconds, and the number that of the annotation in this frame.

    Args:
        annotations: Which frames are annotated with what.
        footage: The frames.
        limit: At most so many samples, the first ones; all where None.

    Attributes:
        name: Of the data set.
        samples: Video by video as the annotation files have them, by time within a video.
        missing: Annotated frames that are not there, by video.
        skipped: Annotations that cannot be used, by reason.
        notes: What whoever reads the results must know.

    Raises:
        InvalidValueError: A limit below one, annotation files of another form, or no sample.
    """

    def __init__(
        self, annotations: Annotations, footage: Footage, limit: int | None = None
    ) -> None:
        if limit is not None and limit < 1:
            raise InvalidValueError("limit", "one or more", limit)
        self.name = annotations.name
        self.notes = annotations.notes
        self.missing: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._footage = footage
        videos: dict[str, list[Annotation]] = {}
        for entry in annotations.entries():
            try:
                found = annotations.annotation(entry)
            except InvalidValueError as error:
                self.skipped[f"{error.field}: expected {error.expected}"] += 1
                continue
            if footage.holds(found.video, found.moment):
                videos.setdefault(found.video, []).append(found)
            else:
                self.missing[found.video] += 1
        self._moments: dict[str, Moment] = {}
        samples = [sample for video in videos.values() for sample in self._samples(video)]
        self.samples = samples[:limit]
        if not samples:
            self._complain(footage)

    def sources(self, sample: Sample) -> Sequence[Path | str]:
        """Files and folders that a sample's frames are in."""
        return self._footage.sources(sample.video, self._moments[sample.key])

    def window(self, sample: Sample, frames: int) -> tuple[Window, int]:
        """The frames about the annotated one, as far apart as the paper has them.

        Args:
            sample: One of ``samples``.
            frames: T.

        Returns:
            The window, and the index of the annotated frame in it: T // 2, so 4 of 8 and, for an
            image backbone, 0 of 1. Where the video begins or ends in between, its first or last
            frame fills the window.

        Raises:
            RecordingError: The frames cannot be decoded, or are not of one size.
        """
        return self._footage.window(sample.video, self._moments[sample.key], frames)

    def _samples(self, annotations: Sequence[Annotation]) -> Iterator[Sample]:
        """Of one video."""
        numbers: Counter[Moment] = Counter()
        for found in sorted(annotations, key=lambda found: found.moment.nominal_ns):
            moment = found.moment
            key = f"{found.video}/{moment}/{numbers[moment]}"
            numbers[moment] += 1
            self._moments[key] = moment
            yield Sample(
                key,
                found.video,
                found.label,
                found.actions,
                moment.nominal_ns,
                (found.box,),
                found.boxes_hw,
                found.groups,
            )

    def _complain(self, footage: Footage) -> None:
        if self.missing:
            raise InvalidValueError(
                "root",
                f"videos of {self.name}, as NAME.mp4, or folders NAME of their frames",
                f"none of its {len(self.missing)} videos (such as {next(iter(self.missing))!r}) "
                f"in {footage.root}",
            )
        reasons = "; ".join(reason for reason, _ in self.skipped.most_common(3)) or "none"
        raise InvalidValueError("annotations", f"annotated frames of {self.name}", reasons)

"""From what a node publishes back to frames with their groundings: for who listens to one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from videogem_ros.adapters.encodings import frame_from_message, header_stamp_ns
from videogem_ros.datatypes import (
    PROMPT_KINDS,
    Action,
    Frame,
    Grounding,
    Heatmap,
    Point,
    Prompts,
)
from videogem_ros.errors import EncodingError
from videogem_ros.language import parse_actions
from videogem_ros.live.messages import Status
from videogem_ros.window import NS_PER_S

IMAGES_KEPT = 64
"""Images that wait for their groundings; a node that is slower than so many is not joined."""

RESULTS_KEPT = 64
"""Images whose groundings or heatmaps wait for the rest."""

GROUNDED = (Status.FOUND, Status.NOT_PRESENT, Status.NO_DEPTH, Status.NO_TRANSFORM)
"""What a message says that has points."""


@dataclass(frozen=True)
class Received:
    """A message and when it came.

    Attributes:
        message: ``videogem_ros/ActionGrounding``.
        received_ns: Nanoseconds since 1970.
    """

    message: Any
    received_ns: int


@dataclass
class _Result:
    """Messages about one image, by the action's place in the command."""

    seen: int  # images that had come before its first message
    command_id: int | None = None  # until a grounding tells
    answers: dict[int, Received] = field(default_factory=dict)
    heatmaps: dict[int, Heatmap] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return bool(self.answers) and self.answers.keys() == self.heatmaps.keys()


class ResultJoiner:
    """Puts images, ``ActionGrounding`` and heatmap messages together by their stamps.

    They may come in any order, and stamps may go back (a bag that plays in a loop): what has
    waited longest is given up first.
    """

    def __init__(self) -> None:
        self._given_up = 0
        self._seen = 0
        self._images: dict[int, Frame] = {}  # in the order of their arrival
        self._results: dict[int, _Result] = {}  # the same

    def on_image(self, message: Any) -> None:
        """Takes a ``sensor_msgs/Image`` of the camera.

        Raises:
            EncodingError: It cannot be converted.
        """
        frame = frame_from_message(message)
        self._seen += 1
        self._images.pop(frame.stamp_ns, None)
        self._images[frame.stamp_ns] = frame
        if len(self._images) > IMAGES_KEPT:
            del self._images[next(iter(self._images))]

    def on_grounding(self, message: Any, received_ns: int = 0) -> None:
        """Takes a ``videogem_ros/ActionGrounding``; those without a point are passed over.

        Args:
            message: The message.
            received_ns: When it came, nanoseconds since 1970.
        """
        if message.status not in GROUNDED:
            return
        stamp_ns = header_stamp_ns(message)
        result = self._result(stamp_ns)
        if result.command_id not in (None, message.command_id):
            result = self._results[stamp_ns] = _Result(self._seen)
        result.command_id = message.command_id
        result.answers[message.action_index] = Received(message, received_ns)

    def on_heatmap(self, index: int, message: Any) -> None:
        """Takes the heatmap of the action at a place in the command.

        Raises:
            EncodingError: It is no 32FC1 image.
        """
        if message.encoding != "32FC1":
            raise EncodingError("heatmap.encoding", "32FC1", message.encoding)
        values = np.frombuffer(message.data, "<f4").reshape(message.height, message.width)
        result = self._result(header_stamp_ns(message))
        result.heatmaps[index] = Heatmap(values, (message.height, message.width))

    def _result(self, stamp_ns: int) -> _Result:
        result = self._results.get(stamp_ns)
        if result is None:
            result = self._results[stamp_ns] = _Result(self._seen)
            if len(self._results) > RESULTS_KEPT:
                self._give_up(next(iter(self._results)))
        return result

    def _give_up(self, stamp_ns: int) -> None:
        self._given_up += len(self._results.pop(stamp_ns).answers)

    @property
    def not_joined(self) -> int:
        """Groundings whose image or heatmap did not come in time, or has not come yet."""
        return self._given_up + sum(len(result.answers) for result in self._results.values())

    def results(
        self, *, last: bool = False
    ) -> Iterator[tuple[Frame, list[Grounding], list[Received]]]:
        """What is complete, as it came: the frame, its groundings, and their messages.

        Args:
            last: Whether nothing more will come; before, the newest image's groundings may.
        """
        for stamp_ns in list(self._results)[: None if last else -1]:
            result = self._results[stamp_ns]
            frame = self._images.get(stamp_ns)
            if frame is not None and result.complete:
                del self._results[stamp_ns]
                answers = [result.answers[index] for index in sorted(result.answers)]
                heatmaps = [result.heatmaps[index] for index in sorted(result.heatmaps)]
                messages = (answer.message for answer in answers)
                yield frame, list(map(_grounding, messages, heatmaps)), answers
            elif frame is None and self._seen - result.seen >= IMAGES_KEPT:
                self._give_up(stamp_ns)  # its image is gone, or never came


def _grounding(message: Any, heatmap: Heatmap) -> Grounding:
    """The grounding in a message; its prompts, which are not told, are empty."""
    hw = (message.image_height, message.image_width)
    fused = Heatmap(heatmap.values, hw)
    return Grounding(
        action=_action(message),
        prompts=Prompts("", "", ""),
        frame_index=message.frames_used - 1,
        stamp_ns=header_stamp_ns(message),
        frame_id=message.header.frame_id,
        image_hw=hw,
        window_start_ns=_ns(message.window_start),
        window_end_ns=_ns(message.window_end),
        frames_used=message.frames_used,
        points={
            name: Point(point.x, point.y, point.similarity)
            for name in ("fused", *PROMPT_KINDS)
            for point in (getattr(message, f"{name}_point"),)
        },
        heatmaps={"fused": fused},
        layer_weights=np.stack(
            [getattr(message, f"layer_weights_{kind}") for kind in PROMPT_KINDS]
        ),
        prompt_probabilities=np.asarray(message.prompt_probabilities),
        score=message.score,
        present=message.status != Status.NOT_PRESENT,
    )


def _action(message: Any) -> Action:
    """The action that was meant: the command is told whole, and may have held several."""
    verb, target = message.verb or None, message.object or None
    for action in parse_actions(message.action):
        if (action.verb, action.object) == (verb, target):
            return action
    return Action(message.action, message.action, verb=verb, object=target)


def _ns(time: Any) -> int:
    return int(time.sec) * NS_PER_S + int(time.nanosec)


def milliseconds(duration: Any) -> float:
    """A ``builtin_interfaces/Duration`` in milliseconds."""
    return float(duration.sec * 1e3 + duration.nanosec * 1e-6)

"""From a node's messages back to frames with their groundings, for subscribers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from videogem_ros.datatypes import (
    PROMPT_KINDS,
    Action,
    Frame,
    Grounding,
    Heatmap,
    Point,
    Prompts,
)
from videogem_ros.encodings import (
    frame_from_compressed,
    frame_from_message,
    header_stamp_ns,
    heatmap_from_message,
    time_ns,
)
from videogem_ros.language import parse_actions
from videogem_ros.live.messages import Status

IMAGES_KEPT = 64
"""Most images that wait for their groundings; a node that is further behind is not joined."""

RESULTS_KEPT = 64
"""Most images whose groundings or heatmaps wait for the rest."""

GROUNDED = (Status.FOUND, Status.NOT_PRESENT, Status.NO_DEPTH, Status.NO_TRANSFORM)
"""Statuses of messages that have points."""


@dataclass(frozen=True)
class Received:
    """A message and its time of arrival.

    Attributes:
        message: ``videogem_ros/ActionGrounding``.
        received_ns: When it arrived, nanoseconds since 1970.
    """

    message: Any
    received_ns: int


@dataclass(eq=False)
class _Result:
    """Messages about one image and one command, by the action's index in it."""

    stamp_ns: int
    seen: int  # images that had arrived before its first message
    frame: Frame | None  # the image, once it has arrived
    command_id: int | None = None  # None until a grounding has arrived
    answers: dict[int, Received] = field(default_factory=dict)
    heatmaps: dict[int, Heatmap] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return bool(self.answers) and self.answers.keys() == self.heatmaps.keys()


class ResultJoiner:
    """Joins images, ``ActionGrounding`` and heatmap messages by their stamps.

    They may arrive in any order, and stamps may go back (a bag that plays in a loop): what has
    waited longest is given up first. Heatmaps do not name their command, so a further one for an
    image whose groundings are complete belongs to the next command.
    """

    def __init__(self) -> None:
        self._given_up = 0
        self._seen = 0
        self._images: dict[int, Frame] = {}  # in the order of their arrival
        self._results: list[_Result] = []  # the same

    def on_image(self, message: Any) -> None:
        """Takes a ``sensor_msgs/Image`` of the camera.

        Raises:
            EncodingError: It cannot be converted.
        """
        self._add(frame_from_message(message))

    def on_compressed(self, message: Any) -> None:
        """Takes a ``sensor_msgs/CompressedImage`` of the camera.

        Raises:
            EncodingError: It cannot be decoded.
        """
        self._add(frame_from_compressed(message))

    def _add(self, frame: Frame) -> None:
        self._seen += 1
        self._images.pop(frame.stamp_ns, None)
        self._images[frame.stamp_ns] = frame
        for result in self._results:
            if result.stamp_ns == frame.stamp_ns and result.frame is None:
                result.frame = frame
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
            result = self._begin(stamp_ns)
        result.command_id = message.command_id
        result.answers[message.action_index] = Received(message, received_ns)

    def on_heatmap(self, index: int, message: Any) -> None:
        """Takes the heatmap of the action with this index in the command.

        Raises:
            EncodingError: See :func:`~videogem_ros.encodings.heatmap_from_message`.
        """
        values = heatmap_from_message(message)
        stamp_ns = header_stamp_ns(message)
        result = self._result(stamp_ns)
        if index in result.heatmaps and result.complete:
            result = self._begin(stamp_ns)
        result.heatmaps[index] = Heatmap(values, values.shape)

    def _result(self, stamp_ns: int) -> _Result:
        """The latest result of an image; a new one where there is none."""
        known = (result for result in reversed(self._results) if result.stamp_ns == stamp_ns)
        return next(known, None) or self._begin(stamp_ns)

    def _begin(self, stamp_ns: int) -> _Result:
        self._results.append(_Result(stamp_ns, self._seen, self._images.get(stamp_ns)))
        if len(self._results) > RESULTS_KEPT:
            self._give_up(self._results[0])
        return self._results[-1]

    def _give_up(self, result: _Result) -> None:
        self._results.remove(result)
        self._given_up += len(result.answers)

    @property
    def not_joined(self) -> int:
        """Number of groundings whose image or heatmap has not arrived, or arrived too late."""
        return self._given_up + sum(len(result.answers) for result in self._results)

    def results(
        self, *, last: bool = False
    ) -> Iterator[tuple[Frame, list[Grounding], list[Received]]]:
        """Complete results in order of arrival: the frame, its groundings, and their messages.

        Args:
            last: Whether no more messages will arrive. Otherwise the newest image is held back, as
                more of its groundings may follow.
        """
        for result in self._results[: None if last else -1]:
            frame = result.frame
            if frame is not None and result.complete:
                self._results.remove(result)
                answers = [result.answers[index] for index in sorted(result.answers)]
                heatmaps = [result.heatmaps[index] for index in sorted(result.heatmaps)]
                messages = [answer.message for answer in answers]
                yield frame, list(map(_grounding, messages, _actions(messages), heatmaps)), answers
            elif frame is None and self._seen - result.seen >= IMAGES_KEPT:
                self._give_up(result)  # its image was dropped, or never arrived


def _grounding(message: Any, action: Action, heatmap: Heatmap) -> Grounding:
    """The grounding in a message; its prompts, which messages do not hold, are empty."""
    hw = (message.image_height, message.image_width)
    fused = Heatmap(heatmap.values, hw)
    return Grounding(
        action=action,
        prompts=Prompts("", "", ""),
        frame_index=message.frames_used - 1,
        stamp_ns=header_stamp_ns(message),
        frame_id=message.header.frame_id,
        image_hw=hw,
        window_start_ns=time_ns(message.window_start),
        window_end_ns=time_ns(message.window_end),
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


def _actions(messages: Sequence[Any]) -> Iterator[Action]:
    """The actions of messages: each has its whole line of the command, verb and object.

    A line may hold several actions, even with the same verb and object; these are taken in order.
    """
    seen: Counter[tuple[str, str | None, str | None]] = Counter()
    for message in messages:
        text, verb, target = key = message.action, message.verb or None, message.object or None
        matching = [one for one in parse_actions(text) if (one.verb, one.object) == (verb, target)]
        if matching:
            yield matching[min(seen[key], len(matching) - 1)]
        else:
            yield Action(text, text, verb=verb, object=target)
        seen[key] += 1


def milliseconds(duration: Any) -> float:
    """A ``builtin_interfaces/Duration`` in milliseconds."""
    return float(duration.sec * 1e3 + duration.nanosec * 1e-6)

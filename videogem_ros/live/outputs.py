"""Publishes answers on topics that have subscribers, and computes nothing for the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from videogem_ros.datatypes import Frame
from videogem_ros.live.health import Level
from videogem_ros.live.messages import Answer, Circumstances, MessageBuilder, Status
from videogem_ros.live.middleware import Middleware
from videogem_ros.live.parameters import Parameters
from videogem_ros.live.topics import DIAGNOSTICS, action_topic
from videogem_ros.render import draw_overlay


class Outputs:
    """The node's publications.

    Args:
        middleware: Where messages are published.
    """

    def __init__(self, middleware: Middleware) -> None:
        self.build = MessageBuilder(middleware.make)
        self._middleware = middleware

    def want_positions(self, actions: int) -> bool:
        """Whether any topic with positions of so many actions has a subscriber."""
        topics = ["grounding", "markers", *(action_topic("point", i) for i in range(actions))]
        return any(map(self._middleware.subscribers, topics))

    def publish(self, answers: Sequence[Answer], about: Circumstances) -> None:
        """Publish the answers about a grounded frame, all but images.

        Points are published only if the action is present, and ``point`` only if its position is
        in the target frame, so that a robot that just follows a point is never sent elsewhere.
        """
        for answer in answers:
            self.say(answer, about)
        self._publish("markers", lambda: self.build.markers(answers))
        for answer in answers:
            self._publish_points(answer)

    def draw(self, image: Frame, answers: Sequence[Answer], parameters: Parameters) -> None:
        """Publish heatmaps of a grounded frame and overlays on it, which take longer to build."""
        for answer in answers:
            self._publish_images(image, answer, parameters)

    def say(self, answer: Answer, about: Circumstances) -> None:
        """Publish one answer on ``grounding``."""
        self._publish("grounding", lambda: self.build.grounding(answer, about))

    def clear_markers(self) -> None:
        """Delete the markers that RViz shows."""
        self._publish("markers", lambda: self.build.markers(()))

    def diagnose(
        self, now_ns: int, level: Level, name: str, message: str, values: Mapping[str, str]
    ) -> None:
        """Publish diagnostics."""
        self._publish(
            DIAGNOSTICS,
            lambda: self.build.diagnostics(
                now_ns,
                level=level,
                name=name,
                message=message,
                hardware_id=values.get("backbone", ""),
                values=values,
            ),
        )

    def _publish_points(self, answer: Answer) -> None:
        grounding, position = answer.grounding, answer.position
        if grounding is None or not grounding.present:
            return
        self._publish(
            action_topic("point_px", answer.index), lambda: self.build.point_px(grounding)
        )
        if position is not None and answer.status is Status.FOUND:
            self._publish(
                action_topic("point", answer.index), lambda: self.build.point(grounding, position)
            )

    def _publish_images(self, image: Frame, answer: Answer, parameters: Parameters) -> None:
        grounding = answer.grounding
        if grounding is None:
            return
        self._publish(
            action_topic("heatmap", answer.index),
            lambda: self.build.heatmap(grounding, parameters["heatmap.scale"]),
        )
        raw = action_topic("overlay", answer.index)
        compressed = action_topic("overlay/compressed", answer.index)
        if not any(map(self._middleware.subscribers, (raw, compressed))):
            return
        picture = draw_overlay(image.image, [grounding], opacity=parameters["overlay.opacity"])
        self._publish(raw, lambda: self.build.overlay(grounding, picture))
        quality = parameters["overlay.jpeg_quality"]
        self._publish(
            compressed, lambda: self.build.overlay_compressed(grounding, picture, quality)
        )

    def _publish(self, topic: str, build: Callable[[], Any]) -> None:
        if self._middleware.subscribers(topic):
            self._middleware.publish(topic, build())

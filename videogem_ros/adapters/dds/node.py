"""The node without ROS: wires DDS topics to :class:`videogem_ros.live.node.GroundingNode`.

It behaves as the lifecycle node does when it is active.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from videogem_ros.adapters.dds.graph import Graph
from videogem_ros.adapters.dds.names import Names
from videogem_ros.adapters.dds.participant import GID_BYTES, Participant
from videogem_ros.adapters.dds.qos import DEFAULT, QosProfile
from videogem_ros.live.node import GroundingNode
from videogem_ros.live.parameters import Parameters
from videogem_ros.live.topics import INPUTS
from videogem_ros.live.types import typestore

POLL_S = 0.1
"""Longest time in which :meth:`DdsNode.spin` does not look whether it shall end."""


class DdsNode:
    """The grounding node on a DDS graph; a context manager that loads, starts, and ends it.

    Args:
        parameters: The node's parameters.
        names: Its name, namespace and remappings.
        log: Takes level (debug, info, warn, error) and text.
        use_sim_time: Whether the clock is that of ``/clock``.
        interface: See :func:`~videogem_ros.adapters.dds.configuration.configuration`.
        gid_bytes: See :class:`~videogem_ros.adapters.dds.participant.Participant`.

    Attributes:
        inputs: Topics that it is subscribed to once it is entered.

    Raises:
        VideoGemError: On entering, where the backbone cannot be loaded or the domain not joined.
    """

    def __init__(
        self,
        parameters: Parameters,
        names: Names,
        log: Callable[[str, str], None],
        *,
        use_sim_time: bool = False,
        interface: str | None = None,
        gid_bytes: int = GID_BYTES,
    ) -> None:
        self.inputs: tuple[str, ...] = ()
        self._parameters = parameters
        self._participant = Participant(
            names,
            typestore(),
            interface=interface,
            gid_bytes=gid_bytes,
            log=log,
            on_qos_incompatible=self._on_qos_incompatible,
            on_undecodable=self._on_undecodable,
        )
        self._graph = Graph(self._participant, log, use_sim_time=use_sim_time)
        self.live = GroundingNode(self._graph, parameters, names.full)

    def __enter__(self) -> DdsNode:
        try:
            self.live.configure()
            self._graph.advertise(self._parameters["max_actions"])
            if self._parameters["target_frame"]:
                self._graph.listen_to_transforms()
            self.live.activate()
            self._subscribe()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops the work, frees the model and leaves the graph."""
        self.live.cleanup()
        self._participant.close()

    def spin(self, ended: Callable[[], object]) -> None:
        """Takes messages in, and ticks once a second.

        Args:
            ended: Whether to return; asked several times a second.
        """
        next_tick_s = time.monotonic()
        while not ended():
            self._participant.spin(POLL_S)
            if time.monotonic() >= next_tick_s:
                next_tick_s = time.monotonic() + 1.0
                self.live.tick()

    def _subscribe(self) -> None:
        live, subscribe = self.live, self._participant.subscribe
        reliable = self._parameters["image_reliability"] == "reliable"
        sensor = QosProfile(reliable=reliable, depth=5)
        subscriptions = []
        for topic, handler in live.sensor_handlers.items():
            on_skipped = live.on_images_skipped if topic.startswith("image") else None
            subscriptions.append(
                subscribe(topic, INPUTS[topic], sensor, handler, on_skipped=on_skipped)
            )
        subscriptions.append(
            subscribe(
                "action",
                INPUTS["action"],
                DEFAULT,
                lambda message: live.on_action(message.data),
                latched=True,
            )
        )
        self.inputs = tuple(subscription.topic for subscription in subscriptions)

    def _on_qos_incompatible(self, topic: str, policy: str) -> None:
        self.live.on_qos_incompatible(topic, policy)

    def _on_undecodable(self, topic: str, reason: str) -> None:
        self.live.on_undecodable(topic, reason)

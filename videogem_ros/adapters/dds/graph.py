"""The graph as the live node sees it: messages, publishers, clock, log and TF over DDS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from videogem_ros.adapters.dds.participant import DdsError, Participant, Publisher
from videogem_ros.adapters.dds.qos import CLOCK, STATIC_TRANSFORMS, QosProfile
from videogem_ros.adapters.dds.transforms import TransformBuffer
from videogem_ros.encodings import time_ns
from videogem_ros.live.middleware import TransformUnavailable
from videogem_ros.live.topics import ACTION_OUTPUTS, SHARED_OUTPUTS, outputs
from videogem_ros.live.types import typestore

OUTPUT = QosProfile(depth=5)
"""Reliable, so that it matches every subscription."""

TRANSFORM_WAIT_S = 0.1
"""A transform as new as the image may still be on its way."""


class Graph:
    """The live node's :class:`videogem_ros.live.middleware.Middleware`.

    Args:
        participant: The node on the DDS graph.
        log: Takes level and text.
        use_sim_time: Whether the clock is that of ``/clock``.
    """

    def __init__(
        self,
        participant: Participant,
        log: Callable[[str, str], None],
        *,
        use_sim_time: bool = False,
    ) -> None:
        self.log = log
        self._participant = participant
        self._types = outputs(max_actions=1)
        self._lock = threading.Lock()
        self._publishers: dict[str, Publisher] = {}
        self._stalled: set[str] = set()
        self._transforms: TransformBuffer | None = None
        self._sim_time_ns: int | None = None
        if use_sim_time:
            self._sim_time_ns = 0
            participant.subscribe("/clock", "rosgraph_msgs/msg/Clock", CLOCK, self._on_clock)

    def advertise(self, max_actions: int) -> None:
        """Make the topics visible before there is anything to publish.

        Args:
            max_actions: Most actions at a time; topics of the second and further ones are
                advertised when used.
        """
        self._types = outputs(max_actions)
        for topic in (*SHARED_OUTPUTS, *ACTION_OUTPUTS):
            self._publisher(topic)

    def make(self, type_name: str, /, **fields: Any) -> Any:
        """A message of the rosbags class for the type."""
        return typestore().types[type_name](**fields)

    def publish(self, topic: str, message: Any) -> None:
        """Publish; where a subscriber does not keep up, drop the message and log that once."""
        try:
            self._publisher(topic).publish(message)
            self._stalled.discard(topic)
        except DdsError as error:
            if topic not in self._stalled:
                self._stalled.add(topic)
                self.log("warn", f"{error}; messages are dropped")

    def subscribers(self, topic: str) -> int:
        """Number of subscriptions of a topic, which is advertised from now on."""
        return self._publisher(topic).subscribers

    def input_name(self, topic: str) -> str:
        """The absolute name of an input topic, remapped."""
        return self._participant.names.resolve(topic)

    def now_ns(self) -> int:
        """System time, or the latest time of ``/clock``."""
        return time.time_ns() if self._sim_time_ns is None else self._sim_time_ns

    def transform(
        self, target_frame: str, source_frame: str, stamp_ns: int
    ) -> npt.NDArray[np.float64]:
        """A transform from TF, waited for briefly; the first call subscribes to TF."""
        buffer = self.listen_to_transforms()
        deadline_s = time.monotonic() + TRANSFORM_WAIT_S
        while True:
            try:
                return buffer.lookup(target_frame, source_frame, stamp_ns)
            except TransformUnavailable:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(TRANSFORM_WAIT_S / 10)

    def listen_to_transforms(self) -> TransformBuffer:
        """Subscribe to TF for good, so that its past is known when it is needed."""
        with self._lock:
            if self._transforms is None:
                self._transforms = buffer = TransformBuffer()
                for topic, qos, add in (
                    ("/tf", QosProfile(depth=100), buffer.add),
                    ("/tf_static", STATIC_TRANSFORMS, buffer.add_static),
                ):
                    self._participant.subscribe(topic, "tf2_msgs/msg/TFMessage", qos, add)
            return self._transforms

    def _on_clock(self, message: Any) -> None:
        before_ns, now_ns = self.now_ns(), time_ns(message.clock)
        self._sim_time_ns = now_ns
        if now_ns < before_ns and self._transforms is not None:
            self._transforms.clear()  # a simulation or recording starts over

    def _publisher(self, topic: str) -> Publisher:
        with self._lock:
            if topic not in self._publishers:
                name = topic if topic.startswith("/") else f"~/{topic}"
                self._publishers[topic] = self._participant.advertise(
                    name, self._types[topic], OUTPUT
                )
            return self._publishers[topic]

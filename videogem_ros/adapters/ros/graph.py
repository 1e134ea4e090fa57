"""The graph as the live node sees it: messages, publishers, clock, log and TF of an rclpy node."""

from __future__ import annotations

import array
import functools
import importlib
import pkgutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, qos_policy_name_from_kind
from rclpy.subscription import Subscription
from rclpy.time import Time

import videogem_ros
from videogem_ros.live.middleware import TransformUnavailable, rigid_matrix
from videogem_ros.live.topics import ACTION_OUTPUTS, DIAGNOSTICS, SHARED_OUTPUTS, outputs

try:
    from rclpy.event_handler import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )
except ImportError:  # Humble
    from rclpy.qos_event import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )

TRANSFORM_WAIT_S = 0.1
"""A transform as new as the image may still be on its way."""

OnIncompatible = Callable[[str, str], None]


@functools.cache
def interface(type_name: str) -> Any:
    """The Python class of a message or service ("sensor_msgs/msg/Image").

    The package's own interfaces are found where ROS installed them, even if its Python modules are
    imported from elsewhere, such as a source checkout.
    """
    package, kind, name = type_name.split("/")
    if package == videogem_ros.__name__:
        videogem_ros.__path__ = pkgutil.extend_path(videogem_ros.__path__, package)
    return getattr(importlib.import_module(f"{package}.{kind}"), name)


def make_message(type_name: str, /, **fields: Any) -> Any:
    """An rclpy message of the fields; see :meth:`videogem_ros.live.middleware.Middleware.make`."""
    kind = interface(type_name)
    types = kind.get_fields_and_field_types()
    message = kind()
    for name, value in fields.items():
        setattr(message, name, _field(value, types[name]))
    return message


def _field(value: Any, field_type: str) -> Any:
    if isinstance(value, np.ndarray) and field_type.startswith("sequence"):
        # The only sequence type that rclpy accepts without checking each element.
        return array.array(value.dtype.char, value.tobytes())
    if field_type == "octet" and isinstance(value, int):
        return bytes([value])
    return value


class Graph:
    """The live node's :class:`videogem_ros.live.middleware.Middleware`.

    Args:
        node: The rclpy node.
        on_incompatible: Called with topic and policy where a peer's QoS does not match.
    """

    def __init__(self, node: Node, on_incompatible: OnIncompatible) -> None:
        self._node = node
        self._types = outputs(max_actions=1)
        self._on_incompatible = on_incompatible
        self._publishers: dict[str, Publisher] = {}
        self._transforms: Any = None

    make = staticmethod(make_message)

    def publish(self, topic: str, message: Any) -> None:
        """Publish, unless ROS is shutting down."""
        try:
            self._publisher(topic).publish(message)
        except Exception:
            if self._node.context.ok():
                raise

    def subscribers(self, topic: str) -> int:
        """Number of subscriptions of a topic, which is advertised from now on."""
        return self._publisher(topic).get_subscription_count() if self._node.context.ok() else 0

    def input_name(self, topic: str) -> str:
        """The absolute name of an input topic, remapped."""
        return str(self._node.resolve_topic_name(topic))

    def now_ns(self) -> int:
        """The node's clock, which follows use_sim_time."""
        return int(self._node.get_clock().now().nanoseconds)

    def log(self, level: str, text: str) -> None:
        """Log a line as the node."""
        logger = self._node.get_logger()
        match level:  # rclpy allows a source line only one severity
            case "debug":
                logger.debug(text)
            case "info":
                logger.info(text)
            case "warn":
                logger.warning(text)
            case _:
                logger.error(text)

    def transform(
        self, target_frame: str, source_frame: str, stamp_ns: int
    ) -> npt.NDArray[np.float64]:
        """A transform from TF, waited for briefly; the first call subscribes to TF."""
        import tf2_ros  # noqa: PLC0415 - only where a target frame is set

        self.listen_to_transforms()
        buffer, stamp = self._transforms[0], Time(nanoseconds=stamp_ns)
        deadline = time.monotonic() + TRANSFORM_WAIT_S  # simulated time may stand still
        while True:
            try:
                found = buffer.lookup_transform(target_frame, source_frame, stamp)
            except tf2_ros.TransformException as error:
                if time.monotonic() > deadline:
                    raise TransformUnavailable(str(error)) from error
                time.sleep(TRANSFORM_WAIT_S / 10)
            else:
                t, q = found.transform.translation, found.transform.rotation
                return rigid_matrix((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))

    def listen_to_transforms(self) -> None:
        """Subscribe to TF for good, so that its past is known when it is needed."""
        import tf2_ros  # noqa: PLC0415

        if self._transforms is None:
            buffer = tf2_ros.Buffer(node=self._node)
            self._transforms = buffer, tf2_ros.TransformListener(buffer, self._node)

    def advertise(self, max_actions: int) -> None:
        """Make the topics visible before there is anything to publish.

        Args:
            max_actions: Most actions at a time; topics of the second and further ones are
                advertised when used.
        """
        self._types = outputs(max_actions)
        for topic in (*SHARED_OUTPUTS, *ACTION_OUTPUTS):
            self._publisher(topic)

    def close(self) -> None:
        """Remove all topics except the diagnostics from the graph."""
        for topic in [topic for topic in self._publishers if topic != DIAGNOSTICS]:
            self._node.destroy_publisher(self._publishers.pop(topic))

    def _publisher(self, topic: str) -> Publisher:
        publisher = self._publishers.get(topic)
        if publisher is None:
            publisher = self._publishers[topic] = _with_events(
                functools.partial(
                    self._node.create_publisher,
                    interface(self._types[topic]),
                    topic if topic.startswith("/") else f"~/{topic}",
                    QoSProfile(depth=5),  # reliable, so that it matches every subscription
                ),
                PublisherEventCallbacks,
                functools.partial(self._on_incompatible, topic),
            )
        return publisher


def subscribe(
    create: Callable[..., Subscription],
    on_incompatible: Callable[[str], None] | None = None,
    on_lost: Callable[[int], None] | None = None,
) -> Subscription:
    """A subscription that reports what it misses, as far as the middleware supports that.

    Args:
        create: Makes the subscription; takes ``event_callbacks``.
        on_incompatible: Called with the name of the QoS policy that a publisher does not match.
        on_lost: Called with the number of messages that were lost.
    """
    lost: dict[str, Any] = {}
    if on_lost is not None:
        lost["message_lost"] = lambda event: on_lost(event.total_count_change)
    return _with_events(create, SubscriptionEventCallbacks, on_incompatible, lost)


def _with_events(
    create: Callable[..., Any],
    callbacks: Any,
    on_incompatible: Callable[[str], None] | None,
    others: dict[str, Any] | None = None,
) -> Any:
    def report(event: Any) -> None:
        if on_incompatible is not None:
            on_incompatible(qos_policy_name_from_kind(event.last_policy_kind))

    incompatible = {"incompatible_qos": report}
    for wanted in (incompatible | (others or {}), incompatible):
        try:
            return create(event_callbacks=callbacks(**wanted, use_default_callbacks=False))
        except UnsupportedEventTypeError:  # not every middleware supports all events
            continue
    return create(event_callbacks=callbacks(use_default_callbacks=False))

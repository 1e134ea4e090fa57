"""The lifecycle node: wires an rclpy graph to :class:`videogem_ros.live.node.GroundingNode`."""

from __future__ import annotations

import collections
import functools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription

from videogem_ros.adapters.ros.graph import Graph, interface, subscribe
from videogem_ros.errors import VideoGemError
from videogem_ros.live.node import GroundingNode
from videogem_ros.live.parameters import PARAMETERS, Parameter, Parameters, take_common
from videogem_ros.live.topics import INPUTS, NODE_NAME

THREADS = 4
"""For images, a waiting request, a transition that loads a model, and everything quick."""

ECHO_S = 5.0
"""A command reaches the volatile and the latched subscription within this time of each other."""


class VideoGemNode(LifecycleNodeMixin, Node):  # type: ignore[misc] # rclpy is not everywhere
    """The node. Configure loads the model, activate subscribes, deactivate and cleanup undo it.

    Attributes:
        autostart: Whether :meth:`bring_up` is to be called.
        loading: Whether a model is being loaded now.

    Raises:
        VideoGemError: A parameter is not valid.
    """

    def __init__(self) -> None:
        Node.__init__(self, NODE_NAME)
        # A LifecycleNode answers nothing while a transition loads a model, not even get_state.
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self._subscribing = threading.Lock()  # guards the subscriptions
        self._ticking = threading.Lock()  # guards _closed during a tick
        self._closed = False
        self.loading = False
        self._inputs: list[Subscription] = []
        self._images_group = MutuallyExclusiveCallbackGroup()  # with depth and camera_info
        self._actions_group = MutuallyExclusiveCallbackGroup()  # waits for no image's conversion
        self._latched_action: Subscription | None = None
        self._echoes = EchoFilter()
        self.autostart = self._declare_autostart()
        parameters = self._declare_parameters()
        self._graph = Graph(self, self._on_qos_incompatible)
        self._live = GroundingNode(self._graph, parameters, self.get_fully_qualified_name())
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self.create_service(
            interface("videogem_ros/srv/GroundAction"),
            "~/ground",
            self._on_ground,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )
        self.create_timer(
            1.0,
            self._on_tick,
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME),  # runs while simulated time stands
        )

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm the model, advertise the outputs; stays unconfigured where that fails."""
        return self._transition(self._configure, undo=self._cleanup)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the inputs and start to ground."""
        return self._transition(self._activate, undo=self._deactivate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and stop."""
        return self._transition(self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and its memory."""
        return self._transition(self._cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate and clean up, from any state."""
        return self._transition(self.close)

    def bring_up(self) -> None:
        """Configure and activate, unless ROS is shutting down."""
        try:
            if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()
        except RuntimeError:  # from rcl: a transition that cannot be published
            if self.context.ok():
                raise

    def on_callback_error(self, error: Exception) -> None:
        """Count and report what a callback raised, or rcl where a transition is invalid."""
        self._live.on_callback_error(error)

    def close(self) -> None:
        """Stop and free everything, from any state, for good."""
        with self._ticking:
            self._closed = True
        self._deactivate()
        self._cleanup()

    def _transition(
        self, work: Callable[[], None], undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        try:
            work()
        except Exception as error:  # a model can fail in any way; the node survives
            if not self._closed or work == self.close:  # otherwise the node was closed meanwhile
                self._graph.log("error", f"{type(error).__name__}: {error}")
            if undo is not None:
                undo()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        self.loading = True
        try:
            self._live.configure()
        finally:
            self.loading = False
        self._graph.advertise(self._live.parameters["max_actions"])

    def _activate(self) -> None:
        parameters = self._live.parameters
        if parameters["target_frame"]:
            self._graph.listen_to_transforms()
        reliability = ReliabilityPolicy[parameters["image_reliability"].upper()]
        sensor = QoSProfile(depth=5, reliability=reliability)
        on_action = functools.partial(self._on_action, latched=False)
        handlers = self._live.sensor_handlers
        self._live.activate()
        with self._subscribing:
            self._inputs = [self._subscribe(*item, sensor) for item in handlers.items()]
            self._inputs.append(self._subscribe("action", on_action, QoSProfile(depth=10)))
            self._match_latching_publishers()

    def _deactivate(self) -> None:
        with self._subscribing:
            for subscription in (*self._inputs, self._latched_action):
                if subscription is not None:
                    self.destroy_subscription(subscription)
            self._inputs, self._latched_action = [], None
        self._live.deactivate()

    def _cleanup(self) -> None:
        self._live.cleanup()
        self._graph.close()

    def _subscribe(
        self, topic: str, handler: Callable[[Any], None], qos: QoSProfile, *, quiet: bool = False
    ) -> Subscription:
        create = functools.partial(
            self.create_subscription,
            interface(INPUTS[topic]),
            topic,
            handler,
            qos,
            callback_group=self._actions_group if topic == "action" else self._images_group,
        )
        if quiet:
            return subscribe(create)
        return subscribe(
            create,
            on_incompatible=functools.partial(self._on_qos_incompatible, topic),
            on_lost=functools.partial(self._live.on_messages_lost, topic),
        )

    def _match_latching_publishers(self) -> None:
        """Subscribe to latched commands while a transient-local publisher of commands exists.

        A volatile subscription alone would miss commands that were latched before it was made. A
        transient-local one alone does not match volatile publishers, and makes each of them warn.
        """
        latching = any(
            publisher.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
            for publisher in self.get_publishers_info_by_topic(self.resolve_topic_name("action"))
        )
        if latching and self._latched_action is None:
            on_action = functools.partial(self._on_action, latched=True)
            qos = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._latched_action = self._subscribe("action", on_action, qos, quiet=True)
        elif not latching and self._latched_action is not None:
            self.destroy_subscription(self._latched_action)
            self._latched_action = None

    def _on_action(self, message: Any, *, latched: bool) -> None:
        if not self._echoes.is_echo(message.data, latched, time.monotonic()):
            self._live.on_action(message.data)

    def _on_ground(self, request: Any, response: Any) -> Any:
        timeout_s = request.timeout.sec + request.timeout.nanosec * 1e-9
        outcome = self._live.request(request.action, timeout_s)
        response.success, response.reason = outcome.success, outcome.reason
        response.groundings = list(outcome.groundings)
        return response

    def _on_qos_incompatible(self, topic: str, policy: str) -> None:
        self._live.on_qos_incompatible(topic, policy)

    def _on_tick(self) -> None:
        with self._ticking:
            if self._closed:
                return
            with self._subscribing:
                if self._inputs:
                    self._match_latching_publishers()
            self._live.tick()

    def _on_set_parameters(self, parameters: list[Any]) -> SetParametersResult:
        ours = {parameter.name for parameter in PARAMETERS}
        changes = {item.name: item.value for item in parameters if item.name in ours}
        try:
            self._live.set_parameters(changes)
        except VideoGemError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _declare_autostart(self) -> bool:
        # With a dynamic type, so that an unsuitable value gets our own error message.
        descriptor = ParameterDescriptor(dynamic_typing=True)
        value = self.declare_parameter("autostart", False, descriptor).value
        take_common({"autostart": value})  # refuses what is neither true nor false
        return bool(value)

    def _declare_parameters(self) -> Parameters:
        """Declare all parameters; given values are checked together."""
        given = self._parameter_overrides  # including unknown ones, which rclpy would not report
        for parameter in PARAMETERS:
            # Declared with the default, so that an unsuitable value gets our own error message.
            self.declare_parameter(
                parameter.name, parameter.default, _descriptor(parameter), ignore_override=True
            )
        known = {parameter.name for parameter in PARAMETERS}
        parameters = Parameters.from_mapping(
            {name: item.value for name, item in given.items() if name in known}
        )
        self.set_parameters([given[name] for name in given if name in known])
        for name in given.keys() - known:
            if not self.has_parameter(name) and not name.startswith("qos_overrides."):
                self.get_logger().warning(f"unknown parameter {name} is ignored")
        return parameters


class EchoFilter:
    """Passes a command once that arrives by both the volatile and the latched subscription."""

    def __init__(self) -> None:
        self._single: collections.deque[tuple[str, bool, float]] = collections.deque(maxlen=64)

    def is_echo(self, text: str, latched: bool, now_s: float) -> bool:
        """Whether the other subscription has delivered this command already.

        Args:
            text: The command.
            latched: Whether it arrived by the latched subscription.
            now_s: Monotonic time.
        """
        for known in list(self._single):
            known_text, known_latched, time_s = known
            if now_s - time_s > ECHO_S:
                self._single.remove(known)
            elif known_text == text and known_latched != latched:
                self._single.remove(known)
                return True
        self._single.append((text, latched, now_s))
        return False


def _descriptor(parameter: Parameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=parameter.description,
        additional_constraints=parameter.expected
        + ("" if parameter.live else "; changes only while the node is unconfigured"),
        dynamic_typing=True,  # so that 5 will do for 5.0; Parameter checks the types
    )
    low, high = parameter.minimum, parameter.maximum
    if math.isfinite(low) and math.isfinite(high):
        if parameter.kind == "double":
            limits = FloatingPointRange(from_value=float(low), to_value=float(high))
            descriptor.floating_point_range = [limits]
        elif parameter.kind == "integer":
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    return descriptor


def main(args: list[str] | None = None) -> None:
    """Run the node until SIGINT, SIGTERM or the end of its context."""
    # rclpy's own handlers would shut the context down before the node has finished its work.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number))
    try:
        node = VideoGemNode()
    except VideoGemError as error:
        get_logger(NODE_NAME).fatal(str(error))
        rclpy.try_shutdown()
        sys.exit(1)
    executor = MultiThreadedExecutor(THREADS)
    executor.add_node(node)
    if node.autostart:
        executor.create_task(node.bring_up)
    # In a separate thread, since Python handles signals only while the main thread runs.
    spinning = threading.Thread(target=_spin, args=(executor, node))
    spinning.start()
    # A wait without end can miss a signal that comes just as it begins.
    while spinning.is_alive() and not signals:
        spinning.join(0.1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    node.get_logger().info("ending; a second signal ends at once")
    node.close()  # waits for the window that is being grounded
    rclpy.try_shutdown()  # ends the spinning thread
    spinning.join()
    if node.loading:
        node.destroy_node()
        os._exit(0)  # since Python would wait for that thread, which nothing can interrupt
    executor.shutdown()
    node.destroy_node()


def _spin(executor: MultiThreadedExecutor, node: VideoGemNode) -> None:
    last: Exception | None = None
    while rclpy.ok():
        try:
            executor.spin()
        except ExternalShutdownException:
            break
        except Exception as error:
            if error is not last:  # rclpy often raises the same one twice
                node.on_callback_error(error)
            last = error

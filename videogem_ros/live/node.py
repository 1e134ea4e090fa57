"""The node: callbacks convert and push, one worker grounds the newest window and publishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from videogem_ros.live.middleware import Middleware, TransformUnavailable
from videogem_ros.live.parameters import Parameters
from videogem_ros.live.topics import NODE_NAME

__all__ = ["GroundOutcome", "GroundingNode", "Middleware", "TransformUnavailable"]


@dataclass(frozen=True)
class GroundOutcome:
    """Answer to a request.

    Attributes:
        success: Whether every action of the request was found.
        reason: Why not, in words; empty on success.
        groundings: ``videogem_ros/msg/ActionGrounding`` of each action, in order; none where none
            was grounded.
    """

    success: bool
    reason: str
    groundings: tuple[Any, ...] = ()


class GroundingNode:
    """A node's life and work. Every ``on_`` method returns at once and never raises.

    Args:
        middleware: The graph.
        parameters: What was set; :meth:`set_parameters` changes it.
        name: The node's full name, for diagnostics.
    """

    def __init__(
        self, middleware: Middleware, parameters: Parameters, name: str = f"/{NODE_NAME}"
    ) -> None:
        raise NotImplementedError

    @property
    def parameters(self) -> Parameters:
        """As they are now."""
        raise NotImplementedError

    def configure(self) -> None:
        """Load the backbone and ground a blank window. Raises VideoGemError."""
        raise NotImplementedError

    def activate(self) -> None:
        """Start the worker."""
        raise NotImplementedError

    def deactivate(self) -> None:
        """Stop the worker."""
        raise NotImplementedError

    def cleanup(self) -> None:
        """Free what configure loaded."""
        raise NotImplementedError

    def on_image(self, message: Any) -> None:
        """sensor_msgs/Image."""
        raise NotImplementedError

    def on_compressed(self, message: Any) -> None:
        """sensor_msgs/CompressedImage."""
        raise NotImplementedError

    def on_action(self, text: str) -> None:
        """A command."""
        raise NotImplementedError

    def on_depth(self, message: Any) -> None:
        """sensor_msgs/Image of depth."""
        raise NotImplementedError

    def on_camera_info(self, message: Any) -> None:
        """sensor_msgs/CameraInfo."""
        raise NotImplementedError

    def on_qos_incompatible(self, topic: str, policy: str) -> None:
        """A peer offers or requests an incompatible QoS policy."""
        raise NotImplementedError

    def request(self, text: str, timeout_s: float) -> GroundOutcome:
        """Blocking: ground an action once; 0 is the node's default timeout."""
        raise NotImplementedError

    def set_parameters(self, changes: Mapping[str, Any]) -> None:
        """Change parameters; raises InvalidValueError and changes nothing where refused."""
        raise NotImplementedError

    def tick(self) -> None:
        """Called once a second."""
        raise NotImplementedError

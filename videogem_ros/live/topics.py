"""Names and types of all topics, defined once for every adapter and recording.

Inputs have relative names, outputs private ones (``~/heatmap``), diagnostics an absolute one. Of
several current actions the first has the plain output topics, the others ``action_2/heatmap``, ...
"""

from __future__ import annotations

NODE_NAME = "videogem"

INPUTS = {
    "image": "sensor_msgs/msg/Image",
    "image/compressed": "sensor_msgs/msg/CompressedImage",
    "action": "std_msgs/msg/String",
    "depth": "sensor_msgs/msg/Image",
    "camera_info": "sensor_msgs/msg/CameraInfo",
}
"""Topic to type. One of the two images is subscribed to (``image_transport``); depth and
camera_info unless ``depth.use`` is never."""

SHARED_OUTPUTS = {
    "grounding": "videogem_ros/msg/ActionGrounding",
    "markers": "visualization_msgs/msg/MarkerArray",
}
"""Topics that carry all actions."""

ACTION_OUTPUTS = {
    "heatmap": "sensor_msgs/msg/Image",
    "overlay": "sensor_msgs/msg/Image",
    "overlay/compressed": "sensor_msgs/msg/CompressedImage",
    "point": "geometry_msgs/msg/PointStamped",
    "point_px": "geometry_msgs/msg/PointStamped",
}
"""Topics that each action has one of."""

DIAGNOSTICS = "/diagnostics"
DIAGNOSTICS_TYPE = "diagnostic_msgs/msg/DiagnosticArray"


def action_topic(topic: str, index: int) -> str:
    """A topic of the action with this index (from 0) in the command, relative to the node."""
    return f"action_{index + 1}/{topic}" if index else topic


def outputs(max_actions: int) -> dict[str, str]:
    """Types by topic of everything a node with so many actions may publish.

    Relative names are relative to the node's name; ``/diagnostics`` is absolute.
    """
    topics = dict(SHARED_OUTPUTS)
    for index in range(max_actions):
        topics |= {action_topic(topic, index): kind for topic, kind in ACTION_OUTPUTS.items()}
    return topics | {DIAGNOSTICS: DIAGNOSTICS_TYPE}

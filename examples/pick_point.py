#!/usr/bin/env python3
"""Wait until an action is found several times at the same place, then print where to grasp.

ros2 run videogem_ros pick_point --ros-args -r grounding:=/videogem/grounding
"""

import contextlib
import statistics
from collections import deque

import rclpy
from rclpy.executors import ExternalShutdownException
from videogem_ros.msg import ActionGrounding

COUNT, SPREAD_M, SPREAD_PX = 5, 0.02, 15.0
recent = deque(maxlen=COUNT)


def on_grounding(grounding: ActionGrounding) -> None:
    """Collect the points of the first action; when they agree, print a target and exit."""
    if grounding.action_index > 0:
        return
    p, px = grounding.position, grounding.fused_point
    in_space = grounding.has_position
    place = (p.x, p.y, p.z) if in_space else (px.x, px.y)
    if grounding.status != ActionGrounding.FOUND or (recent and len(recent[0]) != len(place)):
        recent.clear()
        return
    recent.append(place)
    axes = list(zip(*recent))
    most = SPREAD_M if in_space else SPREAD_PX
    if len(recent) == COUNT and all(max(axis) - min(axis) <= most for axis in axes):
        target = ", ".join(f"{statistics.median(axis):.3f}" for axis in axes)
        where = f"m in {grounding.position_frame}" if in_space else "px"
        print(f"grasp target of '{grounding.action}': ({target}) {where}", flush=True)
        raise SystemExit


if __name__ == "__main__":
    rclpy.init()
    node = rclpy.create_node("pick_point")
    node.create_subscription(ActionGrounding, "grounding", on_grounding, 10)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):  # SIGINT, SIGTERM
        rclpy.spin(node)

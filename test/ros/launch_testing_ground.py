"""For launch_testing: launch_test launch_testing_ground.py backbone:=... python:=...."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

import launch_testing.actions
import launch_testing.asserts
import launch_testing.markers
import rclpy
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import String
from videogem_ros.msg import ActionGrounding

PASSED_ON = ("python", "backbone", "weights", "device")
WAIT_S = 90.0


@launch_testing.markers.keep_alive
def generate_test_description() -> LaunchDescription:
    """The node, launched like a user would, and a camera."""
    ground = PathJoinSubstitution([FindPackageShare("videogem_ros"), "launch", "ground.launch.py"])
    camera = Path(__file__).with_name("still_camera.py")
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value="") for name in PASSED_ON),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(ground),
                launch_arguments={name: LaunchConfiguration(name) for name in PASSED_ON}.items(),
            ),
            ExecuteProcess(cmd=[sys.executable, str(camera), "image"]),
            launch_testing.actions.ReadyToTest(),
        ]
    )


class TestGrounding(unittest.TestCase):
    def test_a_command_is_answered(self) -> None:
        rclpy.init()
        node = rclpy.create_node("asker")
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        answers: list[ActionGrounding] = []
        node.create_subscription(ActionGrounding, "/videogem/grounding", answers.append, 10)
        commands = node.create_publisher(String, "/action", 1)
        node.create_timer(1.0, lambda: commands.publish(String(data="open the drawer")))
        deadline_ns = node.get_clock().now().nanoseconds + int(WAIT_S * 1e9)
        found = (ActionGrounding.FOUND, ActionGrounding.NOT_PRESENT)
        while not any(answer.status in found for answer in answers):
            self.assertLess(node.get_clock().now().nanoseconds, deadline_ns, answers)
            executor.spin_once(timeout_sec=1.0)
        self.assertEqual(answers[-1].action, "open the drawer")
        self.assertEqual(answers[-1].header.frame_id, "still_camera")
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown()


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    def test_the_node_ended_cleanly(self, proc_info) -> None:
        ended = [info for info in proc_info if "ground_node" in " ".join(info.cmd)]
        self.assertEqual([info.returncode for info in ended], [0])

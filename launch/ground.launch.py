"""Run the grounding node on a camera.

ros2 launch videogem_ros ground.launch.py image:=/camera/image_raw venv:=~/videogem_venv
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.substitutions import FindPackageShare

NAME = "videogem"
SHOWN = ("overlay", "heatmap", "markers", "point")
"""Topics of the RViz configuration, which follow the namespace."""

ARGUMENTS = (
    # name, default, description
    (
        "image",
        "image",
        "Camera topic; compressed images are expected at <image>/compressed",
    ),
    ("depth", "depth", "Depth image topic, aligned with the camera image"),
    ("camera_info", "camera_info", "Camera calibration topic"),
    (
        "rectified",
        "",
        "Whether image and depth are rectified (image_rect); if empty, as in the config",
    ),
    ("action", "action", "Command topic, std_msgs/String"),
    ("namespace", "", "Namespace of the node and its topics"),
    ("config", "", "Parameter file; if empty, the package's config/ground.yaml"),
    ("backbone", "", "Node parameter; if empty, as in the config"),
    ("weights", "", "Node parameter; if empty, as in the config"),
    ("device", "", "Node parameter (cpu, cuda, cuda:1); if empty, as in the config"),
    ("target_frame", "", "Node parameter: TF frame of the 3D positions"),
    ("venv", "", "Virtual environment with torch; the node runs with its Python"),
    ("python", "", "Python interpreter with torch, if not in a virtual environment"),
    ("autostart", "true", "Configure and activate the node automatically, also after a respawn"),
    ("respawn", "false", "Restart the node when it dies"),
    ("log_level", "info", "debug, info, warn or error"),
    ("use_sim_time", "false", "Take the time from /clock"),
    ("rviz", "false", "Start RViz with the node's outputs"),
)
OVERRIDES = ("backbone", "weights", "device", "target_frame")
"""Arguments that override a parameter of the config if they are given."""


def generate_launch_description() -> LaunchDescription:
    """The arguments, the node and, if requested, RViz."""
    namespace = LaunchConfiguration("namespace")
    rviz_config = PathJoinSubstitution([FindPackageShare("videogem_ros"), "config", "ground.rviz"])
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in ARGUMENTS
            ),
            OpaqueFunction(function=_ground_node),
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=namespace,
                arguments=["-d", rviz_config],
                remappings=[(f"/{NAME}/{topic}", f"{NAME}/{topic}") for topic in SHOWN],
                parameters=[{"use_sim_time": LaunchConfiguration("use_sim_time")}],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )


def _ground_node(context: LaunchContext) -> list[LifecycleNode]:
    given = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    share = Path(FindPackageShare("videogem_ros").perform(context))
    interpreter = _interpreter(given["venv"], given["python"])
    node = LifecycleNode(
        package="videogem_ros",
        executable="ground_node",
        # Started as `<python> <script>`, so that ROS's own paths stay in the environment.
        prefix=f"'{interpreter}'" if interpreter else None,
        name=NAME,
        namespace=given["namespace"],
        output="screen",
        emulate_tty=True,
        respawn=_is_true(given["respawn"]),
        respawn_delay=2.0,
        parameters=[
            given["config"] or str(share / "config" / "ground.yaml"),
            {name: given[name] for name in OVERRIDES if given[name]},
            {name: _is_true(given[name]) for name in ("use_sim_time", "autostart")},
            {"depth.rectified": _is_true(given["rectified"])} if given["rectified"] else {},
        ],
        remappings=[
            *((topic, given[topic]) for topic in ("image", "depth", "camera_info", "action")),
            ("image/compressed", f"{given['image']}/compressed"),
        ],
        arguments=["--ros-args", "--log-level", f"{NAME}:={given['log_level']}"],
    )
    return [node]


def _is_true(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(f"a launch argument is expected to be true or false, got {text!r}")
    return text.lower() in ("true", "1")


def _interpreter(venv: str, python: str) -> Path | None:
    """The Python to start the node with, checked; None for that of the script's shebang."""
    if not (venv or python):
        return None
    path = Path(python).expanduser() if python else Path(venv).expanduser() / "bin" / "python"
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    show = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        command = [path, "-c", show]
        theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"{path} is no Python that runs ({error})") from error
    if theirs != ours:
        raise ValueError(
            f"{path} is Python {theirs}, but this ROS is built for Python {ours}: make "
            f"the virtual environment with python{ours}"
        )
    return path

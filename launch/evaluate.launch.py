"""Play a recording to the node, in the recording's own time, and record the results.

ros2 launch videogem_ros evaluate.launch.py bag:=drive out:=drive_grounded image:=/camera/image

Playback starts when the node is active; everything ends after the end of the recording. The
arguments of ground.launch.py are accepted too.
"""

from __future__ import annotations

import json
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition

OUTPUTS = "grounding|heatmap|overlay/compressed|point|point_px|markers"
"""Topics that are recorded, for all current actions."""

ARGUMENTS = (
    # name, default, description
    ("bag", None, "Recording to play"),
    ("out", None, "Recording to write; must not exist"),
    ("text", "", "Command to ground; if empty, the recording's own commands"),
    ("rate", "1.0", "Playback speed"),
    ("settle", "2.0", "Seconds to continue after the end of the recording"),
)


def generate_launch_description() -> LaunchDescription:
    """The arguments, the node on simulated time, the player and the recorder."""
    ground = Path(__file__).with_name("ground.launch.py")
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in ARGUMENTS
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(ground)),
                launch_arguments={"use_sim_time": "true"}.items(),
            ),
            OpaqueFunction(function=_play_and_record),
        ]
    )


def _play_and_record(context: LaunchContext) -> list[ExecuteProcess | RegisterEventHandler]:
    names = [name for name, _, _ in ARGUMENTS] + ["namespace", "action"]
    given = {name: LaunchConfiguration(name).perform(context) for name in names}
    namespace = given["namespace"].strip("/")
    prefix = f"/{namespace}" if namespace else ""
    record = ExecuteProcess(
        cmd=[
            *("ros2", "bag", "record", "--use-sim-time", "--storage", "mcap"),
            *("--output", given["out"]),
            *("--regex", f"{prefix}/videogem/(action_[0-9]+/)?({OUTPUTS})"),
        ],
        output="screen",
    )
    topic = given["action"] if given["action"].startswith("/") else f"{prefix}/{given['action']}"
    play = ExecuteProcess(
        cmd=[
            *("ros2", "bag", "play", given["bag"], "--clock", "100", "--rate", given["rate"]),
            # Time for the node and the recorder to meet the player.
            *("--delay", "2", "--disable-keyboard-controls"),
            *(("--remap", f"{topic}:={topic}_recorded") if given["text"] else ()),
        ],
        output="screen",
    )
    message = json.dumps({"data": given["text"]})  # JSON is also YAML
    command = ExecuteProcess(
        cmd=["ros2", "topic", "pub", "--once", topic, "std_msgs/msg/String", message],
        output="log",
    )
    settle = TimerAction(
        period=float(given["settle"]),
        actions=[EmitEvent(event=Shutdown(reason="the recording has ended"))],
    )
    starts = [record, play, *([command] if given["text"] else [])]
    return [
        RegisterEventHandler(
            OnStateTransition(goal_state="active", entities=starts, handle_once=True)
        ),
        RegisterEventHandler(OnProcessExit(target_action=play, on_exit=[settle])),
    ]

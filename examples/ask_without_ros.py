#!/usr/bin/env python3
"""Give a running node a command over DDS, without ROS, and print where the action is.

python examples/ask_without_ros.py "pick up the red cup" [INTERFACE]

INTERFACE is the node's: "local" for one that was started with --interface local.
"""

import sys
import time
from typing import Any

from videogem_ros.adapters.dds.names import Names
from videogem_ros.adapters.dds.participant import Participant
from videogem_ros.adapters.dds.qos import DEFAULT
from videogem_ros.live.messages import Status
from videogem_ros.live.types import typestore

TIMEOUT_S = 20.0


def ask(text: str, interface: str | None = None) -> Any:
    """The first ``videogem_ros/ActionGrounding`` with this command's action in the image."""
    found: list[Any] = []

    def on_grounding(grounding: Any) -> None:
        if grounding.action == text and grounding.status == Status.FOUND:
            found.append(grounding)

    messages = typestore()
    with Participant(Names("ask"), messages, interface=interface) as participant:
        topic = "/videogem/grounding"
        participant.subscribe(topic, "videogem_ros/msg/ActionGrounding", DEFAULT, on_grounding)
        commands = participant.advertise("/action", "std_msgs/msg/String", DEFAULT)
        deadline_s, sent = time.monotonic() + TIMEOUT_S, False
        while not found and time.monotonic() < deadline_s:
            participant.spin(0.1)
            if commands.subscribers and not sent:
                commands.publish(messages.types["std_msgs/msg/String"](text))
                sent = True
    return found[0] if found else None


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    answer = ask(*sys.argv[1:])
    if answer is None:
        sys.exit(f"not found within {TIMEOUT_S:g} s")
    p, px = answer.position, answer.fused_point
    print(f"at ({px.x:.1f}, {px.y:.1f}) px, score {answer.score:.2f}")
    if answer.has_position:
        print(f"at ({p.x:.3f}, {p.y:.3f}, {p.z:.3f}) m in {answer.position_frame}")

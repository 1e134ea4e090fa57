"""The node without ROS under a camera that is faster than its images can be converted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="the DDS binding is not installed")

from dds_domains import own_domain, participant, spin_until

from videogem_ros.adapters.dds.names import Names
from videogem_ros.adapters.dds.node import DdsNode
from videogem_ros.adapters.dds.participant import Participant, Publisher
from videogem_ros.adapters.dds.qos import DEFAULT, SENSOR_DATA
from videogem_ros.live import node as live_node
from videogem_ros.live.parameters import Parameters
from videogem_ros.live.types import typestore

IMAGE, STRING = "sensor_msgs/msg/Image", "std_msgs/msg/String"
PERIOD_S = 0.03
CONVERSION_S = 0.09


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Participant]:
    monkeypatch.setenv("ROS_DOMAIN_ID", own_domain())
    with participant("peer") as peer:
        yield peer


@pytest.fixture
def slow_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    convert = live_node.frame_from_message

    def slowly(message: Any) -> Any:
        time.sleep(CONVERSION_S)
        return convert(message)

    monkeypatch.setattr(live_node, "frame_from_message", slowly)


def image() -> Any:
    kinds = typestore().types
    stamp = kinds["builtin_interfaces/msg/Time"](*divmod(time.time_ns(), 10**9))
    head = kinds["std_msgs/msg/Header"](stamp, "camera")
    return kinds[IMAGE](head, 48, 64, "mono8", 0, 64, np.zeros(48 * 64, np.uint8))


@pytest.mark.usefixtures("slow_conversion")
def test_slow_images_leave_commands_diagnostics_and_the_end_in_time(
    peer: Participant, tiny_clip_config: Path
) -> None:
    parameters = Parameters.from_mapping(
        {"backbone": f"openclip:{tiny_clip_config}", "weights": "random:0", "device": "cpu"}
    )
    ticks: list[dict[str, str]] = []
    commands: list[str] = []
    ended = threading.Event()
    camera = peer.advertise("image", IMAGE, SENSOR_DATA)
    action = peer.advertise("action", STRING, DEFAULT)
    peer.subscribe(
        "/diagnostics",
        "diagnostic_msgs/msg/DiagnosticArray",
        DEFAULT,
        lambda message: ticks.append({pair.key: pair.value for pair in message.status[0].values}),
    )
    peer.subscribe(
        "/node/grounding",
        "videogem_ros/msg/ActionGrounding",
        DEFAULT,
        lambda message: commands.append(message.action),
    )
    with DdsNode(parameters, Names("node"), lambda *_: None, interface="local") as node:
        spinning = threading.Thread(target=node.spin, args=(ended.is_set,))
        spinning.start()
        try:
            spin_until(lambda: camera.subscribers and action.subscribers, peer)
            film(camera, peer, 1.0)
            action.publish(typestore().types[STRING]("pick up the cup"))
            film(camera, peer, 1.0)
            assert "pick up the cup" in commands
            film(camera, peer, 2.0)
        finally:
            asked_s = time.monotonic()
            ended.set()
            spinning.join()
        assert time.monotonic() - asked_s < 1.0
    assert len(ticks) >= 3
    last = ticks[-1]
    assert "now: slow images" in last
    assert int(last["images skipped"]) > int(last["images"]) > 10
    assert last["images accepted"] == last["images"]  # none out of order, no window started anew


def film(camera: Publisher, peer: Participant, duration_s: float) -> None:
    """Sends images at the camera's rate, and hears what comes meanwhile."""
    begin_s, sent = time.monotonic(), 0
    while time.monotonic() - begin_s < duration_s:
        camera.publish(image())
        sent += 1
        peer.spin(max(0.0, begin_s + sent * PERIOD_S - time.monotonic()))

#!/usr/bin/env python3
"""Latency that the node adds to the model's time, from image to grounding, over the wire.

The node runs in its own process, with a small untrained model whose time is short and steady.
This process publishes images on loopback. For each grounding it takes the time since the image
was handed to the middleware, less the compute time in the message. The result covers
serialization and transport of both messages, conversion, windowing and scheduling.

    python benchmarks/node_latency.py --adapter ros    # in a sourced ROS 2 workspace
    python benchmarks/node_latency.py --adapter dds    # anywhere
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

HEIGHT, WIDTH = 480, 640
LIMIT_MS = 5.0
START_S, ANSWER_S = 120.0, 5.0

TINY_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 8, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


class Peer(Protocol):
    """This process's end of the graph."""

    def send_action(self, text: str) -> None:
        """Publish a command on ``action``."""

    def prepare_image(self, pixels: np.ndarray) -> Callable[[int], None]:
        """Make a bgr8 message; the result publishes it on ``image`` with a stamp in ns."""


OnGrounding = Callable[[Any], None]
"""Takes a videogem_ros/msg/ActionGrounding, in a middleware thread."""


@contextmanager
def ros_peer(on_grounding: OnGrounding) -> Iterator[Peer]:
    """An rclpy node."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import QoSPresetProfiles

    from videogem_ros.adapters.ros.graph import interface, make_message

    rclpy.init(args=[])
    node = rclpy.create_node("node_latency")
    images = node.create_publisher(
        interface("sensor_msgs/msg/Image"), "image", QoSPresetProfiles.SENSOR_DATA.value
    )
    actions = node.create_publisher(interface("std_msgs/msg/String"), "action", 1)
    grounding = interface("videogem_ros/msg/ActionGrounding")
    node.create_subscription(grounding, "videogem/grounding", on_grounding, 10)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinning = threading.Thread(target=executor.spin)
    spinning.start()

    class RosPeer:
        def send_action(self, text: str) -> None:
            actions.publish(make_message("std_msgs/msg/String", data=text))

        def prepare_image(self, pixels: np.ndarray) -> Callable[[int], None]:
            from videogem_ros.encodings import image_message_fields

            fields = image_message_fields(pixels, "bgr8")
            message = make_message("sensor_msgs/msg/Image", **fields)

            def publish(stamp_ns: int) -> None:
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
                images.publish(message)

            return publish

    try:
        yield RosPeer()
    finally:
        executor.shutdown()
        spinning.join()
        node.destroy_node()
        rclpy.try_shutdown()


def ros_command(parameters: dict[str, Any]) -> list[str]:
    """Command of the rclpy node, which activates itself on start."""
    from ament_index_python.packages import get_package_prefix

    script = Path(get_package_prefix("videogem_ros")) / "lib" / "videogem_ros" / "ground_node"
    settings = [f"{name}:={json.dumps(value)}" for name, value in parameters.items()]
    arguments = [word for setting in settings for word in ("-p", setting)]
    return [sys.executable, str(script), "--ros-args", "-p", "autostart:=true", *arguments]


@contextmanager
def dds_peer(on_grounding: OnGrounding) -> Iterator[Peer]:
    """A participant without ROS."""
    from videogem_ros.adapters.dds.names import Names
    from videogem_ros.adapters.dds.participant import Participant
    from videogem_ros.adapters.dds.qos import DEFAULT, SENSOR_DATA
    from videogem_ros.encodings import image_message_fields
    from videogem_ros.live.types import typestore

    kinds = typestore().types
    participant = Participant(Names("node_latency"), typestore(), interface="local")
    images = participant.advertise("image", "sensor_msgs/msg/Image", SENSOR_DATA)
    actions = participant.advertise("action", "std_msgs/msg/String", DEFAULT)
    grounding = "videogem_ros/msg/ActionGrounding"
    participant.subscribe("videogem/grounding", grounding, DEFAULT, on_grounding)
    ended = threading.Event()

    def spin() -> None:
        while not ended.is_set():
            participant.spin(0.05)

    spinning = threading.Thread(target=spin)
    spinning.start()

    class DdsPeer:
        def send_action(self, text: str) -> None:
            actions.publish(kinds["std_msgs/msg/String"](text))

        def prepare_image(self, pixels: np.ndarray) -> Callable[[int], None]:
            fields = image_message_fields(pixels, "bgr8")

            def publish(stamp_ns: int) -> None:
                stamp = kinds["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
                head = kinds["std_msgs/msg/Header"](stamp, "")
                images.publish(kinds["sensor_msgs/msg/Image"](header=head, **fields))

            return publish

    try:
        yield DdsPeer()
    finally:
        ended.set()
        spinning.join()
        participant.close()


def dds_command(parameters: dict[str, Any]) -> list[str]:
    """Command of the node without ROS."""
    settings = [f"{name}:={json.dumps(value)}" for name, value in parameters.items()]
    arguments = [word for setting in settings for word in ("-p", setting)]
    return [sys.executable, "-m", "videogem_ros", "node", "--interface", "local", *arguments]


ADAPTERS = {"ros": (ros_peer, ros_command), "dds": (dds_peer, dds_command)}
"""Peer and the node's command line, by adapter."""


class Waiter:
    """Keeps the arrival time of each image's grounding."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._came: dict[int, tuple[float, Any]] = {}

    def on_grounding(self, message: Any) -> None:
        """Note a grounding that has just arrived."""
        now_s = time.perf_counter()
        stamp = message.header.stamp
        with self._changed:
            self._came[stamp.sec * 10**9 + stamp.nanosec] = now_s, message
            self._changed.notify_all()

    def wait(self, stamp_ns: int, timeout_s: float) -> tuple[float, Any] | None:
        """Time (by time.perf_counter) and grounding of the image with this stamp, or None."""
        with self._changed:
            self._changed.wait_for(lambda: stamp_ns in self._came, timeout_s)
            return self._came.pop(stamp_ns, None)


def seconds(duration: Any) -> float:
    """A builtin_interfaces/Duration in seconds."""
    return duration.sec + duration.nanosec * 1e-9


def measure(peer: Peer, waiter: Waiter, images: int, interval_s: float) -> dict[str, np.ndarray]:
    """Milliseconds per image: added wire to wire, added in the node, and model time."""
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(4)]
    publishers = [peer.prepare_image(picture) for picture in pictures]
    deadline = time.monotonic() + START_S
    while True:  # until the node is up and discovery is complete
        peer.send_action("pour the milk into the cup")
        stamp_ns = time.time_ns()
        publishers[0](stamp_ns)
        if waiter.wait(stamp_ns, 1.0):
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"no grounding within {START_S:.0f} s")
    rows, lost = [], 0
    for index in range(images):
        time.sleep(interval_s)
        stamp_ns, sent_s = time.time_ns(), time.perf_counter()
        publishers[index % len(publishers)](stamp_ns)
        came = waiter.wait(stamp_ns, ANSWER_S)
        if came is None:
            lost += 1
            continue
        model_s = seconds(came[1].compute_time)
        rows.append((came[0] - sent_s - model_s, seconds(came[1].latency) - model_s, model_s))
    if not rows:
        raise SystemExit("no image was answered")
    if lost:
        print(f"{lost} of {images} images were not answered")
    wire, node, model = 1e3 * np.array(rows).T
    return {"added, wire to wire": wire, "added in the node": node, "model": model}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--adapter", choices=ADAPTERS, default="dds")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rate", type=float, default=10.0, help="images per second")
    arguments = parser.parse_args()
    open_peer, command = ADAPTERS[arguments.adapter]
    waiter = Waiter()
    with tempfile.TemporaryDirectory() as folder, open_peer(waiter.on_grounding) as peer:
        model = Path(folder) / "tiny.json"
        model.write_text(json.dumps(TINY_CLIP))
        parameters = {
            "backbone": f"openclip:{model}",
            "weights": "random:0",
            "device": "cpu",
            "window.frame_interval_s": 0.01,
        }
        node = subprocess.Popen(command(parameters), env=os.environ | {"OMP_NUM_THREADS": "1"})
        try:
            results = measure(peer, waiter, arguments.images, 1 / arguments.rate)
        finally:
            node.send_signal(signal.SIGINT)
            node.wait(30)
    print(f"{arguments.adapter}, {WIDTH}x{HEIGHT} bgr8, {arguments.images} images")
    for name, times_ms in results.items():
        median, high = np.percentile(times_ms, [50, 99])
        print(f"{name:>20}: median {median:6.2f} ms, p99 {high:6.2f} ms")
    median = float(np.median(results["added, wire to wire"]))
    if median >= LIMIT_MS:
        raise SystemExit(f"the node adds {median:.2f} ms, more than {LIMIT_MS:g} ms")


if __name__ == "__main__":
    main()

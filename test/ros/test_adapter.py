"""What the rclpy adapter does by itself, without a graph."""

from __future__ import annotations

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here: source its setup.bash")

from videogem_ros.adapters.ros.graph import make_message  # noqa: E402
from videogem_ros.adapters.ros.node import ECHO_S, EchoFilter  # noqa: E402
from videogem_ros.encodings import (  # noqa: E402
    decode_image,
    frame_from_message,
    image_message_fields,
)

VOLATILE, LATCHED = False, True


def test_an_image_message_of_numpy_pixels_is_what_ros_serializes() -> None:
    from rclpy.serialization import deserialize_message, serialize_message

    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (48, 64, 3), np.uint8)
    stamp = make_message("builtin_interfaces/msg/Time", sec=12, nanosec=34)
    header = make_message("std_msgs/msg/Header", stamp=stamp, frame_id="camera")
    fields = image_message_fields(picture, "bgr8")
    message = make_message("sensor_msgs/msg/Image", header=header, **fields)
    back = deserialize_message(serialize_message(message), type(message))
    frame = frame_from_message(back)
    assert np.array_equal(frame.image, picture)
    assert (frame.stamp_ns, frame.frame_id) == (12_000_000_034, "camera")


def test_float_heatmaps_keep_their_values() -> None:
    heatmap = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    message = make_message("sensor_msgs/msg/Image", **image_message_fields(heatmap, "32FC1"))
    assert np.array_equal(np.frombuffer(message.data, np.float32).reshape(3, 4), heatmap)
    with pytest.raises(Exception, match="32FC1"):
        decode_image(message.encoding, 3, 4, message.step, False, message.data)


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_diagnostic_level_is_an_octet(level: int) -> None:
    message = make_message("diagnostic_msgs/msg/DiagnosticStatus", level=level)
    assert message.level == bytes([level])


def test_a_command_that_comes_by_both_subscriptions_counts_once() -> None:
    echoes = EchoFilter()
    assert not echoes.is_echo("pour", VOLATILE, 0.0)
    assert echoes.is_echo("pour", LATCHED, 0.001)
    assert not echoes.is_echo("pour", LATCHED, 1.0)
    assert echoes.is_echo("pour", VOLATILE, 1.001)


def test_a_command_said_twice_counts_twice() -> None:
    echoes = EchoFilter()
    said = [echoes.is_echo("pour", VOLATILE, 0.0), echoes.is_echo("pour", VOLATILE, 0.1)]
    heard_again = [echoes.is_echo("pour", LATCHED, 0.2), echoes.is_echo("pour", LATCHED, 0.3)]
    assert (said, heard_again) == ([False, False], [True, True])


def test_old_and_other_commands_are_no_echoes() -> None:
    echoes = EchoFilter()
    assert not echoes.is_echo("pour", VOLATILE, 0.0)
    assert not echoes.is_echo("cut", LATCHED, 0.1)
    assert not echoes.is_echo("pour", LATCHED, ECHO_S + 1)

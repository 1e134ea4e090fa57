"""A camera that always sees the same: python still_camera.py TOPIC."""

from __future__ import annotations

import sys

import numpy as np
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

HEIGHT, WIDTH, RATE_HZ = 48, 64, 10.0


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("still_camera")
    publisher = node.create_publisher(Image, sys.argv[1], qos_profile_sensor_data)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    message = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
    message.data = pixels.tobytes()
    message.header.frame_id = "still_camera"

    def publish() -> None:
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)

    node.create_timer(1 / RATE_HZ, publish)
    rclpy.spin(node)


if __name__ == "__main__":
    main()

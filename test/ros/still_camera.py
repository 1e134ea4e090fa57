"""A camera that always publishes the same image: python still_camera.py TOPIC.

If TOPIC ends in /compressed, as image_transport names it, images are published as PNG.
"""

from __future__ import annotations

import sys

import cv2
import numpy as np
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

HEIGHT, WIDTH, RATE_HZ = 48, 64, 10.0


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("still_camera")
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    if sys.argv[1].endswith("/compressed"):
        message = CompressedImage(format="png")
        message.data = cv2.imencode(".png", pixels)[1].tobytes()
    else:
        message = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
        message.data = pixels.tobytes()
    publisher = node.create_publisher(type(message), sys.argv[1], qos_profile_sensor_data)
    message.header.frame_id = "still_camera"

    def publish() -> None:
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)

    node.create_timer(1 / RATE_HZ, publish)
    rclpy.spin(node)


if __name__ == "__main__":
    main()

"""The live node on a ROS 2 graph, with rclpy; from Humble on."""

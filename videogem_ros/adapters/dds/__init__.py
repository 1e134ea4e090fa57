"""The node's topics over DDS, without a ROS installation: for ROS 2 peers it is a ROS 2 node."""

"""Where frames come from and groundings go to: recordings, DDS topics, ROS 2 topics."""

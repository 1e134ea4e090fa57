"""The live node without its middleware: what an adapter wires to ROS 2 or to bare DDS."""

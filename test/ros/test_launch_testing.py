"""Runs what is written for ROS's own launch_testing, under ROS's own Python."""

from __future__ import annotations

from pathlib import Path

from ros_processes import START_S, Ros


def test_launch_testing(ros: Ros, model: list[str]) -> None:
    script = Path(__file__).with_name("launch_testing_ground.py")
    printed = ros.call("launch_test", script, *model, timeout_s=2 * START_S)
    assert "Ran 1 test" in printed
    assert "FAILED" not in printed

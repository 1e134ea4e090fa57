"""Processes of a real ROS 2, each with its own log; waits are bounded, and all are ended."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import START_S, Process

GROUNDING = ("/videogem/grounding", "videogem_ros/msg/ActionGrounding")


class Ros:
    """Starts processes of a sourced workspace."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        self.env = env
        self.folder = folder
        self._started: list[Process] = []

    def start(self, *command: object) -> Process:
        log = self.folder / f"{len(self._started):02}.log"
        process = Process([str(word) for word in command], self.env, log)
        self._started.append(process)
        return process

    def call(self, *command: object, timeout_s: float = 30.0, check: bool = True) -> str:
        """Run a command to its end; returns its output."""
        process = self.start(*command)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{command} did not end in {timeout_s} s:\n{process.output}")
        finally:
            process.end()
        assert not check or code == 0, f"{command} exited with {code}:\n{process.output}"
        return process.output

    def echo(self, topic: str, kind: str, *options: object, timeout_s: float = 30.0) -> Any:
        """The next message of a topic, as plain Python."""
        command = ("ros2", "topic", "echo", "--once", "--full-length", *options, topic, kind)
        printed = self.call(*command, timeout_s=timeout_s)
        return next(yaml.safe_load_all(printed.partition("---")[0]))

    def publish(self, topic: str, kind: str, message: str, *options: object) -> None:
        """Publish once, when there is a subscription."""
        self.call("ros2", "topic", "pub", "--once", *options, topic, kind, message)

    def command(self, text: str, topic: str = "/action") -> None:
        self.publish(topic, "std_msgs/msg/String", yaml.safe_dump({"data": text}).strip())

    def state(self) -> str:
        """Lifecycle state of the node; empty if it does not exist."""
        printed = self.call("ros2", "lifecycle", "get", "/videogem", check=False).split()
        return printed[0] if printed else ""

    def set_state(self, transition: str) -> None:
        command = ("ros2", "lifecycle", "set", "/videogem", transition)
        printed = self.call(*command, timeout_s=START_S, check=False)
        assert "Transitioning successful" in printed, printed

    def play(self, bag: Path, *options: object) -> Process:
        """Play a recording in a loop, with its commands on a topic without subscribers."""
        quiet = ("--disable-keyboard-controls", "--loop", "--remap", "/action:=/recorded_action")
        return self.start("ros2", "bag", "play", bag, *quiet, *options)

    def until(self, what: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """The first true result of a function that is called repeatedly."""
        deadline = time.monotonic() + timeout_s
        while not (result := what()):
            assert time.monotonic() < deadline, f"not within {timeout_s} s"
        return result

    def close(self) -> None:
        """End all started processes, and the daemon that ros2 started by itself."""
        for process in reversed(self._started):
            process.end()
        stop = ["ros2", "daemon", "stop"]
        subprocess.run(stop, env=self.env, capture_output=True, timeout=30, check=False)

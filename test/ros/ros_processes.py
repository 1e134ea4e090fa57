"""Processes of a real ROS 2, each with its log; every wait is bounded, and all end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

START_S = 90.0
"""Longest wait for a node that imports torch on a busy machine."""

GROUNDING = ("/videogem/grounding", "videogem_ros/msg/ActionGrounding")


class Process:
    """A child in a session of its own, with its output in a file; every wait is bounded."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                command,
                env=env,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, pattern: str, timeout_s: float = START_S, start: int = 0) -> re.Match[str]:
        """Wait until the output, from a place on, holds a pattern."""
        deadline = time.monotonic() + timeout_s
        while not (found := re.search(pattern, self.output[start:], re.MULTILINE)):
            assert self._child.poll() is None, f"ended before {pattern!r}:\n{self.output}"
            assert time.monotonic() < deadline, f"no {pattern!r} in {timeout_s} s:\n{self.output}"
            time.sleep(0.05)
        return found

    def wait(self, timeout_s: float) -> int:
        return self._child.wait(timeout_s)

    def interrupt(self, timeout_s: float = 20.0, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal to the process alone; returns its exit code."""
        self._child.send_signal(number)
        return self._child.wait(timeout_s)

    def members(self) -> list[int]:
        """Processes of the session that are still there."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
                if int(session) == self._child.pid and state != "Z":
                    found.append(int(stat.parent.name))
        return found

    def end(self) -> None:
        if self._child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.interrupt(15.0)
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._child.wait(5.0)


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
        """Run a command to its end; returns what it printed."""
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
        """Publish once to a subscription that is there."""
        self.call("ros2", "topic", "pub", "--once", *options, topic, kind, message)

    def command(self, text: str, topic: str = "/action") -> None:
        self.publish(topic, "std_msgs/msg/String", yaml.safe_dump({"data": text}).strip())

    def state(self) -> str:
        """Lifecycle state of the node; empty where it is not there."""
        printed = self.call("ros2", "lifecycle", "get", "/videogem", check=False).split()
        return printed[0] if printed else ""

    def set_state(self, transition: str) -> None:
        command = ("ros2", "lifecycle", "set", "/videogem", transition)
        printed = self.call(*command, timeout_s=START_S, check=False)
        assert "Transitioning successful" in printed, printed

    def play(self, bag: Path, *options: object) -> Process:
        """Play a recording in a loop, its commands on a topic that nobody listens to."""
        quiet = ("--disable-keyboard-controls", "--loop", "--remap", "/action:=/recorded_action")
        return self.start("ros2", "bag", "play", bag, *quiet, *options)

    def until(self, what: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """The first true result of something that is tried again and again."""
        deadline = time.monotonic() + timeout_s
        while not (result := what()):
            assert time.monotonic() < deadline, f"not within {timeout_s} s"
        return result

    def end(self) -> None:
        for process in reversed(self._started):
            process.end()

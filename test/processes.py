"""Child processes, each with its own log; waits are bounded, and all are ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

START_S = 90.0
"""Longest wait for a node that imports torch on a busy machine."""


class Process:
    """A child in its own session, with its output in a file; every wait is bounded."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path) -> None:
        self._log = log
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # As for commands that a shell script starts with "&"; children would inherit it.
            signal.signal(signal.SIGINT, signal.default_int_handler)
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
        """Wait until the output from ``start`` on matches a pattern."""
        deadline = time.monotonic() + timeout_s
        while not (found := re.search(pattern, self.output[start:], re.MULTILINE)):
            assert self._child.poll() is None, f"ended before {pattern!r}:\n{self.output}"
            assert time.monotonic() < deadline, f"no {pattern!r} in {timeout_s} s:\n{self.output}"
            time.sleep(0.05)
        return found

    def wait(self, timeout_s: float) -> int:
        return self._child.wait(timeout_s)

    def send_signal(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def interrupt(self, timeout_s: float = 20.0, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal to only the process; returns its exit code."""
        self.send_signal(number)
        return self._child.wait(timeout_s)

    def members(self) -> list[int]:
        """Processes of the session that are still running."""
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

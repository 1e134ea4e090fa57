"""Files that are complete or not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from videogem_ros.errors import RecordingError
from videogem_ros.files import whole_file

WRITE = """
import pathlib, sys
from videogem_ros.files import whole_file
with whole_file(pathlib.Path(sys.argv[1])) as partial:
    partial.write_text("theirs")
"""


def test_two_processes_may_write_a_file_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with whole_file(path) as partial:
        partial.write_text("ours")
        subprocess.run([sys.executable, "-c", WRITE, path], check=True)
        assert path.read_text() == "theirs"
    assert path.read_text() == "ours"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_file_that_fails_leaves_the_one_before(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    expected = RecordingError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected), whole_file(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]

"""Places that the operating system refuses, whichever command is given them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from videogem_ros.cli import main

COMMANDS = (
    "replay {place} --action go --out {tmp}/out",
    "replay {image} --action go --out {place}",
    "ground {place} --action go --out {tmp}/out.png",
    "ground {image} --action go --weights {place}",
    "label {place} --csv {image}",
    "play {place}",
    "tabletop --clips 1 --out {place}",
    "evaluate bag {place}",
    "evaluate tabletop --limit 1 --out {place}",
    "tune tabletop --limit 1 --out {place}",
    "decompose --score {place}",
)


@pytest.fixture(params=["locked", "long"])
def refused(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A place, and why it is refused."""
    if request.param == "long":
        yield tmp_path / ("x" * 300), "File name too long"
        return
    if os.geteuid() == 0:
        pytest.skip("root may enter every folder")
    locked = tmp_path / "locked"
    locked.mkdir(0)
    yield locked / "place", "Permission denied"
    locked.chmod(0o700)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_is_refused_is_one_line(
    command: str, refused: tuple[Path, str], tmp_path: Path
) -> None:
    place, reason = refused
    image = tmp_path / "0.pgm"
    image.write_bytes(b"P5 1 1 255 0")
    before = sorted(tmp_path.iterdir())
    words = [word.format(place=place, image=image, tmp=tmp_path) for word in command.split()]
    result = CliRunner().invoke(main, words)
    assert result.exit_code in (1, 2), result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    assert reason in line or "is not readable" in line
    assert sorted(tmp_path.iterdir()) == before

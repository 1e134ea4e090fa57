"""Numbers that no command can mean, one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from videogem_ros.cli import main

OPTIONS = [
    ("label", "bag", "table.csv", "--tolerance-s"),
    ("play", "bag", "--rate"),
    ("play", "bag", "--start-delay"),
    ("ground", "image.png", "--action", "open the door", "--frame-interval-s"),
    ("replay", "bag", "--out", "out", "--max-rate-hz"),
    ("record", "--out", "out", "--idle"),
    ("echo", "/topic", "--timeout"),
    ("say", "open the door", "--timeout"),
    ("tabletop", "--out", "out", "--empty"),
    ("bench", "--seconds"),
    ("bench", "--rate"),
    ("evaluate", "tabletop", "--threshold"),
]


@pytest.mark.parametrize("command", OPTIONS, ids=" ".join)
@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "-1", "x"])
def test_a_number_that_is_none_is_a_usage_error(
    command: tuple[str, ...], number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, [*command, number])
    assert result.exit_code == 2, result.output
    assert command[-1] in result.stderr
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("label", "bag", "table.csv", "--tolerance-s", "1e300"),
        ("play", "bag", "--rate", "1e-320"),
        ("play", "bag", "--rate", "1e300"),
        ("ground", "image.png", "--action", "open the door", "--frame-interval-s", "1e300"),
        ("tabletop", "--out", "out", "--hw", "100000", "100000"),
    ],
    ids=" ".join,
)
def test_a_number_beyond_all_use_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert "is not in the range" in result.stderr

"""The score, on files made here and on real narrations where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from videogem_ros.errors import InvalidValueError
from videogem_ros.language import parse_actions
from videogem_ros.language.scoring import score_file

HEADER = "narration,verb,object_head\n"


def write(path: Path, content: str) -> Path:
    file = path / "score.csv"
    file.write_text(content, encoding="utf-8")
    return file


def test_verb_and_object_are_counted_apart(tmp_path: Path) -> None:
    rows = (
        "open the door,open,door\nwave,wave,\nrinse and dry cups,Rinse,Cup\nlift box,raise,box\n"
    )
    score = score_file(write(tmp_path, HEADER + rows + "lift box,lift,lid\n"), parse_actions)
    assert (score.rows, score.verb, score.object, score.both) == (5, 80.0, 80.0, 60.0)
    assert [miss.narration for miss in score.misses] == ["lift box", "lift box"]
    assert score.misses[0].expected == ("raise", "box")
    assert score.misses[0].found == ("lift", "box")


def test_other_columns_order_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    content = '\ufeffid,object_head,verb,narration\n1,lid,take,"take the lid, please"\n'
    assert score_file(write(tmp_path, content), parse_actions).both == 100.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "without narration, verb, object_head"),
        ("narration,verb\nopen,open\n", "without object_head"),
        (HEADER, "rows below its header"),
        ("\x00\x01", "score.csv"),
    ],
)
def test_a_file_that_cannot_be_scored_is_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        score_file(write(tmp_path, content), parse_actions)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.csv"
    for path, reason in ((tmp_path, "Is a directory"), (missing, "No such file or directory")):
        with pytest.raises(InvalidValueError) as caught:
            score_file(path, parse_actions)
        assert str(caught.value).endswith(f"CSV file, got {path} ({reason})")


def test_real_narrations_reach_the_bars(shared: Path) -> None:
    file = shared / "data" / "action_phrases_dev.csv"
    if not file.exists():
        pytest.skip("no annotated narrations")
    score = score_file(file, parse_actions)
    assert score.verb >= 99
    assert score.object >= 97.5
    assert score.both >= 97.5

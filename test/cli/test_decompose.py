"""``videogem-ros decompose``, run for real."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from videogem_ros.cli import main


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["decompose", *map(str, arguments)])


@pytest.fixture
def narrations(tmp_path: Path) -> Path:
    file = tmp_path / "narrations.csv"
    file.write_text(
        "narration,verb,object_head\nopen the door,open,door\nlift box,raise,box\nwave,greet,\n"
    )
    return file


def test_every_action_is_shown_with_its_prompts() -> None:
    result = invoke("pick up the cup and place it on the plate")
    assert result.exit_code == 0
    for prompt in (
        "A photo of a person pick up something.",
        "A photo of a person using cup.",
        "A photo of a person pick up the cup.",
        "A photo of a person place the cup on the plate.",
    ):
        assert prompt in result.output


def test_text_needs_no_quotes_and_verbs_can_be_inflected() -> None:
    result = invoke("turn", "the", "tap", "off", "--verb-form", "gerund")
    assert "A photo of a person turning off something." in result.output
    assert "A photo of a person turning the tap off." in result.output


def test_json_holds_actions_and_prompts() -> None:
    (action,) = json.loads(invoke("open the crème", "--json").output)
    assert action == {
        "text": "open the crème",
        "phrase": "open the crème",
        "verb": "open",
        "verb_lemma": "open",
        "object": "crème",
        "object_head": "crème",
        "prompts": {
            "verb": "A photo of a person open something.",
            "object": "A photo of a person using crème.",
            "action": "A photo of a person open the crème.",
        },
    }


def test_a_thing_without_an_action_gets_the_neutral_verb_prompt() -> None:
    assert "A photo of a person doing something." in invoke("the red mug").output


def test_the_score_comes_first_then_the_errors(narrations: Path) -> None:
    lines = invoke("--score", narrations, "--errors", 1).output.splitlines()
    assert lines == [
        "verb 33.3 %",
        "object 100.0 %",
        "both 33.3 %",
        "lift box: expected raise + box, found lift + box",
    ]
    assert len(invoke("--score", narrations).output.splitlines()) == 3
    assert "wave: expected greet + -" in invoke("--score", narrations, "--errors", 99).output


@pytest.mark.parametrize(
    "content", [None, "", "narration,verb\nopen,open\n", "narration,verb,object_head\n"]
)
def test_a_file_that_cannot_be_scored_is_one_line_and_a_failure(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "bad.csv"
    if content is not None:
        file.write_text(content)
    result = invoke("--score", file)
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: score: .*bad\.csv.*\n", result.output)


def test_text_without_words_is_an_error() -> None:
    result = invoke("😀😀")
    assert result.exit_code == 1
    assert result.output == "Error: text: expected words, got '😀😀'\n"


def test_a_missing_pipeline_is_an_error() -> None:
    result = invoke("open the door", "--spacy-model", "en_nothing_sm")
    assert result.exit_code == 1
    assert "python -m spacy download en_nothing_sm" in result.output


@pytest.mark.parametrize("arguments", [(), ("open", "--score", "x.csv"), ("open", "--errors", 3)])
def test_text_or_a_file_is_wanted_and_not_both(arguments: tuple[object, ...]) -> None:
    assert invoke(*arguments).exit_code == 2

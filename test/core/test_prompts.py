from __future__ import annotations

import pytest

from videogem_ros.core.prompts import PromptConfig, prompts_for
from videogem_ros.datatypes import Action
from videogem_ros.errors import InvalidValueError
from videogem_ros.language import parse_actions
from videogem_ros.language.inflection import gerund

GERUND = PromptConfig(verb_form="gerund")


def action(phrase: str, verb: str | None = None, object_: str | None = None) -> Action:
    lemma = verb.split()[0] if verb else None
    head = object_.split()[-1] if object_ else None
    return Action(phrase, phrase, verb, lemma, object_, head)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (
            action("pour the milk", "pour", "milk"),
            (
                "A photo of a person pour something.",
                "A photo of a person using milk.",
                "A photo of a person pour the milk.",
            ),
        ),
        (
            action("pick up the red mug", "pick up", "red mug"),
            (
                "A photo of a person pick up something.",
                "A photo of a person using red mug.",
                "A photo of a person pick up the red mug.",
            ),
        ),
        (
            action("jump", "jump"),
            (
                "A photo of a person jump something.",
                "A photo of a person.",
                "A photo of a person jump.",
            ),
        ),
        (
            action("the red mug", None, "red mug"),
            (
                "A photo of a person doing something.",
                "A photo of a person using red mug.",
                "A photo of a person the red mug.",
            ),
        ),
        (
            action("hello"),
            (
                "A photo of a person doing something.",
                "A photo of a person.",
                "A photo of a person hello.",
            ),
        ),
    ],
    ids=lambda value: value.phrase if isinstance(value, Action) else "",
)
def test_prompts_are_the_papers(asked: Action, expected: tuple[str, str, str]) -> None:
    prompts = prompts_for(asked)
    assert prompts.texts == expected
    assert (prompts.verb, prompts.object, prompts.action) == expected


@pytest.mark.parametrize(
    ("asked", "verb", "phrase"),
    [
        (action("pour the milk", "pour", "milk"), "pouring", "pouring the milk"),
        (action("pick up the cup", "pick up", "cup"), "picking up", "picking up the cup"),
        (action("pick the cup up", "pick up", "cup"), "picking up", "picking the cup up"),
        (action("turn the tap off", "turn off", "tap"), "turning off", "turning the tap off"),
        (action("cut tomato", "cut", "tomato"), "cutting", "cutting tomato"),
        (action("carefully tie the knot", "tie", "knot"), "tying", "carefully tying the knot"),
        (action("cut the cut rope", "cut", "cut rope"), "cutting", "cutting the cut rope"),
        (action("pouring the milk", "pouring", "milk"), "pouring", "pouring the milk"),
    ],
    ids=lambda value: value.phrase if isinstance(value, Action) else "",
)
def test_gerunds_inflect_the_verb_where_it_stands(asked: Action, verb: str, phrase: str) -> None:
    prompts = prompts_for(asked, GERUND)
    assert prompts.verb == f"A photo of a person {verb} something."
    assert prompts.action == f"A photo of a person {phrase}."
    assert prompts.object == prompts_for(asked).object


def test_an_action_without_a_verb_has_no_gerund() -> None:
    nameless = action("the red mug", None, "red mug")
    assert prompts_for(nameless, GERUND) == prompts_for(nameless)


@pytest.mark.parametrize("text", ["pick up the red mug", "turn the tap off", "screw the lid on"])
def test_gerunds_of_parsed_text(text: str) -> None:
    (parsed,) = parse_actions(text)
    head = text.split(maxsplit=1)[0]
    prompts = prompts_for(parsed, GERUND)
    assert prompts.action == f"A photo of a person {text.replace(head, gerund(head), 1)}."


def test_braces_in_an_action_are_words_like_any() -> None:
    assert prompts_for(action("open {verb}")).action == "A photo of a person open {verb}."


def test_templates_may_be_ones_own() -> None:
    config = PromptConfig(
        verb="someone {verb}ing", object="{object}, {object}!", action="{action:>6}", no_verb="-"
    )
    prompts = prompts_for(action("jump", "jump", "rope"), config)
    assert prompts.texts == ("someone jumping", "rope, rope!", "  jump")
    assert prompts_for(action("rope", None, "rope"), config).verb == "-"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"verb": "A photo."}, "prompts.verb"),
        ({"verb": "{object}"}, "prompts.verb"),
        ({"verb": "{verb} {object}"}, "prompts.verb"),
        ({"verb": "{verb"}, "prompts.verb"),
        ({"verb": "{}"}, "prompts.verb"),
        ({"verb": "{0}"}, "prompts.verb"),
        ({"verb": "{verb.real}"}, "prompts.verb"),
        ({"verb": "{verb[0]}"}, "prompts.verb"),
        ({"verb": "{verb!x}"}, "prompts.verb"),
        ({"verb": "{verb:d}"}, "prompts.verb"),
        ({"verb": "{verb:{action}}"}, "prompts.verb"),
        ({"object": "{verb}"}, "prompts.object"),
        ({"action": ""}, "prompts.action"),
        ({"no_verb": "{verb}"}, "prompts.no_verb"),
        ({"no_object": "{"}, "prompts.no_object"),
        ({"verb_form": "participle"}, "prompts.verb_form"),
        ({"verb_form": ""}, "prompts.verb_form"),
    ],
    ids=str,
)
def test_templates_that_cannot_be_filled_are_refused(values: dict, field: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        PromptConfig(**values)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)

"""What captions claim, and that the language package reads commands as they were meant."""

import numpy as np
import pytest

from videogem_ros.core.prompts import PromptConfig
from videogem_ros.language import parse_actions
from videogem_ros.tabletop.captions import (
    Claim,
    Thing,
    action_text,
    caption,
    noun_phrase,
    paraphrases,
    true_of,
)
from videogem_ros.tabletop.vocabulary import COLOURS, KINDS, MATERIALS, SIZES, VERBS

MUG = Thing("cup", "red", "large", "wood")


@pytest.mark.parametrize(
    ("claim", "verb", "fits"),
    [
        (Claim(kind="cup"), None, True),
        (Claim(kind="cup"), "push", True),
        (Claim("push", "cup"), "push", True),
        (Claim("push", "cup"), "pull", False),
        (Claim("push", "cup"), None, False),
        (Claim("push"), "push", True),
        (Claim("push", "cup", "blue"), "push", False),
        (Claim("push", "cup", "red", "large", "wood"), "push", True),
        (Claim("push", "cup", "red", "small"), "push", False),
        (Claim(kind="cup", material="metal"), "push", False),
    ],
)
def test_a_claim_fits_what_it_says(claim: Claim, verb: str | None, fits: bool) -> None:
    assert claim.fits(verb, MUG) is fits
    assert true_of(claim, [(verb, MUG)]) == ([0] if fits else [])


def test_words_stand_in_english_order() -> None:
    assert noun_phrase(Claim(None, "cup", "red", "large", "wood")) == "large red wooden cup"
    assert action_text(Claim("push", "box", "blue")) == "push the blue box"


def test_paraphrases_are_different_and_begin_with_the_plainest() -> None:
    texts = paraphrases(Claim("lift", "cup", "red"), 4, np.random.default_rng(0))
    assert texts[0] == "lift the red cup"
    assert len(set(texts)) == 4


def test_half_of_the_captions_are_in_the_templates_words() -> None:
    random, template = np.random.default_rng(0), PromptConfig().action.partition("{")[0]
    texts = [caption(Claim("push", "cup"), random).text for _ in range(400)]
    assert 0.4 < np.mean([text.startswith(template) for text in texts]) < 0.6


@pytest.mark.parametrize(
    ("claim", "template"),
    [
        (Claim("open"), PromptConfig().verb),
        (Claim(kind="bowl", colour="red"), PromptConfig().object),
        (Claim("open", "box"), PromptConfig().action),
    ],
)
def test_what_is_claimed_chooses_the_template(claim: Claim, template: str) -> None:
    random, (before, _, after) = np.random.default_rng(1), template.rpartition("{")
    start, end = template[: template.index("{")], template[template.index("}") + 1 :]
    texts = [caption(claim, random).text for _ in range(50)]
    assert any(text.startswith(start) and text.endswith(end) for text in texts), (before, after)


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_commands_are_parsed_into_their_verb_and_object(verb) -> None:
    for phrase in verb.phrases:
        (action,) = parse_actions(phrase.format("the large red wooden mug"))
        assert action.verb == " ".join(phrase.replace("{}", "").split())
        assert action.object == "large red wooden mug"


@pytest.mark.parametrize("noun", [noun for nouns in KINDS.values() for noun in nouns])
def test_nouns_are_parsed_as_objects(noun: str) -> None:
    (action,) = parse_actions(f"push the blue {noun}")
    assert (action.verb, action.object) == ("push", f"blue {noun}")


def test_no_word_means_two_things() -> None:
    tables = [KINDS, SIZES, MATERIALS, {colour: (colour,) for colour in COLOURS}]
    tables.append({name: verb.phrases for name, verb in VERBS.items()})
    words = [word for table in tables for group in table.values() for word in group]
    assert len(words) == len(set(words))


def test_twins_have_each_other_and_what_they_are_done_to() -> None:
    for verb in VERBS.values():
        if verb.twin:
            other = VERBS[verb.twin]
            assert (other.twin, other.kinds) == (verb.name, verb.kinds)

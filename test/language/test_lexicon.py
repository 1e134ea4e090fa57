"""Lemmas and parts of speech, against dictionaries and spaCy's own lemma tables."""

from __future__ import annotations

import pytest
from spacy.lookups import load_lookups

from videogem_ros.language.lexicon import look_up, noun_lemma
from videogem_ros.language.words import Tag

NOUNS = {
    "knives": "knife",
    "leaves": "leaf",
    "potatoes": "potato",
    "glasses": "glass",
    "boxes": "box",
    "dishes": "dish",
    "berries": "berry",
    "teeth": "tooth",
    "feet": "foot",
    "women": "woman",
    "courgettes": "courgette",
    "chillies": "chilli",
    "tongs": "tongs",
    "scissors": "scissors",
    "clothes": "clothes",
    "trousers": "trousers",
    "gas": "gas",
    "glass": "glass",
    "lens": "lens",
    "hummus": "hummus",
    "leftovers": "leftover",
    "tupperwares": "tupperware",
    "whatsits": "whatsit",
    "jalapeños": "jalapeño",
}

VERBS = {
    "pours": (Tag.THIRD, "pour"),
    "poured": (Tag.PAST, "pour"),
    "pouring": (Tag.ING, "pour"),
    "putting": (Tag.ING, "put"),
    "taken": (Tag.PAST, "take"),
    "lying": (Tag.ING, "lie"),
    "chopping": (Tag.ING, "chop"),
    "dicing": (Tag.ING, "dice"),
    "carries": (Tag.THIRD, "carry"),
    "dried": (Tag.PAST, "dry"),
    "found": (Tag.PAST, "find"),
    "ground": (Tag.PAST, "grind"),
    "saw": (Tag.BASE, "saw"),
    "lay": (Tag.BASE, "lay"),
    "feed": (Tag.BASE, "feed"),
    "cut": (Tag.BASE | Tag.PAST, "cut"),
    "unscrewing": (Tag.ING, "unscrew"),
    "deseed": (Tag.BASE, "deseed"),
    "palletising": (Tag.ING, "palletise"),
    "squidged": (Tag.PAST, "squidge"),
    "sautéed": (Tag.PAST, "saute"),
}


@pytest.mark.parametrize(("form", "lemma"), NOUNS.items())
def test_nouns_have_their_singular_as_lemma(form: str, lemma: str) -> None:
    assert look_up(form).noun == lemma


@pytest.mark.parametrize(("form", "reading"), VERBS.items())
def test_verb_forms_are_told_apart(form: str, reading: tuple[Tag, str]) -> None:
    word = look_up(form)
    assert (word.tags & Tag.VERB, word.verb) == reading


def test_a_household_noun_may_be_a_verb_and_a_verb_a_noun() -> None:
    for form in ("fork", "water", "bin", "can", "cut", "wash"):
        assert look_up(form).may(Tag.NOUN)
        assert look_up(form).may(Tag.BASE)


def test_function_words_are_nothing_else() -> None:
    for form, tag in {
        "the": Tag.DETERMINER,
        "into": Tag.PREPOSITION,
        "please": Tag.FILLER,
    }.items():
        assert look_up(form).tags == tag


def test_unknown_words_are_marked_as_such() -> None:
    assert look_up("blorf").tags == Tag.NOUN | Tag.UNKNOWN


def test_irregular_plurals_agree_with_the_tables_of_spacy() -> None:
    exceptions = load_lookups("en", tables=["lemma_exc"]).get_table("lemma_exc")["noun"]
    plain = [form for form in exceptions if form.isalpha()]
    agreeing = sum(noun_lemma(form) in exceptions[form] for form in plain)
    assert agreeing / len(plain) > 0.999

"""Verbs that are not the action but lead to it: "keep stirring", "help me open the jar"."""

from __future__ import annotations

from typing import NamedTuple

from videogem_ros.language.sentence import Mode, Sentence, is_verbal
from videogem_ros.language.vocabulary import (
    ASPECT_VERBS,
    CAUSATIVE_VERBS,
    PERCEPTION_VERBS,
    WISH_VERBS,
)
from videogem_ros.language.words import Tag

_INTRODUCING = ASPECT_VERBS | CAUSATIVE_VERBS | WISH_VERBS


class Introduced(NamedTuple):
    """Where the introduced action starts, and what may stand there."""

    start: int
    mode: Mode


def introduced_action(sentence: Sentence, i: int) -> Introduced | None:
    """The action that verb i introduces; None where verb i is the action.

    Args:
        sentence: The text.
        i: Index of a clause's verb.
    """
    lemma = sentence.at(i).verb
    if lemma in PERCEPTION_VERBS:
        return _perceived(sentence, i + 1) or _wished(sentence, i, lemma)
    return _wished(sentence, i, lemma) if lemma in _INTRODUCING else None


def _wished(sentence: Sentence, i: int, lemma: str) -> Introduced | None:
    """What is begun, helped with or wished for."""
    j = sentence.skip(i + 1, Tag.FILLER | Tag.PARTICLE | Tag.ADVERB | Tag.POSSESSIVE)
    if lemma == "make" and sentence.at(j).text == "sure":
        return Introduced(j + 1, Mode.START)
    by = sentence.at(j).text in ("by", "with")
    j += by
    receiver = _behind_agent(sentence, j)
    someone = receiver > j or sentence.at(j - 1).may(Tag.POSSESSIVE)
    j = sentence.skip(receiver, Tag.FILLER)
    word = sentence.at(j)
    if word.may(Tag.TO):
        start = sentence.skip(j + 1, Tag.FILLER)
        verbal = sentence.at(start).may(Tag.BASE)
        sure = is_verbal(sentence.at(start)) or sentence.opens_clause(start)
        return Introduced(start, Mode.BARE) if verbal and (sure or someone) else None
    if word.may(Tag.CONJUNCTION):
        goes = lemma in ("go", "come", "try") and not someone and sentence.opens_clause(j + 1)
        return Introduced(j + 1, Mode.START) if goes else None
    if word.may(Tag.ING) and lemma in ASPECT_VERBS | WISH_VERBS:
        return Introduced(j, Mode.START) if sentence.opens_clause(j) else None
    if word.may(Tag.BASE) and lemma in CAUSATIVE_VERBS and (someone or is_verbal(word)):
        return Introduced(j, Mode.BARE)
    return None


def _perceived(sentence: Sentence, i: int) -> Introduced | None:
    """What is to be found, shown or watched, where that is an action and not a thing."""
    i = sentence.skip(i, Tag.PREPOSITION | Tag.TO | Tag.FILLER)
    i += sentence.at(i).text in ("me", "us")
    if sentence.at(i).may(Tag.QUESTION):
        return Introduced(i + 1, Mode.START)
    end = _behind_agent(sentence, i)
    if end > i:
        while sentence.at(end).may(Tag.PREPOSITION):
            place = sentence.noun_phrase(end + 1, Mode.SUBJECT)
            if place is None:
                break
            end = place.end
        acts = sentence.at(end).may(Tag.VERB | Tag.AUXILIARY | Tag.QUESTION)
        return Introduced(i, Mode.START) if acts or sentence.at(end).text == "that" else None
    phrase = sentence.noun_phrase(i, Mode.BE)
    behind = sentence.at(phrase.end if phrase else i)
    return Introduced(i, Mode.BE) if behind.may(Tag.ING) or behind.text == "being" else None


def _behind_agent(sentence: Sentence, i: int) -> int:
    """Index behind the pronoun or agent that starts at word i; i where there is none."""
    phrase = sentence.noun_phrase(i, Mode.BARE)
    if phrase is not None:
        return phrase.end if phrase.is_agent else i
    return i + sentence.at(i).may(Tag.PRONOUN)

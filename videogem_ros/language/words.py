"""What a word may be: the alphabet in which readers write and which the grammar reads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto


class Tag(Flag):
    """Parts of speech that matter to action text; a word carries every one it may be."""

    BASE = auto()  # "pour"
    ING = auto()  # "pouring"
    PAST = auto()  # past tense or participle, "poured"
    THIRD = auto()  # "pours"
    NOUN = auto()
    ADJECTIVE = auto()
    ADVERB = auto()
    UNKNOWN = auto()  # in no table: a noun, a name, or a rare or misspelt verb
    DETERMINER = auto()  # articles, possessives and quantifiers before a noun
    NUMBER = auto()
    PRONOUN = auto()
    PREPOSITION = auto()
    PARTICLE = auto()  # may belong to the verb: "up", "off", "away"
    TO = auto()  # before a verb or a noun
    AUXILIARY = auto()  # be, have, do and modals
    CONJUNCTION = auto()  # joins nouns or actions
    SUBORDINATOR = auto()  # opens a clause that is no action of its own: "until", "if"
    QUESTION = auto()  # question words and relative pronouns
    FILLER = auto()  # says nothing of the action: "please", "still", "now"
    POSSESSIVE = auto()  # "'s" after a noun
    COMMA = auto()
    STOP = auto()  # ends a sentence

    VERB = BASE | ING | PAST | THIRD
    OPEN = VERB | NOUN | ADJECTIVE | ADVERB | UNKNOWN
    """Classes of which a lexicon never lists all words."""
    NOMINAL = NOUN | ADJECTIVE | UNKNOWN | NUMBER | ING | PAST
    """What may stand in a noun phrase after its determiners."""


@dataclass(frozen=True)
class Word:
    """One word of an action text.

    Attributes:
        text: The word in lower case.
        tags: What it may be.
        verb: Its lemma as a verb ("taken" -> "take").
        noun: Its lemma as a noun ("knives" -> "knife").
    """

    text: str
    tags: Tag
    verb: str
    noun: str

    def may(self, tags: Tag) -> bool:
        """Whether the word may be one of ``tags``."""
        return bool(self.tags & tags)

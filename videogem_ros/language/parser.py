"""Action text to actions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from videogem_ros.datatypes import Action
from videogem_ros.errors import check_type
from videogem_ros.language.grammar import Clause, Reading, read
from videogem_ros.language.reading import LexiconReader, PipelineReader, Reader
from videogem_ros.language.sentence import join


@dataclass(frozen=True)
class Candidates:
    """Everything in a sentence that could be its verb or its object.

    Attributes:
        verbs: Every verb in base form, with its particle.
        objects: Every noun phrase without its determiners; "and" separates phrases.
    """

    verbs: tuple[str, ...]
    objects: tuple[str, ...]


class Parser:
    """Decomposes action text.

    Args:
        spacy_model: Name or path of an installed spaCy pipeline whose part-of-speech tags decide
            what a word is; the built-in lexicon where None.

    Raises:
        InvalidValueError: No such pipeline, or one that does not tag parts of speech.
    """

    def __init__(self, spacy_model: str | None = None) -> None:
        lexicon = LexiconReader()
        self._readers: tuple[Reader, ...] = (
            (lexicon,) if spacy_model is None else (PipelineReader(spacy_model), lexicon)
        )

    def parse(self, text: str) -> tuple[Action, ...]:
        """The actions of a text, in the order in which they are said.

        Args:
            text: What somebody tells a robot or says of a scene.

        Returns:
            The actions; one without a verb where the text only names a thing; none where it holds
            no words.
        """
        reading = self._read(text)
        return tuple(_action(text, clause) for clause in reading.clauses)

    def candidates(self, text: str) -> Candidates:
        """All verbs and noun phrases of a free sentence, in order and without repetitions.

        Args:
            text: A sentence, say of YouCook2.
        """
        reading = self._read(text)
        objects = (part for phrase in reading.noun_phrases for part in phrase.parts)
        return Candidates(tuple(dict.fromkeys(reading.verbs)), tuple(dict.fromkeys(objects)))

    def _read(self, text: str) -> Reading:
        """The first reader's reading that finds a verb; the last one's where none does."""
        if not any(map(str.isalpha, text)):
            return Reading((), (), ())
        for reader in self._readers:
            words = reader(text)
            reading = read(words)
            if any(clause.verb for clause in reading.clauses):
                return reading
        if reading.clauses or not join(words):
            return reading
        return Reading((Clause(words=words),), (), ())  # "please", "not on the"


def _action(text: str, clause: Clause) -> Action:
    verb, thing = clause.verb, clause.object
    return Action(
        text=text,
        phrase=clause.phrase,
        verb=clause.verb_text,
        verb_lemma=verb.verb if verb else None,
        object=thing.text if thing else None,
        object_head=thing.head.noun if thing else None,
    )


@lru_cache(maxsize=8)
def parser_for(spacy_model: str | None = None) -> Parser:
    """The parser, built once per pipeline.

    Args:
        spacy_model: See :class:`Parser`.
    """
    return Parser(spacy_model)


def parse_actions(text: str, *, spacy_model: str | None = None) -> tuple[Action, ...]:
    """The actions of a text: verb, object and phrase of each.

    Args:
        text: "pick up the cup and place it on the plate".
        spacy_model: Name or path of a spaCy pipeline; the built-in parser where None.

    Returns:
        The actions in the order in which they are said; none where the text holds no words.

    Raises:
        InvalidValueError: Not a text, or no such pipeline.
    """
    check_type("text", text, str, "a text")
    return parser_for(spacy_model).parse(text)


def candidates(text: str, *, spacy_model: str | None = None) -> Candidates:
    """All verbs and noun phrases of a free sentence (see :meth:`Parser.candidates`)."""
    return parser_for(spacy_model).candidates(text)

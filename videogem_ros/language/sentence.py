"""A text's words, and what they form: noun phrases, and words that start an action.

Lexicon and pipeline leave open whether "fork" is a thing or what is done with one; here the words
around it decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from videogem_ros.language.lexicon import is_compound
from videogem_ros.language.vocabulary import (
    AGENTS,
    DENOMINAL_VERBS,
    LIKELY_VERBS,
    LOOSE_PARTICLES,
    PARTICLE_NOUNS,
    PEOPLE,
    PHRASAL_VERBS,
    QUANTITIES,
    RESULTS,
    RUN_ON_VERBS,
    STRONG_VERBS,
    TOUCH_VERBS,
)
from videogem_ros.language.words import Tag, Word

_END = Word("", Tag.STOP, "", "")
_THING = Tag.NOUN | Tag.UNKNOWN
_WITH = frozenset(["about", "for", "from", "into", "onto", "through", "until", "using", "with"])
_PLACE_NOUNS = frozenset(["back", "inside", "outside"])
_MOST_DETERMINERS = 8  # "all of the other three"; bounds the time that nonsense takes
_MOST_MODIFIERS = 32  # of one noun; the same
_DIRECTIONS = frozenset(["left", "right"])


class Mode(Enum):
    """What has been read of a clause before its verb."""

    START = auto()  # nothing that counts: a command may follow
    SUBJECT = auto()  # who acts, or what is named
    BARE = auto()  # "to" or a modal: a base form follows
    BE = auto()
    HAVE = auto()


@dataclass(frozen=True)
class NounPhrase:
    """A noun phrase with all that "and" joins to it.

    Attributes:
        words: All of its words, determiners included.
        parts: The joined phrases without their determiners ("knife", "fork").
        text: The whole without determiners ("knife and fork").
        head: Head noun of the first part.
        determined: Whether a determiner opens it.
        end: Index of the word behind it.
    """

    words: tuple[Word, ...]
    parts: tuple[str, ...]
    text: str
    head: Word
    determined: bool
    end: int

    @property
    def is_agent(self) -> bool:
        """Whether it names one of whom a verb is to be expected."""
        return self.head.noun in AGENTS

    @property
    def is_person(self) -> bool:
        """Whether it names somebody who acts rather than what is acted on."""
        return self.head.noun in PEOPLE


def join(words: Iterable[Word]) -> str:
    """The words as text; a possessive ending hugs its noun, commas are left out."""
    spoken = (word.text for word in words if not word.may(Tag.COMMA))
    return " ".join(spoken).replace(" '", "'")


def is_verbal(word: Word) -> bool:
    """Whether a word that may be a verb is one unless its neighbours forbid it."""
    return word.verb in STRONG_VERBS or not word.may(_THING | Tag.ADJECTIVE)


def is_particle_of(verb: Word, word: Word) -> bool:
    """Whether a word behind a verb is its particle whatever follows."""
    return word.may(Tag.PARTICLE) and (
        word.text not in LOOSE_PARTICLES or word.text in PHRASAL_VERBS.get(verb.verb, ())
    )


class Sentence:
    """The words of a text.

    Args:
        words: The words in order.
    """

    def __init__(self, words: Sequence[Word]) -> None:
        self._words = words

    def __len__(self) -> int:
        return len(self._words)

    def at(self, i: int) -> Word:
        """Word i; a full stop behind the last."""
        return self._words[i] if i < len(self._words) else _END

    def skip(self, i: int, tags: Tag) -> int:
        """Index of the first word from i on that may not be one of ``tags``."""
        while self.at(i).may(tags):
            i += 1
        return i

    # Verb or noun

    def opens_clause(self, i: int, joined_to: Tag | None = None) -> bool:
        """Whether word i is the verb of a command or narration.

        Args:
            i: Index of the word.
            joined_to: Form of the verb before the conjunction, where one precedes.
        """
        word, following = self.at(i), self.at(i + 1)
        if not word.may(Tag.VERB | Tag.UNKNOWN) or is_compound(word, following):
            return False
        if word.may(Tag.AUXILIARY | Tag.PREPOSITION):
            return self.is_main_verb(i)
        counted = following.may(Tag.NUMBER) and self.at(i + 2).may(Tag.NOMINAL)
        if following.may(Tag.DETERMINER | Tag.PRONOUN) or counted:
            return not word.may(Tag.THIRD) or not word.may(Tag.NOUN) or is_verbal(word)
        if joined_to is not None and word.may(Tag.ING | Tag.PAST) and not word.may(Tag.BASE):
            return word.may(joined_to)
        return self._opens_bare(i, joined_to is None)

    def _opens_bare(self, i: int, first: bool) -> bool:
        """Whether word i opens a clause although no determiner shows that an object follows."""
        word, following = self.at(i), self.at(i + 1)
        nominal = following.may(Tag.NOMINAL)
        particle = is_particle_of(word, following)
        if word.may(Tag.BASE):
            acts = following.may(Tag.ING) and not is_compound(following, self.at(i + 2))
            likely = word.verb in LIKELY_VERBS or (
                first and word.verb in DENOMINAL_VERBS and not acts  # not "hand pouring water"
            )
            ends = following.may(Tag.PARTICLE) and self.at(i + 2).may(Tag.STOP)  # "wrap around"
            touches = first and word.verb in TOUCH_VERBS and following.text == "on"
            behind = nominal or ends or touches or following.text in _WITH
            governs = behind or self._joins_verb(i + 1)
            return is_verbal(word) or particle or (likely and governs)
        if word.may(Tag.THIRD):
            return not word.may(Tag.NOUN) or (first and is_verbal(word) and (nominal or particle))
        return word.may(Tag.ING) or (particle if word.may(Tag.PAST) else first and nominal)

    def _joins_verb(self, i: int) -> bool:
        """Whether word i joins another verb with its object: "and slice the potatoes"."""
        joint, word, following = (self.at(i + step) for step in range(3))
        return (
            joint.may(Tag.CONJUNCTION)
            and word.may(Tag.BASE)
            and (
                is_verbal(word)
                or (
                    word.verb in LIKELY_VERBS
                    and following.may(Tag.DETERMINER | Tag.NOMINAL | Tag.PARTICLE)
                )
            )
        )

    def is_main_verb(self, i: int) -> bool:
        """Whether auxiliary or "using" i is the verb: "do the dishes", not "do you"."""
        word, following = self.at(i), self.at(i + 1)
        if not word.may(Tag.VERB) or not following.may(Tag.DETERMINER | Tag.NOUN):
            return False
        end = self._part(i + 1, Mode.BARE)[1]
        if end == i + 1 or self.at(end).may(Tag.BASE | Tag.PAST):
            return False
        if word.may(Tag.PREPOSITION) and self.at(end).may(Tag.COMMA):
            return False
        if word.text == "can" and not following.may(Tag.DETERMINER):
            return False
        return self.at(end - 1).noun not in AGENTS

    # Noun phrases

    def noun_phrase(
        self, i: int, mode: Mode | None = None, form: Tag = Tag.BASE
    ) -> NounPhrase | None:
        """The noun phrase that starts at word i, None where none does.

        Args:
            i: Index of its first word.
            mode: What precedes, where it may be a subject with its verb behind it.
            form: Form of the verb that governs it: what a conjunction could continue.
        """
        begin, end = self._part(i, mode)
        if begin == end or (end == begin + 1 == i + 1 and self.at(i).text in _DIRECTIONS):
            return None
        head = self._head(begin, end)
        end = self._attached(end, mode)
        parts, text = [join(self._words[begin:end])], [*self._words[begin:end]]
        while (j := self.skip(end, Tag.COMMA | Tag.CONJUNCTION)) > end:
            begin, behind = self._part(j, mode)
            if begin == behind or self.opens_clause(j, form):
                break
            behind = self._attached(behind, mode)
            parts.append(join(self._words[begin:behind]))
            text += [*self._words[end:j], *self._words[begin:behind]]
            end = behind
        return NounPhrase(
            words=tuple(self._words[i:end]),
            parts=tuple(parts),
            text=join(text),
            head=head,
            determined=self.at(i).may(Tag.DETERMINER),
            end=end,
        )

    def _part(self, i: int, mode: Mode | None) -> tuple[int, int]:
        """First word behind the determiners from word i on, and end of the nouns there."""
        begin = self._behind_determiners(i)
        return begin, self._behind_nouns(begin, begin > i, mode)

    def _attached(self, end: int, mode: Mode | None) -> int:
        """End of a part with what "of" attaches to it."""
        while self.at(end).text == "of":
            begin, behind = self._part(end + 1, mode)
            if begin == behind:
                break
            end = behind
        return end

    def _behind_determiners(self, i: int) -> int:
        for _ in range(_MOST_DETERMINERS):
            word, following = self.at(i), self.at(i + 1)
            if following.text == "of" and (
                word.noun in QUANTITIES or word.may(Tag.DETERMINER | Tag.NUMBER)
            ):
                i += 2
            elif word.may(Tag.DETERMINER | Tag.NUMBER) and (
                following.may(Tag.NOMINAL | Tag.DETERMINER) or following.text in _PLACE_NOUNS
            ):
                i += 1
            else:
                break
        return i

    def _behind_nouns(self, begin: int, determined: bool, mode: Mode | None) -> int:
        """End of the adjectives and nouns from word ``begin`` on; ``begin`` where no noun is."""
        i = end = begin
        if not determined and self.at(i).may(Tag.ING) and self.at(i + 1).may(Tag.DETERMINER):
            return begin  # "cook covering the pan"
        while i == begin or (i - end < _MOST_MODIFIERS and not self._ends_nouns(i, mode)):
            word = self.at(i)
            place = determined and i == begin and word.text in _PLACE_NOUNS
            nominal = word.may(Tag.NOMINAL) and not word.may(Tag.PREPOSITION)
            if not (place or nominal or self._is_inner(i, begin)):
                break
            i += 2 if f"{word.text} {self.at(i + 1).text}" in PARTICLE_NOUNS else 1
            if place or word.may(_THING):
                end = i
        return i if determined and end == begin else end  # "the small"

    def _is_inner(self, i: int, begin: int) -> bool:
        """Whether word i belongs to a noun phrase although it is neither noun nor adjective."""
        word, before, following = self.at(i), self.at(i - 1), self.at(i + 1)
        if word.may(Tag.ADVERB):
            return following.may(Tag.ADJECTIVE | Tag.PAST)
        if i == begin or not following.may(Tag.NOMINAL):
            return False
        # "washing up liquid", "left over rice", "chopped up onions"
        return word.may(Tag.POSSESSIVE) or (
            word.text in ("up", "over") and before.may(Tag.ING | Tag.PAST)
        )

    def _ends_nouns(self, i: int, mode: Mode | None) -> bool:
        """Whether word i, behind a noun, is no part of the noun phrase though it might be one."""
        word, before, following = self.at(i), self.at(i - 1), self.at(i + 1)
        if word.text == "next" and following.may(Tag.TO):
            return True
        if word.text in RUN_ON_VERBS and following.may(Tag.NOMINAL | Tag.PARTICLE):
            return True
        alone = not following.may(Tag.NOMINAL) or following.text == "next"
        if word.text in RESULTS | _DIRECTIONS and alone:
            return True  # "push the box left", "the cup left of the plate", "right next to it"
        if word.may(Tag.BASE) and word.verb in STRONG_VERBS and following.may(Tag.DETERMINER):
            return True
        if mode is not None:
            return self._is_predicate(i, mode)
        return (
            word.may(Tag.ING) and not before.may(Tag.POSSESSIVE) and following.may(Tag.DETERMINER)
        )

    def _is_predicate(self, i: int, mode: Mode) -> bool:
        """Whether word i is the verb of which the noun before it is the subject."""
        word, following = self.at(i), self.at(i + 1)
        agent = self.at(i - 1).noun in AGENTS
        if word.may(Tag.AUXILIARY):
            return not word.may(Tag.POSSESSIVE) or (agent and following.may(Tag.ING))
        if word.may(Tag.BASE):
            return (agent or mode is Mode.BARE) and is_verbal(word)
        if word.may(Tag.ING) and mode is not Mode.START and not is_compound(word, following):
            return agent or mode is Mode.SUBJECT or not following.may(Tag.NOMINAL)
        return word.may(Tag.VERB) and (agent or following.may(Tag.DETERMINER))

    def _head(self, begin: int, end: int) -> Word:
        nouns = [word for word in self._words[begin:end] if word.may(_THING)]
        return nouns[-1] if nouns else self._words[end - 1]

"""Words to clauses: which verb, which particle, what is acted on.

A recursive-descent reading of what people tell robots and write under videos, not of English at
large. Every step moves forward, so that the time is linear in the number of words.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from videogem_ros.language.introductions import introduced_action
from videogem_ros.language.lexicon import is_compound
from videogem_ros.language.sentence import (
    Mode,
    NounPhrase,
    Sentence,
    is_particle_of,
    is_verbal,
    join,
)
from videogem_ros.language.vocabulary import GIVING_VERBS, MOTION_VERBS, TIMES, WEARABLES
from videogem_ros.language.words import Tag, Word

_JOINTS = Tag.FILLER | Tag.COMMA | Tag.CONJUNCTION
_LONGEST_REPEATED = 32  # words; bounds the time that nonsense takes
_ORDINALS = frozenset(["first", "next", "second", "last"])
_ANAPHORS = frozenset(["it", "them", "this", "that", "these", "those"])


@dataclass
class Clause:
    """One action, or a thing that is merely named.

    Attributes:
        verb: The verb; None where a thing is named.
        particle: The verb's particle.
        object: What is acted on, or named.
        words: The words behind the verb; all of them where there is no verb.
        waits: Whether the object stands behind the next clause's verb ("peel and cut carrots").
        points_back: Whether a pronoun stands in the object's place; ``object`` is then what
            else is named, in case that the pronoun points at nothing.
    """

    verb: Word | None = None
    particle: str | None = None
    object: NounPhrase | None = None
    words: list[Word] = field(default_factory=list)
    waits: bool = False
    points_back: bool = False

    @property
    def verb_text(self) -> str | None:
        """The verb's base form with its particle ("pick up")."""
        if self.verb is None:
            return None
        return f"{self.verb.verb} {self.particle}" if self.particle else self.verb.verb

    @property
    def phrase(self) -> str:
        """The action as one would command it: base form of the verb, then the other words."""
        end = len(self.words)
        while end and self.words[end - 1].may(Tag.CONJUNCTION):
            end -= 1
        rest = join(self.words[:end]) or join(self.words)
        return rest if self.verb is None else f"{self.verb.verb} {rest}".rstrip()


@dataclass(frozen=True)
class Reading:
    """All that was found in a text.

    Attributes:
        clauses: The actions, or things named, in the order in which they are said.
        verbs: Every verb, with its particle.
        noun_phrases: Every noun phrase.
    """

    clauses: tuple[Clause, ...]
    verbs: tuple[str, ...]
    noun_phrases: tuple[NounPhrase, ...]


def read(words: Sequence[Word]) -> Reading:
    """Reads the words of a text.

    Args:
        words: The words in order.

    Returns:
        What was found; no clauses where nothing is said to be done or named.
    """
    return _Parse(words).run()


class _Parse:
    """One pass over one text."""

    def __init__(self, words: Sequence[Word]) -> None:
        self._sentence = Sentence(words)
        self._verbs: list[str] = []
        self._phrases: list[NounPhrase] = []

    def run(self) -> Reading:
        clauses: list[Clause] = []
        i = 0
        while i < len(self._sentence):
            clause, i = self._clause(i)
            if clause is not None:
                clauses.append(clause)
        _resolve_pronouns(clauses)
        _share_objects(clauses)
        return Reading(tuple(clauses), tuple(self._verbs), tuple(self._phrases))

    def _clause(self, i: int) -> tuple[Clause | None, int]:
        """The clause that starts at word i, and where the next one may start."""
        sentence = self._sentence
        lead = _Lead()
        while not (word := sentence.at(i)).may(Tag.STOP):
            if _is_verb(sentence, i, lead):
                introduced = introduced_action(sentence, i)
                if introduced is None:
                    return self._predicate(i, lead)
                self._verbs.append(word.verb)
                lead = _Lead(introduced.mode)
                i = introduced.start
            elif word.text in _ORDINALS and sentence.opens_clause(i + 1):
                i += 1
            elif (phrase := sentence.noun_phrase(i, lead.mode)) and not word.may(Tag.AUXILIARY):
                self._phrases.append(phrase)
                lead.take_phrase(phrase)
                i = phrase.end
            else:
                lead.take_word(word)
                i += 1
        return lead.named_thing(), i + 1

    def _predicate(self, i: int, lead: _Lead) -> tuple[Clause, int]:
        """The clause whose verb is word i, and where the next one may start."""
        sentence = self._sentence
        verb = sentence.at(i)
        form = verb.tags & Tag.VERB or Tag.BASE
        clause = Clause(verb=verb, object=lead.patient(verb))
        if clause.object is not None:
            clause.words += clause.object.words
        i = self._leading_particle(i + 1, verb, clause)
        following = None if clause.object else self._next_clause(i, form, at_once=True)
        clause.waits = following is not None
        if following is None:
            tail, asked = _Tail(clause), i
            while not sentence.at(i).may(Tag.STOP):
                if i >= asked:  # a run of joints begins one clause or none, so is asked about once
                    following = self._next_clause(i, form)
                    asked = sentence.skip(i, _JOINTS)
                if following is not None or (tail.phrases and self._runs_on(i)):
                    break
                i = self._take(i, tail, form)
            _complete(clause, tail.phrases, lead.thing())
        self._verbs.append(clause.verb_text or "")
        return clause, i if following is None else following

    def _take(self, i: int, tail: _Tail, form: Tag) -> int:
        """Adds what starts at word i to the clause; returns the index behind it."""
        sentence = self._sentence
        word = sentence.at(i)
        purpose = sentence.at(i - 1).may(Tag.TO) and sentence.opens_clause(i, Tag.BASE)
        phrase = None if purpose else sentence.noun_phrase(i, form=form)
        if phrase is not None:
            self._phrases.append(phrase)
            tail.take_phrase(phrase)
            return phrase.end
        if purpose:
            self._verbs.append(word.verb)
        tail.take_word(word, sentence.at(i + 1))
        return i + 1

    def _leading_particle(self, i: int, verb: Word, clause: Clause) -> int:
        """Gives the clause the particle right behind its verb; returns the index behind it."""
        word = self._sentence.at(i)
        if not word.may(Tag.PARTICLE) or not self._is_particle(i, verb):
            return i
        clause.particle = word.text
        clause.words.append(word)
        while self._sentence.at(i).text == word.text:  # narrators stutter: "put down down cup"
            i += 1
        return i

    def _is_particle(self, i: int, verb: Word) -> bool:
        """Whether word i, right behind the verb, belongs to it rather than to what follows."""
        word, following = self._sentence.at(i), self._sentence.at(i + 1)
        if following.text == "of":
            return word.text in ("out", "off")
        phrase = self._sentence.noun_phrase(i + 1)
        if is_particle_of(verb, word):
            return phrase is None or verb.verb not in MOTION_VERBS
        if phrase is None:
            return not following.may(Tag.PRONOUN | Tag.TO)
        return verb.verb == "put" and word.text == "on" and phrase.head.noun in WEARABLES

    def _next_clause(self, i: int, form: Tag, at_once: bool = False) -> int | None:
        """Where the next clause starts, if "and", "then" or a comma at word i introduces one.

        Args:
            i: Index of the conjunction.
            form: Form of this clause's verb.
            at_once: Whether at most a particle stands between that verb and word i.
        """
        sentence = self._sentence
        j = sentence.skip(i, _JOINTS)
        word, following = sentence.at(j), sentence.at(j + 1)
        if j == i:
            return None
        if word.may(Tag.PRONOUN) and not word.may(Tag.DETERMINER):
            return j if following.may(Tag.VERB | Tag.AUXILIARY) else None
        parallel = at_once and word.may(form) and not is_compound(word, following)
        then = word.may(Tag.BASE) and any(sentence.at(k).text == "then" for k in range(i, j))
        return j if parallel or then or sentence.opens_clause(j, form) else None

    def _runs_on(self, i: int) -> bool:
        """Whether word i starts another command without any conjunction."""
        word, before, following = (self._sentence.at(i + step) for step in (0, -1, 1))
        if before.may(Tag.TO | Tag.PRONOUN | Tag.QUESTION | Tag.AUXILIARY | Tag.SUBORDINATOR):
            return False
        if word.may(Tag.ADJECTIVE) and not following.may(Tag.NOMINAL | Tag.DETERMINER):
            return False  # "leave the door open"
        return word.may(Tag.BASE) and is_verbal(word) and self._sentence.opens_clause(i, Tag.BASE)


class _Lead:
    """What stands before a clause's verb.

    Attributes:
        mode: What may follow.
        acts: Whether a pronoun or a noun phrase that names an agent came last.
    """

    def __init__(self, mode: Mode = Mode.START) -> None:
        self.mode = mode
        self.acts = False
        self._subjects: list[NounPhrase] = []
        self._places: list[NounPhrase] = []
        self._words: list[Word] = []
        self._behind_preposition = False
        self._pronoun = False

    def take_phrase(self, phrase: NounPhrase) -> None:
        """A noun phrase: a subject, or a place behind a preposition."""
        self._words += phrase.words
        if self._behind_preposition:
            self._places.append(phrase)
        else:
            self._subjects.append(phrase)
            self._expect_predicate(phrase.is_agent)
        self._behind_preposition = False

    def take_word(self, word: Word) -> None:
        """Any other word."""
        if word.may(Tag.AUXILIARY):
            self.mode = _after_auxiliary(word)
        elif word.may(Tag.TO):
            self.mode = Mode.BARE
            self._words.append(word)
        elif word.may(Tag.COMMA | Tag.CONJUNCTION):
            self.mode = Mode.START
        elif word.may(Tag.PRONOUN):
            self._pronoun = True
            self._expect_predicate(True)
        elif not word.may(Tag.FILLER | Tag.SUBORDINATOR | Tag.QUESTION):
            self._behind_preposition = word.may(Tag.PREPOSITION)
            self._words.append(word)

    def _expect_predicate(self, acts: bool) -> None:
        self.acts = acts
        if self.mode is Mode.START:
            self.mode = Mode.SUBJECT

    def thing(self) -> NounPhrase | None:
        """The first subject that is no person: what an action without an object is about."""
        return next((phrase for phrase in self._subjects if not phrase.is_person), None)

    def patient(self, verb: Word) -> NounPhrase | None:
        """What a passive verb acts on; None where the verb is active."""
        passive = verb.may(Tag.PAST) and (
            self.mode is Mode.BE or (self.mode is Mode.SUBJECT and not self._pronoun)
        )
        return self.thing() if passive else None

    def named_thing(self) -> Clause | None:
        """The clause of a text without a verb."""
        if not self._words:
            return None
        phrases = [self.thing(), *self._subjects, *self._places]
        named = next((phrase for phrase in phrases if phrase is not None), None)
        return Clause(object=named, words=self._words)


class _Tail:
    """What stands behind a clause's verb."""

    def __init__(self, clause: Clause) -> None:
        self.phrases: list[NounPhrase] = []
        self._clause = clause
        self._settled = clause.object is not None
        self._subordinate = False
        self._last: NounPhrase | Word | None = None

    def take_phrase(self, phrase: NounPhrase) -> None:
        """A noun phrase: the object, its receiver, or what a preposition governs."""
        clause = self._clause
        receiver = isinstance(self._last, NounPhrase) and phrase.determined
        gives = clause.verb is not None and clause.verb.verb in GIVING_VERBS
        if not self._settled or (receiver and gives):
            clause.object = phrase
            self._settled = True
        is_state = self._subordinate and phrase.head.may(Tag.ADJECTIVE)  # "until smooth"
        if phrase.head.noun not in TIMES and (phrase.determined or not is_state):
            self.phrases.append(phrase)
        clause.words += phrase.words
        self._last = phrase

    def take_word(self, word: Word, following: Word) -> None:
        """Any other word."""
        clause = self._clause
        if word.may(Tag.FILLER | Tag.COMMA):
            return
        clause.words.append(word)
        if word.may(Tag.PRONOUN):
            clause.points_back |= word.text in _ANAPHORS and not self._settled
        elif self._is_particle(word, following):
            clause.particle = word.text
        elif word.may(Tag.PREPOSITION | Tag.TO | Tag.SUBORDINATOR):
            self._settled = True
            self._subordinate |= word.may(Tag.SUBORDINATOR)
        self._last = word if word.may(Tag.PRONOUN) else None

    def _is_particle(self, word: Word, following: Word) -> bool:
        """Whether the word belongs to the verb although the object stands between."""
        if self._last is None or self._clause.particle or not word.may(Tag.PARTICLE):
            return False
        if word.text in ("in", "on") and following.may(Tag.TO):
            return False  # "in to" for "into"
        return not word.may(Tag.PREPOSITION) or (
            following.may(_JOINTS | Tag.STOP | Tag.PREPOSITION | Tag.TO | Tag.ADVERB)
            and not following.may(Tag.NOMINAL | Tag.DETERMINER)
        )


def _after_auxiliary(word: Word) -> Mode:
    if word.text in ("have", "has", "had", "having", "'ve"):
        return Mode.HAVE
    if word.may(Tag.POSSESSIVE) or word.text in _BE:
        return Mode.BE
    return Mode.BARE


_BE = frozenset(["am", "is", "are", "was", "were", "be", "been", "being", "'m", "'re"])


def _is_verb(sentence: Sentence, i: int, lead: _Lead) -> bool:
    """Whether word i is a clause's verb, given what stands before it."""
    word = sentence.at(i)
    if lead.mode is Mode.START:
        return sentence.opens_clause(i)
    if word.may(Tag.AUXILIARY) and not sentence.is_main_verb(i):
        return False
    if lead.mode is not Mode.SUBJECT:
        forms = {
            Mode.BARE: Tag.BASE | Tag.UNKNOWN,
            Mode.BE: Tag.ING | Tag.PAST,
            Mode.HAVE: Tag.PAST,
        }
        return word.may(forms[lead.mode]) and not is_compound(word, sentence.at(i + 1))
    if word.may(Tag.THIRD) and word.may(Tag.NOUN):
        return lead.acts
    if word.may(Tag.BASE) and not word.may(Tag.PAST):
        return lead.acts and is_verbal(word)
    return word.may(Tag.VERB)


def _complete(clause: Clause, phrases: Sequence[NounPhrase], subject: NounPhrase | None) -> None:
    """Gives a clause without a direct object what it is about all the same.

    Args:
        clause: The clause.
        phrases: Noun phrases behind its verb.
        subject: Its subject, or what stands in front of a question, where that is no person.
    """
    if clause.object is not None:
        return
    clause.object = subject or next(iter(phrases), None)
    if subject is not None and clause.points_back:
        clause.words = _replaced(clause.words, subject)
        clause.points_back = False
    elif subject is not None:
        clause.words[:0] = subject.words


def _said_again(phrase: NounPhrase) -> tuple[Word, ...]:
    """The phrase's words, its head alone where they are too many to repeat."""
    return phrase.words if len(phrase.words) <= _LONGEST_REPEATED else (phrase.head,)


def _replaced(words: Iterable[Word], antecedent: NounPhrase) -> list[Word]:
    """The words with what "it" and "them" stand for."""
    meant = _said_again(antecedent)
    return [said for word in words for said in (meant if word.text in ("it", "them") else (word,))]


def _share_objects(clauses: Sequence[Clause]) -> None:
    """Gives a clause whose object stands behind the next verb that object."""
    for clause, following in reversed(list(itertools.pairwise(clauses))):
        if clause.waits and following.object is not None:
            clause.object = following.object
            clause.words += _said_again(following.object)


def _resolve_pronouns(clauses: Iterable[Clause]) -> None:
    """Replaces "it" and "them" by what was acted on before."""
    antecedent: NounPhrase | None = None
    for clause in clauses:
        if antecedent is not None:
            clause.words = _replaced(clause.words, antecedent)
            if clause.points_back:
                clause.object = antecedent
        elif clause.points_back:
            continue  # its object is another thing than "it"
        antecedent = clause.object or antecedent

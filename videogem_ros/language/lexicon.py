"""What a word may be, and its lemmas, by closed classes, spaCy's lemma tables and endings."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from spacy.lookups import load_lookups

from videogem_ros.language.vocabulary import (
    BASE_AND_PAST,
    CLOSED_TAGS,
    COMPOUNDS,
    IRREGULAR_NOUNS,
    MISSING_VERBS,
    PARTICIPLE_LIKE_BASE,
)
from videogem_ros.language.words import Tag, Word

_VERB_PREFIXES = ("un", "re", "de", "over", "pre", "dis")
_VERB_ENDINGS = ("ize", "ise", "ify")
_VERB_FORMS = {"ing": Tag.ING, "ed": Tag.PAST, "s": Tag.THIRD}
_PLURALS = {
    "s": "",
    "ses": "s",
    "ves": "f",
    "xes": "x",
    "zes": "z",
    "ches": "ch",
    "shes": "sh",
    "oes": "o",
    "men": "man",
    "ies": "y",
}
_CLOSED_VERBS = {"has": "have", "had": "have", "using": "use"}


@dataclass(frozen=True)
class _Table:
    """WordNet's words of one part of speech.

    Attributes:
        lemmas: Base forms.
        exceptions: Irregular forms with their lemmas.
    """

    lemmas: frozenset[str]
    exceptions: dict[str, list[str]]

    def holds(self, form: str) -> bool:
        """Whether the table lists the form."""
        return form in self.lemmas or form in self.exceptions

    def irregular(self, form: str) -> str | None:
        """Lemma of an irregular form."""
        return next(iter(self.exceptions.get(form, ())), None)


@lru_cache(maxsize=1)
def _tables() -> dict[str, _Table]:
    lookups = load_lookups("en", tables=["lemma_index", "lemma_exc"])
    index, exceptions = (lookups.get_table(name) for name in ("lemma_index", "lemma_exc"))
    return {
        part: _Table(frozenset(index[part]), exceptions[part])
        for part in ("noun", "verb", "adj", "adv")
    }


@lru_cache(maxsize=8192)
def look_up(text: str) -> Word:
    """A word as the tables know it, or as its ending suggests.

    Args:
        text: One token in lower case.

    Returns:
        The word with every part of speech it may be.
    """
    closed = CLOSED_TAGS.get(text)
    if closed is not None:
        return Word(text, closed, _CLOSED_VERBS.get(text, text), noun_lemma(text))
    if text[0].isdigit():
        return Word(text, Tag.NUMBER, text, text)
    plain = _without_accents(text)
    tags, verb = _listed_verb(plain)
    noun, adjective, adverb = (_tables()[part] for part in ("noun", "adj", "adv"))
    if noun.holds(plain) or noun_lemma(plain) in noun.lemmas:
        tags |= Tag.NOUN
    if adjective.holds(plain):
        tags |= Tag.ADJECTIVE
    if adverb.holds(plain):
        tags |= Tag.ADVERB
    if not tags:
        guess, verb = _unlisted_verb(plain)
        tags = guess | Tag.NOUN | (Tag(0) if guess else Tag.UNKNOWN)
    return Word(
        text=text,
        tags=tags,
        verb=text if verb == plain else verb,
        noun=noun_lemma(text) if text == plain else _singular(text),
    )


def is_compound(first: Word, second: Word) -> bool:
    """Whether two words name one thing although the first might be a verb: "frying pan"."""
    return second.noun in COMPOUNDS.get(first.text, ())


def noun_lemma(form: str) -> str:
    """Singular of a noun ("knives" -> "knife"); the form itself where it has none ("scissors")."""
    table = _tables()["noun"]
    irregular = IRREGULAR_NOUNS.get(form) or table.irregular(form)
    if irregular is not None:
        return irregular
    singulars = (
        form.removesuffix(plural) + singular
        for plural, singular in _PLURALS.items()
        if form.endswith(plural)
    )
    listed = next((noun for noun in singulars if noun in table.lemmas), None)
    return listed or (form if form in table.lemmas else _singular(form))


def base_form(form: str) -> str | None:
    """The verb of which a word is a form, None where no table holds one."""
    tag, lemma = _listed_verb(form)
    return lemma if tag else None


def irregular_gerund(verb: str) -> str | None:
    """The gerund of a verb that the spelling rules would get wrong ("lie" -> "lying")."""
    return _gerunds().get(verb)


@lru_cache(maxsize=1)
def _gerunds() -> dict[str, str]:
    forms = [
        (lemmas[0], form)
        for form, lemmas in _tables()["verb"].exceptions.items()
        if form.endswith("ing")
    ]
    # Spelling variants ("swopping" of "swap") come first and are overwritten.
    return dict(sorted(forms, key=lambda pair: pair[1].startswith(pair[0])))


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def _is_verb(lemma: str) -> bool:
    if lemma.endswith(_VERB_ENDINGS) and len(lemma) > 5:
        return True
    return lemma in MISSING_VERBS or lemma in _tables()["verb"].lemmas


def _listed_verb(form: str) -> tuple[Tag, str]:
    """Which form of which listed verb a word may be; no tag where of none."""
    irregular = _tables()["verb"].irregular(form)
    if form in BASE_AND_PAST or (irregular is None and _is_verb(form)):
        return (Tag.BASE | Tag.PAST if form in PARTICIPLE_LIKE_BASE else Tag.BASE), form
    ending = next((ending for ending in _VERB_FORMS if form.endswith(ending)), "")
    lemma = irregular or (ending and next(filter(_is_verb, _stems(form, ending)), None))
    return (_VERB_FORMS.get(ending, Tag.PAST), lemma) if lemma else (Tag(0), form)


def _stems(form: str, ending: str) -> tuple[str, ...]:
    """What a regular verb form may come from: "dicing" -> "dice", "flies" -> "fly"."""
    stem = form.removesuffix(ending)
    undoubled = stem[:-1] if stem[-2:-1] == stem[-1:] else stem
    without_e = stem.removesuffix("e")
    with_y = without_e[:-1] + "y" if without_e.endswith("i") else stem
    return (stem + "e", stem, undoubled, without_e, with_y)


def _unlisted_verb(form: str) -> tuple[Tag, str]:
    for prefix in _VERB_PREFIXES:
        stem = form.removeprefix(prefix)
        if stem != form and len(stem) > 2:
            tag, lemma = _listed_verb(stem)
            if tag:
                return tag, prefix + lemma
    return (Tag.ING, form[:-3]) if form.endswith("ing") and len(form) > 5 else (Tag(0), form)


def _singular(noun: str) -> str:
    """The singular of a noun that no table lists: "courgettes" -> "courgette"."""
    if not noun.endswith("s") or noun.endswith(("ss", "us", "is")) or len(noun) < 4:
        return noun
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if noun.endswith(("ches", "shes", "xes", "sses", "zes", "oes")):
        return noun[:-2]
    return noun[:-1]

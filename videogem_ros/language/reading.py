"""Text to words: cleaning, spaCy's tokenizer, and what each token may be."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from typing import TYPE_CHECKING

import spacy
from spacy.lang.en import English

from videogem_ros.errors import InvalidValueError
from videogem_ros.language.lexicon import look_up
from videogem_ros.language.vocabulary import COMPOUND_VERBS
from videogem_ros.language.words import Tag, Word

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Token

Reader = Callable[[str], list[Word]]
"""Reads a text into words."""

_REPLACED = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"),
        **dict.fromkeys("\u2010\u2011", "-"),
        **dict.fromkeys("\u2013\u2014()[]", ","),
        **dict.fromkeys("&+", " and "),
        "\n": ". ",
    }
)
_CLASS_NAME = re.compile(r"(?:[A-Z][a-z]+){2,}")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SLASH = re.compile(r"(?<!\d)/(?!\d)")
_LIST_NUMBER = re.compile(r"(?:(?<=\s)|^)\d+[.)](?=\s)")
_THANKS = re.compile(r"\bthank you\b")
_STOPS = re.compile(r"([.,;:!?])[.,;:!?]+")
_GLUED_STOP = re.compile(r"(?<=[^\W\d_]{2})([.;:!?])(?=[^\W\d_]{2})")  # "it.Put", not "a.b", "3.5"
_LOOSE_MARK = re.compile(r"(?<!\w)['-]+|['-]+(?!\w)")


def clean(text: str) -> str:
    """Text without what carries no words: emoji, quotes, runs of punctuation.

    Takes time linear in the length, whatever the characters; spaCy's tokenizer would not.

    Args:
        text: Any text.

    Returns:
        Lower-case letters, digits, punctuation and spaces. A class name is split at its capitals
        ("FoldingTextile" -> "folding textile").
    """
    text = _LIST_NUMBER.sub(".", text.strip())
    text = unicodedata.normalize("NFKC", text.translate(_REPLACED))
    if _CLASS_NAME.fullmatch(text):
        text = _HUMP.sub(" ", text)
    text = _SLASH.sub(" or ", text)
    text = _STOPS.sub(r"\1 ", "".join(_kept(text.lower())))
    text = _GLUED_STOP.sub(r"\1 ", text)
    return _THANKS.sub(" ", _LOOSE_MARK.sub(" ", text))


def _kept(text: str) -> Iterator[str]:
    """Each character as it is where it carries something, a space elsewhere."""
    in_word = False
    for character in text:
        kind = unicodedata.category(character)[0]
        in_word = kind in "LN" or (kind == "M" and in_word)
        yield character if in_word or character in ".,;:!?'-" else " "


class LexiconReader:
    """Reads with spaCy's English tokenizer and the lexicon; every reading of a word is kept."""

    def __init__(self) -> None:
        self._tokenizer = English().tokenizer

    def __call__(self, text: str) -> list[Word]:
        """The words of any text."""
        return _words(self._tokenizer(clean(text)), lambda token: look_up(token.text))


class PipelineReader:
    """Reads with a trained spaCy pipeline; its tags decide between the lexicon's readings.

    Args:
        name: Name or path of an installed pipeline that tags parts of speech.

    Raises:
        InvalidValueError: No such pipeline, or one that does not tag.
    """

    def __init__(self, name: str) -> None:
        try:
            self._pipeline: Language = spacy.load(name)
        except (OSError, ValueError) as error:
            raise InvalidValueError(
                "spacy_model",
                f"an installed spaCy pipeline (python -m spacy download {name})",
                repr(name),
            ) from error
        if not self._pipeline("open the drawer").has_annotation("POS"):
            raise InvalidValueError(
                "spacy_model", "a pipeline that tags parts of speech", repr(name)
            )

    def __call__(self, text: str) -> list[Word]:
        """The words of any text."""
        return _words(self._pipeline(clean(text)), _tagged)


def _words(tokens: Iterable[Token], read: Callable[[Token], Word]) -> list[Word]:
    """Tokens to words; what a hyphen joins is one word, unless it is a verb with its particle."""
    groups: list[list[Word]] = []
    hyphen = False
    for token in tokens:
        if token.is_space:
            continue
        if token.text == "-":
            hyphen = bool(groups)
            continue
        word = read(token)
        if hyphen and not (groups[-1][-1].may(Tag.VERB) and word.may(Tag.PARTICLE)):
            groups[-1].append(word)
        else:
            groups.append([word])
        hyphen = False
    return _joined_verbs(reduce(_hyphenated, group) for group in groups)


def _joined_verbs(words: Iterable[Word]) -> list[Word]:
    """Hyphenates verbs of two words ("deep fry")."""
    joined: list[Word] = []
    for word in words:
        if joined and f"{joined[-1].text}-{word.verb}" in COMPOUND_VERBS:
            joined[-1] = _hyphenated(joined[-1], word)
        else:
            joined.append(word)
    return joined


def _hyphenated(first: Word, second: Word) -> Word:
    """Two words as one, which is what its second part is."""
    return Word(
        text=f"{first.text}-{second.text}",
        tags=second.tags if second.may(Tag.OPEN) else Tag.NOUN,
        verb=f"{first.text}-{second.verb}",
        noun=f"{first.text}-{second.noun}",
    )


_NOMINAL_PARTS = {
    "NOUN": Tag.NOUN,
    "PROPN": Tag.NOUN,
    "ADJ": Tag.ADJECTIVE,
    "ADV": Tag.ADVERB,
}
_VERB_FORMS = {
    "VB": Tag.BASE,
    "VBP": Tag.BASE,
    "VBG": Tag.ING,
    "VBD": Tag.PAST,
    "VBN": Tag.PAST,
    "VBZ": Tag.THIRD,
}


def _tagged(token: Token) -> Word:
    """The word with the reading that the pipeline chose, its lemmas where it gives some."""
    word = look_up(token.text)
    if not word.may(Tag.OPEN):
        return word
    if token.pos_ == "VERB":
        form = _VERB_FORMS.get(token.tag_, word.tags & Tag.VERB or Tag.BASE)
        return Word(word.text, form, token.lemma_ or word.verb, word.noun)
    if token.pos_ in _NOMINAL_PARTS:
        return Word(word.text, _NOMINAL_PARTS[token.pos_], word.verb, token.lemma_ or word.noun)
    return word

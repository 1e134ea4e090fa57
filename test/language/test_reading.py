"""From text to words: cleaning, hyphens, and pipelines with tags of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import spacy

from videogem_ros.errors import InvalidValueError
from videogem_ros.language import candidates, parse_actions
from videogem_ros.language.reading import LexiconReader, clean

CLEANED = {
    "Pick UP the cup!": "pick up the cup!",
    "FoldingTextile": "folding textile",
    "the iPhone": "the iphone",
    "open\u00a0the \u201cdoor\u201d": "open the door",
    "don\u2019t": "don't",
    "cup/mug": "cup or mug",
    "1/2 cup": "1 2 cup",
    "salt & pepper": "salt and pepper",
    "wait... now?!": "wait. now?",
    "\uff4f\uff50\uff45\uff4e": "open",
    "sun-dried": "sun-dried",
    "jalapen\u0303o": "jalape\u00f1o",
    "😀 open 🚪": "open",
    "- open -": "open",
    "pick_up": "pick up",
}


def words(text: str) -> list[str]:
    return [word.text for word in LexiconReader()(text)]


@pytest.mark.parametrize(("text", "expected"), CLEANED.items())
def test_cleaning_keeps_what_carries_words(text: str, expected: str) -> None:
    assert " ".join(clean(text).split()) == expected


def test_a_hyphen_joins_words_but_not_a_verb_and_its_particle() -> None:
    assert words("put the sun-dried tomatoes") == ["put", "the", "sun-dried", "tomatoes"]
    assert words("pick-up the t-shirts") == ["pick", "up", "the", "t-shirts"]
    assert words("stir-fry and deep fry") == ["stir-fry", "and", "deep-fry"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A spaCy pipeline on disk whose tags differ from what the lexicon would decide."""
    tags = {
        "book": ("VERB", "VB", "book"),
        "open": ("VERB", "VB", "open"),
        "fork": ("NOUN", "NN", "fork"),
        "peeling": ("NOUN", "NN", "peel-off"),
        "poured": ("VERB", "VBN", "pour"),
        "the": ("DET", "DT", "the"),
        "drawer": ("NOUN", "NN", "drawer"),
        "table": ("NOUN", "NN", "table"),
        "quick": ("ADJ", "JJ", "quick"),
    }
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("attribute_ruler")
    for word, (part, tag, lemma) in tags.items():
        attributes = {"POS": part, "TAG": tag, "LEMMA": lemma}
        ruler.add(patterns=[[{"LOWER": word}]], attrs=attributes)
    path = tmp_path_factory.mktemp("pipeline") / "tagger"
    nlp.to_disk(path)
    return str(path)


def test_a_pipeline_decides_what_the_lexicon_leaves_open(pipeline: str) -> None:
    assert parse_actions("book table")[0].verb is None
    (action,) = parse_actions("book table", spacy_model=pipeline)
    assert (action.verb, action.object) == ("book", "table")
    assert candidates("book table", spacy_model=pipeline).verbs == ("book",)


def test_a_pipelines_lemmas_are_taken(pipeline: str) -> None:
    (action,) = parse_actions("open the peeling", spacy_model=pipeline)
    assert action.object_head == "peel-off"


def test_the_lexicon_helps_where_a_pipeline_finds_no_verb(pipeline: str) -> None:
    (action,) = parse_actions("fork the hay", spacy_model=pipeline)
    assert (action.verb, action.object) == ("fork", "hay")


@pytest.mark.parametrize("name", ["en_nothing_sm", "/nowhere/at/all", ""])
def test_a_missing_pipeline_is_an_error_that_says_how_to_get_it(name: str) -> None:
    with pytest.raises(InvalidValueError, match=f"spacy download {name}"):
        parse_actions("open the drawer", spacy_model=name)


def test_a_pipeline_without_tags_is_an_error(tmp_path: Path) -> None:
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(InvalidValueError, match="tags parts of speech"):
        parse_actions("open the drawer", spacy_model=str(tmp_path / "blank"))

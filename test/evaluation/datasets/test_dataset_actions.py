from __future__ import annotations

import pytest

from videogem_ros.core.prompts import prompts_for
from videogem_ros.evaluation.datasets.actions import described, labelled


@pytest.mark.parametrize(
    ("label", "verb", "thing", "lemmas"),
    [
        ("crack eggs", "crack", "eggs", ("crack", "egg")),
        ("pour egg whites", "pour", "egg whites", ("pour", "white")),
        ("throwing ball", "throwing", "ball", ("throw", "ball")),
        ("Playing Harmonica", "playing", "harmonica", ("play", "harmonica")),
        ("roll up", "roll", "up", ("roll", None)),
        ("Drinking", "drinking", None, ("drink", None)),
    ],
)
def test_the_first_word_of_a_label_is_the_verb(label, verb, thing, lemmas):
    action = labelled(label)
    assert (action.text, action.verb, action.object) == (label, verb, thing)
    assert (action.verb_lemma, action.object_head) == lemmas


def test_labels_make_the_papers_prompts():
    assert prompts_for(labelled("add sauce soy")).texts == (
        "A photo of a person add something.",
        "A photo of a person using sauce soy.",
        "A photo of a person add sauce soy.",
    )
    assert prompts_for(labelled("Ironing")).object == "A photo of a person."


@pytest.mark.parametrize(
    ("sentence", "pairs"),
    [
        ("boil the potatoes", [("boil", "potatoes")]),
        ("chop and cook the pancetta", [("chop", "pancetta"), ("cook", None)]),
        ("add oats to the ground beef", [("add", "oats"), (None, "ground beef")]),
        ("the red mug", [(None, "red mug")]),
        ("12 - 3!", []),
    ],
)
def test_a_sentence_names_each_candidate_once(sentence, pairs):
    actions = described(sentence)
    assert [(action.verb, action.object) for action in actions] == pairs
    assert {action.text for action in actions} <= {sentence}

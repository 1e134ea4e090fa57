"""From a data set's labels and sentences to decomposed actions."""

from __future__ import annotations

from functools import cache
from itertools import zip_longest

from videogem_ros.datatypes import Action
from videogem_ros.language import candidates, parse_actions


@cache
def labelled(text: str) -> Action:
    """The action of a label: the first word is the verb, the rest the object.

    Args:
        text: "pour egg whites", one word or more.
    """
    verb, _, thing = text.partition(" ")
    return _action(text, verb, thing or None)


@cache
def described(sentence: str) -> tuple[Action, ...]:
    """Verbs and objects of a free sentence, to choose from.

    Args:
        sentence: "chop and cook the pancetta in a pan".

    Returns:
        Actions that name each verb and each object once; which ones stand together means nothing.
        None where the sentence has neither.
    """
    found = candidates(sentence)
    return tuple(
        _action(sentence, verb, thing) for verb, thing in zip_longest(found.verbs, found.objects)
    )


def _action(text: str, verb: str | None, thing: str | None) -> Action:
    """Lemmas are the parser's; which words are verb and object is settled already."""
    verb, thing = verb and verb.lower(), thing and thing.lower()
    read = parse_actions(" ".join(part for part in (verb, thing and f"the {thing}") if part))
    return Action(
        text=text,
        phrase=text.lower(),
        verb=verb,
        verb_lemma=(read and read[0].verb_lemma) or verb if verb else None,
        object=thing,
        object_head=read[0].object_head if read and thing else None,
    )

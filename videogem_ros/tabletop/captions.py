"""Texts about tabletop scenes, each with what it claims, so that a scene can confirm it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from videogem_ros.core.presence import PresenceConfig
from videogem_ros.core.prompts import PromptConfig
from videogem_ros.tabletop.vocabulary import KINDS, MATERIALS, SIZES, VERBS


@dataclass(frozen=True)
class Thing:
    """An object as words tell it apart.

    Attributes:
        kind: Key of ``KINDS``.
        colour: Key of ``COLOURS``.
        size: Key of ``SIZES``.
        material: Key of ``MATERIALS``.
    """

    kind: str
    colour: str
    size: str
    material: str


@dataclass(frozen=True)
class Claim:
    """What a text says of a scene; None where it says nothing.

    A claim without a verb and without an attribute of the object is never made.
    """

    verb: str | None = None
    kind: str | None = None
    colour: str | None = None
    size: str | None = None
    material: str | None = None

    def fits(self, verb: str | None, thing: Thing) -> bool:
        """Whether it is true of what is done to a thing; ``verb`` None where nothing is."""
        said = (self.kind, self.colour, self.size, self.material)
        found = (thing.kind, thing.colour, thing.size, thing.material)
        same = all(word is None or word == other for word, other in zip(said, found))
        return same and self.verb in (None, verb)


@dataclass(frozen=True)
class Caption:
    """A text and what it claims.

    Attributes:
        text: As a user would say it, or as a prompt template puts it.
        claim: What it says.
    """

    text: str
    claim: Claim


NOTHING = PresenceConfig().neutral
"""Texts of a scene in which nothing is done: the neutral prompts of the presence score."""

TEMPLATES = PromptConfig()
FREE_FORMS = {
    "verb": ("{}", "someone is about to {} something", "{} something", "a hand: {}"),
    "object": ("{}", "the {}", "a photo of the {}", "a hand at the {}"),
    "action": ("{}", "please {}", "a hand on a table: {}", "{} on the table"),
}
"""What people say instead of the template of a verb, an object or an action."""


def noun_phrase(claim: Claim, random: np.random.Generator | None = None) -> str:
    """The object of a claim in words, without an article: "large red wooden cup".

    Args:
        claim: Of a kind at least.
        random: Draws among synonyms; the plainest words where None.
    """
    tables = (
        (claim.size, SIZES),
        (claim.colour, None),
        (claim.material, MATERIALS),
        (claim.kind, KINDS),
    )
    words = (
        key if table is None else _one(table[key], random)
        for key, table in tables
        if key is not None
    )
    return " ".join(words)


def verb_phrase(verb: str, random: np.random.Generator | None = None) -> str:
    """A way to say the verb, with ``{}`` for its object."""
    return _one(VERBS[verb].phrases, random)


def action_text(claim: Claim, random: np.random.Generator | None = None) -> str:
    """The command of a claim, "pick up the red mug"; the plainest words where random is None."""
    if claim.verb is None:
        raise ValueError("a command needs a verb")
    return verb_phrase(claim.verb, random).format(f"the {noun_phrase(claim, random)}")


def paraphrases(claim: Claim, count: int, random: np.random.Generator) -> tuple[str, ...]:
    """Up to ``count`` different commands for a claim, the plainest first."""
    texts = {action_text(claim): None}
    for _ in range(8 * count):
        if len(texts) == count:
            break
        texts[action_text(claim, random)] = None
    return tuple(texts)


def caption(claim: Claim, random: np.random.Generator) -> Caption:
    """A text for a claim: in the template's words half of the time, else in free ones.

    The form follows from the claim: with verb and object an action, else one of both alone.
    """
    if claim.verb is None:
        form, words, template = "object", noun_phrase(claim, random), TEMPLATES.object
    elif claim.kind is None:
        form, words = "verb", _bare_verb(claim.verb, random)
        template = TEMPLATES.verb
    else:
        form, words, template = "action", action_text(claim, random), TEMPLATES.action
    if random.random() < 0.5:
        return Caption(template.format(**{form: words}), claim)
    return Caption(_one(FREE_FORMS[form], random).format(words), claim)


def true_of(claim: Claim, performed: Iterable[tuple[str | None, Thing]]) -> list[int]:
    """Places among (verb, thing) pairs of which a claim is true."""
    return [index for index, (verb, thing) in enumerate(performed) if claim.fits(verb, thing)]


def _bare_verb(verb: str, random: np.random.Generator) -> str:
    """The verb with its particle: "pick up", "slide away"."""
    return " ".join(verb_phrase(verb, random).replace("{}", " ").split())


def _one(words: tuple[str, ...], random: np.random.Generator | None) -> str:
    return words[0] if random is None else words[int(random.integers(len(words)))]

"""Prompt decomposition: an action becomes a verb, an object and an action prompt."""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter

from videogem_ros.datatypes import Action, Prompts
from videogem_ros.errors import InvalidValueError, check_choice

VERB_FORMS = ("base", "gerund")

_FIELDS = {
    "verb": {"verb"},
    "object": {"object"},
    "action": {"action"},
    "no_verb": set(),
    "no_object": set(),
}


@dataclass(frozen=True)
class PromptConfig:
    """Templates of the three prompts; the defaults are VideoGEM's.

    Attributes:
        verb: Holds ``{verb}``.
        object: Holds ``{object}``.
        action: Holds ``{action}``.
        no_verb: Stands in for the verb prompt of an action without a verb.
        no_object: Stands in for the object prompt of an action without an object.
        verb_form: "base" takes verb and action as they were said, as the paper does ("pour");
            "gerund" inflects the verb ("pouring"), which reads as English in these templates.

    Raises:
        InvalidValueError: A template lacks its field or holds another one; an unknown verb form.
    """

    verb: str = "A photo of a person {verb} something."
    object: str = "A photo of a person using {object}."
    action: str = "A photo of a person {action}."
    no_verb: str = "A photo of a person doing something."
    no_object: str = "A photo of a person."
    verb_form: str = "base"

    def __post_init__(self) -> None:
        for name, fields in _FIELDS.items():
            template = getattr(self, name)
            try:
                found = {
                    field for _, field, _, _ in Formatter().parse(template) if field is not None
                }
                if found == fields:
                    template.format(**dict.fromkeys(fields, "word"))
            except (ValueError, LookupError) as error:
                raise InvalidValueError(f"prompts.{name}", "a template", repr(template)) from error
            if found != fields:
                wanted = " and ".join(f"{{{field}}}" for field in fields) or "no field"
                raise InvalidValueError(f"prompts.{name}", f"a template with {wanted}", template)
        check_choice("prompts.verb_form", self.verb_form, VERB_FORMS)


def prompts_for(action: Action, config: PromptConfig | None = None) -> Prompts:
    """The three prompt texts of an action.

    Args:
        action: The decomposed action.
        config: Templates; VideoGEM's where None.

    Returns:
        The filled templates.
    """
    config = config or PromptConfig()
    verb, phrase = action.verb, action.phrase
    if verb is not None and config.verb_form == "gerund":
        from videogem_ros.language.inflection import gerund  # noqa: PLC0415 - not in base form

        phrase = _replace_first_words(phrase, verb, gerund(verb))
        verb = gerund(verb)
    return Prompts(
        verb=config.no_verb if verb is None else config.verb.format(verb=verb),
        object=(
            config.no_object
            if action.object is None
            else config.object.format(object=action.object)
        ),
        action=config.action.format(action=phrase),
    )


def _replace_first_words(phrase: str, verb: str, inflected: str) -> str:
    """The phrase with its leading verb inflected; a separated particle stays where it stands."""
    head, inflected_head = verb.partition(" ")[0], inflected.partition(" ")[0]
    words = phrase.split()
    if head in words:
        words[words.index(head)] = inflected_head
    return " ".join(words)

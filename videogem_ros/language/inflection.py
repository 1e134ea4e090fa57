"""English verb inflection, for prompts that want "pouring" rather than "pour"."""

from __future__ import annotations

from functools import lru_cache

_PREFIXES = ("un", "re")


@lru_cache(maxsize=4096)
def gerund(verb_phrase: str) -> str:
    """The phrase with its first word, a verb, as a gerund; what follows stays.

    Args:
        verb_phrase: A verb in base form with whatever follows it ("pick up", "cut the bread").

    Returns:
        The inflected phrase ("picking up", "cutting the bread"); a phrase that starts with a
        gerund already, or an empty one, comes back as it is.
    """
    verb, space, rest = verb_phrase.partition(" ")
    return _gerund(verb) + space + rest


def _gerund(verb: str) -> str:
    from videogem_ros.language.lexicon import base_form, irregular_gerund  # noqa: PLC0415 - spaCy

    first, hyphen, last = verb.rpartition("-")
    if hyphen and last:
        return first + hyphen + _gerund(last)
    irregular = irregular_gerund(verb)
    if irregular is not None:
        return irregular
    if not verb.isalpha() or (verb.endswith("ing") and base_form(verb) != verb):
        return verb
    for prefix in _PREFIXES:
        rest = verb.removeprefix(prefix)
        if rest != verb and base_form(rest) == rest:
            return prefix + _gerund(rest)  # "unzip", but not "render"
    return _regular_gerund(verb)


def _regular_gerund(verb: str) -> str:
    """The gerund by spelling rules: "dice" -> "dicing", "zip" -> "zipping"."""
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    vowels = [letter in "aeiou" or (letter == "y" and i > 0) for i, letter in enumerate(verb)]
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")) and any(vowels[:-1]):
        return verb[:-1] + "ing"
    one_syllable = sum(vowels) == 1 and len(vowels) > 2
    closed = vowels[-2:] == [True, False] and verb[-1] not in "wxy"
    return verb + (verb[-1] if one_syllable and closed else "") + "ing"

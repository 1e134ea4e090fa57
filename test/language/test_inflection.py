"""Gerunds, against the English of dictionaries."""

from __future__ import annotations

import subprocess
import sys

import pytest

from videogem_ros.language.inflection import gerund

GERUNDS = {
    "pour": "pouring",
    "pick up": "picking up",
    "turn the tap off": "turning the tap off",
    "cut": "cutting",
    "put": "putting",
    "lie": "lying",
    "tie": "tying",
    "open": "opening",
    "place": "placing",
    "see": "seeing",
    "dye": "dyeing",
    "be": "being",
    "run": "running",
    "travel": "travelling",
    "refer": "referring",
    "visit": "visiting",
    "panic": "panicking",
    "fix": "fixing",
    "show": "showing",
    "play": "playing",
    "bring": "bringing",
    "sing": "singing",
    "swap": "swapping",
    "knit": "knitting",
    "quit": "quitting",
    "ski": "skiing",
    "carry": "carrying",
    "unplug": "unplugging",
    "refill": "refilling",
    "reset": "resetting",
    "resubmit": "resubmitting",
    "render": "rendering",
    "redden": "reddening",
    "type": "typing",
    "cycle": "cycling",
    "recycle": "recycling",
    "yank": "yanking",
    "zip": "zipping",
    "hoover": "hoovering",
    "squidge": "squidging",
    "sauté": "sautéing",
    "deep-fry": "deep-frying",
}


@pytest.mark.parametrize(("verb", "expected"), GERUNDS.items())
def test_the_verb_becomes_a_gerund(verb: str, expected: str) -> None:
    assert gerund(verb) == expected


@pytest.mark.parametrize("phrase", ["", "picking up", "squidging dough", "3d print", "-"])
def test_what_is_a_gerund_or_no_verb_stays(phrase: str) -> None:
    assert gerund(phrase) == phrase


def test_importing_it_imports_neither_spacy_nor_torch() -> None:
    code = (
        "import sys, videogem_ros.language.inflection, videogem_ros.core.prompts\n"
        "sys.exit(any(name in sys.modules for name in ('spacy', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

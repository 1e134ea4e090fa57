"""``videogem-ros decompose``: what the parser makes of action text, and how often it is right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from videogem_ros.cli.console import result_console
from videogem_ros.core.prompts import VERB_FORMS, PromptConfig, prompts_for
from videogem_ros.datatypes import Action, Prompts
from videogem_ros.errors import InvalidValueError

if TYPE_CHECKING:
    from videogem_ros.language.scoring import Score


@click.command(short_help="Split action text into verb, object and prompts.")
@click.argument("text", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one list of actions.")
@click.option(
    "--verb-form",
    type=click.Choice(VERB_FORMS),
    default=PromptConfig.verb_form,
    show_default=True,
    help="Verb in the prompts: base form, as in the paper, or inflected (pouring).",
)
@click.option(
    "--spacy-model",
    metavar="NAME",
    help="spaCy pipeline to take part-of-speech tags from.  [default: the built-in parser]",
)
@click.option(
    "--score",
    metavar="FILE.csv",
    type=click.Path(path_type=Path),
    help="Score the parser on a file with the columns narration, verb and object_head.",
)
@click.option(
    "--errors",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Below the score, show the first N rows that differ.",
)
def decompose(
    text: tuple[str, ...],
    as_json: bool,
    verb_form: str,
    spacy_model: str | None,
    score: Path | None,
    errors: int,
) -> None:
    """Split action TEXT into actions, each with verb, object and prompts, or score the parser."""
    from videogem_ros.language import parser_for
    from videogem_ros.language.scoring import score_file

    said = " ".join(text)
    if bool(said) == (score is not None) or (errors and score is None):
        raise click.UsageError("give either TEXT or --score FILE.csv, optionally with --errors")
    parser = parser_for(spacy_model)
    if score is not None:
        _print_score(score_file(score, parser.parse), errors)
        return
    actions = parser.parse(said)
    if not actions:
        raise InvalidValueError("text", "words", repr(said))
    prompts = [prompts_for(action, PromptConfig(verb_form=verb_form)) for action in actions]
    if as_json:
        plain = [
            asdict(action) | {"prompts": asdict(its)} for action, its in zip(actions, prompts)
        ]
        click.echo(json.dumps(plain, ensure_ascii=False, indent=2))
    else:
        _print_table(actions, prompts)


def _print_score(score: Score, errors: int) -> None:
    for name, percent in (("verb", score.verb), ("object", score.object), ("both", score.both)):
        click.echo(f"{name} {percent:.1f} %")
    for miss in score.misses[:errors]:
        expected, found = (
            " + ".join(name or "-" for name in pair) for pair in (miss.expected, miss.found)
        )
        click.echo(f"{miss.narration}: expected {expected}, found {found}")


def _print_table(actions: Sequence[Action], prompts: Sequence[Prompts]) -> None:
    table = Table("", "found", "prompt", box=None, padding=(0, 2, 0, 0))
    for action, its in zip(actions, prompts):
        table.add_row("verb", action.verb or "-", its.verb)
        table.add_row("object", action.object or "-", its.object)
        table.add_row("action", action.phrase, its.action, end_section=True)
    result_console().print(table)

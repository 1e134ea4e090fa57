"""How often the parser finds the verb and the object that annotators found."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from videogem_ros.datatypes import Action
from videogem_ros.errors import InvalidValueError, reason

COLUMNS = ("narration", "verb", "object_head")


@dataclass(frozen=True)
class Miss:
    """One row on which parser and annotator disagree; "" where either found nothing.

    Attributes:
        narration: The text.
        expected: Lemmas of the annotated verb and object head.
        found: Lemmas of the first action that the parser found.
    """

    narration: str
    expected: tuple[str, str]
    found: tuple[str, str]


@dataclass(frozen=True)
class Score:
    """Agreement over a file.

    Attributes:
        rows: Rows that were compared.
        misses: The rows on which verb or object differ.
    """

    rows: int
    misses: tuple[Miss, ...]

    @property
    def verb(self) -> float:
        """Share of rows with the right verb, in percent."""
        return self._percent(miss.found[0] != miss.expected[0] for miss in self.misses)

    @property
    def object(self) -> float:
        """Share of rows with the right object head (or rightly none), in percent."""
        return self._percent(miss.found[1] != miss.expected[1] for miss in self.misses)

    @property
    def both(self) -> float:
        """Share of rows with both right, in percent."""
        return self._percent(True for _ in self.misses)

    def _percent(self, wrong: Iterator[bool]) -> float:
        return 100.0 * (self.rows - sum(wrong)) / self.rows


def score_file(path: Path, parse: Callable[[str], tuple[Action, ...]]) -> Score:
    """Compares the first action of every narration with its annotation.

    Args:
        path: A CSV file with the columns narration, verb and object_head (lemmas; empty where
            there is no object).
        parse: The parser.

    Returns:
        The score.

    Raises:
        InvalidValueError: The file cannot be read, lacks a column, or holds no rows.
    """
    misses = []
    rows = 0
    for narration, *expected in _rows(path):
        rows += 1
        actions = parse(narration)
        first = actions[0] if actions else None
        found = (first.verb_lemma, first.object_head) if first else (None, None)
        miss = Miss(
            narration,
            (expected[0].lower(), expected[1].lower()),
            ((found[0] or "").lower(), (found[1] or "").lower()),
        )
        if miss.found != miss.expected:
            misses.append(miss)
    if not rows:
        raise InvalidValueError("score", "a file with rows below its header", str(path))
    return Score(rows, tuple(misses))


def _rows(path: Path) -> Iterator[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InvalidValueError(
                    "score",
                    f"columns {', '.join(COLUMNS)}",
                    f"{path} without {', '.join(missing)}",
                )
            for row in reader:
                yield [(row[name] or "").strip() for name in COLUMNS]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        got = f"{path} ({reason(error)})"
        raise InvalidValueError("score", "a readable CSV file", got) from error

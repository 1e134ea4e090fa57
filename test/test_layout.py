"""The layout in README.md: imports point upwards in its list, and no adapter imports another."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tiny import ROOT

PACKAGE = "videogem_ros"


def layers() -> dict[str, int]:
    """The line of the layout that each module or folder of the package stands in."""
    layout = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Layout")[2]
    lines = re.findall(r"^    ((?:\w+/?(?:, )?)+) {2,}", layout, re.MULTILINE)
    return {name.strip("/"): row for row, line in enumerate(lines) for name in line.split(", ")}


def imports() -> Iterator[tuple[Path, list[str], list[str]]]:
    """The file, its own module and an imported one, both as parts of names within the package."""
    for path in (ROOT / PACKAGE).rglob("*.py"):
        own = [*path.relative_to(ROOT / PACKAGE).with_suffix("").parts]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for top, *other in (name.split(".") for name in names):
                if top == PACKAGE and other:
                    yield path, own, other


def test_every_module_stands_in_the_layout() -> None:
    there = {path.stem for path in (ROOT / PACKAGE).iterdir() if path.suffix in ("", ".py")}
    assert layers().keys() == {name for name in there if not name.startswith("_")}


def test_imports_point_upwards() -> None:
    row = layers()
    downwards = [
        f"{path.relative_to(ROOT)} imports {'.'.join(other)}"
        for path, own, other in imports()
        if own[0] in row and other[0] in row and row[other[0]] > row[own[0]]
    ]
    assert not downwards


def test_no_adapter_imports_another() -> None:
    across = [
        f"{path.relative_to(ROOT)} imports {'.'.join(other)}"
        for path, own, other in imports()
        if own[0] == other[0] == "adapters" and own[1] != other[1]
    ]
    assert not across

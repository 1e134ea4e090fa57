"""Action text to verb, object and action phrases.

Names are imported when first used: spaCy takes its time, and prompts need no parser.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from videogem_ros.language.inflection import gerund
    from videogem_ros.language.parser import (
        Candidates,
        Parser,
        candidates,
        parse_actions,
        parser_for,
    )

__all__ = ["Candidates", "Parser", "candidates", "gerund", "parse_actions", "parser_for"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "inflection" if name == "gerund" else "parser"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)

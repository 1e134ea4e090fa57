"""What stands on the table, what is done there, and how people say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MOTION, POSE = "motion", "pose"
"""What tells an action apart: how it moves, or one look at the hand."""


@dataclass(frozen=True)
class Verb:
    """A thing that hands do.

    Attributes:
        name: Base form, the key of :data:`VERBS`.
        phrases: Ways to say it, ``{}`` stands for the object; the plainest first.
        decided_by: :data:`MOTION` where another verb has the same poses, else :data:`POSE`.
        twin: The verb with the same poses.
        kinds: Kinds of object it is done to; any where empty.
    """

    name: str
    phrases: tuple[str, ...]
    decided_by: str = POSE
    twin: str | None = None
    kinds: tuple[str, ...] = ()


_MOVABLE = ("cup", "bowl", "plate", "bottle", "can", "block", "book", "sponge", "box")

VERBS: Mapping[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb("push", ("push {}", "shove {}", "slide {} away"), MOTION, "pull", _MOVABLE),
        Verb("pull", ("pull {}", "drag {}", "tug {}"), MOTION, "push", _MOVABLE),
        Verb("lift", ("lift {}", "raise {}", "pick up {}"), MOTION, "lower", _MOVABLE),
        Verb("lower", ("lower {}", "set down {}", "put down {}"), MOTION, "lift", _MOVABLE),
        Verb("open", ("open {}", "uncover {}"), MOTION, "close", ("box", "drawer")),
        Verb("close", ("close {}", "shut {}"), MOTION, "open", ("box", "drawer")),
        Verb("rotate", ("rotate {}", "turn {}", "spin {}"), MOTION, "hold", _MOVABLE),
        Verb("hold", ("hold {}", "grip {}", "grasp {}"), MOTION, "rotate", _MOVABLE),
        Verb("press", ("press {}", "tap {}", "poke {}"), kinds=_MOVABLE),
        Verb("pour", ("pour {}", "empty {}", "tip {}"), kinds=("cup", "bottle", "can", "bowl")),
        Verb("wipe", ("wipe {}", "clean {}", "scrub {}"), kinds=_MOVABLE),
    )
}

KINDS: Mapping[str, tuple[str, ...]] = {
    "cup": ("cup", "mug"),
    "bowl": ("bowl", "dish"),
    "plate": ("plate", "saucer"),
    "bottle": ("bottle", "flask"),
    "can": ("can", "tin"),
    "box": ("box", "container"),
    "drawer": ("drawer", "cabinet"),
    "block": ("block", "cube"),
    "book": ("book", "notebook"),
    "sponge": ("sponge", "pad"),
}
"""Nouns of every kind of object, the plainest first."""

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (205, 45, 40),
    "green": (50, 150, 65),
    "blue": (45, 85, 200),
    "yellow": (228, 200, 50),
    "orange": (235, 130, 35),
    "purple": (130, 60, 160),
    "white": (232, 232, 228),
    "black": (42, 42, 46),
}
"""Middle RGB of every colour; objects vary around it."""

SIZES: Mapping[str, tuple[str, ...]] = {"small": ("small", "little"), "large": ("large", "big")}
MATERIALS: Mapping[str, tuple[str, ...]] = {
    "plastic": ("plastic",),
    "wood": ("wooden",),
    "metal": ("metal", "steel"),
}

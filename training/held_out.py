"""Scenes that training never sees, grounded like a user's images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pool import easier

from videogem_ros.adapters.bag.tabletop import labels
from videogem_ros.core import Grounder, GroundingConfig
from videogem_ros.core.backbones import Backbone
from videogem_ros.datatypes import Action, Frame, Grounding, Window
from videogem_ros.evaluation import metrics
from videogem_ros.evaluation.metrics import judge, judge_centre
from videogem_ros.evaluation.records import CENTRE, Box
from videogem_ros.language import parse_actions
from videogem_ros.tabletop.captions import Claim, Thing, action_text
from videogem_ros.tabletop.clip import Clip, make_clip
from videogem_ros.tabletop.scene import SceneConfig, draw_scene
from videogem_ros.tabletop.vocabulary import VERBS

SEED = 977
TWINS = 0.5
"""Probability of twins in clips."""
EMPTY = 0.2
"""Probability of a clip without actions."""
CERTAIN = float(np.finfo(np.float32).eps)
"""Smallest distance of a score from 0 and 1, below which it is clamped."""


@dataclass(frozen=True, eq=False)
class Question:
    """An action to ground in a window.

    Attributes:
        action: The action.
        box: x1 y1 x2 y2 of the action in the newest frame; None if it does not happen.
        groups: Prefixes of the results that it counts for.
    """

    action: Action
    box: Box | None
    groups: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Windows and their questions."""

    windows: tuple[tuple[Window, tuple[Question, ...]], ...]

    @classmethod
    def draw(cls, scenes: int, frames: int = 1, easy: bool = False) -> HeldOut:
        """Draw scenes with a separate seed.

        Args:
            scenes: Number of scenes.
            frames: T, frames of each window; with more than one, some scenes have twins.
            easy: Scenes with one or two actions, few distractors and a plain table.
        """
        config = SceneConfig(twins=TWINS if frames > 1 else 0.0)
        config = easier(config) if easy else config
        return cls(tuple(_ask(place, frames, config) for place in range(scenes)))

    @classmethod
    def like_recordings(cls, clips: int, frames: int = 1) -> HeldOut:
        """Clips as drawn by ``videogem-ros tabletop``, one in five without any action.

        Args:
            clips: Number of clips.
            frames: T, frames of each window; 1: the last frame only.
        """
        config = SceneConfig(empty=EMPTY)
        drawn = (
            make_clip(np.random.default_rng([SEED, 1, place]), config=config, sampled=frames)
            for place in range(clips)
        )
        return cls(tuple(map(_commands_of, drawn)))

    def ask(self, backbone: Backbone) -> Iterator[tuple[Window, Question, Grounding]]:
        """Every question and its answer."""
        grounder = Grounder(backbone, GroundingConfig())
        for window, questions in self.windows:
            found = grounder.ground(window, [question.action for question in questions])
            for question, grounding in zip(questions, found):
                yield window, question, grounding

    def margins(self, backbone: Backbone) -> tuple[list[float], list[bool]]:
        """Presence margins of a backbone with unfitted scores, and whether each action happens."""
        asked = [(found.score, question.box) for _, question, found in self.ask(backbone)]
        # Scores that were rounded to 0 or 1 are clamped, so that margins stay finite.
        scores = (min(max(score, CERTAIN), 1 - CERTAIN) for score, _ in asked)
        return [math.log(score / (1 - score)) for score in scores], [
            box is not None for _, box in asked
        ]

    def check(self, backbone: Backbone) -> dict[str, float]:
        """Pointing accuracy of each prompt and the centre, and the presence score's AUC, by group.

        Groups are prefixes of names: "" for everything and, for clips, "motion_" for actions that
        only motion identifies and "twins_" for actions whose twin is performed on an object that
        looks the same in the same clip.
        """
        hits: dict[str, list[bool]] = {}
        scores: dict[str, tuple[list[float], list[float]]] = {}
        for window, question, grounding in self.ask(backbone):
            for group in question.groups:
                pair = scores.setdefault(f"{group}auc", ([], []))
                pair[question.box is not None].append(grounding.score)
            if question.box is None:
                continue
            outcomes = {
                name: judge((point.x, point.y), None, [question.box], window.hw)
                for name, point in grounding.points.items()
            }
            outcomes[CENTRE] = judge_centre([question.box], window.hw)
            for name, outcome in outcomes.items():
                for group in question.groups:
                    hits.setdefault(group + name, []).append(bool(outcome.hit))
        result = {name: round(float(np.mean(values)), 4) for name, values in hits.items()}
        return result | {
            name: round(area_under_curve(*both), 4) for name, both in scores.items() if all(both)
        }


def area_under_curve(negative: list[float], positive: list[float]) -> float:
    """Probability that a positive scores above a negative; ties count half."""
    present = np.arange(len(negative) + len(positive)) >= len(negative)
    return float(metrics.area_under_curve(np.array(negative + positive), present)[0])


def _ask(place: int, frames: int, config: SceneConfig) -> tuple[Window, tuple[Question, ...]]:
    random = np.random.default_rng([SEED, place])
    scene = draw_scene(random, config)
    times = np.linspace(0, 1, frames) if frames > 1 else random.uniform(0.2, 0.8, 1)
    view = scene.render([float(time) for time in times])
    window = Window(
        tuple(Frame(image, 100_000_000 * index) for index, image in enumerate(view.images))
    )
    pairs = list(zip(scene.verbs, scene.things))
    questions = []
    for row, (verb, thing) in enumerate(pairs):
        if verb is None:
            continue
        twin = VERBS[verb].twin
        groups = ["", *(["motion_"] if frames > 1 and twin else [])]
        if (twin, thing) in pairs:
            groups.append("twins_")
        elif frames > 1 and twin:
            questions.append(_question(twin, thing, None, "motion_"))
        x1, y1, x2, y2 = view.action_boxes[-1, row].tolist()
        questions.append(_question(verb, thing, (x1, y1, x2, y2), *groups))
        # The same verb on the object of another action, unless its verb is the same or the twin.
        for other_verb, other in pairs:
            if other_verb is not None and other_verb not in (verb, twin):
                questions.append(_question(verb, other, None, ""))
                break
    return window, tuple(questions)


def _commands_of(clip: Clip) -> tuple[Window, tuple[Question, ...]]:
    return clip.window(), tuple(
        Question(parse_actions(label.action)[0], label.box, ("",)) for label in labels(clip, -1)
    )


def _question(verb: str, thing: Thing, box: Box | None, *groups: str) -> Question:
    claim = Claim(verb, thing.kind, thing.colour)
    return Question(parse_actions(action_text(claim))[0], box, groups)

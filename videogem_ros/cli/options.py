"""The options that configure grounding, and what is built from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from videogem_ros.cli.console import status
from videogem_ros.cli.decorators import Command, add_options
from videogem_ros.cli.numbers import LONGEST_S, FiniteRange
from videogem_ros.core.configuration import (
    CUDA_GRAPHS,
    FUSIONS,
    RESIZES,
    SCOPES,
    SHIPPED,
    USUAL,
    WEIGHTINGS,
    GroundingConfig,
    backbone_name,
)
from videogem_ros.core.prompts import VERB_FORMS
from videogem_ros.errors import InvalidValueError
from videogem_ros.live.topics import NODE_NAME
from videogem_ros.window import WindowConfig

if TYPE_CHECKING:
    from videogem_ros.core import Backbone, Grounder
    from videogem_ros.live.parameters import Parameters
    from videogem_ros.session import Session

_GROUNDING, _WINDOW = GroundingConfig(), WindowConfig()

_FIELDS = ("weighting", "fusion", "resize", "self_self_scope")
"""Options that are fields of GroundingConfig and parameters of the same name."""


def _take_config(
    context: click.Context, _: click.Parameter, path: Path | None
) -> Parameters | None:
    """Reads a parameter file, whose values become the defaults of the corresponding options."""
    if path is None:
        return None
    from videogem_ros.live.parameters import Parameters, load_parameter_file, take_common

    values = load_parameter_file(path)
    if not values:
        warn(f"{path} holds no parameters of /{NODE_NAME}")
    take_common(values)
    parameters = Parameters.from_mapping(values)
    defaults = {option: parameters[name] for option, name in _PARAMETERS.items()}
    defaults["image_hw"] = parameters.grounding_config().image_hw
    context.default_map = {
        **(context.default_map or {}),
        **{option: value for option, value in defaults.items() if value not in ("", None)},
    }
    return parameters


_PARAMETERS = {
    **{name: name for name in ("backbone", "weights", "device", "dtype", "cuda_graphs")},
    **{name: name for name in _FIELDS},
    "verb_form": "prompts.verb_form",
    "threshold": "presence.threshold",
    "frame_interval_s": "window.frame_interval_s",
    "start": "window.start",
}
"""Options and the corresponding parameters."""

_OPTIONS = (
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        is_eager=True,
        callback=_take_config,
        help="ROS 2 parameter file, such as config/ground.yaml or one written by tune: model, "
        "layer and fusion weights, prompts, presence and, for replay and ground, windows and "
        "text parsing. Options take precedence.",
    ),
    click.option(
        "--backbone",
        metavar="NAME",
        help="openclip:MODEL (an open_clip model name or .json configuration), viclip:B-16, "
        "viclip:L-14, or openclip:tabletop or viclip:tabletop, which are part of the package and "
        f"know only its drawn scenes.  [default: {SHIPPED}; {USUAL} if weights are given]",
    ),
    click.option(
        "--weights",
        metavar="WEIGHTS",
        help="Published tag, weight file, or random:SEED for an untrained model.  [default: the "
        "backbone's usual ones]",
    ),
    click.option("--device", help="cpu, cuda, cuda:1, ...  [default: cuda if available]"),
    click.option(
        "--dtype", default="float32", show_default=True, help="float32, bfloat16 or float16."
    ),
    click.option(
        "--cuda-graphs",
        type=click.Choice(CUDA_GRAPHS),
        default=CUDA_GRAPHS[0],
        show_default=True,
        help="Whether to record passes of the vision tower as CUDA graphs and replay them; no "
        "result changes.",
    ),
    click.option(
        "--weighting",
        type=click.Choice(WEIGHTINGS),
        default=_GROUNDING.weighting,
        show_default=True,
        help="Layer weighting; uniform is GEM, static+dynamic VideoGEM.",
    ),
    click.option(
        "--fusion",
        type=click.Choice(FUSIONS),
        default=_GROUNDING.fusion,
        show_default=True,
        help="Whether the prompts' points or their heatmaps are averaged.",
    ),
    click.option(
        "--resize",
        type=click.Choice(RESIZES),
        default=_GROUNDING.resize,
        show_default=True,
        help="How to resize a frame to the network's input size.",
    ),
    click.option(
        "--self-self-scope",
        type=click.Choice(SCOPES),
        default=_GROUNDING.self_self_scope,
        show_default=True,
        help="What a video backbone's patch attends to in the self-self path: the whole window "
        "or, as an approximation in 0.6 to 0.7 of the time, its own frame.",
    ),
    click.option(
        "--image-hw",
        type=click.IntRange(1),
        nargs=2,
        metavar="H W",
        help="Size of the network's input in pixels.  [default: the backbone's]",
    ),
    click.option(
        "--verb-form",
        type=click.Choice(VERB_FORMS),
        default=_GROUNDING.prompts.verb_form,
        show_default=True,
        help="Verb in the prompts: base form, or inflected (pouring).",
    ),
    click.option(
        "--threshold",
        type=FiniteRange(0, 1),
        metavar="SCORE",
        default=_GROUNDING.presence.threshold,
        show_default=True,
        help="Lowest score at which an action counts as present.",
    ),
    click.option(
        "--frame-interval-s",
        type=FiniteRange(0, LONGEST_S, min_open=True),
        metavar="S",
        default=_WINDOW.frame_interval_s,
        show_default=True,
        help="Seconds between the frames of a video backbone's window.",
    ),
    click.option(
        "--start",
        type=click.Choice(("fill", "wait")),
        default=_WINDOW.start,
        show_default=True,
        help="Until a window is full: fill it with its oldest frame, or wait.",
    ),
)


def grounding_options(command: Command) -> Command:
    """Adds the options; the command takes them as ``**grounding`` for :func:`load_session`."""
    return add_options(command, _OPTIONS)


def load_session(grounding: Mapping[str, Any]) -> tuple[Session, Grounder]:
    """Loads the backbone and opens a session with it, as configured by the options.

    Raises:
        VideoGemError: An option's value is not valid, or the weights cannot be loaded.
    """
    from videogem_ros.language import parse_actions
    from videogem_ros.session import Session, SessionConfig

    parameters: Parameters | None = grounding["config"]
    windows = replace(
        parameters.session_config() if parameters else SessionConfig(),
        **{name: grounding[name] for name in ("frame_interval_s", "start")},
    )
    grounder = load_grounder(grounding)
    return Session(grounder, windows, parameters.parse if parameters else parse_actions), grounder


def set_actions(session: Session, texts: Iterable[str]) -> None:
    """Gives a session the texts of ``--action``.

    Raises:
        InvalidValueError: None of them can be grounded; empty ones, which would stop a live node,
            cannot either.
    """
    if not session.set_actions(texts):
        raise InvalidValueError("--action", "a text with words", "nothing but spaces")


def load_grounder(grounding: Mapping[str, Any]) -> Grounder:
    """Loads the backbone and makes a grounder with it, as configured by the options.

    Raises:
        VideoGemError: As for :func:`load_session`.
    """
    import torch

    from videogem_ros.core import Grounder, load_backbone

    parameters: Parameters | None = grounding["config"]
    config = parameters.grounding_config() if parameters else _GROUNDING
    config = replace(
        config,
        **{name: grounding[name] for name in (*_FIELDS, "image_hw")},
        prompts=replace(config.prompts, verb_form=grounding["verb_form"]),
        presence=replace(config.presence, threshold=grounding["threshold"]),
    )
    device = grounding["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    name = backbone_name(grounding["backbone"], grounding["weights"])
    with status(f"loading {name}"):
        backbone = load_backbone(name, grounding["weights"], device, grounding["dtype"])
    return Grounder(backbone, config, cuda_graphs=grounding["cuda_graphs"])


def warn_of(backbone: Backbone) -> None:
    """Writes warnings about a backbone's points and dtype, if there are any, to stderr."""
    from videogem_ros.core import caveat
    from videogem_ros.core.hardware import slowness

    tower = backbone.tower
    for said in (caveat(backbone), slowness(tower.class_embedding.device, tower.dtype)):
        if said:
            warn(said)


def warn(text: str) -> None:
    """Writes a warning to standard error."""
    click.secho(f"warning: {text}", fg="yellow", bold=True, err=True)

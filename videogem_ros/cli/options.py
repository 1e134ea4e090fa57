"""The options that say how to ground, and what is built from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console

from videogem_ros.core.configuration import (
    FUSIONS,
    RESIZES,
    SHIPPED,
    USUAL,
    WEIGHTINGS,
    GroundingConfig,
    backbone_name,
)
from videogem_ros.core.presence import PresenceConfig
from videogem_ros.core.prompts import VERB_FORMS, PromptConfig
from videogem_ros.window import WindowConfig

if TYPE_CHECKING:
    from videogem_ros.core import Backbone, Grounder
    from videogem_ros.session import Session

_Command = TypeVar("_Command", bound=Callable[..., Any])

_GROUNDING, _WINDOW = GroundingConfig(), WindowConfig()

_OPTIONS = (
    click.option(
        "--backbone",
        help="openclip:MODEL (a name of open_clip or a .json configuration), viclip:B-16, "
        "viclip:L-14, or openclip:tabletop and viclip:tabletop, which are part of the package and "
        f"know nothing else.  [default: {SHIPPED}; {USUAL} where weights are named]",
    ),
    click.option(
        "--weights",
        help="Published tag, weight file, or random:SEED for an untrained model.  [default: the "
        "backbone's usual ones]",
    ),
    click.option("--device", help="cpu, cuda, cuda:1, ...  [default: cuda where there is one]"),
    click.option(
        "--dtype", default="float32", show_default=True, help="float32, bfloat16 or float16."
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
        help="How a frame is brought to the network's input size.",
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
        help="Verb in the prompts: as it was said, or inflected (pouring).",
    ),
    click.option(
        "--threshold",
        type=click.FloatRange(0, 1),
        default=_GROUNDING.presence.threshold,
        show_default=True,
        help="Score from which on an action counts as there.",
    ),
    click.option(
        "--frame-interval-s",
        type=click.FloatRange(0, min_open=True),
        default=_WINDOW.frame_interval_s,
        show_default=True,
        help="Seconds between the frames of a video backbone's window.",
    ),
    click.option(
        "--start",
        type=click.Choice(("fill", "wait")),
        default=_WINDOW.start,
        show_default=True,
        help="Before a window is full, fill it with its oldest frame or wait.",
    ),
)


def grounding_options(command: _Command) -> _Command:
    """Adds the options; the command takes them as ``**grounding`` for :func:`load_session`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def load_session(grounding: Mapping[str, Any]) -> tuple[Session, Grounder]:
    """Loads the backbone and opens a session with it, as the options say.

    Raises:
        VideoGemError: An option's value does not suit, or the weights cannot be loaded.
    """
    import torch

    from videogem_ros.core import Grounder, load_backbone
    from videogem_ros.session import Session, SessionConfig

    config = GroundingConfig(
        **{name: grounding[name] for name in ("weighting", "fusion", "resize", "image_hw")},
        prompts=PromptConfig(verb_form=grounding["verb_form"]),
        presence=PresenceConfig(threshold=grounding["threshold"]),
    )
    windows = SessionConfig(**{name: grounding[name] for name in ("frame_interval_s", "start")})
    device = grounding["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    name = backbone_name(grounding["backbone"], grounding["weights"])
    with Console(stderr=True).status(f"loading {name}"):
        backbone = load_backbone(name, grounding["weights"], device, grounding["dtype"])
    grounder = Grounder(backbone, config)
    return Session(grounder, windows), grounder


def warn_of(backbone: Backbone) -> None:
    """Writes what must be said of a backbone's points, if anything, to standard error."""
    from videogem_ros.core import caveat

    if said := caveat(backbone):
        click.secho(f"warning: {said}", fg="yellow", bold=True, err=True)

"""Grounding itself: torch and nothing of ROS, bags or windows' origin.

Names are imported when first used, so that a command line which only prints help, or a parser that
only wants prompts, does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from videogem_ros.core.backbones import Backbone, caveat, load_backbone
    from videogem_ros.core.configuration import GroundingConfig, backbone_name
    from videogem_ros.core.encoder import Encoder, join_features
    from videogem_ros.core.grounder import Grounder
    from videogem_ros.core.presence import PresenceConfig
    from videogem_ros.core.prompts import PromptConfig

__all__ = [
    "Backbone",
    "Encoder",
    "Grounder",
    "GroundingConfig",
    "PresenceConfig",
    "PromptConfig",
    "backbone_name",
    "caveat",
    "join_features",
    "load_backbone",
]

_HOMES = {
    "Backbone": "backbones",
    "Encoder": "encoder",
    "Grounder": "grounder",
    "GroundingConfig": "configuration",
    "PresenceConfig": "presence",
    "PromptConfig": "prompts",
    "backbone_name": "configuration",
    "caveat": "backbones",
    "join_features": "encoder",
    "load_backbone": "backbones",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

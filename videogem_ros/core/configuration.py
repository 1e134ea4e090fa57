"""Every constant of the method in one validated place; the defaults are the paper's."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Integral

from videogem_ros.core.presence import PresenceConfig
from videogem_ros.core.prompts import PromptConfig
from videogem_ros.datatypes import PROMPT_KINDS
from videogem_ros.errors import InvalidValueError, check_choice, check_range

WEIGHTINGS = ("uniform", "static", "dynamic", "static+dynamic")
FUSIONS = ("points", "heatmaps")
RESIZES = ("stretch", "letterbox")
SCOPES = ("window", "frame")
"""Which patches a patch attends to in the self-self path of a video backbone."""
CUDA_GRAPHS = ("auto", "never")
"""Whether encoder passes on a GPU are recorded and replayed as CUDA graphs; changes no result.

Not "off", which YAML takes for false.
"""

SHIPPED, USUAL = "openclip:tabletop", "openclip:ViT-B-16"
"""Default backbones: the small model that is part of the package, and the one that weights given
without a backbone are loaded into."""

FEATURE_FIELDS = ("depth", "self_self_scope", "resize", "image_hw")
"""Fields of a configuration that features depend on; the others may change without encoding
again."""


@dataclass(frozen=True)
class GroundingConfig:
    """How a window becomes heatmaps and points.

    Attributes:
        weighting: Layer weighting: "uniform" (GEM), "static", "dynamic" or "static+dynamic"
            (VideoGEM).
        depth: K, the number of last blocks with a self-self path; there are K + 1 terms.
        self_self_scope: Which patches a patch attends to in the self-self path of a video
            backbone: "window", those of all frames (the paper's), or "frame", those of its own
            frame, an approximation that takes 0.6 to 0.7 of the time. Without effect for image
            backbones.
        dynamic_depth: D, the number of last terms that get dynamic weights.
        static_weights: K + 1 static layer weights.
        dynamic_scale: Inverse temperature of the softmax over the D dynamic weights.
        fusion: "points" takes the weighted mean of the three prompts' points (the paper's),
            "heatmaps" the peak of the weighted mean of their heatmaps.
        fusion_weights: Weights of verb, object and action prompt; sum 1.
        resize: "stretch" to the network's input (the paper's), or "letterbox" to keep the aspect
            ratio.
        image_hw: Height and width of the network's input in pixels; the backbone's own where None.
        prompts: Templates of the three prompts.
        presence: Neutral prompts and calibration of the score.

    Raises:
        InvalidValueError: A value outside what its field takes.
    """

    weighting: str = "static+dynamic"
    depth: int = 7
    self_self_scope: str = "window"
    dynamic_depth: int = 3
    static_weights: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.9, 0.9)
    dynamic_scale: float = 20.0
    fusion: str = "points"
    fusion_weights: tuple[float, ...] = (0.2, 0.2, 0.6)
    resize: str = "stretch"
    image_hw: tuple[int, int] | None = None
    prompts: PromptConfig = field(default_factory=PromptConfig)
    presence: PresenceConfig = field(default_factory=PresenceConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "static_weights", tuple(self.static_weights))
        object.__setattr__(self, "fusion_weights", tuple(self.fusion_weights))
        check_choice("weighting", self.weighting, WEIGHTINGS)
        check_choice("fusion", self.fusion, FUSIONS)
        check_choice("resize", self.resize, RESIZES)
        check_choice("self_self_scope", self.self_self_scope, SCOPES)
        check_range("depth", self.depth, 1, kind=Integral)
        check_range("dynamic_depth", self.dynamic_depth, 1, self.depth, kind=Integral)
        check_range("dynamic_scale", self.dynamic_scale, 0)
        for weight in self.static_weights:
            check_range("static_weights", weight, -math.inf)
        for weight in self.fusion_weights:
            check_range("fusion_weights", weight, 0)
        if self.uses_static and len(self.static_weights) != self.depth + 1:
            raise InvalidValueError(
                "static_weights",
                f"depth + 1 = {self.depth + 1} weights",
                f"{len(self.static_weights)}: {self.static_weights}",
            )
        total = sum(self.fusion_weights)
        if len(self.fusion_weights) != len(PROMPT_KINDS) or abs(total - 1) > 1e-6:
            raise InvalidValueError(
                "fusion_weights",
                "three weights (verb, object, action) that sum to 1",
                self.fusion_weights,
            )
        if self.image_hw is not None:
            object.__setattr__(self, "image_hw", tuple(self.image_hw))
            whole = all(isinstance(side, Integral) and side > 0 for side in self.image_hw)
            if len(self.image_hw) != 2 or not whole:
                raise InvalidValueError(
                    "image_hw", "a height and a width in whole pixels", self.image_hw
                )

    @property
    def uses_static(self) -> bool:
        """Whether the weighting has static weights."""
        return self.weighting.startswith("static")

    @property
    def uses_dynamic(self) -> bool:
        """Whether the weighting has dynamic weights."""
        return self.weighting.endswith("dynamic")


def backbone_name(name: str | None, weights: str | None) -> str:
    """The name of a backbone, or the default where the user gave none.

    Args:
        name: As the user gave it; empty or None for the default.
        weights: As the user gave them; empty or None where not given.

    Returns:
        The name; by default ``SHIPPED``, which runs everywhere, or ``USUAL`` where weights are
        given.
    """
    return name or (USUAL if weights else SHIPPED)

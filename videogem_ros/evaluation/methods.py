"""The ways of grounding that an evaluation compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from videogem_ros.core.configuration import FUSIONS, WEIGHTINGS, GroundingConfig
from videogem_ros.datatypes import PROMPT_KINDS
from videogem_ros.errors import check_choice
from videogem_ros.evaluation.records import method_name

FUSED = {"points": "fused", "heatmaps": "fused-heatmaps"}
"""What a method's prompt is called for each fusion of the three."""

PROMPTS = (*PROMPT_KINDS, *FUSED.values())


@dataclass(frozen=True)
class Method:
    """A cell of the ablation grid: a layer weighting and whose point is taken.

    Attributes:
        weighting: One of ``WEIGHTINGS``.
        prompt: One of ``PROMPTS``: a single prompt's point, or that of all three.

    Raises:
        InvalidValueError: Something else.
    """

    weighting: str
    prompt: str

    def __post_init__(self) -> None:
        for name, choices in (("weighting", WEIGHTINGS), ("prompt", PROMPTS)):
            check_choice(f"method.{name}", getattr(self, name), choices)

    @classmethod
    def of(cls, config: GroundingConfig) -> Method:
        """The method that a grounder with this configuration is."""
        return cls(config.weighting, FUSED[config.fusion])

    @property
    def name(self) -> str:
        """In records and reports."""
        return method_name(self.weighting, self.prompt)

    @property
    def output(self) -> str:
        """The name of its point and heatmap in a :class:`~videogem_ros.datatypes.Grounding`."""
        return "fused" if self.prompt in FUSED.values() else self.prompt

    def configure(self, config: GroundingConfig) -> GroundingConfig:
        """A configuration with this method's weighting and fusion."""
        fusion = next((name for name, fused in FUSED.items() if fused == self.prompt), FUSIONS[0])
        return replace(config, weighting=self.weighting, fusion=fusion)


GEM = Method("uniform", "action")
"""GEM (Bousselham et al. 2024): no layer weights, no prompt decomposition."""

VIDEOGEM = Method("static+dynamic", "fused")


def compared(main: Method, *, ablate: bool) -> tuple[Method, ...]:
    """The methods of an evaluation, beside the image's centre.

    Args:
        main: The one that it is about, the first of the result.
        ablate: Whether the whole grid is wanted, every weighting with every prompt; otherwise the
            baselines are, GEM and the main method's weighting with the action prompt only.
    """
    others: Sequence[Method] = (Method(main.weighting, "action"), GEM)
    if ablate:
        others = [Method(weighting, prompt) for weighting in WEIGHTINGS for prompt in PROMPTS]
    return tuple(dict.fromkeys((main, *others)))

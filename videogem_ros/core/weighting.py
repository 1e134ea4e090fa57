"""Layer weights: how much each residual stream term counts for each prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from videogem_ros.core.acceleration import constant
from videogem_ros.core.configuration import GroundingConfig
from videogem_ros.core.tower import VisionTower


def layer_weights(
    class_terms: Tensor, text: Tensor, tower: VisionTower, config: GroundingConfig
) -> Tensor:
    """Weights w_l of the K + 1 terms, per frame and prompt.

    Args:
        class_terms: (F, L, D) class token terms c_l.
        text: (P, E) float32 unit vectors of the prompts.
        tower: For LN_post and the projection.
        config: Weighting, D, static weights and scale.

    Returns:
        (F, P, L) float32; (1, 1, L) where the weights depend on neither frame nor prompt.
    """
    if not config.uses_dynamic:
        return base_weights(class_terms.shape[1], config, text.device)
    return weights_from(leave_one_out(class_terms, text, tower), config)


def base_weights(terms: int, config: GroundingConfig, device: torch.device) -> Tensor:
    """The configuration's static weights, or uniform ones, which are 1.

    Args:
        terms: L.
        config: Weighting and static weights.
        device: The device of the result.

    Returns:
        (1, 1, L) float32.
    """
    weights = config.static_weights if config.uses_static else (1.0,) * terms
    return constant(weights, device).view(1, 1, -1)


def leave_one_out(class_terms: Tensor, text: Tensor, tower: VisionTower) -> Tensor:
    """Similarity of each prompt with the class token without each term.

    e_l = LN_post(sum c - c_l) W_proj of unit length, sim_l = e_l . text.

    Args:
        class_terms: (F, L, D) class token terms c_l.
        text: (P, E) float32 unit vectors of the prompts.
        tower: For LN_post and the projection.

    Returns:
        (F, P, L) float32 cosines.
    """
    class_terms = class_terms.float()
    without = class_terms.sum(dim=1, keepdim=True) - class_terms
    return torch.einsum("fld,pd->fpl", tower.embed(without), text)


def weights_from(similarity: Tensor, config: GroundingConfig) -> Tensor:
    """Layer weights from leave-one-out similarities; see :func:`layer_weights`.

    The dynamic weights softmax(-20 sim) over the last D terms, less their mean 1 / D, are added to
    the base weights there, so the sum of the weights does not change.

    Args:
        similarity: (F, P, L) of :func:`leave_one_out`.
        config: Weighting, D, static weights and scale.

    Returns:
        (F, P, L) float32; (1, 1, L) where the weights depend on neither frame nor prompt.
    """
    base = base_weights(similarity.shape[-1], config, similarity.device)
    if not config.uses_dynamic:
        return base
    last = config.dynamic_depth
    weights = base.expand_as(similarity).clone()
    weights[..., -last:] += (
        torch.softmax(-config.dynamic_scale * similarity[..., -last:], dim=-1) - 1 / last
    )
    return weights

"""Layer weights: how much each residual stream term counts for each prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from videogem_ros.core.configuration import GroundingConfig
from videogem_ros.core.tower import VisionTower


def layer_weights(
    class_terms: Tensor, text: Tensor, tower: VisionTower, config: GroundingConfig
) -> Tensor:
    """Weights w_l of the K + 1 terms, per frame and prompt.

    Uniform weights are 1 and static ones the configuration's. Dynamic weights say, for each of the
    last D terms, what the video loses for the prompt without it: with
    e_l = LN_post(sum c - c_l) W_proj of unit length and sim_l = e_l . text,
    w_d = softmax(-20 sim) over the last D, which replaces the mean 1 / D of the base weights
    there; so the sum of the weights stays that of the base.

    Args:
        class_terms: (F, L, D) class token terms c_l.
        text: (P, E) float32 unit vectors of the prompts.
        tower: For LN_post and the projection.
        config: Weighting, D, static weights and scale.

    Returns:
        (F, P, L) float32; (1, 1, L) where the weights depend on neither frame nor prompt.
    """
    terms = class_terms.shape[1]
    if config.uses_static:
        base = torch.tensor(config.static_weights, device=text.device)
    else:
        base = torch.ones(terms, device=text.device)
    if not config.uses_dynamic:
        return base.view(1, 1, terms)
    last = config.dynamic_depth
    class_terms = class_terms.float()
    without = class_terms.sum(dim=1, keepdim=True) - class_terms[:, -last:]  # (F, D_last, D)
    similarity = torch.einsum("fld,pd->fpl", tower.embed(without), text)
    dynamic = torch.softmax(-config.dynamic_scale * similarity, dim=-1)
    weights = base.expand(len(class_terms), len(text), terms).clone()
    weights[..., -last:] += dynamic - 1 / last
    return weights

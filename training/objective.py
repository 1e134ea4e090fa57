"""Training losses: presence at the class token, location at the patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from batches import Shard, truth
from pool import NO_VERB
from torch import Tensor

CENTRAL = 0.8
"""Share of a box's width and height that counts as inside, so that points lie well within it."""


def presence_margins(classes: Tensor, texts: Tensor, neutral: int, scale: Tensor) -> Tensor:
    """The same presence margins as the grounder's, so that training calibrates them.

    Args:
        classes: (B, E) unit vectors of the class tokens.
        texts: (C, E) unit vectors, neutral ones first.
        neutral: Number of neutral texts.
        scale: Logit scale s.

    Returns:
        (B, C): s a - log mean_j exp(s n_j), as in :mod:`videogem_ros.core.presence`.
    """
    logits = scale * classes @ texts.T
    count = torch.tensor(float(neutral))
    return logits - (logits[:, :neutral].logsumexp(dim=1, keepdim=True) - count.log())


def presence_loss(margins: Tensor, shard: Shard, neutral: int, ignore_twins: bool) -> Tensor:
    """Binary cross-entropy of every text with every scene, in four parts of equal weight.

    The parts are true and false texts, made for the scene and for other scenes. Otherwise, the
    many easy texts would outweigh the few near misses.

    Args:
        margins: (B, C) from :func:`presence_margins`.
        shard: Determines which texts are true.
        neutral: Number of neutral texts, which come first.
        ignore_twins: Leave out texts that would be true with the twin verb: one frame cannot
            distinguish them.
    """
    true = truth(shard.claims, shard.pairs).any(dim=-1)
    counts = torch.ones_like(true)
    counts[:, :neutral] = False
    if ignore_twins:
        counts &= ~twins_only(shard)
    own = torch.zeros_like(true).scatter_(1, shard.own, True)
    loss = F.binary_cross_entropy_with_logits(margins, true.float(), reduction="none")
    parts = [true & own, true & ~own, ~true & own, ~true & ~own]
    means = [(loss * (part & counts)).sum() / (part & counts).sum().clamp_min(1) for part in parts]
    return torch.stack(means).mean()


def coverage(boxes: Tensor, side: int, central: float = CENTRAL) -> Tensor:
    """Share of each patch within the central part of a box.

    Args:
        boxes: (..., 4) x1 y1 x2 y2 from 0 to 1.
        side: Patches along each side.
        central: Share of the box's width and height.

    Returns:
        (..., side * side) in [0, 1].
    """
    middle, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
    low, high = (middle - central * half) * side, (middle + central * half) * side
    edges = torch.arange(side, dtype=boxes.dtype, device=boxes.device)
    overlap = torch.minimum(high[..., None], edges + 1) - torch.maximum(low[..., None], edges)
    across, down = overlap.clamp_min(0).unbind(dim=-2)
    return (down[..., :, None] * across[..., None, :]).flatten(-2)


def busy_patches(shard: Shard, side: int) -> Tensor:
    """(B, N) bool, patches that overlap the box of an object or an action in any frame."""
    return (coverage(shard.boxes, side, central=1.0) > 0).flatten(1, 3).any(dim=1)


def targets(shard: Shard, frames: Tensor, side: int, twins: bool = False) -> Tensor:
    """Target areas for the points of true texts.

    With a verb: the action boxes of all matching pairs. Without: the boxes of matching objects
    that are acted on or, if there are none, of all matching objects.

    Args:
        shard: Boxes, pairs and claims.
        frames: (B, F) indices of frames in the clip.
        side: Patches along each side.
        twins: For texts that would be true with the twin verbs.

    Returns:
        (B, F, C, N) in [0, 1]; all zero if a text is false.
    """
    rows = torch.arange(len(frames), device=frames.device)[:, None]
    inside = coverage(shard.boxes[rows, frames], side)  # (B, F, 2, O, N)
    fits = truth(shard.claims, shard.pairs, twins)  # (B, C, O)
    has_verb = (shard.claims[:, 0] >= 0)[:, None]
    used = fits & (shard.pairs[:, None, :, 0] != NO_VERB)
    wanted = torch.where(used.any(dim=-1, keepdim=True), used, fits).to(inside.dtype)
    by_action = torch.einsum("bco,bfon->bfcn", wanted * has_verb, inside[:, :, 0])
    by_object = torch.einsum("bco,bfon->bfcn", wanted * ~has_verb, inside[:, :, 1])
    return (by_action + by_object).clamp_max(1)


def localisation_loss(similarity: Tensor, target: Tensor, temperature: Tensor | float) -> Tensor:
    """-log of the share of a softmax over patches that falls into the target.

    Args:
        similarity: (..., N) cosines of patches and a text.
        target: (..., N) in [0, 1]; rows of zeros are ignored.
        temperature: Factor of the cosines.
    """
    most = target.amax(dim=-1, keepdim=True)
    counts = most[..., 0] > 0
    share = torch.softmax(temperature * similarity, dim=-1) * (target / most.clamp_min(1e-6))
    loss = -share.sum(dim=-1).clamp_min(1e-6).log()
    return (loss * counts).sum() / counts.sum().clamp_min(1)


def pooled_localisation_loss(
    similarity: Tensor, target: Tensor, ignored: Tensor, temperature: Tensor
) -> Tensor:
    """-log of the share of a softmax over the patches of all scenes that falls into the targets.

    A text has one or two rivals within its scene, but many among all scenes of a shard.

    Args:
        similarity: (B, F, C, N) cosines of patches and texts.
        target: (B, F, C, N) in [0, 1]; texts without a target are ignored.
        ignored: (B, C), scenes for which a text may or may not be true.
        temperature: Factor of the cosines.
    """
    ignored = ignored & ~ignored.all(dim=0)  # a text without any scene has no target
    logits = (temperature * similarity).masked_fill(ignored[:, None, :, None], -torch.inf)
    pooled, targets_ = (x.permute(2, 0, 1, 3).flatten(1) for x in (logits, target))
    return localisation_loss(pooled, targets_, 1.0)


FORMS = ("verb", "object", "action")
"""Forms of text with separate naming losses, so that no form substitutes for another."""


def naming_losses(
    similarity: Tensor, target: Tensor, claims: Tensor, ignored: Tensor, temperature: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """-log of the share of a softmax over texts that falls on those which are true of a patch.

    Args:
        similarity: (B, F, C, N) cosines of patches and texts.
        target: (B, F, C, N) in [0, 1]; only patches with more than 0.5 count.
        claims: (C, 5) what the texts claim.
        ignored: (B, C), scenes for which a text may or may not be true.
        temperature: Factor of the cosines.

    Returns:
        For each form that occurs: the loss, and the share of patches whose most similar text is
        true.
    """
    has_verb, has_object = claims[:, 0] >= 0, claims[:, 1] >= 0
    masks = (has_verb & ~has_object, ~has_verb & has_object, has_verb & has_object)
    logits = (temperature * similarity).masked_fill(ignored[:, None, :, None], -torch.inf)
    found = {}
    for form, mask in zip(FORMS, masks):
        true = target[:, :, mask] > 0.5
        named = true.any(dim=2)
        chosen = logits[:, :, mask].movedim(2, -1)[named]
        true = true.movedim(2, -1)[named]
        if len(chosen):
            shares = chosen.log_softmax(dim=-1).masked_fill(~true, -torch.inf).logsumexp(dim=-1)
            right = true.gather(-1, chosen.argmax(dim=-1, keepdim=True))
            found[form] = -shares.mean(), right.float().mean()
    return found


def twin_loss(
    similarity: Tensor,
    target: Tensor,
    twin_target: Tensor,
    claims: Tensor,
    temperature: Tensor,
) -> tuple[Tensor, Tensor]:
    """-log of the share of a softmax over a verb's texts and its twin's that falls on the verb's.

    Among all texts of a shard, the twin's are only a few.

    Args:
        similarity: (B, F, C, N) cosines of patches and texts.
        target: (B, F, C, N) in [0, 1]; only patches with more than 0.5 count.
        twin_target: The same for the verbs' twins.
        claims: (C, 5) what the texts claim; those without a verb are ignored.
        temperature: Factor of the cosines.

    Returns:
        The loss, with each verb's texts averaged, and the share of patches that are nearer to
        their own verb's texts.
    """
    has_verb = (claims[:, 0] >= 0)[:, None]
    true, twin = ((x > 0.5) & has_verb for x in (target, twin_target))
    counts = true.any(dim=2) & twin.any(dim=2)  # (B, F, N)
    logits = (temperature * similarity).movedim(2, -1)[counts]
    own, other = (
        logits.masked_fill(~texts, -torch.inf).logsumexp(dim=-1) - texts.sum(dim=-1).log()
        for texts in (x.movedim(2, -1)[counts] for x in (true, twin))
    )
    count = counts.sum().clamp_min(1)
    return F.softplus(other - own).sum() / count, (own > other).sum() / count


def twins_only(shard: Shard) -> Tensor:
    """(B, C), false texts that would be true of a scene with the twin verbs."""
    true = truth(shard.claims, shard.pairs).any(dim=-1)
    return truth(shard.claims, shard.pairs, twins=True).any(dim=-1) & ~true


def token_contrast(
    patches: Tensor, texts: Tensor, shard: Shard, neutral: int, temperature: Tensor
) -> Tensor:
    """Without boxes: a text should match the best patches of its scenes better than other scenes'.

    Contrasts each text's log-sum-exp of similarities over patches between the shard's scenes.

    Args:
        patches: (B, N, E) unit vectors.
        texts: (C, E) unit vectors.
        shard: Determines which texts are true.
        neutral: Number of neutral texts, which come first.
        temperature: Factor of the cosines.
    """
    logits = (temperature * torch.einsum("bne,ce->bcn", patches, texts)).logsumexp(dim=-1)
    true = truth(shard.claims, shard.pairs).any(dim=-1)
    shares = logits.log_softmax(dim=0).masked_fill(~true, -torch.inf).logsumexp(dim=0)
    counts = true.any(dim=0)
    counts[:neutral] = False
    return -(shares.masked_fill(~counts, 0)).sum() / counts.sum().clamp_min(1)

"""What training asks for, against the core's own formulas and cases small enough to count."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from batches import Shard, claim_row, truth
from objective import (
    busy_patches,
    coverage,
    localisation_loss,
    naming_losses,
    pooled_localisation_loss,
    presence_margins,
    targets,
    twin_loss,
    twins_only,
)
from pool import MOST_THINGS, NO_THING, pair_row
from torch.nn.functional import normalize

from videogem_ros.core.presence import presence_margin
from videogem_ros.tabletop.captions import Claim, Thing

CUP, BOOK = Thing("cup", "red", "small", "metal"), Thing("book", "blue", "large", "wood")


def shard(scenes: list[list[tuple[str | None, Thing]]], claims: list[Claim]) -> Shard:
    """Scenes of one frame, in which thing i has its action box in column i of four."""
    pairs = torch.full((len(scenes), MOST_THINGS, 5), NO_THING)
    boxes = torch.zeros(len(scenes), 1, 2, MOST_THINGS, 4)
    for scene, done in enumerate(scenes):
        for place, (verb, thing) in enumerate(done):
            pairs[scene, place] = torch.tensor(pair_row(verb, thing))
            boxes[scene, 0, 0, place] = torch.tensor([place / 4, 0.0, (place + 1) / 4, 0.5])
            boxes[scene, 0, 1, place] = torch.tensor([place / 4, 0.5, (place + 1) / 4, 1.0])
    rows = torch.tensor([claim_row(claim) for claim in claims])
    nothing = torch.zeros(0)
    return Shard(nothing, boxes, pairs, nothing, rows, nothing)


CLAIMS = [
    Claim(),
    Claim("push"),
    Claim("pull"),
    Claim("push", "cup"),
    Claim("pull", "cup", "red"),
    Claim(None, "cup"),
    Claim(None, "book", "blue", "large", "wood"),
    Claim("wipe", "book", "red"),
]
SCENES = [
    [("push", CUP), (None, BOOK)],
    [("push", CUP), ("pull", CUP), ("wipe", BOOK)],
    [(None, CUP)],
]


def test_truth_is_what_claims_say_of_pairs() -> None:
    made = shard(SCENES, CLAIMS)
    found = truth(made.claims, made.pairs)
    for (row, claim), (place, scene) in itertools.product(enumerate(CLAIMS), enumerate(SCENES)):
        expected = [claim != Claim() and claim.fits(verb, thing) for verb, thing in scene]
        assert found[place, row].tolist() == expected + [False] * (MOST_THINGS - len(scene))


def test_what_only_motion_tells_apart_is_known() -> None:
    made = shard(SCENES, CLAIMS)
    assert twins_only(made).nonzero().tolist() == [[0, 2], [0, 4]]  # pull, where push is


def test_twins_are_told_apart_by_their_own_texts_alone() -> None:
    """Push against pull, of the patch that is pushed; what has no twin or no verb counts not."""
    made = shard(SCENES[:1], CLAIMS)
    frames = torch.zeros(1, 1, dtype=torch.int64)
    target, twin_target = (targets(made, frames, 4, twins) for twins in (False, True))
    similarity = torch.zeros(1, 1, len(CLAIMS), 16)
    similarity[0, 0, :, 0] = torch.tensor([9.0, 1.0, 0.2, 3.0, 0.4, 9.0, 9.0, 9.0])
    temperature = torch.tensor(2.0)
    loss, right = twin_loss(similarity, target, twin_target, made.claims, temperature)
    push = np.log((np.exp(2 * 1.0) + np.exp(2 * 3.0)) / 2)  # "push", "push the cup"
    pull = np.log((np.exp(2 * 0.2) + np.exp(2 * 0.4)) / 2)  # "pull", "pull the red cup"
    # Of the two patches of the box, the other one cannot tell.
    assert loss.item() == pytest.approx((np.log1p(np.exp(pull - push)) + np.log(2)) / 2, rel=1e-5)
    assert right.item() == 0.5
    nothing = twin_loss(similarity, target * 0, twin_target, made.claims, temperature)
    assert [value.item() for value in nothing] == [0, 0]


def test_margins_are_those_of_the_presence_score() -> None:
    random = torch.Generator().manual_seed(0)
    classes, texts = (normalize(torch.randn(n, 8, generator=random), dim=-1) for n in (4, 7))
    found = presence_margins(classes, texts, 3, torch.tensor(25.0))
    cosines = (classes @ texts.T).numpy()
    expected = presence_margin(cosines, np.repeat(cosines[:, None, :3], 7, axis=1), 25.0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_coverage_is_the_share_of_a_patch_within_the_middle_of_a_box() -> None:
    # The middle 80 % of 0..1 is 0.1..0.9: of four patches 0.15 / 0.25 and 0.25 / 0.25 and back.
    found = coverage(torch.tensor([0.0, 0.0, 1.0, 1.0]), 4).view(4, 4)
    along = torch.tensor([0.6, 1.0, 1.0, 0.6])
    torch.testing.assert_close(found, along[:, None] * along)
    outside = coverage(torch.tensor([0.0, 0.0, 0.2, 0.2]), 4)
    assert outside.nonzero().tolist() == [[0]]


@pytest.mark.parametrize(
    ("claim", "columns", "lower"),
    [
        (Claim("push"), [0], False),
        (Claim("pull", "cup"), [1], False),
        (Claim(None, "cup"), [0, 1], True),  # acted on, both
        (Claim(None, "book"), [2], True),
        (Claim("push", "book"), [], False),
        (Claim(), [], False),
    ],
    ids=str,
)
def test_points_belong_into_boxes_of_what_fits(
    claim: Claim, columns: list[int], lower: bool
) -> None:
    made = shard([SCENES[1]], [claim])
    found = targets(made, torch.zeros(1, 1, dtype=torch.int64), 4).view(4, 4) > 0
    assert sorted(set(found.nonzero()[:, 1].tolist())) == columns
    assert found[:2].any() == (bool(columns) and not lower)
    assert found[2:].any() == (bool(columns) and lower)


def test_localisation_is_the_log_of_the_share_inside() -> None:
    similarity = torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.3, 0.3, 0.3, 0.3]]).log1p()
    target = torch.tensor([[0.0, 0.4, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    # exp(log1p(x)) = 1 + x: shares 1/6, 2/6, 1/6, 2/6; a text without a target does not count.
    loss = localisation_loss(similarity, target, torch.tensor(1.0))
    assert loss.item() == pytest.approx(np.log(3))


def test_pooled_localisation_runs_over_all_scenes_that_count() -> None:
    similarity = torch.zeros(3, 1, 1, 4)
    target = torch.zeros(3, 1, 1, 4)
    target[0, 0, 0, 2] = 1
    nowhere = torch.zeros(3, 1, dtype=torch.bool)
    one = torch.tensor(1.0)
    loss = pooled_localisation_loss(similarity, target, nowhere, one)
    assert loss.item() == pytest.approx(np.log(12))
    ignored = torch.tensor([[False], [True], [False]])
    loss = pooled_localisation_loss(similarity, target, ignored, one)
    assert loss.item() == pytest.approx(np.log(8))


def test_a_text_that_may_be_true_of_every_scene_does_not_count() -> None:
    similarity = torch.zeros(2, 1, 2, 3, requires_grad=True)
    target = torch.zeros(2, 1, 2, 3)
    target[0, 0, 0, 0] = 1
    ignored = torch.tensor([[False, True], [False, True]])
    loss = pooled_localisation_loss(similarity, target, ignored, torch.tensor(1.0))
    loss.backward()
    assert loss.item() == pytest.approx(np.log(6))
    assert similarity.grad is not None
    assert torch.isfinite(similarity.grad).all()


def test_texts_of_each_form_are_named_apart() -> None:
    """Two patches of a red cup that is pushed; cosines of one text a form are highest."""
    made = shard(SCENES[:1], CLAIMS)
    target = torch.zeros(1, 1, len(CLAIMS), 3)
    target[0, 0, [1, 5], :2] = 1  # "push", "cup"
    similarity = torch.zeros(1, 1, len(CLAIMS), 3)
    similarity[0, 0, 1, 0] = similarity[0, 0, 2, 1] = 1  # one patch says push, the other pull
    similarity[0, 0, 5] = 1
    ignored = torch.zeros(1, len(CLAIMS), dtype=torch.bool)
    named = naming_losses(similarity, target, made.claims, ignored, torch.tensor(2.0))
    assert set(named) == {"verb", "object"}  # no text of verb and object is true here
    among_two = np.log(np.exp(2) + 1)
    assert float(named["verb"][0]) == pytest.approx((among_two - 2 + among_two) / 2)
    assert float(named["verb"][1]) == 0.5
    assert float(named["object"][0]) == pytest.approx(np.log(np.exp(2) + 1) - 2)
    assert float(named["object"][1]) == 1

    ignored[0, 2] = True  # "pull" may be true as well: then it is no mistake
    named = naming_losses(similarity, target, made.claims, ignored, torch.tensor(2.0))
    assert float(named["verb"][0]) == 0
    assert float(named["verb"][1]) == 1


def test_busy_patches_are_those_that_a_box_touches_in_any_frame() -> None:
    made = shard(SCENES[2:], CLAIMS)
    made.boxes.zero_()
    made.boxes[0, 0, 1, 0] = torch.tensor([0.3, 0.3, 0.45, 0.55])
    moved = made.boxes.clone()
    moved[0, 0, 1, 0] = torch.tensor([0.8, 0.8, 0.9, 0.9])
    both = replace(made, boxes=torch.cat([made.boxes, moved], dim=1))
    busy = busy_patches(both, side=4)[0].view(4, 4)
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[1:3, 1] = True
    expected[3, 3] = True
    assert torch.equal(busy, expected)

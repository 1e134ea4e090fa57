from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from videogem_ros.core import GroundingConfig
from videogem_ros.core.configuration import WEIGHTINGS
from videogem_ros.core.tower import Norm, VisionTower
from videogem_ros.core.weighting import layer_weights

STATIC = (0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.9, 0.9)
WIDTH = 6


def tower(projection: Tensor | None = None) -> VisionTower:
    """A tower of which only LN_post and the projection exist."""
    nothing = torch.zeros(0)
    return VisionTower(
        patch_embedding=nothing,
        class_embedding=nothing,
        position_embedding=nothing,
        grid_hw=(1, 1),
        temporal_embedding=None,
        ln_pre=None,
        blocks=(),
        heads=1,
        ln_post=Norm(torch.ones(WIDTH), torch.zeros(WIDTH), 1e-5),
        projection=torch.eye(WIDTH) if projection is None else projection,
    )


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unit(index: int) -> Tensor:
    """(1, WIDTH) text along one axis, of mean zero as LN_post leaves things."""
    return normalize(torch.eye(WIDTH)[index] - 1 / WIDTH, dim=0)[None]


def weights(weighting: str, terms: Tensor, text: Tensor, **options: object) -> Tensor:
    config = GroundingConfig(weighting=weighting, **options)
    found = layer_weights(terms, text, tower(), config)
    assert found.dtype == torch.float32
    return found.expand(len(terms), len(text), -1)


TEXT = normalize(noise(4, WIDTH, seed=9), dim=-1)


def test_uniform_weights_are_one() -> None:
    assert (weights("uniform", noise(2, 8, WIDTH), TEXT) == 1).all()


def test_static_weights_are_those_of_the_configuration() -> None:
    found = weights("static", noise(2, 8, WIDTH), TEXT)
    assert torch.equal(found, torch.tensor(STATIC).expand_as(found))


@pytest.mark.parametrize(
    ("weighting", "total"),
    [("uniform", 8), ("static", 5.2), ("dynamic", 8), ("static+dynamic", 5.2)],
)
def test_the_sum_of_the_weights_is_that_of_the_base(weighting: str, total: float) -> None:
    sums = weights(weighting, noise(3, 8, WIDTH), TEXT).sum(dim=-1)
    torch.testing.assert_close(sums, torch.full((3, 4), float(total)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("weighting", ["dynamic", "static+dynamic"])
def test_terms_that_make_no_difference_get_equal_weights(weighting: str) -> None:
    terms = noise(1, 8, WIDTH)
    terms[:, -3:] = terms[:, -1:]  # leaving any of them out leaves the same
    base = torch.tensor(STATIC) if "static" in weighting else torch.ones(8)
    found = weights(weighting, terms, TEXT)
    torch.testing.assert_close(found, base.expand_as(found), atol=1e-6, rtol=0)


@pytest.mark.parametrize("term", [5, 6, 7])
def test_the_term_that_carries_the_prompt_gets_nearly_all_of_the_dynamic_weight(term: int) -> None:
    text = unit(0)
    terms = torch.zeros(1, 8, WIDTH)
    terms[:, 0] = 1e-2 * noise(WIDTH)
    terms[0, term] = 10 * text[0]
    found = weights("static+dynamic", terms, text)[0, 0]
    expected = torch.tensor(STATIC)
    expected[-3:] -= 1 / 3
    expected[term] += 1
    assert torch.allclose(found, expected, atol=2e-2)
    assert found.argmax() == term


def test_dynamic_weights_are_the_softmax_of_what_the_prompt_keeps_without_a_term() -> None:
    terms, text = noise(1, 8, WIDTH), TEXT[:1]
    found = weights("dynamic", terms, text)[0, 0].double()
    similarities = []
    for term in (5, 6, 7):
        rest = (terms[0].sum(dim=0) - terms[0, term]).double()
        rest = (rest - rest.mean()) / math.sqrt(float(rest.var(unbiased=False)) + 1e-5)
        similarities.append(float(rest @ text[0].double() / rest.norm()))
    powers = [math.exp(-20 * similarity) for similarity in similarities]
    expected = [1.0] * 5 + [2 / 3 + power / sum(powers) for power in powers]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_no_scale_takes_the_dynamics_out() -> None:
    found = weights("static+dynamic", noise(1, 8, WIDTH), TEXT, dynamic_scale=0.0)
    torch.testing.assert_close(found, torch.tensor(STATIC).expand_as(found))


def test_an_endless_scale_gives_everything_to_the_most_needed_term() -> None:
    found = weights("dynamic", noise(2, 8, WIDTH), TEXT, dynamic_scale=1e9)
    ranked = found[..., -3:].sort(dim=-1).values
    expected = torch.tensor([2 / 3, 2 / 3, 5 / 3]).expand_as(ranked)
    torch.testing.assert_close(ranked, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dynamic_depth", [1, 2, 5, 7])
def test_only_the_last_terms_are_dynamic(dynamic_depth: int) -> None:
    found = weights("dynamic", noise(2, 8, WIDTH), TEXT, dynamic_depth=dynamic_depth)
    assert (found[..., :-dynamic_depth] == 1).all()
    torch.testing.assert_close(
        found[..., -dynamic_depth:].sum(dim=-1), torch.full((2, 4), float(dynamic_depth))
    )


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_prompts_and_frames_are_weighted_on_their_own(weighting: str) -> None:
    terms = noise(3, 8, WIDTH)
    together = weights(weighting, terms, TEXT)
    for frame in range(3):
        for prompt in range(4):
            alone = weights(weighting, terms[frame : frame + 1], TEXT[prompt : prompt + 1])
            torch.testing.assert_close(together[frame, prompt], alone[0, 0], atol=1e-5, rtol=0)


def test_half_precision_terms_are_summed_in_float32() -> None:
    terms = noise(1, 8, WIDTH).half()
    torch.testing.assert_close(
        weights("dynamic", terms, TEXT), weights("dynamic", terms.float(), TEXT)
    )

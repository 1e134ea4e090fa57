"""Own GPU kernels against their formulas: interpreted on a CPU, compiled where there is a GPU."""

from __future__ import annotations

import copy
import importlib
import logging
import math
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from videogem_ros.core import attention, comparison, encoder, fused, fusion, heatmaps, tower
from videogem_ros.core.backbones import Backbone
from videogem_ros.core.backbones.openclip import tower_of
from videogem_ros.core.backbones.preprocessing import place
from videogem_ros.core.configuration import WEIGHTINGS, GroundingConfig
from videogem_ros.core.encoder import Encoder
from videogem_ros.core.heatmaps import patch_similarity
from videogem_ros.datatypes import Features

pytest.importorskip("triton", reason="no Triton on this platform")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""Largest relative error of one rounding; some more in float32, where sums round as well."""


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture
def kernels(device: torch.device) -> ModuleType:
    if device.type == "cpu" and torch.cuda.is_available():
        pytest.skip("where there is a GPU the kernels are compiled for it")
    return importlib.import_module("videogem_ros.core.triton_kernels")


@pytest.fixture
def comparing(kernels: ModuleType) -> ModuleType:
    return importlib.import_module("videogem_ros.core.triton_comparison")


def close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    error = (found.cpu().double() - expected).abs()
    # Triton's interpreter cuts off what it should round.
    cut = 2 if dtype == torch.bfloat16 and found.device.type == "cpu" else 1
    limit = cut * ROUNDING[dtype] * expected.abs() + (4e-6 if dtype == torch.float32 else 1e-6)
    assert (error <= limit).all(), float((error / limit).max())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [8, 24, 64])
def test_vectors_get_their_length(
    kernels: ModuleType, device: torch.device, dtype: torch.dtype, size: int
) -> None:
    qkv = noise(2, 37, 3 * 3 * size).to(device, dtype)
    p = attention.split_heads(qkv, 3)
    p = p if device.type == "cuda" else qkv.view(2, 37, 3, 3, size).permute(2, 0, 3, 1, 4)
    square = torch.tensor([2.0, 12.5], device=device)
    found = kernels.of_length(p, square, factor=2.0)
    assert found.is_contiguous()
    exact = p.cpu().double()
    length = torch.tensor([2.0, 5.0]).double().view(-1, 1, 1, 1)
    close(found, exact / exact.norm(dim=-1, keepdim=True) * length, dtype)


def test_a_vector_of_zeros_has_no_length(kernels: ModuleType, device: torch.device) -> None:
    p = torch.zeros(1, 1, 1, 2, 8, device=device)
    assert not kernels.of_length(p, torch.ones(1, device=device)).any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("adds", "keep"), [(0, True), (1, True), (1, False), (2, True)])
def test_a_sum_and_its_norm_and_lengths(
    kernels: ModuleType, device: torch.device, dtype: torch.dtype, adds: int, keep: bool
) -> None:
    x = noise(2, 9, 48).to(device)[:, :5]
    added = tuple(noise(2, 7, 48, seed=7 + i).to(device, dtype)[:, 2:] for i in range(adds))
    weight, bias = (noise(48, seed=seed).to(device, dtype) for seed in (2, 3))
    total, normed, lengths = kernels.add_norm(x, added, weight, bias, 1e-5, dtype, keep)
    sum_ = sum(added, x)
    assert torch.equal(total, sum_ if keep else x)
    expected = F.layer_norm(
        sum_.cpu().double(), (48,), weight.cpu().double(), bias.cpu().double(), 1e-5
    )
    close(normed, expected, dtype)
    close(lengths, expected.norm(dim=-1), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_quick_gelu_is_its_formula_in_place(
    kernels: ModuleType, device: torch.device, dtype: torch.dtype
) -> None:
    x = (4 * noise(3, 1000)).to(device, dtype)
    exact = x.cpu().double()
    found = kernels.quick_gelu(x)
    assert found.data_ptr() == x.data_ptr()
    close(found, exact * torch.sigmoid(1.702 * exact), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_a_linear_layer_of_one_token(
    kernels: ModuleType,
    device: torch.device,
    dtype: torch.dtype,
    biased: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, weight = noise(1, 1, 300).to(device, dtype), noise(19, 300, seed=1).to(device, dtype)
    bias = noise(19, seed=2).to(device, dtype) if biased else None
    expected = F.linear(
        x.cpu().double(), weight.cpu().double(), None if bias is None else bias.cpu().double()
    )
    found = kernels.of_one(x, weight, bias)
    assert found.dtype == dtype
    limit = 2 * ROUNDING[dtype] * (x.norm() * weight.norm(dim=1)).max().item()
    assert (found.cpu().double() - expected).abs().max() <= limit
    monkeypatch.setattr(fused, "own_kernels", lambda x: kernels)
    used = fused.linear_of_one(x, weight, bias)
    assert (used is None) == (dtype == torch.float32)
    assert fused.linear_of_one(x.expand(1, 2, -1), weight, bias) is None
    assert fused.linear_of_one(x.half(), weight.half().T.contiguous().T, bias) is None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_mean_of_parts(kernels: ModuleType, device: torch.device, dtype: torch.dtype) -> None:
    parts = noise(3, 2, 37, 3, 24).to(device, dtype).transpose(2, 3)
    found = kernels.mean_of_parts(parts)
    assert found.transpose(1, 2).is_contiguous()
    close(found, parts.cpu().double().mean(dim=0), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("own_mixture", [True, False])
def test_a_mixture_of_terms_and_its_norm(
    comparing: ModuleType, device: torch.device, dtype: torch.dtype, own_mixture: bool
) -> None:
    terms = noise(2, 8, 7, 48).to(device, dtype)[:, :, 2:]
    mixture = noise(2, 3, 8, seed=1) if own_mixture else torch.ones(1, 1, 8).expand(2, -1, -1)
    weight, bias = (noise(48, seed=seed).to(device, dtype) for seed in (2, 3))
    directions = noise(3, 48, seed=5).to(device) if own_mixture else None
    found, along = comparing.mix_and_norm(
        terms, mixture.to(device), weight, bias, 1e-5, dtype, directions
    )
    mixed = torch.einsum("fpl,flnd->fpnd", mixture.double(), terms.cpu().double())
    expected = F.layer_norm(mixed, (48,), weight.cpu().double(), bias.cpu().double(), 1e-5)
    close(found, expected, dtype)
    if directions is None:
        assert not len(along)
    else:
        by_hand = torch.einsum("fpnd,pd->fpn", expected, directions.cpu().double())
        torch.testing.assert_close(along.cpu().double(), by_hand, atol=1e-5, rtol=1e-5)


def test_the_scaled_mean_of_rows(kernels: ModuleType, device: torch.device) -> None:
    values = noise(2, 3000).to(device)
    found = kernels.scaled_mean(values, 0.125)
    close(found, values.cpu().double().mean(dim=1) / 8, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_sum_of_first_tokens(
    kernels: ModuleType, device: torch.device, dtype: torch.dtype
) -> None:
    a, b = noise(2, 5, 48).to(device, dtype), noise(2, 1, 48, seed=1).to(device, dtype)
    found = kernels.sum_of_first(a, b)
    assert torch.equal(found, a[:, 0].float() + b[:, 0].float())


@pytest.mark.parametrize("patch_hw", [(4, 4), (3, 5)])
@torch.inference_mode()
def test_patches_embedded_in_halves(
    kernels: ModuleType,
    device: torch.device,
    patch_hw: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """48 numbers a patch, and 45, which are not whole rows of 16 bytes."""
    pixels = noise(2, 3, 2 * patch_hw[0], 3 * patch_hw[1]).to(device)
    weight = noise(7, 3, *patch_hw, seed=1).to(device)
    if device.type == "cpu":  # which has no product of halves to float32
        monkeypatch.setattr(torch, "mm", lambda a, b, out_dtype: a.to(out_dtype) @ b.to(out_dtype))
    else:
        monkeypatch.setattr(fused, "own_kernels", lambda x: kernels)
        assert fused.patches_in_halves(pixels, weight, torch.float32) is None
        assert fused.patches_in_halves(pixels, weight, torch.bfloat16) is not None
    found = kernels.embedded_patches(pixels, weight)
    assert found.dtype == torch.float32
    exact = F.conv2d(pixels.cpu().double(), weight.cpu().double(), stride=patch_hw)
    exact = exact.flatten(2).transpose(1, 2)
    assert (found.cpu() - exact).norm() <= 2**-14 * exact.norm()


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("normed", [True, False])
def test_input_tokens(
    kernels: ModuleType, device: torch.device, frames: int, normed: bool
) -> None:
    patches, token, positions = noise(2 * frames, 9, 24), noise(24), noise(10, 24, seed=1)
    temporal = noise(frames, 24, seed=2) if frames > 1 else None
    weight, bias = noise(24, seed=3), noise(24, seed=4)
    x = (patches + positions[1:]).view(2, frames, 9, 24)
    if temporal is not None:
        x = x + temporal[:, None]
    first = (token + positions[0]).expand(2, 1, -1)
    expected = torch.cat([first, x.transpose(1, 2).flatten(1, 2)], dim=1)
    if normed:
        expected = F.layer_norm(expected, (24,), weight, bias, 1e-5)
    found = kernels.tokens(
        patches.to(device),
        token.to(device),
        positions.to(device),
        None if temporal is None else temporal.to(device),
        (weight.to(device), bias.to(device), 1e-5) if normed else None,
    )
    close(found, expected.double(), torch.float32)


# What follows the encoder.


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(("actions", "neutral"), [(1, 5), (3, 1)])
@torch.inference_mode()
def test_class_tokens_compared_are_those_without(
    *,
    comparing: ModuleType,
    device: torch.device,
    weighting: str,
    actions: int,
    neutral: int,
    tiny_image_backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: Any = copy.deepcopy(tiny_image_backbone.model)
    width = len(model.visual.ln_post.bias)
    model.visual.ln_post.bias.copy_(noise(width, seed=2))
    parts = tower_of(model.to(device).visual)
    to = parts.projection.shape[1]
    # As small as the norm's eps, so that this counts.
    terms = 1e-3 * noise(2, 8, width).to(device)
    text = F.normalize(noise(3 * actions + neutral, to, seed=1), dim=-1).to(device)
    config = GroundingConfig(weighting)
    results = []
    for own in (None, comparing):
        monkeypatch.setattr(comparison, "own_comparison", lambda x, own=own: own)
        results.append(comparison.compare_classes(terms, text, 3 * actions, parts, config))
    for without, with_ in zip(*results):
        assert with_.shape == without.shape
        # A rounding of a cosine counts a hundred times in a probability.
        torch.testing.assert_close(with_, without, atol=2e-5, rtol=2e-5)


PLACEMENTS = [
    pytest.param((4, 4), (16, 16), (480, 640), "stretch", id="stretched"),
    pytest.param((4, 4), (16, 16), (480, 640), "letterbox", id="letterboxed"),
    pytest.param((3, 5), (12, 20), (640, 480), "letterbox", id="padding beside"),
    pytest.param((1, 5), (4, 20), (48, 64), "stretch", id="one row"),
    pytest.param((3, 1), (12, 4), (48, 64), "letterbox", id="one column"),
    pytest.param((1, 1), (16, 16), (48, 64), "stretch", id="one patch"),
]


@pytest.mark.parametrize(("grid_hw", "input_hw", "image_hw", "resize"), PLACEMENTS)
@pytest.mark.parametrize("fusion_by", ["points", "heatmaps"])
@torch.inference_mode()
def test_heatmaps_and_points_are_those_without(
    *,
    comparing: ModuleType,
    device: torch.device,
    grid_hw: tuple[int, int],
    input_hw: tuple[int, int],
    image_hw: tuple[int, int],
    resize: str,
    fusion_by: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comparing, "PIXELS", 64)  # so that small images have several parts
    similarity = 0.1 * noise(2, 6, math.prod(grid_hw)).to(device)
    placement = place(image_hw, input_hw, resize)
    config = GroundingConfig(fusion=fusion_by)
    results = []
    for own in (None, comparing):
        monkeypatch.setattr(fusion, "own_comparison", lambda x, own=own: own)
        results.append(fusion.locate_points(similarity, grid_hw, placement, config))
    without, with_ = results
    torch.testing.assert_close(with_.heatmaps, without.heatmaps, atol=1e-6, rtol=0)
    assert with_.points.dtype == torch.int64
    # Where rounding decides, the first of equally high pixels may be another one.
    prompts, fused_point = with_.points[..., :3, :], with_.points[..., 3, :]
    assert torch.equal(prompts, heatmaps.peaks(with_.heatmaps[:, :, :3]))
    if fusion_by == "points":
        assert torch.equal(fused_point, fusion.fuse_points(prompts, config.fusion_weights))
    else:
        assert torch.equal(fused_point, heatmaps.peaks(with_.heatmaps[:, :, 3]))
    maps = placement.crop(heatmaps.upsample(similarity, grid_hw, input_hw))
    maps = maps.unflatten(1, (2, 3))
    everywhere = fused_point[..., None, :].expand_as(prompts)
    of_fused = fusion._values_at(maps, everywhere) @ torch.tensor(config.fusion_weights).to(device)
    expected = torch.cat([fusion._values_at(maps, prompts), of_fused[..., None]], dim=-1)
    torch.testing.assert_close(with_.similarity, expected, atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:All-NaN slice")  # of NumPy in Triton's interpreter
@torch.inference_mode()
def test_heatmaps_of_nothing_and_of_what_is_no_number(
    comparing: ModuleType, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Constant similarities make zeros; one that is no number makes its whole heatmap so."""
    similarity = torch.full((1, 3, 16), 0.25, device=device)
    similarity[0, 1] = noise(16)
    similarity[0, 2, 5] = math.nan
    monkeypatch.setattr(fusion, "own_comparison", lambda x: comparing)
    monkeypatch.setattr(comparing, "PIXELS", 256)
    placement = place((40, 40), (40, 40), "stretch")
    located = fusion.locate_points(similarity, (4, 4), placement, GroundingConfig())
    constant, usual, none, fused_ = located.heatmaps[0, 0]
    assert constant.abs().max() <= 1e-6
    assert located.points[0, 0, 0].tolist() == [0, 0]
    assert (usual.min(), usual.max()) == (0, 1)
    assert none.isnan().all()
    assert fused_.isnan().all()


# Attention. Triton's interpreter has no products of bfloat16.


@pytest.fixture
def own(kernels: ModuleType, device: torch.device) -> ModuleType:
    """Own attention, for the size of head and the dtype that it is used for on a GPU."""
    if device.type == "cuda" and torch.cuda.get_device_capability()[0] != fused.HOPPER[0]:
        pytest.skip("own attention is for Hopper")
    pytest.importorskip("triton.tools.tensor_descriptor", reason="Triton older than 3.4")
    return importlib.import_module("videogem_ros.core.triton_attention")


def heads(device: torch.device, tokens: int, size: float, seed: int = 0) -> tuple[Tensor, ...]:
    """q, k and v of two samples and two heads, as a projection gives them, (2, 2, N, d)."""
    dtype, dim = (torch.bfloat16, 64) if device.type == "cuda" else (torch.float32, 16)
    qkv = size * noise(2, tokens, 3 * 2 * dim, seed=seed).to(device, dtype)
    return tuple(qkv.view(2, tokens, 3, 2, dim).permute(2, 0, 3, 1, 4))


def near(found: Tensor, expected: Tensor) -> None:
    """Within what rounding makes of logits, weights and output."""
    limit = 4e-3 if found.dtype == torch.bfloat16 else 1e-5
    error = (found.cpu().double() - expected).norm() / expected.norm()
    assert error <= limit, float(error)


def by_formula(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    q, k, v = (x.cpu().double() for x in (query, key, value))
    weights = (scale * math.log(2) * q @ k.transpose(-1, -2)).softmax(dim=-1)
    return weights @ v.repeat(len(q) // len(v), 1, 1, 1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where a first look overflows
@pytest.mark.parametrize("tokens", [1, 10, 64, 100, 137])
@pytest.mark.parametrize("size", [0.5, 1, 30], ids=["small", "usual", "too large to go without"])
def test_attention_is_its_formula(
    own: ModuleType, device: torch.device, tokens: int, size: float
) -> None:
    q, k, v = heads(device, tokens, size)
    near(own.attention(q, k, v, 0.2), by_formula(q, k, v, 0.2))
    near(own.attention(q[:, :, :1], k, v, 0.2), by_formula(q[:, :, :1], k, v, 0.2))
    every = q[:, :, tokens // 8 :: 8]
    near(own.attention(every, k, v, 0.2), by_formula(every, k, v, 0.2))


@pytest.mark.parametrize("away", [3, 8])
def test_attention_to_what_is_far_from_all(
    own: ModuleType, device: torch.device, away: float
) -> None:
    """All logits are far below those of the zeros that fill the last block of keys."""
    q, k, v = (x.clone() for x in heads(device, 70, 1.0))
    q[..., 0], k[..., 0] = -away, away
    near(own.attention(q, k, v), by_formula(q, k, v, 1.0))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("square", [0.5, 4.0, 300.0])
def test_attention_made_of_a_length(
    own: ModuleType, kernels: ModuleType, device: torch.device, square: float
) -> None:
    """300: 2^300 is no number in float32."""
    squares = torch.tensor([square, square / 2], device=device)
    p = torch.stack(heads(device, 137, 1.0))
    p = kernels.of_length(p, squares, 1.5).flatten(0, 1)
    found = own.attention(p, p, p, square=squares, factor=1.5)
    mixed = by_formula(p, p, p, 1.0)
    length = (1.5 * squares.cpu().double()).sqrt().repeat(3).view(-1, 1, 1, 1)
    near(found, mixed / mixed.norm(dim=-1, keepdim=True) * length)
    assert found.is_contiguous()


def test_zeros_attended_to_stay_zeros(own: ModuleType, device: torch.device) -> None:
    zeros = torch.zeros_like(heads(device, 5, 1.0)[0])
    assert not own.attention(zeros, zeros, zeros, square=torch.ones(2, device=device)).any()
    assert not own.attention(zeros, zeros, zeros.clone()).any()


@pytest.mark.parametrize("tokens", [attention.PATCHES, slice(3, None, 8), torch.tensor([5, 1])])
@torch.inference_mode()
def test_self_self_attention_is_that_without(
    own: ModuleType,
    kernels: ModuleType,
    device: torch.device,
    tokens: Tensor | slice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    projections = torch.stack(heads(device, 137, 1.0))
    tokens = tokens.to(device) if isinstance(tokens, Tensor) else tokens
    temperature = torch.tensor([1.5, 4.0], device=device)
    double = projections.double()
    exact = attention.self_self_attention(double, temperature.double(), tokens).cpu()
    plain = attention.attention(*double).cpu()
    monkeypatch.setattr(attention, "own_kernels", lambda x: kernels)
    monkeypatch.setattr(attention, "own_attention", lambda *x: own)
    found = attention.self_self_attention(projections, temperature, tokens)
    limit = 1e-2 if found.dtype == torch.bfloat16 else 1e-5
    assert (found.cpu() - exact).norm() <= limit * exact.norm()
    near(attention.attention(*projections), plain)


def test_own_attention_is_for_what_it_can_take(
    own: ModuleType, kernels: ModuleType, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "own_kernels", lambda x: kernels)
    monkeypatch.setattr(fused, "_attention_module", lambda device: own)
    x = torch.zeros(1, 1, 4, 64, dtype=torch.bfloat16, device=device)
    assert fused.own_attention(x, x) is own
    assert fused.own_attention(x.half()) is None
    assert fused.own_attention(x[..., :32]) is None
    odd = torch.zeros(1, 1, 4, 65, dtype=x.dtype, device=device)[..., :64]
    assert fused.own_attention(x, odd) is None
    assert fused.own_attention(torch.zeros(260, dtype=x.dtype)[3:259].view(1, 1, 4, 64)) is None
    monkeypatch.setattr(fused, "own_kernels", lambda x: None)
    assert fused.own_attention(x) is None


# In their places.


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("frames", [(7,), (4, 1), tuple(range(8))], ids=str)
@torch.inference_mode()
def test_features_and_similarities_are_those_without(
    *,
    kernels: ModuleType,
    comparing: ModuleType,
    device: torch.device,
    kind: str,
    frames: tuple[int, ...],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny: Backbone = copy.deepcopy(request.getfixturevalue(f"tiny_{kind}_backbone"))
    model: Any = tiny.model
    model.to(device)
    parts = model.vision_encoder.tower() if kind == "video" else tower_of(model.visual)
    pixels = noise(8, 3, 32, 48).to(device)
    text = F.normalize(noise(3, parts.projection.shape[1]), dim=-1).to(device)
    weights = noise(1, 3, 8, seed=4).abs().to(device)
    results = []
    for own, compares in ((None, None), (kernels, comparing)):
        for where in (attention, encoder, fused, tower):
            monkeypatch.setattr(where, "own_kernels", lambda x, own=own: own)
        monkeypatch.setattr(heatmaps, "own_comparison", lambda x, own=compares: own)
        features = Encoder(parts)(pixels, frames)
        similarity = patch_similarity(features, weights, text, parts)
        results.append((features.patch_terms, features.class_terms, similarity))
    for without, with_ in zip(*results):
        torch.testing.assert_close(with_, without, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("prompts", [3, 6])
@torch.inference_mode()
def test_similarities_in_half_precision_are_those_without(
    comparing: ModuleType,
    device: torch.device,
    prompts: int,
    tiny_image_backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the same rounded terms: only what cosines are divided by is rounded more.

    In float16, as Triton's interpreter has no products of bfloat16.
    """
    model: Any = copy.deepcopy(tiny_image_backbone.model)
    parts = tower_of(model.to(device).visual)
    width, to = parts.projection.shape
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float16
    terms = noise(2, 8, 9, width).to(device, dtype)
    features = Features(terms, noise(2, 8, width).to(device), (3, 3), (0, 1))
    text = F.normalize(noise(prompts, to, seed=1), dim=-1).to(device)
    results = []
    for count in (prompts, 1):
        weights = noise(2, count, 8, seed=4).abs().to(device)
        for own in (None, comparing):
            monkeypatch.setattr(heatmaps, "own_comparison", lambda x, own=own: own)
            results.append(patch_similarity(features, weights, text, parts))
    for without, with_ in (results[:2], results[2:]):
        assert with_.dtype == torch.float32
        assert not torch.equal(without[0, 0], without[0, 1])
        # A length is off by less than a rounding, which is cut off in Triton's interpreter.
        torch.testing.assert_close(with_, without, atol=1e-6, rtol=2**-7)


# Where they are used.


def test_a_cpu_uses_none() -> None:
    with torch.no_grad():
        assert fused.own_kernels(noise(2)) is None


def test_kernels_that_do_not_run_are_done_without_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a device where nothing can be made, as where there is no compiler."""
    fused._module.cache_clear()
    nowhere = torch.device("cuda", 99)
    with caplog.at_level(logging.WARNING):
        assert [fused._module(nowhere) for _ in range(2)] == [None, None]
    (record,) = caplog.records
    assert "using torch's operators" in record.message
    fused._module.cache_clear()


def test_beside_the_main_path_work_is_done_at_once_on_a_cpu() -> None:
    done: list[int] = []
    beside = fused.Beside(torch.device("cpu"))
    for number in range(3):
        beside.run(done.append, number)
        assert done == list(range(number + 1))
    beside.join()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.inference_mode()
def test_beside_the_main_path_nothing_is_read_too_late() -> None:
    """What a piece of work reads stays as it is until it is done, though others ask for memory."""
    device, out = torch.device("cuda"), torch.empty(30, 2**20, device="cuda")

    def slow(x: Tensor, to: Tensor) -> None:
        for _ in range(20):
            x = x + 1
        to.copy_(x)

    beside = fused.Beside(device)
    for number in range(len(out)):
        beside.run(slow, torch.full((2**20,), float(number), device=device), out[number])
        torch.full((2**20,), -1.0, device=device)
    beside.join()
    assert torch.equal(out[:, 0].cpu(), torch.arange(30.0) + 20)
    assert torch.equal(out.amin(dim=1), out.amax(dim=1))

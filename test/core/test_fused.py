"""Own GPU kernels against their formulas: interpreted on a CPU, compiled where there is a GPU."""

from __future__ import annotations

import copy
import importlib
import logging
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from videogem_ros.core import attention, encoder, fused, heatmaps, tower
from videogem_ros.core.backbones import Backbone
from videogem_ros.core.backbones.openclip import tower_of
from videogem_ros.core.encoder import Encoder
from videogem_ros.core.heatmaps import patch_similarity

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
    length = torch.tensor([2.0, 5.0], device=device).view(-1, 1, 1, 1)
    found = kernels.of_length(p, length)
    assert found.is_contiguous()
    exact = p.cpu().double()
    close(found, exact / exact.norm(dim=-1, keepdim=True) * length.cpu().double(), dtype)


def test_a_vector_of_zeros_has_no_length(kernels: ModuleType, device: torch.device) -> None:
    p = torch.zeros(1, 1, 1, 2, 8, device=device)
    assert not kernels.of_length(p, torch.ones(1, 1, 1, 1, device=device)).any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("adds", [True, False])
def test_a_sum_and_its_norm_and_lengths(
    kernels: ModuleType, device: torch.device, dtype: torch.dtype, adds: bool
) -> None:
    x = noise(2, 9, 48).to(device)[:, :5]
    added = noise(2, 7, 48, seed=1).to(device, dtype)[:, 2:] if adds else None
    weight, bias = (noise(48, seed=seed).to(device, dtype) for seed in (2, 3))
    total, normed, lengths = kernels.add_norm(x, added, weight, bias, 1e-5, dtype)
    sum_ = x if added is None else x + added
    assert torch.equal(total, sum_)
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
def test_the_mean_of_parts(kernels: ModuleType, device: torch.device, dtype: torch.dtype) -> None:
    parts = noise(3, 2, 37, 3, 24).to(device, dtype).transpose(2, 3)
    found = kernels.mean_of_parts(parts)
    assert found.transpose(1, 2).is_contiguous()
    close(found, parts.cpu().double().mean(dim=0), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("own_mixture", [True, False])
def test_a_mixture_of_terms_and_its_norm(
    kernels: ModuleType, device: torch.device, dtype: torch.dtype, own_mixture: bool
) -> None:
    terms = noise(2, 8, 7, 48).to(device, dtype)[:, :, 2:]
    mixture = noise(2, 3, 8, seed=1) if own_mixture else torch.ones(1, 1, 8).expand(2, -1, -1)
    weight, bias = (noise(48, seed=seed).to(device, dtype) for seed in (2, 3))
    found = kernels.mix_and_norm(terms, mixture.to(device), weight, bias, 1e-5)
    mixed = torch.einsum("fpl,flnd->fpnd", mixture.double(), terms.cpu().double())
    expected = F.layer_norm(mixed, (48,), weight.cpu().double(), bias.cpu().double(), 1e-5)
    close(found, expected, torch.float32)


# In their places.


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("frames", [(7,), (4, 1), tuple(range(8))], ids=str)
@torch.inference_mode()
def test_features_and_similarities_are_those_without(
    kernels: ModuleType,
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
    pixels = noise(8, 3, 64, 64).to(device)
    text = F.normalize(noise(3, parts.projection.shape[1]), dim=-1).to(device)
    weights = noise(1, 3, 8, seed=4).abs().to(device)
    results = []
    for own in (None, kernels):
        for place in (attention, encoder, fused, heatmaps, tower):
            monkeypatch.setattr(place, "own_kernels", lambda x, own=own: own)
        features = Encoder(parts)(pixels, frames)
        similarity = patch_similarity(features, weights, text, parts)
        results.append((features.patch_terms, features.class_terms, similarity))
    for without, with_ in zip(*results):
        torch.testing.assert_close(with_, without, atol=2e-5, rtol=2e-5)


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
    assert "torch's operators instead" in record.message
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

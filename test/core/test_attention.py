"""The two attentions against their formulas, one head and one token at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from videogem_ros.core.attention import (
    attention,
    chosen_kernels,
    kernels,
    merge_heads,
    self_self_attention,
    split_heads,
    token_lengths,
    token_temperature,
)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_heads_are_consecutive_columns_of_q_k_and_v() -> None:
    qkv = torch.arange(2 * 5 * 24.0).view(2, 5, 24)
    split = split_heads(qkv, heads=4)
    assert split.shape == (3, 2, 4, 5, 2)
    for which in range(3):
        for head in range(4):
            first = 8 * which + 2 * head
            assert torch.equal(split[which, :, head], qkv[..., first : first + 2])
    assert torch.equal(merge_heads(split[1]), qkv[..., 8:16])


def test_attention_is_a_softmax_of_scaled_products() -> None:
    q, k, v = noise(3, 2, 4, 6, 8)
    expected = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(8), dim=-1) @ v
    torch.testing.assert_close(attention(q, k, v), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        attention(q[:, :, :1], k, v), expected[:, :, :1], atol=1e-6, rtol=1e-5
    )


def formula(projections: Tensor, temperature: Tensor) -> Tensor:
    value = projections[2].double()
    t = temperature.double().view(-1, 1, 1, 1)
    outputs = []
    for p in projections.double():
        p0 = p / p.norm(dim=-1, keepdim=True)
        p1 = torch.softmax(t * (p0 @ p0.transpose(-1, -2)), dim=-1) @ p0
        p1 = p1 / p1.norm(dim=-1, keepdim=True)
        outputs.append(torch.softmax(t * (p1 @ p1.transpose(-1, -2)), dim=-1) @ value)
    return sum(outputs) / 3


@pytest.mark.parametrize("temperature", [(0.01, 0.5), (2.0, 9.0), (40.0, 120.0)], ids=str)
@pytest.mark.parametrize("tokens", [None, (6,), (3, 0, 5)], ids=str)
def test_self_self_attention_is_its_formula(
    temperature: tuple[float, float], tokens: tuple[int, ...] | None
) -> None:
    projections = noise(3, 2, 4, 7, 8)
    t = torch.tensor(temperature)
    expected = formula(projections, t)
    wanted = None if tokens is None else torch.tensor(tokens)
    found = self_self_attention(projections.clone(), t, wanted)
    expected = expected if tokens is None else expected[:, :, list(tokens)]
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tokens", [None, (6,), (3, 0, 5)], ids=str)
def test_one_by_one_or_as_a_batch_values_and_gradients_are_the_formulas(
    tokens: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    t, wanted = torch.tensor([2.0, 9.0]), None if tokens is None else torch.tensor(tokens)
    weights = noise(2, 4, 7 if tokens is None else len(tokens), 8)
    exact = noise(3, 2, 4, 7, 8).double().requires_grad_()
    expected = formula(exact, t)
    expected = expected if tokens is None else expected[:, :, list(tokens)]
    (expected * weights).sum().backward()
    for many in (1, 1000):
        monkeypatch.setattr("videogem_ros.core.attention.MANY_TOKENS", many)
        projections = noise(3, 2, 4, 7, 8).requires_grad_()
        found = self_self_attention(projections, t, wanted)
        (found * weights).sum().backward()
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(projections.grad.double(), exact.grad, atol=1e-4, rtol=1e-4)


def test_self_self_attention_leaves_its_input_as_it_is() -> None:
    projections = noise(3, 1, 2, 5, 4)
    kept = projections.clone()
    self_self_attention(projections, torch.tensor([3.0]))
    assert torch.equal(projections, kept)


def test_without_temperature_every_token_gets_the_mean_value() -> None:
    projections = noise(3, 1, 2, 5, 4)
    found = self_self_attention(projections, torch.zeros(1))
    mean = projections[2].mean(dim=-2, keepdim=True).expand_as(found)
    torch.testing.assert_close(found, mean, atol=1e-6, rtol=1e-5)


def test_only_directions_of_the_projections_count_but_for_the_value() -> None:
    projections, t = noise(3, 1, 2, 5, 4), torch.tensor([4.0])
    longer = projections.clone()
    longer[:2] *= 17
    torch.testing.assert_close(
        self_self_attention(longer, t), self_self_attention(projections, t), atol=1e-5, rtol=1e-5
    )


def test_temperature_is_the_mean_length_of_the_tokens_over_the_root_of_the_head_size() -> None:
    y = torch.tensor([[[3.0, 4.0], [0.0, 1.0]], [[6.0, 8.0], [0.0, 0.0]]])
    assert token_temperature(token_lengths(y), head_dim=4).tolist() == pytest.approx([1.5, 2.5])
    assert token_lengths(y.half()).dtype == torch.float32


# Kernels of a GPU.

CUDNN, FLASH, EFFICIENT, MATH = (
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)


@pytest.mark.parametrize(
    ("dtype", "head_dim", "expected"),
    [
        (torch.bfloat16, 64, (FLASH, EFFICIENT, MATH)),
        (torch.float16, 80, (FLASH, EFFICIENT, MATH)),
        (torch.bfloat16, 264, (EFFICIENT, MATH)),
        (torch.bfloat16, 20, (MATH,)),
        (torch.float32, 64, (EFFICIENT, MATH)),
        (torch.float32, 20, (EFFICIENT, MATH)),
        (torch.float32, 18, (MATH,)),
        (torch.float64, 64, (MATH,)),
    ],
    ids=str,
)
def test_kernels_follow_from_precision_and_head_size(
    dtype: torch.dtype, head_dim: int, expected: tuple[SDPBackend, ...]
) -> None:
    assert kernels(dtype, head_dim) == expected


@pytest.mark.parametrize(
    ("dtype", "head_dim", "capability", "first"),
    [
        (torch.bfloat16, 64, (9, 0), CUDNN),
        (torch.float16, 128, (10, 0), CUDNN),
        (torch.bfloat16, 64, (8, 9), FLASH),
        (torch.bfloat16, 136, (9, 0), FLASH),
        (torch.bfloat16, 20, (9, 0), MATH),
        (torch.float32, 64, (9, 0), EFFICIENT),
    ],
    ids=str,
)
def test_cudnns_kernel_comes_first_from_hopper_on(
    dtype: torch.dtype, head_dim: int, capability: tuple[int, int], first: SDPBackend
) -> None:
    found = kernels(dtype, head_dim, capability)
    assert found[0] == first
    assert [kernel for kernel in found if kernel != CUDNN] == [*kernels(dtype, head_dim)]


def test_a_cpu_keeps_its_own_choice() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()
    with chosen_kernels(torch.device("cpu"), torch.float32, 64):
        inside = torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()
    assert inside == before


def test_a_gpu_is_given_the_chosen_ones_and_all_others_back_after() -> None:
    with chosen_kernels(torch.device("cuda"), torch.float32, 64):
        assert not torch.backends.cuda.flash_sdp_enabled()
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.mem_efficient_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_preferred_kernel_takes_what_the_encoder_gives_it(dtype: torch.dtype) -> None:
    """Alone: without those it could fall back on."""
    split = split_heads(noise(2, 50, 3 * 128).to("cuda", dtype), heads=2)
    preferred = kernels(dtype, 64)[0]
    with torch.nn.attention.sdpa_kernel(preferred):
        found = self_self_attention(split, torch.ones(2, device="cuda"))
        plain = attention(*split)
    assert found.isfinite().all()
    assert plain.isfinite().all()

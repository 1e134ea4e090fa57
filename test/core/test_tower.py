from __future__ import annotations

import pytest
import torch
from open_clip.transformer import QuickGELU, Transformer
from torch import nn

from videogem_ros.core import Encoder
from videogem_ros.core.backbones import Backbone
from videogem_ros.core.tower import MLP_ROWS, Linear, Norm, blocks_of


def transformer(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return Transformer(width=16, layers=2, heads=2, **options).eval()


@pytest.mark.parametrize("tokens", [1, MLP_ROWS, MLP_ROWS + 1, 3 * MLP_ROWS - 5])
@pytest.mark.parametrize(
    "options", [{}, {"ls_init_value": 0.3}, {"act_layer": QuickGELU}], ids=str
)
@torch.inference_mode()
def test_the_mlp_of_many_tokens_is_that_of_each(tokens: int, options: dict) -> None:
    module = transformer(**options)
    x = torch.randn(2, tokens, 16)
    for block, resblock in zip(blocks_of(module.resblocks), module.resblocks, strict=True):
        expected = resblock.ls_2(resblock.mlp(resblock.ln_2(x)))
        torch.testing.assert_close(block.mlp(x), expected, atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_an_encoder_of_more_tokens_than_one_slice_equals_the_plain_model(
    tiny_image_backbone: Backbone,
) -> None:
    encoder = Encoder(tiny_image_backbone.tower)
    pixels = torch.randn(1, 3, 16 * 24, 16 * 24)  # 577 tokens
    features = encoder(pixels)
    visual = tiny_image_backbone.model.visual
    x = visual.conv1(pixels).flatten(2).transpose(1, 2) + encoder.positions((24, 24))[1:]
    token = visual.class_embedding + visual.positional_embedding[0]
    x = visual.transformer(visual.ln_pre(torch.cat([token[None, None], x], dim=1)))
    expected = nn.functional.normalize(visual.ln_post(x[:, 0]) @ visual.proj, dim=-1)
    found = encoder.tower.embed(features.class_terms.sum(dim=1))
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_a_tower_refers_to_the_models_own_weights(tiny_image_backbone: Backbone) -> None:
    tower, visual = tiny_image_backbone.tower, tiny_image_backbone.model.visual
    assert tower.projection is visual.proj
    assert tower.patch_embedding is visual.conv1.weight
    assert tower.blocks[3].qkv.weight is visual.transformer.resblocks[3].attn.in_proj_weight


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_a_norm_has_the_modules_epsilon(eps: float) -> None:
    module = nn.LayerNorm(4, eps=eps)
    x = 1e-2 * torch.randn(3, 4)
    assert torch.equal(Norm.of(module)(x), module(x))


def test_a_linear_layer_may_lack_a_bias() -> None:
    module = nn.Linear(3, 2, bias=False)
    x = torch.randn(4, 3)
    assert torch.equal(Linear.of(module)(x), module(x))


@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_a_linear_layer_scales_its_product_and_its_bias(bias: bool) -> None:
    module = nn.Linear(3, 2, bias=bias)
    x = torch.randn(4, 5, 3)
    expected = 0.3 * (x @ module.weight.T) + (1.7 * module.bias if bias else 0)
    torch.testing.assert_close(Linear.of(module).scaled(x, 0.3, 1.7), expected)


@torch.inference_mode()
def test_embeddings_are_unit_vectors_in_float32(tiny_video_backbone: Backbone) -> None:
    tower = tiny_video_backbone.tower
    embedded = tower.embed(torch.randn(2, 5, 64).half())
    assert embedded.dtype == torch.float32
    torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(2, 5))

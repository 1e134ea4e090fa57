from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from tiny import TINY_CLIP, TINY_VICLIP
from torch import Tensor, nn
from torch.nn.functional import normalize
from transcription import Sizes, Transcription, resampled

from videogem_ros.core import Encoder, Grounder, GroundingConfig, load_backbone
from videogem_ros.core.backbones import Backbone, openclip, viclip
from videogem_ros.core.configuration import SCOPES
from videogem_ros.core.encoder import join_features, resample_positions
from videogem_ros.core.heatmaps import patch_similarity
from videogem_ros.datatypes import PROMPT_KINDS, Action, Features, Frame, Window
from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.live_bytes import LiveBytes

ACTION = Action("pour the milk", "pour the milk", "pour", "pour", "milk", "milk")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def drawn(module: nn.Module, seed: int = 4) -> nn.Module:
    """The module with every parameter moved away from zero and one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return module.eval()


def tiny_clip(quick_gelu: bool = False, **vision: Any) -> nn.Module:
    config = copy.deepcopy(TINY_CLIP)
    config["vision_cfg"].update(vision)
    return drawn(openclip.build(config | {"quick_gelu": quick_gelu}))


def class_embedding(encoder: Encoder, features: Features) -> Tensor:
    return encoder.tower.embed(features.class_terms.sum(dim=1))


# The plain path.


@pytest.mark.parametrize("depth", [1, 7, 8])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quick_gelu": True},
        {"ls_init_value": 0.5},
        {"no_ln_pre": True},
        {"image_size": [48, 96]},
        {"head_width": 16},
    ],
    ids=str,
)
@torch.inference_mode()
def test_class_terms_sum_to_the_image_embedding_of_open_clip(options: dict, depth: int) -> None:
    model = tiny_clip(**options)
    encoder = Encoder(openclip.tower_of(model.visual), depth)
    pixels = noise(3, 3, *encoder.tower.input_hw)
    expected = model.encode_image(pixels, normalize=True)
    torch.testing.assert_close(
        class_embedding(encoder, encoder(pixels)), expected, atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("depth", [1, 7, 8])
@torch.inference_mode()
def test_class_terms_sum_to_the_video_embedding(depth: int) -> None:
    vision = drawn(viclip.ViClipVision(TINY_VICLIP))
    encoder = Encoder(vision.tower(), depth)
    pixels = noise(8, 3, 64, 64)
    features = encoder(pixels, frames=(2,))
    expected = normalize(vision(pixels[None]), dim=-1)
    torch.testing.assert_close(class_embedding(encoder, features), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("image_size", [[64, 96], [128, 128], [32, 48]])
@torch.inference_mode()
def test_another_resolution_equals_open_clip_with_resized_positions(image_size: list[int]) -> None:
    model = drawn(openclip.build(_square(64)))
    resized = openclip.build(_square(image_size)).eval()
    state = dict(model.state_dict())
    open_clip.model.resize_pos_embed(state, resized)
    resized.load_state_dict(state)
    encoder = Encoder(openclip.tower_of(model.visual))
    pixels = noise(2, 3, *image_size)
    expected = resized.encode_image(pixels, normalize=True)
    torch.testing.assert_close(
        class_embedding(encoder, encoder(pixels)), expected, atol=2e-6, rtol=0
    )


def _square(image_size: int | list[int]) -> dict:
    config = copy.deepcopy(TINY_CLIP)
    config["vision_cfg"]["image_size"] = image_size
    return config


def test_positions_of_the_trained_grid_are_not_resampled() -> None:
    embedding = noise(1 + 12, 8)
    assert resample_positions(embedding, (3, 4), (3, 4)) is embedding
    other = resample_positions(embedding, (3, 4), (4, 3))
    assert other.shape == embedding.shape
    assert torch.equal(other[0], embedding[0])


def test_resampling_keeps_a_constant_and_a_linear_ramp_inside() -> None:
    ramp = torch.arange(8.0).view(1, 8).expand(8, 8).flatten()
    embedding = torch.cat([torch.zeros(1, 2), torch.stack([ramp, torch.ones(64)], dim=1)])
    grid = resample_positions(embedding, (8, 8), (8, 16))[1:].view(8, 16, 2)
    assert torch.allclose(grid[..., 1], torch.ones(8, 16), atol=1e-6)
    expected = (torch.arange(16.0) + 0.5) / 2 - 0.5
    assert torch.allclose(grid[3, 4:12, 0], expected[4:12], atol=1e-5)


@pytest.mark.parametrize("grid_hw", [(1, 1), (1, 7), (7, 1), (2, 1), (7, 2), (9, 11)])
@pytest.mark.parametrize("trained_hw", [(4, 4), (5, 1), (1, 5)])
def test_resampling_is_pillows_for_any_grid(
    trained_hw: tuple[int, int], grid_hw: tuple[int, int]
) -> None:
    embedding = noise(1 + trained_hw[0] * trained_hw[1], 8)
    expected = resampled(embedding, trained_hw, *grid_hw).float()
    found = resample_positions(embedding, trained_hw, grid_hw)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


# The model stays what it was.


def vitals(module: nn.Module) -> dict[str, Any]:
    """Everything that patching a module changes."""
    return {
        name: (
            type(child),
            sorted(vars(child)),
            sorted(child._modules),
            len(child._forward_hooks),
            len(child._forward_pre_hooks),
            child.training,
            [(key, id(value)) for key, value in child._parameters.items()],
        )
        for name, child in module.named_modules()
    }


@torch.inference_mode()
def test_the_open_clip_model_is_untouched_and_usable(tiny_clip_config: Path) -> None:
    backbone = load_backbone(f"openclip:{tiny_clip_config}", "random:3")
    pixels, tokens = noise(2, 3, 64, 64), torch.tensor([[49406, 320, 49407] + [0] * 74])
    before = backbone.model.encode_image(pixels), backbone.model.encode_text(tokens)
    state = copy.deepcopy(backbone.model.state_dict())
    parts = vitals(backbone.model)
    frame = Frame(np.zeros((50, 70, 3), np.uint8), 0)
    Grounder(backbone, GroundingConfig(image_hw=(32, 96))).ground(Window((frame,)), [ACTION])
    Encoder(backbone.tower)(pixels)
    assert vitals(backbone.model) == parts
    for name, value in backbone.model.state_dict().items():
        assert torch.equal(value, state[name]), name
    after = backbone.model.encode_image(pixels), backbone.model.encode_text(tokens)
    assert all(torch.equal(one, other) for one, other in zip(before, after))


@torch.inference_mode()
def test_the_viclip_module_is_untouched_and_usable(tiny_video_backbone: Backbone) -> None:
    vision = tiny_video_backbone.model.vision_encoder
    pixels = noise(8, 3, 64, 64)
    before, parts = vision(pixels[None]), vitals(vision)
    Encoder(tiny_video_backbone.tower)(pixels, frames=(7,))
    assert vitals(vision) == parts
    assert torch.equal(vision(pixels[None]), before)


# Frames.


@pytest.fixture(params=["image", "video"])
def tiny(request: pytest.FixtureRequest) -> Backbone:
    return request.getfixturevalue(f"tiny_{request.param}_backbone")


@pytest.mark.parametrize("scope", SCOPES)
@torch.inference_mode()
def test_frames_come_in_the_order_asked_for(tiny: Backbone, scope: str) -> None:
    pixels = noise(8, 3, 64, 64)
    encoder = Encoder(tiny.tower, scope=scope)
    everything = encoder(pixels)
    for chosen in [(5,), (6, 1, 3), (2, 2), tuple(reversed(range(8))), (0,) * 8]:
        some = encoder(pixels, chosen)
        assert some.frames == chosen
        for name in ("patch_terms", "class_terms"):
            found, expected = getattr(some, name), getattr(everything, name)[list(chosen)]
            torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-6)


@torch.inference_mode()
def test_frames_of_an_image_backbone_do_not_see_each_other(tiny_image_backbone: Backbone) -> None:
    encoder, pixels = Encoder(tiny_image_backbone.tower), noise(4, 3, 64, 64)
    other = pixels.clone()
    other[2:] += 1
    one, two = encoder(pixels), encoder(other)
    assert torch.equal(one.patch_terms[:2], two.patch_terms[:2])
    assert not torch.equal(one.patch_terms[2], two.patch_terms[2])


@torch.inference_mode()
def test_frames_of_a_video_backbone_do(tiny_video_backbone: Backbone) -> None:
    encoder, pixels = Encoder(tiny_video_backbone.tower), noise(8, 3, 64, 64)
    other = pixels.clone()
    other[0] += 1
    one, two = encoder(pixels, (7,)), encoder(other, (7,))
    assert not torch.allclose(one.patch_terms, two.patch_terms, atol=1e-3)


@torch.inference_mode()
def test_patches_of_a_video_stand_row_by_row_in_their_own_frame(
    tiny_video_backbone: Backbone,
) -> None:
    """s_0, before any block: a patch is embedded where it lies and nowhere else."""
    tower, pixels = tiny_video_backbone.tower, noise(8, 3, 64, 64)
    changed = pixels.clone()
    changed[5, :, 16:32, 48:64] += 1  # frame 5, row 1, column 3
    one, two = Encoder(tower, 8)(pixels), Encoder(tower, 8)(changed)
    moved = (one.patch_terms[:, 0] != two.patch_terms[:, 0]).any(dim=-1).nonzero().tolist()
    assert moved == [[5, 1 * 4 + 3]]


@torch.inference_mode()
def test_a_batch_of_image_windows_equals_its_frames(tiny_image_backbone: Backbone) -> None:
    encoder, windows = Encoder(tiny_image_backbone.tower), noise(3, 2, 3, 64, 64)
    patch_terms, class_terms = encoder.walk(encoder.tokens(windows))
    alone = encoder(windows.flatten(0, 1))
    torch.testing.assert_close(patch_terms, alone.patch_terms, atol=2e-6, rtol=2e-6)
    torch.testing.assert_close(class_terms, alone.class_terms, atol=2e-6, rtol=2e-6)


@torch.inference_mode()
def test_a_batch_of_video_windows_equals_them_one_by_one(tiny_video_backbone: Backbone) -> None:
    encoder, windows = Encoder(tiny_video_backbone.tower), noise(3, 8, 3, 64, 64)
    patch_terms, class_terms = encoder.walk(encoder.tokens(windows))
    by_frame = patch_terms.unflatten(2, (16, 8)).permute(0, 3, 1, 2, 4)  # time is fastest
    for window, patches, classes in zip(windows, by_frame, class_terms):
        alone = encoder(window)
        torch.testing.assert_close(patches, alone.patch_terms, atol=2e-6, rtol=2e-6)
        torch.testing.assert_close(classes, alone.class_terms[0], atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("chosen", [(7,), (4, 1), tuple(range(8)), (0, 0, 3)], ids=str)
@torch.inference_mode()
def test_windows_together_give_what_each_gives_alone(
    tiny: Backbone, chosen: tuple[int, ...], scope: str
) -> None:
    encoder, windows = Encoder(tiny.tower, scope=scope), noise(3, 8, 3, 64, 64)
    patch_terms, class_terms = encoder.terms(windows, chosen)
    for window, patches, classes in zip(windows, patch_terms, class_terms):
        alone = encoder(window, chosen)
        torch.testing.assert_close(patches, alone.patch_terms, atol=2e-6, rtol=2e-6)
        torch.testing.assert_close(classes, alone.class_terms, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@torch.inference_mode()
def test_patches_are_embedded_by_a_product_as_by_the_convolution(
    tiny_image_backbone: Backbone, layout: torch.memory_format
) -> None:
    tower, pixels = tiny_image_backbone.tower, noise(2, 3, 48, 80)
    kernel = tower.patch_embedding
    expected = torch.nn.functional.conv2d(pixels, kernel, stride=tower.patch_hw)
    found = Encoder(tower)._patches(pixels.contiguous(memory_format=layout))
    torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2), atol=2e-6, rtol=2e-6)


# Positions of other grids.


def test_positions_of_another_grid_are_kept_while_they_hold(tiny_clip_config: Path) -> None:
    encoder = Encoder(load_backbone(f"openclip:{tiny_clip_config}", "random:0").tower)
    embedding = encoder.tower.position_embedding
    with torch.inference_mode():
        first = encoder.positions((6, 4))
        assert encoder.positions((6, 4)) is first
        assert encoder.positions((4, 4)) is embedding
    assert not first.is_inference()  # training may meet it
    embedding.mul_(2)
    torch.testing.assert_close(encoder.positions((6, 4)), 2 * first)
    embedding.data = embedding / 2
    torch.testing.assert_close(encoder.positions((6, 4)), first)


def test_training_never_meets_positions_of_before() -> None:
    embedding = noise(1 + 16, 8).requires_grad_()
    visual = tiny_clip().visual
    encoder = Encoder(replace(openclip.tower_of(visual), position_embedding=embedding))
    first = encoder.positions((6, 4))
    assert first.requires_grad
    with torch.inference_mode():
        embedding.data.mul_(2)  # which nobody counts
        assert torch.equal(encoder.positions((6, 4)), 2 * first)


@torch.inference_mode()
def test_in_bfloat16_the_residual_stream_stays_float32(tiny: Backbone) -> None:
    """Beside float32 little more is lost than the products' own rounding."""
    pixels, exact = noise(8, 3, 64, 64), Encoder(tiny.tower)
    narrow = copy.deepcopy(tiny.model).to(torch.bfloat16)
    is_video = tiny.window_frames > 1
    tower = narrow.vision_encoder.tower() if is_video else openclip.tower_of(narrow.visual)
    found, expected = Encoder(tower)(pixels.bfloat16()), exact(pixels)
    assert found.class_terms.dtype == torch.float32
    assert found.patch_terms.dtype == torch.bfloat16
    error = class_embedding(exact, found) - class_embedding(exact, expected)
    assert error.norm(dim=-1).max() < 0.02
    cosine = torch.cosine_similarity(found.patch_terms.float(), expected.patch_terms, dim=-1)
    assert cosine.min() > 0.999


def part(grid_hw: tuple[int, int]) -> Features:
    patches = grid_hw[0] * grid_hw[1]
    return Features(torch.zeros(1, 8, patches, 4), torch.zeros(1, 8, 4), grid_hw, (0,))


@pytest.mark.parametrize("parts", [[], [part((2, 2)), part((1, 4))]], ids=["none", "two grids"])
def test_features_of_unlike_grids_are_not_joined(parts: list[Features]) -> None:
    with pytest.raises(InvalidValueError, match="features"):
        join_features(parts, range(len(parts)))


# What is refused.


@pytest.mark.parametrize(
    ("depth", "message"),
    [(0, "depth: expected 1 to the backbone's 8 blocks, got 0"), (9, "blocks, got 9")],
)
def test_more_blocks_than_the_tower_has_are_refused(
    tiny: Backbone, depth: int, message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        Encoder(tiny.tower, depth)


def test_an_unknown_scope_is_refused(tiny: Backbone) -> None:
    with pytest.raises(InvalidValueError, match="self_self_scope: expected one of window, frame"):
        Encoder(tiny.tower, scope="patch")


@pytest.mark.parametrize(
    ("shape", "field"),
    [
        ((8, 3, 60, 64), "image_hw"),
        ((8, 3, 64, 65), "image_hw"),
        ((8, 1, 64, 64), "pixels"),
        ((8, 64, 64), "pixels"),
        ((1, 8, 3, 64, 64), "pixels"),
        ((0, 3, 64, 64), "frames"),
    ],
    ids=str,
)
def test_pixels_of_another_shape_are_refused(
    tiny: Backbone, shape: tuple[int, ...], field: str
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Encoder(tiny.tower)(torch.zeros(shape))
    assert caught.value.field == field


@pytest.mark.parametrize("frames", [(), (8,), (-1,), (0, 9)], ids=str)
def test_frames_outside_the_window_are_refused(tiny: Backbone, frames: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValueError, match="indices in a window of 8 frames"):
        Encoder(tiny.tower)(torch.zeros(8, 3, 64, 64), frames)


@pytest.mark.parametrize("count", [1, 7, 9])
def test_a_video_tower_takes_exactly_its_frames(tiny_video_backbone: Backbone, count: int) -> None:
    with pytest.raises(InvalidValueError, match=f"window.frames: expected 8 frames, got {count}"):
        Encoder(tiny_video_backbone.tower)(torch.zeros(count, 3, 64, 64))


# Gradients.


def towers() -> list[tuple[str, Callable[[], tuple[nn.Module, Any]]]]:
    def image() -> tuple[nn.Module, Any]:
        visual = tiny_clip(ls_init_value=0.5).visual
        return visual, openclip.tower_of(visual)

    def video() -> tuple[nn.Module, Any]:
        vision = drawn(viclip.ViClipVision(TINY_VICLIP))
        return vision, vision.tower()

    return [("image", image), ("video", video)]


@pytest.mark.parametrize(("kind", "build"), towers(), ids=[kind for kind, _ in towers()])
def test_gradients_reach_every_weight_and_are_the_slopes_of_the_method(
    kind: str, build: Callable[[], tuple[nn.Module, Any]]
) -> None:
    module, tower = build()
    pixels = noise(8 if kind == "video" else 2, 3, 64, 64)
    text = normalize(noise(3, 32, seed=5), dim=-1)
    weights = torch.linspace(0.3, 1.0, 8)

    features = Encoder(tower)(pixels)
    similarity = patch_similarity(features, weights.view(1, 1, 8), text, tower)
    mixture = noise(*similarity.shape, seed=6)
    token = tower.embed(features.class_terms.sum(dim=1)) @ text.T
    ((similarity * mixture).sum() + token.sum()).backward()

    named = dict(module.named_parameters())
    assert all(value.grad is not None for value in named.values())
    assert all(value.grad.abs().max() > 0 for value in named.values())

    def loss(state: dict[str, Tensor]) -> float:
        state = {n: v.squeeze(2) if v.ndim == 5 else v for n, v in state.items()}
        truth = Transcription(state, Sizes(2, (4, 4), quick_gelu=kind == "video"))
        terms = truth.terms(pixels, depth=7)
        total = 0.0
        for t, patch in enumerate(terms.patch):
            for p, prompt in enumerate(text.double()):
                found = truth.similarity(patch, weights.double(), prompt)
                total += float(found @ mixture[t, p].double())
                total += float(truth.embed(terms.token[t].sum(dim=0)) @ prompt)
        return total

    for name in (
        "proj",
        "class_embedding",
        "conv1.weight",
        "transformer.resblocks.0.mlp.c_fc.bias",
        "transformer.resblocks.4.attn.in_proj_weight",
        "transformer.resblocks.7.ln_1.bias",
    ):
        direction = noise(*named[name].shape, seed=7).double()
        state = {n: v.detach().double() for n, v in module.state_dict().items()}
        up = loss(state | {name: state[name] + 1e-5 * direction})
        down = loss(state | {name: state[name] - 1e-5 * direction})
        slope = float((named[name].grad.double() * direction).sum())
        assert slope == pytest.approx((up - down) / 2e-5, rel=1e-3, abs=1e-3), name


# Precision and determinism.


@torch.inference_mode()
def test_two_runs_on_the_cpu_are_bit_equal(tiny: Backbone) -> None:
    pixels = noise(8, 3, 64, 64)
    runs = [Encoder(tiny.tower)(pixels, (7, 2)) for _ in range(2)]
    assert torch.equal(runs[0].patch_terms, runs[1].patch_terms)
    assert torch.equal(runs[0].class_terms, runs[1].class_terms)


def scene() -> Window:
    rows, columns = np.mgrid[:90, :120]
    image = np.stack([2 * rows, columns, 255 * (np.hypot(rows - 30, columns - 80) < 20)], axis=-1)
    return Window((Frame(image.astype(np.uint8), 0),))


def near_in_precision(rough: Backbone, exact: Backbone, tolerance: float) -> None:
    """Points of a rough precision lie where the exact heatmap is near its maximum."""
    window = scene()
    (found,), (true,) = (Grounder(b).ground(window, [ACTION]) for b in (rough, exact))
    for kind in PROMPT_KINDS:
        assert np.isfinite(found.heatmaps[kind].values).all()
        assert found.points[kind].similarity == pytest.approx(
            true.points[kind].similarity, abs=tolerance
        )
        x, y = (
            int((p + 0.5) * 64 / side)
            for p, side in zip((found.points[kind].x, found.points[kind].y), (120, 90))
        )
        assert true.heatmaps[kind].values[y, x] > 1 - 10 * tolerance
    assert found.prompt_probabilities == pytest.approx(true.prompt_probabilities, abs=0.1)
    assert 0 <= found.score <= 1


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2e-2), ("float16", 2e-3)])
def test_half_precisions_point_near_float32(
    tiny_clip_config: Path, tiny_image_backbone: Backbone, dtype: str, tolerance: float
) -> None:
    rough = load_backbone(f"openclip:{tiny_clip_config}", "random:0", dtype=dtype)
    assert rough.tower.dtype == getattr(torch, dtype)
    near_in_precision(rough, tiny_image_backbone, tolerance)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@torch.inference_mode()
def test_half_precisions_encode_video(dtype: str) -> None:
    vision = drawn(viclip.ViClipVision(TINY_VICLIP))
    pixels, text = noise(8, 3, 64, 64), normalize(noise(3, 32, seed=5), dim=-1)
    ones = torch.ones(1, 1, 8)
    exact_tower = vision.tower()
    exact = patch_similarity(Encoder(exact_tower)(pixels, (7,)), ones, text, exact_tower)
    tower = copy.deepcopy(vision).to(getattr(torch, dtype)).tower()
    features = Encoder(tower)(pixels.to(getattr(torch, dtype)), (7,))
    assert features.patch_terms.dtype == getattr(torch, dtype)
    rough = patch_similarity(features, ones, text, tower)
    assert rough.dtype == torch.float32
    assert float((rough - exact).abs().max()) < (5e-2 if dtype == "bfloat16" else 5e-3)


# Memory, in matrices of one number for each token and channel.


@torch.inference_mode()
@pytest.mark.parametrize("wanted", [slice(1, None), slice(8, None, 8)], ids=str)
def test_a_pass_holds_little_beside_its_result(wanted: slice) -> None:
    encoder = Encoder(openclip.tower_of(tiny_clip().visual))
    x = encoder.tokens(noise(1, 3, 448, 448))
    assert x.shape[1] > 512  # where q, k and v are looked at one by one
    with LiveBytes() as live:
        terms, _ = encoder.walk(x, wanted)
    # q, k and v; the residual stream; of self-self attention the vectors, two outputs and what is
    # at hand. Or, in their stead, the hidden layer of half the tokens before and after.
    assert live.peak < terms.nbytes + 8.5 * x.nbytes


@torch.inference_mode()
def test_many_prompts_hold_no_more_than_a_few() -> None:
    vision = drawn(viclip.ViClipVision(TINY_VICLIP))
    tower = vision.tower()
    features = Encoder(tower)(noise(8, 3, 64, 64))
    peaks = []
    for prompts in (3, 30):
        text, weights = normalize(noise(prompts, 32), dim=-1), noise(8, prompts, 8)
        with LiveBytes() as live:
            similarity = patch_similarity(features, weights, text, tower)
        peaks.append(live.peak - 2 * similarity.nbytes)  # the parts and the whole
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 2e-2), ("float16", 2e-3)]
)
def test_cuda_points_near_the_cpu(
    tiny_clip_config: Path, tiny_image_backbone: Backbone, dtype: str, tolerance: float
) -> None:
    name = f"openclip:{tiny_clip_config}"
    rough = load_backbone(name, "random:0", device="cuda", dtype=dtype)
    near_in_precision(rough, tiny_image_backbone, tolerance)
    window = scene()
    runs = [Grounder(rough).encode(window).patch_terms for _ in range(2)]
    assert torch.equal(runs[0], runs[1])

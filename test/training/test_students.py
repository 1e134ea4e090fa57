"""Models in training see what the grounder sees, and are written as it reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import spoken_tokens, tokens_of
from held_out import area_under_curve
from models import (
    Student,
    VideoStudent,
    drawn_places,
    drawn_weights,
    export,
    normalised,
    plain_walk,
)
from safetensors.torch import load_file
from tiny import TINY_VICLIP

from videogem_ros.core import Encoder, Grounder, GroundingConfig, load_backbone
from videogem_ros.core.backbones import viclip
from videogem_ros.datatypes import Action, Frame, Window

TEXTS = ["push the red cup", "A photo of a room.", "a hand on a table: tip the little steel can"]


@pytest.fixture(params=["image", "video"])
def student(request: pytest.FixtureRequest) -> Student:
    return request.getfixturevalue(f"{request.param}_student")


def noise(batch: int, frames: int, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 256, (batch, frames, 64, 64, 3), dtype=np.uint8))


def frames_of(student: Student) -> int:
    return student.tower.frames


@pytest.mark.parametrize("kept", [16, 7])
def test_patches_seen_are_those_of_the_grounder(student: Student, kept: int) -> None:
    """Place by place and frame by frame; with patches dropped, the numbers say which are left."""
    images = noise(3, frames_of(student))
    seen = student.see(images, kept, torch.Generator().manual_seed(2))
    assert seen.places.shape == (3, kept)
    assert (seen.frames[:, -1] == frames_of(student) - 1).all()
    grounder = Grounder(student.backbone(), GroundingConfig())
    for row, clip in enumerate(images.numpy()):
        window = Window(tuple(Frame(image, place) for place, image in enumerate(clip)))
        features = grounder.encode(window, frames="all")
        mixed = torch.einsum("l,tlnd->tnd", seen.weights[row], features.patch_terms)
        patches = student.tower.embed(mixed)  # (T, N, P)
        expected = patches[seen.frames[row]][:, seen.places[row]]
        # Without patches the others see less, so only the order can be compared.
        cosines = torch.einsum("fnp,gmp->fngm", seen.patches[row], expected)
        size = len(seen.frames[row]) * kept
        best = cosines.reshape(size, size).argmax(dim=-1)
        assert torch.equal(best, torch.arange(size))
        if kept == student.patches:
            assert (seen.patches[row] * expected).sum(dim=-1).min() > 0.995  # of bfloat16
            classes = student.tower.embed(features.class_terms[0].sum(dim=0))
            assert (seen.classes[row] * classes).sum() > 0.995


@torch.no_grad()
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("frames", [1, 4, 8])
def test_only_so_many_frames_of_a_clip_matter(
    video_student: VideoStudent, frames: int, plain: bool
) -> None:
    """The newest ones and no others change what is seen."""
    images = noise(1, 8)

    def look(clip: torch.Tensor) -> torch.Tensor:
        drawn = torch.Generator().manual_seed(2)
        return video_student.see(clip, 7, drawn, plain=plain, frames=frames).patches

    before, matters = look(images), []
    for place in range(8):
        changed = images.clone()
        changed[:, place] = 255 - changed[:, place]
        matters.append(not torch.equal(look(changed), before))
    assert matters == [place >= 8 - frames for place in range(8)]


@torch.no_grad()
def test_patches_of_the_plain_path_are_its_last_tokens(student: Student) -> None:
    images = noise(2, frames_of(student))
    seen = student.see(images, student.patches, torch.Generator().manual_seed(2), plain=True)
    backbone, tower = student.backbone(), student.tower
    for row, clip in enumerate(images):
        pixels = normalised(clip, backbone.preprocessing)
        x = tower.ln_pre(Encoder(tower).tokens(pixels))
        if isinstance(student, VideoStudent):
            x = student.model.vision_encoder.transformer(x)
        else:
            x = student.model.visual.transformer(x)
        tokens = tower.embed(x[0])
        frames = tokens[1:].view(student.patches, frames_of(student), -1)[:, seen.frames[row]]
        assert (seen.patches[row] * frames.transpose(0, 1)).sum(dim=-1).min() > 0.995
        assert (seen.classes[row] * tokens[0]).sum() > 0.995


def test_no_layer_weighting_is_favoured() -> None:
    weights = drawn_weights(2000, 8, torch.Generator().manual_seed(0))
    assert weights.shape == (2000, 8)
    assert 0.3 <= weights.min() < 0.31
    assert 1.69 < weights.max() <= 1.7
    torch.testing.assert_close(weights.mean(dim=0), torch.ones(8), atol=0.04, rtol=0)
    together = torch.corrcoef(weights.T) - torch.eye(8)
    assert together.abs().max() < 0.1


def test_busy_patches_are_drawn_first() -> None:
    busy = torch.zeros(3, 20, dtype=torch.bool)
    busy[0, [1, 7, 19]] = busy[1, 5:15] = True
    places = drawn_places(busy, 6, torch.Generator().manual_seed(0))
    assert places.shape == (3, 6)
    assert (places.diff(dim=1) > 0).all()
    assert {1, 7, 19} <= set(places[0].tolist())
    assert set(places[1].tolist()) <= set(range(5, 15))


def test_texts_read_are_those_of_the_backbone(student: Student) -> None:
    tokens = torch.stack([tokens_of(text) for text in TEXTS])
    expected = student.backbone().encode_text(TEXTS)
    torch.testing.assert_close(student.read(tokens), expected, atol=1e-5, rtol=0)
    cut = tokens[:, : int((tokens != 0).sum(dim=1).max())]
    torch.testing.assert_close(student.read(cut), expected, atol=1e-5, rtol=0)


def test_an_exported_model_grounds_as_it_did(
    student: Student, image_configuration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(viclip.MODELS, "tiny", replace(TINY_VICLIP, quick_gelu=False))
    name = "viclip:tiny" if student.is_video else f"openclip:{image_configuration}"
    path = tmp_path / "student.safetensors"
    export(student, path, (0.5, 2.0))
    loaded, own = load_backbone(name, str(path)), student.backbone()
    assert loaded.presence_fit == (0.5, 2.0)
    own.presence_fit = loaded.presence_fit
    assert loaded.logit_scale == pytest.approx(own.logit_scale, rel=2e-3)
    torch.testing.assert_close(
        loaded.encode_text(TEXTS), own.encode_text(TEXTS), atol=5e-3, rtol=0
    )
    clip = noise(1, frames_of(student))[0].numpy()
    window = Window(tuple(Frame(image, place) for place, image in enumerate(clip)))
    texts = ("push the red cup", "tip the little steel can")  # words that captions hold
    actions = [Action(text, text, "push", "push", "cup", "cup") for text in texts]
    pairs = zip(*(Grounder(b, GroundingConfig()).ground(window, actions) for b in (loaded, own)))
    for found, expected in pairs:
        assert found.score == pytest.approx(expected.score, abs=0.02)
        for prompt, heatmap in found.heatmaps.items():
            np.testing.assert_allclose(heatmap.values, expected.heatmaps[prompt].values, atol=0.05)


def test_words_that_were_never_said_mean_nothing(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    export(student, path)
    (rows,) = (v for n, v in load_file(path).items() if n.endswith("token_embedding.weight"))
    assert rows.dtype == torch.float16
    assert rows.any(dim=1).nonzero().flatten().tolist() == spoken_tokens()


# A video model starts as the image model that it comes from.


def started(image_student: Student, **sizes: int) -> Student:
    config = replace(TINY_VICLIP, quick_gelu=False, **sizes)
    video = VideoStudent(config, 3)
    video.start_from(image_student.state_dict())
    with torch.no_grad():
        video.model.vision_encoder.temporal_positional_embedding.zero_()
    return video


@torch.inference_mode()
def test_a_video_model_of_one_frame_starts_as_the_image_model(image_student: Student) -> None:
    video = started(image_student, num_frames=1)
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found, expected = (Encoder(student.tower)(pixels) for student in (video, image_student))
    torch.testing.assert_close(found.patch_terms, expected.patch_terms, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.class_terms, expected.class_terms, atol=1e-5, rtol=1e-5)
    backbones = video.backbone(), image_student.backbone()
    assert backbones[0].logit_scale == pytest.approx(backbones[1].logit_scale, rel=1e-5)
    texts = [backbone.encode_text(TEXTS) for backbone in backbones]
    torch.testing.assert_close(*texts, atol=1e-6, rtol=0)


@torch.inference_mode()
def test_further_blocks_come_first(image_student: Student) -> None:
    """Where they write nothing, all is as it is in the image model."""
    image = image_student.tower
    video = started(image_student, num_frames=1, layers=len(image.blocks) + 1)
    first = video.model.vision_encoder.transformer.resblocks[0]
    for linear in (first.attn.out_proj, first.mlp.c_proj):
        linear.weight.zero_()
        linear.bias.zero_()
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found, expected = (Encoder(tower)(pixels) for tower in (video.tower, image))
    torch.testing.assert_close(found.patch_terms, expected.patch_terms, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.class_terms, expected.class_terms, atol=1e-5, rtol=1e-5)


def test_what_the_first_block_sees_is_held(video_student: VideoStudent) -> None:
    video_student.requires_grad_(True)
    video_student.hold_sight()
    pixels = torch.rand(1, 8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tower = video_student.tower
    tokens = Encoder(tower).tokens(pixels)
    first = replace(tower, blocks=tower.blocks[:1])
    assert not plain_walk(first, tokens).requires_grad
    assert plain_walk(replace(tower, blocks=tower.blocks[:2]), tokens).requires_grad


@torch.inference_mode()
def test_a_still_clip_is_at_first_seen_as_its_frame(image_student: Student) -> None:
    """But for the class token, which is one among eight times as many."""
    video = started(image_student)
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    still = Encoder(video.tower, 8)(pixels.expand(8, -1, -1, -1))
    alone = Encoder(image_student.tower, 8)(pixels)
    for frame in still.patch_terms:
        torch.testing.assert_close(frame[0], alone.patch_terms[0, 0], atol=1e-5, rtol=1e-5)
        patches, expected = (
            image_student.tower.embed(terms.sum(dim=0)) for terms in (frame, alone.patch_terms[0])
        )
        assert torch.nn.functional.cosine_similarity(patches, expected, dim=-1).min() > 0.9


def test_positions_are_resampled_for_another_size(image_student: Student) -> None:
    video = started(image_student, image_size=96)
    own = video.tower.position_embedding
    assert len(own) == 1 + 36
    assert torch.equal(own[0], image_student.tower.position_embedding[0])


@pytest.mark.parametrize(
    ("negative", "positive", "expected"),
    [([0.0, 1.0], [2.0], 1.0), ([2.0], [0.0, 1.0], 0.0), ([1.0, 1.0], [1.0], 0.5)],
)
def test_area_under_curve(negative: list, positive: list, expected: float) -> None:
    assert area_under_curve(negative, positive) == expected

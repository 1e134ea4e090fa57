from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from videogem_ros.core import (
    Encoder,
    Grounder,
    GroundingConfig,
    PresenceConfig,
    PromptConfig,
    join_features,
)
from videogem_ros.core.backbones import Backbone, load_backbone
from videogem_ros.core.backbones.openclip import OpenClipBackbone
from videogem_ros.core.fusion import NAMES
from videogem_ros.core.grounder import FrameChoice
from videogem_ros.core.prompts import prompts_for
from videogem_ros.datatypes import PROMPT_KINDS, Action, Features, Frame, Grounding, Window
from videogem_ros.errors import InvalidValueError, VideoGemError


def action(verb: str, object_: str) -> Action:
    phrase = f"{verb} the {object_}"
    return Action(phrase, phrase, verb, verb, object_, object_)


POUR, CUT, OPEN = action("pour", "milk"), action("cut", "tomato"), action("open", "drawer")
HELLO = Action("hello", "hello")


def window(count: int, hw: tuple[int, int] = (64, 64), repeat_first: int = 0) -> Window:
    """Smooth coloured noise; the first frame stands there ``repeat_first`` times more."""
    generator = np.random.default_rng(count)
    frames = []
    for index in range(count - repeat_first):
        small = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = np.kron(small, np.ones((-(-hw[0] // 4), -(-hw[1] // 4), 1), np.uint8))
        stamp_ns = 1_000_000_000 + 250_000_000 * index
        frames.append(Frame(image[: hw[0], : hw[1]].copy(), stamp_ns, "camera_optical_frame"))
    return Window((*[frames[0]] * repeat_first, *frames))


class CountingEncoder(Encoder):
    """An encoder that remembers how many frames each of its passes had."""

    def __init__(self, backbone: Backbone, depth: int = 7) -> None:
        super().__init__(backbone.tower, depth)
        self.passes: list[int] = []

    def __call__(self, pixels: Tensor, frames: Sequence[int] | None = None) -> Features:
        self.passes.append(len(pixels))
        return super().__call__(pixels, frames)


class CountingBackbone(OpenClipBackbone):
    """A CLIP that remembers which texts it has encoded."""

    def __init__(self, backbone: OpenClipBackbone) -> None:
        super().__init__(
            backbone.name, backbone.model, backbone._tokenizer, backbone.preprocessing, True
        )
        self.encoded: list[str] = []

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        self.encoded.extend(texts)
        return super().encode_text(texts)


@pytest.fixture
def text_cache(monkeypatch: pytest.MonkeyPatch) -> int:
    """A text cache that is soon full."""
    monkeypatch.setattr("videogem_ros.core.grounder.TEXT_CACHE", 60)
    return 60


@pytest.fixture(params=["image", "video"])
def tiny(request: pytest.FixtureRequest) -> Backbone:
    return request.getfixturevalue(f"tiny_{request.param}_backbone")


def alike(found: Grounding, expected: Grounding) -> None:
    assert found.action == expected.action
    assert found.stamp_ns == expected.stamp_ns
    assert found.frame_index == expected.frame_index
    assert found.score == pytest.approx(expected.score, abs=1e-4)
    np.testing.assert_allclose(found.layer_weights, expected.layer_weights, atol=1e-5)
    for name in NAMES:
        heatmap, true = found.heatmaps[name].values, expected.heatmaps[name].values
        np.testing.assert_allclose(heatmap, true, atol=2e-5)
        if name != "fused":
            x, y = round(found.points[name].x), round(found.points[name].y)
            assert true[y, x] >= 1 - 2e-5  # another place on a plateau is as good
            similarity = expected.points[name].similarity
            assert found.points[name].similarity == pytest.approx(similarity, abs=1e-5)


# One encoder pass, texts once.


def test_actions_cost_one_encoder_pass_together(tiny: Backbone) -> None:
    grounder = Grounder(tiny)
    grounder.encoder = encoder = CountingEncoder(tiny)
    groundings = grounder.ground(window(8), [POUR, CUT, OPEN, HELLO], frames="all")
    assert len(groundings) == 4 * 8
    assert encoder.passes == [8]


def test_only_the_wanted_frames_of_an_image_backbone_are_encoded(
    tiny_image_backbone: Backbone,
) -> None:
    grounder = Grounder(tiny_image_backbone)
    grounder.encoder = encoder = CountingEncoder(tiny_image_backbone)
    grounder.ground(window(8), [POUR])
    grounder.ground(window(8), [POUR], frames=(1, 5))
    assert encoder.passes == [1, 2]


@pytest.mark.parametrize(
    "config",
    [GroundingConfig(), GroundingConfig("uniform"), GroundingConfig(fusion="heatmaps")],
    ids=["paper", "gem", "maps"],
)
def test_actions_grounded_together_equal_each_alone(
    tiny: Backbone, config: GroundingConfig
) -> None:
    grounder = Grounder(tiny, config)
    together = grounder.ground(window(8), [POUR, CUT, HELLO], frames=(7, 2))
    alone = [g for a in (POUR, CUT, HELLO) for g in grounder.ground(window(8), [a], frames=(7, 2))]
    assert len(together) == len(alone) == 6
    for found, expected in zip(together, alone):
        alike(found, expected)


def test_a_text_is_encoded_once(tiny_image_backbone: OpenClipBackbone) -> None:
    backbone = CountingBackbone(tiny_image_backbone)
    grounder = Grounder(backbone)
    grounder.ground(window(1), [POUR, CUT, POUR])
    first = set(backbone.encoded)
    assert len(backbone.encoded) == len(first) == 6 + 3  # prompts and neutral texts
    grounder.ground(window(1), [CUT, POUR])
    assert len(backbone.encoded) == 9
    grounder.ground(window(1), [CUT, OPEN])
    assert set(backbone.encoded[9:]) == set(prompts_for(OPEN).texts)
    assert len(backbone.encoded) == 12


def test_no_grounding_depends_on_what_was_asked_for_before(tiny: Backbone) -> None:
    (fresh,) = Grounder(tiny).ground(window(8), [CUT])
    experienced = Grounder(tiny)
    experienced.ground(window(8), [POUR, OPEN, action("cut", "drawer")])
    (found,) = experienced.ground(window(8), [CUT])
    for name in NAMES:
        np.testing.assert_array_equal(found.heatmaps[name].values, fresh.heatmaps[name].values)
    assert found.points == fresh.points
    assert found.score == fresh.score


def test_the_text_cache_forgets_what_was_not_asked_for_longest(
    tiny_image_backbone: OpenClipBackbone, text_cache: int
) -> None:
    backbone = CountingBackbone(tiny_image_backbone)
    grounder = Grounder(backbone)
    features = grounder.encode(window(1))
    grounder.locate(features, window(1), [POUR])
    many = [action(f"verb{number}", f"thing{number}") for number in range(text_cache // 3)]
    for start in range(0, len(many), 8):
        grounder.locate(features, window(1), many[start : start + 8])
    assert len(grounder._embeddings) <= text_cache
    encoded = len(backbone.encoded)
    grounder.locate(features, window(1), [many[-1]])
    assert len(backbone.encoded) == encoded  # recent, and the neutral texts always are
    grounder.locate(features, window(1), [POUR])
    assert backbone.encoded[encoded:] == list(prompts_for(POUR).texts)


def test_more_texts_than_the_cache_holds_are_grounded_all_the_same(
    tiny_image_backbone: Backbone, text_cache: int
) -> None:
    grounder = Grounder(tiny_image_backbone, GroundingConfig("uniform"))
    many = [action(f"verb{n}", f"thing{n}") for n in range(text_cache // 3 + 10)]
    groundings = grounder.ground(window(1, (16, 16)), many)
    assert [g.action for g in groundings] == many
    assert len(grounder._embeddings) <= text_cache


def test_what_another_thread_drops_from_the_text_cache_is_not_missed(
    tiny_image_backbone: OpenClipBackbone, text_cache: int
) -> None:
    class Busy(CountingBackbone):
        """Has another thread's texts grounded before it encodes its own."""

        def encode_text(self, texts: Sequence[str]) -> Tensor:
            waiting, others[:] = [*others], []
            grounder.locate(features, window(1), waiting)
            return super().encode_text(texts)

    others: list[Action] = []
    grounder = Grounder(Busy(tiny_image_backbone))
    features = grounder.encode(window(1))
    (expected,) = grounder.locate(features, window(1), [POUR])
    others += [action(f"verb{number}", f"thing{number}") for number in range(text_cache)]
    found, _ = grounder.locate(features, window(1), [POUR, CUT])
    alike(found, expected)
    assert len(grounder._embeddings) <= text_cache


def test_no_action_asks_nothing(tiny_image_backbone: OpenClipBackbone) -> None:
    backbone = CountingBackbone(tiny_image_backbone)
    assert Grounder(backbone).ground(window(1), []) == []
    assert backbone.encoded == []


@pytest.mark.parametrize("sizes", [1, 2, 3])
def test_frames_of_any_sizes_are_encoded_in_one_pass(
    tiny_image_backbone: Backbone, sizes: int
) -> None:
    grounder = Grounder(tiny_image_backbone, GroundingConfig(resize="letterbox"))
    windows = [window(1, hw) for hw in ((64, 64), (40, 90), (120, 60))[:sizes]]
    expected = [grounder.ground(each, [POUR])[0] for each in windows]
    grounder.encoder = encoder = CountingEncoder(tiny_image_backbone)
    together = grounder.encode_each([each.newest for each in windows])
    assert encoder.passes == [sizes]
    for each, features, true in zip(windows, together, expected, strict=True):
        (found,) = grounder.locate(features, each, [POUR])
        np.testing.assert_allclose(found.heatmap.values, true.heatmap.values, atol=2e-5)
        assert found.image_hw == each.hw
        assert found.score == pytest.approx(true.score, abs=1e-4)


def test_frames_of_a_video_backbone_are_not_encoded_alone(tiny_video_backbone: Backbone) -> None:
    with pytest.raises(InvalidValueError, match="expected an image backbone"):
        Grounder(tiny_video_backbone).encode_each(window(8).frames)


# Several windows.


@pytest.mark.parametrize("frames", ["newest", "all", (1, 6)], ids=str)
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_windows_of_several_cameras_are_grounded_as_each_alone(
    tiny: Backbone, frames: FrameChoice, resize: str
) -> None:
    grounder = Grounder(tiny, GroundingConfig(resize=resize))
    # Three cameras of one size, of which two want the same, two of their own; one wants nothing.
    windows = [window(8, hw) for hw in ((64, 64), (64, 64), (40, 90), (120, 60))]
    windows.append(window(8, (64, 64), repeat_first=5))
    windows.append(window(8, (40, 90)))  # asked the same as two of another size
    actions = [[POUR], [CUT, OPEN], [], [POUR, CUT, HELLO], [POUR], [POUR]]
    together = grounder.ground_each(windows, actions, frames)
    assert [len(found) for found in together][2] == 0
    for found, asked, of_one in zip(together, windows, actions):
        expected = grounder.ground(asked, of_one, frames)
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert (one.action, one.stamp_ns) == (other.action, other.stamp_ns)
            assert (one.frame_index, one.image_hw) == (other.frame_index, other.image_hw)
            assert one.score == pytest.approx(other.score, abs=1e-5)
            for name in NAMES:
                heatmap, true = (each.heatmaps[name].values for each in (one, other))
                np.testing.assert_allclose(heatmap, true, atol=1e-5)
                similarity = other.points[name].similarity
                if name != "fused":  # which may lie elsewhere, where a maximum is a plateau
                    assert one.points[name].similarity == pytest.approx(similarity, abs=1e-5)


@pytest.mark.parametrize("frames", ["newest", (0, 5)], ids=str)
def test_windows_of_several_cameras_cost_one_pass(tiny: Backbone, frames: FrameChoice) -> None:
    passes: list[tuple[int, ...]] = []

    class Watched(Encoder):
        def terms(self, pixels: Tensor, chosen: tuple[int, ...]) -> tuple[Tensor, Tensor]:
            passes.append((*pixels.shape[:2], len(chosen)))
            return super().terms(pixels, chosen)

    grounder = Grounder(tiny)
    grounder.encoder = Watched(tiny.tower)
    features = grounder.encode_windows([window(8)] * 3, frames)
    wanted = 1 if frames == "newest" else 2
    jointly = tiny.window_frames > 1
    assert passes == [(3, 8, wanted) if jointly else (1, 3 * wanted, 3 * wanted)]
    places = (7,) if frames == "newest" else frames
    assert [each.frames for each in features] == [places] * 3


def test_image_windows_of_any_lengths_pass_together(tiny_image_backbone: Backbone) -> None:
    grounder = Grounder(tiny_image_backbone)
    windows = [window(count) for count in (1, 4, 2)]
    features = grounder.encode_windows(windows, "all")
    assert [each.frames for each in features] == [(0,), (0, 1, 2, 3), (0, 1)]
    for found, asked in zip(features, windows):
        expected = grounder.encode(asked, "all")
        torch.testing.assert_close(found.patch_terms, expected.patch_terms, atol=1e-5, rtol=1e-5)


def test_no_windows_are_no_groundings(tiny: Backbone) -> None:
    assert Grounder(tiny).ground_each([], []) == []


@pytest.mark.parametrize("count", [1, 3])
def test_windows_without_their_actions_are_refused(tiny: Backbone, count: int) -> None:
    with pytest.raises(
        InvalidValueError, match="actions: expected a sequence of actions for each"
    ):
        Grounder(tiny).ground_each([window(8)] * 2, [[POUR]] * count)


def test_features_of_other_windows_are_refused(tiny: Backbone) -> None:
    grounder = Grounder(tiny)
    features = grounder.encode(window(8))
    with pytest.raises(InvalidValueError, match=r"^features: expected those of each of 2 windows"):
        grounder.locate_each([features], [window(8)] * 2, [[POUR]] * 2)


@pytest.mark.parametrize(
    ("actions", "got"),
    [("pour the milk", "str"), (["pour the milk"], "str"), (POUR, "Action"), (None, "NoneType")],
    ids=["text", "texts", "action", "none"],
)
def test_something_else_than_actions_is_refused_before_any_pass(
    tiny: Backbone, actions: Any, got: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grounder = Grounder(tiny)
    monkeypatch.setattr(grounder, "encoder", None)
    with pytest.raises(InvalidValueError, match=rf"^actions: expected .* got an .*type {got}$"):
        grounder.ground(window(8), actions)
    with pytest.raises(InvalidValueError, match=rf"^actions: expected .* got an .*type {got}$"):
        grounder.ground_each([window(8)] * 2, [[POUR], actions])


@pytest.mark.parametrize(
    "wrong", [window(8).newest, window(8).newest.image, list(window(8).frames)]
)
def test_something_else_than_a_window_is_refused(tiny: Backbone, wrong: Any) -> None:
    kind = type(wrong).__name__
    with pytest.raises(InvalidValueError, match=rf"^window: expected .* got an .*type {kind}$"):
        Grounder(tiny).ground(wrong, [POUR])
    with pytest.raises(InvalidValueError, match=r"^window: "):
        Grounder(tiny).ground_each([wrong, wrong], [[POUR], [POUR]])


def test_a_wrong_window_among_several_is_refused(tiny_video_backbone: Backbone) -> None:
    with pytest.raises(InvalidValueError, match=r"window.frames: expected 8 frames .* got 4"):
        Grounder(tiny_video_backbone).ground_each([window(8), window(4)], [[POUR], [POUR]])


def test_a_gpu_prepares_each_frame_once_while_somebody_holds_it(
    tiny_video_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule alone; the CPU does the work here."""
    expected = Grounder(tiny_video_backbone).encode(window(8)).patch_terms
    grounder = Grounder(tiny_video_backbone)
    prepared: list[int] = []

    def counting(frames: Sequence[Frame]) -> Tensor:
        prepared.append(len(frames))
        return Grounder._prepare(grounder, frames)

    monkeypatch.setattr(grounder, "_prepare", counting)
    monkeypatch.setattr(Grounder, "device", torch.device("cuda"))
    frames = [*window(8).frames, Frame(window(1).newest.image, 2 * 10**10)]
    assert torch.equal(grounder.encode(Window(tuple(frames[:8]))).patch_terms, expected)
    grounder.encode(Window(tuple(frames[1:])))
    grounder.encode(Window((frames[-1],) * 8))
    assert prepared == [8, 1]
    assert len(grounder._prepared) == 9
    del frames[:5]
    assert len(grounder._prepared) == 4
    monkeypatch.setattr("videogem_ros.core.grounder.PREPARED_FRAMES", 8)
    held = [window(8), window(8)]
    for each in held:
        assert torch.equal(grounder.encode(each).patch_terms, expected)
    assert len(grounder._prepared) == 8


def test_verb_and_object_of_a_free_sentence_are_those_the_class_token_fits_best(
    tiny: Backbone,
) -> None:
    grounder = Grounder(tiny)
    features = grounder.encode(window(8))
    (embedded,) = tiny.tower.embed(features.class_terms.sum(dim=1))
    words = {"pour": "milk", "cut": "tomato", "open": "drawer", "stir": "soup"}

    def cosine(text: str) -> float:
        return float(embedded @ tiny.encode_text([text])[0])

    verb = max(words, key=lambda word: cosine(f"A photo of a person {word} something."))
    thing = max(words.values(), key=lambda word: cosine(f"A photo of a person using {word}."))
    sentence = "pour the milk, cut the tomato, open the drawer and stir the soup"
    candidates = [Action(sentence, sentence, v, v, o, o) for v, o in words.items()]
    candidates = [Action(sentence, sentence), *candidates]  # without words it does not compete
    expected = Action(sentence, sentence, verb, verb, thing, thing)
    assert grounder.choose(features, candidates) == expected


def test_what_no_candidate_names_stays_unnamed(tiny_image_backbone: Backbone) -> None:
    grounder = Grounder(tiny_image_backbone)
    features = grounder.encode(window(1))
    verbs = [Action("go on", "go on", verb, verb) for verb in ("go", "move")]
    chosen = grounder.choose(features, verbs)
    assert chosen in verbs
    assert grounder.choose(features, [HELLO]) == HELLO


# Frames and windows.


def test_groundings_come_action_by_action_then_frame_by_frame(tiny: Backbone) -> None:
    groundings = Grounder(tiny).ground(window(8), [POUR, CUT], frames=(6, 0, 3))
    assert [(g.action, g.frame_index) for g in groundings] == [
        (a, index) for a in (POUR, CUT) for index in (6, 0, 3)
    ]


@pytest.mark.parametrize("frames", ["all", (7,), (0, 5), range(2, 5), np.array([1, 6])], ids=str)
def test_the_choice_of_frames_changes_no_grounding(tiny: Backbone, frames: object) -> None:
    grounder = Grounder(tiny)
    everything = grounder.ground(window(8), [POUR], frames="all")
    chosen = list(range(8)) if isinstance(frames, str) else [int(index) for index in frames]
    frames = frames if isinstance(frames, (str, tuple, range)) else list(frames)
    found = grounder.ground(window(8), [POUR], frames=frames)
    assert [g.frame_index for g in found] == chosen
    for grounding in found:
        alike(grounding, everything[grounding.frame_index])


def test_features_of_single_frames_join_to_those_of_a_window(
    tiny_image_backbone: Backbone,
) -> None:
    grounder, whole = Grounder(tiny_image_backbone), window(4)
    parts = [grounder.encode(Window((frame,))) for frame in whole.frames[1:]]
    joined = grounder.locate(join_features(parts, frames=(1, 2, 3)), whole, [POUR, CUT])
    together = grounder.ground(whole, [POUR, CUT], frames=(1, 2, 3))
    for found, expected in zip(joined, together):
        alike(found, expected)


@pytest.mark.parametrize("count", [1, 7, 9, 16])
def test_a_video_backbone_needs_its_number_of_frames(
    tiny_video_backbone: Backbone, count: int
) -> None:
    with pytest.raises(
        InvalidValueError, match=f"window.frames: expected 8 frames for viclip:tiny, got {count}"
    ):
        Grounder(tiny_video_backbone).ground(window(count), [POUR])


@pytest.mark.parametrize("count", [1, 3, 8])
def test_an_image_backbone_takes_any_number(tiny_image_backbone: Backbone, count: int) -> None:
    (found,) = Grounder(tiny_image_backbone).ground(window(count), [POUR])
    assert found.frame_index == count - 1


@pytest.mark.parametrize("frames", ["oldest", "", (), (8,), (-1,), (0, 99)], ids=str)
def test_frames_that_are_not_in_the_window_are_refused(tiny: Backbone, frames: object) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Grounder(tiny).ground(window(8), [POUR], frames=frames)
    assert caught.value.field == "frames"


@pytest.mark.parametrize("image_hw", [(60, 64), (64, 100), (8, 8)])
def test_an_input_size_between_patches_is_refused(
    tiny: Backbone, image_hw: tuple[int, int]
) -> None:
    with pytest.raises(
        InvalidValueError, match="image_hw: expected multiples of the patch 16 x 16"
    ):
        Grounder(tiny, GroundingConfig(image_hw=image_hw))


def test_more_blocks_than_the_backbone_has_are_refused(tiny: Backbone) -> None:
    config = GroundingConfig("uniform", depth=9)
    with pytest.raises(InvalidValueError, match="depth: expected 1 to the backbone's 8 blocks"):
        Grounder(tiny, config)


# What a grounding holds.


def test_a_grounding_tells_where_it_comes_from(tiny: Backbone) -> None:
    config = GroundingConfig(image_hw=(48, 80))
    asked = window(8, (45, 70), repeat_first=3)
    found = Grounder(tiny, config).ground(asked, [POUR], frames=(4,))[0]
    assert (found.action, found.prompts) == (POUR, prompts_for(POUR))
    assert (found.frame_index, found.stamp_ns) == (4, asked.frames[4].stamp_ns)
    assert found.frame_id == "camera_optical_frame"
    assert found.image_hw == (45, 70)
    assert (found.window_start_ns, found.window_end_ns) == (1_000_000_000, 2_000_000_000)
    assert found.frames_used == 5
    assert tuple(found.points) == tuple(found.heatmaps) == (*PROMPT_KINDS, "fused")
    assert found.layer_weights.shape == (3, 8)
    assert found.layer_weights.sum(axis=1) == pytest.approx([5.2] * 3, abs=1e-4)
    assert found.prompt_probabilities.shape == (3,)
    assert found.prompt_probabilities.sum() == pytest.approx(1)
    assert found.layer_weights.dtype == found.prompt_probabilities.dtype == np.float32
    for name in NAMES:
        heatmap, point = found.heatmaps[name], found.points[name]
        assert heatmap.values.shape == (48, 80)
        assert heatmap.image_hw == (45, 70)
        assert heatmap.to_image().shape == (45, 70)
        assert 0 <= heatmap.values.min() <= heatmap.values.max() <= 1 + 1e-6
        assert -0.5 < point.x < 69.5
        assert -0.5 < point.y < 44.5
        assert -1 <= point.similarity <= 1
    mean = sum(w * found.heatmaps[k].values for w, k in zip((0.2, 0.2, 0.6), PROMPT_KINDS))
    np.testing.assert_allclose(found.heatmap.values, mean, atol=1e-6)
    assert found.point is found.points["fused"]


def test_a_source_of_the_networks_size_gives_the_official_whole_points(tiny: Backbone) -> None:
    for found in Grounder(tiny).ground(window(8), [POUR, CUT], frames="all"):
        for kind in PROMPT_KINDS:
            values, point = found.heatmaps[kind].values, found.points[kind]
            y, x = np.unravel_index(values.argmax(), values.shape)
            assert (point.x, point.y) == (x, y)
        for axis in ("x", "y"):
            verb, object_, whole = (
                int(getattr(found.points[kind], axis)) for kind in PROMPT_KINDS
            )
            assert getattr(found.point, axis) == (verb + object_ + 3 * whole) // 5


def test_a_grounding_without_its_heatmaps_is_json(tiny: Backbone) -> None:
    found = Grounder(tiny).ground(window(8), [POUR, HELLO], frames=[np.int64(3)])
    for grounding in found:
        told = json.loads(json.dumps(grounding.to_json(), allow_nan=False))
        assert told["action"] == grounding.action.text
        assert told["frame_index"] == 3
        assert told["image_hw"] == [64, 64]
        assert told["points"]["fused"]["x"] == grounding.point.x
        assert np.shape(told["layer_weights"]) == (3, 8)
        assert told["present"] is grounding.present
    assert found[1].to_json()["verb"] is None


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("hw", [(30, 200), (200, 30), (1, 90), (64, 64), (481, 640)], ids=str)
def test_points_lie_in_the_image_whatever_its_shape(
    tiny_image_backbone: Backbone, resize: str, hw: tuple[int, int]
) -> None:
    grounder = Grounder(tiny_image_backbone, GroundingConfig(resize=resize))
    (found,) = grounder.ground(window(1, hw), [POUR])
    for name in NAMES:
        assert -0.5 < found.points[name].x < hw[1] - 0.5
        assert -0.5 < found.points[name].y < hw[0] - 0.5
    rows, columns = found.heatmap.values.shape
    if resize == "letterbox":
        assert max(rows, columns) == 64
        assert min(rows, columns) == max(1, round(64 * min(hw) / max(hw)))
    else:
        assert (rows, columns) == (64, 64)


def test_a_letterboxed_image_is_seen_as_if_padded_by_hand(tiny_image_backbone: Backbone) -> None:
    """A 32 x 64 image in a 64 x 64 input: the same features as the padded frame's middle."""
    mean = np.array([0.48145466, 0.4578275, 0.40821073])
    asked = window(1, (32, 64))
    padded = np.empty((64, 64, 3), np.uint8)
    padded[:] = np.round(255 * mean)
    padded[16:48] = asked.newest.image
    by_hand = Grounder(tiny_image_backbone).encode(Window((Frame(padded, 0),)))
    found = Grounder(tiny_image_backbone, GroundingConfig(resize="letterbox")).encode(asked)
    difference = (found.patch_terms - by_hand.patch_terms).abs().max()
    assert float(difference) < 0.02 * float(by_hand.patch_terms.abs().max())


# Presence.


def test_the_score_compares_the_class_token_with_neutral_texts(tiny: Backbone) -> None:
    presence = PresenceConfig(neutral=("A photo of a room.", "nothing"), slope=0.8, offset=0.1)
    grounder = Grounder(tiny, GroundingConfig(presence=presence))
    asked = window(8)
    features = grounder.encode(asked)
    (found,) = grounder.locate(features, asked, [POUR])
    with torch.inference_mode():
        token = tiny.tower.embed(features.class_terms.sum(dim=1))[0].double()
        texts = tiny.encode_text([found.prompts.action, *presence.neutral]).double()
        logits = tiny.logit_scale * (texts @ token)
        margin = logits[0] - logits[1:].logsumexp(0) + np.log(2)
        expected = torch.sigmoid(0.8 * margin + 0.1)
    assert found.score == pytest.approx(float(expected), abs=1e-4)


def test_a_fit_that_comes_with_the_weights_comes_first(tiny: Backbone) -> None:
    """Slope and offset of the configuration apply to margins that are fitted already."""
    config = GroundingConfig(presence=PresenceConfig(slope=0.05, offset=0.1))  # does not saturate
    (plain,) = Grounder(tiny, config).ground(window(8), [POUR])
    margin = (np.log(plain.score / (1 - plain.score)) - 0.1) / 0.05
    fitted = copy.copy(tiny)
    fitted.presence_fit = (1.5, -0.4)
    (found,) = Grounder(fitted, config).ground(window(8), [POUR])
    expected = 1 / (1 + np.exp(-(0.05 * (1.5 * margin - 0.4) + 0.1)))
    assert found.score == pytest.approx(expected, abs=1e-4)


def test_present_is_a_score_of_the_threshold_or_more(tiny_image_backbone: Backbone) -> None:
    (any_,) = Grounder(tiny_image_backbone).ground(window(1), [POUR])
    for threshold, present in [(0.0, True), (any_.score, True), (any_.score + 1e-6, False)]:
        config = GroundingConfig(presence=PresenceConfig(threshold=threshold))
        (found,) = Grounder(tiny_image_backbone, config).ground(window(1), [POUR])
        assert found.score == any_.score
        assert found.present is present


def test_an_action_that_is_a_neutral_prompt_scores_one_half(tiny: Backbone) -> None:
    presence = PresenceConfig(neutral=(prompts_for(POUR).action,))
    grounder = Grounder(tiny, GroundingConfig(presence=presence))
    (found,) = grounder.ground(window(8), [POUR])
    assert found.score == pytest.approx(0.5, abs=1e-6)


def test_prompt_probabilities_are_the_softmax_of_a_hundred_cosines(tiny: Backbone) -> None:
    asked = window(8)
    grounder = Grounder(tiny)
    features = grounder.encode(asked)
    (found,) = grounder.locate(features, asked, [POUR])
    with torch.inference_mode():
        token = tiny.tower.embed(features.class_terms.sum(dim=1))[0]
        expected = torch.softmax(100 * tiny.encode_text(found.prompts.texts) @ token, dim=0)
    np.testing.assert_allclose(found.prompt_probabilities, expected.numpy(), atol=1e-5)


# Another configuration for the same features.


def test_a_grounder_with_another_configuration_shares_features_and_texts(
    tiny_image_backbone: OpenClipBackbone,
) -> None:
    backbone = CountingBackbone(tiny_image_backbone)
    grounder, asked = Grounder(backbone), window(1)
    features = grounder.encode(asked)
    grounder.locate(features, asked, [POUR])
    encoded = len(backbone.encoded)
    gem = grounder.with_config(GroundingConfig("uniform", fusion="heatmaps"))
    (found,) = gem.locate(features, asked, [POUR])
    assert len(backbone.encoded) == encoded
    alike(found, Grounder(backbone, gem.config).ground(asked, [POUR])[0])
    gerund = GroundingConfig(prompts=PromptConfig(verb_form="gerund"))
    (spoken,) = grounder.with_config(gerund).locate(features, asked, [POUR])
    assert spoken.prompts.action == "A photo of a person pouring the milk."


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"resize": "letterbox"}, "resize"),
        ({"self_self_scope": "frame"}, "self_self_scope"),
        ({"image_hw": (32, 32)}, "image_hw"),
        ({"depth": 8, "weighting": "uniform"}, "depth"),
    ],
)
def test_what_features_depend_on_does_not_change(
    tiny_image_backbone: Backbone, changed: dict, field: str
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Grounder(tiny_image_backbone).with_config(GroundingConfig(**changed))
    assert caught.value.field == field


@pytest.mark.parametrize("weighting", ["uniform", "static", "dynamic", "static+dynamic"])
def test_what_a_user_does_to_a_grounding_changes_no_other(tiny: Backbone, weighting: str) -> None:
    grounder = Grounder(tiny, GroundingConfig(weighting=weighting))
    expected = copy.deepcopy(grounder.ground(window(8), [OPEN, POUR], "all"))
    spoilt, *others = grounder.ground(window(8), [OPEN, POUR], "all")
    for array in (spoilt.layer_weights, spoilt.prompt_probabilities, spoilt.heatmap.values):
        array[:] = -7
    again = Grounder(tiny, grounder.config).ground(window(8), [OPEN, POUR], "all")
    for found, true in zip([*others, *again], [*expected[1:], *expected], strict=True):
        alike(found, true)


def test_weights_that_give_no_numbers_are_an_error_and_no_point() -> None:
    backbone = load_backbone("openclip:tabletop")
    backbone.tower.ln_post.bias.data[0] = torch.inf
    with pytest.raises(VideoGemError, match=r"openclip:tabletop .*expected finite .*, got nan"):
        Grounder(backbone).ground(window(1), [OPEN])


def test_one_patch_that_is_no_number_is_an_error_and_no_heatmap(tiny: Backbone) -> None:
    grounder, asked = Grounder(tiny), window(8)
    features = grounder.encode(asked)
    spoilt = features.patch_terms.clone()
    spoilt[0, 0, -1, 0] = torch.nan
    with pytest.raises(VideoGemError, match="expected finite heatmaps"):
        grounder.locate(replace(features, patch_terms=spoilt), asked, [POUR])


def test_grounding_twice_is_bit_equal(tiny: Backbone) -> None:
    asked = window(8)
    one, two = (Grounder(tiny).ground(asked, [POUR, CUT], frames=(3,)) for _ in range(2))
    for first, second in zip(one, two):
        assert first.to_json() == second.to_json()
        for name in NAMES:
            assert np.array_equal(first.heatmaps[name].values, second.heatmaps[name].values)

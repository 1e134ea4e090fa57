"""Examples of a data set: encoded once, kept, and judged as the grounder would ground them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scenes import FREE, Scenes, sample_of, scenes

from videogem_ros.core import Grounder, GroundingConfig
from videogem_ros.core.backbones import Backbone
from videogem_ros.core.configuration import FUSIONS, WEIGHTINGS
from videogem_ros.datatypes import Window
from videogem_ros.errors import InvalidValueError, RecordingError
from videogem_ros.evaluation.examples import ExampleEncoder, Examples, with_depth
from videogem_ros.evaluation.metrics import judge
from videogem_ros.evaluation.records import Sample
from videogem_ros.evaluation.runner import boxes_in_source, load_window

DEPTHS = (3, 7)


def examples_of(encoder: ExampleEncoder, folder: Path | None = None) -> Examples:
    return Examples(encoder, len(encoder.samples), folder=folder)


def random_settings(count: int, resize: str) -> list[GroundingConfig]:
    generator = np.random.default_rng(0)
    settings = []
    for number in range(count):
        depth = int(generator.choice(DEPTHS))
        verb, thing = generator.integers(0, 50, 2) / 100
        settings.append(
            GroundingConfig(
                weighting=WEIGHTINGS[number % 4],
                depth=depth,
                dynamic_depth=int(generator.integers(1, depth + 1)),
                static_weights=tuple(generator.uniform(0, 1.5, depth + 1).tolist()),
                dynamic_scale=float(generator.uniform(0, 60)),
                fusion=FUSIONS[number // 2 % 2],
                fusion_weights=(verb, thing, 1 - verb - thing),
                resize=resize,
            )
        )
    return settings


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_points_are_those_of_the_grounder(
    kind: str, resize: str, request: pytest.FixtureRequest
) -> None:
    """Equal, but where a maximum is a plateau of half a patch and rounding picks its pixel.

    Twelve of the tiny backbones' sixteen patches lie at a border, where there are such plateaus.
    """
    backbone: Backbone = request.getfixturevalue(f"tiny_{kind}_backbone")
    dataset = scenes(10)
    encoder = ExampleEncoder(dataset, backbone, GroundingConfig(resize=resize), DEPTHS)
    examples = examples_of(encoder)
    assert encoder.passes == len(DEPTHS) * len(encoder.samples) == 2 * 8  # two have no box
    equal = []
    for setting in random_settings(8, resize):
        grounder = Grounder(backbone, setting)
        trial, points = examples.judge(setting), examples.points(setting)
        for row, sample in enumerate(encoder.samples):
            window, frame = load_window(dataset, sample, backbone.window_frames)
            features = grounder.encode(window, (frame,))
            action = grounder.choose(features, sample.actions)
            (found,) = grounder.locate(features, window, [action])
            expected = found.point.x, found.point.y
            assert points[row] == pytest.approx(expected, abs=8 * max(window.hw) / 64)
            equal.append(points[row] == pytest.approx(expected, abs=1e-6))
            outcome = judge(points[row], None, boxes_in_source(sample, window.hw), window.hw)
            assert (trial.hits[row], trial.distances[row]) == (outcome.hit, outcome.distance)
    assert np.mean(equal) > 0.75


def test_a_file_instead_of_memory_changes_nothing(
    tiny_image_backbone: Backbone, tmp_path: Path
) -> None:
    encoder = ExampleEncoder(scenes(10), tiny_image_backbone, GroundingConfig(), DEPTHS)
    memory, mapped = examples_of(encoder), examples_of(encoder, tmp_path)
    assert not list(tmp_path.iterdir())  # the file has no name
    for setting in random_settings(4, "stretch"):
        assert memory.points(setting) == mapped.points(setting)


# What is kept.


def test_what_was_encoded_is_found_again(tiny_image_backbone: Backbone, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.touch()
    dataset = replace(scenes(10), files=(film,))

    def encode(*depths: int) -> tuple[int, Examples]:
        encoder = ExampleEncoder(
            dataset, tiny_image_backbone, GroundingConfig(), depths, cache=tmp_path / "cache"
        )
        examples = examples_of(encoder)
        return encoder.passes, examples

    first, before = encode(7)
    dataset.asked.clear()
    again, after = encode(7)
    assert (first, again, dataset.asked) == (8, 0, [])
    setting = GroundingConfig()
    assert after.points(setting) == before.points(setting)
    assert encode(3, 7)[0] == 8  # the new K alone

    torn = sorted((tmp_path / "cache").rglob("*.safetensors"))[0]
    torn.write_bytes(torn.read_bytes()[:100])
    assert encode(3, 7)[0] == 1
    film.write_text("another film")
    assert encode(7)[0] == 8


def test_a_cache_that_cannot_be_written_is_told(
    tiny_image_backbone: Backbone, tmp_path: Path
) -> None:
    blocked = tmp_path / "cache"
    blocked.write_text("a file")
    encoder = ExampleEncoder(
        scenes(1), tiny_image_backbone, GroundingConfig(), (7,), cache=blocked
    )
    with pytest.raises(RecordingError, match="cannot write"):
        examples_of(encoder)


def test_samples_of_one_frame_are_encoded_once(tiny_image_backbone: Backbone) -> None:
    class Shared(Scenes):
        def window(self, sample: Sample, frames: int) -> tuple[Window, int]:
            return shared

    shared = scenes(1).window(sample_of(0), 1)
    samples = [replace(sample_of(0), key=f"{n}", actions=(FREE[n],)) for n in range(4)]
    encoder = ExampleEncoder(Shared(samples), tiny_image_backbone, GroundingConfig(), DEPTHS)
    examples_of(encoder)
    assert encoder.passes == len(DEPTHS)


def test_what_cannot_be_decoded_is_counted(tiny_image_backbone: Backbone) -> None:
    outside = replace(sample_of(5), boxes=((900.0, 900.0, 950.0, 950.0),))
    dataset = Scenes([*map(sample_of, range(5)), outside], broken=frozenset({"film/1", "film/2"}))
    encoder = ExampleEncoder(dataset, tiny_image_backbone, GroundingConfig(), (7,))
    assert len(examples_of(encoder).videos) == 2
    assert encoder.skipped.pop("film.mp4: no frame at that time") == 2
    ((reason, count),) = encoder.skipped.items()
    assert (reason.partition(":")[0], count) == ("box", 1)


def test_nothing_to_judge_on_is_an_error(tiny_image_backbone: Backbone) -> None:
    encoder = ExampleEncoder(Scenes([sample_of(4)]), tiny_image_backbone, GroundingConfig(), (7,))
    with pytest.raises(InvalidValueError, match="samples: expected one or more with a box"):
        examples_of(encoder)


def test_stretches_of_a_recording_are_videos(tiny_image_backbone: Backbone) -> None:
    samples = [sample_of(number) for number in (0, 1, 2, 3, 5, 6)]  # a second apart
    encoder = ExampleEncoder(
        Scenes(samples), tiny_image_backbone, GroundingConfig(), (1,), stretch_s=2.5
    )
    videos = [example.video for example in encoder]
    assert [video.rpartition(" ")[2] for video in videos] == ["0", "0", "0", "1", "2", "2"]


# Another K.


@pytest.mark.parametrize(
    ("depth", "last", "weights"),
    [
        (2, 2, (0.9, 0.9, 0.9)),
        (5, 3, (0.5, 0.6, 0.7, 0.9, 0.9, 0.9)),
        (9, 3, (0.3, 0.3, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.9, 0.9)),
    ],
)
def test_with_another_k_the_last_layers_keep_their_weights(
    depth: int, last: int, weights: tuple[float, ...]
) -> None:
    setting = with_depth(GroundingConfig(), depth)
    assert (setting.depth, setting.dynamic_depth, setting.static_weights) == (depth, last, weights)


def test_a_k_of_more_blocks_than_there_are_is_an_error(tiny_image_backbone: Backbone) -> None:
    with pytest.raises(InvalidValueError, match="depth: expected 1 to the backbone's 8 blocks"):
        ExampleEncoder(scenes(1), tiny_image_backbone, GroundingConfig(), (7, 9))

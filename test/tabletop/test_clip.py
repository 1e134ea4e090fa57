"""Clips: texts that are true of one action only, stamps, and the benchmark's promises."""

import numpy as np
import pytest

from videogem_ros.errors import InvalidValueError
from videogem_ros.language import parse_actions
from videogem_ros.tabletop import SceneConfig, benchmark_clip, benchmark_numbers, make_clip
from videogem_ros.tabletop.clip import BENCHMARK_CLIPS, BENCHMARK_EMPTY, FRAMES, RATE_HZ
from videogem_ros.tabletop.vocabulary import KINDS, VERBS

SMALL = (72, 96)


def clip(seed: int, **options):
    return make_clip(np.random.default_rng(seed), hw=SMALL, **options)


@pytest.mark.parametrize("seed", range(8))
def test_a_command_is_true_of_its_action_alone(seed: int) -> None:
    made = clip(seed, frames=2, config=SceneConfig(twins=0.3))
    pairs = [(action.verb, action.thing) for action in made.performed]
    for action in made.performed:
        assert [action.claim.fits(*pair) for pair in pairs].count(True) == 1
        assert len(set(action.texts)) == len(action.texts) >= 2


@pytest.mark.parametrize("seed", range(8))
def test_absent_commands_are_true_of_nothing(seed: int) -> None:
    made = clip(seed, frames=2)
    assert 2 <= len(made.absent) <= 4
    for text in made.absent:
        (parsed,) = parse_actions(text)
        verb = parsed.verb
        colour, _, noun = (parsed.object or "").partition(" ")
        assert verb in VERBS
        assert noun in KINDS
        for action in made.performed:
            found = (action.verb, action.thing.colour, action.thing.kind)
            assert found != (verb, colour, noun)


def test_clips_have_8_to_32_frames_at_their_rate() -> None:
    counts = {len(clip(seed).images) for seed in range(6)}
    assert all(FRAMES[0] <= count <= FRAMES[1] for count in counts)
    assert len(counts) > 1
    made = clip(0, frames=5)
    assert set(np.diff(made.stamps_ns).tolist()) == {10**9 // RATE_HZ}
    assert made.images.shape == (5, *SMALL, 3)
    assert made.depths is None
    assert clip(0, frames=5, depth=True).depths.shape == (5, *SMALL)


def test_depth_is_asked_for_without_changing_the_clip() -> None:
    plain, deep = clip(1, frames=3), clip(1, frames=3, depth=True)
    np.testing.assert_array_equal(plain.images, deep.images)
    assert plain.absent == deep.absent


@pytest.mark.parametrize(("sampled", "places"), [(1, [9]), (2, [0, 9]), (4, [0, 3, 6, 9])])
def test_some_of_the_frames_are_those_of_the_whole_clip(sampled: int, places: list[int]) -> None:
    whole, some = clip(2, frames=10), clip(2, frames=10, sampled=sampled)
    np.testing.assert_array_equal(some.images, whole.images[places])
    np.testing.assert_array_equal(some.stamps_ns, whole.stamps_ns[places])
    assert some.absent == whole.absent
    for one, other in zip(some.performed, whole.performed, strict=True):
        assert one.texts == other.texts
        np.testing.assert_array_equal(one.action_boxes, other.action_boxes[places])


def test_twins_are_marked() -> None:
    marked = [
        action.twin
        for seed in range(12)
        for action in clip(seed, frames=2, config=SceneConfig(twins=1.0)).performed
    ]
    assert sum(marked) == 24


def test_the_benchmark_ends_with_clips_without_action() -> None:
    first_empty = BENCHMARK_CLIPS - BENCHMARK_EMPTY
    assert benchmark_clip(first_empty - 1, SMALL).performed
    for number in (first_empty, BENCHMARK_CLIPS - 1):
        empty = benchmark_clip(number, SMALL)
        assert not empty.performed
        assert empty.absent


def test_a_part_of_the_benchmark_is_spread_over_it() -> None:
    assert benchmark_numbers(5) == [0, 100, 200, 300, 400]
    assert benchmark_numbers() == list(range(BENCHMARK_CLIPS))
    numbers = benchmark_numbers(40)
    assert sum(number >= BENCHMARK_CLIPS - BENCHMARK_EMPTY for number in numbers) == 8


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: benchmark_clip(BENCHMARK_CLIPS), "number"),
        (lambda: benchmark_clip(-1), "number"),
        (lambda: benchmark_numbers(501), "clips"),
        (lambda: clip(0, frames=1), "frames"),
        (lambda: clip(0, sampled=0), "sampled"),
        (lambda: make_clip(np.random.default_rng(0), hw=(8, 8)), "hw"),
        (lambda: make_clip(np.random.default_rng(0), hw=(120, 320)), "hw"),
    ],
)
def test_impossible_clips_are_refused(call, field: str) -> None:
    with pytest.raises(InvalidValueError, match=field):
        call()


def test_what_is_done_can_be_seen_in_wide_images() -> None:
    for seed in range(12):
        drawn = make_clip(np.random.default_rng(seed), 2, (108, 192))
        for performed in drawn.performed:
            sides = performed.action_boxes[:, 2:] - performed.action_boxes[:, :2]
            assert sides.min() > 4, (seed, performed.texts[0])

"""The tabletop benchmark: what is fixed in it, and its questions beside the pointing game."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import cv2
import numpy as np
import pytest
from tiny import DATA
from torch import Tensor

from videogem_ros.core import Encoder, Grounder
from videogem_ros.core.backbones import Backbone
from videogem_ros.datatypes import Features
from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.metrics import summarise
from videogem_ros.evaluation.records import CENTRE, Box, Outcome, Record
from videogem_ros.evaluation.runner import evaluate
from videogem_ros.evaluation.tabletop import (
    ABSENT,
    EMPTY,
    ONE_TWIN,
    TabletopBenchmark,
    swaps,
    with_absent,
)
from videogem_ros.tabletop import benchmark_clip
from videogem_ros.tabletop.vocabulary import VERBS

FINGERPRINTS = DATA / "tabletop_benchmark.json"
FINGERPRINTED = (0, 123, 250, 499)
"""Clips whose fingerprints are kept."""

MAIN = "static+dynamic/fused"


@pytest.fixture(scope="module")
def benchmark() -> TabletopBenchmark:
    return TabletopBenchmark()


def test_boxes_are_small_and_the_centre_is_rarely_right(benchmark: TabletopBenchmark) -> None:
    there = [sample for sample in benchmark.samples if sample.present]
    areas, hits = [], []
    for sample in there:
        ((x1, y1, x2, y2),) = sample.boxes
        height, width = sample.boxes_hw
        assert 0 <= x1 < x2 <= width - 1
        assert 0 <= y1 < y2 <= height - 1
        areas.append((x2 - x1 + 1) * (y2 - y1 + 1) / (height * width))
        hits.append(x1 <= (width - 1) / 2 <= x2 and y1 <= (height - 1) / 2 <= y2)
    assert len(there) > 1000
    assert np.mean(areas) <= 0.08
    assert np.mean(hits) < 0.12


def test_every_verb_and_kind_of_question_is_asked(benchmark: TabletopBenchmark) -> None:
    videos = {sample.video for sample in benchmark.samples}
    assert len(videos) == 500
    assert len({sample.key for sample in benchmark.samples}) == len(benchmark.samples)
    groups = Counter(group for sample in benchmark.samples for group in sample.groups)
    assert min(groups[name] for name in ("pose", "motion", "twins", ABSENT, EMPTY)) >= 80
    verbs = Counter(sample.label for sample in benchmark.samples if sample.present)
    assert verbs.keys() == VERBS.keys()
    assert min(verbs.values()) >= 30
    for sample in benchmark.samples:
        assert sample.present != bool({ABSENT, EMPTY} & {*sample.groups})
        (action,) = sample.actions
        assert action.verb in VERBS
        assert action.object
        if sample.present:
            assert (sample.label, VERBS[sample.label].decided_by) == (
                action.verb,
                sample.groups[0],
            )


def fingerprint(number: int) -> dict[str, Any]:
    """Texts and boxes of a clip's last frame, and that frame at 8 x 6 pixels."""
    clip = benchmark_clip(number, sampled=1)
    small = cv2.resize(clip.images[-1], (8, 6), interpolation=cv2.INTER_AREA)
    boxes = {p.texts[0]: p.action_boxes[-1].round(2).tolist() for p in clip.performed}
    return {"boxes": boxes, "absent": [*clip.absent], "picture": small.reshape(-1).tolist()}


@pytest.mark.parametrize("number", FINGERPRINTED)
def test_clips_are_what_they_were(number: int) -> None:
    """Up to what another OpenCV or processor may round otherwise.

    Who changes the drawing on purpose changes the benchmark: PYTHONPATH=test python FILE writes
    them anew.
    """
    found, expected = fingerprint(number), json.loads(FINGERPRINTS.read_text())[str(number)]
    assert found["absent"] == expected["absent"]
    assert found["picture"] == pytest.approx(expected["picture"], abs=3)
    assert found["boxes"] == {
        text: pytest.approx(box, abs=0.05) for text, box in expected["boxes"].items()
    }


@pytest.mark.parametrize("frames", [1, 8])
def test_the_last_frame_is_asked_about_after_others_spread_over_the_clip(frames: int) -> None:
    benchmark = TabletopBenchmark(2)
    sample = benchmark.samples[0]
    window, place = benchmark.window(sample, frames)
    clip = benchmark_clip(0)
    assert (len(window), place) == (frames, frames - 1)
    np.testing.assert_array_equal(window.newest.image, clip.images[-1])
    assert window.newest.stamp_ns == sample.time_ns == clip.stamps_ns[-1]
    assert frames == 1 or window.frames[0].stamp_ns == clip.stamps_ns[0]
    steps = np.diff(window.stamps_ns)
    assert not len(steps) or steps.max() - steps.min() <= 10**8


def test_what_draws_it_is_told_so_that_cached_results_end_with_it() -> None:
    benchmark = TabletopBenchmark(1)
    names = {path.name for path in benchmark.sources(benchmark.samples[0])}
    assert {"clip.py", "drawing.py", "vocabulary.py"} <= names


@pytest.mark.parametrize("clips", [0, 501])
def test_it_has_five_hundred_clips(clips: int) -> None:
    with pytest.raises(InvalidValueError, match="clips"):
        TabletopBenchmark(clips)


class CountingEncoder(Encoder):
    """An encoder that counts its passes."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder.tower, encoder.depth)
        self.passes = 0

    def __call__(self, pixels: Tensor, frames: Sequence[int] | None = None) -> Features:
        self.passes += 1
        return super().__call__(pixels, frames)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_clip_costs_one_encoder_pass(kind: str, request: pytest.FixtureRequest) -> None:
    backbone: Backbone = request.getfixturevalue(f"tiny_{kind}_backbone")
    grounder = Grounder(backbone)
    grounder.encoder = encoder = CountingEncoder(grounder.encoder)
    benchmark = TabletopBenchmark(5)
    run = evaluate(benchmark, grounder)
    assert encoder.passes == 5
    assert [record.key for record in run.records] == [sample.key for sample in benchmark.samples]
    assert run.timing["encode_ms_median"] > 0
    # Each as if it were alone.
    for sample, record in list(zip(benchmark.samples, run.records))[::4]:
        window, place = benchmark.window(sample, backbone.window_frames)
        (found,) = Grounder(backbone).ground(window, sample.actions, (place,))
        assert record.outcomes[MAIN].score == pytest.approx(found.score, abs=1e-4)


def record(
    clip: int, number: int, box: Box | None, point: tuple[float, float], **fields
) -> Record:
    x, y = point
    hit = None
    if box is not None:
        hit = box[0] <= x <= box[2] and box[1] <= y <= box[3]
    return Record(
        key=f"{clip}/{number}",
        video=f"{clip}",
        label="push",
        groups=fields.get("groups", ("motion",)),
        action="push the cup",
        time_ns=0,
        boxes=() if box is None else (box,),
        image_hw=(100, 100),
        outcomes={
            "ours": Outcome(x, y, hit, None if hit is None else 0.0, None, fields.get("score"))
        },
        layer_weights={},
    )


LEFT, RIGHT, WIDE = (0, 0, 40, 40), (60, 0, 99, 40), (30, 0, 70, 40)


@pytest.mark.parametrize(
    ("boxes", "points", "passed"),
    [
        ((LEFT, RIGHT), ((10, 10), (70, 10)), True),
        ((LEFT, RIGHT), ((70, 10), (10, 10)), False),  # the other way round
        ((LEFT, RIGHT), ((10, 10), (10, 10)), False),  # the text says nothing to it
        ((LEFT, RIGHT), ((10, 10), (50, 90)), False),
        ((LEFT, WIDE), ((35, 10), (35, 10)), False),  # one point for both
        ((LEFT, WIDE), ((35, 10), (60, 10)), True),
        ((LEFT, WIDE), ((10, 10), (35, 10)), True),
    ],
)
def test_a_swap_passes_where_each_text_finds_its_own(
    boxes: tuple[Box, Box], points: tuple[tuple[float, float], ...], passed: bool
) -> None:
    (swap,) = swaps([record(0, n, *pair) for n, pair in enumerate(zip(boxes, points))])
    assert swap.outcomes["ours"].hit is passed


def test_swaps_pair_the_actions_of_one_clip() -> None:
    at = (10.0, 10.0)
    records = [record(0, n, LEFT, at) for n in range(3)]
    records += [record(0, 3, None, at, groups=(ABSENT,))]
    records += [record(1, 0, LEFT, at), record(1, 1, RIGHT, at, groups=("motion", "twins"))]
    records += [record(2, n, LEFT, at, groups=("motion", "twins")) for n in range(2)]
    pairs = swaps(records)
    assert [pair.video for pair in pairs] == ["0", "0", "0", "1", "2"]
    assert [pair.groups for pair in pairs[-2:]] == [("motion", ONE_TWIN), ("motion", "twins")]
    assert summarise(pairs)["ours"].accuracy.count == 5


def test_presence_is_told_from_empty_clips_or_from_what_other_clips_lack() -> None:
    at = (10.0, 10.0)
    there = [record(0, n, LEFT, at, score=score) for n, score in enumerate((0.9, 0.6))]
    empty = [record(2, 0, None, at, groups=(EMPTY,), score=0.1)]
    absent = [
        record(0, n, None, at, groups=(ABSENT,), score=score) for n, score in ((2, 0.7), (3, 0.2))
    ]
    records = [*there, *absent, *empty]
    assert summarise(with_absent(records, EMPTY))["ours"].auc.value == 1.0
    assert summarise(with_absent(records, ABSENT))["ours"].auc.value == 0.75


def test_the_centre_never_passes_the_swap_test(tiny_image_backbone: Backbone) -> None:
    run = evaluate(TabletopBenchmark(20), Grounder(tiny_image_backbone))
    found = summarise(swaps(run.records), [CENTRE])[CENTRE]
    assert found.accuracy.value == 0
    pairs = [
        count * (count - 1) // 2
        for _, of_clip in groupby(run.records, key=lambda record: record.video)
        for count in (sum(bool(record.boxes) for record in of_clip),)
    ]
    assert found.accuracy.count == sum(pairs)


if __name__ == "__main__":
    FINGERPRINTS.write_text(json.dumps({n: fingerprint(n) for n in FINGERPRINTED}) + "\n")

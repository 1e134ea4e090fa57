"""The runner beside the same sample grounded and judged by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scenes import CUT, FREE, Scenes, sample_of, scenes
from torch import Tensor

from videogem_ros.core import Encoder, Grounder, GroundingConfig
from videogem_ros.core.backbones import Backbone
from videogem_ros.core.configuration import WEIGHTINGS
from videogem_ros.datatypes import Features
from videogem_ros.errors import InvalidValueError, RecordingError
from videogem_ros.evaluation.methods import GEM, PROMPTS, Method
from videogem_ros.evaluation.metrics import summarise
from videogem_ros.evaluation.records import CENTRE, Record, Run, Sample
from videogem_ros.evaluation.runner import (
    AnnotatedWindow,
    Bench,
    EvaluationConfig,
    evaluate,
    prefetch,
)

GRID = EvaluationConfig(ablate=True)


class CountingEncoder(Encoder):
    """An encoder that remembers how many frames each of its passes had."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder.tower, encoder.depth)
        self.passes: list[int] = []

    def __call__(self, pixels: Tensor, frames: Sequence[int] | None = None) -> Features:
        self.passes.append(len(pixels))
        return super().__call__(pixels, frames)


@pytest.fixture(params=["image", "video"])
def tiny(request: pytest.FixtureRequest) -> Backbone:
    return request.getfixturevalue(f"tiny_{request.param}_backbone")


@pytest.fixture
def grounder(tiny_image_backbone: Backbone) -> Grounder:
    return Grounder(tiny_image_backbone)


def by_hand(
    dataset: Scenes, shared: Grounder, number: int, weighting: str, prompt: str
) -> tuple[tuple[float, float], float | None, float]:
    """Point, IoU and score of a method by its own encoder pass."""
    sample = dataset.samples[number]
    fusion = "heatmaps" if prompt == "fused-heatmaps" else "points"
    # Of the same text embeddings: on plateaus, rounding decides where the maximum is.
    grounder = shared.with_config(GroundingConfig(weighting, fusion=fusion))
    backbone = grounder.backbone
    window, place = dataset.window(sample, backbone.window_frames)
    (chosen,) = sample.actions if len(sample.actions) == 1 else (None,)
    if chosen is None:
        features = grounder.encode(window, (place,))
        (embedded,) = backbone.tower.embed(features.class_terms.sum(dim=1))

        def fit(text: str) -> float:
            return float(embedded @ backbone.encode_text([text])[0])

        verb = max(FREE, key=lambda a: fit(f"A photo of a person {a.verb} something."))
        thing = max(FREE, key=lambda a: fit(f"A photo of a person using {a.object}."))
        chosen = next(a for a in FREE if (a.verb, a.object) == (verb.verb, thing.object))
    (found,) = grounder.ground(window, [chosen], (place,))
    name = prompt.removesuffix("-heatmaps")
    point = found.points[name]
    iou = None
    if sample.boxes:
        heatmap = found.heatmaps[name].values
        rows, columns = heatmap.shape
        height, width = window.hw
        both = either = 0
        for row, column in product(range(rows), range(columns)):
            x, y = (column + 0.5) * width / columns - 0.5, (row + 0.5) * height / rows - 0.5
            inside = any(x1 <= x <= x2 and y1 <= y <= y2 for x1, y1, x2, y2 in sample.boxes)
            hot = heatmap[row, column] >= 0.5 * heatmap.max()
            both += inside and hot
            either += inside or hot
        iou = both / either
    return (point.x, point.y), iou, found.score


def test_every_method_is_what_a_grounder_of_its_own_finds(tiny: Backbone) -> None:
    dataset, grounder = scenes(5), Grounder(tiny)
    run = evaluate(dataset, grounder, GRID)
    assert [record.key for record in run.records] == [sample.key for sample in dataset.samples]
    for number, record in enumerate(run.records):
        assert len(record.outcomes) == 20 + 1
        cells = list(product(WEIGHTINGS, PROMPTS))
        for weighting, prompt in cells[number :: len(run.records)]:  # each cell of the grid once
            outcome = record.outcomes[f"{weighting}/{prompt}"]
            (x, y), iou, score = by_hand(dataset, grounder, number, weighting, prompt)
            assert (outcome.x, outcome.y) == pytest.approx((x, y), abs=1e-3)
            assert outcome.iou == (None if iou is None else pytest.approx(iou, abs=2e-3))
            assert outcome.score == pytest.approx(score, abs=1e-4)
            boxes = dataset.samples[number].boxes
            inside = any(x1 <= x <= x2 and y1 <= y <= y2 for x1, y1, x2, y2 in boxes)
            assert outcome.hit == (inside if boxes else None)


def test_a_sample_costs_one_encoder_pass_however_many_methods(tiny: Backbone) -> None:
    grounder = Grounder(tiny)
    grounder.encoder = encoder = CountingEncoder(grounder.encoder)
    evaluate(scenes(3), grounder, GRID)
    assert encoder.passes == [tiny.window_frames] * 3


def test_images_of_any_sizes_pass_in_batches(grounder: Grounder) -> None:
    dataset = scenes(7)
    alone = evaluate(dataset, grounder)
    grounder.encoder = encoder = CountingEncoder(grounder.encoder)
    together = evaluate(dataset, grounder, EvaluationConfig(batch=3))
    assert encoder.passes == [3, 3, 1]
    alike(together, alone)


def test_video_windows_pass_in_batches_of_one_annotated_place(
    tiny_video_backbone: Backbone,
) -> None:
    class Moving(Scenes):
        def window(self, sample: Sample, frames: int) -> AnnotatedWindow:
            window, place = super().window(sample, frames)
            return window, place if sample.time_ns % 2_000_000_000 else 1

    dataset, grounder = Moving(scenes(7).samples), Grounder(tiny_video_backbone)
    alone = evaluate(dataset, grounder)
    passes: list[tuple[int, tuple[int, ...]]] = []

    class Counting(Encoder):
        def terms(self, pixels: Tensor, chosen: tuple[int, ...]) -> tuple[Tensor, Tensor]:
            passes.append((len(pixels), chosen))
            return super().terms(pixels, chosen)

    grounder.encoder = Counting(tiny_video_backbone.tower)
    together = evaluate(dataset, grounder, EvaluationConfig(batch=3))
    alike(together, alone)
    # Places 1 4 1, 4 1 4, 1.
    assert passes == [(2, (1,)), (1, (4,)), (2, (4,)), (1, (1,)), (1, (1,))]


def alike(run: Run, expected: Run) -> None:
    """The same up to rounding, which picks the point where a maximum is a plateau.

    Along the border, where twelve of the sixteen patches lie, it is half a patch wide.
    """
    assert [record.key for record in run.records] == [record.key for record in expected.records]
    equal = []
    for found, true in zip(run.records, expected.records):
        for name, outcome in true.outcomes.items():
            values, wanted = (vars(one.outcomes[name]).copy() for one in (found, true))
            point, there = ((one.pop("x"), one.pop("y")) for one in (values, wanted))
            assert point == pytest.approx(there, abs=8 * max(true.image_hw) / 64)
            equal.append(point == pytest.approx(there, abs=5e-3))
            if equal[-1]:
                assert values == pytest.approx(wanted, abs=5e-3)
            else:
                assert outcome.score == pytest.approx(found.outcomes[name].score, abs=1e-5)
    assert np.mean(equal) > 0.75


def test_a_sample_has_an_action_and_is_present_where_it_has_a_box() -> None:
    sample = replace(sample_of(0), boxes=((1.0, 1.0, 2.0, 2.0),))
    assert sample.present
    assert not replace(sample, boxes=()).present
    with pytest.raises(InvalidValueError, match=r"film/0\.actions: expected one action or more"):
        replace(sample, actions=())


def test_a_record_says_what_its_sample_said(grounder: Grounder) -> None:
    dataset = scenes(5)
    for record, sample in zip(evaluate(dataset, grounder).records, dataset.samples):
        for name in ("key", "video", "label", "groups", "time_ns", "boxes"):
            assert getattr(record, name) == getattr(sample, name)
        assert record.action == sample.actions[0].text
        window, _ = dataset.window(sample, 1)
        assert record.image_hw == window.hw


def test_layer_weights_are_kept_of_every_weighting(grounder: Grounder) -> None:
    (record,) = evaluate(scenes(1), grounder, GRID).records
    assert set(record.layer_weights) == set(WEIGHTINGS)
    assert record.layer_weights["uniform"] == ((1.0,) * 8,) * 3
    static = (0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.9, 0.9)
    np.testing.assert_allclose(record.layer_weights["static"], [static] * 3, rtol=1e-6)
    for weighting, total in (("dynamic", 8), ("static+dynamic", 5.2)):
        sums = np.sum(record.layer_weights[weighting], axis=1)
        np.testing.assert_allclose(sums, total, rtol=1e-5)


def test_the_centre_has_neither_heatmap_nor_score(grounder: Grounder) -> None:
    boxed, *_, absent = evaluate(scenes(5), grounder).records
    height, width = boxed.image_hw
    outcome = boxed.outcomes[CENTRE]
    assert (outcome.x, outcome.y) == ((width - 1) / 2, (height - 1) / 2)
    assert outcome.iou is None
    assert outcome.score is None
    assert absent.outcomes[CENTRE].hit is None


@pytest.mark.parametrize(
    "main", [GEM, Method("static", "fused-heatmaps"), Method("dynamic", "verb")]
)
def test_the_run_is_about_the_main_method(grounder: Grounder, main: Method) -> None:
    run = evaluate(scenes(2), grounder, EvaluationConfig(main))
    assert run.main == main.name
    assert main.name in run.records[0].outcomes
    assert main.weighting in run.records[0].layer_weights


def test_boxes_of_another_image_size_are_brought_to_the_frames(grounder: Grounder) -> None:
    small = sample_of(0)  # boxes in pixels of the 64 x 64 frame
    double = replace(
        small,
        boxes=tuple(tuple(2 * (c + 0.5) - 0.5 for c in box) for box in small.boxes),
        boxes_hw=(128, 128),
    )
    (expected,) = evaluate(Scenes([small]), grounder).records
    (found,) = evaluate(Scenes([double]), grounder).records
    np.testing.assert_allclose(found.boxes, expected.boxes)
    assert found.outcomes == expected.outcomes


def test_metrics_of_a_run_are_counted_over_its_records(grounder: Grounder) -> None:
    run = evaluate(scenes(15), grounder)
    outcomes = [record.outcomes[run.main] for record in run.records]
    boxed = [outcome for outcome in outcomes if outcome.hit is not None]
    summary = summarise(run.records)[run.main]
    assert summary.accuracy.count == len(boxed) == 12
    assert summary.accuracy.value == sum(outcome.hit for outcome in boxed) / 12
    assert summary.auc is not None


# What goes wrong.


def test_a_sample_that_cannot_be_decoded_is_named_and_stops_nothing(grounder: Grounder) -> None:
    dataset = scenes(6)
    dataset.broken = frozenset({"film/1", "film/4"})
    dataset.skipped["box outside"] = 2
    dataset.missing["other"] = 3
    run = evaluate(dataset, grounder, EvaluationConfig(batch=2))
    assert [record.key for record in run.records] == ["film/0", "film/2", "film/3", "film/5"]
    assert run.skipped == {
        "box outside": 2,
        "film/1: film.mp4: no frame at that time": 1,
        "film/4: film.mp4: no frame at that time": 1,
    }
    assert run.missing == {"other": 3}
    assert dataset.skipped == {"box outside": 2}


@pytest.mark.parametrize(
    "box", [(64, 0, 70, 9), (0, 63.5, 9, 70), (-9, 0, -0.5, 9), (0, -9, 9, -1), (9, 0, 8, 9)]
)
def test_a_box_that_no_point_can_hit_is_named(grounder: Grounder, box: tuple) -> None:
    bad = replace(sample_of(0), boxes=(*sample_of(0).boxes, box))
    run = evaluate(Scenes([bad, sample_of(1)]), grounder)
    assert [record.key for record in run.records] == ["film/1"]
    ((reason, count),) = run.skipped.items()
    assert reason.startswith("film/0: box: expected one that lies in the image of 64 x 64, got (")
    assert count == 1


@pytest.mark.parametrize("box", [(63, 63, 90, 90), (-9, -9, 0, 0), (5, 5, 5, 5)])
def test_a_box_of_one_pixel_in_the_image_is_one(grounder: Grounder, box: tuple) -> None:
    assert evaluate(Scenes([replace(sample_of(0), boxes=(box,))]), grounder).records


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Scenes([]), "scenes: nothing to evaluate: no sample has its frames there"),
        (
            Scenes([sample_of(0)], broken=frozenset({"film/0"})),
            "scenes: nothing to evaluate: film/0: film.mp4: no frame",
        ),
    ],
)
def test_nothing_to_evaluate_is_an_error(
    grounder: Grounder, dataset: Scenes, message: str
) -> None:
    with pytest.raises(RecordingError, match=message):
        evaluate(dataset, grounder)


@pytest.mark.parametrize("name", ["batch", "loaders"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(InvalidValueError, match=f"{name}: expected one or more, got 0"):
        EvaluationConfig(**{name: 0})


def test_too_large_a_batch_for_the_gpu_is_told(
    grounder: Grounder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(grounder, "encode_each", full)
    with pytest.raises(InvalidValueError, match="--batch: expected as many frames as fit"):
        evaluate(scenes(4), grounder, EvaluationConfig(batch=4))


# Progress, timing, gallery.


def test_progress_counts_every_sample(grounder: Grounder) -> None:
    dataset = scenes(5)
    dataset.broken = frozenset({"film/2"})
    told: list[tuple[int, int]] = []
    run = evaluate(
        dataset, grounder, EvaluationConfig(batch=2), progress=lambda *now: told.append(now)
    )
    assert told == [(0, 5), (2, 5), (4, 5), (5, 5)]
    assert run.timing is not None
    assert run.timing["encode_ms_median"] > 0
    assert run.timing["samples_per_s"] > 0
    assert run.timing["samples_from_cache"] == 0


def test_untrained_weights_are_noted(grounder: Grounder) -> None:
    assert evaluate(scenes(1), grounder).notes == ("untrained weights: the points mean nothing",)


@pytest.mark.parametrize("main", [GEM, Method("static+dynamic", "fused")])
def test_a_case_shows_the_frame_and_the_main_methods_heatmap(tiny: Backbone, main: Method) -> None:
    dataset = scenes(4)
    bench = Bench(dataset, Grounder(tiny), EvaluationConfig(main))
    record: Record = evaluate(dataset, Grounder(tiny), EvaluationConfig(main)).records[1]
    image, heatmap = bench.case(record)
    window, place = dataset.window(dataset.samples[1], tiny.window_frames)
    np.testing.assert_array_equal(image, window.frames[place].image)
    (true,) = Grounder(tiny, GroundingConfig(main.weighting)).ground(window, [CUT], (place,))
    expected = true.heatmaps["fused" if main.prompt == "fused" else main.prompt].values
    np.testing.assert_allclose(heatmap, expected, atol=2e-5)


# Loading ahead.


def test_items_come_in_order_whichever_is_loaded_first() -> None:
    def load(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item

    assert list(prefetch(load, range(20), threads=4, ahead=6)) == list(range(20))


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (3, 4), (4, 2)])
def test_no_more_is_loaded_than_may_be_ahead(threads: int, ahead: int) -> None:
    begun: list[int] = []
    taken = prefetch(lambda item: begun.append(item) or item, range(50), threads, ahead)
    for number in range(20):
        assert next(taken) == number
        time.sleep(0.001)
        assert len(begun) <= number + ahead
    taken.close()
    assert len(begun) < 50


def test_loading_goes_on_while_an_item_is_used() -> None:
    second = threading.Event()
    items = prefetch(lambda item: second.set() if item == 1 else None, range(3), 1, 2)
    next(items)
    assert second.wait(timeout=10)
    items.close()


def test_what_loading_raises_reaches_whoever_asks() -> None:
    def load(item: int) -> int:
        return 1 // item

    items: Iterator[int] = prefetch(load, [1, 0, 1], 2, 2)
    assert next(items) == 1
    with pytest.raises(ZeroDivisionError):
        next(items)

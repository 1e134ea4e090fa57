from __future__ import annotations

from collections.abc import Sequence

import pytest
from example_run import example_run

from videogem_ros.evaluation.records import Outcome, Record
from videogem_ros.evaluation.report import choose_cases


def record(key: str, distance: float | None, iou: float | None = None, video: str = "") -> Record:
    hit = None if distance is None else distance == 0
    outcome = Outcome(0.0, 0.0, hit, distance, iou)
    boxes = () if distance is None else ((0.0, 0.0, 1.0, 1.0),)
    return Record(key, video or key, "a", (), "a", 0, boxes, (4, 4), {"m": outcome}, {})


def keys(records: Sequence[Record]) -> list[str]:
    return [record.key for record in records]


def test_the_nearest_are_best_and_the_farthest_worst():
    distances = {"a": 0.3, "b": 0.0, "c": 0.1, "d": 0.2, "e": 0.5, "f": 0.4}
    cases = choose_cases([record(*item) for item in distances.items()], "m", 2)
    assert keys(cases.best) == ["b", "c"]
    assert keys(cases.worst) == ["e", "f"]
    assert set(keys(cases.median)) == {"a", "d"}


def test_of_two_hits_the_better_overlap_is_better():
    records = [record("a", 0.0, 0.2), record("b", 0.0, 0.6), record("c", 0.1, 0.9)]
    cases = choose_cases(records, "m", 1)
    assert [keys(part) for part in cases] == [["b"], ["a"], ["c"]]


def test_each_video_is_shown_once_before_one_is_shown_twice():
    records = [record(f"{place:02}", place / 100, video=f"v{place // 4}") for place in range(16)]
    cases = choose_cases(records, "m", 4)
    assert keys(cases.best) == ["00", "04", "08", "12"]
    assert keys(cases.worst) == ["15", "11", "07", "03"]
    one_video = [record(f"{place:02}", place / 100, video="v") for place in range(16)]
    assert keys(choose_cases(one_video, "m", 2).best) == ["00", "01"]


@pytest.mark.parametrize("count", range(9))
def test_few_records_are_shared_without_repeating_one(count: int):
    cases = choose_cases([record(str(place), place / 10) for place in range(count)], "m", 4)
    shown = keys(cases.best + cases.median + cases.worst)
    assert len(shown) == len(set(shown)) == count


def test_records_without_box_or_outcome_are_left_aside():
    cases = choose_cases([record("a", None), record("b", 0.1)], "m")
    assert keys(cases.best + cases.median + cases.worst) == ["b"]
    assert choose_cases([record("a", 0.1)], "other") == ((), (), ())


def test_the_choice_does_not_depend_on_the_order_of_records():
    records = example_run(40, ablate=False).records
    main = "static+dynamic/fused"
    assert choose_cases(records, main) == choose_cases(records[::-1], main)

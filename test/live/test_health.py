from __future__ import annotations

import math

import pytest

from videogem_ros.live.health import HOLD_S, SPAN_S, Health, Level


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def health(clock: Clock, lines: list[tuple[str, str]]) -> Health:
    return Health(lambda level, text: lines.append((level, text)), clock)


def test_a_rate_is_over_a_sliding_window(health: Health, clock: Clock):
    for _ in range(300):
        clock.now_s += 0.1
        health.event("images")
    assert health.rate_hz("images") == pytest.approx(10, rel=0.02)
    clock.now_s += SPAN_S / 2
    assert health.rate_hz("images") == pytest.approx(5, rel=0.02)
    clock.now_s += SPAN_S
    assert health.rate_hz("images") == 0
    assert health.counts["images"] == 300


def test_a_young_node_does_not_dilute_its_rate(health: Health, clock: Clock):
    for _ in range(10):
        clock.now_s += 0.1
        health.event("images")
    assert health.rate_hz("images") == pytest.approx(10)


def test_counts_add_up(health: Health):
    health.count("dropped")
    health.count("dropped", 3)
    health.event("images")
    assert health.counts == {"dropped": 4, "images": 1}


def test_ages_and_means(health: Health, clock: Clock):
    assert health.age_s("images") == math.inf
    assert math.isnan(health.mean("windows"))
    for value in (1.0, 2.0, 6.0):
        health.event("windows", value)
        clock.now_s += 2
    assert health.age_s("windows") == 2
    assert health.mean("windows") == 3


def test_a_condition_is_logged_once_an_episode(
    health: Health, clock: Clock, lines: list[tuple[str, str]]
):
    for _ in range(100):
        clock.now_s += 0.01
        health.report("stale stamps", "5 s behind")
    assert lines == [("warn", "stale stamps: 5 s behind")]
    assert health.conditions["stale stamps"].count == 100
    clock.now_s += HOLD_S + 1
    health.settle()
    assert lines[1:] == [("info", "stale stamps: over after 7.0 s, reported 100 times")]
    health.report("stale stamps", "6 s behind")
    assert lines[2:] == [("warn", "stale stamps: 6 s behind")]
    assert health.episodes == {"stale stamps": 2}


def test_good_messages_between_bad_ones_do_not_fill_the_log(
    health: Health, clock: Clock, lines: list[tuple[str, str]]
):
    for _ in range(50):
        health.report("image refused", "unknown encoding")
        clock.now_s += HOLD_S / 2
        health.settle()
    assert len(lines) == 1


def test_what_is_resolved_is_over_at_once(health: Health, lines: list[tuple[str, str]]):
    health.report("no images", "none", Level.STALE)
    health.resolve("no images")
    health.resolve("no images")
    assert [level for level, _ in lines] == ["warn", "info"]
    assert health.conditions == {}


def test_where_nobody_is_left_to_report_it_all_is_over_at_once(health: Health):
    health.report("stale stamps", "5 s behind")
    health.settle()
    assert list(health.conditions) == ["stale stamps"]
    health.settle(at_once=True)
    assert health.conditions == {}


def test_what_has_no_visible_end_stays(health: Health, clock: Clock):
    health.report("QoS of image", "reliability", hold_s=math.inf)
    clock.now_s += 1e6
    health.settle(at_once=True)
    assert list(health.conditions) == ["QoS of image"]


@pytest.mark.parametrize(
    ("levels", "worst"),
    [
        ((), Level.OK),
        ((Level.OK,), Level.OK),
        ((Level.OK, Level.WARN), Level.WARN),
        ((Level.STALE, Level.WARN), Level.STALE),
        ((Level.STALE, Level.ERROR, Level.WARN), Level.ERROR),
    ],
)
def test_the_worst_condition_is_the_level_and_stands_first(
    health: Health, levels: tuple[Level, ...], worst: Level
):
    for number, level in enumerate(levels):
        health.report(str(number), "", level)
    assert health.level is worst
    if levels:
        assert next(iter(health.conditions.values())).level is worst


def test_a_flood_of_events_costs_bounded_memory(health: Health):
    for _ in range(20_000):
        health.event("images")
    assert len(health._events["images"]) < 10_000

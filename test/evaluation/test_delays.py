"""Latency, age, rate and drops against what is counted by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from videogem_ros.evaluation.bags import BagImage, Recording
from videogem_ros.evaluation.delays import delays
from videogem_ros.evaluation.groundings import RecordedGrounding

MS = 10**6
NOW_NS = 1_700_000_000 * 10**9


def recording(stamps_ms: list[int], logged_ms: list[int] | None = None) -> Recording:
    images = tuple(
        BagImage(NOW_NS + stamp * MS, NOW_NS + log * MS, (24, 32), "")
        for stamp, log in zip(stamps_ms, logged_ms or stamps_ms)
    )
    return Recording(Path("drive"), "drive", "/image", images)


def grounded(
    *times_ms: tuple[int, int | None],
    path: str = "drive",
    latency_ms: float | None = None,
    compute_ms: float | None = None,
) -> Any:
    """Groundings of (stamp, arrival), which are all that is looked at."""
    return SimpleNamespace(
        path=Path(path),
        groundings=tuple(
            RecordedGrounding(
                stamp_ns=NOW_NS + stamp * MS,
                index=0,
                action="lift it",
                verb="lift",
                object="it",
                points={},
                score=0.0,
                image_hw=(24, 32),
                layer_weights=(),
                received_ns=None if arrival is None else NOW_NS + arrival * MS,
                latency_ms=latency_ms,
                compute_ms=compute_ms,
            )
            for stamp, arrival in times_ms
        ),
    )


def test_figures_are_those_counted_by_hand() -> None:
    images = recording(list(range(0, 1000, 100)))
    # Two actions of the image of 100 ms: the first to arrive counts.
    found = grounded((100, 160), (100, 170), (300, 380), (400, 450), (800, 1000), compute_ms=40.0)
    figures, notes = delays([(images, found)])
    assert not notes
    assert figures["latency_ms_median"] == pytest.approx(70)  # of 60, 80, 50, 200
    assert figures["latency_ms_p95"] == pytest.approx(80 + 0.85 * 120)
    assert figures["latency_ms_p99"] == pytest.approx(80 + 0.97 * 120)
    assert figures["latency_ms_max"] == 200
    # Age 60 rises to 280 in 220 ms, 80 to 150 in 70, 50 to 600 in 550.
    area = 220 * (60 + 280) / 2 + 70 * (80 + 150) / 2 + 550 * (50 + 600) / 2
    assert figures["age_ms_mean"] == pytest.approx(area / 840)
    assert figures["age_ms_max"] == 600
    assert figures["compute_ms_median"] == 40
    assert figures["rate_hz"] == pytest.approx(3 / 0.84)
    assert (figures["images"], figures["dropped_frames"]) == (8, 4)


def test_an_old_image_that_comes_late_makes_nothing_younger() -> None:
    figures, _ = delays([(recording([0, 100]), grounded((100, 150), (0, 200), (300, 350)))])
    assert figures["age_ms_max"] == 250
    assert figures["age_ms_mean"] == pytest.approx((50 + 250) / 2)


def test_recordings_count_together_but_the_time_between_them_does_not() -> None:
    parts = [
        (recording([0, 100]), grounded((0, 10), (100, 120))),
        (recording([9000, 9100]), grounded((9000, 9030), (9100, 9140))),
    ]
    figures, _ = delays(parts)
    assert figures["latency_ms_median"] == 25
    assert figures["rate_hz"] == pytest.approx(2 / 0.22)
    # Age 10 rises to 120 in the one, 30 to 140 in the other.
    assert figures["age_ms_mean"] == pytest.approx((65 + 85) / 2)
    assert figures["age_ms_max"] == 140
    assert figures["images"] == 4


def test_drops_of_all_recordings_count() -> None:
    part = recording([0, 100, 200, 300]), grounded((0, 10), (200, 210), (300, 310))
    figures, _ = delays([part, part])
    assert (figures["images"], figures["dropped_frames"]) == (8, 2)


def test_an_answer_before_its_image_means_other_clocks_one_that_takes_minutes_does_not() -> None:
    images = recording([0, 100, 200])
    figures, notes = delays([(images, grounded((0, 10), (100, 120), (200, 400_000)))])
    assert figures["latency_ms_max"] == 399_800
    assert not notes
    _, notes = delays([(images, grounded((0, 10), (100, 120), (200, 199)))])
    assert "not from the recorder's clock" in notes[0]


def test_images_of_one_stamp_in_two_recordings_are_two() -> None:
    images = recording([0])
    runs = [grounded((0, 9), path=f"run {ms}", compute_ms=ms) for ms in (10.0, 30.0)]
    figures, _ = delays([(images, run) for run in runs])
    assert figures["compute_ms_median"] == 20


@pytest.mark.parametrize("shift_ms", [-(10**6), 10**9])
def test_other_clocks_are_noticed_and_the_node_or_the_images_arrival_asked(shift_ms: int) -> None:
    stamps = [0, 100, 200]
    images = recording(stamps, [stamp + shift_ms + 5 for stamp in stamps])
    times = [(stamp, stamp + shift_ms + 45) for stamp in stamps]
    figures, notes = delays([(images, grounded(*times))])
    assert figures["latency_ms_max"] == 40
    assert notes == (
        "drive: the images' stamps are not from the recorder's clock: latency and age count from "
        "the images' arrival",
    )
    figures, notes = delays([(images, grounded(*times, path="elsewhere", latency_ms=30))])
    assert figures["latency_ms_max"] == 30
    assert figures["age_ms_max"] == 130
    assert "latency and age use the node's own clock" in notes[0]
    for unknown_ms in (None, -5.0, 1e9):
        found = grounded(*times, path="elsewhere", latency_ms=unknown_ms)
        figures, notes = delays([(images, found)])
        assert "no latency or age" in notes[0]
    figures, notes = delays([(images, grounded(*times, path="elsewhere"))])
    assert not any(name.startswith(("latency", "age")) for name in figures)
    assert notes == (
        "elsewhere: the images' stamps are not from the recorder's clock: no latency or age",
    )
    assert figures["dropped_frames"] == 0


def test_without_times_of_arrival_only_drops_are_known() -> None:
    figures, notes = delays([(recording([0, 100, 200]), grounded((0, None), (200, None)))])
    assert figures == {"images": 3, "dropped_frames": 1}
    assert notes == ("drive does not record when groundings arrived: no latency or age",)


def test_one_grounding_has_a_latency_but_no_rate() -> None:
    figures, _ = delays([(recording([0, 100]), grounded((100, 130)))])
    assert figures["latency_ms_p99"] == 30
    assert not {"rate_hz", "age_ms_mean"} & set(figures)

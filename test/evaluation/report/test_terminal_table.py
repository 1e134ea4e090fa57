from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

import pytest
from example_run import SYSTEM, empty_run, example_run
from rich.console import Console

from videogem_ros.evaluation.metrics import summarise
from videogem_ros.evaluation.records import Run
from videogem_ros.evaluation.report import print_table


def printed(run: Run, width: int = 120) -> str:
    stream = io.StringIO()
    print_table(run, Console(file=stream, width=width, color_system=None))
    return stream.getvalue()


def test_methods_are_rows_with_their_figures():
    run = example_run(40)
    lines = printed(run).splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith(run.main + " "))
    line, below = lines[place : place + 2]
    summary = summarise(run.records)[run.main]
    cells = line.split()
    assert cells[:2] == [run.main, "VideoGEM"]
    assert float(cells[2]) == pytest.approx(100 * summary.accuracy.value, abs=0.5)
    assert float(cells[3]) == pytest.approx(100 * summary.accuracy.low, abs=0.5)
    assert float(cells[5]) == pytest.approx(100 * summary.accuracy.high, abs=0.5)
    assert float(cells[-2]) == pytest.approx(summary.auc.value, abs=0.005)
    boxed = sum(bool(record.boxes) for record in run.records)
    assert 0 < boxed < 40
    assert (cells[-1], below.split()) == (f"{boxed}", ["of", "40"])


def test_where_all_samples_have_a_box_they_are_counted_once():
    run = example_run(40)
    boxed = tuple(record for record in run.records if record.boxes)
    out = printed(replace(run, records=boxed))
    line = next(line for line in out.splitlines() if line.startswith(run.main + " "))
    assert line.split()[-1] == f"{len(boxed)}"
    assert " of " not in out


def test_groups_counts_and_notes_follow():
    out = printed(example_run(40))
    assert "motion" in out
    assert "missing: 15: kitchen_0031.mp4 (12), kitchen_0047.mp4 (3)" in out
    assert "skipped: 3: box outside the frame (2), caption without words (1)" in out
    assert "note: Synthetic example." in out


def test_timing_is_printed():
    (line,) = [
        line for line in printed(example_run(40)).splitlines() if line.startswith("age, ms")
    ]
    assert line.split() == ["age,", "ms", "96.1", "181"]
    assert "Timing" not in printed(empty_run())


def test_eighty_columns_hold_every_figure():
    run = example_run(40)
    for line in printed(run, width=80).splitlines():
        assert len(line) <= 80
        assert "…" not in line
    assert printed(run, width=80).count(" to ") == printed(run).count(" to ")


def test_many_missing_videos_are_counted_not_listed():
    missing = Counter({f"video_{place}": place for place in range(1, 9)})
    out = printed(replace(example_run(3), missing=missing))
    assert "missing: 36: video_8 (8), video_7 (7)" in out
    assert "3 more" in out


def test_names_are_not_taken_for_markup():
    run = example_run(12, ablate=False)
    named = tuple(
        replace(record, groups=("[red]x[/red]",), outcomes={**record.outcomes, "[bold]": outcome})
        for record in run.records
        for outcome in [record.outcomes[run.main]]
    )
    out = printed(replace(run, records=named, dataset="[link]", notes=("[/nothing]",)))
    for name in ("[bold]", "[red]x[/red]", "[link]", "[/nothing]"):
        assert name in out


def test_a_run_without_records_says_so():
    out = printed(empty_run())
    assert "No sample with a box was grounded." in out
    assert SYSTEM not in out

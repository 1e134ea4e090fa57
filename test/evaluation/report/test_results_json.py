from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from example_run import empty_run, example_run

from videogem_ros.errors import VideoGemError
from videogem_ros.evaluation.metrics import summarise
from videogem_ros.evaluation.records import Run
from videogem_ros.evaluation.report import read_results, write_report
from videogem_ros.evaluation.report.results import SCHEMA, write_results


@pytest.mark.parametrize("run", [example_run(12), example_run(3, ablate=False), empty_run()])
def test_the_run_comes_back_as_it_was(run: Run, tmp_path: Path):
    write_report(run, tmp_path)
    assert read_results(tmp_path / "results.json") == run


def test_every_figure_is_there_beside_the_records(tmp_path: Path):
    run = example_run(30)
    write_report(run, tmp_path)
    fields = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert fields["schema"] == SCHEMA
    assert len(fields["records"]) == 30
    for name, summary in summarise(run.records).items():
        shown = fields["methods"][name]
        assert shown["accuracy"] == vars(summary.accuracy)
        assert shown["per_class"].keys() == summary.per_class.keys()
        assert (shown["iou"] is None) == (summary.iou is None)


def test_each_record_has_a_line_of_its_own(tmp_path: Path):
    write_report(example_run(4, ablate=False), tmp_path)
    lines = (tmp_path / "results.json").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line.strip().rstrip(",")) for line in lines if '{"key"' in line]
    assert [record["key"][-1] for record in records] == ["0", "1", "2", "3"]


def test_numbers_that_json_lacks_are_null(tmp_path: Path):
    run = replace(example_run(3), timing={"latency_ms_median": math.nan, "rate_hz": math.inf})
    write_report(run, tmp_path)
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    fields = json.loads(text, parse_constant=pytest.fail)
    assert fields["timing"] == {"latency_ms_median": None, "rate_hz": None}


def test_file_names_that_are_no_utf8_come_back(tmp_path: Path):
    run = replace(
        example_run(3), missing=Counter({b"k\xfcche.mp4".decode(errors="surrogateescape"): 1})
    )
    write_report(run, tmp_path)
    assert read_results(tmp_path / "results.json") == run


def test_two_writings_of_a_run_are_equal_to_the_byte(tmp_path: Path):
    for name in ("a", "b"):
        write_report(example_run(20), tmp_path / name)
    for name in ("results.json", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_failed_writing_leaves_the_old_file_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "results.json"
    write_results(example_run(3), {}, path)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(VideoGemError, match=r"cannot write .*results\.json: full"):
        write_results(example_run(4), {}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VideoGemError, match=r"cannot write .*file/sub/results\.json"):
        write_report(example_run(3), tmp_path / "file" / "sub")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read .*: .*No such file"),
        ("{", "cannot read"),
        ("[]", "expected the schema"),
        ('{"schema": "videogem_ros/evaluation/9"}', "evaluation/1, got 'videogem_ros/eval"),
        (f'{{"schema": "{SCHEMA}"}}', "a field is missing or of another kind: 'dataset'"),
        (
            f'{{"schema": "{SCHEMA}", "dataset": "d", "backbone": "b", "main": "m", '
            '"records": [1]}',
            "of another kind",
        ),
    ],
)
def test_other_files_are_refused_by_name(text: str | None, message: str, tmp_path: Path):
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(VideoGemError, match=message) as caught:
        read_results(path)
    assert str(path) in str(caught.value)

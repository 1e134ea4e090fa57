"""``benchmarks/streaming.py`` and ``benchmarks/scaling.py`` on a tiny backbone."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from tiny import ROOT

FOLDER = ROOT / "benchmarks"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tiny_clip_config: Path):
    """Runs a script as from the command line, on one thread."""

    def started(script: str, *arguments: object) -> None:
        given = (*arguments, "--backbone", f"openclip:{tiny_clip_config}", "--threads", 1)
        monkeypatch.setattr(sys, "argv", [script, *map(str, given)])
        monkeypatch.syspath_prepend(str(FOLDER))
        runpy.run_path(str(FOLDER / script), run_name="__main__")

    threads = torch.get_num_threads()
    yield started
    torch.set_num_threads(threads)


def test_a_new_frame_of_a_stream_is_compared_with_the_whole_window(run, capsys) -> None:
    options = ("--window", 3, "--repeats", 2, "--hw", 60, 80, "--json")
    run("streaming.py", "frame", *options)
    found = json.loads(capsys.readouterr().out)
    assert found["deviation"] <= 1e-5
    assert found["seconds"].keys() == {"transcription", "all", "newest"}
    for way in ("all", "newest"):
        faster = found["seconds"]["transcription"][1] / found["seconds"][way][1]
        assert found["times_faster"][way] == pytest.approx(faster)


def test_a_further_action_is_compared_with_its_window(run, capsys) -> None:
    run("streaming.py", "action", "--repeats", 2, "--json")
    (found,) = json.loads(capsys.readouterr().out)
    assert found["deviation"] <= 1e-5
    low, middle, high = found["seconds"]["window"]
    assert 0 < low <= middle <= high
    assert found["share"]["new"] == pytest.approx(found["seconds"]["new"][1] / middle)


def test_what_grows_is_measured_and_drawn(run, capsys, tmp_path: Path) -> None:
    figures, picture = tmp_path / "scaling.json", tmp_path / "scaling.svg"
    parts = ("--parts", "window", "actions")
    run("scaling.py", *parts, "--repeats", 1, "--json", figures, "--picture", picture)
    assert "window, all heatmaps: new frame alone" in capsys.readouterr().out
    window, actions = json.loads(figures.read_text())["panels"]
    assert [curve["name"] for curve in window["curves"]] == ["encoded anew", "new frame alone"]
    assert [point["x"] for point in actions["curves"][0]["points"]] == [1, 4, 8, 16, 32]
    svg = picture.read_text()
    lines = ElementTree.fromstring(svg).findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2 * 2 * 2  # panels, curves, time and memory
    again = tmp_path / "again.svg"
    run("scaling.py", "--from-json", figures, "--picture", again)
    assert again.read_text() == svg

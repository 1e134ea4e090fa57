"""``benchmarks/tabletop.py`` on a few clips and a tiny backbone."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import cv2
import pytest
from tiny import ROOT

from videogem_ros.core.configuration import WEIGHTINGS

SCRIPT = str(ROOT / "benchmarks" / "tabletop.py")
GRID = {
    f"{weighting}/{p}" for weighting in WEIGHTINGS for p in ("verb", "object", "action", "fused")
}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [SCRIPT, *map(str, arguments)])
    runpy.run_path(SCRIPT, run_name="__main__")


def test_it_prints_and_saves_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_clip_config: Path,
    tmp_path: Path,
) -> None:
    backbone, numbers = f"openclip:{tiny_clip_config}", tmp_path / "numbers.json"
    options = ("--weights", "random:0", "--clips", 10)
    run(
        monkeypatch,
        *("--backbone", backbone, *options, "--json", numbers, "--pictures", tmp_path / "sheets"),
    )
    printed = capsys.readouterr().out
    found = json.loads(numbers.read_text())[backbone]
    expected = {"centre", "pose", "motion", "swap test", "swap test, others"}
    expected |= {"presence, empty", "presence, absent"}
    expected |= {f"said to be there, {group}" for group in ("there", "empty", "absent")}
    assert found.keys() >= GRID | expected | {"IoU"}
    assert all(0 <= f["low"] <= f["value"] <= f["high"] <= 1 for f in found.values())
    (gem,) = re.findall(r"^\| GEM \(uniform\) \|(.*)\|$", printed, re.MULTILINE)
    cells = [
        found[f"uniform/{prompt}"]["value"] for prompt in ("verb", "object", "action", "fused")
    ]
    assert gem.split("|") == [f" {100 * value:.1f} " for value in cells]
    assert "10 clips, " in printed
    assert "untrained weights: the points mean nothing" in printed
    sheets = list((tmp_path / "sheets").iterdir())
    assert len(sheets) == sum(str(sheet) in printed for sheet in sheets) >= 1
    assert all(cv2.imread(str(sheet)) is not None for sheet in sheets)


def test_weights_need_their_backbone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--weights", "random:0")
    assert "--backbone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--clips", 0), "error: clips: expected"),
        (("--clips", 10, "--backbone", "nope"), "error: backbone: expected"),
        (("--json", "no/such/folder/x.json"), "--json: expected a file in a folder that is there"),
    ],
    ids=["clips", "backbone", "json"],
)
def test_bad_input_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *arguments)
    assert ended.value.code != 0
    assert message in f"{ended.value} {capsys.readouterr().err}"

"""``benchmarks/gpu.py``: its measuring code on the CPU, and what it says where there is no GPU."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from cpu_recorder import CpuRecorder
from tiny import ROOT, TINY_VICLIP

from videogem_ros.core import acceleration, load_backbone
from videogem_ros.core.backbones import viclip

FOLDER = ROOT / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark, with a tiny video backbone to measure."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setitem(viclip.MODELS, "tiny", TINY_VICLIP)
    return importlib.import_module("gpu")


@pytest.fixture
def plan(gpu: ModuleType) -> Any:
    return gpu.Plan(
        base="viclip:tiny", large="viclip:tiny", cameras=2, image_hw=(48, 64), clips=2, repeats=2
    )


def test_every_figure_comes_out_and_stands_in_the_table(gpu: ModuleType, plan: Any) -> None:
    result = gpu.measure(plan, torch.device("cpu"))
    json.dumps(result)
    assert set(result["parity"]) == {
        "heatmaps, float32 to transcription",
        "heatmaps, CUDA graph to none",
        "heatmaps, windows together to alone",
        "points, bfloat16 within a patch of float32",
    }
    *timed, memory = result["rows"]
    assert len(timed) == 6
    for row in timed:
        assert math.isfinite(row["median"])
        assert row["low"] <= row["median"] <= row["high"]
        assert row["reached"] in (True, False)
    assert memory["median"] is None  # the CPU has no such count
    lines = list(gpu.table(result))
    for row in result["rows"]:
        assert f"| {row['work']} | {row['target']} | {row['shown']} |" in lines
    for name in result["more"]:
        assert [line for line in lines if line.startswith(name)]


def test_the_documents_table_has_the_same_lines(gpu: ModuleType) -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    section = text[text.index("## On a GPU") :]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    found = {cells[0]: cells[1] for cells in lines if len(cells) > 1}
    for goal in gpu.goals(gpu.Plan()).values():
        assert found[goal.work] == goal.target


@pytest.mark.parametrize("part", ["transcription", "graph", "batch", "half"])
def test_different_results_are_not_timed(
    gpu: ModuleType, plan: Any, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    broken = {
        "transcription": ("speed.baseline", lambda tower, pixels, positions, text: 0.5),
        "graph": ("gpu.graph_deviation", lambda *_: 2e-4),
        "batch": ("gpu.batch_deviation", lambda *_: math.nan),
        "half": ("gpu.near_share", lambda *_: 0.89),
    }
    monkeypatch.setattr(*broken[part])
    monkeypatch.setattr(gpu, "device_ms", lambda *_: pytest.fail("timed"))
    with pytest.raises(gpu.DifferentError):
        gpu.measure(plan, torch.device("cpu"))


class WrongRecorder(CpuRecorder):
    """Replays of passes with so many inputs are upside down."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self._inputs = inputs

    def record(self, passed: Any, inputs: Any, beside: Any) -> Any:
        if len(inputs) != self._inputs:
            return super().record(passed, inputs, beside)
        return super().record(lambda *xs: tuple(x.flip(-2) for x in passed(*xs)), inputs, beside)


@pytest.mark.parametrize(
    ("wrong", "inputs"),
    [("nothing", 0), ("the encoder", 1), ("both", 2), ("the comparison", 3)],
)
def test_wrong_replays_of_either_recording_are_seen(
    gpu: ModuleType, plan: Any, monkeypatch: pytest.MonkeyPatch, wrong: str, inputs: int
) -> None:
    monkeypatch.setattr(acceleration, "CudaRecorder", lambda: WrongRecorder(inputs))
    backbone = load_backbone(plan.base, "random:0", "cpu", "float32")
    found = gpu.graph_deviation(backbone, gpu.Camera(0, plan.image_hw, backbone.window_frames))
    assert (found > gpu.TOLERANCE) == (wrong != "nothing")


def test_recordings_that_are_not_replayed_are_seen(
    gpu: ModuleType, plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = CpuRecorder()
    recorder.error = RuntimeError("not permitted")
    monkeypatch.setattr(acceleration, "CudaRecorder", lambda: recorder)
    backbone = load_backbone(plan.base, "random:0", "cpu", "float32")
    with pytest.raises(gpu.DifferentError, match="not permitted"):
        gpu.graph_deviation(backbone, gpu.Camera(0, plan.image_hw, backbone.window_frames))


def test_a_row_knows_whether_its_target_was_reached(gpu: ModuleType) -> None:
    most, least = gpu.Goal("w", "t", "ms", 2), gpu.Goal("w", "t", "times", 15, least=True)
    row = most.row([3.0, 1.0, 2.0])
    assert (row["low"], row["median"], row["high"], row["reached"]) == (1.0, 2.0, 3.0, True)
    assert row["shown"] == "2 ms (1 to 3)"
    assert most.row([2.5, 2.5])["shown"] == "2.5 ms, missed"
    assert least.row([14.9])["reached"] is False
    assert least.row([15.0])["shown"] == "15 times"
    unknown = most.row([math.nan])
    assert (unknown["reached"], unknown["shown"]) == (None, "")


def test_a_camera_moves_by_one_frame(gpu: ModuleType) -> None:
    camera = gpu.Camera(0, (4, 6), 8)
    before, after, other = camera.window(), camera.next(), camera.other()
    assert before.frames[1:] == after.frames[:-1]
    assert not {*after.frames} & {*other.frames}
    assert other.frames[0].stamp_ns > after.newest.stamp_ns


LINE = "gpu.py: no CUDA device; this benchmark measures an NVIDIA GPU"


def test_without_a_gpu_it_ends_with_2_and_one_line() -> None:
    ended = subprocess.run(
        [sys.executable, str(FOLDER / "gpu.py")],
        capture_output=True,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [LINE]


@pytest.mark.parametrize("arguments", [(), ("--device", "cpu"), ("--device", "cuda:1")])
def test_no_other_device_will_do(
    gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    assert gpu.main() == 2
    assert capsys.readouterr().err.splitlines() == [LINE]


def test_it_prints_and_saves_the_same_figures(
    gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    row = gpu.Goal("work", "most", "ms", 2).row([1.0, 2.0, 3.0])
    result = {"machine": {"device": "A"}, "parity": {"p": 1e-6}, "rows": [row], "more": {"m": 2.5}}
    monkeypatch.setattr(gpu, "measure", lambda plan, device: result)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--json", str(tmp_path / "gpu.json")])
    assert gpu.main() == 0
    assert "| work | most | 2 ms (1 to 3) |" in capsys.readouterr().out
    assert json.loads((tmp_path / "gpu.json").read_text()) == result

    def different(*_: object) -> None:
        raise gpu.DifferentError("points: 0.5, less than 0.9")

    monkeypatch.setattr(gpu, "measure", different)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--json", str(tmp_path / "other.json")])
    assert gpu.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "gpu.py: results differ, nothing was timed: points: 0.5, less than 0.9"
    assert not (tmp_path / "other.json").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_it_measures_a_gpu(gpu: ModuleType, plan: Any) -> None:
    result = gpu.measure(plan, torch.device("cuda"))
    assert all(row["median"] is not None for row in result["rows"])
    for name in ("CUDA graphs", "CUDA graphs, after the encoder"):
        assert result["more"][name]["failed"] == 0
        assert result["more"][name]["replayed"] > 0

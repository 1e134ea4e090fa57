"""``videogem-ros bench``, run for real on tiny models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from videogem_ros.cli import main

SMALL = ("--device", "cpu", "--seconds", "0.3", "--camera-hw", "96", "128")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bench", *SMALL, *map(str, arguments)])


def test_json_holds_the_machine_every_setting_and_the_choice(tiny_clip_config: Path) -> None:
    backbone = f"openclip:{tiny_clip_config}"
    result = invoke(
        *("--backbone", backbone, "--dtype", "bfloat16"),
        *("--frames", "all", "--actions", 2, "--rate", 1e-3, "--json"),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["machine"]["cores"] >= 1
    assert found["interrupted"] is False
    assert found["failed"] == {}
    # What bfloat16 is compared with is measured before it, without having been asked for.
    assert [s["setting"]["dtype"] for s in found["settings"]] == ["float32", "bfloat16"]
    for measured in found["settings"]:
        assert measured["setting"] | {"dtype": ""} == {
            "backbone": backbone,
            "weights": "random:0",
            "device": "cpu",
            "dtype": "",
            "self_self_scope": "window",
            "ground": "all",
            "actions": 2,
            "window": 8,
            "image_hw": None,
            "camera_hw": [96, 128],
        }
        latency = measured["latency_s"]
        order = [latency[name] for name in ("min", "p25", "p50", "p75", "p90", "p99", "max")]
        assert order == sorted(order)
        assert latency["frames"] >= 3
        assert measured["frames_per_s"] == pytest.approx(1 / latency["p90"])
        assert measured["peak_mib"] > 100  # torch alone is more
        assert measured["untrained"]
    reference, other = found["settings"]
    assert "points_as_in_float32" not in reference
    assert 0 <= other["points_as_in_float32"]["share"] <= 1
    assert other["points_as_in_float32"]["points"] % 32 == 0  # 8 actions, 4 points
    # The first that sustains the rate, not the fastest.
    assert found["rate"] == {
        "wanted": 1e-3,
        "sustained": True,
        "setting": reference["setting"],
        "frames_per_s": reference["frames_per_s"],
    }


def test_a_video_backbones_scopes_are_compared_and_the_exact_one_is_preferred() -> None:
    options = ("--backbone", "viclip:tabletop", "--dtype", "float32", "--self-self-scope", "frame")
    found = json.loads(invoke(*options, "--rate", 1e6, "--json").stdout)
    exact, approximate = found["settings"]
    assert exact["setting"] | {"self_self_scope": "frame"} == approximate["setting"]
    assert "points_as_in_float32" not in exact
    assert 0 <= approximate["points_as_in_float32"]["share"] < 1  # it is another method
    nearest = max(found["settings"], key=lambda measured: measured["frames_per_s"])
    assert found["rate"]["sustained"] is False
    assert found["rate"]["setting"] == nearest["setting"]
    table = invoke(*options, "--rate", 1e-3).stdout.splitlines()
    assert [line.split()[2] for line in table[3:5]] == ["window", "frame"]
    assert table[-1].strip() == "--backbone viclip:tabletop --dtype float32 --device cpu"


def test_the_table_shows_what_could_be_measured_and_says_what_could_not(
    tiny_clip_config: Path,
) -> None:
    result = invoke(
        *("--backbone", "openclip:none", "--backbone", f"openclip:{tiny_clip_config}"),
        *("--dtype", "float32", "--rate", 1e6),
    )
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert "core" in lines[0]
    assert "torch" in lines[0]
    assert lines[1] == "camera 96 x 128, heatmaps of the newest frame, 1 action"
    assert lines[3].split()[:3] == [f"openclip:{tiny_clip_config}", "float32", "64x64"]
    least_ms, median_ms, p90_ms, p99_ms, _, _, per_second = lines[3].split()[3:10]
    assert 0 < float(least_ms) <= float(median_ms) <= float(p90_ms) <= float(p99_ms)
    assert float(p90_ms) * float(per_second) == pytest.approx(1000, rel=0.02)
    assert lines[4].startswith("Random weights: ")
    assert lines[5].startswith("1e+06 frames a second: none of these; the nearest is openclip:")
    failures = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert failures == [
        "Error: openclip:none float32: backbone: expected an open_clip model name, such as "
        "ViT-B-16, or a .json file, got none"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--weights", "a", "--weights", "b"), "Error: --weights: expected one for each of 3 ba"),
        (("--device", "cuda:99"), "Error: --device: expected an available torch device, got cud"),
        (("--dtype", "float8"), "Error: Invalid value for '--dtype': 'float8' is not one of"),
    ],
)
def test_bad_options_are_refused_before_anything_is_measured(
    options: tuple[str, ...], message: str
) -> None:
    result = invoke(*options)
    assert result.exit_code != 0
    assert message in result.stderr
    assert result.stdout == ""


def test_an_interrupted_run_prints_what_it_has(tiny_clip_config: Path) -> None:
    backbone = f"openclip:{tiny_clip_config}"
    command = [sys.executable, "-m", "videogem_ros", "bench", *SMALL, "--json"]
    command += ["--backbone", backbone, "--dtype", "bfloat16"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
    ) as process:
        assert process.stderr is not None
        # Before it comes what this processor does not multiply, where it is so.
        first = next(line for line in process.stderr if not line.startswith("warning: "))
        process.send_signal(signal.SIGINT)
        out, complaints = process.communicate(timeout=120)
    assert first.startswith(f"1 of 2: {backbone} float32, ")
    assert process.returncode == 130
    assert complaints.strip() == "interrupted after 1 of 2 settings"
    found = json.loads(out)
    assert found["interrupted"] is True
    assert [s["setting"]["dtype"] for s in found["settings"]] == ["float32"]

"""``videogem-ros evaluate`` on a data set of noise, with a small seeded backbone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from videogem_ros.cli import main
from videogem_ros.core import Grounder
from videogem_ros.core.backbones import Backbone
from videogem_ros.errors import RecordingError
from videogem_ros.evaluation.cluster import ONE_MACHINE
from videogem_ros.evaluation.datasets import DATASETS, open_dataset
from videogem_ros.evaluation.datasets.annotated import AnnotatedDataset
from videogem_ros.evaluation.methods import GEM, VIDEOGEM
from videogem_ros.evaluation.report import read_results
from videogem_ros.evaluation.runner import evaluate

STEPS = ("pour milk", "cut tomato", "stir soup", "open drawer")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """GroundingYouTube's form: frames of two videos, named by their seconds."""
    generator = np.random.default_rng(5)
    content = {}
    for video, seconds in (("one", range(4)), ("two", range(3))):
        folder = tmp_path / "data" / video
        folder.mkdir(parents=True)
        content[video] = []
        for second in seconds:
            x, y = (int(side) for side in generator.integers(0, [60, 40]))
            content[video].append(
                {"second": second, "box": [x, y, x + 30, y + 20], "step_name": STEPS[second]}
            )
            small = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            picture = cv2.resize(small, (96, 64), interpolation=cv2.INTER_CUBIC)
            assert cv2.imwrite(str(folder / f"{second}.png"), picture)
    (tmp_path / "data" / "box_anno.json").write_text(json.dumps(content))
    return tmp_path / "data"


def annotate(root: Path, video: str, second: int, **change: object) -> None:
    """One more annotation."""
    file = root / "box_anno.json"
    content = json.loads(file.read_text())
    entry = {"second": second, "box": [1, 1, 9, 9], "step_name": "pour milk", **change}
    content.setdefault(video, []).append(entry)
    file.write_text(json.dumps(content))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def on(root: Path, *arguments: object) -> Result:
    return invoke("groundingyoutube", "--root", root, *arguments)


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_a_data_set_gives_a_table_and_a_report(
    root: Path, untrained: list[str], tmp_path: Path, tiny_image_backbone: Backbone
) -> None:
    out = tmp_path / "out"
    result = on(root, *untrained, "--out", out)
    assert result.exit_code == 0, result.output
    run = read_results(out / "results.json")
    expected = evaluate(open_dataset("groundingyoutube", root), Grounder(tiny_image_backbone))
    assert run.records == expected.records
    assert len(run.records) == 7
    assert run.main == VIDEOGEM.name
    assert run.settings["weights"] == "random:0"
    assert run.settings["computed in"] == "float32 on cpu"
    assert any("GroundingYouTube's boxes belong to copies of 640 x 480" in n for n in run.notes)
    for name in ("static+dynamic/fused", "static+dynamic/action", "uniform/action", "centre"):
        assert name in result.stdout
    assert str(out / "report.html") in result.stdout
    assert (out / "report.html").read_text().count("data:image/jpeg") >= 3
    assert sorted(path.name for path in out.iterdir()) == ["cache", "report.html", "results.json"]
    assert "untrained weights" in result.stderr


def test_without_out_there_is_the_table_alone(
    root: Path, untrained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = on(root, *untrained)
    assert result.exit_code == 0, result.output
    assert "static+dynamic/fused" in result.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_the_ablation_has_the_whole_grid(root: Path, untrained: list[str], tmp_path: Path) -> None:
    assert on(root, *untrained, "--ablate", "--out", tmp_path, "--limit", 2).exit_code == 0
    run = read_results(tmp_path / "results.json")
    assert len(run.records) == 2
    assert all(len(record.outcomes) == 20 + 1 for record in run.records)


@pytest.mark.parametrize(
    ("options", "main_method"),
    [
        (["--method", "gem"], GEM.name),
        (["--weighting", "dynamic", "--fusion", "heatmaps"], "dynamic/fused-heatmaps"),
    ],
)
def test_the_run_is_about_the_method_that_was_asked_for(
    root: Path, untrained: list[str], tmp_path: Path, options: list[str], main_method: str
) -> None:
    assert on(root, *untrained, *options, "--out", tmp_path, "--limit=1").exit_code == 0
    assert read_results(tmp_path / "results.json").main == main_method


def test_other_systems_stand_beside_ours(root: Path, untrained: list[str], tmp_path: Path) -> None:
    table = tmp_path / "other.csv"
    table.write_text("video,time,x,y\none,0,5,6\none,1,7,8\ntwo,2,9,10\n")
    result = on(root, *untrained, "--predictions", f"other={table}", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    run = read_results(tmp_path / "out" / "results.json")
    found = {record.key: record.outcomes.get("other") for record in run.records}
    places = {key: (outcome.x, outcome.y) for key, outcome in found.items() if outcome}
    assert places == {"one/0/0": (5, 6), "one/1/0": (7, 8), "two/2/0": (9, 10)}
    assert "other: predictions for 3 of 7 samples" in run.notes


def test_the_tabletop_benchmark_needs_no_files(untrained: list[str], tmp_path: Path) -> None:
    result = invoke("tabletop", "--limit", 1, *untrained, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    run = read_results(tmp_path / "results.json")
    assert run.dataset == "tabletop"
    assert any(record.boxes for record in run.records)


def test_every_data_set_is_listed() -> None:
    text = invoke("--help").stdout
    for name in (*DATASETS, "tabletop", "bag"):
        assert f"  {name} " in text
    for name in (*DATASETS, "tabletop", "bag"):
        assert invoke(name, "--help").exit_code == 0


# Going on.


def test_what_was_evaluated_is_not_evaluated_again(
    root: Path, untrained: list[str], tmp_path: Path
) -> None:
    options = (*untrained, "--out", tmp_path / "out")
    assert on(root, *options, "--limit", 3).exit_code == 0
    assert on(root, *options).exit_code == 0
    run = read_results(tmp_path / "out" / "results.json")
    assert run.timing is not None
    assert run.timing["samples_from_cache"] == 3
    elsewhere = (*untrained, "--out", tmp_path / "other", "--cache", tmp_path / "out" / "cache")
    assert on(root, *elsewhere).exit_code == 0
    other = read_results(tmp_path / "other" / "results.json")
    assert other.records == run.records
    assert other.timing == {"samples_from_cache": 7}


def test_an_interruption_tells_what_is_kept_and_the_same_command_continues(
    root: Path, untrained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = AnnotatedDataset.window

    def interrupted(self, sample, frames):
        if sample.key == "one/3/0":
            raise KeyboardInterrupt
        return window(self, sample, frames)

    options = (*untrained, "--out", tmp_path / "out", "--loaders", 1)
    with monkeypatch.context() as patched:
        patched.setattr(AnnotatedDataset, "window", interrupted)
        result = on(root, *options)
    assert result.exit_code == 130
    assert "interrupted; the results so far are kept in" in result.stderr
    assert str(tmp_path / "out" / "cache") in result.stderr
    assert not (tmp_path / "out" / "results.json").exists()
    assert on(root, *options).exit_code == 0
    run = read_results(tmp_path / "out" / "results.json")
    assert run.timing is not None
    assert run.timing["samples_from_cache"] == 3
    assert len(run.records) == 7


@pytest.mark.slow
def test_ray_finds_the_same(
    root: Path, untrained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*ONE_MACHINE)  # before Ray is imported
    pytest.importorskip("ray", reason="Ray is not installed (the extra videogem_ros[ray])")
    options = (*untrained, "--ablate")
    result = on(root, *options, "--out", tmp_path / "ray", "--ray", "local", "--workers", 2)
    assert result.exit_code == 0, result.output
    assert on(root, *options, "--out", tmp_path / "plain").exit_code == 0
    found, plain = (read_results(tmp_path / name / "results.json") for name in ("ray", "plain"))
    assert found.records == plain.records


# Bad input.


def test_what_is_missing_or_broken_is_counted_and_the_exit_code_tells(
    root: Path, untrained: list[str], tmp_path: Path
) -> None:
    annotate(root, "gone", 4)
    annotate(root, "gone", 5)
    annotate(root, "one", 9, step_name="?!")
    annotate(root, "two", 1, box=[200, 1, 220, 9])
    (root / "two" / "2.png").write_bytes(b"no image")
    result = on(root, *untrained, "--out", tmp_path / "out")
    assert result.exit_code == 3, result.output
    run = read_results(tmp_path / "out" / "results.json")
    assert run.missing["gone"] == 2
    assert len(run.records) == 6
    reasons = " | ".join(run.skipped)
    assert "two/2/0: " in reasons
    assert "2.png" in reasons
    assert "two/1/1: box: expected one that lies in the image of 96 x 64" in reasons
    missing, skipped = sum(run.missing.values()), sum(run.skipped.values())
    last = (
        f"not all samples were evaluated: {missing} without frames, {skipped} that cannot be used"
    )
    assert lines(result.stderr)[-1] == last
    assert "Traceback" not in result.output


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["groundingyoutube", "--root", "{tmp}/none"], 1, "Error: root: expected"),
        (["v-hico", "--root", "{root}"], 1, "Error: "),
        (["groundingyoutube"], 2, "Missing option '--root'"),
        (["nothing", "--root", "{root}"], 2, "No such command 'nothing'"),
        (
            ["groundingyoutube", "--root", "{root}", "--method=gem", "--weighting=static"],
            2,
            "GEM has no --weighting; leave it out",
        ),
        (
            ["groundingyoutube", "--root", "{root}", "--predictions", "other"],
            2,
            "'other' is not NAME=FILE",
        ),
        (
            ["groundingyoutube", "--root", "{root}", "--predictions", "other={tmp}/none.csv"],
            1,
            "Error: --predictions other: expected a CSV file",
        ),
        (
            ["groundingyoutube", "--root", "{root}", "--out", "{root}/box_anno.json"],
            1,
            "Error: --out: expected a folder",
        ),
        (
            ["groundingyoutube", "--root", "{root}", "--ray", "local"],
            1,
            "Error: --ray: expected Ray, which `pip install videogem_ros[ray]` brings",
        ),
    ],
)
def test_an_error_is_told_before_any_work(
    root: Path,
    untrained: list[str],
    tmp_path: Path,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    before = sorted(tmp_path.rglob("*"))
    named = [argument.format(root=root, tmp=tmp_path) for argument in arguments]
    result = invoke(*named, *untrained)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("other", "video,time,x\none,0,5\n", "other.csv, header: expected video, time, x, y"),
        ("other", "video,time,x,y\none,0,5,6\none,1,5,?\n", "other.csv line 3, y: expected a"),
        ("other", "video,time,x,y\nthree,0,5,6\n", "samples, such as one at 0.0 s, got only"),
        ("centre", "video,time,x,y\none,0,5,6\n", "a name that no other method has, got centre"),
        ("static/verb", "video,time,x,y\none,0,5,6\n", "a name that no other method has"),
    ],
)
def test_wrong_predictions_are_told_before_any_work(
    root: Path,
    untrained: list[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: str,
    message: str,
) -> None:
    """Wherever the model would be loaded, which comes before all grounding."""
    monkeypatch.setattr("videogem_ros.cli.evaluate.load_grounder", None)
    table = root.parent / "other.csv"
    table.write_text(content)
    result = on(root, *untrained, "--predictions", f"{name}={table}")
    assert result.exit_code == 1, result.output
    assert message in lines(result.stderr)[-1]


def test_a_system_is_named_once(root: Path, untrained: list[str]) -> None:
    table = root.parent / "other.csv"
    table.write_text("video,time,x,y\none,0,5,6\n")
    twice = 2 * ("--predictions", f"other={table}")
    result = on(root, *untrained, *twice)
    assert result.exit_code == 1
    assert "a name that no other method has, got other" in lines(result.stderr)[-1]
    assert "evaluating" not in result.output


def test_a_data_set_of_which_nothing_can_be_read_is_an_error(
    root: Path, untrained: list[str], tmp_path: Path
) -> None:
    for image in root.rglob("*.png"):
        image.write_bytes(b"no image")
    result = on(root, *untrained, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "GroundingYouTube: nothing to evaluate: one/0/0: " in lines(result.stderr)[-1]
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_gallery_without_its_frames_is_still_a_report(
    root: Path, untrained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*untrained, "--out", tmp_path / "out")
    assert on(root, *options).exit_code == 0

    def lost(self, sample, frames):
        raise RecordingError("the disk is gone")

    monkeypatch.setattr(AnnotatedDataset, "window", lost)
    result = on(root, *options)
    assert result.exit_code == 0, result.output
    page = (tmp_path / "out" / "report.html").read_text()
    assert "the disk is gone" in page

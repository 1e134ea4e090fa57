"""``videogem-ros evaluate bag`` on labelled recordings, with a small seeded backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from labelled_bags import IMAGES, START_NS, STORE, detection, film, image, labels, write_bag
from live_bags import live_messages, store_of_all

from videogem_ros.cli import main
from videogem_ros.evaluation.report import read_results

LIFT, PRESS = "lift the cup", "press the button"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", "bag", *map(str, arguments)])


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of 5 images, with a command and with labels of two actions of which one is gone."""
    random = np.random.default_rng(3)
    text = STORE.types["std_msgs/msg/String"](LIFT)
    messages: list[tuple[str, int, Any]] = [("/action", START_NS - 1, text)]
    for number in range(5):
        stamp_ns = START_NS + number * 10**8
        picture = image(stamp_ns)
        picture.data[:] = random.integers(0, 256, picture.data.shape, dtype=np.uint8)
        size = (10, 10) if number % 2 else (0, 0)
        found = detection(LIFT, (8, 12), (16, 24), "left"), detection(PRESS, (20, 12), size)
        messages += [
            (IMAGES, stamp_ns, picture),
            ("/labels", stamp_ns + 1, labels(stamp_ns, *found)),
        ]
    return write_bag(tmp_path_factory.mktemp("bags") / "drive", messages)


def test_a_labelled_bag_gives_a_table_and_a_report(
    drive: Path, untrained: list[str], tmp_path: Path
) -> None:
    result = invoke(drive, "--out", tmp_path, "--ablate", *untrained)
    assert result.exit_code == 0, result.output
    run = read_results(tmp_path / "results.json")
    lifted, pressed = ((0, 0, 15, 23),), ((15, 7, 24, 16),)
    assert [record.boxes for record in run.records] == [
        boxes for number in range(5) for boxes in (lifted, pressed if number % 2 else ())
    ]
    assert run.main == "static+dynamic/fused"
    assert {"centre", "uniform/action", "dynamic/verb"} <= set(run.records[0].outcomes)
    assert run.settings["frame interval"] == "0.25 s"
    assert any("untrained" in note for note in run.notes)
    assert "static+dynamic/fused" in result.stdout
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "data:image/jpeg" in page
    assert str(tmp_path / "report.html") in result.stdout


def test_a_cached_result_is_taken_where_windows_are_the_same(
    drive: Path, untrained: list[str], tmp_path: Path
) -> None:
    options = ("--cache", tmp_path / "cache", "--out", tmp_path / "out", *untrained)
    taken = []
    for more in ((), (), ("--frame-interval-s", 0.5)):
        assert invoke(drive, *options, *more).exit_code == 0
        run = read_results(tmp_path / "out" / "results.json")
        assert run.timing is not None
        taken.append(run.timing["samples_from_cache"])
    assert taken == [0, 10, 0]


def test_sidecars_and_other_systems_stand_beside(
    drive: Path, untrained: list[str], tmp_path: Path
) -> None:
    (tmp_path / "boxes.csv").write_text(
        "time,x1,y1,x2,y2,action\n0,0,0,5,5,wipe it\n0.2,20,0,25,5,wipe it\n"
    )
    sidecar = tmp_path / "labels.json"
    table = ("--csv", tmp_path / "boxes.csv", "--out", sidecar)
    made = CliRunner().invoke(main, ["label", str(drive), *map(str, table)])
    assert made.exit_code == 0, made.output
    other = tmp_path / "other.csv"
    other.write_text(f"video,time,x,y\ndrive,{START_NS // 10**9}.2,22,3\n")
    options = ("--labels", sidecar, "--predictions", f"CoMMA={other}", "--out", tmp_path / "out")
    result = invoke(drive, *options, *untrained)
    assert result.exit_code == 0, result.output
    run = read_results(tmp_path / "out" / "results.json")
    assert [record.label for record in run.records] == ["wipe it", "wipe it"]
    assert [record.outcomes.get("CoMMA") is not None for record in run.records] == [False, True]
    assert run.records[1].outcomes["CoMMA"].hit
    assert "CoMMA: predictions for 1 of 2 samples" in run.notes


def test_what_replay_found_is_judged(drive: Path, untrained: list[str], tmp_path: Path) -> None:
    replayed = tmp_path / "replayed"
    arguments = ["replay", str(drive), "--out", str(replayed), *untrained]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    result = invoke(drive, "--groundings", replayed, "--out", tmp_path / "out")
    assert result.exit_code == 3, result.output
    assert "0 without frames, 5 that cannot be used" in result.stderr
    run = read_results(tmp_path / "out" / "results.json")
    assert run.main == "recorded/fused"
    assert {record.label for record in run.records} == {LIFT}
    assert len(run.records) == 5
    assert run.skipped == {"labelled action that was not asked for": 5}
    assert run.timing == {"images": 5, "dropped_frames": 0}
    assert "data:image/jpeg" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_what_a_node_found_is_judged_with_its_latency(tmp_path: Path) -> None:
    found = [detection(LIFT, (6, 6), (4, 4)), detection(PRESS, (2, 2), (2, 2))]
    messages = [*film(6, dict.fromkeys(range(0, 6, 2), found)), *live_messages()]
    path = write_bag(tmp_path / "live", messages, store=store_of_all())
    result = invoke(path, "--recorded")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["latency,", "ms", "70", "70", "70", "70"] in lines
    (images,) = [line for line in lines if line[:2] == ["dropped", "frames"]]
    assert images[-1] == "2"
    assert "live, openclip:ViT-B-16" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{tmp}/none"], 1, "none: no such file or folder"),
        (["{drive}", "{drive}"], 1, "bags: expected one or more, each once"),
        (["{tmp}/bare"], 1, "no topic of vision_msgs/msg/Detection2DArray in it and no bare"),
        (["{drive}", "--labels", "{tmp}/none"], 1, "none: No such file or directory"),
        (["{drive}", "{tmp}/bare", "--labels", "a"], 1, "--labels: expected one for each of 2"),
        (["{drive}", "--label-topic", "/x"], 1, "no labels on /x"),
        (["{drive}", "--recorded"], 1, "no messages of videogem_ros/msg/ActionGrounding in it"),
        (["{drive}", "--groundings", "{tmp}/none"], 1, "neither a bag nor a folder with"),
        (["{drive}", "--groundings", "a", "--groundings", "b"], 1, "a: neither a bag nor"),
        (["{drive}", "--backbone", "none"], 1, "backbone: expected one of"),
        (["{drive}", "--recorded", "--ablate"], 2, "leave --ablate out"),
        (["{drive}", "--groundings", "a", "--backbone", "b"], 2, "leave --backbone out"),
        (["{drive}", "--recorded", "--batch", "1"], 2, "leave --batch out"),
        (["{drive}", "--predictions", "CoMMA"], 2, "'CoMMA' is not NAME=FILE"),
        ([], 2, "Missing argument"),
    ],
)
def test_an_error_is_one_line(
    drive: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    write_bag(tmp_path / "bare", film(1, {}))
    named = [argument.format(drive=drive, tmp=tmp_path) for argument in arguments]
    result = invoke(*named, "--out", tmp_path / "out")
    assert result.exit_code == code, result.output
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ")
    assert message in line
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_predictions_for_other_bags_are_told_before_any_work(
    drive: Path, untrained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videogem_ros.cli.evaluate_bag.load_grounder", None)
    (tmp_path / "other.csv").write_text("video,time,x,y\nhall,3,22,3\n")
    result = invoke(drive, "--predictions", f"CoMMA={tmp_path / 'other.csv'}", *untrained)
    assert result.exit_code == 1, result.output
    assert "other.csv: expected video and time of samples, such as drive at" in result.stderr

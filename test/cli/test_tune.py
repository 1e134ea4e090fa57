"""``videogem-ros tune`` on a labelled recording, with a small seeded backbone."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from labelled_bags import IMAGES, START_NS, detection, image, labels, write_bag

from videogem_ros.cli import main
from videogem_ros.cli.signals import Terminated
from videogem_ros.core import GroundingConfig
from videogem_ros.core.backbones import Backbone
from videogem_ros.evaluation.bags import BagDataset, read_labelled_bag
from videogem_ros.evaluation.examples import ExampleEncoder, Examples
from videogem_ros.evaluation.tuning import TuningConfig, tune
from videogem_ros.live.parameters import Parameters, load_parameter_file

SEARCH = ("--depth", 5, "--settings", 4, "--folds", 2, "--stretch-s", 0.2)
EXAMPLES = 12


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, a tenth of a second apart; a box moves, and in the last image nothing happens."""
    random = np.random.default_rng(3)
    messages: list[tuple[str, int, Any]] = []
    for number in range(EXAMPLES + 1):
        stamp_ns = START_NS + number * 10**8
        picture = image(stamp_ns)
        picture.data[:] = random.integers(0, 256, picture.data.shape, dtype=np.uint8)
        size = (12, 12) if number < EXAMPLES else (0, 0)
        found = detection("lift the cup", (6 + 1.5 * number, 8 + number % 3), size)
        messages += [
            (IMAGES, stamp_ns, picture),
            ("/labels", stamp_ns + 1, labels(stamp_ns, found)),
        ]
    return write_bag(tmp_path_factory.mktemp("bags") / "drive", messages)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["tune", *map(str, arguments)])


def test_what_is_found_is_written_and_told(
    drive: Path, untrained: list[str], tmp_path: Path, tiny_image_backbone: Backbone
) -> None:
    out = tmp_path / "tuned.yaml"
    result = invoke("bag", drive, "--out", out, *SEARCH, "--unproven", *untrained)
    assert result.exit_code == 0, result.output

    encoder = ExampleEncoder(
        BagDataset([read_labelled_bag(drive)]),
        tiny_image_backbone,
        GroundingConfig(),
        (5, 7),
        stretch_s=0.2,
    )
    examples = Examples(encoder, EXAMPLES)
    expected = tune(examples, GroundingConfig(), TuningConfig(settings=4, folds=2))
    values = load_parameter_file(out)
    assert Parameters.from_mapping(values).grounding_config() == expected.found
    assert values["backbone"] == untrained[1]
    assert values["weights"] == "random:0"

    text = " ".join(result.stdout.split())
    assert f"fusion points {expected.found.fusion}" in text
    percent = f"{100 * expected.tuned_accuracy.value:.1f} ("
    assert percent in text
    assert "12 samples of " in text
    assert f"Written to {out}." in text
    assert "left out 1: no box, so nothing to hit" in result.stderr
    assert "untrained weights: the points mean nothing" in result.stderr
    comments = [line for line in out.read_text().splitlines() if line.startswith("#")]
    assert " ".join(comment[2:] for comment in comments) in text


def test_the_file_is_one_for_the_offline_commands(
    drive: Path, untrained: list[str], tmp_path: Path
) -> None:
    out, picture = tmp_path / "tuned.yaml", tmp_path / "image.png"
    result = invoke("bag", drive, "--out", out, *SEARCH, "--hold-out", "--unproven", *untrained)
    assert result.exit_code == 0, result.output
    cv2.imwrite(str(picture), np.full((64, 64, 3), 99, np.uint8))
    given = ("--action", "lift the cup", "--out", picture.with_name("out.png"))
    arguments = map(str, ("ground", picture, "--config", out, *given))
    assert CliRunner().invoke(main, [*arguments]).exit_code == 0


def test_where_nothing_better_was_found_the_setting_before_stays(
    drive: Path, untrained: list[str], tmp_path: Path
) -> None:
    """Every video of one frame, and four settings: luck at most."""
    before = {
        "self_self_depth": 5,
        "static_weights": [1.0, 0.5, 0.0, 0.0, 0.0, 1.2],
        "fusion": "heatmaps",
        "presence": {"threshold": 0.1},
    }
    config, out = tmp_path / "before.yaml", tmp_path / "tuned.yaml"
    config.write_text(yaml.safe_dump({"/**": {"ros__parameters": before}}))
    options = ("--config", config, "--depth", 5, "--settings", 1, "--folds", 2, "--stretch-s", 0.1)
    result = invoke("bag", drive, "--out", out, *options, *untrained)
    assert result.exit_code == 0, result.output
    assert "Nothing better was found" in result.stdout
    assert "Intervals from 12 videos are rough" in " ".join(result.stdout.split())
    found = Parameters.from_mapping(load_parameter_file(out)).grounding_config()
    assert found == Parameters.from_mapping(load_parameter_file(config)).grounding_config()


def test_where_every_draw_is_the_same_there_is_no_interval(
    untrained: list[str], tmp_path: Path
) -> None:
    """The box is the image with the outer halves of its pixels, so every point is right."""
    messages: list[tuple[str, int, Any]] = []
    for number in range(4):
        stamp_ns = START_NS + number * 10**8
        whole = detection("lift the cup", (16, 12), (33, 25))
        messages += [
            (IMAGES, stamp_ns, image(stamp_ns, 50 * number)),
            ("/labels", stamp_ns + 1, labels(stamp_ns, whole)),
        ]
    bag, out = write_bag(tmp_path / "bag", messages), tmp_path / "tuned.yaml"
    result = invoke("bag", bag, "--out", out, *SEARCH, *untrained)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "all 2 4 100.0 100.0 +0.0" in text
    assert "100.0 % tuned and 100.0 % before, a difference of +0.0 points" in text
    assert " to " not in text.split("held out")[1].split("Searched")[0]


@pytest.mark.parametrize(
    ("interruption", "code"),
    [(KeyboardInterrupt, 128 + signal.SIGINT), (Terminated, 128 + signal.SIGTERM)],
)
def test_an_interruption_leaves_no_file_and_says_what_is_kept(
    interruption: type[KeyboardInterrupt],
    code: int,
    drive: Path,
    untrained: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        raise interruption

    monkeypatch.setattr(Examples, "judge", interrupt)
    out, cache = tmp_path / "tuned.yaml", tmp_path / "cache"
    result = invoke("bag", drive, "--out", out, "--cache", cache, *SEARCH, *untrained)
    assert result.exit_code == code
    assert f"{out} was not written; what was encoded is kept in {cache}" in result.stderr
    assert not out.exists()
    assert len([*cache.rglob("*.safetensors")]) == 2 * EXAMPLES  # two K


def test_an_incomplete_set_is_told_by_the_exit_code(
    drive: Path, untrained: list[str], tmp_path: Path
) -> None:
    """One more label, of a time without an image."""
    table, sidecar = tmp_path / "labels.csv", tmp_path / "labels.json"
    rows = [f"{number / 10},0,0,9,9,lift the cup" for number in range(EXAMPLES)]
    table.write_text("\n".join(["time,x1,y1,x2,y2,action", *rows]))
    labelled = ["label", str(drive), "--csv", str(table), "--out", str(sidecar)]
    assert CliRunner().invoke(main, labelled).exit_code == 0
    content = sidecar.read_text().replace(str(START_NS), str(START_NS - 1))
    sidecar.write_text(content)
    out = tmp_path / "tuned.yaml"
    result = invoke("bag", drive, "--labels", sidecar, "--out", out, *SEARCH, *untrained)
    assert result.exit_code == 3, result.output
    assert "left out 1: no frames of drive" in result.stderr
    assert out.exists()


def test_a_file_that_cannot_be_written_is_told_before_any_work(
    drive: Path, untrained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is too long once something stands before it, as where the file is written."""
    monkeypatch.setattr("videogem_ros.cli.tune.open_set", None)
    out = tmp_path / ("a" * 250)
    result = invoke("bag", drive, "--out", out, *SEARCH, *untrained)
    assert result.exit_code == 1, result.output
    assert f"cannot write {out}: File name too long" in result.stderr


def test_trying_to_write_changes_no_file(
    drive: Path, untrained: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "tuned.yaml"
    out.write_text("before")
    assert invoke("bag", drive, "--out", out, "--depth", 9, *untrained).exit_code == 1
    assert out.read_text() == "before"
    assert [*tmp_path.iterdir()] == [out]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bag", "{drive}", "--out", "{tmp}"], "--out: expected a file in an existing folder"),
        (
            ["bag", "{drive}", "--out", "{tmp}/no/c.yaml"],
            "--out: expected a file in an existing folder",
        ),
        (["bag", "{tmp}/none", "--out", "{tmp}/c.yaml"], "no such file or folder"),
        (
            ["bag", "{drive}", "--out", "{tmp}/c.yaml"],
            "folds: expected at most the number of videos, 1",
        ),
        (["bag", "{drive}", "--out", "{tmp}/c.yaml", "--depth", "9"], "the backbone's 8 blocks"),
        (["daly", "--root", "{tmp}/none", "--out", "{tmp}/c.yaml"], "none"),
    ],
)
def test_an_error_is_one_line_and_writes_nothing(
    drive: Path, untrained: list[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    named = [argument.format(drive=drive, tmp=tmp_path) for argument in arguments]
    result = invoke(*named, *untrained)
    assert result.exit_code == 1, result.output
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: ")
    assert message in error
    assert not list(tmp_path.iterdir())

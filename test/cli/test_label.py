"""``videogem-ros label``."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from labelled_bags import HW, IMAGES, START_NS, film, image, write_bag

from videogem_ros.cli import main
from videogem_ros.evaluation.bags import BagDataset, read_labelled_bag

HEADER = "time,x1,y1,x2,y2,action,label\n"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["label", *map(str, arguments)])


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return write_bag(tmp_path / "drive", film(10, {}))


def test_a_table_becomes_labels_that_the_bag_is_evaluated_with(bag: Path, tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    table.write_text(f"{HEADER}0.1,1,2,3,4,lift the cup,lift\n0.3,,,,,lift the cup,lift\n")
    result = invoke(bag, "--csv", table)
    assert result.exit_code == 0, result.output
    sidecar = tmp_path / "drive.labels.json"
    said = "2 labels in 2 of 10 images; 1 of them mark the action as absent"
    assert result.stdout == f"{sidecar}: {said}\n"
    samples = BagDataset([read_labelled_bag(bag)]).samples
    assert [(sample.time_ns, sample.label, sample.boxes) for sample in samples] == [
        (START_NS + 10**8, "lift", ((1, 2, 3, 4),)),
        (START_NS + 3 * 10**8, "lift", ()),
    ]
    assert {sample.boxes_hw for sample in samples} == {HW}


def test_times_may_be_stamps_and_the_file_another(bag: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "boxes.csv", tmp_path / "own.json"
    table.write_text(f"{HEADER}1700000000.23,1,2,3,4,lift the cup,lift\n")
    options = ("--csv", table, "--out", out, "--times", "stamp", "--image-topic", IMAGES)
    assert invoke(bag, *options, "--tolerance-s", 0.02).exit_code == 1
    assert not out.exists()
    assert invoke(bag, *options, "--tolerance-s", 0.04).exit_code == 0
    (sample,) = BagDataset([read_labelled_bag(bag, out)]).samples
    assert sample.time_ns == START_NS + 2 * 10**8


@pytest.mark.parametrize(
    ("bag_name", "table_name", "message"),
    [
        (
            "drive",
            "bad.csv",
            "bad.csv line 3, x2: expected a position within the image of 32 x 24",
        ),
        ("drive", "none.csv", "none.csv: No such file"),
        ("none", "bad.csv", "none: no such file or folder"),
        ("bad.csv", "bad.csv", "bad.csv"),
        ("two", "bad.csv", "several cameras in it; name one with --image-topic"),
    ],
)
def test_bad_input_is_one_line_and_what_was_there_stays(
    bag: Path, tmp_path: Path, bag_name: str, table_name: str, message: str
) -> None:
    write_bag(tmp_path / "two", [("/a", 1, image(1)), ("/b", 2, image(2))])
    (tmp_path / "bad.csv").write_text(f"{HEADER}0,1,2,3,4,lift,lift\n0,1,2,99,4,lift,lift\n")
    out = tmp_path / "labels.json"
    out.write_text("before")
    result = invoke(tmp_path / bag_name, "--csv", tmp_path / table_name, "--out", out)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert line.startswith("Error: ")
    assert message in line
    assert out.read_text() == "before"
    assert not list(tmp_path.glob(".partial*"))


def test_a_table_is_not_written_over(bag: Path, tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    table.write_text(HEADER + "0,1,2,3,4,lift,lift\n")
    result = invoke(bag, "--csv", table, "--out", table)
    assert result.exit_code == 1
    assert "--out: expected a file other than the input" in result.stderr
    assert table.read_text().startswith(HEADER)

"""Labels from tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from videogem_ros.adapters.bag.vision import Label
from videogem_ros.errors import VideoGemError
from videogem_ros.evaluation.labels import (
    ImageLabel,
    Sidecar,
    labels_from_csv,
    read_sidecar,
    write_sidecar,
)

HEADER = "time,x1,y1,x2,y2,action"
START_NS = 1_700_000_000_123_456_789
IMAGES = {START_NS + 10**8 * number: (24, 32) for number in (3, *range(10))}


def read(tmp_path: Path, text: str, **options: float) -> list[ImageLabel]:
    path = tmp_path / "boxes.csv"
    path.write_bytes(text.encode("utf-8"))
    return labels_from_csv(path, IMAGES, **options)


def test_a_line_is_a_box_in_the_nearest_image(tmp_path: Path) -> None:
    text = (
        f"\ufeff{HEADER},label\r\n"
        "0,1,2,3,4,lift the cup,lift\r\n"
        "\r\n"
        '0.34, 0,0 ,31,23.5,"push it, slowly",\r\n'
        "0.86,,,,,lift the cup,lift\r\n"
        "0.86,5,5,5,5,lift the cup,lift\r\n"
    )
    found = read(tmp_path, text)
    assert found == [
        ImageLabel(START_NS, Label("lift the cup", (1, 2, 3, 4)), "lift"),
        ImageLabel(
            START_NS + 3 * 10**8, Label("push it, slowly", (0, 0, 31, 23.5)), "push it, slowly"
        ),
        ImageLabel(START_NS + 9 * 10**8, Label("lift the cup"), "lift"),
        ImageLabel(START_NS + 9 * 10**8, Label("lift the cup", (5, 5, 5, 5)), "lift"),
    ]


def test_stamps_are_exact_to_the_nanosecond(tmp_path: Path) -> None:
    text = f"action,y2,x2,y1,x1,TIME\nlift it,4,3,2,1,{START_NS / 1e9:.0f}.223456789\n"
    (found,) = read(tmp_path, text, from_start=False, tolerance_s=0)
    assert found == ImageLabel(START_NS + 10**8, Label("lift it", (1, 2, 3, 4)), "lift it")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (",1,2,3,4,lift it", "line 3, time: expected a number, got nothing"),
        ("soon,1,2,3,4,lift it", "line 3, time: expected a number, got soon"),
        ("-1,1,2,3,4,lift it", "line 3, time: expected seconds, zero or more, got -1"),
        ("1e-99999999999999999999,1,2,3,4,lift it", "line 3, time: expected seconds"),
        ("1e300,1,2,3,4,lift it", "line 3, time: expected seconds"),
        (
            "0.96,1,2,3,4,lift it",
            "line 3, time: expected an image within 0.05 s of it (they are from 0.000 to 0.900 s),"
            " got 0.96, 0.060 s from the nearest",
        ),
        ("1700000000.2,1,2,3,4,lift it", "line 3, time: expected an image within 0.05 s"),
        ("0,,2,3,4,lift it", "line 3, x1: expected a number, got nothing"),
        ("0,1,2,3,nan,lift it", "line 3, y2: expected a number, got nan"),
        (
            "0,-1,2,3,4,lift it",
            "line 3, x1: expected a position within the image of 32 x 24 pixels",
        ),
        (
            "0,1,2,32,4,lift it",
            "line 3, x2: expected a position within the image of 32 x 24 pixels",
        ),
        (
            "0,1,2,3,24,lift it",
            "line 3, y2: expected a position within the image of 32 x 24 pixels",
        ),
        ("0,4,2,3,4,lift it", "line 3, x2: expected x1 or more, got 3"),
        ("0,1,5,3,4,lift it", "line 3, y2: expected y1 or more, got 4"),
        ("0,1,2,3,4,", "line 3, action: expected text, got nothing"),
        ("0,1,2,3,4,!?", "line 3, action: expected a text with words, got !?"),
        ("0,1,2,3,4", "line 3: expected 6 fields, got 5"),
        ('0,1,2,3,4,"lift', "not a CSV file in UTF-8"),
    ],
)
def test_a_bad_line_is_named_with_its_field(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(VideoGemError) as caught:
        read(tmp_path, f"{HEADER}\n0.1,1,2,3,4,lift it\n{line}\n")
    assert str(caught.value).startswith(("boxes.csv ", str(tmp_path)))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "boxes.csv, header: expected time, x1, y1, x2, y2, action, [label], got nothing"),
        ("time;x1\n", "boxes.csv, header: expected time, x1"),
        (f"{HEADER},colour\n", "boxes.csv, header: expected time, x1"),
        (f"{HEADER},time\n", "boxes.csv, header: expected time, x1"),
        (f"{HEADER}\n", "boxes.csv: expected lines below the header, got none"),
    ],
)
def test_what_is_no_table_of_labels_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(VideoGemError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(VideoGemError, match=r"none.csv: No such file"):
        labels_from_csv(tmp_path / "none.csv", IMAGES)
    (tmp_path / "latin.csv").write_bytes(f"{HEADER}\n0,1,2,3,4,caf\xe9\n".encode("latin-1"))
    with pytest.raises(VideoGemError, match=r"latin.csv: not a CSV file in UTF-8"):
        labels_from_csv(tmp_path / "latin.csv", IMAGES)


def test_what_a_sidecar_is_given_it_gives_back(tmp_path: Path) -> None:
    labels = (
        ImageLabel(
            START_NS, Label("öffne die Tür", (1, 2.25, 3, 4), ("twins", "motion")), "öffne"
        ),
        ImageLabel(START_NS, Label("lift it"), "lift it"),
    )
    path = tmp_path / "a.labels.json"
    for topic in ("/camera/image_raw", None):
        write_sidecar(path, Sidecar(labels, topic))
        assert read_sidecar(path) == Sidecar(labels, topic)
    assert [file.name for file in tmp_path.iterdir()] == ["a.labels.json"]


def test_a_sidecar_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(VideoGemError, match=r"cannot write .*a.json: Is a directory"):
        write_sidecar(tmp_path / "a.json", Sidecar(()))
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(VideoGemError, match="cannot write"):
        write_sidecar(tmp_path / "none" / "a.json", Sidecar(()))

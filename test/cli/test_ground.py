"""``videogem-ros ground``, run for real on a small seeded backbone."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from videogem_ros.cli import main
from videogem_ros.core import Grounder, hardware
from videogem_ros.core.backbones import Backbone
from videogem_ros.datatypes import Frame, Window
from videogem_ros.language import parse_actions

POUR = ("--action", "pour the milk")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for seed, path in enumerate(paths):
        small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(path), cv2.resize(small, (160, 120), interpolation=cv2.INTER_CUBIC))
    return paths


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["ground", *map(str, arguments)])


def test_the_table_tells_where_the_action_is_in_the_newest_image(
    images: list[Path], untrained: list[str], tmp_path: Path, tiny_image_backbone: Backbone
) -> None:
    result = invoke(*images, *untrained, *POUR, "--out", tmp_path / "overlay.png")
    assert result.exit_code == 0, result.output
    newest = Frame(np.ascontiguousarray(cv2.imread(str(images[-1]))[..., ::-1]), 0)
    (expected,) = Grounder(tiny_image_backbone).ground(
        Window((newest,)), parse_actions("pour the milk")
    )
    title, row = result.stdout.splitlines()
    assert " ".join(title.split()) == "action verb object x, y in px score present prompts"
    shares = (f"{share:.2f}" for share in expected.prompt_probabilities)
    numbers = f"{expected.point.x:.1f}, {expected.point.y:.1f} {expected.score:.2f}"
    there = "yes" if expected.present else "no"
    words = ("pour the milk", "pour", "milk", numbers, there, *shares)
    assert " ".join(row.split()) == " ".join(words)
    assert "untrained weights: the points mean nothing" in result.stderr


def test_the_overlay_is_the_newest_image_with_marks(
    images: list[Path], untrained: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "overlay.png"
    options = ("--threshold", 0, "--out", out)
    assert invoke(*images, *untrained, *POUR, *options).exit_code == 0
    overlay, *plain = (cv2.imread(str(path)).astype(int) for path in (out, *images))
    assert overlay.shape == plain[0].shape
    distances = [np.median(np.abs(overlay - image)) for image in plain]
    assert distances[-1] == min(distances)
    assert np.abs(overlay - plain[-1]).mean() > 0
    assert not list(tmp_path.glob(".partial*"))


def test_a_folder_and_a_single_image_do_as_well(
    images: list[Path], untrained: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out.jpg"
    alone = invoke(images[-1], *untrained, *POUR, "--out", out)
    out.rename(tmp_path.parent / "first.jpg")
    folder = invoke(tmp_path, *untrained, *POUR, "--out", out)
    assert alone.exit_code == folder.exit_code == 0
    assert alone.stdout == folder.stdout


def test_a_video_gives_its_last_window(shared: Path, untrained: list[str], tmp_path: Path) -> None:
    video = shared / "video" / "example.mp4"
    result = invoke(video, *untrained, *POUR, "--threshold=0", "--out", tmp_path / "overlay.png")
    assert result.exit_code == 0, result.output
    capture = cv2.VideoCapture(str(video))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1].astype(int))
    overlay = cv2.imread(str(tmp_path / "overlay.png")).astype(int)
    distances = [np.abs(overlay - frame).mean() for frame in frames]
    assert int(np.argmin(distances)) == len(frames) - 1


def test_every_action_has_a_row(images: list[Path], untrained: list[str], tmp_path: Path) -> None:
    actions = (*POUR, "--action", "pick up the cup and place it on the plate")
    result = invoke(images[0], *untrained, *actions, "--out", tmp_path / "o.png")
    rows = result.stdout.splitlines()[1:]
    assert [row.split("  ")[0] for row in rows] == [
        "pour the milk",
        "pick up the cup",
        "place the cup on the plate",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/none.png"], "none.png: No such file or directory"),
        (["{tmp}/none.mp4"], "no such file or folder"),
        (["{tmp}/bad.png"], "bad.png: expected a complete JPEG, PNG"),
        (["{tmp}/0.png", "{tmp}/small.png"], "small.png: expected (H, W) "),
        (["{tmp}/0.png", "--out", "{tmp}/o.gif"], "--out: expected a name that ends in .png"),
        (["{tmp}/0.png", "--out", "{tmp}/no/o.png"], "cannot write"),
        (["{tmp}/0.png", "--action", "?!"], "action: expected a text with words"),
        (["{tmp}/0.png", "--out", "{tmp}/0.png"], "--out: expected a file other than the input"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(
    images: list[Path], untrained: list[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "bad.png").write_bytes(b"bad")
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((30, 40, 3), np.uint8))
    before = sorted(tmp_path.rglob("*"))
    named = [argument.format(tmp=tmp_path) for argument in arguments]
    result = invoke(*untrained, *POUR, "--out", tmp_path / "o.png", *named)
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert line.startswith("Error: ")
    assert message in line
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_action_is_refused_and_no_image_is_blamed(
    images: list[Path], untrained: list[str], tmp_path: Path
) -> None:
    result = invoke(images[0], *untrained, "--action", "", "--out", tmp_path / "o.png")
    assert result.exit_code == 1
    expected = "Error: --action: expected a text with words, got nothing but spaces\n"
    assert result.stderr == expected


@pytest.mark.parametrize("multiplied", [True, False])
def test_a_dtype_that_the_processor_imitates_is_warned_of(
    images: list[Path],
    untrained: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    multiplied: bool,
) -> None:
    monkeypatch.setattr(hardware, "multiplies", lambda device, dtype: multiplied)
    out = ("--out", tmp_path / "overlay.png")
    result = invoke(*images, *untrained, *POUR, *out, "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    assert ("warning: this cpu does not multiply bfloat16" in result.stderr) is not multiplied

"""``videogem-ros tabletop``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from rosbags.highlevel import AnyReader

from videogem_ros.cli import main
from videogem_ros.tabletop import benchmark_clip


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["tabletop", *map(str, arguments)])


def first(bag: Path, topic: str) -> Any:
    with AnyReader([bag]) as reader:
        connections = [c for c in reader.connections if c.topic == topic]
        connection, _, raw = next(reader.messages(connections))
        return reader.deserialize(raw, connection.msgtype)


def count(bag: Path, topic: str) -> int:
    with AnyReader([bag]) as reader:
        return reader.topics[topic].msgcount


def test_the_seed_decides_and_more_clips_begin_with_the_same(tmp_path: Path) -> None:
    size = ("--frames", 8, "--hw", 48, 64)
    for name, options in {"one": (1,), "two": (2,), "other": (1, "--seed", 1)}.items():
        result = invoke("--out", tmp_path / name, *size, "--clips", *options)
        assert result.exit_code == 0, result.output
        assert result.stdout.strip() == str(tmp_path / name)
    one, two, other = (
        first(tmp_path / name, "/camera/image_raw") for name in ("one", "two", "other")
    )
    assert (one.height, one.width) == (48, 64)
    np.testing.assert_array_equal(one.data, two.data)
    assert (one.data != other.data).any()
    assert [count(tmp_path / name, "/labels") for name in ("one", "two")] == [8, 16]


def test_the_benchmark_as_a_recording(tmp_path: Path) -> None:
    assert invoke("--out", tmp_path / "bag", "--benchmark", "--clips", 1).exit_code == 0
    clip = benchmark_clip(0)
    assert count(tmp_path / "bag", "/camera/image_raw") == len(clip.images)
    found = first(tmp_path / "bag", "/camera/image_raw").data
    np.testing.assert_array_equal(found, clip.images[0].reshape(-1))
    assert first(tmp_path / "bag", "/action").data == clip.performed[0].texts[0]


def test_in_clips_without_action_one_is_asked_for_all_the_same(tmp_path: Path) -> None:
    options = ("--clips", 1, "--frames", 8, "--hw", 48, 64, "--empty", 1)
    assert invoke("--out", tmp_path / "bag", *options).exit_code == 0
    assert first(tmp_path / "bag", "/action").data
    labels = first(tmp_path / "bag", "/labels").detections
    assert {detection.id for detection in labels} == {"empty"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--benchmark", "--seed", 3), 2, "leave --seed out"),
        (("--benchmark", "--hw", 48, 64), 2, "leave --hw out"),
        (("--benchmark", "--clips", 501), 1, "clips: expected from 1 to 500, got 501"),
        (("--clips", 0), 2, "clips"),
        (("--frames", 99), 2, "frames"),
        (("--hw", 48, 480), 1, "hw: expected a height of 0.56 of the width or more"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    tmp_path: Path, arguments: tuple[object, ...], code: int, message: str
) -> None:
    result = invoke("--out", tmp_path / "new" / "bag", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert not (tmp_path / "new").exists()


def test_an_existing_path_is_left_alone(tmp_path: Path) -> None:
    result = invoke("--out", tmp_path)
    assert result.exit_code == 1
    assert "exists already" in result.stderr

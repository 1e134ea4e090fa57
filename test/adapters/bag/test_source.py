from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from videogem_ros.adapters.bag import Command, Source, open_source
from videogem_ros.datatypes import Frame
from videogem_ros.errors import EncodingError, RecordingError


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("missing", {}, "no such file or folder"),
        ("missing.mcap", {"image_topic": "/a"}, "no such file or folder"),
        ("old.bag", {}, "a ROS 1 bag; convert it to a rosbag2 with rosbags-convert"),
        ("bag_0.db3.zstd", {}, "a compressed part of a rosbag2; give the bag's folder"),
        ("clip.mp4", {"image_topic": "/a"}, "not a rosbag2, so it has no topics"),
        ("clip.mp4", {"action_topic": "/a"}, "not a rosbag2, so it has no topics"),
        ("clip.mp4", {}, "not a bag, and not a video either"),
        ("empty.db3", {}, "cannot be read as a rosbag2"),
        ("empty.mcap", {}, "cannot be read as a rosbag2"),
    ],
)
def test_what_cannot_be_opened_is_one_readable_line(tmp_path, name, options, message):
    path = tmp_path / name
    if not name.startswith("missing"):
        path.write_bytes(b"")
    with pytest.raises(RecordingError, match=message) as caught:
        open_source(str(path), **options)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


FRAME = Frame(np.zeros((1, 1, 3), np.uint8), 0)


class Scripted(Source):
    """A source that plays its script: what to yield, and the errors to leave out."""

    def __init__(self, script):
        super().__init__(Path("script"))
        self.script = script

    def _events(self):
        for item in self.script:
            if isinstance(item, Exception):
                self._skip(item)
            else:
                yield item


def test_what_is_left_out_is_counted_by_field_and_expectation(caplog):
    errors = [EncodingError("image.step", "at least 9", got) for got in (3, 4, 5)]
    source = Scripted([*errors, RecordingError("broken"), FRAME])
    with caplog.at_level(logging.WARNING):
        assert list(source) == [FRAME]
    assert source.skipped == {"image.step: expected at least 9": 3, "broken": 1}
    assert len(caplog.records) == 2
    assert "got 3" in caplog.text


def test_each_iteration_counts_anew():
    source = Scripted([RecordingError("broken"), FRAME])
    assert list(source) == list(source)
    assert source.skipped == {"broken": 1}


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([], r"script: no readable frame in it \(it is empty\)"),
        ([Command("go", 0)], r"no readable frame in it \(it is empty\)"),
        ([RecordingError("a"), RecordingError("a"), RecordingError("b")], r"\(2 x a; 1 x b\)"),
    ],
)
def test_a_recording_without_a_frame_is_an_error_at_its_end(script, message):
    with pytest.raises(RecordingError, match=message):
        list(Scripted(script))

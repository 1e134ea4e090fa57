"""The sample recording that the package draws itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from videogem_ros.adapters.bag.sample import COMMANDS, write_sample
from videogem_ros.errors import RecordingError


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "bag"
    write_sample(path)
    return path


def test_it_has_frames_at_ten_hertz_and_commands_in_between(sample: Path) -> None:
    with AnyReader([sample]) as reader:
        events = [
            (connection.topic, time_ns, reader.deserialize(raw, connection.msgtype))
            for connection, time_ns, raw in reader.messages()
        ]
    frames = [message for topic, _, message in events if topic == "/camera/image_raw"]
    assert {(f.height, f.width, f.encoding) for f in frames} == {(240, 320, "rgb8")}
    stamps = [f.header.stamp.sec * 10**9 + f.header.stamp.nanosec for f in frames]
    assert len(stamps) == 40
    assert set(np.diff(stamps)) == {100_000_000}
    order = [message.data for topic, _, message in events if topic == "/action"]
    assert order == [text for _, text in COMMANDS]
    places = [index for index, (topic, *_) in enumerate(events) if topic == "/action"]
    assert places == [0, 21]  # before the first frame and before the twenty-first


def test_the_red_mug_moves_from_left_to_right(sample: Path) -> None:
    with AnyReader([sample]) as reader:
        topic = [c for c in reader.connections if c.topic == "/camera/image_raw"]
        messages = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(topic)]
    middles = []
    for message in (messages[0], messages[-1]):
        red, green, blue = message.data.reshape(240, 320, 3).astype(int).transpose(2, 0, 1)
        middles.append(np.nonzero((red > 150) & (green < 80) & (blue < 80))[1].mean())
    assert middles[0] < 110
    assert middles[1] > 210


def test_it_is_the_same_every_time(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "bag")
    for name in ("bag.mcap", "metadata.yaml"):
        assert (tmp_path / "bag" / name).read_bytes() == (sample / name).read_bytes()


def test_it_replaces_nothing(sample: Path) -> None:
    with pytest.raises(RecordingError, match="exists already"):
        write_sample(sample)


def test_a_place_that_cannot_be_written_is_one_readable_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="cannot write"):
        write_sample(tmp_path / "file" / "bag")

"""Tabletop clips as a recording, read back by rosbags alone and by the package's own reader."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from videogem_ros.adapters.bag import Command, open_source
from videogem_ros.adapters.bag.tabletop import write_clips
from videogem_ros.errors import RecordingError
from videogem_ros.tabletop import Clip, SceneConfig, make_clip

IMAGE, DEPTH = "/camera/image_raw", "/camera/depth/image_raw"
INFO, ACTION, LABELS = "/camera/camera_info", "/action", "/labels"
HW = (96, 128)


def draw(seed: int, frames: int, **options: Any) -> Clip:
    depth = options.pop("depth", True)
    config = SceneConfig(**{"twins": 0.0, **options})
    return make_clip(np.random.default_rng(seed), frames, HW, config, depth=depth)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    """Two actions, three of which two are twins, and none at all."""
    return [
        draw(0, 8, actions=(2, 2)),
        draw(1, 9, actions=(3, 3), twins=1.0),
        draw(2, 8, empty=1.0),
    ]


@pytest.fixture(scope="module")
def bag(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "tabletop"
    write_clips(path, clips)
    return path


@pytest.fixture(scope="module")
def messages(bag: Path) -> dict[str, list[tuple[int, Any]]]:
    """By topic, with the time at which each was recorded."""
    found = defaultdict(list)
    with AnyReader([bag]) as reader:
        for connection, time_ns, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            found[connection.topic].append((time_ns, message))
    return dict(found)


def stamp_ns(message: Any) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_images_and_depth_are_the_clips(
    clips: list[Clip], messages: dict[str, list[tuple[int, Any]]]
) -> None:
    images, depths = (np.concatenate(of) for of in zip(*((c.images, c.depths) for c in clips)))
    assert len(messages[IMAGE]) == len(messages[DEPTH]) == 25
    for expected, (_, message) in zip(images, messages[IMAGE]):
        assert (message.encoding, message.step) == ("rgb8", 3 * HW[1])
        np.testing.assert_array_equal(message.data.reshape(*HW, 3), expected)
    for expected, (_, message) in zip(depths, messages[DEPTH]):
        assert (message.encoding, message.step) == ("32FC1", 4 * HW[1])
        np.testing.assert_array_equal(message.data.view("<f4").reshape(HW), expected)


def test_all_of_one_moment_has_one_stamp_at_ten_hertz_without_a_pause(
    messages: dict[str, list[tuple[int, Any]]],
) -> None:
    stamps = [stamp_ns(message) for _, message in messages[IMAGE]]
    assert set(np.diff(stamps)) == {10**8}
    for topic in (DEPTH, INFO, LABELS):
        assert [stamp_ns(message) for _, message in messages[topic]] == stamps
        assert [time_ns for time_ns, _ in messages[topic]] == stamps


def test_every_clip_has_a_camera_of_its_own(
    clips: list[Clip], messages: dict[str, list[tuple[int, Any]]]
) -> None:
    frames = [message.header.frame_id for _, message in messages[IMAGE]]
    assert [frames.count(name) for name in dict.fromkeys(frames)] == [8, 9, 8]
    assert [message.header.frame_id for _, message in messages[INFO]] == frames
    for place, clip in ((0, clips[0]), (8, clips[1]), (24, clips[2])):
        info = messages[INFO][place][1]
        np.testing.assert_array_equal(info.k.reshape(3, 3), clip.camera_matrix)
        np.testing.assert_array_equal(info.p.reshape(3, 4)[:, :3], clip.camera_matrix)
        assert (info.height, info.width) == HW
        assert not info.d.any()


def test_each_action_of_a_clip_is_commanded_in_turn(
    clips: list[Clip], messages: dict[str, list[tuple[int, Any]]]
) -> None:
    first, second, empty = clips
    expected = [
        (0, first.performed[0].texts[0]),
        (4, first.performed[1].texts[0]),
        *((8 + 3 * place, second.performed[place].texts[0]) for place in range(3)),
        (17, empty.absent[0]),
    ]
    stamps = np.array([stamp_ns(message) for _, message in messages[IMAGE]])
    found = [
        (int(np.searchsorted(stamps, time_ns)), message.data)
        for time_ns, message in messages[ACTION]
    ]
    assert found == expected


def test_labels_are_the_boxes_of_the_clips(
    clips: list[Clip], messages: dict[str, list[tuple[int, Any]]]
) -> None:
    places = [(clip, place) for clip in clips for place in range(len(clip.images))]
    for (clip, place), (_, message) in zip(places, messages[LABELS], strict=True):
        detections = {d.results[0].hypothesis.class_id: d for d in message.detections}
        assert len(detections) == len(clip.performed) + len(clip.absent)
        for action in clip.performed:
            detection = detections[action.texts[0]]
            groups = {action.decided_by, *(["twins"] if action.twin else [])}
            assert set(detection.id.split(",")) == groups
            # vision_msgs counts from the corner of the first pixel, the clips from its centre.
            centre, box = detection.bbox.center.position, detection.bbox
            low = np.array((centre.x - box.size_x / 2, centre.y - box.size_y / 2))
            high = np.array((centre.x + box.size_x / 2, centre.y + box.size_y / 2))
            found = (*low, *(high - 1))
            assert found == pytest.approx(action.action_boxes[place].tolist(), abs=1e-4)
        for text in clip.absent:
            bbox = detections[text].bbox
            assert (bbox.size_x, bbox.size_y) == (0, 0)
            assert detections[text].id == ("absent" if clip.performed else "empty")


def test_the_package_reads_frames_and_commands_back(bag: Path, clips: list[Clip]) -> None:
    with open_source(bag) as source:
        assert (source.image_topic, source.action_topic) == (IMAGE, ACTION)
        events = list(source)
    assert not source.skipped
    frames = [event for event in events if not isinstance(event, Command)]
    np.testing.assert_array_equal(frames[9].image, clips[1].images[1])
    assert [type(event) is Command for event in events[:6]] == [True, *[False] * 4, True]


def test_clips_without_depth_are_a_recording_too(tmp_path: Path) -> None:
    write_clips(tmp_path / "bag", [draw(3, 8, depth=False)])
    with AnyReader([tmp_path / "bag"]) as reader:
        assert set(reader.topics) == {IMAGE, INFO, ACTION, LABELS}


def test_it_is_the_same_every_time(bag: Path, clips: list[Clip], tmp_path: Path) -> None:
    write_clips(tmp_path / "tabletop", clips)
    for name in ("tabletop.mcap", "metadata.yaml"):
        assert (tmp_path / "tabletop" / name).read_bytes() == (bag / name).read_bytes()


def test_it_replaces_nothing(bag: Path) -> None:
    with pytest.raises(RecordingError, match="exists already"):
        write_clips(bag, [])


def test_what_fails_midway_leaves_nothing(clips: list[Clip], tmp_path: Path) -> None:
    def failing():
        yield clips[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_clips(tmp_path / "bag", failing())
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_readable_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="cannot write"):
        write_clips(tmp_path / "file" / "bag", [])

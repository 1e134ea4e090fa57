"""Labelled bags, written by rosbags alone, as data sets."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from labelled_bags import (
    BOXES,
    HW,
    IMAGES,
    LABELS,
    START_NS,
    STORE,
    detection,
    film,
    image,
    labels,
    write_bag,
)

from videogem_ros.adapters.bag import open_source
from videogem_ros.adapters.bag.vision import Label, typestore
from videogem_ros.datatypes import Frame
from videogem_ros.errors import InvalidValueError, RecordingError, VideoGemError
from videogem_ros.evaluation.bags import BagDataset, read_bag, read_labelled_bag
from videogem_ros.evaluation.cache import sample_digest
from videogem_ros.evaluation.labels import ImageLabel, Sidecar, write_sidecar
from videogem_ros.window import WindowConfig

LIFT, PRESS = "lift the cup", "press the button"
LABELLED = {number: [detection(LIFT, (5, 5), (2, 2))] for number in range(8)}


def dataset(*paths: Path, **windows: Any) -> BagDataset:
    return BagDataset([read_labelled_bag(path) for path in paths], WindowConfig(**windows))


def sidecar(path: Path, *items: tuple[int, str, Any], topic: str | None = None) -> Path:
    entries = [ImageLabel(stamp, Label(text, box), f"c:{text}") for stamp, text, box in items]
    write_sidecar(path, Sidecar(tuple(entries), topic))
    return path


def test_the_types_are_those_of_vision_msgs() -> None:
    # From vision_msgs 4.1.1's own Detection2DArray.json.
    expected = "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968"
    assert typestore().hash_rihs01(LABELS) == STORE.hash_rihs01(LABELS) == expected


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_each_image_and_action_is_a_sample(tmp_path: Path, storage: str) -> None:
    found = {
        0: [detection(LIFT, (10, 8), (4, 6), "motion,twins"), detection(PRESS, (0, 0), (0, 0))],
        2: [
            detection(PRESS, (5, 5), (2, 2)),
            detection(LIFT, (20.5, 9), (1, 2)),
            detection(PRESS, (25, 5), (2, 4), "far"),
        ],
    }
    bag = dataset(write_bag(tmp_path / "drive", film(3, found), storage=storage))
    assert bag.name == "drive"
    assert [
        (sample.key, sample.label, sample.time_ns, sample.boxes, sample.groups)
        for sample in bag.samples
    ] == [
        (f"drive/{START_NS}/0", LIFT, START_NS, ((8, 5, 11, 10),), ("motion", "twins")),
        (f"drive/{START_NS}/1", PRESS, START_NS, (), ()),
        (
            f"drive/{START_NS + 2 * 10**8}/0",
            PRESS,
            START_NS + 2 * 10**8,
            ((4, 4, 5, 5), (24, 3, 25, 6)),
            ("far",),
        ),
        (
            f"drive/{START_NS + 2 * 10**8}/1",
            LIFT,
            START_NS + 2 * 10**8,
            ((20, 8, 20, 9),),
            (),
        ),
    ]
    assert [sample.actions[0].object for sample in bag.samples[:2]] == ["cup", "button"]
    assert {sample.boxes_hw for sample in bag.samples} == {HW}
    assert not bag.missing
    assert not bag.skipped


def test_the_labelled_image_is_the_newest_of_its_window(tmp_path: Path) -> None:
    bag = dataset(write_bag(tmp_path / "drive", film(30, {4: [detection(LIFT, (5, 5), (2, 2))]})))
    (sample,) = bag.samples
    window, place = bag.window(sample, 1)
    assert place == 0
    assert [frame.image[0, 0, 0] for frame in window.frames] == [4]
    assert window.newest.stamp_ns == sample.time_ns
    assert window.newest.frame_id == "camera"


@pytest.mark.parametrize("interval_s", [0.1, 0.25, 0.34])
def test_a_windows_frames_are_those_nearest_to_their_places(
    tmp_path: Path, interval_s: float
) -> None:
    period_ns = 66 * 10**6
    labelled = {number: [detection(LIFT, (5, 5), (2, 2))] for number in range(40)}
    bag = dataset(
        write_bag(tmp_path / "drive", film(40, labelled, period_ns)),
        frame_interval_s=interval_s,
        tolerance_intervals=0.0,
    )
    for number, sample in enumerate(bag.samples):
        window, place = bag.window(sample, 8)
        assert place == 7
        times_s = [max(number * 0.066 - back * interval_s, 0) for back in range(7, -1, -1)]
        expected = [round(time_s / 0.066) for time_s in times_s]
        assert [int(frame.image[0, 0, 0]) for frame in window.frames] == expected


def test_a_window_that_is_not_full_can_be_refused(tmp_path: Path) -> None:
    labelled = {number: [detection(LIFT, (5, 5), (2, 2))] for number in (2, 8)}
    bag = dataset(
        write_bag(tmp_path / "drive", film(9, labelled)), frame_interval_s=0.1, start="wait"
    )
    early, late = bag.samples
    window, _ = bag.window(late, 8)
    assert [int(frame.image[0, 0, 0]) for frame in window.frames] == list(range(1, 9))
    with pytest.raises(RecordingError, match="do not span 8 frames"):
        bag.window(early, 8)


def test_several_bags_are_one_data_set(tmp_path: Path) -> None:
    paths = []
    for number, place in enumerate(("a/drive", "b/drive")):
        messages = film(2, {1: [detection(LIFT, (5 + number, 5), (2, 2))]})
        (tmp_path / place).parent.mkdir()
        paths.append(write_bag(tmp_path / place, messages))
    bags = dataset(*paths)
    assert [sample.video for sample in bags.samples] == list(map(str, paths))
    assert [sample.boxes[0][0] for sample in bags.samples] == [4, 5]
    assert [bags.sources(sample)[0] for sample in bags.samples] == [
        path / "drive.mcap" for path in paths
    ]
    with pytest.raises(InvalidValueError, match="each once"):
        dataset(paths[0], tmp_path / "a" / ".." / "a" / "drive")


def test_samples_of_one_image_share_its_frames(tmp_path: Path) -> None:
    found = [detection(LIFT, (5, 5), (2, 2)), detection(PRESS, (5, 5), (2, 2))]
    bag = dataset(write_bag(tmp_path / "drive", film(20, dict.fromkeys(range(20), found))))
    windows = [bag.window(sample, 1)[0] for sample in bag.samples]
    assert all(first is second for first, second in zip(windows[::2], windows[1::2]))
    assert bag.window(bag.samples[0], 1)[0] is not windows[0]  # not all of them are kept


def test_threads_and_copies_read_the_same_frames(tmp_path: Path) -> None:
    labelled = {number: [detection(LIFT, (5, 5), (2, 2))] for number in range(20)}
    bag = dataset(write_bag(tmp_path / "drive", film(20, labelled), storage="sqlite3"))
    bag.window(bag.samples[0], 1)
    copy = pickle.loads(pickle.dumps(bag))
    for one in (bag, copy):
        with ThreadPoolExecutor(4) as pool:
            windows = list(pool.map(lambda sample: one.window(sample, 1)[0], one.samples))  # noqa: B023
        assert [int(window.newest.image[0, 0, 0]) for window in windows] == list(range(20))


def test_labels_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    good = detection(LIFT, (5, 5), (2, 2))
    messages = film(
        4,
        {
            0: [good, detection("17", (5, 5), (2, 2))],
            1: [detection(LIFT, (32, 5), (2, 2)), detection(PRESS, (5, 5), (2, 0.5))],
            2: [detection(LIFT, (5, 5), (2, 2)), detection(LIFT, (5, 24), (2, 2))],
        },
    )
    lost = labels(START_NS + 7, good, detection(PRESS, (5, 5), (2, 2)))
    bag = dataset(write_bag(tmp_path / "drive", [*messages, (BOXES, START_NS + 10**9, lost)]))
    assert [(sample.label, len(sample.boxes)) for sample in bag.samples] == [(LIFT, 1), (LIFT, 1)]
    assert bag.missing == Counter({"drive": 2})
    assert bag.skipped == Counter(
        {
            "action: expected a text with words": 1,
            "box: expected a position within the image of 32 x 24 pixels": 2,
            "detection.bbox: expected a pixel or more": 1,
        }
    )


def test_a_box_of_any_integers_is_beyond_the_image(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "drive", film(2, {}))
    sidecar(
        tmp_path / "drive.labels.json",
        (START_NS, LIFT, (0, 0, 10**30, 5)),
        (START_NS + 10**8, LIFT, (1, 2, 3, 4)),
    )
    bag = dataset(path)
    assert [sample.boxes for sample in bag.samples] == [((1, 2, 3, 4),)]
    assert bag.skipped == Counter(
        {"box: expected a position within the image of 32 x 24 pixels": 1}
    )


def test_an_image_that_is_late_or_broken_is_missing(tmp_path: Path) -> None:
    late, broken = START_NS + 5 * 10**7, START_NS + 3 * 10**8
    bad = image(broken)
    bad.encoding = "no such"
    messages = film(3, {2: [detection(LIFT, (5, 5), (2, 2))]})
    messages += [
        (IMAGES, START_NS + 3 * 10**8, image(late)),
        (IMAGES, START_NS + 4 * 10**8, bad),
        (BOXES, START_NS + 5 * 10**8, labels(late, detection(LIFT, (5, 5), (2, 2)))),
        (BOXES, START_NS + 5 * 10**8, labels(broken, detection(LIFT, (5, 5), (2, 2)))),
    ]
    bag = dataset(write_bag(tmp_path / "drive", messages))
    assert len(bag.samples) == 1
    assert bag.missing == Counter({"drive": 2})
    assert not bag.skipped


def damage(path: Path, part: bytes, count: int) -> None:
    """Overwrites so many bytes of a bag's file, from the first place of a part on."""
    (file,) = path.glob("*.mcap")
    content = bytearray(file.read_bytes())
    place = content.index(part)
    content[place : place + count] = b"\xff" * count
    file.write_bytes(content)


def large_film() -> list[tuple[str, int, Any]]:
    """Labelled images of 0.8 MB, two to a chunk."""
    messages = film(8, LABELLED)
    for number in range(8):
        stamp_ns = START_NS + number * 10**8
        messages[2 * number] = (IMAGES, stamp_ns, image(stamp_ns, number, (512, 512)))
    return messages


def test_of_a_bag_that_breaks_off_labels_are_lost(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "drive", large_film())
    assert len(dataset(path).samples) == 8
    damage(path, bytes([4]) * 2000, 800_000)
    bag = dataset(path)
    assert 0 < len(bag.samples) < 8
    ((reason, count),) = bag.skipped.items()
    assert reason.startswith("the recording breaks off: ")
    assert (count, bag.missing) == (1, Counter())


def test_of_a_bag_that_breaks_off_a_sidecars_samples_are_missing(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "drive", large_film())
    stamps = [START_NS + number * 10**8 for number in range(8)]
    sidecar(tmp_path / "drive.labels.json", *((stamp, LIFT, (1, 2, 3, 4)) for stamp in stamps))
    damage(path, bytes([4]) * 2000, 800_000)
    bag = dataset(path)
    assert 0 < len(bag.samples) < 8
    assert bag.missing == Counter({"drive": 8 - len(bag.samples)})
    assert not bag.skipped


def test_labels_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    labelled = LABELLED | {3: [detection(PRESS, (5, 5), (2, 2))]}
    path = write_bag(tmp_path / "drive", film(8, labelled))
    damage(path, PRESS.encode(), len(PRESS))  # no text in UTF-8
    bag = dataset(path)
    assert len(bag.samples) == 7
    assert bag.skipped == Counter({f"{LABELS} that cannot be deserialised": 1})
    assert not bag.missing


def test_of_a_bag_that_starts_over_the_first_round_counts(tmp_path: Path) -> None:
    messages = film(12, {11: [detection(LIFT, (5, 5), (2, 2))]})
    again = [(topic, log_ns + 2 * 10**9, message) for topic, log_ns, message in messages]
    for _, _, message in again:
        if hasattr(message, "encoding"):
            message.data[:] += 100
    bag = dataset(write_bag(tmp_path / "drive", film(12, {}) + again))
    (sample,) = bag.samples
    assert bag.window(sample, 1)[0].newest.image[0, 0, 0] == 11


def test_a_sidecar_stands_beside_the_bag_and_goes_first(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "drive", film(3, {0: [detection(LIFT, (5, 5), (2, 2))]}))
    stamp_ns = START_NS + 10**8
    sidecar(tmp_path / "drive.labels.json", (stamp_ns, PRESS, (1, 2, 3, 4)), topic=IMAGES)
    other = sidecar(tmp_path / "other.json", (stamp_ns, LIFT, None))
    (beside,) = dataset(path).samples
    assert (beside.label, beside.boxes) == (f"c:{PRESS}", ((1, 2, 3, 4),))
    assert tmp_path / "drive.labels.json" in dataset(path).sources(beside)
    (named,) = BagDataset([read_labelled_bag(path, other)]).samples
    assert (named.label, named.boxes) == (f"c:{LIFT}", ())
    (inside,) = BagDataset([read_labelled_bag(path, label_topic="labels")]).samples
    assert (inside.label, inside.boxes) == (LIFT, ((4, 4, 5, 5),))


def test_a_sidecar_tells_the_camera(tmp_path: Path) -> None:
    other = ("/other/image", START_NS + 2 * 10**8, image(START_NS + 9, 77))
    messages = [*film(2, {}), other]
    path = write_bag(tmp_path / "drive", messages)
    sidecar(tmp_path / "drive.labels.json", (START_NS + 9, LIFT, None), topic="/other/image")
    bag = dataset(path)
    (sample,) = bag.samples
    assert bag.window(sample, 1)[0].newest.image[0, 0, 0] == 77


def test_the_topic_of_labels_is_found_among_detections(tmp_path: Path) -> None:
    seen = [detection("cup", (5, 5), (2, 2))]
    messages = film(2, {1: [detection(LIFT, (5, 5), (2, 2))]})
    messages.append(("/yolo", START_NS + 10**9, labels(START_NS, *seen)))
    path = write_bag(tmp_path / "drive", messages)
    assert [sample.label for sample in dataset(path).samples] == [LIFT]
    named = BagDataset([read_labelled_bag(path, label_topic="yolo")])
    assert [sample.label for sample in named.samples] == ["cup"]


@pytest.mark.parametrize(
    ("topics", "options", "message"),
    [
        ([], {}, "no topic of vision_msgs/msg/Detection2DArray in it and no drive.labels.json"),
        ([], {"label_topic": "/a"}, "no labels on /a and no"),
        (["/a", "/b"], {}, "several topics of labels; name one with --label-topic: /a, /b"),
        (["/a"], {"label_topic": "/b"}, "no labels on /b; name one with --label-topic: /a"),
        (["/labels"], {"image_topic": "/b"}, "no messages on /b"),
    ],
)
def test_what_is_not_in_a_bag_is_said(
    tmp_path: Path, topics: list[str], options: dict[str, str], message: str
) -> None:
    messages = film(1, {})
    for topic in topics:
        label = labels(START_NS, detection(LIFT, (5, 5), (2, 2)))
        messages.append((topic, START_NS + 10**7, label))
    path = write_bag(tmp_path / "drive", messages)
    with pytest.raises(RecordingError) as caught:
        read_labelled_bag(path, **options)
    assert message in str(caught.value)


def test_what_is_no_bag_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((4, 4, 3), np.uint8))
    for path, message in ((tmp_path, "not a rosbag2"), (tmp_path / "none", "no such file")):
        with pytest.raises(RecordingError, match=message):
            read_bag(path)
    broken = image(START_NS)
    broken.encoding = "no such"
    path = write_bag(tmp_path / "drive", [(IMAGES, 1, broken)])
    with pytest.raises(RecordingError, match="no readable image on /camera/image_raw"):
        read_bag(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not a JSON file"),
        ("[]", "not videogem_ros labels of version 1"),
        ({"version": 2}, "not videogem_ros labels of version 1"),
        ({"labels": None}, "not videogem_ros labels of version 1"),
        ({"image_topic": 3}, "image_topic: expected a name or null, got 3"),
        ({"labels": [3]}, "labels[0].stamp_ns: expected nanoseconds, an integer, got nothing"),
        ({"stamp_ns": 1.5}, "labels[0].stamp_ns: expected nanoseconds, an integer, got 1.5"),
        ({"action": " "}, "labels[0].action: expected words"),
        ({"action": None}, "labels[0].action: expected a string, got None"),
        ({"box": [1, 2, 3]}, "labels[0].box: expected null or [x1, y1, x2, y2], got [1, 2, 3]"),
        ({"box": [1, 2, 3, "4"]}, "labels[0].box: expected null or [x1, y1, x2, y2]"),
        ({"box": [5, 2, 3, 4]}, "labels[0].box: expected x1 <= x2 and y1 <= y2"),
        ({"box": [1, 2, 10**400, 4]}, "labels[0].box: expected x1 <= x2 and y1 <= y2"),
        ({"box": ...}, "labels[0].box: expected null or [x1, y1, x2, y2], got nothing"),
        ({"groups": "a"}, "labels[0].groups: expected a list of names, got 'a'"),
        ({"groups": ["a,b"]}, "labels[0].groups: expected names without commas"),
        ({"label": 3}, "labels[0].label: expected a string, got 3"),
    ],
)
def test_a_bad_sidecar_is_named(tmp_path: Path, content: Any, message: str) -> None:
    path = sidecar(tmp_path / "bad.json", (1, LIFT, (1, 2, 3, 4)))
    if isinstance(content, dict):
        whole = json.loads(path.read_text())
        for key, value in content.items():
            holder = whole if key in whole else whole["labels"][0]
            holder[key] = value
            if value is ...:
                del holder[key]
        content = json.dumps(whole)
    path.write_text(content)
    bag = write_bag(tmp_path / "drive", film(1, {}))
    with pytest.raises(VideoGemError) as caught:
        read_labelled_bag(bag, path)
    assert message in str(caught.value)
    assert "bad.json" in str(caught.value)


@pytest.mark.parametrize("name", ["snow_compressed_sqlite3", "snow_raw_mcap", "snow_rgbd_zstd"])
def test_real_recordings_are_labelled_by_a_sidecar(
    shared: Path, tmp_path: Path, name: str
) -> None:
    path = shared / "bags" / name
    with open_source(path) as source:
        frames = [event for event in source if isinstance(event, Frame)]
    stamps = [frame.stamp_ns for frame in frames]
    text = "play with the dog"
    beside = sidecar(tmp_path / "a.json", *((stamp, text, (9, 9, 99, 99)) for stamp in stamps[1:]))
    bag = BagDataset([read_labelled_bag(path, beside)])
    assert [sample.time_ns for sample in bag.samples] == stamps[1:]
    assert not bag.missing
    for place in (0, len(stamps) // 2, -1):
        sample = bag.samples[place]
        window, last = bag.window(sample, 8)
        assert last == 7
        # 5 Hz: every place of a quarter second has an image nearby.
        places_ns = [sample.time_ns - back * 25 * 10**7 for back in range(7, -1, -1)]
        for frame, place_ns in zip(window.frames, places_ns):
            nearest = min(abs(stamp - place_ns) for stamp in stamps if stamp <= sample.time_ns)
            assert abs(frame.stamp_ns - place_ns) <= nearest + 0.1 * 25 * 10**7
        expected = frames[stamps.index(sample.time_ns)].image
        np.testing.assert_array_equal(window.newest.image, expected)


def test_results_of_another_camera_or_window_are_not_taken_from_a_cache(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "drive", film(8, LABELLED))
    (recording,) = dataset(path).recordings.values()
    datasets = [
        BagDataset([recording]),
        BagDataset([replace(recording, image_topic="/right/image_raw")]),
        BagDataset([recording], WindowConfig(frame_interval_s=0.5)),
        BagDataset([recording], WindowConfig(start="wait")),
    ]
    digests = {sample_digest(each, each.samples[0]) for each in datasets}
    assert len(digests) == len(datasets)
    assert sample_digest(BagDataset([recording]), datasets[0].samples[0]) in digests

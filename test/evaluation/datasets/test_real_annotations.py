"""The published annotation files, with frames of the videos' real sizes."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress

import cv2
import numpy as np
import pytest
from numbered import number_in, write_video

from videogem_ros.core.backbones.preprocessing import to_source
from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.datasets import open_dataset
from videogem_ros.evaluation.metrics import judge
from videogem_ros.evaluation.runner import check_boxes


def linked_frames(root, seconds_of, hw_of):
    """An image for every annotated second; those of one size are one file."""
    (root / "sizes").mkdir()
    for video, seconds in seconds_of.items():
        height, width = hw_of(video)
        file = root / "sizes" / f"size {height} {width}.png"
        if not file.exists():
            cv2.imwrite(str(file), np.zeros((height, width), np.uint8))
        (root / "frames" / video).mkdir(parents=True)
        for second in seconds:
            (root / "frames" / video / f"{second}.png").hardlink_to(file)


@pytest.fixture(scope="module")
def video_sizes(shared):
    return json.loads((shared / "data" / "groundingyoutube_video_sizes.json").read_text())


@pytest.fixture(scope="module")
def grounding_youtube_root(shared, video_sizes, tmp_path_factory):
    root = tmp_path_factory.mktemp("groundingyoutube")
    annotations = json.loads((shared / "data" / "groundingyoutube_box_anno.json").read_text())
    seconds = {video: [entry["second"] for entry in of] for video, of in annotations.items()}
    linked_frames(root, seconds, lambda video: video_sizes[video][::-1])
    return root


def centre_hits(dataset, hw_of):
    """How often a point in the middle of the frame is right, and of how many evaluated samples."""
    hits = samples = 0
    for sample in dataset.samples:
        height, width = image_hw = hw_of(sample.video)
        scale = (sample.boxes_hw or image_hw, image_hw)
        boxes = [(*to_source(*b[:2], *scale), *to_source(*b[2:], *scale)) for b in sample.boxes]
        with suppress(InvalidValueError):  # outside the frame: the evaluation skips it
            check_boxes(boxes, image_hw)
            samples += 1
            hits += judge(((width - 1) / 2, (height - 1) / 2), None, boxes, image_hw).hit
    return hits, samples


def test_grounding_youtube_has_17316_boxes_in_250_videos(
    shared, grounding_youtube_root, video_sizes
):
    dataset = open_dataset("groundingyoutube", grounding_youtube_root, annotations=shared / "data")
    assert not dataset.missing
    assert dataset.skipped == {"box: expected x1 <= x2 and y1 <= y2": 18}
    assert len(dataset.samples) + dataset.skipped.total() == 17_316
    assert len({sample.video for sample in dataset.samples}) == len(video_sizes) == 250
    assert len({sample.key for sample in dataset.samples}) == len(dataset.samples)
    assert len({sample.label for sample in dataset.samples}) == 660
    assert all(sample.actions[0].verb for sample in dataset.samples)

    window, place = dataset.window(dataset.samples[1], 8)
    assert (window.hw, place) == (tuple(video_sizes[dataset.samples[1].video][::-1]), 4)
    (note,) = dataset.notes
    assert "use groundingyoutube-640x480" in note


def test_the_image_centre_is_right_for_15_percent_of_grounding_youtube_as_given(
    shared, grounding_youtube_root, video_sizes
):
    def hw_of(video):
        return tuple(video_sizes[video][::-1])

    given, scaled = (
        open_dataset(name, grounding_youtube_root, annotations=shared / "data")
        for name in ("groundingyoutube", "groundingyoutube-640x480")
    )
    hits, samples = centre_hits(given, hw_of)
    assert samples == 17_316 - 18 - 96
    assert 100 * hits / samples == pytest.approx(15.5, abs=0.05)
    assert 100 * hits / 17_316 == pytest.approx(15.4, abs=0.05)
    # On the copies that the boxes were drawn on, the centre is a strong baseline.
    hits, samples = centre_hits(scaled, hw_of)
    assert samples == 17_316 - 18
    assert 100 * hits / samples == pytest.approx(67.0, abs=0.05)
    assert 100 * hits / 17_316 == pytest.approx(66.9, abs=0.05)


def test_all_grounding_youtube_boxes_begin_within_640x480(shared, grounding_youtube_root):
    dataset = open_dataset(
        "groundingyoutube-640x480", grounding_youtube_root, annotations=shared / "data"
    )
    assert Counter(sample.boxes_hw for sample in dataset.samples).keys() == {
        (480, 640),
        (640, 480),
    }
    for sample in dataset.samples:
        ((x1, y1, *_),) = sample.boxes
        assert x1 < sample.boxes_hw[1]
        assert y1 < sample.boxes_hw[0]


def test_youcook_interactions_counts(shared, tmp_path):
    seconds = _youcook_seconds(shared)
    assert (len(seconds), sum(map(len, seconds.values()))) == (92, 2570)
    linked_frames(tmp_path, seconds, lambda video: (720, 1280))
    dataset = open_dataset("youcook-interactions", tmp_path, annotations=shared / "data")
    assert not dataset.missing
    assert dataset.skipped == {"second: expected one of an evaluated segment": 82}
    assert len(dataset.samples) == 2488
    assert len({sample.video for sample in dataset.samples}) == 91  # one has no boxes
    assert len({sample.actions[0].text for sample in dataset.samples}) == 254 - 1
    assert all(sample.actions[0].verb and sample.actions[0].object for sample in dataset.samples)
    # Those that the paper's evaluation lists by name, and one whose own height is 480.
    unscaled = {sample.video for sample in dataset.samples if sample.boxes_hw is None}
    assert unscaled == {
        *("WYAFPvlDB_A", "vU2lND4YQjM", "oJZUxU9szWA", "1vJp-jaIaeE", "4Y8vVGsv4JE"),
        *("FzhJGCaaYVs", "30Q8k57Kbz4", "9Y9_OBnJub0"),
    }


def _youcook_seconds(shared):
    import pickle

    content = (shared / "data" / "youcook_interactions_annotations.pkl").read_bytes()
    return {video: [*boxes] for video, boxes in pickle.loads(content).items()}


def test_a_real_annotation_finds_its_frame_in_a_video(shared, tmp_path):
    """The first box of the published file is at second 76; at 4 Hz that is frame 304."""
    write_video(
        tmp_path / "-1okAudsnAc.webm",
        [n / 4 for n in range(330)],
        codec="libvpx-vp9",
        options={"g": "40", "deadline": "realtime", "cpu-used": "8"},
    )
    dataset = open_dataset("groundingyoutube", tmp_path, annotations=shared / "data", limit=1)
    (sample,) = dataset.samples
    window, place = dataset.window(sample, 8)
    assert (sample.key, sample.label) == ("-1okAudsnAc/76/0", "crack eggs")
    assert [number_in(frame.image) for frame in window.frames] == [*range(300, 308)]
    assert window.frames[place].stamp_ns == sample.time_ns
    assert len(dataset.missing) == 249

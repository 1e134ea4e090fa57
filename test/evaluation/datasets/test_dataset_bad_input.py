"""Everything that can be wrong with a folder is named or counted, and never a traceback."""

from __future__ import annotations

import json
import pickle

import pytest
from numbered import (
    daly_keyframe,
    regular,
    vhico_frame,
    write_daly,
    write_grounding_youtube,
    write_images,
    write_vhico,
    write_video,
    write_youcook,
)

from videogem_ros.errors import InvalidValueError, RecordingError
from videogem_ros.evaluation.datasets import DATASETS, open_dataset

GOOD = {"second": 1, "box": [1, 2, 3, 4], "step_name": "crack eggs"}


@pytest.fixture
def root(tmp_path):
    """A folder with images of the video "v"."""
    write_images(tmp_path / "v", {f"{n}.jpg": n for n in range(8)})
    return tmp_path


@pytest.mark.parametrize("name", DATASETS)
def test_a_wrong_root_is_named(tmp_path, name):
    with pytest.raises(InvalidValueError, match=r"^root: expected a folder, got .*nowhere"):
        open_dataset(name, tmp_path / "nowhere")
    with pytest.raises(InvalidValueError, match=r"^annotations: expected one .* in .*, got none"):
        open_dataset(name, tmp_path)
    with pytest.raises(InvalidValueError, match=r"^annotations: expected a folder, got .*nowhere"):
        open_dataset(name, tmp_path, annotations=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "imagenet"}, "dataset: expected one of v-hico, daly, youcook-interactions, g"),
        ({"limit": 0}, "limit: expected one or more, got 0"),
        ({"limit": -3}, "limit: expected one or more, got -3"),
    ],
)
def test_wrong_arguments_are_named(root, arguments, message):
    write_grounding_youtube(root, {"v": [GOOD]})
    with pytest.raises(InvalidValueError, match=message):
        open_dataset(**{"name": "groundingyoutube", "root": root, **arguments})


def test_half_a_data_set_names_the_file_that_is_not_there(tmp_path):
    write_youcook(tmp_path, {"v": {1: (0, 0, 1, 1)}}, {("v", 0, 2)}, {"v": [([0, 2], "stir")]})
    (tmp_path / "final_dataset_segments.pkl").unlink()
    with pytest.raises(InvalidValueError, match=r"expected one \*segments\.pkl in .*, got none"):
        open_dataset("youcook-interactions", tmp_path)
    with pytest.raises(InvalidValueError, match=r"^annotations: expected a folder, got .*\.pkl"):
        open_dataset(
            "youcook-interactions",
            tmp_path,
            annotations=tmp_path / "final_dataset_annotations.pkl",
        )


def test_a_root_without_any_of_the_videos_is_told(tmp_path):
    write_grounding_youtube(tmp_path, {"abc": [GOOD], "def": [GOOD]})
    with pytest.raises(
        InvalidValueError,
        match=r"^root: expected videos of GroundingYouTube, .* none of its 2 videos \(such as",
    ):
        open_dataset("groundingyoutube", tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"box": [3, 2, 1, 4]}, "box: expected x1 <= x2 and y1 <= y2"),
        ({"box": [1, 4, 3, 2]}, "box: expected x1 <= x2 and y1 <= y2"),
        ({"box": [1, 2, 3]}, "box: expected four numbers x1, y1, x2, y2"),
        ({"box": None}, "box: expected four numbers x1, y1, x2, y2"),
        ({"second": -1}, "second: expected a number from 0 to 1e9"),
        ({"second": "1"}, "second: expected a number from 0 to 1e9"),
        ({"second": 1.5}, "second: expected a whole number"),
        ({"step_name": " "}, "step_name: expected a text with words"),
        ({"step_name": 7}, "step_name: expected a text with words"),
        ({"box": ...}, "annotation: expected an object with 'box'"),
        ({"second": ...}, "annotation: expected an object with 'second'"),
        ({"step_name": ...}, "annotation: expected an object with 'step_name'"),
        (None, "annotation: expected an object"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_counted(root, change, reason):
    bad = None if change is None else {**GOOD, **change}
    bad = bad and {key: value for key, value in bad.items() if value is not ...}
    write_grounding_youtube(root, {"v": [bad, GOOD, bad]})
    dataset = open_dataset("groundingyoutube", root)
    assert len(dataset.samples) == 1
    assert dataset.skipped == {reason: 2}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"human": [[9, 9, 1, 1]]}, "human: expected x1 <= x2 and y1 <= y2"),
        ({"object": "x"}, "object: expected a list"),
        ({"human": [], "object": []}, "human and object: expected a box"),
        (
            {"human": [[300, 9, 310, 20]], "object": []},
            "human and object: expected a box that overlaps the frame",
        ),
        ({"path": "test/clip/cover.jpg"}, "path: expected a file named by the frame's number"),
        ({"path": None}, "path: expected a file named by the frame's number"),
        ({"height": "tall"}, "height: expected a number from 0 to 1e9"),
        ({"label": ""}, "label: expected a text with words"),
    ],
)
def test_a_vhico_frame_that_cannot_be_used_is_counted(root, change, reason):
    write_vhico(root, {"throwing": {"v": [vhico_frame(1), vhico_frame(2, **change)]}})
    dataset = open_dataset("v-hico", root)
    assert (len(dataset.samples), dataset.skipped) == (1, {reason: 1})


@pytest.mark.parametrize(
    ("keyframe", "reason"),
    [
        (daly_keyframe(1, 2, (0.5, 0.5, 0.4, 0.6)), "boundingBox: expected x1 <= x2 and y1 <= y2"),
        (
            daly_keyframe(1, 2, (1.5, 0, 2, 1)),
            "boundingBox: expected a box that overlaps the frame",
        ),
        ({**daly_keyframe(1, 2), "boundingBox": []}, "boundingBox: expected one box"),
        (
            {**daly_keyframe(1, 2), "boundingBox": [[0, 0, 1, 1]] * 2},
            "boundingBox: expected one box",
        ),
        ({**daly_keyframe(1, 2), "time": -2}, "time: expected a number from 0 to 1e9"),
        ({"time": 1.0}, "keyframe: expected an object with 'frameNumber'"),
    ],
)
def test_a_daly_keyframe_that_cannot_be_used_is_counted(root, keyframe, reason):
    write_daly(root, {"v.mp4": {"Drinking": [{"keyframes": [daly_keyframe(1, 1), keyframe]}]}})
    dataset = open_dataset("daly", root)
    assert (len(dataset.samples), dataset.skipped) == (1, {reason: 1})


@pytest.mark.parametrize(
    ("boxes", "sentence", "reason"),
    [
        ({2: (0, 0, 1, 1)}, "12 - 3!", "sentence: expected a text with words"),
        ({2: (0, 0, 1, 1)}, None, "sentence: expected a text with words"),
        ({2: (0, 0, 1, 1)}, "do it", "sentence: expected a verb or a noun"),
        ({2: (5, 0, 1, 1)}, "add salt", "box: expected x1 <= x2 and y1 <= y2"),
        ({"2": (0, 0, 1, 1)}, "add salt", "second: expected a number from 0 to 1e9"),
        ({9: (0, 0, 1, 1)}, "add salt", "second: expected one of an evaluated segment"),
        ({6: (0, 0, 1, 1)}, "add salt", "segment: expected one that YouCook2 has too"),
    ],
)
def test_a_youcook_box_that_cannot_be_used_is_counted(root, boxes, sentence, reason):
    write_youcook(
        root,
        {"v": {1: (0, 0, 1, 1), **boxes}},
        {("v", 0, 1), ("v", 2, 3), ("v", 5, 7)},
        {"v": [([0, 1], "stir it"), ([2, 3], sentence)]},
    )
    dataset = open_dataset("youcook-interactions", root)
    assert (len(dataset.samples), dataset.skipped) == (1, {reason: 1})


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("groundingyoutube", "box_anno.json", [], "box_anno.json: expected an object, got list"),
        ("groundingyoutube", "box_anno.json", {"v": 3}, "box_anno.json v: expected a list"),
        ("v-hico", "gt_bbox_test.json", {"images": 1}, "expected an object with 'annos', got 'im"),
        ("v-hico", "gt_bbox_test.json", {"annos": [1]}, "annos: expected an object, got list"),
        (
            "v-hico",
            "gt_bbox_test.json",
            {"annos": {"a": {3: []}}},
            "annos a: expected names",
        ),
        ("daly", "daly1.1.0.pkl", {}, "expected an object with 'annot', got an empty one"),
        (
            "daly",
            "daly1.1.0.pkl",
            {"annot": {"v": {}}},
            "annot v: expected an object with",
        ),
        (
            "daly",
            "daly1.1.0.pkl",
            {"annot": {"v": {"annot": {"Drinking": [{}]}}}},
            "annot v Drinking: expected an object with 'keyframes'",
        ),
        ("daly", "daly1.1.0.pkl", {"annot": {}, "splits": 3}, "splits: expected a list, got int"),
    ],
)
def test_a_file_of_another_form_is_named(root, name, file, content, message):
    (root / file).write_bytes(pickle.dumps(content))
    with pytest.raises(InvalidValueError) as told:
        open_dataset(name, root)
    assert message in str(told.value)


@pytest.mark.parametrize(
    ("segments", "youcook", "message"),
    [
        ([("v", 1)], None, "segments.pkl: expected (video, start, end)"),
        (7, None, "segments.pkl: expected a list, got int"),
        ({(3, 1, 2)}, None, "segments.pkl: expected (video, start, end)"),
        ({("v", "a", 2)}, None, "segments.pkl: expected a number"),
        ({("v", 0, 2)}, [], "youcookii: expected an object, got list"),
        ({("v", 0, 2)}, {"database": {"v": {}}}, "youcookii database v: expected an object with"),
        (
            {("v", 0, 2)},
            {"database": {"v": {"annotations": [{"segment": [0], "sentence": "stir"}]}}},
            "youcookii database v: expected segments of start and end",
        ),
    ],
)
def test_youcook_files_of_another_form_are_named(root, segments, youcook, message):
    write_youcook(root, {"v": {1: (0, 0, 1, 1)}}, segments, {"v": [([0, 2], "stir")]})
    if youcook is not None:
        (root / "youcookii_annotations_trainval.json").write_text(json.dumps(youcook))
    with pytest.raises(InvalidValueError) as told:
        open_dataset("youcook-interactions", root)
    assert message in str(told.value)


def test_annotations_without_any_that_can_be_used_are_told(root):
    write_grounding_youtube(root, {"v": [{**GOOD, "box": 3}]})
    with pytest.raises(
        InvalidValueError,
        match=r"annotations: expected annotated frames of Grounding.*, got box: expected four",
    ):
        open_dataset("groundingyoutube", root)
    write_grounding_youtube(root, {})
    with pytest.raises(InvalidValueError, match="GroundingYouTube, got none"):
        open_dataset("groundingyoutube", root)


def test_corrupt_footage_is_told_when_its_window_is_asked_for(root):
    good = write_video(root / "good.mp4", regular(20, 4))
    (root / "bad.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (root / "v" / "2.jpg").write_bytes(b"\xff\xd8 no image")
    fields = [{**GOOD, "second": second} for second in (1, 2)]
    write_grounding_youtube(root, {"good": fields, "bad": fields, "v": fields})
    dataset = open_dataset("groundingyoutube", root)
    assert not dataset.missing
    read = {}
    for sample in dataset.samples:
        try:
            read[sample.key] = dataset.window(sample, 1)[0].newest.stamp_ns
        except RecordingError as error:
            read[sample.key] = sample.video in str(error)
    assert read == {
        "good/1/0": 1_000_000_000,
        "good/2/0": 2_000_000_000,
        "bad/1/0": True,
        "bad/2/0": True,
        "v/1/0": 1_000_000_000,
        "v/2/0": True,
    }


def test_a_file_that_went_away_is_told(root):
    write_grounding_youtube(root, {"v": [GOOD]})
    dataset = open_dataset("groundingyoutube", root)
    (root / "v" / "1.jpg").unlink()
    with pytest.raises(RecordingError, match=r"1\.jpg"):
        dataset.window(dataset.samples[0], 8)

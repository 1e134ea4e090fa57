"""Which frames, boxes and actions each data set gives, on made-up videos of numbered frames."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numbered import (
    daly_keyframe,
    number_in,
    regular,
    vhico_frame,
    write_daly,
    write_grounding_youtube,
    write_images,
    write_vhico,
    write_video,
    write_youcook,
)

from videogem_ros.core.backbones.preprocessing import to_source
from videogem_ros.evaluation.datasets import open_dataset


def seen(dataset, sample, frames=8):
    window, place = dataset.window(sample, frames)
    return [number_in(frame.image) for frame in window.frames], place


def in_source(sample, image_hw):
    """A sample's boxes in pixels of a frame, as the runner scales them."""
    scale = (sample.boxes_hw or image_hw, image_hw)
    return [
        pytest.approx((*to_source(*box[:2], *scale), *to_source(*box[2:], *scale)))
        for box in sample.boxes
    ]


def crack(second, box=(10, 5, 40, 20), step="crack eggs"):
    return {"second": second, "box": list(box), "step_name": step}


@pytest.fixture
def grounding_youtube(tmp_path):
    write_grounding_youtube(
        tmp_path / "annotations",
        {
            "-a_b": [crack(3), crack(1), crack(3, step="pour egg whites")],
            "gone": [crack(1), crack(2)],
        },
    )
    write_video(tmp_path / "videos" / "-a_b.mp4", regular(100, 20), options={"g": "15"})
    return tmp_path


def test_grounding_youtube_has_frames_a_quarter_second_apart(grounding_youtube):
    dataset = open_dataset("groundingyoutube", grounding_youtube)
    assert dataset.name == "GroundingYouTube"
    assert [sample.key for sample in dataset.samples] == ["-a_b/1/0", "-a_b/3/0", "-a_b/3/1"]
    assert dataset.missing == {"gone": 2}
    assert not dataset.skipped
    first, _, last = dataset.samples
    assert seen(dataset, first) == ([0, 5, 10, 15, 20, 25, 30, 35], 4)
    assert seen(dataset, last) == ([40, 45, 50, 55, 60, 65, 70, 75], 4)
    assert seen(dataset, last, 1) == ([60], 0)
    (action,) = last.actions
    assert (last.label, action.verb, action.object) == ("pour egg whites", "pour", "egg whites")
    assert (last.time_ns, last.boxes, last.boxes_hw) == (3_000_000_000, ((10, 5, 40, 20),), None)
    assert dataset.sources(last) == (grounding_youtube / "videos" / "-a_b.mp4",)


def test_grounding_youtube_says_when_its_boxes_do_not_fit_the_frames(grounding_youtube):
    plain = open_dataset("groundingyoutube", grounding_youtube)
    assert len(plain.notes) == 1
    assert "-a_b has 96 x 48" in plain.notes[0]
    scaled = open_dataset("groundingyoutube-640x480", grounding_youtube)
    assert scaled.notes == ()
    assert {sample.boxes_hw for sample in scaled.samples} == {(480, 640)}
    box = in_source(scaled.samples[0], (480, 1280))
    assert box == [(20.5, 5, 80.5, 20)]


@pytest.mark.parametrize("hw", [(480, 640), (640, 480)])
def test_grounding_youtube_of_the_authors_size_needs_no_note(tmp_path, hw):
    video = "7mabCfrc90Y"
    write_grounding_youtube(tmp_path, {video: [crack(0)]})
    write_images(tmp_path / video, {"0.jpg": 0}, hw)
    assert open_dataset("groundingyoutube", tmp_path).notes == ()
    (sample,) = open_dataset("groundingyoutube-640x480", tmp_path).samples
    assert sample.boxes_hw == (640, 480)


@pytest.fixture
def youcook(tmp_path):
    box = (60, 30, 180, 90)
    write_youcook(
        tmp_path,
        boxes={
            "large": {1: box, 2: box, 4: box, 5: box},
            "source": {1: (60, 30, 180, 90), 2: (600, 300, 800, 400)},
            "small": {1: box},
            "wide": {1: box},
            "none": {},
            "gone": {1: box},
        },
        segments={
            ("large", 0, 2),
            ("large", 2, 4),
            ("source", 0, 3),
            ("small", 0, 3),
            ("wide", 0, 3),
            ("gone", 0, 3),
        },
        sentences={
            "large": [([0, 2], "chop and cook the pancetta in a pan"), ([2, 4], "add salt")],
            "source": [([0, 3], "pour milk into the bowl")],
            "small": [([0, 3], "stir")],
            "wide": [([0, 3], "fry the eggs")],
            "gone": [([0, 3], "fry the eggs")],
            "unused": [([0, 3], "")],
        },
    )
    for video, hw in {
        "large": (720, 1280),
        "source": (720, 1280),
        "small": (240, 320),
        "wide": (480, 640),
    }.items():
        write_video(tmp_path / f"{video}.mkv", regular(20, 4), hw=hw)
    return tmp_path


def test_youcook_takes_the_sentence_of_the_evaluated_segment(youcook):
    dataset = open_dataset("youcook-interactions", youcook)
    assert dataset.name == "YouCook-Interactions"
    samples = {sample.key: sample for sample in dataset.samples}
    assert [*samples] == [
        *("large/1/0", "large/2/0", "large/4/0"),
        *("source/1/0", "source/2/0"),
        *("small/1/0", "wide/1/0"),
    ]
    assert dataset.missing == {"gone": 1}
    assert dataset.skipped == {"second: expected one of an evaluated segment": 1}
    first, second = samples["large/1/0"], samples["large/2/0"]
    assert first.label == "chop"
    assert [action.verb for action in first.actions] == ["chop", "cook"]
    assert [action.object for action in first.actions] == ["pancetta", "pan"]
    assert first.actions[0].text == "chop and cook the pancetta in a pan"
    assert second.actions[0].text == "add salt"  # the segment that begins there
    assert seen(dataset, second) == ([4, 5, 6, 7, 8, 9, 10, 11], 4)
    assert seen(dataset, first) == ([0, 1, 2, 3, 4, 5, 6, 7], 4)


def test_youcook_boxes_belong_to_640x360_where_the_video_is_larger(youcook):
    dataset = open_dataset("youcook-interactions", youcook)
    sizes = {sample.video: sample.boxes_hw for sample in dataset.samples}
    assert sizes == {"large": (360, 640), "source": None, "small": None, "wide": None}
    assert in_source(dataset.samples[0], (720, 1280)) == [(120.5, 60.5, 360.5, 180.5)]


@pytest.mark.parametrize(
    ("box", "boxes_hw"),
    [
        ((0, 0, 640, 360), (360, 640)),
        ((0, 0, 641, 360), None),  # beyond the copy across
        ((0, 0, 640, 361), None),  # or down
    ],
)
def test_a_youcook_box_beyond_the_copy_on_any_side_is_in_the_videos_pixels(
    tmp_path, box, boxes_hw
):
    write_youcook(tmp_path, {"v": {1: box}}, {("v", 0, 3)}, {"v": [([0, 3], "stir it")]})
    write_video(tmp_path / "v.mkv", regular(20, 4), hw=(720, 1280))
    (sample,) = open_dataset("youcook-interactions", tmp_path).samples
    assert sample.boxes_hw == boxes_hw


@pytest.fixture
def daly(tmp_path):
    write_daly(
        tmp_path,
        {
            "vid1.mp4": {
                "FoldingTextile": [
                    {
                        "beginTime": 1.0,
                        "endTime": 9.0,
                        "keyframes": [daly_keyframe(8.02, 201), daly_keyframe(1.234, 31)],
                    }
                ],
                "Drinking": [{"keyframes": [daly_keyframe(8.02, 201)]}],
            },
            "vid2.mp4": {
                "TakingPhotosOrVideos": [{"keyframes": [daly_keyframe(4, 101, (0, 0, 1, 1))]}]
            },
            "gone.mp4": {"Phoning": [{"keyframes": [daly_keyframe(4, 101)]}]},
        },
        test=["vid2.mp4", "gone.mp4"],
    )
    write_video(tmp_path / "videos" / "vid1.mp4", regular(300, 25), options={"g": "50"})
    write_images(tmp_path / "frames" / "vid2", {f"{n:05d}.jpg": n for n in range(1, 260)})
    return tmp_path


def test_daly_has_frames_32_apart_at_the_annotated_time(daly):
    dataset = open_dataset("daly", daly)
    assert dataset.name == "DALY"
    early, late, other, photos = dataset.samples
    assert [sample.key for sample in dataset.samples] == [
        *("vid1.mp4/1.234/0", "vid1.mp4/8.02/0", "vid1.mp4/8.02/1"),
        "vid2.mp4/4/0",
    ]
    assert dataset.missing == {"gone.mp4": 1}
    assert seen(dataset, late) == ([72, 104, 136, 168, 200, 232, 264, 296], 4)
    assert seen(dataset, early) == ([0, 0, 0, 0, 30, 62, 94, 126], 4)
    assert seen(dataset, late, 1) == ([200], 0)
    # Images are numbered as the annotations number frames.
    assert seen(dataset, photos) == ([1, 5, 37, 69, 101, 133, 165, 197], 4)
    assert [other.groups, photos.groups] == [(), ("test split",)]


def test_daly_boxes_are_relative_to_the_frame(daly):
    dataset = open_dataset("daly", daly)
    height, width = 48, 96
    edges = (0.25 * width, 0.5 * height, 0.5 * width, height)
    assert in_source(dataset.samples[0], (height, width)) == [tuple(e - 0.5 for e in edges)]
    assert in_source(dataset.samples[-1], (height, width)) == [(-0.5, -0.5, 95.5, 47.5)]


@pytest.mark.parametrize(
    ("sample", "label", "verb", "thing", "phrase"),
    [
        (1, "FoldingTextile", "folding", "textile", "folding textile"),
        (2, "Drinking", "drinking", None, "drinking"),
        (3, "TakingPhotosOrVideos", "taking", "photos or videos", "taking photos or videos"),
    ],
)
def test_daly_names_are_split_at_capitals(daly, sample, label, verb, thing, phrase):
    found = open_dataset("daly", daly).samples[sample]
    (action,) = found.actions
    assert (found.label, action.verb, action.object, action.phrase) == (label, verb, thing, phrase)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_vhico_takes_frames_by_number_and_a_box_around_all(tmp_path, protocol):
    write_vhico(
        tmp_path,
        {
            "throwing": {
                "clip.mp4": [vhico_frame(47), vhico_frame(27, "throwing red ball", object=[])],
                "film": [vhico_frame(40)],
                "gone": [vhico_frame(1)],
            }
        },
        protocol,
    )
    every = {f"{n}.jpg": n for n in range(90)}
    write_images(tmp_path / "frames" / "test" / "throwing" / "clip.mp4", every)
    write_video(tmp_path / "film.mp4", regular(60, 30))
    dataset = open_dataset("v-hico", tmp_path)
    assert dataset.name == "V-HICO"
    early, late, film = dataset.samples
    assert [s.key for s in dataset.samples] == ["clip.mp4/27/0", "clip.mp4/47/0", "film/40/0"]
    assert dataset.missing == {"gone": 1}
    assert (early.boxes, late.boxes) == (((10, 20, 40, 50),), ((10, 5, 70, 60),))
    assert late.boxes_hw == (100, 200)
    assert (early.label, early.actions[0].object) == ("throwing red ball", "red ball")
    assert (late.label, late.actions[0].verb) == ("throwing ball", "throwing")
    assert seen(dataset, late) == ([31, 35, 39, 43, 47, 51, 55, 59], 4)
    assert seen(dataset, film) == ([24, 28, 32, 36, 40, 44, 48, 52], 4)
    assert film.time_ns == 1_333_333_333


def test_vhico_of_keyframes_alone_takes_the_nearest(tmp_path):
    frames = [vhico_frame(number) for number in (7, 27, 47)]
    write_vhico(tmp_path, {"throwing": {"clip": frames}})
    write_images(tmp_path / "clip", {f"{n}.jpg": n for n in (7, 27, 47)})
    dataset = open_dataset("v-hico", tmp_path)
    assert seen(dataset, dataset.samples[1]) == ([7, 7, 27, 27, 27, 27, 27, 47], 4)
    assert seen(dataset, dataset.samples[1], 1) == ([27], 0)


def test_the_limit_takes_the_first_samples_and_still_counts_the_rest(grounding_youtube):
    dataset = open_dataset("groundingyoutube", grounding_youtube, limit=2)
    assert [sample.key for sample in dataset.samples] == ["-a_b/1/0", "-a_b/3/0"]
    assert dataset.missing == {"gone": 2}


def test_annotations_may_lie_anywhere(grounding_youtube, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "my box_anno.json"
    (grounding_youtube / "annotations" / "box_anno.json").rename(elsewhere)
    for where in (elsewhere, elsewhere.parent):
        dataset = open_dataset("groundingyoutube", grounding_youtube, annotations=where)
        assert len(dataset.samples) == 3


def test_a_pickled_copy_gives_the_same_windows(grounding_youtube):
    dataset = open_dataset("groundingyoutube", grounding_youtube)
    seen(dataset, dataset.samples[0])
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.samples == dataset.samples
    assert seen(copy, copy.samples[1]) == seen(dataset, dataset.samples[1])


def test_windows_are_rgb(tmp_path):
    write_grounding_youtube(tmp_path, {"v": [crack(0)]})
    import cv2

    (tmp_path / "v").mkdir()
    cv2.imwrite(str(tmp_path / "v" / "0.png"), np.full((8, 8, 3), (255, 0, 0), np.uint8))
    dataset = open_dataset("groundingyoutube", tmp_path)
    window, _ = dataset.window(dataset.samples[0], 1)
    assert window.newest.image[0, 0].tolist() == [0, 0, 255]

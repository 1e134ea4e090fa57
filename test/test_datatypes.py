from __future__ import annotations

import dataclasses
import json
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from videogem_ros.datatypes import (
    Action,
    Features,
    Frame,
    Grounding,
    Heatmap,
    Point,
    Prompts,
    Window,
    describe_array,
)
from videogem_ros.errors import InvalidValueError

IMAGE = np.zeros((4, 6, 3), np.uint8)


def frame(stamp_ns: int, hw: tuple[int, int] = (4, 6)) -> Frame:
    return Frame(np.zeros((*hw, 3), np.uint8), stamp_ns)


def grounding(**changes: Any) -> Grounding:
    values = np.zeros((2, 4), np.float32)
    values[1, 2] = 1.0
    whole: dict[str, Any] = {
        "action": Action("Pour milk!", "pour milk", "pour", "pour", "milk", "milk"),
        "prompts": Prompts("verb text", "object text", "action text"),
        "frame_index": 7,
        "stamp_ns": 20,
        "frame_id": "camera",
        "image_hw": (20, 40),
        "window_start_ns": 10,
        "window_end_ns": 20,
        "frames_used": 3,
        "points": {"fused": Point(25.0, 14.5, 0.5), "verb": Point(1.0, 2.0, -0.25)},
        "heatmaps": {"fused": Heatmap(values, (20, 40))},
        "layer_weights": np.full((3, 8), 0.5, np.float32),
        "prompt_probabilities": np.array([0.25, 0.25, 0.5], np.float32),
        "score": 0.75,
        "present": True,
    }
    return Grounding(**(whole | changes))


class TestFrame:
    def test_knows_its_size(self) -> None:
        assert Frame(IMAGE, 0, "camera").hw == (4, 6)

    def test_takes_a_view_without_copying_it(self) -> None:
        padded = np.zeros((4, 10, 3), np.uint8)
        padded.flags.writeable = False
        view = padded[:, :6, ::-1]
        assert Frame(view, 0).image is view

    @pytest.mark.parametrize(
        ("image", "got"),
        [
            (IMAGE.astype(np.float32), "array of shape (4, 6, 3) and dtype float32"),
            (IMAGE[..., 0], "array of shape (4, 6) and dtype uint8"),
            (np.zeros((4, 6, 4), np.uint8), "array of shape (4, 6, 4) and dtype uint8"),
            (IMAGE[:0], "array of shape (0, 6, 3) and dtype uint8"),
            (IMAGE[:, :0], "array of shape (4, 0, 3) and dtype uint8"),
            ([[[0, 0, 0]]], "list"),
            (None, "NoneType"),
        ],
    )
    def test_refuses_what_is_no_rgb_image(self, image: Any, got: str) -> None:
        with pytest.raises(InvalidValueError) as error:
            Frame(image, 0)
        assert error.value.field == "frame.image"
        assert error.value.got == got

    def test_refuses_a_negative_stamp(self) -> None:
        with pytest.raises(InvalidValueError, match=r"frame\.stamp_ns: .*, got -1"):
            Frame(IMAGE, -1)

    def test_a_stamp_is_a_whole_number_of_any_kind(self) -> None:
        stamp_ns = Frame(IMAGE, np.int64(5)).stamp_ns  # type: ignore[arg-type]
        assert (stamp_ns, type(stamp_ns)) == (5, int)
        with pytest.raises(InvalidValueError, match=r"frame\.stamp_ns: .*whole.*, got 0\.5"):
            Frame(IMAGE, 0.5)  # type: ignore[arg-type]

    def test_frames_of_equal_pixels_are_still_different_frames(self) -> None:
        assert frame(0) != frame(0)
        assert len({frame(0), frame(0)}) == 2


class TestWindow:
    def test_gives_stamps_newest_frame_and_size(self) -> None:
        window = Window([frame(1), frame(2), frame(5)])  # type: ignore[arg-type]
        assert isinstance(window.frames, tuple)
        assert len(window) == 3
        assert window.stamps_ns == (1, 2, 5)
        assert window.newest is window.frames[2]
        assert window.hw == (4, 6)

    def test_a_frame_may_stand_in_it_more_than_once(self) -> None:
        one = frame(3)
        assert len(Window((one, one, frame(4)))) == 3

    @pytest.mark.parametrize(
        ("frames", "got"),
        [
            ((), "none"),
            ((frame(0), frame(1, (6, 4))), "sizes (H, W) [(4, 6), (6, 4)]"),
            ((frame(2), frame(1)), "(2, 1)"),
            ((frame(0), IMAGE), "an object of type ndarray"),
            (frame(0), "an object of type Frame"),
        ],
    )
    def test_refuses_no_frames_mixed_sizes_time_running_back_and_arrays(
        self, frames: tuple[Frame, ...], got: str
    ) -> None:
        with pytest.raises(InvalidValueError, match=r"window\.frames") as error:
            Window(frames)
        assert str(error.value).endswith(f"got {got}")


class TestAction:
    def test_equal_actions_are_one_key(self) -> None:
        assert len({Action("Open it", "open it"), Action("Open it", "open it")}) == 1

    @pytest.mark.parametrize("field", ["text", "phrase"])
    @pytest.mark.parametrize("empty", ["", " \n"])
    def test_refuses_empty_texts(self, field: str, empty: str) -> None:
        texts = {"text": "open", "phrase": "open", field: empty}
        with pytest.raises(InvalidValueError, match=rf"action\.{field}: expected words"):
            Action(**texts)


def test_prompts_give_their_texts_as_verb_object_action() -> None:
    assert Prompts(action="a", object="o", verb="v").texts == ("v", "o", "a")


class TestFeatures:
    def test_takes_terms_that_fit(self) -> None:
        Features(torch.zeros(2, 8, 12, 5), torch.zeros(2, 8, 5), (3, 4), (0, 7))

    @pytest.mark.parametrize(
        ("patch_shape", "class_shape"),
        [
            ((1, 8, 12, 5), (2, 8, 5)),
            ((2, 8, 12, 5), (1, 8, 5)),
            ((2, 7, 12, 5), (2, 8, 5)),
            ((2, 8, 11, 5), (2, 8, 5)),
            ((2, 8, 12, 6), (2, 8, 5)),
        ],
    )
    def test_refuses_terms_that_do_not_fit(
        self, patch_shape: tuple[int, ...], class_shape: tuple[int, ...]
    ) -> None:
        with pytest.raises(InvalidValueError, match=r"features\.patch_terms"):
            Features(torch.zeros(patch_shape), torch.zeros(class_shape), (3, 4), (0, 7))


class TestHeatmap:
    @pytest.mark.parametrize(
        "values", [np.zeros((2, 3)), np.zeros((1, 2, 3), np.float32), [[0.0]], None]
    )
    def test_refuses_what_is_no_float32_map(self, values: Any) -> None:
        with pytest.raises(InvalidValueError, match=r"heatmap\.values"):
            Heatmap(values, (4, 6))

    def test_at_the_images_size_comes_back_as_it_is(self) -> None:
        values = np.random.default_rng(0).random((4, 6), np.float32)
        assert Heatmap(values, (4, 6)).to_image() is values

    def test_a_constant_map_stays_constant(self) -> None:
        image = Heatmap(np.full((3, 5), 0.25, np.float32), (31, 17)).to_image()
        assert image.shape == (31, 17)
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, 0.25)

    def test_a_ramp_lies_on_pixel_centres(self) -> None:
        # Column c of 10 covers pixels 4c to 4c + 3; its centre is 4c + 1.5.
        ramp = np.broadcast_to(np.arange(10, dtype=np.float32), (2, 10)) / 9
        image = Heatmap(np.ascontiguousarray(ramp), (8, 40)).to_image()
        expected = np.clip((np.arange(40) - 1.5) / 4, 0, 9) / 9
        np.testing.assert_allclose(image, np.broadcast_to(expected, (8, 40)), atol=1e-6)

    def test_another_size_can_be_asked_for(self) -> None:
        values = np.random.default_rng(0).random((4, 6), np.float32)
        halved = Heatmap(values, (40, 60)).to_image((20, 30))
        np.testing.assert_array_equal(halved, cv2.resize(values, (30, 20)))


class TestGrounding:
    def test_the_answer_is_the_fused_point_and_heatmap(self) -> None:
        one = grounding()
        assert one.point == Point(25.0, 14.5, 0.5)
        assert one.heatmap is one.heatmaps["fused"]

    @pytest.mark.parametrize(
        ("x", "y", "agreement"),
        [
            (19.5, 9.5, 1.0),  # the first pixel column and row of the peak's cell
            (29.4, 19.5, 1.0),  # its far corner, on the image's lower border
            (19.4, 9.5, 0.0),
            (29.5, 9.5, 0.0),
            (-0.5, -0.5, 0.0),
            (39.5, 19.5, 0.0),
        ],
    )
    def test_agreement_is_the_heatmaps_value_at_the_point(
        self, x: float, y: float, agreement: float
    ) -> None:
        assert grounding(points={"fused": Point(x, y, 0.0)}).agreement == agreement

    def test_json_holds_everything_but_the_heatmaps(self) -> None:
        written = json.loads(json.dumps(grounding().to_json()))
        assert written["action"] == "Pour milk!"
        assert written["prompts"] == {
            "verb": "verb text",
            "object": "object text",
            "action": "action text",
        }
        assert written["points"]["fused"] == {"x": 25.0, "y": 14.5, "similarity": 0.5}
        assert written["layer_weights"] == [[0.5] * 8] * 3
        assert written["prompt_probabilities"] == [0.25, 0.25, 0.5]
        fields = {field.name for field in dataclasses.fields(Grounding)}
        assert fields - set(written) == {"heatmaps"}

    def test_cannot_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            grounding().score = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "text"),
    [(np.zeros((1, 2), np.int16), "array of shape (1, 2) and dtype int16"), ("text", "str")],
)
def test_arrays_are_described_by_shape_and_dtype(value: object, text: str) -> None:
    assert describe_array(value) == text

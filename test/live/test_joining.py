"""Groundings put together again from messages, against those that the messages were made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from example_groundings import frame_of, grounding_of

from videogem_ros.datatypes import Frame, Grounding
from videogem_ros.encodings import image_message_fields
from videogem_ros.errors import EncodingError
from videogem_ros.language import parse_actions
from videogem_ros.live.joining import (
    IMAGES_KEPT,
    RESULTS_KEPT,
    ResultJoiner,
    milliseconds,
)
from videogem_ros.live.messages import Answer, Circumstances, MessageBuilder, Status
from videogem_ros.live.types import typestore

VALUES = np.linspace(0, 1, 48 * 64, dtype=np.float32).reshape(48, 64)


def make(kind: str, /, **fields: Any) -> Any:
    return typestore().types[kind](**fields)


build = MessageBuilder(make)


def image_message(frame: Frame) -> Any:
    head = build.header(frame.stamp_ns, frame.frame_id)
    return make("sensor_msgs/msg/Image", header=head, **image_message_fields(frame.image, "rgb8"))


def answer_message(grounding: Grounding, index: int = 0, command_id: int = 1) -> Any:
    status = Status.FOUND if grounding.present else Status.NOT_PRESENT
    answer = Answer(status, "", grounding.action, index, grounding)
    about = Circumstances(grounding.stamp_ns, grounding.frame_id, 0, command_id)
    return build.grounding(answer, about)


def feed(joiner: ResultJoiner, frame: Frame, *groundings: Grounding, command_id: int = 1) -> None:
    feed_answers(joiner, frame, *groundings, command_id=command_id)
    for index, grounding in enumerate(groundings):
        joiner.on_heatmap(index, build.heatmap(grounding, 1.0))


def feed_answers(
    joiner: ResultJoiner, frame: Frame, *groundings: Grounding, command_id: int = 1
) -> None:
    """All of a frame's result but the heatmaps."""
    joiner.on_image(image_message(frame))
    for index, grounding in enumerate(groundings):
        joiner.on_grounding(answer_message(grounding, index, command_id))


def answered_with(frame: Frame, sent: Grounding, message: Any) -> Grounding:
    """What comes back of a grounding whose answer is ``message``."""
    joiner = ResultJoiner()
    joiner.on_image(image_message(frame))
    joiner.on_grounding(message)
    joiner.on_heatmap(0, build.heatmap(sent, 1.0))
    ((_, (found,), _),) = joiner.results(last=True)
    return found


@pytest.mark.parametrize("present", [True, False])
def test_a_grounding_comes_back_as_it_was(present: bool) -> None:
    frame = frame_of((48, 64), stamp_ns=1_700_000_000_250_000_000)
    sent = grounding_of(frame, values=VALUES, points={"verb": (3.0, 4.5)}, present=present)
    joiner = ResultJoiner()
    feed(joiner, frame, sent)
    ((image, (found,), (message,)),) = joiner.results(last=True)
    assert (image.image == frame.image).all()
    assert (found.heatmap.values == VALUES).all()
    ours, theirs = found.to_json(), sent.to_json()
    for name in ("score", "prompt_probabilities", "layer_weights"):  # 32 bits in the message
        assert np.allclose(ours.pop(name), theirs.pop(name), atol=1e-6)
    assert theirs.pop("prompts")
    assert not any(ours.pop("prompts").values())  # which are not told
    assert ours == theirs
    assert message.message.status == (Status.FOUND if present else Status.NOT_PRESENT)


def test_the_window_s_ends_and_the_heatmap_s_image_come_back() -> None:
    frame = frame_of((48, 64), stamp_ns=7 * 10**9)
    sent = grounding_of(frame, values=VALUES)
    sent = replace(sent, window_start_ns=5 * 10**9 + 1, window_end_ns=6 * 10**9 + 2)
    joiner = ResultJoiner()
    joiner.on_image(image_message(frame))
    joiner.on_grounding(answer_message(sent))
    joiner.on_heatmap(0, build.heatmap(sent, 0.25))
    ((_, (found,), _),) = joiner.results(last=True)
    assert (found.window_start_ns, found.window_end_ns) == (5 * 10**9 + 1, 6 * 10**9 + 2)
    assert found.heatmap.values.shape == (12, 16)
    assert found.heatmap.image_hw == (48, 64)


def test_a_compressed_image_is_joined_like_an_image() -> None:
    frame = frame_of((48, 64), 1)
    sent = grounding_of(frame, values=VALUES)
    head, (_, png) = build.header(1, "camera"), cv2.imencode(".png", frame.image[..., ::-1])
    kind = "sensor_msgs/msg/CompressedImage"
    joiner = ResultJoiner()
    joiner.on_compressed(make(kind, header=head, format="png", data=png.reshape(-1)))
    joiner.on_grounding(answer_message(sent))
    joiner.on_heatmap(0, build.heatmap(sent, 1.0))
    ((image, _, _),) = joiner.results(last=True)
    assert (image.image == frame.image).all()


def test_nothing_is_given_before_all_of_it_is_there() -> None:
    frame, later = frame_of((48, 64), 1), frame_of((48, 64), 2)
    joiner = ResultJoiner()
    sent = grounding_of(frame, values=VALUES)
    joiner.on_grounding(answer_message(sent))
    assert list(joiner.results(last=True)) == []
    joiner.on_image(image_message(frame))
    assert list(joiner.results(last=True)) == []
    joiner.on_heatmap(0, build.heatmap(sent, 0.5))
    assert list(joiner.results()) == []  # a second action may still come
    feed(joiner, later, grounding_of(later, values=VALUES))
    assert [image.stamp_ns for image, _, _ in joiner.results()] == [1]
    assert [image.stamp_ns for image, _, _ in joiner.results(last=True)] == [2]


@pytest.mark.parametrize("answers", [(0, 1), (1, 0)])
@pytest.mark.parametrize("heatmaps", [(0, 1), (1, 0)])
def test_several_actions_stay_together_in_their_order(
    answers: tuple[int, int], heatmaps: tuple[int, int]
) -> None:
    frame = frame_of((48, 64), 1)
    phrases, values = ["open the drawer", "pick up the cup"], [VALUES, VALUES[::-1].copy()]
    sent = [grounding_of(frame, phrase, values=of) for phrase, of in zip(phrases, values)]
    joiner = ResultJoiner()
    joiner.on_image(image_message(frame))
    for index in answers:
        joiner.on_grounding(answer_message(sent[index], index))
    for index in heatmaps:
        joiner.on_heatmap(index, build.heatmap(sent[index], 1.0))
    ((_, found, _),) = joiner.results(last=True)
    assert [grounding.action.text for grounding in found] == phrases
    for grounding, of in zip(found, values):
        assert (grounding.heatmap.values == of).all()


def test_a_new_command_for_the_same_image_leaves_what_was_found() -> None:
    frame = frame_of((48, 64), 1)
    joiner = ResultJoiner()
    phrases = ["open the drawer", "pick up the cup", "pour the milk"]
    for number, phrase in enumerate(phrases):
        values = VALUES * (1 - number / 4)
        feed(joiner, frame, grounding_of(frame, phrase, values=values), command_id=number)
    found = [
        grounding for _, groundings, _ in joiner.results(last=True) for grounding in groundings
    ]
    assert [grounding.action.text for grounding in found] == phrases
    for number, grounding in enumerate(found):
        assert grounding.heatmap.values.max() == pytest.approx(1 - number / 4)
    assert joiner.not_joined == 0


def test_a_new_command_s_heatmap_may_come_before_its_grounding() -> None:
    frame = frame_of((48, 64), 1)
    joiner = ResultJoiner()
    feed(joiner, frame, grounding_of(frame, "open the drawer", values=VALUES))
    later = grounding_of(frame, "pick up the cup", values=VALUES[::-1].copy())
    joiner.on_heatmap(0, build.heatmap(later, 1.0))
    joiner.on_grounding(answer_message(later, command_id=2))
    (_, (first,), _), (_, (second,), _) = joiner.results(last=True)
    assert (first.action.text, second.action.text) == ("open the drawer", "pick up the cup")
    assert (first.heatmap.values == VALUES).all()
    assert (second.heatmap.values == VALUES[::-1]).all()


def test_what_a_new_command_cut_short_is_counted() -> None:
    frame = frame_of((48, 64), 1)
    joiner = ResultJoiner()
    joiner.on_grounding(answer_message(grounding_of(frame, "open the drawer", values=VALUES)))
    feed(joiner, frame, grounding_of(frame, "pick up the cup", values=VALUES), command_id=2)
    ((_, (found,), _),) = joiner.results(last=True)
    assert found.action.text == "pick up the cup"
    assert joiner.not_joined == 1


def test_what_is_answered_once_in_a_while_is_joined() -> None:
    """With ``mode: on_command`` hundreds of images pass between two answers."""
    joiner, joined = ResultJoiner(), []
    for number in range(5 * IMAGES_KEPT):
        frame = frame_of((4, 4), 1 + number, (0, 0, 0))
        joiner.on_image(image_message(frame))
        if number % (2 * IMAGES_KEPT) == 0:
            sent = grounding_of(frame, values=VALUES)
            joiner.on_grounding(answer_message(sent, command_id=number))
            joiner.on_heatmap(0, build.heatmap(sent, 1.0))
        joined += [image.stamp_ns for image, _, _ in joiner.results()]
    joined += [image.stamp_ns for image, _, _ in joiner.results(last=True)]
    assert joined == [1, 1 + 2 * IMAGES_KEPT, 1 + 4 * IMAGES_KEPT]
    assert joiner.not_joined == 0


def test_actions_with_the_same_verb_and_object_are_told_apart_by_their_place() -> None:
    frame = frame_of((48, 64), 1)
    lines = [
        "open the drawer",
        "pick up the cup from the table and pick up the cup from the shelf",
        "open the drawer",
        "wave",
    ]
    sent = [
        replace(grounding_of(frame, values=VALUES), action=action)
        for line in lines
        for action in parse_actions(line)
    ]
    joiner = ResultJoiner()
    feed(joiner, frame, *sent)
    ((_, found, _),) = joiner.results(last=True)
    assert [grounding.action.phrase for grounding in found] == [
        "open the drawer",
        "pick up the cup from the table",
        "pick up the cup from the shelf",
        "open the drawer",
        "wave",
    ]
    assert found[-1].action.object is None


@pytest.mark.parametrize(("verb", "thing"), [("", "red cup"), ("wave", ""), ("grab", "lid")])
def test_verb_and_object_are_the_message_s_whatever_is_parsed_from_its_text(
    verb: str, thing: str
) -> None:
    frame = frame_of((48, 64), 1)
    sent = grounding_of(frame, values=VALUES)
    message = answer_message(sent)
    message.action, message.verb, message.object = "the red cup", verb, thing
    found = answered_with(frame, sent, message)
    assert (found.action.verb, found.action.object) == (verb or None, thing or None)


def test_an_action_whose_heatmap_is_missing_is_waited_for() -> None:
    frame = frame_of((48, 64), 1)
    sent = [grounding_of(frame, phrase, values=VALUES) for phrase in ("open it", "close it")]
    joiner = ResultJoiner()
    feed_answers(joiner, frame, *sent)
    joiner.on_heatmap(0, build.heatmap(sent[0], 1.0))
    assert list(joiner.results(last=True)) == []
    joiner.on_heatmap(1, build.heatmap(sent[1], 1.0))
    assert len(list(joiner.results(last=True))) == 1


@pytest.mark.parametrize(("answers", "heatmaps"), [((0,), (1,)), ((0,), (0, 1)), ((0, 1), (0, 0))])
def test_a_result_is_given_only_where_every_heatmap_has_its_answer_and_the_reverse(
    answers: tuple[int, ...], heatmaps: tuple[int, ...]
) -> None:
    frame = frame_of((48, 64), 1)
    sent = grounding_of(frame, values=VALUES)
    joiner = ResultJoiner()
    joiner.on_image(image_message(frame))
    for index in heatmaps:
        joiner.on_heatmap(index, build.heatmap(sent, 1.0))
    for index in answers:
        joiner.on_grounding(answer_message(sent, index))
    assert list(joiner.results(last=True)) == []
    for index in {0, 1} - {*heatmaps}:
        joiner.on_heatmap(index, build.heatmap(sent, 1.0))
    for index in {0, 1} - {*answers}:
        joiner.on_grounding(answer_message(sent, index))
    ((_, found, _),) = joiner.results(last=True)
    assert len(found) == 2


def test_a_heatmap_that_comes_twice_before_its_result_is_complete_counts_once() -> None:
    frame = frame_of((48, 64), 1)
    sent = [grounding_of(frame, phrase, values=VALUES) for phrase in ("open it", "close it")]
    joiner = ResultJoiner()
    feed_answers(joiner, frame, *sent)
    for index in (0, 0, 1):
        joiner.on_heatmap(index, build.heatmap(sent[index], 1.0))
    assert [len(found) for _, found, _ in joiner.results(last=True)] == [2]


@pytest.mark.parametrize("status", [Status.FOUND, Status.NO_DEPTH, Status.NO_TRANSFORM])
def test_an_answer_whose_position_is_missing_is_joined_as_present(status: Status) -> None:
    frame = frame_of((48, 64), 1)
    sent = grounding_of(frame, values=VALUES)
    message = answer_message(sent)
    message.status = status
    assert answered_with(frame, sent, message).present


def test_a_result_keeps_the_image_that_it_was_of_when_another_has_its_stamp() -> None:
    first, second = frame_of((48, 64), 1, (1, 1, 1)), frame_of((48, 64), 1, (2, 2, 2))
    sent = grounding_of(first, values=VALUES)
    joiner = ResultJoiner()
    joiner.on_image(image_message(first))
    joiner.on_grounding(answer_message(sent))
    joiner.on_image(image_message(second))
    joiner.on_heatmap(0, build.heatmap(sent, 1.0))
    ((image, _, _),) = joiner.results(last=True)
    assert image.image.max() == 1


def test_an_image_that_comes_again_is_the_newest() -> None:
    joiner = ResultJoiner()
    for stamp_ns in (*range(1, IMAGES_KEPT), 1, *range(IMAGES_KEPT, 2 * IMAGES_KEPT - 1)):
        joiner.on_image(image_message(frame_of((4, 4), stamp_ns, (0, 0, 0))))
    assert list(joiner._images) == [1, *range(IMAGES_KEPT, 2 * IMAGES_KEPT - 1)]


def test_a_node_that_is_two_seconds_behind_a_camera_of_30_hz_is_joined() -> None:
    joiner = ResultJoiner()
    frames = [frame_of((4, 4), stamp_ns, (0, 0, 0)) for stamp_ns in range(1, 61)]
    for frame in frames:
        joiner.on_image(image_message(frame))
    sent = [grounding_of(frame, values=VALUES) for frame in frames]
    for grounding in sent:
        joiner.on_grounding(answer_message(grounding))
    for grounding in sent:
        joiner.on_heatmap(0, build.heatmap(grounding, 1.0))
    assert [image.stamp_ns for image, _, _ in joiner.results(last=True)] == [*range(1, 61)]


def test_answers_without_a_point_and_groundings_without_an_image_are_passed_over() -> None:
    frame = frame_of((48, 64), 1)
    joiner = ResultJoiner()
    about = Circumstances(1, "camera", 0, text="...")
    joiner.on_grounding(build.grounding(Answer(Status.NO_IMAGES, "none yet"), about))
    sent = grounding_of(frame, values=VALUES)
    joiner.on_grounding(answer_message(sent))
    joiner.on_heatmap(0, build.heatmap(sent, 1.0))
    for stamp_ns in range(2, 2 + IMAGES_KEPT):
        joiner.on_image(image_message(frame_of((4, 4), stamp_ns, (0, 0, 0))))
    assert list(joiner.results(last=True)) == []
    assert joiner._results == []
    assert joiner.not_joined == 1


@pytest.mark.parametrize(("others", "joined"), [(IMAGES_KEPT - 1, 1), (IMAGES_KEPT, 0)])
def test_a_result_waits_for_its_image_while_as_many_come_as_are_kept(
    others: int, joined: int
) -> None:
    joiner, found = ResultJoiner(), []
    for stamp_ns in range(1001, 1001 + 2 * IMAGES_KEPT):  # which do not count
        joiner.on_image(image_message(frame_of((4, 4), stamp_ns, (0, 0, 0))))
    frame = frame_of((4, 4), 1)
    sent = grounding_of(frame, values=VALUES)
    joiner.on_grounding(answer_message(sent))
    joiner.on_heatmap(0, build.heatmap(sent, 1.0))
    for stamp_ns in range(2, 2 + others):
        joiner.on_image(image_message(frame_of((4, 4), stamp_ns, (0, 0, 0))))
        found += joiner.results(last=True)
    joiner.on_image(image_message(frame))
    found += joiner.results(last=True)
    assert (len(found), joiner.not_joined) == (joined, 1 - joined)


def test_a_result_that_has_its_image_waits_for_its_heatmap_however_many_images_come() -> None:
    joiner, found = ResultJoiner(), []
    frame = frame_of((4, 4), 1)
    sent = grounding_of(frame, values=VALUES)
    joiner.on_image(image_message(frame))
    joiner.on_grounding(answer_message(sent))
    for stamp_ns in range(2, 2 + 2 * IMAGES_KEPT):
        joiner.on_image(image_message(frame_of((4, 4), stamp_ns, (0, 0, 0))))
        found += joiner.results(last=True)
    joiner.on_heatmap(0, build.heatmap(sent, 1.0))
    found += joiner.results(last=True)
    assert [image.stamp_ns for image, _, _ in found] == [1]


@pytest.mark.parametrize("order", ["images first", "heatmaps first", "groundings first"])
def test_every_image_is_joined_in_every_loop_of_a_recording(order: str) -> None:
    joiner, joined = ResultJoiner(), []
    per_loop = 3 * IMAGES_KEPT
    for number in range(3 * per_loop):
        frame = frame_of((4, 4), 1 + number % per_loop, (0, 0, 0))
        sent = grounding_of(frame, values=VALUES)
        steps = [
            lambda frame=frame: joiner.on_image(image_message(frame)),
            lambda sent=sent: joiner.on_grounding(answer_message(sent)),
            lambda sent=sent: joiner.on_heatmap(0, build.heatmap(sent, 1.0)),
        ]
        turn = {"images first": 0, "groundings first": 1, "heatmaps first": 2}[order]
        for step in (*steps[turn:], *steps[:turn]):
            step()
        joined += [
            image.stamp_ns for image, _, _ in joiner.results(last=number == 3 * per_loop - 1)
        ]
    assert joined == [*range(1, per_loop + 1)] * 3
    assert joiner.not_joined == 0


def test_groundings_come_back_with_the_time_of_their_arrival() -> None:
    frame = frame_of((48, 64), 1)
    joiner = ResultJoiner()
    joiner.on_image(image_message(frame))
    for index, phrase in enumerate(("open the drawer", "pick up the cup")):
        sent = grounding_of(frame, phrase, values=VALUES)
        joiner.on_heatmap(index, build.heatmap(sent, 1.0))
        joiner.on_grounding(answer_message(sent, index), received_ns=7 + index)
    ((_, _, received),) = joiner.results(last=True)
    assert [(one.message.action, one.received_ns) for one in received] == [
        ("open the drawer", 7),
        ("pick up the cup", 8),
    ]


def test_memory_is_bounded_whatever_does_not_come_and_what_is_given_up_is_counted() -> None:
    joiner, count = ResultJoiner(), 2 * RESULTS_KEPT
    for stamp_ns in range(1, count + 1):
        sent = grounding_of(frame_of((4, 4), stamp_ns, (0, 0, 0)), values=VALUES)
        joiner.on_grounding(answer_message(sent))
        joiner.on_heatmap(0, build.heatmap(sent, 1.0))
    assert list(joiner.results(last=True)) == []
    kept = [result.stamp_ns for result in joiner._results]
    assert kept == [*range(count - RESULTS_KEPT + 1, count + 1)]  # the latest
    assert joiner.not_joined == count
    for stamp_ns in range(count + 1, count + 2 * IMAGES_KEPT):
        joiner.on_image(image_message(frame_of((4, 4), stamp_ns, (0, 0, 0))))
    assert len(joiner._images) == IMAGES_KEPT


def test_every_answer_that_is_not_joined_counts_and_heatmaps_do_not() -> None:
    joiner = ResultJoiner()
    sent = grounding_of(frame_of((4, 4), 1, (0, 0, 0)), values=VALUES)
    for index in (0, 1):
        joiner.on_grounding(answer_message(sent, index))
    assert joiner.not_joined == 2
    for stamp_ns in range(2, 2 + RESULTS_KEPT):  # the first is given up
        joiner.on_heatmap(0, build.heatmap(replace(sent, stamp_ns=stamp_ns), 1.0))
        assert joiner.not_joined == 2


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("padding", [0, 8])
def test_a_heatmap_comes_in_either_byte_order_and_with_padded_rows(
    order: str, padding: int
) -> None:
    frame = frame_of((48, 64), 1)
    sent = grounding_of(frame, values=VALUES)
    message = build.heatmap(sent, 1.0)
    rows = VALUES.astype(f"{order}f4").view(np.uint8)
    message.data = np.pad(rows, ((0, 0), (0, padding))).reshape(-1)
    message.step, message.is_bigendian = 64 * 4 + padding, int(order == ">")
    joiner = ResultJoiner()
    joiner.on_image(image_message(frame))
    joiner.on_grounding(answer_message(sent))
    joiner.on_heatmap(0, message)
    ((_, (found,), _),) = joiner.results(last=True)
    assert (found.heatmap.values == VALUES).all()


def test_a_heatmap_whose_bytes_are_cut_short_is_refused() -> None:
    message = build.heatmap(grounding_of(frame_of((48, 64)), values=VALUES), 1.0)
    message.data = message.data[:-1]
    with pytest.raises(EncodingError, match="12287 bytes"):
        ResultJoiner().on_heatmap(0, message)


def test_a_heatmap_of_another_encoding_is_refused() -> None:
    with pytest.raises(EncodingError, match="32FC1"):
        ResultJoiner().on_heatmap(0, image_message(frame_of((4, 4))))


@pytest.mark.parametrize(
    ("sec", "nanosec", "expected"),
    [(0, 70_000_000, 70), (2, 1_500_000, 2001.5), (-1, 750_000_000, -250)],
)
def test_durations_are_told_in_milliseconds(sec: int, nanosec: int, expected: float) -> None:
    duration = make("builtin_interfaces/msg/Duration", sec=sec, nanosec=nanosec)
    assert milliseconds(duration) == pytest.approx(expected)

"""Groundings of a replay and of a node, recorded and judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from labelled_bags import (
    HW,
    IMAGES,
    START_NS,
    STORE,
    detection,
    film,
    image,
    labels,
    write_bag,
)
from live_bags import COMMAND, LIVE, live_messages, store_of_all
from rosbags.rosbag2 import StoragePlugin, Writer

from videogem_ros.cli import main
from videogem_ros.core import Grounder
from videogem_ros.core.backbones import Backbone
from videogem_ros.errors import InvalidValueError, RecordingError
from videogem_ros.evaluation.bags import BagDataset, read_labelled_bag
from videogem_ros.evaluation.groundings import RecordedGroundings
from videogem_ros.evaluation.metrics import judge
from videogem_ros.evaluation.recorded import RecordedBench
from videogem_ros.language import parse_actions
from videogem_ros.live.messages import Status

LIFT, PRESS = "lift the cup", "press the button"


def command(text: str, log_ns: int) -> tuple[str, int, Any]:
    return "/action", log_ns, STORE.types["std_msgs/msg/String"](text)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of 6 images at 10 Hz, with labels of two actions, commanded together."""
    messages = [command(COMMAND, START_NS - 1)]
    random = np.random.default_rng(3)
    for number in range(6):
        stamp_ns = START_NS + number * 10**8
        picture = image(stamp_ns)
        picture.data[:] = random.integers(0, 256, picture.data.shape, dtype=np.uint8)
        found = [detection(LIFT, (8, 12), (16, 24), "left"), detection(PRESS, (16, 12), (32, 6))]
        found.append(detection("open the door", (0, 0), (0, 0)))
        messages += [
            (IMAGES, stamp_ns, picture),
            ("/labels", stamp_ns + 1, labels(stamp_ns, *found)),
        ]
    return write_bag(tmp_path_factory.mktemp("noise") / "noise", messages)


@pytest.fixture(scope="module")
def replayed(
    noise: Path, tiny_clip_config: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("replayed") / "out"
    options = ["--backbone", f"openclip:{tiny_clip_config}", "--weights", "random:0"]
    arguments = ["replay", str(noise), "--out", str(out), *options, "--device=cpu", "--every", "2"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return out


def test_a_replay_is_judged_as_the_same_grounding_without_it(
    noise: Path, replayed: Path, tiny_image_backbone: Backbone
) -> None:
    dataset = BagDataset([read_labelled_bag(noise)])
    with RecordedGroundings(replayed) as recorded:
        run = RecordedBench(dataset, [recorded]).run()
    grounder = Grounder(tiny_image_backbone)
    samples = {sample.key: sample for sample in dataset.samples}
    assert len(run.records) == 6  # two actions in every second of six images
    assert run.main == "recorded/fused"
    for record in run.records:
        sample = samples[record.key]
        assert (record.label, record.boxes) == (sample.label, sample.boxes)
        assert (record.groups, record.image_hw) == (sample.groups, HW)
        window, _ = dataset.window(sample, 1)
        # Both at once, as replay does: rounding decides between equal heights of a heatmap.
        both = grounder.ground(window, parse_actions(COMMAND))
        (same,) = [one for one in both if one.action.verb == sample.actions[0].verb]
        for name, point in same.points.items():
            heatmap = same.heatmap.to_image() if name == "fused" else None
            expected = judge((point.x, point.y), heatmap, sample.boxes, HW, same.score)
            outcome = vars(record.outcomes[f"recorded/{name}"])
            assert outcome == pytest.approx(vars(expected), abs=1e-3)
        assert record.outcomes["centre"] == judge((15.5, 11.5), None, sample.boxes, HW)
        np.testing.assert_allclose(record.layer_weights["recorded"], same.layer_weights, atol=1e-5)
    assert run.skipped == {
        "labelled image that was not grounded": 9,
        "labelled action that was not asked for": 3,
    }
    assert run.timing == {"images": 5, "dropped_frames": 2}
    assert run.notes == ("out does not record when groundings arrived: no latency or age",)


def test_lines_alone_will_do(noise: Path, replayed: Path, tmp_path: Path) -> None:
    shutil.copy(replayed / "groundings.jsonl", tmp_path / "own.jsonl")
    dataset = BagDataset([read_labelled_bag(noise)])
    with RecordedGroundings(tmp_path / "own.jsonl") as recorded:
        bench = RecordedBench(dataset, [recorded])
        run = bench.run()
        assert bench.case(run.records[0])[1] is None
    assert len(run.records) == 6
    assert {record.outcomes["recorded/fused"].iou for record in run.records} == {None}


def test_a_case_shows_the_frame_and_its_own_heatmap(noise: Path, replayed: Path) -> None:
    dataset = BagDataset([read_labelled_bag(noise)])
    with RecordedGroundings(replayed) as recorded:
        bench = RecordedBench(dataset, [recorded])
        heatmaps = []
        for record, sample in zip(bench.run().records, dataset.samples):
            picture, heatmap = bench.case(record)
            frame, _ = dataset.window(sample, 1)
            assert picture.shape == (*HW, 3)
            assert heatmap is not None
            assert heatmap.shape == HW
            assert 0 <= heatmap.min() <= heatmap.max() <= 1
            if sample.key == record.key:
                np.testing.assert_array_equal(picture, frame.newest.image)
            heatmaps.append(heatmap.tobytes())
    assert len(set(heatmaps)) == len(heatmaps)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_node_is_judged_with_its_latency(tmp_path: Path, kind: str) -> None:
    box = detection(LIFT, (6, 6), (4, 4))
    away = detection(PRESS, (2, 2), (2, 2))
    messages = film(6, {number: [box, away] for number in range(6)}) + live_messages()
    path = write_bag(tmp_path / "drive", messages, store=store_of_all())
    dataset = BagDataset([read_labelled_bag(path)])
    if kind == "file":
        (path,) = path.glob("*.mcap")
    with RecordedGroundings(path) as recorded:
        run = RecordedBench(dataset, [recorded]).run()
    assert run.backbone == "openclip:ViT-B-16"
    assert [
        (record.label, outcome.hit, outcome.iou, outcome.score)
        for record in run.records
        for outcome in (record.outcomes["recorded/fused"],)
    ] == 3 * [(LIFT, True, 1.0, 0.75), (PRESS, False, 0.0, 0.75)]
    assert run.records[0].action == COMMAND
    assert run.timing is not None
    assert run.timing["latency_ms_median"] == pytest.approx(70)
    assert run.timing["compute_ms_median"] == pytest.approx(40)
    assert run.timing["rate_hz"] == pytest.approx(5)
    assert run.timing["age_ms_max"] == pytest.approx(270)
    assert (run.timing["images"], run.timing["dropped_frames"]) == (5, 2)
    assert not run.notes


def test_heatmaps_may_have_padded_rows_and_either_byte_order(tmp_path: Path) -> None:
    messages = live_messages()
    for topic, _, message in messages:
        if topic.endswith("heatmap"):
            rows = message.data.view("<f4").reshape(message.height, message.width)
            padded = np.pad(rows, ((0, 0), (0, 3)), constant_values=np.nan).astype(">f4")
            message.is_bigendian, message.step = 1, padded.strides[0]
            message.data = padded.reshape(-1).view(np.uint8)
    paths = [
        write_bag(tmp_path / name, film(6, {}) + given, store=store_of_all())
        for name, given in (("usual", live_messages()), ("padded", messages))
    ]
    with RecordedGroundings(paths[0]) as usual, RecordedGroundings(paths[1]) as other:
        for one, same in zip(usual.groundings, other.groundings, strict=True):
            np.testing.assert_array_equal(other.heatmap(same), usual.heatmap(one))


def test_each_grounding_has_the_heatmap_of_its_stamp_among_others_of_its_topic(
    tmp_path: Path,
) -> None:
    messages = []
    for number, (topic, logged_ns, message) in enumerate(live_messages()):
        if topic.endswith("heatmap"):
            message.data = (message.data.view("<f4") * (number + 1) / 16).view(np.uint8)
            picture = image(START_NS + number // 4 * 2 * 10**8)
            together = enumerate((picture, message, picture), START_NS + 10**9)
            messages += [(topic, log_ns, content) for log_ns, content in together]
        else:
            messages.append((topic, logged_ns, message))
    path = write_bag(tmp_path / "live", messages, store=store_of_all())
    with RecordedGroundings(path) as recorded:
        tops = [recorded.heatmap(grounding).max() for grounding in recorded.groundings]
    assert tops == [2 / 16, 4 / 16, 6 / 16, 8 / 16, 10 / 16, 12 / 16]


def test_layer_weights_are_those_of_verb_object_and_action_in_turn(tmp_path: Path) -> None:
    messages = live_messages()
    for _, _, message in messages[::2]:
        for number, kind in enumerate(("verb", "object", "action"), 1):
            setattr(message, f"layer_weights_{kind}", np.full(2, number, np.float32))
    with RecordedGroundings(write_bag(tmp_path / "live", messages, store=LIVE)) as recorded:
        weights = {grounding.layer_weights for grounding in recorded.groundings}
    assert weights == {((1, 1), (2, 2), (3, 3))}


def test_a_message_that_is_cut_short_and_a_node_that_is_silent_are_passed_over(
    tmp_path: Path,
) -> None:
    groundings = live_messages()[::2]
    msgtype, path = groundings[0][2].__msgtype__, tmp_path / "live"
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.add_connection("/other/grounding", msgtype, typestore=LIVE)
        speaking = writer.add_connection("/robot/grounding", msgtype, typestore=LIVE)
        for number, (_, log_ns, message) in enumerate(groundings):
            raw = bytes(LIVE.serialize_cdr(message, msgtype))
            writer.write(speaking, log_ns, raw[:40] if number == 1 else raw)
    with RecordedGroundings(path) as recorded:
        assert [grounding.index for grounding in recorded.groundings] == [0, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no groundings in it"),
        ("{", "own.jsonl line 1: expected a grounding as replay writes it"),
        ('{"stamp_ns": 1}', "own.jsonl line 1, action: expected a string, got nothing"),
        ("3", "own.jsonl line 1: expected a grounding"),
        (b"\xff", "cannot be read"),
        (None, "neither a bag nor a folder with groundings.jsonl"),
    ],
)
def test_what_holds_no_groundings_is_refused(
    tmp_path: Path, content: str | bytes | None, message: str
) -> None:
    path = tmp_path / "own.jsonl"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises((RecordingError, InvalidValueError), match=message):
        RecordedGroundings(path)


POINTS = {name: {"x": 1, "y": 2.5} for name in ("fused", "verb", "object", "action")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stamp_ns": "1"}, "stamp_ns: expected nanoseconds, an integer, got '1'"),
        ({"stamp_ns": 10**30}, "stamp_ns: expected nanoseconds, an integer"),
        ({"stamp_ns": 2**63}, "stamp_ns: expected nanoseconds, an integer"),
        ({"stamp_ns": -1}, "stamp_ns: expected nanoseconds, an integer, got -1"),
        ({"action": None}, "action: expected a string, got None"),
        ({"verb": 7}, "verb: expected a string or null, got 7"),
        ({"object": []}, "object: expected a string or null"),
        ({"points": 3}, "points: expected numbers x and y of fused, verb, object, action, got 3"),
        ({"points": {"fused": {"x": 1, "y": 2}}}, "points: expected numbers x and y"),
        ({"points": {**POINTS, "verb": {"x": float("nan"), "y": 2}}}, "points: expected numbers"),
        ({"points": {**POINTS, "verb": {"x": "1", "y": 2}}}, "points: expected numbers x and y"),
        ({"score": float("nan")}, "score: expected a number from 0 to 1, got nan"),
        ({"score": -0.1}, "score: expected a number from 0 to 1, got -0.1"),
        ({"score": 1.5}, "score: expected a number from 0 to 1, got 1.5"),
        ({"image_hw": [24]}, "image_hw: expected height and width in pixels, integers, got [24]"),
        ({"image_hw": [24, "32"]}, "image_hw: expected height and width in pixels"),
        ({"layer_weights": [1, 2]}, "layer_weights: expected a list of lists of numbers"),
        ({"layer_weights": [[None]]}, "layer_weights: expected a list of lists of numbers"),
        ({"received_ns": "x"}, "received_ns: expected nanoseconds, an integer, or null, got 'x'"),
        ({"latency_ms": float("inf")}, "latency_ms: expected a number or null, got inf"),
        ({"received_ns": 1.5}, "received_ns: expected nanoseconds, an integer, or null, got 1.5"),
        ({"latency_ms": 2.0**63}, "latency_ms: expected a number or null"),
        ({"latency_ms": float("-inf")}, "latency_ms: expected a number or null, got -inf"),
        ({"compute_ms": True}, "compute_ms: expected a number or null, got True"),
        ({"backbone": None}, "backbone: expected a string, got None"),
    ],
)
def test_a_field_of_a_line_that_is_wrong_is_named(
    replayed: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    lines = (replayed / "groundings.jsonl").read_text().splitlines()
    wrong = json.dumps(json.loads(lines[1]) | change)
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join((lines[0], wrong)))
    with pytest.raises(InvalidValueError) as caught:
        RecordedGroundings(path)
    assert str(caught.value).startswith(f"own.jsonl line 2, {message}")


@pytest.mark.parametrize(
    "change",
    [
        {"score": 0},
        {"score": 1},
        {"stamp_ns": 0},
        {"stamp_ns": 2**63 - 1},
        {"latency_ms": -0.5},
        {"compute_ms": 0.5, "latency_ms": 1.5},
    ],
    ids=str,
)
def test_the_ends_of_a_field_s_range_are_read(
    replayed: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    line = (replayed / "groundings.jsonl").read_text().splitlines()[0]
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(json.loads(line) | change))
    with RecordedGroundings(path) as recorded:
        (found,) = recorded.groundings
    assert {name: getattr(found, name) for name in change} == change


def test_verb_and_object_that_are_null_are_empty(replayed: Path, tmp_path: Path) -> None:
    line = (replayed / "groundings.jsonl").read_text().splitlines()[0]
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(json.loads(line) | {"verb": None, "object": None}))
    with RecordedGroundings(path) as recorded:
        (found,) = recorded.groundings
    assert (found.verb, found.object) == ("", "")


def test_a_text_may_hold_what_unicode_calls_a_line_break(replayed: Path, tmp_path: Path) -> None:
    line = json.loads((replayed / "groundings.jsonl").read_text().splitlines()[0])
    line["action"] = "lift\N{LINE SEPARATOR}the\N{NEXT LINE}cup"
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    with RecordedGroundings(path) as recorded:
        (found,) = recorded.groundings
    assert found.action == line["action"]


def test_a_bag_without_groundings_or_with_those_of_several_nodes_is_refused(
    tmp_path: Path,
) -> None:
    path = write_bag(tmp_path / "none", film(1, {}))
    with pytest.raises(RecordingError, match="no messages of videogem_ros/msg/ActionGrounding"):
        RecordedGroundings(path)
    messages = live_messages()
    messages += [("/other/grounding", log_ns, message) for _, log_ns, message in messages[::2]]
    path = write_bag(tmp_path / "two", messages, store=LIVE)
    with pytest.raises(RecordingError, match="several nodes' groundings in it: /other/grounding"):
        RecordedGroundings(path)
    path = write_bag(tmp_path / "idle", live_messages(Status.NO_COMMAND), store=LIVE)
    with pytest.raises(RecordingError, match="no groundings in it"):
        RecordedGroundings(path)


def test_groundings_of_other_images_are_refused_with_the_reason(
    replayed: Path, tmp_path: Path
) -> None:
    path = write_bag(
        tmp_path / "drive", film(2, {1: [detection(LIFT, (5, 5), (2, 2))]}, period_ns=5)
    )
    dataset = BagDataset([read_labelled_bag(path)])
    lines = (replayed / "groundings.jsonl").read_text().splitlines()
    small = json.loads(lines[0]) | {"stamp_ns": START_NS + 5, "image_hw": [12, 16]}
    (tmp_path / "small.jsonl").write_text(json.dumps(small))
    with RecordedGroundings(replayed) as recorded:
        with pytest.raises(RecordingError, match="1 x labelled image that was not grounded"):
            RecordedBench(dataset, [recorded]).run()
        with pytest.raises(InvalidValueError, match="one for each of the 1 bags"):
            RecordedBench(dataset, [recorded, recorded])
    with (
        RecordedGroundings(tmp_path / "small.jsonl") as recorded,
        pytest.raises(RecordingError, match="in an image of another size, 16 x 12"),
    ):
        RecordedBench(dataset, [recorded]).run()

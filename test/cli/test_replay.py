"""``videogem-ros replay``, run for real on a small seeded backbone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from recordings import CLIP_FRAMES, texts, write_recording
from rosbags.rosbag2 import Reader

from videogem_ros.adapters.bag import open_source
from videogem_ros.adapters.bag.results import RESULTS
from videogem_ros.cli import main
from videogem_ros.cli.replay import _Pace
from videogem_ros.cli.signals import interruptible
from videogem_ros.core import Grounder
from videogem_ros.core.backbones import Backbone
from videogem_ros.datatypes import Frame, Window
from videogem_ros.language import parse_actions

MUG = ("--action", "pick up the red mug")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("recording"))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["replay", *map(str, arguments)])


def groundings(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "groundings.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def frames_of(path: Path) -> list[Frame]:
    with open_source(path) as source:
        return [event for event in source if isinstance(event, Frame)]


@pytest.fixture(scope="module")
def whole(
    sample: Path, untrained: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Result, Path]:
    """The sample with all of its frames and its own commands: what was said, and the results."""
    out = tmp_path_factory.mktemp("whole") / "out"
    result = invoke(sample, "--out", out, *untrained)
    assert result.exit_code == 0, result.output
    return result, out


def test_every_frame_is_grounded_for_the_command_that_stood_then(
    sample: Path, whole: tuple[Result, Path], tiny_image_backbone: Backbone
) -> None:
    found = groundings(whole[1])
    first, second = texts()
    assert [line["action"] for line in found] == [first] * CLIP_FRAMES + [second] * CLIP_FRAMES
    frames = frames_of(sample)
    assert [line["stamp_ns"] for line in found] == [frame.stamp_ns for frame in frames]
    # The same grounding without session and command line.
    grounder = Grounder(tiny_image_backbone)
    for place, text in ((0, first), (30, second)):
        (expected,) = grounder.ground(Window((frames[place],)), parse_actions(text))
        assert found[place]["points"]["fused"]["x"] == pytest.approx(expected.point.x, abs=1e-3)
        assert found[place]["points"]["fused"]["y"] == pytest.approx(expected.point.y, abs=1e-3)
        assert found[place]["score"] == pytest.approx(expected.score, abs=1e-4)


def test_the_report_says_what_happened_and_that_nothing_was_learnt(
    whole: tuple[Result, Path],
) -> None:
    result, _ = whole
    assert "40 read" in result.stdout
    assert "40 windows" in result.stdout
    assert "ms each" in result.stdout
    assert all(name in result.stdout for name in RESULTS)
    assert "warning: untrained weights: the points mean nothing" in result.stderr


def test_the_same_input_gives_the_same_lines(
    sample: Path, untrained: list[str], whole: tuple[Result, Path], tmp_path: Path
) -> None:
    assert invoke(sample, "--out", tmp_path, *untrained, "--every", 5).exit_code == 0
    lines = (whole[1] / "groundings.jsonl").read_bytes().splitlines()
    assert (tmp_path / "groundings.jsonl").read_bytes().splitlines() == lines[::5]


@pytest.mark.parametrize(
    ("option", "frames"),
    [
        (("--every", 8), range(0, 40, 8)),
        (("--max-rate-hz", 2), range(0, 40, 5)),
        (("--every", 10, "--max-rate-hz", 2), range(0, 40, 10)),
    ],
)
def test_fewer_frames_may_be_asked_for(
    sample: Path, untrained: list[str], tmp_path: Path, option: tuple[object, ...], frames: range
) -> None:
    assert invoke(sample, "--out", tmp_path, *untrained, *MUG, *option).exit_code == 0
    stamps = [frame.stamp_ns for frame in frames_of(sample)]
    expected = [stamps[place] for place in frames]
    assert [line["stamp_ns"] for line in groundings(tmp_path)] == expected


def test_the_pace_bears_jitter_and_time_that_jumps_back() -> None:
    pace = _Pace(every=1, max_rate_hz=10)
    stamps_ms = [0, 98, 201, 250, 299, 5, 50, 106]
    assert [ms for ms in stamps_ms if pace.due(ms * 10**6)] == [0, 98, 201, 299, 5, 106]


def test_several_actions_are_grounded_in_every_frame(
    sample: Path, untrained: list[str], tmp_path: Path
) -> None:
    actions = ("--action", "grasp the plate", "--action", "take the mug and wash it")
    result = invoke(sample, "--out", tmp_path, *untrained, *actions, "--every", 20)
    assert result.exit_code == 0, result.output
    assert [(line["verb"], line["object"]) for line in groundings(tmp_path)] == [
        ("grasp", "plate"),
        ("take", "mug"),
        ("wash", "mug"),
    ] * 2
    with Reader(tmp_path) as reader:
        topics = {c.topic for c in reader.connections if c.topic.endswith("heatmap")}
    assert topics == {f"/videogem{name}/heatmap" for name in ("", "/action_2", "/action_3")}


def test_a_video_goes_in_as_well(
    untrained: list[str], whole: tuple[Result, Path], tmp_path: Path
) -> None:
    video = whole[1] / "overlay.mp4"
    result = invoke(video, "--out", tmp_path, *untrained, *MUG, "--every", 10)
    assert result.exit_code == 0, result.output
    stamps = [line["stamp_ns"] for line in groundings(tmp_path)]
    assert np.diff(stamps) == pytest.approx([1e9] * 3, rel=1e-3)
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    assert times == pytest.approx([0, 1, 2, 3], abs=1e-3)


def test_what_is_not_grounded_is_counted_by_reason(untrained: list[str], tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        cv2.imwrite(str(images / f"{number}.png"), np.full((40, 60, 3), 80 * number, np.uint8))
    (images / "1.png").write_bytes(b"no image")
    result = invoke(images, "--out", tmp_path / "out", *untrained, *MUG)
    assert result.exit_code == 0, result.output
    assert "2 read" in result.stdout
    assert "1 unreadable: 1.png: expected a complete" in " ".join(result.stdout.split())
    assert "grounded  2 windows, " in result.stdout
    assert len(groundings(tmp_path / "out")) == 2


@pytest.mark.parametrize("weighting", ["uniform", "static", "dynamic"])
def test_options_reach_the_grounder(
    sample: Path, untrained: list[str], tmp_path: Path, weighting: str
) -> None:
    options = ("--every", 40, "--weighting", weighting, "--threshold", 1, "--verb-form", "gerund")
    result = invoke(sample, "--out", tmp_path, *untrained, *MUG, *options)
    assert result.exit_code == 0, result.output
    (line,) = groundings(tmp_path)
    weights = np.array(line["layer_weights"])
    static = np.array((0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.9, 0.9))
    assert (weighting == "uniform") == bool((weights == 1).all())
    assert (weighting == "static") == np.allclose(weights, static)
    assert line["prompts"]["verb"] == "A photo of a person picking up something."
    assert line["present"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/none", "--action", "go"], "no such file or folder"),
        (["{tmp}/text.txt", "--action", "go"], "not a bag, and not a video either"),
        (["{sample}", "--action", "..."], "action: expected a text with words"),
        (["{sample}", "--action", " "], "--action: expected a text with words"),
        (["{sample}", "--image-topic", "/other"], "no messages on /other"),
        (["{sample}", "--backbone", "foo"], "backbone: expected one of"),
        (["{sample}", "--weights", "none.pt"], "weights 'none.pt'"),
        (["{sample}", "--dtype", "int8"], "dtype: expected one of"),
        (["{sample}", "--device", "abacus"], "device: expected an available torch device"),
        (["{sample}", "--image-hw", "60", "64"], "image_hw: expected multiples of the patch"),
        (["{tmp}/images"], "no action topic in it; give --action TEXT"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(
    sample: Path, untrained: list[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0.png"), np.zeros((4, 4, 3), np.uint8))
    named = [argument.format(sample=sample, tmp=tmp_path) for argument in arguments]
    result = invoke(*untrained, *named, "--out", tmp_path / "out")
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert line.startswith("Error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_an_action_and_an_action_topic_exclude_each_other(sample: Path, tmp_path: Path) -> None:
    result = invoke(sample, *MUG, "--action-topic", "/action", "--out", tmp_path)
    assert result.exit_code == 2
    assert "not both" in result.stderr


def test_a_command_without_words_is_counted_and_the_last_one_stands(
    untrained: list[str], tmp_path: Path
) -> None:
    from videogem_ros.adapters.bag.tabletop import ACTION_TOPIC, IMAGE_TOPIC
    from videogem_ros.adapters.bag.writing import BagWriter, header
    from videogem_ros.encodings import image_message_fields

    bag = BagWriter(tmp_path / "bag")
    for number, text in enumerate(["", "open the door", "[/]", ""]):
        stamp_ns = (number + 1) * 10**8
        if text or number == 3:
            bag.write(ACTION_TOPIC, "std_msgs/msg/String", stamp_ns - 1, data=text)
        image = image_message_fields(np.full((24, 32, 3), 60 * number, np.uint8), "rgb8")
        head = header(stamp_ns, "camera")
        bag.write(IMAGE_TOPIC, "sensor_msgs/msg/Image", stamp_ns, header=head, **image)
    bag.close()
    out = tmp_path / "results [bold]of a long name[/bold]" / ("x" * 200)
    result = invoke(tmp_path / "bag", "--out", out, *untrained)
    assert result.exit_code == 0, result.output
    found = [(line["action"], line["stamp_ns"]) for line in groundings(out)]
    assert found == [("open the door", 2 * 10**8), ("open the door", 3 * 10**8)]
    report = " ".join(result.stdout.split())
    assert "2 not grounded: no command" in report
    assert "command not understood" in report
    assert "'[/]'" in report
    assert str(out).replace(" ", "") in "".join(result.stdout.split())


def test_results_are_replaced_by_force_only(
    sample: Path, untrained: list[str], tmp_path: Path
) -> None:
    few = ("--every", 20, *MUG)
    assert invoke(sample, "--out", tmp_path, *untrained, *few).exit_code == 0
    again = invoke(sample, "--out", tmp_path, *untrained, *few)
    assert again.exit_code == 1
    assert "--force" in again.stderr
    forced = invoke(sample, "--out", tmp_path, *untrained, *few, "--force", "--every", 40)
    assert forced.exit_code == 0
    assert len(groundings(tmp_path)) == 1


@pytest.mark.parametrize("read", ["", "overlay.mp4", "groundings.mcap"])
def test_results_do_not_replace_what_is_read(
    sample: Path, untrained: list[str], tmp_path: Path, read: str
) -> None:
    few = ("--every", 20, *MUG)
    assert invoke(sample, "--out", tmp_path, *untrained, *few).exit_code == 0
    before = (tmp_path / "groundings.mcap").read_bytes()
    again = invoke(tmp_path / read, "--out", tmp_path, *untrained, *few, "--force")
    assert again.exit_code == 1
    assert "--out: expected a file other than the input" in again.stderr
    assert (tmp_path / "groundings.mcap").read_bytes() == before


def test_an_interrupt_leaves_a_valid_shorter_result(untrained: list[str], tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    cv2.imwrite(str(images / "0.png"), np.zeros((240, 320, 3), np.uint8))
    for place in range(1, 2000):
        os.link(images / "0.png", images / f"{place}.png")
    code = "from videogem_ros.cli import main; main()"
    arguments = ["replay", str(images), "--out", str(out), *untrained, *MUG]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_lines(out)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert sorted(path.name for path in out.iterdir()) == sorted(RESULTS)
    count = len(groundings(out))
    assert 0 < count < 2000
    assert f"{count} windows" in stdout
    with Reader(out) as reader:
        assert reader.message_count == 4 * count
    with av.open(str(out / "overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == count
    assert cv2.imread(str(out / "contact_sheet.png")) is not None


def wait_for_lines(out: Path) -> None:
    """Until the run has written lines to a temporary file."""
    for _ in range(600):
        if any(path.stat().st_size for path in out.glob(".partial-*/*/groundings.jsonl")):
            return
        time.sleep(0.1)
    raise TimeoutError("no line within a minute")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_ends(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with interruptible() as signals:
        signal.raise_signal(number)
        assert signals == [number]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_an_interrupt_before_the_first_window_leaves_nothing(
    sample: Path, untrained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("videogem_ros.cli.replay.load_session", interrupted)
    result = invoke(sample, "--out", tmp_path / "out", *untrained)
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["snow_compressed_sqlite3", "snow_raw_mcap", "snow_rgbd_zstd"])
def test_real_recordings_run_through(
    shared: Path, untrained: list[str], tmp_path: Path, name: str
) -> None:
    result = invoke(shared / "bags" / name, "--out", tmp_path, *untrained, "--every", 12)
    assert result.exit_code == 0, result.output
    frames = {frame.stamp_ns: frame for frame in frames_of(shared / "bags" / name)}
    for line in groundings(tmp_path):
        frame = frames[line["stamp_ns"]]
        assert (line["frame_id"], tuple(line["image_hw"])) == (frame.frame_id, frame.hw)


def test_help_needs_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys\nfrom videogem_ros.cli import main\n"
        "main(['replay', '--help'], standalone_mode=False)\n"
        "print({'torch', 'cv2', 'spacy', 'rosbags', 'av'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "set()"


def test_a_lone_file_of_results_is_a_recording_too(
    untrained: list[str], whole: tuple[Result, Path], tmp_path: Path
) -> None:
    lone = tmp_path / "lone.mcap"
    shutil.copy(whole[1] / "groundings.mcap", lone)
    topic = ("--image-topic", "/videogem/overlay/compressed")
    result = invoke(lone, "--out", tmp_path / "out", *untrained, *MUG, *topic, "--every", 20)
    assert result.exit_code == 0, result.output
    assert len(groundings(tmp_path / "out")) == 2

"""The live job over loopback DDS with real processes: node, player, recorder, and this one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

pytest.importorskip("cyclonedds", reason="the DDS binding is not installed")

from dds_domains import own_domain, participant, spin_for, spin_until
from example_groundings import frame_of, grounding_of
from processes import START_S, Process
from recordings import CLIP_FRAMES, FRAMES, RATE_HZ, clips, texts, write_recording
from tiny import ROOT, SMALL_CLIP

from videogem_ros.adapters.bag import vision
from videogem_ros.adapters.bag.storage import Storage
from videogem_ros.adapters.bag.tabletop import START_NS
from videogem_ros.adapters.dds.participant import Participant, Publisher
from videogem_ros.adapters.dds.qos import DEFAULT, LATCHED, SENSOR_DATA
from videogem_ros.cli import main
from videogem_ros.cli.demo import CLIPS
from videogem_ros.cli.play import _known
from videogem_ros.datatypes import PROMPT_KINDS
from videogem_ros.encodings import header_stamp_ns, image_message_fields
from videogem_ros.evaluation.report import read_results
from videogem_ros.live.messages import Answer, Circumstances, MessageBuilder, Status
from videogem_ros.live.types import typestore

GROUNDING = "videogem_ros/msg/ActionGrounding"
IMAGE, STRING = "sensor_msgs/msg/Image", "std_msgs/msg/String"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA, LABELS = "/camera/image_raw", "/labels"
PATCHES = 4
"""Across and down in the tiny backbone."""

Start = Callable[..., Process]


def make(kind: str, /, **fields: Any) -> Any:
    return typestore().types[kind](**fields)


build = MessageBuilder(make)


@pytest.fixture(autouse=True)
def domain(monkeypatch: pytest.MonkeyPatch) -> str:
    number = own_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", number)
    return number


@pytest.fixture
def start(domain: str, tmp_path: Path) -> Iterator[Start]:
    """Starts commands of the package on a graph of this test's own; they end with it."""
    started: list[Process] = []

    def start(command: str, *arguments: object, local: bool = True) -> Process:
        words = [sys.executable, "-m", "videogem_ros", command, *map(str, arguments)]
        words += ["--interface", "local"] if local else []
        env = {**os.environ, "ROS_DOMAIN_ID": domain, "OMP_NUM_THREADS": "2"}
        started.append(Process(words, env, tmp_path / f"{len(started)}-{command}.log"))
        return started[-1]

    yield start
    for process in reversed(started):
        process.end()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("recordings"))


@pytest.fixture
def tiny(tiny_clip_config: Path) -> tuple[str, ...]:
    backbone = f"openclip:{tiny_clip_config}"
    return ("--backbone", backbone, "--weights", "random:0", "--device", "cpu")


@pytest.fixture
def peer() -> Iterator[Participant]:
    with participant("peer") as peer:
        yield peer


def listen(peer: Participant, topic: str, kind: str) -> list[Any]:
    """Messages of a topic, as they come."""
    heard: list[Any] = []
    peer.subscribe(topic, kind, DEFAULT, heard.append)
    return heard


def image(stamp_ns: int, hw: tuple[int, int] = (120, 160), seed: int = 0) -> Any:
    pixels = np.random.default_rng(seed).integers(0, 255, (*hw, 3), np.uint8)
    head = build.header(stamp_ns, "camera_optical_frame")
    return make(IMAGE, header=head, **image_message_fields(pixels, "rgb8"))


def say(publisher: Publisher, text: str) -> None:
    publisher.publish(make(STRING, data=text))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "groundings.jsonl").read_text().splitlines()]


def seconds(duration: Any) -> float:
    return float(duration.sec + duration.nanosec * 1e-9)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_that_waits_for_its_weights_ends_at_once(
    start: Start, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hub:  # which never answers
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        node = start("node", "--backbone", "openclip:ViT-B-16")
        hub.settimeout(START_S)
        connection, _ = hub.accept()
        with connection:
            assert node.interrupt(number=number) == 128 + number, node.output
    assert "Traceback" not in node.output


def test_a_demo_that_is_terminated_leaves_nothing(
    start: Start, tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    out = tmp_path / "out"
    demo = start("demo", "--out", out, *tiny[:4], local=False)
    demo.wait_for("listens")
    assert demo.interrupt(60.0, signal.SIGTERM) == 128 + signal.SIGTERM, demo.output
    assert demo.members() == []
    assert [*scratch.iterdir()] == []
    assert not out.exists()


def test_a_drawing_that_is_terminated_leaves_nothing(start: Start, tmp_path: Path) -> None:
    drawing = start("tabletop", "--out", tmp_path / "drawn", "--clips", 500, local=False)
    deadline_s = time.monotonic() + START_S
    while not (begun := [*tmp_path.rglob("*.mcap")]):
        assert time.monotonic() < deadline_s, drawing.output
        time.sleep(0.05)
    assert drawing.interrupt(number=signal.SIGTERM) == 128 + signal.SIGTERM, drawing.output
    assert not begun[0].exists()
    assert [path.suffix for path in tmp_path.iterdir()] == [".log"]


def test_a_command_whose_saying_is_interrupted_is_not_said(start: Start) -> None:
    saying = start("say", "open the drawer", "--timeout", 60)
    time.sleep(3.0)  # in which it begins to wait
    assert saying.interrupt() == 128 + signal.SIGINT, saying.output
    assert "nothing was" in saying.output


def test_node_player_and_recorder_find_what_replay_finds(
    start: Start, recording: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    node = start("node", *tiny, "--remap", f"image:={CAMERA}")
    live, replayed = tmp_path / "live", tmp_path / "replayed"
    recorder = start("record", "--out", live, "--image", CAMERA, "--labels", LABELS)
    replay = CliRunner().invoke(main, ["replay", str(recording), "--out", str(replayed), *tiny])
    assert replay.exit_code == 0, replay.output
    waits = [word for topic in (CAMERA, LABELS, "/action") for word in ("--wait-for", topic)]
    player = start("play", recording, *waits)
    assert player.wait(90) == 0, player.output
    time.sleep(1.0)
    assert recorder.interrupt() == 0, recorder.output
    assert node.interrupt(number=signal.SIGTERM) == 0, node.output

    expected = {(line["stamp_ns"], line["action"]): line for line in lines(replayed)}
    found = {(line["stamp_ns"], line["action"]): line for line in lines(live)}
    # A new command is answered at once, with the image that was there before it.
    common = found.keys() & expected.keys()
    assert len(found) - len(common) <= len(texts())
    assert len(common) > FRAMES // 2
    assert {action for _, action in common} == set(texts())
    for key in common:
        assert_same(found[key], expected[key])
    assert texts()[0] in recorder.output
    hits = [hit for line in found.values() for hit in hits_of(line)]
    right = sum(hits)
    (last,) = re.findall(r"^all .* (\d+ of \d+) *$", recorder.output, re.MULTILINE)
    assert last == f"{right} of {len(hits)}"
    assert len(found) - len(hits) <= len(texts())
    assert all(line["received_ns"] > time.time_ns() - 300 * 10**9 for line in found.values())
    judge = ["evaluate", "bag", str(recording), "--groundings", str(live)]
    judged = CliRunner().invoke(main, [*judge, "--out", str(tmp_path)])
    assert judged.exit_code == 3, judged.output  # the frames before the first command
    records = read_results(tmp_path / "results.json").records
    assert sum(bool(record.outcomes["recorded/fused"].hit) for record in records) == right


def jpeg(stamp_ns: int, hw: tuple[int, int]) -> Any:
    data = cv2.imencode(".jpg", np.zeros((*hw, 3), np.uint8))[1]
    head = build.header(stamp_ns, "camera_optical_frame")
    return make(COMPRESSED, header=head, format="jpeg", data=data.ravel())


@pytest.mark.parametrize(
    ("topic", "kind", "picture"),
    [(CAMERA, IMAGE, image), (f"{CAMERA}/compressed", COMPRESSED, jpeg)],
    ids=["raw", "compressed"],
)
def test_the_recorder_tells_how_many_groundings_it_left_out(
    topic: str,
    kind: str,
    picture: Callable[[int, tuple[int, int]], Any],
    start: Start,
    peer: Participant,
    tmp_path: Path,
) -> None:
    recorder = start("record", "--out", tmp_path / "live", "--image", topic, "--idle", 3)
    camera = peer.advertise(topic, kind, SENSOR_DATA)
    groundings = peer.advertise("/videogem/grounding", GROUNDING, DEFAULT)
    heatmaps = peer.advertise("/videogem/heatmap", IMAGE, DEFAULT)
    publishers = (camera, groundings, heatmaps)
    spin_until(lambda: all(publisher.subscribers for publisher in publishers), peer)
    for stamp_ns in range(1, 6):
        frame = frame_of((48, 64), stamp_ns)
        found = grounding_of(frame)
        camera.publish(picture(stamp_ns, (48, 64)))
        if stamp_ns != 3:
            heatmaps.publish(build.heatmap(found, 1.0))
        about = Circumstances(stamp_ns, frame.frame_id, stamp_ns, 1)
        for index in (0, 4) if stamp_ns == 1 else (0,):
            answer = Answer(Status.FOUND, "", found.action, index, found)
            groundings.publish(build.grounding(answer, about))
        spin_for(0.2, peer)
    assert recorder.wait(90) == 0, recorder.output
    assert [line["stamp_ns"] for line in lines(tmp_path / "live")] == [1, 2, 4, 5]
    assert "left out 1: groundings whose image, of the same stamp, or heatmap" in recorder.output
    assert "left out 1: groundings of more actions than --max-actions" in recorder.output


def test_a_recorder_that_hears_nothing_fails_in_time(start: Start, tmp_path: Path) -> None:
    recorder = start("record", "--out", tmp_path / "live", "--image", CAMERA, "--timeout", 1)
    assert recorder.wait(90) == 1
    assert f"Error: no groundings of /videogem with images of {CAMERA}\n" in recorder.output
    assert not (tmp_path / "live").exists()


def hits_of(grounding: dict[str, Any]) -> list[bool]:
    """Whether a point is in the box of its action, as the scenes tell; none where it is another's.

    As of a command that is answered with the last image of the scene before.
    """
    place = (grounding["stamp_ns"] - START_NS) * RATE_HZ // 10**9
    x, y = (grounding["points"]["fused"][axis] for axis in "xy")
    return [
        bool(x1 <= x <= x2 and y1 <= y <= y2)
        for action in clips()[place // CLIP_FRAMES].performed
        if action.texts[0] == grounding["action"]
        for x1, y1, x2, y2 in (action.action_boxes[place % CLIP_FRAMES],)
    ]


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    certain = True
    for name in PROMPT_KINDS:
        for axis, side in (("x", 1), ("y", 0)):
            one, other = (grounding["points"][name][axis] for grounding in (found, expected))
            # Half a patch along the border a heatmap is level: rounding chooses the peak.
            length = expected["image_hw"][side]
            border = length / PATCHES / 2
            level = [min(at, length - at) < border for at in (one, other)]
            assert one == pytest.approx(other, abs=border if all(level) else 1e-3)
            certain = certain and not all(level)
    if certain:
        assert found["points"]["fused"] == pytest.approx(expected["points"]["fused"], abs=1e-3)
    for name in ("score", "layer_weights", "prompt_probabilities"):
        assert np.ravel(found[name]) == pytest.approx(np.ravel(expected[name]), abs=1e-4)
    for name in ("verb", "object", "image_hw", "frame_id", "window_start_ns", "window_end_ns"):
        assert found[name] == expected[name]


def overshoot_s(wait_s: float, peer: Participant) -> float:
    """Spin at most so long; how much longer it took, as where the whole machine pauses."""
    begin_s = time.monotonic()
    peer.spin(wait_s)
    return time.monotonic() - begin_s - wait_s


@pytest.mark.alone
def test_under_ten_times_too_many_images_the_newest_is_answered_for_the_newest_command(
    start: Start, tmp_path: Path, peer: Participant
) -> None:
    config = tmp_path / "small.json"
    config.write_text(json.dumps(SMALL_CLIP))
    parameters = tmp_path / "parameters.yaml"
    values = {"backbone": f"openclip:{config}", "weights": "random:0", "device": "cpu"}
    parameters.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
    names = ("--namespace", "/robot", "--name", "eyes", "--remap", "image:=/head/camera")
    node = start("node", "--config", parameters, *names, "--remap", "~/grounding:=found")
    heard = listen(peer, "/robot/found", GROUNDING)
    camera = peer.advertise("/head/camera", IMAGE, SENSOR_DATA)
    action = peer.advertise("/robot/action", STRING, DEFAULT)
    node.wait_for("listens")
    spin_until(lambda: camera.subscribers and action.subscribers, peer)

    say(action, "pick up the cup")
    for _ in range(5):
        count = len(heard)
        camera.publish(image(time.time_ns()))
        spin_until(lambda count=count: len(heard) > count, peer)
    compute_s = statistics.median(seconds(answer.compute_time) for answer in heard)

    heard.clear()
    period_s = compute_s / 10
    begin_s, changed_ns = time.monotonic(), 0
    sent, pause_s = 0, 0.0
    while (elapsed_s := time.monotonic() - begin_s) < 16 * compute_s:
        camera.publish(image(time.time_ns(), seed=sent % 8))
        sent += 1
        if not changed_ns and elapsed_s > 8 * compute_s:
            changed_ns = time.time_ns()
            say(action, "open the drawer")
        wait_s = max(0.0, begin_s + sent * period_s - time.monotonic())
        pause_s = max(pause_s, overshoot_s(wait_s, peer))
    end_s = time.monotonic() + 3 * compute_s
    while time.monotonic() < end_s:
        pause_s = max(pause_s, overshoot_s(0.01, peer))

    assert sent > 5 * len(heard)
    slowest_s = max(seconds(answer.compute_time) for answer in heard)
    assert max(seconds(answer.latency) for answer in heard) < 2 * slowest_s + pause_s + 0.1
    after = [a for a in heard if header_stamp_ns(a) > changed_ns + 2 * slowest_s * 1e9]
    before = [answer for answer in heard if header_stamp_ns(answer) < changed_ns - slowest_s * 1e9]
    assert {answer.action for answer in after} == {"open the drawer"}
    assert {answer.action for answer in before} == {"pick up the cup"}
    assert node.interrupt() == 0
    assert "ended" in node.output


def test_bad_messages_leave_the_node_alive_and_counted(
    start: Start, tiny: tuple[str, ...], domain: str, peer: Participant
) -> None:
    node = start("node", *tiny, "-p", "image_reliability:=reliable")
    heard = listen(peer, "/videogem/grounding", GROUNDING)
    diagnostics = listen(peer, "/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")
    camera = peer.advertise("/image", IMAGE, DEFAULT)
    broken = peer.advertise("/image", IMAGE, DEFAULT)
    action = peer.advertise("/action", STRING, DEFAULT)
    node.wait_for("listens")
    spin_until(lambda: camera.subscribers and broken.subscribers and action.subscribers, peer)
    now_ns = time.time_ns()

    say(action, "pick up the cup")
    camera.publish(image(now_ns))
    spin_until(lambda: heard, peer)
    bad_ones = (
        {"height": 0, "width": 0, "data": np.zeros(0, np.uint8)},
        {"data": np.zeros(10, np.uint8)},
        {"encoding": "thermal9000"},
        {"step": 3},
        {"width": 2**32 - 1},
    )
    for place, changes in enumerate(bad_ones, start=1):
        bad = image(now_ns + 10**9)
        for name, value in changes.items():
            setattr(bad, name, value)
        answers = len(heard)
        # A good one after each: the node's queue of five images would forget the first of more.
        for sent in (bad, image(now_ns + place * 10**8)):
            camera.publish(sent)
        spin_until(lambda answers=answers: len(heard) > answers, peer)
    for text in ("🤖" * 1024, "\n" * 4096, "\0", "...!?", "pour " * 800):
        say(action, text)
    send_cut_short(broken, image(now_ns), int(domain))
    say(action, "open the drawer")
    for stamp_ns, hw in ((now_ns - 5 * 10**9, (120, 160)), (now_ns, (48, 64))):
        camera.publish(image(stamp_ns, hw))

    spin_until(lambda: heard[-1].action == "open the drawer" and heard[-1].image_width == 64, peer)
    answers = len(heard)
    camera.publish(image(now_ns + 2 * 10**9, (48, 64)))
    spin_until(lambda: len(heard) > answers, peer)
    seen = len(diagnostics)
    spin_until(lambda: len(diagnostics) > seen, peer)
    (status,) = diagnostics[-1].status
    counted = {pair.key: pair.value for pair in status.values}
    assert counted["image refused"] == "5"
    assert counted["undecodable on /image"] == "1"
    assert int(counted["command refused"]) >= 2
    assert counted["images restarted after a jump back in time"] == "1"
    assert counted["images restarted after a change of resolution"] == "1"
    assert Status.NOT_UNDERSTOOD in {answer.status for answer in heard}
    assert node.interrupt() == 0


def send_cut_short(publisher: Publisher, message: Any, domain: int) -> None:
    """Sends the begin of a message as if the publisher had: an RTPS DATA submessage (8.3.7.2).

    Cyclone itself does not send what is not of the type.
    """
    guid = publisher.writer.guid.bytes
    payload = bytes(typestore().serialize_cdr(message, IMAGE))[:100]
    number = struct.pack("<iI", 0, 1)
    body = struct.pack("<HH4x", 0, 16) + guid[12:] + number + payload
    packet = b"RTPS\2\5\1\x10" + guid[:12] + struct.pack("<BBH", 0x15, 5, len(body)) + body
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        for index in range(4):  # of the domain's participants on this machine
            link.sendto(packet, ("127.0.0.1", 7400 + 250 * domain + 11 + 2 * index))


def test_a_command_that_was_latched_before_the_node_came_is_obeyed(
    start: Start, tiny: tuple[str, ...], peer: Participant
) -> None:
    say(peer.advertise("/action", STRING, LATCHED), "open the drawer")
    heard = listen(peer, "/videogem/grounding", GROUNDING)
    camera = peer.advertise("/image/compressed", COMPRESSED, SENSOR_DATA)
    node = start("node", *tiny, "-p", "image_transport:=compressed")
    node.wait_for("command.*: open the drawer")
    spin_until(lambda: camera.subscribers, peer)
    camera.publish(jpeg(time.time_ns(), (48, 64)))
    spin_until(lambda: heard, peer)
    assert heard[-1].action == "open the drawer"


def test_the_example_asks_a_node_without_ros(
    start: Start, tiny: tuple[str, ...], peer: Participant, domain: str, tmp_path: Path
) -> None:
    start("node", *tiny, "-p", "presence.threshold:=0.0")
    camera = peer.advertise("/image", IMAGE, SENSOR_DATA)
    spin_until(lambda: camera.subscribers, peer)
    command = [sys.executable, str(ROOT / "examples" / "ask_without_ros.py")]
    env = {**os.environ, "ROS_DOMAIN_ID": domain}
    log = tmp_path / "example.log"
    example = Process([*command, "open the drawer", "local"], env, log)
    deadline_s = time.monotonic() + START_S
    try:
        while "px, score" not in example.output:
            assert time.monotonic() < deadline_s, example.output
            camera.publish(image(time.time_ns()))
            spin_for(0.1, peer)
        assert example.wait(20) == 0
    finally:
        example.end()
    (found,) = re.findall(r"^at \((.*), (.*)\) px, score (0\.\d\d|1\.00)$", example.output, re.M)
    x, y = map(float, found[:2])
    assert 0 <= x < 160
    assert 0 <= y < 120


def test_the_example_without_a_command_says_how_it_is_called() -> None:
    example = str(ROOT / "examples" / "ask_without_ros.py")
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'ask_without_ros.py "pick up the red cup" [INTERFACE]' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_says_nothing_of_the_node_is_told(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "eye.yaml"
    config.write_text("videogem: {ros__parameters: {mode: sometimes}}")
    node = start("node", "--config", config, "--namespace", "left", "--weights", "/no/such.pt")
    assert node.wait(START_S) == 1
    assert f"[WARN] [videogem] {config} holds no parameters of /left/videogem" in node.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "max_rate=5"], "NAME:=VALUE"),
        (["-p", "max_rate:=5"], "max_rate"),
        (["-p", "mode:=sometimes"], "mode: expected one of continuous, on_command"),
        (["-p", "mode:={"], "a YAML value"),
        (["--remap", "image"], "FROM:=TO"),
        (["--namespace", "a b"], "namespace"),
        (["--config", "no_such.yaml"], "no_such.yaml"),
        (["--weights", "/no/such/weights.pt"], "/no/such/weights.pt"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["node", "--interface", "local", *arguments])
    assert result.exit_code == 1, result.exception
    assert message in result.output.splitlines()[-1], result.exception


@pytest.mark.alone
def test_play_keeps_stamps_order_and_pace(
    start: Start, recording: Path, peer: Participant
) -> None:
    arrived: list[tuple[float, int]] = []
    peer.subscribe(
        CAMERA,
        IMAGE,
        DEFAULT,
        lambda message: arrived.append((time.monotonic(), header_stamp_ns(message))),
    )
    clock = listen(peer, "/clock", "rosgraph_msgs/msg/Clock")
    player = start("play", recording, "--rate", 2, "--topics", CAMERA, "--clock")
    spin_until(lambda: len(arrived) == FRAMES, peer)
    assert player.wait(10) == 0, player.output
    stamps = [stamp for _, stamp in arrived]
    assert stamps == sorted(stamps)
    assert stamps[-1] - stamps[0] == (FRAMES - 1) * 10**9 // RATE_HZ
    took_s = arrived[-1][0] - arrived[0][0]
    assert took_s == pytest.approx((FRAMES - 1) / RATE_HZ / 2, rel=0.2)
    ticks = [message.clock.sec * 10**9 + message.clock.nanosec for message in clock]
    assert ticks == sorted(ticks)
    assert stamps[0] <= ticks[0] <= ticks[-1] <= stamps[-1]
    assert f"{FRAMES} messages of 1 topics" in player.output


def test_play_loops_with_stamps_of_the_present(
    start: Start, recording: Path, peer: Participant
) -> None:
    heard = listen(peer, "/elsewhere", IMAGE)
    options = ("--rate", 20, "--loop", "--restamp", "--remap", f"{CAMERA}:=/elsewhere")
    player = start("play", recording, *options)
    spin_until(lambda: len(heard) > 2 * FRAMES, peer)
    ages_s = [time.time() - header_stamp_ns(message) / 1e9 for message in heard]
    assert -0.5 < min(ages_s) <= max(ages_s) < 30
    assert player.interrupt() == 0


def test_messages_of_one_stamp_have_one_stamp_in_the_present_too(
    start: Start, recording: Path
) -> None:
    store = typestore()
    vision.register(store)
    with participant("peer", store) as peer:
        images, labels = listen(peer, CAMERA, IMAGE), listen(peer, LABELS, vision.LABELS)
        waits = ("--wait-for", CAMERA, "--wait-for", LABELS)
        player = start("play", recording, "--restamp", "--rate", 4, *waits)
        spin_until(lambda: min(len(images), len(labels)) > FRAMES // 2, peer)
        assert player.wait(10) == 0, player.output
    stamps, others = ([header_stamp_ns(item) for item in heard] for heard in (images, labels))
    shared = {*stamps} & {*others}
    assert len(shared) > FRAMES // 3  # a busy machine may lose some of each
    steps_ns = np.diff(sorted({*stamps, *others}))
    assert min(steps_ns) == 10**9 // RATE_HZ // 4
    assert abs(time.time() - stamps[-1] / 1e9) < 30


def test_play_names_the_topics_that_there_are(start: Start, recording: Path) -> None:
    player = start("play", recording, "--topics", "/lidar")
    assert player.wait(30) == 1
    assert "no messages on /lidar; topics: /action, /camera/camera_info, " in player.output


def test_play_of_a_damaged_recording_ends_in_one_line(
    start: Start, recording: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(recording, damaged)
    (file,) = damaged.glob("*.mcap")
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = b"\xff" * 2000
    file.write_bytes(content)
    player = start("play", damaged, "--rate", 50, "--start-delay", 0)
    assert player.wait(60) == 1
    assert "cannot be read as a rosbag2" in player.output
    assert "Traceback" not in player.output


def test_play_leaves_out_what_nobody_can_know(recording: Path) -> None:
    said: list[str] = []
    with closing(Storage(recording)) as storage:
        first, *others = storage.connections()
        unknown = MessageDefinition(MessageDefinitionFormat.NONE, "")
        foreign = first._replace(msgtype="foo_msgs/msg/Bar", msgdef=unknown)
        known = _known(storage, [foreign, *others], lambda level, text: said.append(text))
        assert list(known) == others
    assert said == [
        f"{first.topic} is left out: no definition of foo_msgs/msg/Bar in the recording"
    ]


def test_echo_finds_the_type_and_prints_yaml(start: Start, peer: Participant) -> None:
    camera = peer.advertise("/image", IMAGE, SENSOR_DATA)
    echo = start("echo", "image", "--once")
    spin_until(lambda: camera.subscribers, peer)
    message = image(1_700_000_000_250_000_000)
    camera.publish(message)
    assert echo.wait(10) == 0
    shown = yaml.safe_load(echo.output.partition("---")[0])
    assert shown["header"]["stamp"] == {"sec": 1_700_000_000, "nanosec": 250_000_000}
    assert (shown["height"], shown["encoding"]) == (120, "rgb8")
    assert shown["data"] == [*message.data[:128].tolist(), "..."]


def test_echo_of_nothing_lists_what_there_is(start: Start, peer: Participant) -> None:
    peer.advertise("/image", IMAGE, SENSOR_DATA)
    echo = start("echo", "/imag", "--timeout", 1)
    assert echo.wait(30) == 1
    assert "/imag: no message within 1 s; topics: /image" in echo.output


def test_say_waits_for_a_listener_and_joins_its_texts(start: Start, peer: Participant) -> None:
    saying = start("say", "open the drawer", "pick up the cup", "--namespace", "/robot")
    heard = listen(peer, "/robot/action", STRING)
    spin_until(lambda: heard, peer)
    assert saying.wait(10) == 0
    assert [message.data for message in heard] == ["open the drawer\npick up the cup"]
    alone = start("say", "hello", "--topic", "/nobody", "--timeout", 0.2)
    assert alone.wait(10) == 1
    assert "/nobody: no subscriber within" in alone.output


def test_a_demo_that_fails_leaves_nothing_half_written(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    demo = start("demo", "--out", out, "--weights", tmp_path / "none.pt", local=False)
    assert demo.wait(150) == 1
    assert "Traceback" not in demo.output
    assert not list(out.glob("**/*"))


def test_demo_runs_all_three_and_leaves_the_results(
    start: Start, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    demo = start("demo", "--out", tmp_path / "demo", *tiny[:4], local=False)
    assert demo.wait(150) == 0, demo.output
    names = {file.name for file in (tmp_path / "demo").iterdir()}
    assert names >= {"groundings.mcap", "overlay.mp4", "contact_sheet.png", "groundings.jsonl"}
    assert "untrained weights: the points mean nothing" in demo.output
    assert "latency" in demo.output
    assert len(re.findall(r"\d+ of \d+ *$", demo.output, re.MULTILINE)) > CLIPS

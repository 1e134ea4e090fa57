from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from ruamel.yaml import YAML

from videogem_ros.adapters.bag import Command, open_source, vision
from videogem_ros.datatypes import Frame
from videogem_ros.encodings import decode_depth, image_message_fields
from videogem_ros.errors import RecordingError

SHARED = Path(__file__).parents[4] / "shared" / "bags"
STORE = get_typestore(Stores.ROS2_JAZZY)
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO, STRING = "sensor_msgs/msg/CameraInfo", "std_msgs/msg/String"
RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
SECOND = 10**9


def make(msgtype, **fields):
    return STORE.types[msgtype](**fields)


def header(stamp_ns):
    stamp = make("builtin_interfaces/msg/Time", sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
    return make("std_msgs/msg/Header", stamp=stamp, frame_id="optical")


def image(stamp_ns=0, **fields):
    """An rgb8 image, with other fields in place of its own, be they right or wrong."""
    fields = image_message_fields(RGB, "rgb8") | fields
    return make(IMAGE, header=header(stamp_ns), **fields)


def compressed(stamp_ns=0, form="jpeg", data=None):
    if data is None:
        data = cv2.imencode(".png", RGB[..., ::-1])[1].tobytes()
    data = np.frombuffer(data, np.uint8)
    return make(COMPRESSED, header=header(stamp_ns), format=form, data=data)


def text(words):
    return make(STRING, data=words)


def write(path, messages, *, storage="sqlite3", compression="none", version=9, store=STORE):
    """A bag of (topic, log time, message or raw bytes with their type)."""
    writer = Writer(path, version=version, storage_plugin=StoragePlugin[storage.upper()])
    mode = CompressionMode[compression.upper()]
    if mode != CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    connections = {}
    with writer:
        for topic, log_ns, message in messages:
            raw, msgtype = message if isinstance(message, tuple) else (None, message.__msgtype__)
            kind = topic, msgtype
            if kind not in connections:
                connections[kind] = writer.add_connection(*kind, typestore=store)
            if raw is None:
                raw = store.serialize_cdr(message, msgtype)
            writer.write(connections[kind], log_ns, raw)
    return path


def talk(frames=3):
    """Images ten nanoseconds apart, stamped a microsecond before, with two commands between."""
    yield "/action", 1_000_000, text("cut tomato")
    for place in range(frames):
        log_ns = 1_000_001 + 10 * place
        yield "/camera/image_raw", log_ns, image(log_ns - 1000)
        if place == 1:
            yield "/action", log_ns + 5, text("")


TALK = ["cut tomato", 999_001, 999_011, "", 999_021]


def events(source):
    """Stamps of frames and texts of commands."""
    return [e.text if isinstance(e, Command) else e.stamp_ns for e in source]


def read(path, **topics):
    with open_source(path, **topics) as source:
        return events(source)


def storage_file(folder):
    (file,) = [file for file in folder.iterdir() if file.suffix in (".db3", ".mcap")]
    return file


KINDS = [
    ("sqlite3", "none"),
    ("sqlite3", "file"),
    ("sqlite3", "message"),
    ("mcap", "none"),
    ("mcap", "file"),
    ("mcap", "message"),
    ("mcap", "storage"),
]


@pytest.mark.parametrize(("storage", "compression"), KINDS)
def test_every_storage_and_compression_gives_the_same_events(tmp_path, storage, compression):
    path = write(tmp_path / "bag", talk(), storage=storage, compression=compression)
    with open_source(path) as source:
        assert (source.image_topic, source.action_topic) == ("/camera/image_raw", "/action")
        assert source.frame_count == 3
        assert source.duration_s == pytest.approx(21e-9, abs=2e-9)
        found = list(source)
        assert events(source) == TALK  # and again
    assert [e.text if isinstance(e, Command) else e.stamp_ns for e in found] == TALK
    frame = next(e for e in found if isinstance(e, Frame))
    np.testing.assert_array_equal(frame.image, RGB)
    assert frame.frame_id == "optical"
    assert found[0] == Command("cut tomato", 1_000_000)
    assert not source.skipped


@pytest.mark.parametrize("metadata", ["kept", "deleted"])
@pytest.mark.parametrize(("storage", "compression"), [kind for kind in KINDS if kind[1] != "file"])
def test_a_storage_file_alone_will_do(tmp_path, storage, compression, metadata):
    path = write(tmp_path / "bag", talk(), storage=storage, compression=compression)
    if metadata == "deleted":
        (path / "metadata.yaml").unlink()
    assert read(storage_file(path)) == TALK


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_folder_without_metadata_is_read_from_its_storage_files(tmp_path, storage):
    first = write(tmp_path / "bag", talk(), storage=storage)
    later = [("/camera/image_raw", 2 * SECOND, image(2 * SECOND))]
    second = write(tmp_path / "bag_1", later, storage=storage)
    storage_file(second).rename(first / storage_file(second).name)
    (first / "metadata.yaml").unlink()
    with open_source(first) as source:
        assert source.frame_count == 4
        assert events(source) == [*TALK, 2 * SECOND]


def age_metadata(folder, version):
    """Rewrites metadata.yaml as rosbag2 wrote it in that version of the format."""
    yaml = YAML(typ="safe")
    path = folder / "metadata.yaml"
    content = yaml.load(path.read_text())
    bag = content["rosbag2_bagfile_information"]
    bag["version"] = version
    for topic in bag["topics_with_message_count"]:
        if version < 7:
            del topic["topic_metadata"]["type_description_hash"]
        if version < 9:
            topic["topic_metadata"]["offered_qos_profiles"] = ""
    for key, since in {"files": 5, "custom_data": 6, "ros_distro": 8}.items():
        if version < since:
            del bag[key]
    with path.open("w") as file:
        yaml.dump(content, file)


@pytest.mark.parametrize("version", [4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_metadata_of_every_distribution_is_understood(tmp_path, storage, version):
    path = write(tmp_path / "bag", talk(), storage=storage, version=8)
    age_metadata(path, version)
    assert read(path) == TALK


def as_humble_writes(path):
    """Take from a sqlite3 bag what Humble's does not have, definitions among it."""
    age_metadata(path, 5)
    with sqlite3.connect(storage_file(path)) as database:
        database.execute("DROP TABLE schema")
        database.execute("DROP TABLE message_definitions")
        database.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
    database.close()
    return path


def test_the_database_of_humble_without_definitions_is_understood(tmp_path):
    assert read(as_humble_writes(write(tmp_path / "bag", talk(), version=8))) == TALK


def test_labels_need_no_definition(tmp_path):
    store = vision.typestore()
    sent = vision.label_fields(header(9), [vision.Label("cut tomato", (1, 2, 3, 4))])
    labels = store.types[vision.LABELS](**sent)
    bag = write(tmp_path / "bag", [("/a", 0, image()), ("/b", 1, labels)], store=store, version=8)
    with open_source(as_humble_writes(bag)) as source:
        assert source.topics_of(vision.LABELS) == ["/b"]
        (message,) = source.iter_messages(["/b"])
    assert message.stamp_ns == 9
    (label,) = map(vision.read_label, message.data.detections)
    assert label == vision.Label("cut tomato", (1, 2, 3, 4))


def raw(array):
    return np.frombuffer(array.tobytes(), np.uint8)


def test_a_topic_may_change_its_encoding(tmp_path):
    padded = np.zeros((5, 32), np.uint8)
    padded[:, :21] = RGB[..., ::-1].reshape(5, 21)
    red = RGB[..., 0]
    sent = [
        image(),
        image(**image_message_fields(RGB, "bgr8")),
        image(encoding="bgr8", step=32, data=padded.reshape(-1)),
        image(encoding="mono8", step=7, data=raw(red)),
        image(encoding="mono16", step=14, is_bigendian=1, data=raw(red.astype(">u2") * 257)),
    ]
    path = write(tmp_path / "bag", [("/camera", place, m) for place, m in enumerate(sent)])
    with open_source(path) as source:
        images = [frame.image for frame in source]
    grey = red[..., None].repeat(3, axis=2)
    np.testing.assert_array_equal(images, [RGB, RGB, RGB, grey, grey])


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_of_a_topic_with_several_types_the_right_one_is_read(tmp_path, storage):
    sent = [
        ("/action", 0, image(1)),
        ("/action", 1, text("cut tomato")),
        ("/camera", 2, text("ready")),
        ("/camera", 3, image(5)),
        ("/camera", 4, text("ready")),
    ]
    path = write(tmp_path / "bag", sent, storage=storage)
    with open_source(path, image_topic="/camera", action_topic="/action") as source:
        assert events(source) == ["cut tomato", 5]
    assert sorted(source.skipped.values()) == [1, 2]


def test_compressed_images_are_read(tmp_path):
    path = write(tmp_path / "bag", [("/camera/compressed", 5, compressed(3, "rgb8; png"))])
    with open_source(path) as source:
        (frame,) = source
    np.testing.assert_array_equal(frame.image, RGB)
    assert frame.stamp_ns == 3


DEPTH = image(**image_message_fields(np.ones((5, 7), np.float32), "32FC1"))
MILLIMETRES = image(encoding="16UC1")
JPEG, GREY_JPEG = compressed(form="jpeg"), compressed(form="mono8; jpeg compressed ")
COMPRESSED_DEPTH = compressed(form="16UC1; compressedDepth png")
GREY = image(encoding="mono8")


@pytest.mark.parametrize(
    ("topics", "chosen"),
    [
        ({"/any/name": image()}, "/any/name"),
        ({"/a": JPEG}, "/a"),
        ({"/a": GREY}, "/a"),
        ({"/color": image(), "/aligned": MILLIMETRES}, "/color"),
        ({"/color": image(), "/d": DEPTH}, "/color"),
        ({"/color": image(), "/depth/view": GREY}, "/color"),
        ({"/color": JPEG, "/depth/view": compressed(form="png")}, "/color"),
        ({"/color": JPEG, "/d": COMPRESSED_DEPTH}, "/color"),
        ({"/depth_cam/image": image(), "/depth_cam/depth": DEPTH}, "/depth_cam/image"),
        ({"/color": image(), "/infra1": GREY, "/infra2": GREY_JPEG}, "/color"),
        ({"/image_raw": image(), "/image_raw/compressed": JPEG}, "/image_raw"),
        ({"/a": JPEG, "/other": make(STRING, data="")}, "/a"),
    ],
)
def test_the_one_camera_is_found(tmp_path, topics, chosen):
    path = write(tmp_path / "bag", [(name, 0, message) for name, message in topics.items()])
    with open_source(path) as source:
        assert source.image_topic == chosen
        assert source.action_topic is None


def test_a_topic_without_messages_is_no_camera(tmp_path):
    path = tmp_path / "bag"
    with Writer(path, version=9) as writer:
        writer.add_connection("/image_raw", IMAGE, typestore=STORE)
        camera = writer.add_connection("/image_raw/compressed", COMPRESSED, typestore=STORE)
        writer.write(camera, 0, STORE.serialize_cdr(JPEG, COMPRESSED))
    with open_source(path) as source:
        assert source.image_topic == "/image_raw/compressed"
    with pytest.raises(RecordingError, match="no messages on /image_raw; choose from: "):
        open_source(path, "/image_raw")


LEFT_AND_RIGHT = {"/left": image(), "/right": JPEG, "/depth": DEPTH}


@pytest.mark.parametrize(
    ("topics", "options", "message"),
    [
        (
            LEFT_AND_RIGHT,
            {},
            r"several cameras in it; name one with --image-topic: /depth \(sensor_msgs/msg/Image, "
            r"32FC1, 1 message\), /left \(sensor_msgs/msg/Image, rgb8, 1 message\), "
            r"/right \(sensor_msgs/msg/CompressedImage, jpeg, 1 message\)$",
        ),
        ({"/left": GREY, "/right": GREY}, {}, "several cameras in it"),
        (
            {"/depth": DEPTH, "/mm": MILLIMETRES},
            {},
            r"no colour or grey images in it; name one with --image-topic: /depth .*/mm ",
        ),
        (
            {"/say": text("hello")},
            {},
            r"no images in it; its topics: /say \(std_msgs/msg/String, 1 message\)",
        ),
        ({}, {}, "no images in it; its topics: none"),
        (
            LEFT_AND_RIGHT,
            {"image_topic": "/up"},
            r"no messages on /up; choose from: /depth .*/left",
        ),
        (
            {"/a": image(), "/say": text("hello")},
            {"image_topic": "/say"},
            r"/say \(std_msgs/msg/String, 1 message\) does not suit; choose from: /a ",
        ),
        (
            {"/a": image(), "/say": text("hello")},
            {"action_topic": "/a"},
            r"/a \(.*\) does not suit; choose from: /say \(",
        ),
        ({"/a": image()}, {"action_topic": "/x"}, "no messages on /x; choose from: none"),
    ],
)
def test_a_choice_that_is_not_clear_lists_the_candidates(tmp_path, topics, options, message):
    path = write(tmp_path / "bag", [(name, 0, sent) for name, sent in topics.items()])
    with pytest.raises(RecordingError, match=message) as caught:
        open_source(path, **options)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["/right", "right"])
def test_a_named_camera_is_taken(tmp_path, name):
    path = write(tmp_path / "bag", [(n, 0, sent) for n, sent in LEFT_AND_RIGHT.items()])
    with open_source(path, name) as source:
        assert (source.image_topic, source.frame_count) == ("/right", 1)


@pytest.mark.parametrize(
    ("topics", "named", "chosen"),
    [
        (["/action"], None, "/action"),
        (["/robot/current_action", "/status"], None, "/robot/current_action"),
        (["/status"], None, None),
        (["/status"], "/status", "/status"),
        (["/action", "/robot/action"], None, None),
        (["/action", "/robot/action"], "robot/action", "/robot/action"),
    ],
)
def test_the_one_action_topic_is_found(tmp_path, caplog, topics, named, chosen):
    sent = [("/a", 0, image()), *((name, 1, text("cut")) for name in topics)]
    with open_source(write(tmp_path / "bag", sent), action_topic=named) as source:
        assert source.action_topic == chosen
        assert [e.text for e in source if isinstance(e, Command)] == ["cut"] * bool(chosen)
    ambiguous = topics == ["/action", "/robot/action"] and named is None
    assert ("several action topics" in caplog.text) == ambiguous


CUT_JPEG = cv2.imencode(".jpg", RGB)[1].tobytes()[:-5]
WHOLE_RAW = bytes(STORE.serialize_cdr(image(), IMAGE))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (image(step=20), "rgb8 image.step: expected at least 21 bytes, 3 for each of 7 pixels"),
        (image(data=np.zeros(3, np.uint8)), "rgb8 image.data: expected at least 105 bytes"),
        (image(height=0), "rgb8 image.height and width: expected at least 1"),
        (image(encoding="hsv8"), "image.encoding: expected one of "),
        ((WHOLE_RAW[:40], IMAGE), "Image that cannot be deserialised"),
        ((b"", IMAGE), "Image that cannot be deserialised"),
        ((b"\x28\xb5\x2f\xfd no zstd", IMAGE), "Image that cannot be deserialised"),
    ],
)
def test_a_bad_message_is_left_out_counted_and_logged_once(tmp_path, caplog, bad, reason):
    sent = [("/a", 0, image(5)), ("/a", 1, bad), ("/a", 2, bad), ("/a", 3, image(8))]
    with open_source(write(tmp_path / "bag", sent)) as source:
        with caplog.at_level(logging.WARNING):
            assert events(source) == [5, 8]
        assert source.frame_count == 4
    ((said, count),) = source.skipped.items()
    assert count == 2
    assert reason in said
    assert len(caplog.records) == 1


def test_broken_jpegs_of_different_lengths_are_one_reason(tmp_path):
    sent = [compressed(1), compressed(2, data=CUT_JPEG), compressed(3, data=CUT_JPEG[:-9])]
    path = write(tmp_path / "bag", [("/a", place, m) for place, m in enumerate(sent)])
    with open_source(path) as source:
        assert events(source) == [1]
    assert list(source.skipped.values()) == [2]


def test_a_first_message_that_is_broken_does_not_hide_the_camera(tmp_path):
    sent = [("/a", 0, (WHOLE_RAW[:40], IMAGE)), ("/a", 1, image(5)), ("/d", 1, DEPTH)]
    assert read(write(tmp_path / "bag", sent)) == [5]


def test_a_recording_of_bad_images_is_an_error_that_says_why(tmp_path):
    path = write(tmp_path / "bag", [("/a", 0, image(step=20)), ("/a", 1, image(step=19))])
    with open_source(path) as source:
        assert source.frame_count == 2
        with pytest.raises(RecordingError, match=r"no readable frame in it \(2 x rgb8 image.step"):
            list(source)


def test_depth_alone_can_be_asked_for_and_fails_with_a_reason(tmp_path):
    path = write(tmp_path / "bag", [("/depth", 0, DEPTH)])
    with pytest.raises(RecordingError, match=r"1 x image.encoding: expected one of"):
        read(path, image_topic="/depth")


def cut_half(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


def foreign(file):
    file.write_bytes(b"something else " * 100)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("damage", [cut_half, empty, foreign])
@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_damaged_storage_file_is_one_readable_error(tmp_path, storage, damage, alone):
    path = write(tmp_path / "bag", talk(200), storage=storage)
    damage(storage_file(path))
    with pytest.raises(RecordingError, match="cannot be read as a rosbag2") as caught:
        open_source(storage_file(path) if alone else path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("compression_format: zstd", "compression_format: lz4", "'lz4' is not supported"),
        ("version: 9", "version: 10", "version 10 not supported"),
        ("storage_identifier: sqlite3", "storage_identifier: tape", "'tape' not supported"),
        ("bag.db3", "gone.db3", "missing"),
        ("rosbag2_bagfile_information:", "foreign:", "metadata key is missing"),
        ("rosbag2_bagfile_information:", "{[", "YAML"),
    ],
)
def test_metadata_that_cannot_be_followed_is_one_readable_error(tmp_path, old, new, message):
    path = write(tmp_path / "bag", talk(), compression="message")
    metadata = path / "metadata.yaml"
    assert old in metadata.read_text()
    metadata.write_text(metadata.read_text().replace(old, new))
    with pytest.raises(RecordingError, match=f"cannot be read as a rosbag2.*{message}") as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


def test_a_chunk_of_unknown_compression_is_an_error(tmp_path):
    path = write(tmp_path / "bag", talk(), storage="mcap", compression="storage")
    file = storage_file(path)
    file.write_bytes(file.read_bytes().replace(b"\x04\0\0\0zstd", b"\x04\0\0\0rle9"))
    with pytest.raises(RecordingError, match="Unsupported chunk compression 'rle9'"):
        open_source(path)


def test_a_recording_that_breaks_off_is_read_up_to_there(tmp_path):
    big = np.random.default_rng(1).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    fields = image_message_fields(big, "rgb8")  # 0.8 MB: two to a chunk
    sent = [("/a", place, image(place, **fields)) for place in range(6)]
    path = write(tmp_path / "bag", sent, storage="mcap", compression="storage")
    file = storage_file(path)
    content = bytearray(file.read_bytes())
    magic = b"\x28\xb5\x2f\xfd"
    second_chunk = content.index(magic, content.index(magic) + 4)
    content[second_chunk : second_chunk + 4] = b"lost"
    file.write_bytes(content)
    with open_source(path) as source:
        assert events(source) == [0, 1]
    ((reason, count),) = source.skipped.items()
    assert reason.startswith("the recording breaks off: ")
    assert count == 1


def test_a_closed_recording_holds_no_file(tmp_path):
    path = write(tmp_path / "bag", talk(), storage="mcap")
    held = Path("/proc/self/fd")
    if not held.exists():
        pytest.skip("needs /proc to see open files")

    def is_open():
        return storage_file(path) in [f.resolve() for f in held.iterdir() if f.exists()]

    with open_source(path):
        assert is_open()
    assert not is_open()
    with pytest.raises(RecordingError, match="no messages on /nothing"):
        open_source(path, "/nothing")
    assert not is_open()


def test_any_topics_can_be_read_together(tmp_path):
    depth = image(7, encoding="16UC1", step=14, data=raw(np.full((5, 7), 1500, np.uint16)))
    sent = [("/depth", 3, depth), ("/a", 1, image(5)), ("/say", 2, text("go"))]
    with open_source(write(tmp_path / "bag", sent)) as source:
        a, say, depth = source.iter_messages(["/say", "/depth", "/a"])
        with pytest.raises(RecordingError, match="no topic /b in it"):
            list(source.iter_messages(["/a", "/b"]))
    assert (a.topic, a.msgtype, a.log_ns, a.stamp_ns) == ("/a", IMAGE, 1, 5)
    assert (say.data.data, say.log_ns, say.stamp_ns) == ("go", 2, 2)
    fields = {name: getattr(depth.data, name) for name in image_message_fields(RGB, "rgb8")}
    np.testing.assert_allclose(decode_depth(**fields), 1.5)


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_messages_of_a_time_are_read_alone(tmp_path, storage):
    sent = [("/a", log_ns, image(100 + log_ns)) for log_ns in (1, 3, 5, 7)]
    with open_source(write(tmp_path / "bag", sent, storage=storage)) as source:
        messages = list(source.iter_messages(["/a"], range(3, 7)))
        assert [message.log_ns for message in messages] == [3, 5]
        frames = [source.frame(message) for message in messages]
    assert [frame.stamp_ns for frame in frames] == [103, 105]


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_types_that_are_not_ros_own_are_taken_from_the_recording(tmp_path, storage):
    definition = "std_msgs/Header header\nfloat32 score\nmy_msgs/Part[] parts\n" + "=" * 80
    definition += "\nMSG: my_msgs/Part\nstring name\n"
    store = get_typestore(Stores.ROS2_JAZZY)
    types = get_types_from_msg(definition, "my_msgs/msg/Found")
    store.register({name: types[name] for name in ("my_msgs/msg/Found", "my_msgs/msg/Part")})
    part = store.types["my_msgs/msg/Part"](name="cup")
    found = store.types["my_msgs/msg/Found"](header=header(9), score=0.5, parts=[part])
    path = write(
        tmp_path / "bag", [("/a", 0, image()), ("/found", 1, found)], storage=storage, store=store
    )
    with open_source(path) as source:
        (message,) = source.iter_messages(["/found"])
    assert message.stamp_ns == 9
    assert message.data.score == 0.5
    assert message.data.parts[0].name == "cup"


@pytest.mark.parametrize("name", ["snow_raw_mcap", "snow_compressed_sqlite3", "snow_rgbd_zstd"])
def test_real_recordings_are_read_whole(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs ../shared/bags/{name}")
    with AnyReader([path]) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
        stamps, said = [], []
        for connection, log_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            if connection.msgtype == STRING:
                said.append((message.data, log_ns))
            elif "depth" not in connection.topic and connection.msgtype != INFO:
                stamps.append(message.header.stamp.sec * SECOND + message.header.stamp.nanosec)
    with open_source(path) as source:
        found = list(source)
        assert source.frame_count == counts[source.image_topic] == len(stamps)
    frames = [e for e in found if isinstance(e, Frame)]
    assert [frame.stamp_ns for frame in frames] == stamps
    assert [(e.text, e.stamp_ns) for e in found if isinstance(e, Command)] == said
    assert {frame.frame_id for frame in frames} == {"camera_color_optical_frame"}
    assert not source.skipped


def test_depth_of_a_real_recording_comes_in_metres():
    path = SHARED / "snow_rgbd_zstd"
    if not path.exists():
        pytest.skip("needs ../shared/bags/snow_rgbd_zstd")
    topics = "/camera/aligned_depth/image_raw", "/camera/color/camera_info"
    with open_source(path) as source:
        messages = list(source.iter_messages(topics))
    depth = next(message.data for message in messages if message.topic == topics[0])
    fields = {name: getattr(depth, name) for name in image_message_fields(RGB, "rgb8")}
    metres = decode_depth(**fields)
    assert metres.shape == (240, 320)
    assert 0.1 < np.nanmin(metres) <= np.nanmax(metres) < 66
    assert sum(message.msgtype == INFO for message in messages) == 16

"""From received bytes to a frame: a view where the encoding allows it, and nobody writes there."""

from __future__ import annotations

import array
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from videogem_ros.adapters.bag.storage import Storage
from videogem_ros.adapters.dds.wire import Wire
from videogem_ros.core import Grounder
from videogem_ros.core.backbones import Backbone
from videogem_ros.datatypes import Frame, Window
from videogem_ros.encodings import decode_image, frame_from_message
from videogem_ros.language import parse_actions
from videogem_ros.live.types import typestore
from videogem_ros.session import Session

IMAGE = "sensor_msgs/msg/Image"
H, W = 48, 64
RGB = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


def message(encoding: str = "rgb8", padding: int = 0) -> Any:
    """A message of the typestore, its rows followed by padding of 255."""
    stored = RGB[..., ::-1] if encoding == "bgr8" else RGB
    rows = np.full((H, W * 3 + padding), 255, np.uint8)
    rows[:, : W * 3] = stored.reshape(H, -1)
    types = typestore().types
    stamp = types["builtin_interfaces/msg/Time"](12, 34)
    head = types["std_msgs/msg/Header"](stamp, "camera")
    return types[IMAGE](head, H, W, encoding, 0, W * 3 + padding, rows.reshape(-1))


def over_dds(sent: Any, _: Path) -> tuple[bytes, Any]:
    wire = Wire(typestore())
    cdr = wire.encode(sent)
    return cdr, wire.decode(cdr, IMAGE)


def out_of_a_bag(plugin: StoragePlugin) -> Callable[[Any, Path], tuple[bytes, Any]]:
    def read(sent: Any, folder: Path) -> tuple[bytes, Any]:
        with Writer(folder / "bag", version=9, storage_plugin=plugin) as writer:
            connection = writer.add_connection("/image", IMAGE, typestore=typestore())
            writer.write(connection, 1, typestore().serialize_cdr(sent, IMAGE))
        with closing(Storage(folder / "bag")) as storage:
            ((connection, _, raw),) = storage.raw_messages(["/image"])
            return raw, storage.deserialize(connection, raw)

    return read


def from_rclpy(sent: Any, _: Path) -> tuple[array.array[int], Any]:
    """What rclpy hands over: an array.array, which anybody could write to."""
    data = array.array("B", sent.data.tobytes())
    fields = {name: getattr(sent, name) for name in ("header", "height", "width", "encoding")}
    return data, SimpleNamespace(**fields, is_bigendian=0, step=sent.step, data=data)


WAYS = {
    "dds": over_dds,
    "sqlite3": out_of_a_bag(StoragePlugin.SQLITE3),
    "mcap": out_of_a_bag(StoragePlugin.MCAP),
    "rclpy": from_rclpy,
}


@pytest.fixture(params=WAYS)
def arrive(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Any], tuple[Any, Any]]:
    """Sends a message; gives the bytes that arrive and the message that is made of them."""
    return lambda sent: WAYS[request.param](sent, tmp_path)


def test_rgb8_is_a_view_of_the_bytes_that_arrived(arrive) -> None:
    raw, received = arrive(message("rgb8"))
    frame = frame_from_message(received)
    assert np.shares_memory(frame.image, np.frombuffer(raw, np.uint8))
    np.testing.assert_array_equal(frame.image, RGB)


def test_nobody_can_write_to_the_bytes_that_arrived(arrive) -> None:
    _, received = arrive(message("rgb8"))
    with pytest.raises(ValueError, match="read-only"):
        frame_from_message(received).image[0, 0] = 0


@pytest.mark.parametrize(("encoding", "padding"), [("bgr8", 0), ("rgb8", 5), ("bgr8", 5)])
def test_other_colours_and_padded_rows_are_copied_once_and_right(
    arrive, encoding: str, padding: int
) -> None:
    raw, received = arrive(message(encoding, padding))
    image = frame_from_message(received).image
    assert not np.shares_memory(image, np.frombuffer(raw, np.uint8))
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, RGB)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_grounding_leaves_the_message_as_it_was(
    arrive, encoding: str, tiny_image_backbone: Backbone
) -> None:
    raw, received = arrive(message(encoding))
    before = bytes(raw)
    grounder = Grounder(tiny_image_backbone)
    session = Session(grounder)
    frame = frame_from_message(received)
    session.push(frame)
    session.set_action("pour the milk")
    (found,) = session.ground()
    assert bytes(raw) == before
    own = Window((Frame(RGB.copy(), frame.stamp_ns),))
    (expected,) = grounder.ground(own, parse_actions("pour the milk"))
    np.testing.assert_array_equal(found.heatmap.values, expected.heatmap.values)


def test_the_view_of_an_array_that_can_be_written_cannot() -> None:
    data = RGB.reshape(-1).copy()
    image = decode_image("rgb8", H, W, W * 3, 0, data)
    assert np.shares_memory(image, data)
    assert not image.flags.writeable
    data[0] ^= 255
    assert image[0, 0, 0] == data[0]

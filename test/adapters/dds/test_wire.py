"""Messages on the wire, against Cyclone's own serializer and ROS 2's own type hashes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="the DDS binding is not installed")

from cyclonedds.idl import make_idl_struct, types
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from videogem_ros.adapters.dds.wire import (
    MessageError,
    Wire,
    dds_topic,
    ros_topic,
    ros_type,
)
from videogem_ros.live.types import typestore

# As a ROS 2 Jazzy has them in share/<package>/msg/<type>.json.
HASHES = {
    "std_msgs/msg/String": "df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18",
    "sensor_msgs/msg/Image": "d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47",
}


# The types as one writes them for Cyclone's own serializer.
TIME = make_idl_struct("Time", "test.Time", {"sec": types.int32, "nanosec": types.uint32})
HEADER = make_idl_struct("Header", "test.Header", {"stamp": TIME, "frame_id": str})
IMAGE = make_idl_struct(
    "Image",
    "test.Image",
    {
        "header": HEADER,
        "height": types.uint32,
        "width": types.uint32,
        "encoding": str,
        "is_bigendian": types.uint8,
        "step": types.uint32,
        "data": types.sequence[types.uint8],  # type: ignore[type-arg,misc]
    },
)


def make(name: str, *fields: Any) -> Any:
    return typestore().types[name](*fields)


def image(height: int, width: int, frame_id: str) -> Any:
    data = np.arange(height * width * 3, dtype=np.uint32).astype(np.uint8)
    head = make("std_msgs/msg/Header", make("builtin_interfaces/msg/Time", 12, 34), frame_id)
    return make("sensor_msgs/msg/Image", head, height, width, "rgb8", 0, 3 * width, data)


@pytest.mark.parametrize("frame_id", ["", "a", "camera_optical_frame", "größe"])
def test_bytes_are_those_of_cyclones_own_serializer(frame_id: str) -> None:
    message = image(4, 6, frame_id)
    rows = (4, 6, "rgb8", 0, 18, message.data.tolist())
    expected = IMAGE(HEADER(TIME(12, 34), frame_id), *rows).serialize(use_version_2=False)
    assert Wire(typestore()).encode(message) == expected


def test_a_message_comes_back_with_arrays_that_are_views() -> None:
    wire, message = Wire(typestore()), image(4, 6, "camera")
    cdr = wire.encode(message)
    back = wire.decode(cdr, "sensor_msgs/msg/Image")
    assert np.shares_memory(back.data, np.frombuffer(cdr, np.uint8))
    assert (back.data == message.data).all()
    assert (back.header, back.step) == (message.header, message.step)


@pytest.mark.parametrize("name", [name for name in typestore().types if "_msgs/msg/" in name])
def test_every_known_type_has_a_layout_for_cyclone(name: str) -> None:
    wire = Wire(typestore())
    if any("wstring" in str(field) for field in typestore().fielddefs[name][1]):
        pytest.skip("wide strings have no layout in Cyclone's Python binding")
    sample_type = wire.sample_type(name)
    package, folder, short = name.split("/")
    dds_name = f"{package}::{folder}::dds_::{short}_"
    assert sample_type.__idl__.idl_transformed_typename == dds_name
    assert ros_type(dds_name) == name
    sample_type.__idl__.populate()
    assert sample_type.__idl__.keyless


@pytest.mark.parametrize(("name", "digits"), HASHES.items())
def test_type_hashes_are_those_of_ros(name: str, digits: str) -> None:
    assert Wire(typestore()).user_data(name) == f"typehash=RIHS01_{digits};"


@pytest.mark.parametrize(
    "cdr",
    [
        b"",
        b"\0\1\0\0",
        b"\0\7\0\0" + bytes(64),  # XCDR2
        b"\0\1\0\0" + b"\xff" * 64,
        b"\0\1\0\0\5\0\0\0abcd",  # a string without its end
        b"\0\1\0\0\2\0\0\0\xff\0",  # not UTF-8
    ],
)
def test_what_is_no_such_message_is_refused(cdr: bytes) -> None:
    with pytest.raises(MessageError):
        Wire(typestore()).decode(cdr, "std_msgs/msg/String")


def test_a_field_of_another_kind_is_refused() -> None:
    with pytest.raises(MessageError, match=r"std_msgs/msg/String"):
        Wire(typestore()).encode(make("std_msgs/msg/String", 5))


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(MessageError, match="no_msgs/msg/Such"):
        Wire(typestore()).sample_type("no_msgs/msg/Such")


def test_a_type_without_fields_gets_the_one_that_idl_wants() -> None:
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg("", "own_msgs/msg/Nothing"))
    members = Wire(store).sample_type("own_msgs/msg/Nothing").__annotations__
    assert list(members) == ["structure_needs_at_least_one_member"]


def test_topics_have_ros_names_and_others_have_none() -> None:
    assert ros_topic(dds_topic("/camera/image")) == "/camera/image"
    assert ros_topic("rq/videogem/groundRequest") is None
    assert ros_type("Image") is None

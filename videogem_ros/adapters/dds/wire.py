"""ROS 2 messages as DDS carries them: names, types, CDR and type hashes.

ROS 2's mapping (https://design.ros2.org/articles/topic_and_service_names.html): topic
``/camera/image`` is DDS topic ``rt/camera/image``, type ``sensor_msgs/msg/Image`` is
``sensor_msgs::msg::dds_::Image_``, final, without keys, in XCDR1. Messages are the classes of a
rosbags typestore and so is their serialization; Cyclone's own for Python takes tens of
milliseconds for an image. Cyclone learns each type's layout only to announce it to peers and to
refuse malformed data.
"""

from __future__ import annotations

from typing import Any

from cyclonedds.idl import make_idl_struct
from cyclonedds.idl import types as _types
from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys.store import Typestore

from videogem_ros.errors import VideoGemError

types: Any = _types  # its brackets are no generics for a type checker
_PRIMITIVES = {
    "bool": bool,
    "byte": types.uint8,
    "char": types.uint8,
    "int8": types.int8,
    "uint8": types.uint8,
    "int16": types.int16,
    "uint16": types.uint16,
    "int32": types.int32,
    "uint32": types.uint32,
    "int64": types.int64,
    "uint64": types.uint64,
    "float32": types.float32,
    "float64": types.float64,
}


class MessageError(VideoGemError):
    """A message cannot be serialized or deserialized, or its type is not known."""


def dds_topic(topic: str) -> str:
    """DDS name of an absolute ROS topic."""
    return f"rt{topic}"


def ros_topic(name: str) -> str | None:
    """ROS name of a DDS topic; None where it is no ROS topic (a service's, or not of ROS)."""
    return name[2:] if name.startswith("rt/") else None


def ros_type(name: str) -> str | None:
    """ROS name of a DDS type (``sensor_msgs::msg::dds_::Image_``); None where it is not ROS's."""
    parts = name.split("::")
    if len(parts) == 4 and parts[2] == "dds_" and parts[3].endswith("_"):
        return "/".join((*parts[:2], parts[3][:-1]))
    return None


class _Carrier:
    """Methods that turn Cyclone's class for a type into an envelope of serialized messages."""

    def __init__(self, cdr: bytes) -> None:
        self.cdr = cdr

    def serialize(self, *_: Any, **__: Any) -> bytes:
        return self.cdr

    @classmethod
    def deserialize(cls, data: bytes, *_: Any, **__: Any) -> _Carrier:
        return cls(data)

    deserialize_key = deserialize


class Wire:
    """The types of one typestore on the wire.

    Args:
        typestore: Message definitions.
    """

    def __init__(self, typestore: Typestore) -> None:
        self.typestore = typestore
        self._samples: dict[str, type[Any]] = {}

    def encode(self, message: Any) -> bytes:
        """A message in CDR, little endian.

        Raises:
            MessageError: A field holds what its type cannot.
        """
        name = message.__msgtype__
        try:
            return bytes(self.typestore.serialize_cdr(message, name, little_endian=True))
        except Exception as error:  # whatever struct, NumPy or the generated code raise
            raise MessageError(f"{name} cannot be serialized: {error}") from error

    def decode(self, cdr: bytes, msgtype: str) -> Any:
        """Deserialize a message; its arrays are views of ``cdr``.

        Raises:
            MessageError: The bytes are not a message of this type.
        """
        try:
            return self.typestore.deserialize_cdr(memoryview(cdr), msgtype)
        except SerdeError as error:
            raise MessageError(str(error)) from error

    def user_data(self, msgtype: str) -> str:
        """User data by which an endpoint tells ROS peers its type's hash (REP-2011)."""
        return f"typehash={self.typestore.hash_rihs01(msgtype)};"

    def sample_type(self, msgtype: str) -> type[Any]:
        """Cyclone's class for a type, which announces its layout and carries the CDR unchanged.

        Raises:
            MessageError: The type is not known.
        """
        if msgtype not in self._samples:
            self._samples[msgtype] = self._make(msgtype)
        return self._samples[msgtype]

    def _make(self, msgtype: str) -> type[Any]:
        if msgtype not in self.typestore.fielddefs:
            raise MessageError(f"{msgtype} is not a known message type")
        _, fields = self.typestore.fielddefs[msgtype]
        package, folder, name = msgtype.split("/")
        members = {field: self._member(description) for field, description in fields}
        # IDL has no empty structures; this is how rosidl fills them.
        members = members or {"structure_needs_at_least_one_member": types.uint8}
        made = make_idl_struct(
            f"{name}_", f"{package}.{folder}.dds_.{name}_", members, dataclassify=False
        )
        # Not by inheritance: a base class would be announced as the type's base.
        for method in ("__init__", "serialize", "deserialize", "deserialize_key"):
            setattr(made, method, vars(_Carrier)[method])
        return made

    def _member(self, description: Any) -> Any:
        kind, detail = description
        if kind == Nodetype.NAME:
            return self.sample_type(detail)
        if kind == Nodetype.BASE:
            name, bound = detail
            if name == "string":
                return types.bounded_str[bound] if bound else str
            if name not in _PRIMITIVES:
                raise MessageError(f"{name} has no DDS type")
            return _PRIMITIVES[name]
        element, length = self._member(detail[0]), detail[1]
        if kind == Nodetype.ARRAY:
            return types.array[element, length]
        return types.sequence[element, length] if length else types.sequence[element]

"""ROS message definitions without ROS: those of rosbags, and the package's own."""

from __future__ import annotations

from functools import lru_cache

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from videogem_ros import resources

INTERFACES = ("PointPx", "ActionGrounding")
"""Messages of the package, each after those it holds."""


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """Message classes and their serialization: the standard ones of Humble and the package's.

    Raises:
        VideoGemError: The package's definitions are not installed.
    """
    store = get_typestore(Stores.ROS2_HUMBLE)
    for name in INTERFACES:
        definition = resources.find(f"msg/{name}.msg").read_text(encoding="utf-8")
        store.register(get_types_from_msg(definition, f"videogem_ros/msg/{name}"))
    return store

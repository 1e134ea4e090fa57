"""A live node's messages, for tests of recordings."""

from __future__ import annotations

from typing import Any

import numpy as np
from example_groundings import grounding_of
from labelled_bags import HW, START_NS, STORE, header
from rosbags.typesys.store import Typestore

from videogem_ros.datatypes import Frame
from videogem_ros.encodings import image_message_fields
from videogem_ros.live.messages import Answer, Circumstances, MessageBuilder, Status
from videogem_ros.live.types import typestore

COMMAND = "lift the cup and press the button"
LIVE = typestore()
BUILD = MessageBuilder(lambda name, /, **fields: LIVE.types[name](**fields))


def store_of_all() -> Typestore:
    """Type store of the node's messages and of labels."""
    own = {name: LIVE.fielddefs[name] for name in LIVE.fielddefs if name not in STORE.types}
    STORE.register(own)
    return STORE


def live_messages(status: Status = Status.FOUND) -> list[tuple[str, int, Any]]:
    """A node's groundings and heatmaps for every second image, 70 and 80 ms after its stamp."""
    messages = []
    for number in range(0, 6, 2):
        stamp_ns = START_NS + number * 10**8
        frame = Frame(np.zeros((*HW, 3), np.uint8), stamp_ns, "camera")
        for index, xy in enumerate(((5.0, 5.0), (30.0, 2.0))):
            values = np.zeros(HW, np.float32)
            values[4:8, 4:8] = 1
            grounding = grounding_of(frame, xy=xy, values=values, score=0.75)
            answer = Answer(status, "", grounding.action, index, grounding)
            about = Circumstances(
                stamp_ns, "camera", stamp_ns + 6 * 10**7, 1, 0.04, "openclip:ViT-B-16"
            )
            message = BUILD.grounding(answer, about)
            message.verb, message.object = (("lift", "cup"), ("press", "button"))[index]
            message.action = COMMAND
            messages.append(("/robot/videogem/grounding", stamp_ns + 7 * 10**7 + index, message))
            where = "heatmap" if index == 0 else "action_2/heatmap"
            heatmap = LIVE.types["sensor_msgs/msg/Image"](
                header(stamp_ns), **image_message_fields(values[::2, ::2], "32FC1")
            )
            messages.append((f"/robot/videogem/{where}", stamp_ns + 8 * 10**7, heatmap))
    return messages

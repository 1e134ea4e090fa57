#!/usr/bin/env python3
"""Cost of sending and receiving an image over DDS, compared with Cyclone's own serializer.

First checks that the bytes are equal, then times serialization, publication, taking and
deserialization of a VGA image within one process.

    python benchmarks/codec.py
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from cyclonedds.idl import make_idl_struct, types

from videogem_ros.adapters.dds.names import Names
from videogem_ros.adapters.dds.participant import Participant
from videogem_ros.adapters.dds.qos import DEFAULT
from videogem_ros.adapters.dds.wire import Wire
from videogem_ros.live.types import typestore

IMAGE = "sensor_msgs/msg/Image"
HEIGHT, WIDTH = 480, 640
LIMIT_MS = 2.0


def image() -> Any:
    """A 640x480 rgb8 image of noise."""
    kinds = typestore().types
    pixels = np.random.default_rng(0).integers(0, 256, HEIGHT * WIDTH * 3, np.uint8)
    head = kinds["std_msgs/msg/Header"](kinds["builtin_interfaces/msg/Time"](12, 34), "camera")
    return kinds[IMAGE](head, HEIGHT, WIDTH, "rgb8", 0, 3 * WIDTH, pixels)


def cyclones_own(message: Any) -> Any:
    """The same message as a class that Cyclone's own serializer takes."""
    stamp = make_idl_struct("Time", "own.Time", {"sec": types.int32, "nanosec": types.uint32})
    header = make_idl_struct("Header", "own.Header", {"stamp": stamp, "frame_id": str})
    fields = {"header": header, "height": types.uint32, "width": types.uint32, "encoding": str}
    fields |= {"is_bigendian": types.uint8, "step": types.uint32}
    fields |= {"data": types.sequence[types.uint8]}
    own = make_idl_struct("Image", "own.Image", fields)
    head = header(stamp(message.header.stamp.sec, message.header.stamp.nanosec), "camera")
    rest = (getattr(message, name) for name in list(fields)[1:-1])
    return own(head, *rest, message.data.tobytes())


def times_ms(call: Callable[[], Any], repetitions: int) -> np.ndarray:
    """Milliseconds of each call."""
    taken = []
    for _ in range(repetitions):
        begin_s = time.perf_counter()
        call()
        taken.append(1e3 * (time.perf_counter() - begin_s))
    return np.array(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=200)
    arguments = parser.parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 101))
    message, wire = image(), Wire(typestore())
    own = cyclones_own(message)
    cdr = wire.encode(message)
    if bytes(own.serialize(use_version_2=False)) != cdr:
        raise SystemExit("the bytes differ from those of Cyclone's own serializer")
    print(f"{WIDTH}x{HEIGHT} rgb8: all {len(cdr)} bytes equal those of Cyclone's own serializer")

    with Participant(Names("codec"), typestore(), interface="local") as participant:
        publisher = participant.advertise("image", IMAGE, DEFAULT)
        subscription = participant.subscribe("image", IMAGE, DEFAULT, lambda _: None)
        while not publisher.subscribers:
            participant.spin(0.05)
        rows = {name: [] for name in ("serialize", "publish", "take", "deserialize")}
        for _ in range(arguments.images):
            rows["serialize"].append(times_ms(lambda: wire.encode(message), 1))
            rows["publish"].append(times_ms(lambda: publisher.write(cdr), 1))
            rows["take"].append(times_ms(lambda: list(subscription.take()), 1))
            rows["deserialize"].append(times_ms(lambda: wire.decode(cdr, IMAGE), 1))
    out = np.ravel(rows["serialize"]) + np.ravel(rows["publish"])
    back = np.ravel(rows["take"]) + np.ravel(rows["deserialize"])
    cyclone = times_ms(lambda: own.serialize(use_version_2=False), 5)
    for name, taken in (*rows.items(), ("out", out), ("in", back), ("Cyclone's own out", cyclone)):
        median, high = np.percentile(taken, [50, 99])
        print(f"{name:>18}: median {median:7.3f} ms, p99 {high:7.3f} ms")
    slowest = max(np.median(out), np.median(back))
    if slowest > LIMIT_MS:
        raise SystemExit(f"an image takes {slowest:.2f} ms, more than {LIMIT_MS:g} ms")


if __name__ == "__main__":
    main()

"""A graph in this process: real messages, serialized as on the wire, without a network."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from videogem_ros.core.backbones import Backbone
from videogem_ros.core.backbones.preprocessing import Preprocessing
from videogem_ros.encodings import image_message_fields
from videogem_ros.live.middleware import TransformUnavailable
from videogem_ros.live.topics import outputs
from videogem_ros.live.types import typestore

PATIENCE_S = 20.0
"""Far longer than anything takes here; a test that waits longer fails."""

START_NS = 1_700_000_000 * 10**9
TYPES = outputs(64)


class Graph:
    """A middleware that keeps all published messages.

    Attributes:
        published: Messages by topic.
        made: Number of messages built, by type.
        subscriptions: Subscriptions by topic; other topics have ``everywhere``.
        logged: Levels and lines.
        now: The node's clock.
        transforms: Matrices by target frame.
    """

    def __init__(self, everywhere: int = 1) -> None:
        self.published: dict[str, list[Any]] = {}
        self.made: Counter[str] = Counter()
        self.everywhere = everywhere
        self.subscriptions: dict[str, int] = {}
        self.logged: list[tuple[str, str]] = []
        self.now = START_NS
        self.transforms: dict[str, npt.NDArray[np.float64]] = {}
        self.looked_up: list[tuple[str, str, int]] = []
        self.fail_to_publish: Exception | None = None
        self._changed = threading.Condition()

    def make(self, type_name: str, /, **fields: Any) -> Any:
        self.made[type_name] += 1
        return typestore().types[type_name](**fields)

    def publish(self, topic: str, message: Any) -> None:
        if self.fail_to_publish is not None and topic == "grounding":
            raise self.fail_to_publish
        data = typestore().serialize_cdr(message, TYPES[topic])
        with self._changed:
            received = typestore().deserialize_cdr(data, TYPES[topic])
            self.published.setdefault(topic, []).append(received)
            self._changed.notify_all()

    def subscribers(self, topic: str) -> int:
        return self.subscriptions.get(topic, self.everywhere)

    def input_name(self, topic: str) -> str:
        return f"/robot/{topic}"

    def now_ns(self) -> int:
        return self.now

    def log(self, level: str, text: str) -> None:
        with self._changed:
            self.logged.append((level, text))
            self._changed.notify_all()

    def transform(self, target: str, source: str, stamp_ns: int) -> npt.NDArray[np.float64]:
        self.looked_up.append((target, source, stamp_ns))
        if target not in self.transforms:
            raise TransformUnavailable(f"no frame {target}")
        return self.transforms[target]

    def wait(self, topic: str, count: int = 1) -> list[Any]:
        """Wait for ``count`` messages of a topic; returns the first ones."""
        self._wait(lambda: len(self.published.get(topic, ())) >= count, f"{count} on {topic}")
        return self.published[topic][:count]

    def wait_for(self, matches: Callable[[Any], bool], topic: str = "grounding") -> Any:
        """Wait for a message of a topic that matches; returns the first one."""
        self._wait(lambda: any(map(matches, self.published.get(topic, ()))), f"such on {topic}")
        return next(filter(matches, self.published[topic]))

    def wait_for_line(self, start: str) -> str:
        """Wait for a log line that starts with ``start``; returns the first one."""

        def found() -> list[str]:
            return [line for line in self.lines() if line.startswith(start)]

        self._wait(lambda: bool(found()), f"a line {start!r}")
        return found()[0]

    def _wait(self, is_there: Callable[[], bool], what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(is_there, PATIENCE_S):
                seen = {topic: len(messages) for topic, messages in self.published.items()}
                raise TimeoutError(f"not {what}: {seen}; {self.logged}")

    def lines(self, level: str | None = None) -> list[str]:
        return [text for logged, text in self.logged if level in (None, logged)]

    @property
    def diagnostics(self) -> dict[str, str]:
        """Keys and values of the latest diagnostics."""
        status = self.published["/diagnostics"][-1].status[0]
        return {item.key: item.value for item in status.values}


class Gate:
    """Holds up encoder passes until they are let through, and records when each began."""

    def __init__(self) -> None:
        self.began_ns: list[int] = []  # of the monotonic clock
        self.entered = threading.Semaphore(0)
        self.passes = threading.Semaphore(0)
        self.open = True
        self.delay_s = 0.0

    def close(self) -> None:
        self.open = False

    def release(self) -> None:
        """Let everything through from now on."""
        self.open = True
        self.passes.release(1000)

    def let_one(self) -> None:
        self.passes.release()

    def wait_entered(self) -> None:
        if not self.entered.acquire(timeout=PATIENCE_S):
            raise TimeoutError("no encoder pass began")

    def __call__(self) -> None:
        self.began_ns.append(time.monotonic_ns())
        if self.delay_s:
            time.sleep(self.delay_s)  # the time a slow model takes
        if self.open:
            return
        self.entered.release()
        if not self.passes.acquire(timeout=PATIENCE_S):
            raise TimeoutError("the gate was never opened")


class GatedBackbone:
    """A backbone whose encoder passes go through a gate, and can be made to fail."""

    def __init__(self, backbone: Backbone, gate: Gate) -> None:
        self._backbone = backbone
        self.gate = gate
        self.error: Exception | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """The grounder reads it once per pass."""
        self.gate()
        if self.error is not None:
            raise self.error
        return self._backbone.preprocessing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)


def header(stamp_ns: int, frame_id: str = "camera") -> Any:
    types = typestore().types
    stamp = types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
    return types["std_msgs/msg/Header"](stamp, frame_id)


def image(
    time_s: float = 0.0,
    hw: tuple[int, int] = (48, 64),
    frame_id: str = "camera",
    seed: int | None = None,
    stamp_ns: int | None = None,
    **fields: Any,
) -> Any:
    """An rgb8 Image of noise at a time after the start; ``fields`` replace its fields."""
    stamp = START_NS + round(time_s * 1e9) if stamp_ns is None else stamp_ns
    noise = np.random.default_rng(abs(stamp) if seed is None else seed)
    pixels = noise.integers(0, 256, (*hw, 3), np.uint8)
    content = {"header": header(stamp, frame_id), **image_message_fields(pixels, "rgb8"), **fields}
    return typestore().types["sensor_msgs/msg/Image"](**content)


def depth_image(
    metres: npt.NDArray[np.float32],
    time_s: float = 0.0,
    frame_id: str = "camera",
    encoding: str = "32FC1",
) -> Any:
    """A depth Image of metres, in the units of its encoding."""
    if encoding == "32FC1":
        data = metres.astype("<f4")
    else:
        data = np.nan_to_num(metres * 1000, nan=0.0).round().astype("<u2")
    return typestore().types["sensor_msgs/msg/Image"](
        header=header(START_NS + round(time_s * 1e9), frame_id),
        height=metres.shape[0],
        width=metres.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=data.strides[0],
        data=data.reshape(-1).view(np.uint8),
    )


def camera_info(
    hw: tuple[int, int] = (48, 64),
    focal_px: tuple[float, float] = (60.0, 55.0),
    centre_px: tuple[float, float] = (31.0, 24.5),
    frame_id: str = "camera",
    roi: tuple[int, int, int, int] = (0, 0, 0, 0),
    binning: tuple[int, int] = (0, 0),
    *,
    k: npt.NDArray[np.float64] | None = None,
    p: npt.NDArray[np.float64] | None = None,
    d: npt.NDArray[np.float64] | None = None,
    distortion_model: str = "plumb_bob",
) -> Any:
    """CameraInfo; the region of interest is x, y, height and width, the binning x and y.

    A given k replaces focal lengths and centre; p of three columns gets a fourth of zeros.
    """
    types = typestore().types
    if k is None:
        k = np.array([focal_px[0], 0, centre_px[0], 0, focal_px[1], centre_px[1], 0, 0, 1.0])
    if p is None:
        p = np.zeros((3, 4))
    if p.shape == (3, 3):
        p = np.hstack([p, np.zeros((3, 1))])
    return types["sensor_msgs/msg/CameraInfo"](
        header=header(START_NS, frame_id),
        height=hw[0],
        width=hw[1],
        distortion_model=distortion_model,
        d=np.zeros(5) if d is None else d,
        k=k.reshape(-1),
        r=np.eye(3).reshape(-1),
        p=p.reshape(-1),
        binning_x=binning[0],
        binning_y=binning[1],
        roi=types["sensor_msgs/msg/RegionOfInterest"](*roi, False),
    )

"""``videogem-ros echo``: what is published on a topic."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from videogem_ros.cli.graph import graph_options, joined, require_cyclone
from videogem_ros.cli.numbers import LONGEST_S, FiniteRange
from videogem_ros.cli.signals import interruptible
from videogem_ros.errors import VideoGemError

if TYPE_CHECKING:
    from videogem_ros.adapters.dds.qos import QosProfile

SHOWN = 128
"""Most elements of an array that are printed, as of ``ros2 topic echo``."""


@click.command(short_help="Print the messages of a topic.")
@click.argument("topic")
@click.option(
    "--type", "msgtype", metavar="TYPE", help="Message type.  [default: the publisher's]"
)
@click.option("--once", is_flag=True, help="End after the first message.")
@click.option("--no-arr", is_flag=True, help="Leave out the elements of arrays.")
@click.option(
    "--timeout",
    type=FiniteRange(0, LONGEST_S),
    metavar="S",
    help="Give up after this many seconds without a message.  [default: never]",
)
@graph_options
def echo(
    topic: str,
    *,
    msgtype: str | None,
    once: bool,
    no_arr: bool,
    timeout: float | None,
    **graph: Any,
) -> None:
    """Print the messages of a topic as YAML, each followed by a line of dashes.

    Subscribes with the QoS that its publishers offer.
    """
    require_cyclone()
    from videogem_ros.live.types import typestore

    printer = _Printer(once, not no_arr)

    with interruptible() as signals, joined("videogem_echo", typestore(), graph) as participant:
        if msgtype is not None and msgtype.count("/") == 1:
            msgtype = msgtype.replace("/", "/msg/")
        name = participant.names.resolve(topic)

        def ended() -> bool:
            idle = timeout is not None and printer.idle_s > timeout
            return bool(signals) or idle or (once and printer.shown > 0)

        while not ended() and not (offers := participant.offers(name)) and msgtype is None:
            participant.spin(0.1)
        if not ended():
            found, qos = _choose(name, msgtype, offers)
            participant.subscribe(name, found, qos, printer.show)
            while not ended():
                participant.spin(0.1)
        if not printer.shown and not signals:
            known = ", ".join(participant.topics()) or "none"
            raise VideoGemError(f"{name}: no message within {timeout:g} s; topics: {known}")


class _Printer:
    """Prints messages, and knows when the last one came.

    Attributes:
        shown: Messages printed.
    """

    def __init__(self, once: bool, arrays: bool) -> None:
        self.shown = 0
        self._once = once
        self._arrays = arrays
        self._last_s = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Seconds since the last message."""
        return time.monotonic() - self._last_s

    def show(self, message: Any) -> None:
        """Prints a message, unless it is one more than wanted."""
        if not (self._once and self.shown):
            click.echo(f"{as_yaml(message, arrays=self._arrays)}---")
        self.shown += 1
        self._last_s = time.monotonic()


def _choose(
    topic: str, msgtype: str | None, offers: dict[str, list[QosProfile]]
) -> tuple[str, QosProfile]:
    """Message type and QoS to subscribe with.

    Raises:
        VideoGemError: Publishers offer several types, and none was named.
    """
    from videogem_ros.adapters.dds.qos import SENSOR_DATA, QosProfile

    if msgtype is None and len(offers) > 1:
        raise VideoGemError(f"{topic}: several types, name one with --type: {', '.join(offers)}")
    found = msgtype or next(iter(offers))
    return found, QosProfile.weakest(offers[found]) if found in offers else SENSOR_DATA


def as_yaml(message: Any, *, arrays: bool) -> str:
    """A message as YAML.

    Args:
        message: An object of rosbags' message classes.
        arrays: Whether to print elements of arrays, the first :data:`SHOWN`.
    """
    import yaml

    return str(yaml.safe_dump(_plain(message, arrays), sort_keys=False, allow_unicode=True))


def _plain(value: Any, arrays: bool) -> Any:
    from videogem_ros.live.types import typestore

    msgtype = getattr(value, "__msgtype__", None)
    if msgtype is not None:
        _, fields = typestore().fielddefs[msgtype]
        return {name: _plain(getattr(value, name), arrays) for name, _ in fields}
    if not hasattr(value, "__len__") or isinstance(value, str):
        return value
    if not arrays and len(value):
        kind = getattr(value, "dtype", None) or type(value[0]).__name__
        return f"<{len(value)} x {kind}>"
    plain = value[:SHOWN].tolist() if hasattr(value, "tolist") else value[:SHOWN]
    rest = ["..."] if len(value) > SHOWN else []
    return [_plain(element, arrays) for element in plain] + rest

"""``videogem-ros say``: a command to a live node."""

from __future__ import annotations

import time
from typing import Any

import click

from videogem_ros.cli.graph import graph_options, joined, require_cyclone
from videogem_ros.cli.numbers import LONGEST_S, FiniteRange
from videogem_ros.cli.signals import interruptible
from videogem_ros.errors import VideoGemError

LINGER_S = 0.3
"""A lost message has to be sent again."""


@click.command(short_help="Send a command to a live node.")
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@click.option(
    "--topic", default="action", show_default=True, metavar="TOPIC", help="Topic of the commands."
)
@click.option(
    "--timeout",
    type=FiniteRange(0, LONGEST_S),
    default=5.0,
    show_default=True,
    metavar="S",
    help="Longest wait for a subscriber.",
)
@graph_options
def say(texts: tuple[str, ...], *, topic: str, timeout: float, **graph: Any) -> None:
    """Publish actions to look for, together as one command; "" stops grounding.

    Works like "ros2 topic pub --once /action std_msgs/msg/String ...", without ROS.
    """
    require_cyclone()
    from videogem_ros.adapters.dds.qos import DEFAULT
    from videogem_ros.live.topics import INPUTS
    from videogem_ros.live.types import typestore

    kind = INPUTS["action"]
    with interruptible() as signals, joined("videogem_say", typestore(), graph) as participant:
        publisher = participant.advertise(topic, kind, DEFAULT)
        deadline_s = time.monotonic() + timeout
        while not publisher.subscribers and not signals:
            if time.monotonic() > deadline_s:
                raise VideoGemError(f"{publisher.topic}: no subscriber within {timeout:g} s")
            participant.spin(0.05)
        if signals:
            click.echo("interrupted, nothing was sent", err=True)
            click.get_current_context().exit(128 + signals[0])  # as a shell reports it
        publisher.publish(typestore().types[kind](data="\n".join(texts)))
        participant.spin(LINGER_S)

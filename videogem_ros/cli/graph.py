"""What the commands on the DDS graph share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from videogem_ros.cli.decorators import Command, add_options
from videogem_ros.errors import VideoGemError

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

    from videogem_ros.adapters.dds.participant import Participant

_COLOURS = {"warn": "yellow", "error": "red"}

_OPTIONS = (
    click.option(
        "--namespace", default="/", metavar="NAME", help="Namespace of relative topic names."
    ),
    click.option(
        "--remap",
        "remaps",
        multiple=True,
        metavar="FROM:=TO",
        help="Rename a topic; repeatable.",
    ),
    click.option(
        "--interface",
        metavar="NAME",
        help='Network interface, or "local" to stay on this machine.  [default: as set by '
        "CYCLONEDDS_URI, else Cyclone's choice]",
    ),
    click.option(
        "--humble",
        is_flag=True,
        help="Appear in the node list of ROS 2 Humble peers, not in that of newer ones.",
    ),
)


def graph_options(command: Command) -> Command:
    """Adds the options; the command takes them as ``**graph`` for :func:`joined`."""
    return add_options(command, _OPTIONS)


def require_cyclone() -> None:
    """Checks that the DDS binding is installed.

    Raises:
        VideoGemError: It is not; the message says what to install.
    """
    try:
        import cyclonedds  # noqa: F401
    except ImportError as error:
        raise VideoGemError(
            f"this needs Cyclone DDS ({error}): pip install 'videogem_ros[dds]'"
        ) from error


def graph_arguments(node: str, graph: dict[str, Any]) -> dict[str, Any]:
    """The options as the arguments ``names``, ``interface`` and ``gid_bytes``.

    Raises:
        VideoGemError: A name is not allowed, or the DDS binding is missing.
    """
    require_cyclone()
    from videogem_ros.adapters.dds.names import Names, parse_remaps
    from videogem_ros.adapters.dds.participant import GID_BYTES, HUMBLE_GID_BYTES

    return {
        "names": Names(node, graph["namespace"], parse_remaps(graph["remaps"])),
        "interface": graph["interface"],
        "gid_bytes": HUMBLE_GID_BYTES if graph["humble"] else GID_BYTES,
    }


def joined(node: str, typestore: Typestore, graph: dict[str, Any]) -> Participant:
    """A participant as the options specify, which logs to standard error.

    Raises:
        VideoGemError: The domain cannot be joined, or as :func:`graph_arguments`.
    """
    arguments = graph_arguments(node, graph)
    from videogem_ros.adapters.dds.participant import Participant

    log = logger(node)
    return Participant(
        arguments.pop("names"),
        typestore,
        log=log,
        on_qos_incompatible=lambda topic, policy: log(
            "warn", f"{topic}: a peer's {policy} QoS does not match, so nothing is exchanged"
        ),
        on_undecodable=lambda topic, reason: log("warn", f"{topic}: unreadable: {reason}"),
        **arguments,
    )


def logger(node: str, least: str = "info") -> Callable[[str, str], None]:
    """A function that writes log lines to standard error, as ROS nodes do.

    Args:
        node: Name of the node, shown in each line.
        least: Least level that is written.

    Returns:
        Takes a level (debug, info, warn, error) and a text.
    """
    levels = ("debug", "info", "warn", "error")

    def log(level: str, text: str) -> None:
        if levels.index(level) >= levels.index(least):
            line = f"[{level.upper()}] [{node}] {text}"
            click.secho(line, fg=_COLOURS.get(level), err=True)

    return log

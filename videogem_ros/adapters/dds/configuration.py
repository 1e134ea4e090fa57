"""Which DDS domain, which network, and the settings that large images need.

Cyclone takes a list of configuration fragments, of which later ones override earlier ones: first
our defaults, then what ``ROS_AUTOMATIC_DISCOVERY_RANGE`` or the older ``ROS_LOCALHOST_ONLY``
require, then the user's ``CYCLONEDDS_URI``, then the ``interface``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from videogem_ros.errors import InvalidValueError

# Cyclone's own defaults lose images: datagrams of 14 KB into a receive buffer of 1 MB. A writer's
# backlog of 500 KB, not even one VGA heatmap, would make every large message wait for the one
# before it to be acknowledged.
_LARGE_IMAGES = """
<General><MaxMessageSize>65500B</MaxMessageSize></General>
<Internal>
  <SocketReceiveBufferSize max="4MB"/><Watermarks><WhcHigh>16MB</WhcHigh></Watermarks>
</Internal>"""
_THIS_MACHINE = """
<General><AllowMulticast>false</AllowMulticast></General>
<Discovery>
  <ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>32</MaxAutoParticipantIndex>
  <Peers><Peer address="localhost"/></Peers>
</Discovery>"""
_LOOPBACK = """
<General><Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces></General>"""
_INTERFACE = """
<General><Interfaces><NetworkInterface name="{}"/></Interfaces></General>"""


def domain_id(environment: Mapping[str, str] = os.environ) -> int:
    """The domain of ``ROS_DOMAIN_ID``, 0 where it is not set.

    Raises:
        InvalidValueError: It is not a whole number from 0 to 232, the highest that has ports.
    """
    text = environment.get("ROS_DOMAIN_ID") or "0"
    if not text.isascii() or not text.isdigit() or int(text) > 232:
        raise InvalidValueError("ROS_DOMAIN_ID", "a whole number from 0 to 232", text)
    return int(text)


def configuration(
    interface: str | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    log_file: str | None = None,
) -> str:
    """Cyclone's configuration: XML fragments and locations, with commas between them.

    Args:
        interface: Name of the network interface to use; "local" keeps all traffic on this
            machine; None leaves the choice to Cyclone and the environment.
        environment: Environment variables.
        log_file: File that Cyclone's warnings are written to.
    """
    discovery_range = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper()
    local = interface == "local"
    fragments = [_domain(_LARGE_IMAGES)]
    if log_file:
        tracing = (
            "<Verbosity>warning</Verbosity>"
            f"<OutputFile>{log_file}</OutputFile><AppendToFile>true</AppendToFile>"
        )
        fragments.append(_domain(f"<Tracing>{tracing}</Tracing>"))
    if local or discovery_range == "LOCALHOST" or environment.get("ROS_LOCALHOST_ONLY") == "1":
        fragments.append(_domain(_THIS_MACHINE))
    if user := environment.get("CYCLONEDDS_URI"):
        fragments.append(user)
    if interface:
        fragments.append(_domain(_LOOPBACK if local else _INTERFACE.format(interface)))
    return ",".join(fragments)


def _domain(content: str) -> str:
    return f'<CycloneDDS><Domain Id="any">{content}</Domain></CycloneDDS>'

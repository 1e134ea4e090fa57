"""Quality of service, as ROS 2 names it and as rmw sets it in DDS."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cyclonedds.core import Policy, Qos
from cyclonedds.util import duration

MAX_BLOCKING_MS = 100
"""How long a reliable writer waits for a subscriber that does not keep up, before it gives up on
a message. rmw waits without end; a node must not."""

POLICIES = {2: "durability", 4: "deadline", 8: "liveliness", 11: "reliability", 23: "data type"}
"""Policies by their number in DDS, those that ROS peers can disagree on."""


@dataclass(frozen=True)
class QosProfile:
    """What ROS 2 calls a QoS profile.

    Attributes:
        reliable: Whether lost messages are sent again.
        transient_local: Whether late subscribers get the last messages ("latched").
        depth: How many messages are kept; 0 for all.
    """

    reliable: bool = True
    transient_local: bool = False
    depth: int = 10

    def __str__(self) -> str:
        reliability = "reliable" if self.reliable else "best effort"
        durability = "transient local" if self.transient_local else "volatile"
        return f"{reliability}, {durability}, " + (f"last {self.depth}" if self.depth else "all")

    def to_dds(self, user_data: str = "") -> Qos:
        """The policies of a writer or reader.

        Args:
            user_data: What peers read about the endpoint (type hash).
        """
        history = Policy.History.KeepLast(self.depth) if self.depth else Policy.History.KeepAll
        policies = [
            Policy.Reliability.Reliable(duration(milliseconds=MAX_BLOCKING_MS))
            if self.reliable
            else Policy.Reliability.BestEffort,
            history,
            Policy.DataRepresentation(use_cdrv0_representation=True),
            Policy.WriterDataLifecycle(autodispose=False),
            Policy.Userdata(user_data.encode()),
        ]
        if self.transient_local:
            # Cyclone keeps for late subscribers what this says, not what the history says.
            policies += [
                Policy.Durability.TransientLocal,
                Policy.DurabilityService(0, history, -1, -1, -1),
            ]
        return Qos(*policies)

    @classmethod
    def of(cls, qos: Qos) -> QosProfile:
        """The profile of a peer's endpoint."""
        policies: dict[str, object] = {policy.__scope__: policy for policy in qos}
        durability = policies.get("Durability", Policy.Durability.Volatile)
        return cls(
            reliable=policies.get("Reliability") != Policy.Reliability.BestEffort,
            transient_local=durability != Policy.Durability.Volatile,
            depth=getattr(policies.get("History"), "depth", 0),
        )

    @classmethod
    def weakest(cls, offers: Iterable[QosProfile]) -> QosProfile:
        """What a subscriber can ask for and be served by every publisher."""
        offers = list(offers)
        return cls(
            reliable=all(offer.reliable for offer in offers),
            transient_local=all(offer.transient_local for offer in offers),
        )


DEFAULT = QosProfile()
SENSOR_DATA = QosProfile(reliable=False, depth=5)
"""Received from every publisher (REP-2003)."""
LATCHED = QosProfile(transient_local=True)
GRAPH = QosProfile(transient_local=True, depth=1)
STATIC_TRANSFORMS = QosProfile(transient_local=True, depth=100)
CLOCK = QosProfile(reliable=False, depth=1)

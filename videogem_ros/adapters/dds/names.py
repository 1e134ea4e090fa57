"""Names on the ROS graph: expansion and remapping, as rcl does them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from videogem_ros.errors import InvalidValueError

_TOKEN = "[A-Za-z_][A-Za-z0-9_]*"
_NODE = re.compile(_TOKEN)
_NAMESPACE = re.compile(f"/|(/{_TOKEN})+")
_TOPIC = re.compile(f"(~/|/)?{_TOKEN}(/{_TOKEN})*")


@dataclass(frozen=True)
class Names:
    """A node's name and how it names topics.

    Attributes:
        node: Name of the node.
        namespace: Its namespace, absolute; a missing leading slash is added.
        remaps: Pairs of a topic's name and its replacement, relative, private or absolute
            ("image", "~/heatmap", "/tf").

    Raises:
        InvalidValueError: A name that ROS does not allow.
    """

    node: str
    namespace: str = "/"
    remaps: tuple[tuple[str, str], ...] = ()
    _targets: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check("node name", self.node, _NODE)
        object.__setattr__(self, "namespace", f"/{self.namespace.strip('/')}")
        _check("namespace", self.namespace, _NAMESPACE)
        targets = {self.expand(source): self.expand(target) for source, target in self.remaps}
        object.__setattr__(self, "_targets", targets)

    @property
    def full(self) -> str:
        """The node's absolute name."""
        return f"{self.namespace.rstrip('/')}/{self.node}"

    def expand(self, topic: str) -> str:
        """The absolute name of an absolute, relative or private (``~/``) one.

        Raises:
            InvalidValueError: A name that ROS does not allow.
        """
        _check("topic", topic, _TOPIC)
        if topic.startswith("/"):
            return topic
        if topic.startswith("~/"):
            return self.full + topic[1:]
        return f"{self.namespace.rstrip('/')}/{topic}"

    def resolve(self, topic: str) -> str:
        """The absolute name of a topic after remapping.

        Raises:
            InvalidValueError: A name that ROS does not allow.
        """
        absolute = self.expand(topic)
        return self._targets.get(absolute, absolute)


def parse_remaps(rules: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Remapping rules from ``from:=to``.

    Raises:
        InvalidValueError: Another form.
    """
    pairs = []
    for rule in rules:
        source, separator, target = rule.partition(":=")
        if not (source and separator and target):
            raise InvalidValueError("--remap", "FROM:=TO", rule)
        pairs.append((source, target))
    return tuple(pairs)


def _check(field_name: str, name: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(name):
        words = "letters, digits and underscores, in parts between slashes"
        raise InvalidValueError(field_name, words, name)

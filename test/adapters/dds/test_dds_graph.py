"""The node's graph over DDS: its clock, and what TF keeps when that jumps back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("cyclonedds", reason="the DDS binding is not installed")

from dds_domains import own_domain, participant, spin_until

from videogem_ros.adapters.dds.graph import Graph
from videogem_ros.adapters.dds.participant import Participant
from videogem_ros.adapters.dds.qos import DEFAULT, LATCHED
from videogem_ros.live.middleware import TransformUnavailable
from videogem_ros.live.types import typestore

S = 10**9
TF = "tf2_msgs/msg/TFMessage"


@pytest.fixture(autouse=True, scope="module")
def domain() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", own_domain())
        yield


@pytest.fixture
def simulation() -> Iterator[Participant]:
    with participant("simulation") as simulation:
        yield simulation


@pytest.fixture
def node() -> Iterator[Participant]:
    with participant("node") as node:
        yield node


def transform(parent: str, child: str, x_m: float, stamp_ns: int) -> Any:
    kinds = typestore().types
    stamp = kinds["builtin_interfaces/msg/Time"](*divmod(stamp_ns, S))
    pose = kinds["geometry_msgs/msg/Transform"](
        kinds["geometry_msgs/msg/Vector3"](x_m, 0, 0),
        kinds["geometry_msgs/msg/Quaternion"](0, 0, 0, 1),
    )
    head = kinds["std_msgs/msg/Header"](stamp, parent)
    return kinds[TF]([kinds["geometry_msgs/msg/TransformStamped"](head, child, pose)])


def test_a_clock_that_jumps_back_makes_tf_start_over(
    simulation: Participant, node: Participant
) -> None:
    kinds = typestore().types
    graph = Graph(node, lambda *_: None, use_sim_time=True)
    buffer = graph.listen_to_transforms()
    clock = simulation.advertise("/clock", "rosgraph_msgs/msg/Clock", DEFAULT)
    moving = simulation.advertise("/tf", TF, DEFAULT)
    static = simulation.advertise("/tf_static", TF, LATCHED)
    spin_until(lambda: all(each.subscribers for each in (clock, moving, static)), simulation, node)

    def tell(now_ns: int) -> None:
        stamp = kinds["builtin_interfaces/msg/Time"](*divmod(now_ns, S))
        clock.publish(kinds["rosgraph_msgs/msg/Clock"](stamp))
        spin_until(lambda: graph.now_ns() == now_ns, node)

    tell(S // 5)
    static.publish(transform("base", "camera", 1, 0))
    for step in range(9):  # shorter than any jump that stamps alone would tell
        moving.publish(transform("base", "mast", step, step * S // 10))
    spin_until(lambda: len(buffer) == 10, node)
    tell(4 * S // 5)
    assert graph.transform("base", "mast", 3 * S // 5)[0, 3] == 6
    tell(S // 10)
    assert graph.transform("base", "camera", 3 * S // 5)[0, 3] == 1
    with pytest.raises(TransformUnavailable):
        graph.transform("base", "mast", 3 * S // 5)

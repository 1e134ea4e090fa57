"""A node on a graph in this process, with a small seeded backbone that can be held up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from live_graph import Gate, GatedBackbone, Graph

from videogem_ros.core.backbones import FAMILIES, Backbone
from videogem_ros.live.node import GroundingNode
from videogem_ros.live.parameters import Parameters

MakeNode = Callable[..., GroundingNode]


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """In backbones this small, threads only wait for each other, long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def graph() -> Graph:
    return Graph()


@pytest.fixture
def gate(
    tiny_image_backbone: Backbone, tiny_video_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> Gate:
    """Registers backbones ``gated:image`` and ``gated:video``."""
    gate = Gate()
    backbones = {"image": tiny_image_backbone, "video": tiny_video_backbone}
    monkeypatch.setitem(FAMILIES, "gated", lambda model, *_: GatedBackbone(backbones[model], gate))
    return gate


@pytest.fixture
def make_node(graph: Graph, gate: Gate) -> Iterator[MakeNode]:
    """Makes active nodes of ``gated:image``; every action counts as present."""
    nodes = []

    def make(*, active: bool = True, **parameters: Any) -> GroundingNode:
        settings = {"backbone": "gated:image", "presence.threshold": 0.0, "device": "cpu"}
        given = {name.replace("__", "."): value for name, value in parameters.items()}
        node = GroundingNode(graph, Parameters.from_mapping(settings | given))
        nodes.append(node)
        if active:
            node.configure()
            node.activate()
        return node

    yield make
    gate.release()
    for node in nodes:
        node.deactivate()

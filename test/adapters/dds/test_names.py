"""Expansion and remapping of topic names, against rcl's rules."""

from __future__ import annotations

import pytest

from videogem_ros.adapters.dds.names import Names, parse_remaps
from videogem_ros.errors import InvalidValueError


@pytest.mark.parametrize(
    ("topic", "namespace", "absolute"),
    [
        ("image", "/", "/image"),
        ("image", "/robot/left", "/robot/left/image"),
        ("image/compressed", "robot", "/robot/image/compressed"),
        ("~/heatmap", "/", "/videogem/heatmap"),
        ("~/action_2/heatmap", "/robot", "/robot/videogem/action_2/heatmap"),
        ("/diagnostics", "/robot", "/diagnostics"),
    ],
)
def test_names_are_expanded(topic: str, namespace: str, absolute: str) -> None:
    assert Names("videogem", namespace).resolve(topic) == absolute


@pytest.mark.parametrize(
    ("rule", "topic", "absolute"),
    [
        ("image:=/camera/image_raw", "image", "/camera/image_raw"),
        ("image:=camera", "image", "/robot/camera"),
        ("/robot/image:=/a", "image", "/a"),
        ("~/heatmap:=heat", "~/heatmap", "/robot/heat"),
        ("/diagnostics:=/status", "/diagnostics", "/status"),
        ("image:=/a", "image/compressed", "/robot/image/compressed"),
    ],
)
def test_remaps_are_of_expanded_names(rule: str, topic: str, absolute: str) -> None:
    assert Names("videogem", "/robot", parse_remaps([rule])).resolve(topic) == absolute


@pytest.mark.parametrize("rule", ["image", "image:=", ":=a", "image=a"])
def test_other_rules_are_refused(rule: str) -> None:
    with pytest.raises(InvalidValueError, match="FROM:=TO"):
        parse_remaps([rule])


@pytest.mark.parametrize("topic", ["", "/", "a b", "2d", "a//b", "a/", "~", "ämter", "a-b"])
def test_topics_that_ros_does_not_allow_are_refused(topic: str) -> None:
    with pytest.raises(InvalidValueError, match="topic"):
        Names("videogem").resolve(topic)


@pytest.mark.parametrize(("node", "namespace"), [("a/b", "/"), ("", "/"), ("a", "/b c")])
def test_nodes_that_ros_does_not_allow_are_refused(node: str, namespace: str) -> None:
    with pytest.raises(InvalidValueError):
        Names(node, namespace)

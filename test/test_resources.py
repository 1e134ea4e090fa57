from __future__ import annotations

import sys
from pathlib import Path

import pytest

from videogem_ros import resources
from videogem_ros.errors import VideoGemError

NAME = "msg/PointPx.msg"


@pytest.mark.parametrize("name", ["msg/ActionGrounding.msg", NAME, "config/ground.yaml"])
def test_a_checkout_has_its_files(name: str):
    assert resources.find(name).is_file()


@pytest.mark.parametrize(
    "package",
    ["lib/python3.11/site-packages", "local/lib/python3.12/dist-packages"],
    ids=["pip or colcon", "colcon on Ubuntu"],
)
def test_an_install_finds_its_share_folder(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    installed = tmp_path / "share" / "videogem_ros" / NAME
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    module = tmp_path / package / "videogem_ros" / "resources.py"
    monkeypatch.setattr(resources, "__file__", str(module))
    assert resources.find(NAME) == installed


def test_an_editable_install_elsewhere_finds_the_environments_share_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    installed = tmp_path / "venv" / "share" / "videogem_ros" / NAME
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "zip" / "videogem_ros" / "r.py"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    assert resources.find(NAME) == installed


def test_what_is_nowhere_is_an_error_that_says_where_it_was_looked_for():
    with pytest.raises(VideoGemError, match="share/videogem_ros"):
        resources.find("msg/Nothing.msg")

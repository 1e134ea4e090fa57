"""A colcon install of this checkout, and processes of a real ROS 2 on a separate graph."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ros_processes import Ros

ROOT = Path(__file__).parent.parent.parent
BAGS = ROOT.parent / "shared" / "bags"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.ros)
            item.add_marker(pytest.mark.slow)


def sourced(setup: Path, env: dict[str, str]) -> dict[str, str]:
    """The environment after a workspace's setup.bash."""
    shown = subprocess.run(
        ["bash", "-c", f"source '{setup}' && env -0"], env=env, capture_output=True, check=True
    )
    lines = shown.stdout.decode().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a colcon install of this working tree, without ignored files."""
    if not (
        shutil.which("ros2") and shutil.which("colcon") and os.environ.get("AMENT_PREFIX_PATH")
    ):
        pytest.skip("no ROS 2 here: source its setup.bash, with colcon in PATH")
    given = os.environ.get("VIDEOGEM_TEST_INSTALL")
    folder = tmp_path_factory.mktemp("workspace")
    if not given:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file():
                target = folder / "src" / "videogem_ros" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, target)
        built = subprocess.run(
            ["colcon", "build"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert built.returncode == 0, built.stdout + built.stderr
    setup = Path(given or folder / "install") / "setup.bash"
    local = (
        {"ROS_LOCALHOST_ONLY": "1"}
        if os.environ.get("ROS_DISTRO") == "humble"
        else {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    )
    own = {
        "ROS_DOMAIN_ID": str(41 + os.getpid() % 19),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "RCUTILS_COLORIZED_OUTPUT": "0",
        "ROS_LOG_DIR": str(folder / "log_ros"),
    }
    return sourced(setup, {**os.environ, **local, **own})


@pytest.fixture(scope="module")
def ros(workspace: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ros]:
    """A graph for the tests of a module; their processes are ended afterwards."""
    with contextlib.closing(Ros(workspace, tmp_path_factory.mktemp("ros"))) as ros:
        yield ros


@pytest.fixture(scope="session")
def model(tiny_clip_config: Path) -> list[str]:
    """Launch arguments: a tiny untrained model, run by the Python that runs the tests."""
    return [
        f"python:={sys.executable}",
        f"backbone:=openclip:{tiny_clip_config}",
        "weights:=random:0",
        "device:=cpu",
    ]


@pytest.fixture(scope="session")
def bags() -> Path:
    if not BAGS.is_dir():
        pytest.skip("no shared folder with recordings beside the repository")
    return BAGS

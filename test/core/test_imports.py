"""What importing does: the core stands without ROS, and a command line starts without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import videogem_ros.core

HEAVY = ("torch", "open_clip", "cv2", "spacy", "lemminflect", "rosbags", "av", "rich")


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_prompts_and_help_do_not_wait_for_torch() -> None:
    out = run(f"""
import sys
heavy = {HEAVY}
def loaded():
    return [name for name in heavy if name in sys.modules]
from videogem_ros.core.prompts import PromptConfig, prompts_for
from videogem_ros.core.presence import PresenceConfig
from videogem_ros.core.configuration import GroundingConfig
from videogem_ros.datatypes import Action
print(prompts_for(Action("pour", "pour", "pour", "pour")).verb, loaded())
import videogem_ros.core
from videogem_ros.cli import main
main(["--help"], standalone_mode=False)
print(loaded())
""")
    assert out.startswith("A photo of a person pour something. []\n")
    assert "replay" in out
    assert out.endswith("\n[]\n")


def test_the_core_grounds_without_ros_bags_or_a_parser(tiny_clip_config: Path) -> None:
    out = run(
        """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"rclpy", "rosbags", "cv_bridge", "spacy", "lemminflect", "rich",
                                  "click", "sensor_msgs", "std_msgs", "cyclonedds"}:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Absent())
import importlib, pkgutil
import numpy as np
import videogem_ros.core as core
for module in pkgutil.walk_packages(core.__path__, "videogem_ros.core."):
    if ".triton_" not in module.name:  # its kernels need a Triton, and a new one for attention
        importlib.import_module(module.name)
from videogem_ros.datatypes import Action, Frame, Window
grounder = core.Grounder(core.load_backbone(f"openclip:{sys.argv[1]}", "random:0"))
image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
action = Action("pour the milk", "pour the milk", "pour", "pour", "milk", "milk")
(found,) = grounder.ground(Window((Frame(image, 7),)), [action])
heavy = [name for name in sys.modules if name.split(".")[0] in {"cv2", "av", "videogem_ros"}]
print(found.stamp_ns, sorted(name for name in heavy if ".core" not in name))
""",
        str(tiny_clip_config),
    )
    assert out == "7 ['videogem_ros', 'videogem_ros.datatypes', 'videogem_ros.errors']\n"


@pytest.mark.parametrize("name", videogem_ros.core.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(videogem_ros.core, name).__module__.startswith("videogem_ros.core.")


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Detector'"):
        videogem_ros.core.Detector  # noqa: B018 - reading it is the test

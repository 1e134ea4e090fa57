"""Help waits for nothing heavy and explains every option, whichever command it is of."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from videogem_ros.cli import COMMANDS, main

HEAVY = (
    "PIL",
    "av",
    "cv2",
    "cyclonedds",
    "huggingface_hub",
    "jinja2",
    "open_clip",
    "ray",
    "rosbags",
    "safetensors",
    "scipy",
    "spacy",
    "thinc",
    "torch",
    "torchvision",
    "yaml",
)
"""What help must not import; NumPy's 60 ms are what the defaults of the configuration cost."""

PROGRAM = """
import contextlib, io, json, sys
from videogem_ros.cli import main
heavy, commands = json.loads(sys.argv[1])
found = {}
for command in commands:
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        main([*command, "--help"], standalone_mode=False)
    loaded = [name for name in heavy if name in sys.modules]
    found[" ".join(command)] = [shown.getvalue()[:6], loaded]
print(json.dumps(found))
"""


def every_command(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """All commands and subcommands, as they are called."""
    context = click.Context(group)
    paths = [path]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        below = (*path, name)
        paths += every_command(command, below) if isinstance(command, click.Group) else [below]
    return paths


def test_help_of_no_command_imports_torch_or_anything_else_that_takes_time() -> None:
    commands = every_command(main)
    assert len(commands) > len(COMMANDS)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([HEAVY, commands])],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {" ".join(command): ["Usage:", []] for command in commands}


@pytest.mark.parametrize("path", every_command(main), ids=" ".join)
def test_help_says_of_every_option_what_it_is_and_what_it_takes(path: tuple[str, ...]) -> None:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name) or pytest.fail(name)
    context = click.Context(command)
    for option in command.get_params(context):
        if isinstance(option, click.Option):
            assert option.help, option.name
            assert not option.make_metavar(context).endswith(" RANGE"), option.name

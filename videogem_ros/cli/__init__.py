"""The console command ``videogem-ros``: one file per subcommand, imported when it is called."""

from __future__ import annotations

import importlib
from typing import Any

import click

from videogem_ros import __version__
from videogem_ros.cli.signals import exit_code, terminable
from videogem_ros.errors import VideoGemError, reason

COMMANDS = {
    "replay": "Ground actions in a recorded bag, a video file or a folder of images.",
    "ground": "Ground actions in one window of images.",
    "decompose": "Split action text into verb, object and prompts, or score the parser.",
    "node": "Run the node on live topics, without a ROS installation.",
    "say": "Send a command to a live node.",
    "play": "Publish a recording on live topics.",
    "record": "Record a live node's groundings, in the same files as replay.",
    "echo": "Print the messages of a topic.",
    "demo": "Run node, player and recorder on this machine.",
    "evaluate": "Score groundings against boxes: data sets, recordings, other systems.",
    "label": "Label a recording from a table, for evaluate bag.",
    "tune": "Fit layer weights, K, D and fusion to a labelled set.",
    "bench": "Measure speed on this machine and recommend a setting.",
    "tabletop": "Draw a labelled recording for trials and evaluation.",
}
"""Subcommand to one-line help; ``videogem_ros.cli.<name>`` holds the command of the same name."""


class _LazyGroup(click.Group):
    """A group that imports a subcommand's file when it is called, not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"videogem_ros.cli.{cmd_name}")
        command = getattr(module, cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"videogem_ros.cli.{cmd_name}.{cmd_name} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with terminable():
                return super().invoke(ctx)
        except VideoGemError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            # In a folder that may not be entered, even asking whether a file exists fails.
            if error.filename is None:
                raise
            raise click.ClickException(f"{error.filename}: {reason(error)}") from error
        except KeyboardInterrupt as error:
            click.echo("interrupted, nothing was kept", err=True)
            return ctx.exit(exit_code(error))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="videogem-ros")
def main() -> None:
    """Locate actions in camera frames: VideoGEM grounding of action text."""

"""The labelled sets that evaluate and tune take: a subcommand for each, and what opens it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from videogem_ros.cli.console import status
from videogem_ros.cli.decorators import Command, add_options
from videogem_ros.errors import InvalidValueError
from videogem_ros.evaluation.datasets import DATASETS

if TYPE_CHECKING:
    from videogem_ros.evaluation.bags import BagDataset
    from videogem_ros.evaluation.records import Dataset

TABLETOP = "tabletop"
BAG = "bag"

SETS = {
    **DATASETS,
    TABLETOP: "The package's own drawn scenes; needs no files.",
    BAG: "Your own labelled recordings.",
}
"""Subcommand to one-line help."""

_PATH = click.Path(path_type=Path)

_FILES = (
    click.option(
        "--root",
        required=True,
        metavar="DIR",
        type=_PATH,
        help="Folder of the videos, or of folders of extracted frames.",
    ),
    click.option(
        "--annotations",
        metavar="PATH",
        type=_PATH,
        help="The annotation file, or a folder with all of them.  [default: in DIR]",
    ),
)

_LIMIT = click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="Only the first N samples; for the tabletop benchmark, N of its clips.",
)

_BAGS = (
    click.argument("bags", metavar="BAGS...", nargs=-1, required=True, type=_PATH),
    click.option(
        "--labels",
        "sidecars",
        multiple=True,
        metavar="FILE",
        type=_PATH,
        help="Labels written by videogem-ros label; one file for each bag, in the same order.  "
        "[default: BAG.labels.json if it exists, else the bag's own]",
    ),
    click.option("--image-topic", metavar="NAME", help="Image topic, if the bags have several."),
    click.option(
        "--label-topic",
        metavar="NAME",
        help="vision_msgs/Detection2DArray topic of the labels, if the bags have several.",
    ),
)


class LabelledSets(click.Group):
    """A subcommand for each of ``SETS``.

    Args:
        make: Makes the subcommand of a set when it is called.
    """

    def __init__(self, *args: Any, make: Callable[[str], click.Command], **options: Any) -> None:
        super().__init__(*args, **options)
        self._make = make

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All sets."""
        return list(SETS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A set's subcommand."""
        return self._make(cmd_name) if cmd_name in SETS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The sets without making their subcommands."""
        with formatter.section("Data sets"):
            formatter.write_dl(list(SETS.items()))


def set_options(name: str) -> Callable[[Command], Command]:
    """Adds the options that locate a set; the command passes them to :func:`open_set`."""
    options = _BAGS if name == BAG else (*(_FILES if name in DATASETS else ()), _LIMIT)
    return partial(add_options, options=options)


def set_command(
    name: str,
    run: Callable[[str, Mapping[str, Any]], None],
    options: Sequence[Callable[[Any], Any]],
) -> click.Command:
    """A set's subcommand.

    Args:
        name: The set.
        run: Called with the set's name and the values of all options.
        options: Options besides those of the set, in the order of the help.
    """

    def command(**given: Any) -> None:
        run(name, given)

    command = add_options(command, (set_options(name), *options))
    return click.command(name, help=SETS[name])(command)


def open_set(name: str, options: Mapping[str, Any]) -> Dataset:
    """Opens a set, as its options specify.

    Raises:
        VideoGemError: It cannot be opened.
    """
    if name == BAG:
        return open_bags(options)
    from videogem_ros.evaluation.datasets import open_dataset
    from videogem_ros.evaluation.tabletop import TabletopBenchmark

    limit = options["limit"]
    if name == TABLETOP:
        return TabletopBenchmark(limit) if limit else TabletopBenchmark()
    with status("reading the annotations"):
        return open_dataset(name, options["root"], annotations=options["annotations"], limit=limit)


def open_bags(options: Mapping[str, Any]) -> BagDataset:
    """Opens labelled bags, as their options specify.

    Raises:
        VideoGemError: One cannot be opened.
    """
    from videogem_ros.evaluation.bags import BagDataset, read_labelled_bag
    from videogem_ros.window import WindowConfig

    bags = options["bags"]
    sidecars = options["sidecars"] or [None] * len(bags)
    if len(sidecars) != len(bags):
        raise InvalidValueError("--labels", f"one for each of {len(bags)} bags", len(sidecars))
    windows = WindowConfig(**{name: options[name] for name in ("frame_interval_s", "start")})
    topics = {name: options[name] for name in ("image_topic", "label_topic")}
    with status("reading the recordings"):
        recordings = [
            read_labelled_bag(path, sidecar, **topics) for path, sidecar in zip(bags, sidecars)
        ]
    return BagDataset(recordings, windows)

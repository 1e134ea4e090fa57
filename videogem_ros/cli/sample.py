"""``videogem-ros sample``: a short recording to try things on."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Write a short sample recording.")
@click.option(
    "--out",
    required=True,
    metavar="BAG",
    type=click.Path(path_type=Path),
    help="Folder of the bag; must not exist.",
)
def sample(out: Path) -> None:
    """Write a rosbag2 of four seconds: a hand carries a red mug to a blue plate.

    Images are on /camera/image_raw, two commands on /action.
    """
    from videogem_ros.adapters.bag.sample import write_sample

    write_sample(out)
    click.echo(out)

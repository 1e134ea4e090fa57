"""``videogem-ros label``: boxes of a table become the labels beside a recording."""

from __future__ import annotations

from pathlib import Path

import click

from videogem_ros.cli.numbers import LONGEST_S, FiniteRange
from videogem_ros.evaluation.tables import TOLERANCE_S
from videogem_ros.files import check_apart


@click.command(short_help="Label a recording from a table, for evaluate bag.")
@click.argument("bag", metavar="BAG", type=click.Path(path_type=Path))
@click.option(
    "--csv",
    "table",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The table of boxes.",
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The labels; replaced if they exist.  [default: BAG.labels.json, which evaluate bag "
    "finds by itself]",
)
@click.option(
    "--times",
    type=click.Choice(("start", "stamp")),
    default="start",
    show_default=True,
    help="Whether times count from the first image or are header stamps.",
)
@click.option(
    "--tolerance-s",
    type=FiniteRange(0, LONGEST_S),
    default=TOLERANCE_S,
    show_default=True,
    metavar="S",
    help="Largest distance in seconds from a time to the nearest image.",
)
@click.option("--image-topic", metavar="NAME", help="Image topic, if the bag has several.")
def label(
    bag: Path,
    *,
    table: Path,
    out: Path | None,
    times: str,
    tolerance_s: float,
    image_topic: str | None,
) -> None:
    """Write the labels of a rosbag2 from a CSV file.

    Its header is time,x1,y1,x2,y2,action or time,x1,y1,x2,y2,action,label; each line is one box.
    Time is in seconds. x1, y1 and x2, y2 are the box's first and last column and row in image
    pixels, counted from 0; four empty fields mean that the action is not in the image. Label is
    the class for per-class means, by default the action's text.
    """
    from videogem_ros.evaluation.bags import read_bag
    from videogem_ros.evaluation.labels import Sidecar, beside, labels_from_csv, write_sidecar

    out = out or beside(bag)
    check_apart("--out", (out,), (table, bag))
    recording = read_bag(bag, image_topic)
    images = {image.stamp_ns: image.hw for image in recording.images}
    labels = labels_from_csv(table, images, from_start=times == "start", tolerance_s=tolerance_s)
    write_sidecar(out, Sidecar(tuple(labels), recording.image_topic))
    labelled = len({item.stamp_ns for item in labels})
    absent = sum(item.label.box is None for item in labels)
    click.echo(
        f"{out}: {len(labels)} labels in {labelled} of {len(images)} images; "
        f"{absent} of them mark the action as absent"
    )

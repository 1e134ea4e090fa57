"""``videogem-ros evaluate bag``: labelled recordings, grounded here or by a live node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from videogem_ros.cli.options import grounding_options, load_grounder, warn_of
from videogem_ros.cli.progress import progress_bar
from videogem_ros.cli.reporting import (
    batch_of,
    cache_of,
    check_files,
    continuable,
    evaluation_options,
    report,
    with_settings,
)
from videogem_ros.errors import InvalidValueError

if TYPE_CHECKING:
    from videogem_ros.evaluation.bags import BagDataset
    from videogem_ros.evaluation.recorded import RecordedBench

_PATH = click.Path(path_type=Path)


@click.command(short_help="Labelled recordings, grounded here or by a live node.")
@click.argument("bags", metavar="BAGS...", nargs=-1, required=True, type=_PATH)
@click.option(
    "--labels",
    "sidecars",
    multiple=True,
    metavar="FILE",
    type=_PATH,
    help="Labels that videogem-ros label made; one for each bag, in their order.  [default: "
    "BAG.labels.json where it is there, else the bag's own]",
)
@click.option(
    "--image-topic", metavar="NAME", help="The bags' image topic, where they have several."
)
@click.option(
    "--label-topic",
    metavar="NAME",
    help="The bags' own labels, vision_msgs/Detection2DArray, where they have several.",
)
@click.option(
    "--recorded", is_flag=True, help="Judge what a node found when the bags were recorded."
)
@click.option(
    "--groundings",
    "elsewhere",
    multiple=True,
    metavar="PATH",
    type=_PATH,
    help="Judge what a node, or a replay, found and left there: another bag, or a folder of "
    "record or replay; one for each bag, in their order.",
)
@evaluation_options
@grounding_options
def bag(
    bags: tuple[Path, ...], *, recorded: bool, elsewhere: tuple[Path, ...], **options: Any
) -> None:
    """Evaluate on labelled rosbag2 recordings.

    Labels are vision_msgs/Detection2DArray messages in a bag, or a file that videogem-ros label
    made. Each belongs to the image of the same header stamp, which is grounded with the frames
    before it as a node would; or, with --recorded or --groundings, what a node did say about it
    is judged, and how late it came.
    """
    if options["ablate"] and (recorded or elsewhere):
        raise click.UsageError("what was recorded has one layer weighting; leave --ablate out")
    check_files(options)
    dataset = _open(bags, options)
    if not (recorded or elsewhere):
        _ground(dataset, options)
        return
    with ExitStack() as opened:
        bench = _recorded(dataset, elsewhere or bags, opened)
        report(bench.run(), bench.case, options)


def _open(bags: Sequence[Path], options: Mapping[str, Any]) -> BagDataset:
    from videogem_ros.evaluation.bags import BagDataset, read_labelled_bag
    from videogem_ros.window import WindowConfig

    sidecars: Sequence[Path | None] = options["sidecars"] or [None] * len(bags)
    if len(sidecars) != len(bags):
        raise InvalidValueError("--labels", f"one for each of {len(bags)} bags", len(sidecars))
    windows = WindowConfig(**{name: options[name] for name in ("frame_interval_s", "start")})
    topics = {name: options[name] for name in ("image_topic", "label_topic")}
    with Console(stderr=True).status("reading the recordings"):
        recordings = [
            read_labelled_bag(path, sidecar, **topics) for path, sidecar in zip(bags, sidecars)
        ]
    return BagDataset(recordings, windows)


def _recorded(dataset: BagDataset, paths: Sequence[Path], opened: ExitStack) -> RecordedBench:
    from videogem_ros.evaluation.groundings import RecordedGroundings
    from videogem_ros.evaluation.recorded import RecordedBench

    with Console(stderr=True).status("reading the groundings"):
        recorded = [opened.enter_context(RecordedGroundings(path)) for path in paths]
    return RecordedBench(dataset, recorded)


def _ground(dataset: BagDataset, options: Mapping[str, Any]) -> None:
    from videogem_ros.evaluation.methods import Method
    from videogem_ros.evaluation.runner import Bench, EvaluationConfig, evaluate

    grounder = load_grounder(options)
    config = EvaluationConfig(
        main=Method.of(grounder.config),
        ablate=options["ablate"],
        batch=batch_of(options, grounder),
    )
    cache, interval = cache_of(options), f"{options['frame_interval_s']:g} s"
    if cache:  # results depend on how windows are put together, their digests do not
        cache /= f"windows {interval} {options['start']}"
    with continuable(cache), progress_bar("evaluating", "samples") as told:
        run = evaluate(dataset, grounder, config, cache=cache, progress=told)
    run = replace(run, settings={**run.settings, "frame interval": interval})
    warn_of(grounder.backbone)
    report(with_settings(run, grounder, options), Bench(dataset, grounder, config).case, options)

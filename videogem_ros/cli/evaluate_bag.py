"""``videogem-ros evaluate bag``: labelled recordings, grounded here or by a live node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from videogem_ros.cli.console import status
from videogem_ros.cli.labelled import BAG, open_bags, set_options
from videogem_ros.cli.options import grounding_options, load_grounder, warn_of
from videogem_ros.cli.progress import progress_bar
from videogem_ros.cli.reporting import (
    batch_of,
    cache_of,
    check_files,
    check_predicted,
    continuable,
    evaluation_options,
    report,
    with_settings,
)

if TYPE_CHECKING:
    from videogem_ros.evaluation.bags import BagDataset
    from videogem_ros.evaluation.recorded import RecordedBench

_PATH = click.Path(path_type=Path)

_OF_RECORDED = frozenset(
    [
        *("bags", "sidecars", "image_topic", "label_topic", "recorded", "elsewhere"),
        *("predictions", "out"),
    ]
)
"""Parameters that have an effect where what was recorded is judged."""


@click.command(short_help="Labelled recordings, grounded here or by a live node.")
@set_options(BAG)
@click.option("--recorded", is_flag=True, help="Score a node's groundings that the bags contain.")
@click.option(
    "--groundings",
    "elsewhere",
    multiple=True,
    metavar="PATH",
    type=_PATH,
    help="Score the groundings in another bag, or in a folder written by record or replay; one "
    "for each bag, in the same order.",
)
@evaluation_options
@grounding_options
def bag(*, recorded: bool, elsewhere: tuple[Path, ...], **options: Any) -> None:
    """Evaluate on labelled rosbag2 recordings.

    Labels are vision_msgs/Detection2DArray messages in a bag, or a file written by videogem-ros
    label. Each belongs to the image with the same header stamp, which is grounded with the frames
    before it, as a node would. With --recorded or --groundings, existing groundings of that image
    are scored instead, and their latency is measured.
    """
    if recorded or elsewhere:
        _check_unasked()
    check_files(options)
    dataset = open_bags(options)
    if not (recorded or elsewhere):
        _ground(dataset, options)
        return
    with ExitStack() as opened:
        bench = _recorded(dataset, elsewhere or options["bags"], opened)
        report(bench.run(), bench.case, options)


def _check_unasked() -> None:
    """Refuses options that would be without effect where nothing is computed."""
    context = click.get_current_context()
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name not in _OF_RECORDED and source is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"recorded groundings are scored as they are; leave {option.opts[0]} out"
            )


def _recorded(dataset: BagDataset, paths: Sequence[Path], opened: ExitStack) -> RecordedBench:
    from videogem_ros.evaluation.groundings import RecordedGroundings
    from videogem_ros.evaluation.recorded import RecordedBench

    with status("reading the groundings"):
        recorded = [opened.enter_context(RecordedGroundings(path)) for path in paths]
    return RecordedBench(dataset, recorded)


def _ground(dataset: BagDataset, options: Mapping[str, Any]) -> None:
    from videogem_ros.evaluation.methods import Method
    from videogem_ros.evaluation.runner import Bench, EvaluationConfig, evaluate

    check_predicted(dataset, options)
    grounder = load_grounder(options)
    config = EvaluationConfig(
        main=Method.of(grounder.config),
        ablate=options["ablate"],
        batch=batch_of(options, grounder),
    )
    cache = cache_of(options)
    with continuable(cache), progress_bar("evaluating", "samples") as told:
        run = evaluate(dataset, grounder, config, cache=cache, progress=told)
    run = replace(
        run, settings={**run.settings, "frame interval": f"{options['frame_interval_s']:g} s"}
    )
    warn_of(grounder.backbone)
    report(with_settings(run, grounder, options), Bench(dataset, grounder, config).case, options)

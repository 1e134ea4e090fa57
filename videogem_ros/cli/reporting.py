"""What all evaluations share: predictions of other systems, a cache, a report, an exit code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from videogem_ros.cli.console import result_console
from videogem_ros.cli.decorators import Command, add_options
from videogem_ros.cli.signals import exit_code
from videogem_ros.errors import InvalidValueError

if TYPE_CHECKING:
    from videogem_ros.core import Grounder
    from videogem_ros.evaluation.records import Dataset, Run
    from videogem_ros.evaluation.report import Gallery

INCOMPLETE = 3
"""Exit code where the report lacks some samples."""

GPU_BATCH = 16

_PATH = click.Path(path_type=Path)


def _named_files(
    _: click.Context, __: click.Parameter, values: Sequence[str]
) -> list[tuple[str, Path]]:
    """NAME=FILE, several times."""
    parts = [value.partition("=") for value in values]
    for value, (name, _sign, path) in zip(values, parts):
        if not (name and path):
            raise click.BadParameter(f"{value!r} is not NAME=FILE")
    return [(name, Path(path)) for name, _sign, path in parts]


_OPTIONS = (
    click.option(
        "--predictions",
        multiple=True,
        metavar="NAME=FILE",
        callback=_named_files,
        help="Another system to compare with: a CSV file with the columns video, time (seconds "
        "of the annotated frame in its video, or a bag image's header stamp), x, y and optionally "
        "action and score; repeatable.",
    ),
    click.option(
        "--ablate", is_flag=True, help="Compare every layer weighting with every prompt."
    ),
    click.option(
        "--out",
        metavar="DIR",
        type=_PATH,
        help="Write report.html and results.json to DIR.  [default: only the table]",
    ),
    click.option(
        "--cache",
        metavar="DIR",
        type=_PATH,
        help="Keep the samples' results in DIR and reuse those already in it, so that an "
        "interrupted evaluation continues.  [default: cache in --out]",
    ),
    click.option(
        "--batch",
        type=click.IntRange(1),
        metavar="N",
        help="Samples in one encoder pass: frames of an image backbone, windows of a video "
        f"backbone.  [default: 1, on a GPU {GPU_BATCH}]",
    ),
)


def evaluation_options(command: Command) -> Command:
    """Adds the options that evaluations have in common."""
    return add_options(command, _OPTIONS)


def check_files(options: Mapping[str, Any]) -> None:
    """Checks predictions and output folder before the work begins.

    Raises:
        VideoGemError: A file of predictions does not exist, cannot be read or has an invalid line;
            a system's name is taken; or ``--out`` is not a folder.
    """
    from videogem_ros.evaluation.predictions import check_names, check_predictions

    check_names(name for name, _path in options["predictions"])
    for name, path in options["predictions"]:
        if not path.is_file():
            raise InvalidValueError(f"--predictions {name}", "a CSV file", str(path))
        check_predictions(path)
    out: Path | None = options["out"]
    if out and out.exists() and not out.is_dir():
        raise InvalidValueError("--out", "a folder", str(out))


def check_predicted(dataset: Dataset, options: Mapping[str, Any]) -> None:
    """Whether other systems' predictions belong to a data set, before it is grounded.

    Raises:
        VideoGemError: No line of a file belongs to a sample.
    """
    from videogem_ros.evaluation.predictions import check_samples

    for _name, path in options["predictions"]:
        check_samples(dataset.samples, path)


def cache_of(options: Mapping[str, Any]) -> Path | None:
    """The folder of cached results; None where they are not kept."""
    out: Path | None = options["out"]
    cache: Path | None = options["cache"] or (out and out / "cache")
    return cache


def batch_of(options: Mapping[str, Any], grounder: Grounder) -> int:
    """Number of samples per encoder pass."""
    return options["batch"] or (GPU_BATCH if grounder.device.type == "cuda" else 1)


def with_settings(run: Run, grounder: Grounder, options: Mapping[str, Any]) -> Run:
    """A run whose settings name the weights, the dtype and the device."""
    settings = {
        "weights": options["weights"] or "the backbone's usual ones",
        "computed in": f"{options['dtype']} on {grounder.device.type}",
    }
    return replace(run, settings={**run.settings, **settings})


def report(run: Run, gallery: Gallery, options: Mapping[str, Any]) -> None:
    """Adds predictions of other systems, prints the table, and writes the report.

    Ends the command with the exit code ``INCOMPLETE`` where the run lacks samples.

    Raises:
        VideoGemError: Predictions cannot be used, or the report cannot be written.
    """
    from videogem_ros.evaluation.metrics import summarise
    from videogem_ros.evaluation.predictions import add_predictions, coverage
    from videogem_ros.evaluation.report import print_table, write_report

    for name, path in options["predictions"]:
        records = add_predictions(run.records, name, path)
        run = replace(run, records=tuple(records), notes=(*run.notes, coverage(records, name)))
    summaries = summarise(run.records)
    print_table(run, result_console(), summaries)
    if options["out"]:
        click.echo(write_report(run, options["out"], gallery, summaries=summaries))
    missing, skipped = sum(run.missing.values()), sum(run.skipped.values())
    if missing or skipped:
        click.echo(
            f"not all samples were evaluated: {missing} without frames, {skipped} that cannot be "
            "used",
            err=True,
        )
        click.get_current_context().exit(INCOMPLETE)


@contextlib.contextmanager
def continuable(cache: Path | None) -> Iterator[None]:
    """A context that, when interrupted, prints where results are kept and sets the exit code."""
    try:
        yield
    except KeyboardInterrupt as error:
        kept = "nothing was kept, as neither --out nor --cache was given"
        if cache:
            kept = f"the results so far are kept in {cache}; the same command continues"
        click.echo(f"interrupted; {kept}", err=True)
        click.get_current_context().exit(exit_code(error))

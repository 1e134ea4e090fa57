"""``videogem-ros evaluate``: the paper's data sets, drawn scenes, recordings of one's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from videogem_ros.cli.labelled import BAG, LabelledSets, open_set, set_command
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
    from videogem_ros.core import Grounder
    from videogem_ros.evaluation.runner import Bench, EvaluationConfig, Work


def _command(name: str) -> click.Command:
    """The subcommand of a labelled set; that of recordings has its own file."""
    if name == BAG:
        from videogem_ros.cli.evaluate_bag import bag

        return bag
    return set_command(name, _evaluate, _OPTIONS)


@click.group(cls=LabelledSets, make=_command)
def evaluate() -> None:
    """Score groundings against boxes: the pointing game and related metrics.

    Prints a table; with --out, also writes a report and machine-readable results.

    Exit codes: 0 if all samples were evaluated, 3 if some lack their frames or cannot be used (the
    report names them), 1 if there is no report.
    """


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--method",
        type=click.Choice(("videogem", "gem")),
        default="videogem",
        show_default=True,
        help="Method to evaluate: VideoGEM with --weighting and --fusion, or GEM, which has no "
        "layer weights and only the action prompt. GEM is in the table either way.",
    ),
    evaluation_options,
    click.option(
        "--loaders",
        type=click.IntRange(1),
        default=2,
        show_default=True,
        metavar="N",
        help="Threads that decode frames ahead.",
    ),
    click.option(
        "--ray",
        metavar="ADDRESS",
        help='Spread the work over a Ray cluster; "local" for processes on this machine.',
    ),
    click.option(
        "--workers",
        type=click.IntRange(1),
        metavar="N",
        help="Number of Ray workers.  [default: one for each CPU, or GPU, of the cluster]",
    ),
    grounding_options,
)


def _evaluate(name: str, options: Mapping[str, Any]) -> None:
    from videogem_ros.evaluation.methods import GEM, Method
    from videogem_ros.evaluation.runner import Bench, EvaluationConfig
    from videogem_ros.evaluation.runner import evaluate as ground_all

    gem = _is_gem(options["method"])
    check_files(options)
    dataset = open_set(name, options)
    check_predicted(dataset, options)
    grounder = load_grounder(options)
    config = EvaluationConfig(
        main=GEM if gem else Method.of(grounder.config),
        ablate=options["ablate"],
        batch=batch_of(options, grounder),
        loaders=options["loaders"],
    )
    cache = cache_of(options)
    work = _ray_work(name, options, config, grounder) if options["ray"] else None
    with continuable(cache), progress_bar("evaluating", "samples") as told:
        run = ground_all(dataset, grounder, config, cache=cache, progress=told, work=work)
    run = replace(run, notes=(*getattr(dataset, "notes", ()), *run.notes))
    warn_of(grounder.backbone)
    report(with_settings(run, grounder, options), Bench(dataset, grounder, config).case, options)


def _is_gem(method: str) -> bool:
    context = click.get_current_context()
    given = [
        f"--{name}"
        for name in ("weighting", "fusion")
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if method == "gem" and given:
        raise click.UsageError(f"GEM has no {' and no '.join(given)}; leave it out")
    return method == "gem"


def _ray_work(
    name: str, options: Mapping[str, Any], config: EvaluationConfig, grounder: Grounder
) -> Work:
    from videogem_ros.evaluation.cluster import ray_work

    gpu = grounder.device.type == "cuda"
    # Ray shows each worker its own GPU alone.
    theirs = {**options, "device": "cuda" if gpu else "cpu"}
    return ray_work(
        functools.partial(_open_bench, name, theirs, config),
        options["ray"],
        workers=options["workers"],
        batch=config.batch,
        gpu=gpu,
    )


def _open_bench(name: str, options: Mapping[str, Any], config: EvaluationConfig) -> Bench:
    """What a worker runs."""
    from videogem_ros.evaluation.runner import Bench

    return Bench(open_set(name, options), load_grounder(options), config)

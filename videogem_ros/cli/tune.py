"""``videogem-ros tune``: layer weights, K, D and fusion fitted to a labelled set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from videogem_ros.cli.console import result_console
from videogem_ros.cli.labelled import LabelledSets, open_set, set_command
from videogem_ros.cli.numbers import LONGEST_S, FiniteRange
from videogem_ros.cli.options import grounding_options, load_grounder, warn_of
from videogem_ros.cli.progress import progress_bar
from videogem_ros.cli.reporting import INCOMPLETE
from videogem_ros.cli.signals import exit_code
from videogem_ros.errors import InvalidValueError
from videogem_ros.files import whole_file

if TYPE_CHECKING:
    from videogem_ros.core import Grounder, GroundingConfig
    from videogem_ros.evaluation.examples import Example, Examples
    from videogem_ros.evaluation.metrics import Estimate
    from videogem_ros.evaluation.records import Dataset
    from videogem_ros.evaluation.tuning import Tuning

FEW_VIDEOS = 20
"""With fewer of them, intervals from resampled videos are too narrow."""

TUNED = (
    "self_self_depth",
    "weighting",
    "static_weights",
    "dynamic_depth",
    "dynamic_scale",
    "fusion",
    "fusion_weights",
)
"""Parameters that are searched."""


@click.group(cls=LabelledSets, make=lambda name: set_command(name, _tune, _OPTIONS))
def tune() -> None:
    """Fit layer weights, K, D, dynamics and fusion to labelled frames.

    Each sample is encoded once per K; settings are then scored without the encoder. The search
    starts from the setting given by the options or --config. Both that setting and the one found
    are scored on videos that the search did not see. If the one found is not better there, the
    given one is written to --out.

    Exit codes: 0 if all samples were used, 3 if some lack their frames or cannot be used, 1 if
    nothing was written.
    """


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--out",
        required=True,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The parameter file, for the node and for --config; replaced if it exists.",
    ),
    click.option(
        "--depth",
        "depths",
        multiple=True,
        type=click.IntRange(1),
        metavar="K",
        help="A K to try besides that of the given setting; repeatable. Each costs one encoder "
        "pass per sample.  [default: two less and two more]",
    ),
    click.option(
        "--settings",
        type=click.IntRange(1),
        default=300,
        show_default=True,
        metavar="N",
        help="Settings to score in each search, besides those that all searches begin with.",
    ),
    click.option(
        "--folds",
        type=click.IntRange(2),
        default=5,
        show_default=True,
        metavar="N",
        help="Parts that the videos are split into, each held out of one search in turn.",
    ),
    click.option(
        "--hold-out",
        is_flag=True,
        help="Hold out only one of the parts: run a single search and measure what it finds.",
    ),
    click.option(
        "--stretch-s",
        type=FiniteRange(0, LONGEST_S, min_open=True),
        metavar="S",
        help="Count every S seconds of a recording as a separate video, if there are few.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        metavar="N",
        help="Decides which videos are held out and which settings are tried.",
    ),
    click.option(
        "--cache",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="Keep encoder results in DIR, to reuse them and to need less memory.",
    ),
    click.option(
        "--unproven",
        is_flag=True,
        help="Write the setting found even if held-out videos do not show that it is better.",
    ),
    grounding_options,
)


def _tune(name: str, options: Mapping[str, Any]) -> None:
    from videogem_ros.evaluation.tuning import TuningConfig
    from videogem_ros.evaluation.tuning import tune as search

    out, cache, unproven = (options[option] for option in ("out", "cache", "unproven"))
    if out.is_dir() or not out.resolve().parent.is_dir():
        raise InvalidValueError("--out", "a file in an existing folder", str(out))
    _check_writable(out)
    searched = ("settings", "folds", "hold_out", "seed")
    config = TuningConfig(**{option: options[option] for option in searched})
    dataset = open_set(name, options)
    grounder = load_grounder(options)
    try:
        examples, left_out = _encode(dataset, grounder, options, cache)
        with progress_bar("searching", "settings") as report:
            tuning = search(examples, grounder.config, config, progress=report)
    except KeyboardInterrupt as error:
        kept = f"; what was encoded is kept in {cache}" if cache else ""
        click.echo(f"interrupted, {out} was not written{kept}", err=True)
        click.get_current_context().exit(exit_code(error))
    _print(tuning)
    about = _about(tuning, dataset.name, unproven=unproven)
    taken = tuning.found if tuning.better or unproven else tuning.default
    _write(out, _parameters(taken, options), about)
    click.echo("\n".join((*about, f"Written to {out}.")))
    warn_of(grounder.backbone)
    if left_out:
        click.get_current_context().exit(INCOMPLETE)


def _encode(
    dataset: Dataset, grounder: Grounder, options: Mapping[str, Any], cache: Path | None
) -> tuple[Examples, int]:
    """Examples of all that can be used, and how many samples lack or cannot be used."""
    from videogem_ros.evaluation.examples import ExampleEncoder, Examples
    from videogem_ros.evaluation.tuning import check_videos

    backbone, default = grounder.backbone, grounder.config
    around = (default.depth - 2, default.depth + 2)
    blocks = range(1, len(backbone.tower.blocks) + 1)
    depths = options["depths"] or [depth for depth in around if depth in blocks]
    encoder = ExampleEncoder(
        dataset,
        backbone,
        default,
        sorted({default.depth, *depths}),
        cache=cache,
        stretch_s=options["stretch_s"],
    )
    count = len(encoder.samples)
    if count:  # what would fail after the encoder's work fails before
        check_videos(encoder.videos, options["folds"])

    def told() -> Iterator[Example]:
        with progress_bar("encoding", "samples") as report:
            for done, example in enumerate(encoder, start=1):
                report(done, count)
                yield example

    try:
        examples = Examples(told(), count, folder=cache, device=grounder.device)
    finally:
        missing = Counter({f"no frames of {name}": n for name, n in dataset.missing.items()})
        left_out = missing + dataset.skipped + encoder.skipped
        without_box = Counter({"no box, so nothing to hit": len(dataset.samples) - count})
        for reason, number in (left_out + without_box).items():
            click.echo(f"left out {number}: {reason}", err=True)
    return examples, left_out.total()


def _print(tuning: Tuning) -> None:
    """The setting before and the one found, and their accuracies on held-out videos."""
    from videogem_ros.live.parameters import grounding_parameters

    before, found = (grounding_parameters(one) for one in (tuning.default, tuning.found))
    settings = _table("parameter", "before", "found")
    for name in TUNED:
        settings.add_row(name, _shown(before[name]), _shown(found[name]))
    accuracy = _table("held out", "videos", "samples", "before %", "tuned %", "difference")
    for number, fold in enumerate(tuning.folds, start=1):
        one, other = (100 * hits / fold.samples for hits in (fold.default, fold.tuned))
        accuracy.add_row(
            f"part {number}",
            f"{fold.videos}",
            f"{fold.samples}",
            f"{one:.1f}",
            f"{other:.1f}",
            f"{other - one:+.1f}",
        )
    accuracy.add_row(
        "all",
        f"{tuning.videos}",
        f"{tuning.difference.count}",
        _percent(tuning.default_accuracy),
        _percent(tuning.tuned_accuracy),
        _percent(tuning.difference, "+"),
    )
    console = result_console()
    for table in (settings, accuracy):
        console.print(table)
        console.print()


def _table(*titles: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title)
    return table


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _percent(estimate: Estimate, sign: str = "") -> str:
    """The number, and its interval unless every draw was the same and says nothing."""
    value, low, high = (
        f"{100 * number:{sign}.1f}" for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} ({low} to {high})" if estimate.low < estimate.high else value


def _about(tuning: Tuning, dataset: str, *, unproven: bool) -> list[str]:
    """The verdict and what it rests on, in lines."""
    from videogem_ros.evaluation.tuning import LEAST_VIDEOS

    lines = [
        f"Searched on {dataset}; {tuning.difference.count} samples of {tuning.videos} videos were "
        "held out of a search.",
        f"Accuracy on them is {_percent(tuning.tuned_accuracy)} % tuned and "
        f"{_percent(tuning.default_accuracy)} % before, a difference of "
        f"{_percent(tuning.difference, '+')} points (95 % intervals).",
    ]
    if tuning.videos < LEAST_VIDEOS:
        lines.append(f"So few videos cannot show which is better; {LEAST_VIDEOS} or more may.")
    elif tuning.videos < FEW_VIDEOS:
        lines.append(f"Intervals from {tuning.videos} videos are rough and probably too narrow.")
    if tuning.better:
        lines.append("The setting found is better than the one before.")
    elif unproven:
        lines.append("It is not shown to be better than the setting before.")
    else:
        lines.append("Nothing better was found, so this is the setting from before.")
    return lines


def _parameters(setting: GroundingConfig, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a parameter file has to say for a setting: all that is searched or not the default."""
    from videogem_ros.core.configuration import backbone_name
    from videogem_ros.live.parameters import Parameters, grounding_parameters

    usual = Parameters().values
    values = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in grounding_parameters(setting).items()
        if name in TUNED or value != usual[name]
    }
    weights = {"weights": options["weights"]} if options["weights"] else {}
    name = backbone_name(options["backbone"], options["weights"])
    return {"backbone": name, **weights, **values}


def _check_writable(path: Path) -> None:
    """Tries what :func:`_write` begins with, before hours of work; leaves nothing behind."""
    with suppress(_OnlyTriedError), whole_file(path) as partial:
        partial.touch()
        raise _OnlyTriedError


class _OnlyTriedError(Exception):
    """Keeps a file from being replaced by an empty one."""


def _write(path: Path, parameters: Mapping[str, Any], about: Sequence[str]) -> None:
    import yaml

    text = "".join(f"# {line}\n" for line in about)
    text += yaml.safe_dump(
        {"/**": {"ros__parameters": dict(parameters)}},
        sort_keys=False,
        default_flow_style=None,  # lists in one line
        allow_unicode=True,
    )
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")

"""``videogem-ros tabletop``: a labelled recording, drawn by the package itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import track

from videogem_ros.cli.numbers import FiniteRange

if TYPE_CHECKING:
    from videogem_ros.tabletop import Clip


@click.command(short_help="Draw a labelled tabletop recording.")
@click.option(
    "--out",
    required=True,
    metavar="BAG",
    type=click.Path(path_type=Path),
    help="Folder of the bag; must not exist.",
)
@click.option(
    "--clips",
    type=click.IntRange(1),
    metavar="N",
    help="Number of clips, one after another.  [default: 10, or all of the benchmark]",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Decides what the clips show; the same seed gives the same clips.",
)
@click.option(
    "--frames",
    type=click.IntRange(8, 32),
    metavar="N",
    help="Frames of a clip, at 10 Hz.  [default: 8 to 32, at random]",
)
@click.option(
    "--hw",
    type=click.IntRange(48, 4096),
    nargs=2,
    default=(240, 320),
    metavar="H W",
    show_default=True,
    help="Size of the images in pixels; 16:9 is the widest.",
)
@click.option(
    "--empty",
    type=FiniteRange(0, 1),
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="Share of clips without any action.",
)
@click.option(
    "--benchmark", is_flag=True, help="Use clips of the fixed benchmark, spread evenly over it."
)
@click.pass_context
def tabletop(
    context: click.Context,
    *,
    out: Path,
    clips: int | None,
    seed: int,
    frames: int | None,
    hw: tuple[int, int],
    empty: float,
    benchmark: bool,
) -> None:
    """Write a rosbag2 of hands and grippers that act on objects on a table.

    It has images, depth, camera_info, commands and, per image, the box of each action.
    docs/tabletop.md describes what is drawn.
    """
    from videogem_ros.adapters.bag.tabletop import write_clips
    from videogem_ros.tabletop import SceneConfig, benchmark_clip, benchmark_numbers, check_hw

    if benchmark:
        for name in ("seed", "frames", "hw", "empty"):
            if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
                raise click.UsageError(f"the benchmark is fixed; leave --{name} out")
        numbers = benchmark_numbers(clips) if clips else benchmark_numbers()
        count = len(numbers)
        drawn: Iterable[Clip] = (benchmark_clip(number, depth=True) for number in numbers)
    else:
        check_hw(hw)
        count = clips or 10
        config = SceneConfig(empty=empty)
        drawn = draw_clips(count, seed, frames=frames, hw=hw, depth=True, config=config)
    console = Console(stderr=True)
    write_clips(out, track(drawn, "drawing clips", total=count, console=console))
    click.echo(out)


def draw_clips(count: int, seed: int, **options: Any) -> Iterator[Clip]:
    """Clips, each on its own seed: fewer of them are the first of more.

    Args:
        count: How many.
        seed: Decides what they show.
        **options: Of :func:`~videogem_ros.tabletop.make_clip`.
    """
    import numpy as np

    from videogem_ros.tabletop import make_clip

    for number in range(count):
        yield make_clip(np.random.default_rng([seed, number]), **options)

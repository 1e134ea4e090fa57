"""``videogem-ros ground``: where actions are in one window of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from videogem_ros.cli.console import result_console
from videogem_ros.cli.options import grounding_options, load_session, set_actions, warn_of
from videogem_ros.datatypes import Frame, Grounding
from videogem_ros.errors import InvalidValueError, RecordingError
from videogem_ros.files import check_apart, whole_file

if TYPE_CHECKING:
    from videogem_ros.render import Picture


@click.command(short_help="Ground actions in one window of images.")
@click.argument(
    "paths", metavar="IMAGE_OR_FRAMES...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--action",
    "actions",
    multiple=True,
    required=True,
    metavar="TEXT",
    help="What to look for; repeat for several actions at once.",
)
@click.option(
    "--out",
    default="overlay.png",
    show_default=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The overlay, .png or .jpg; replaced if it exists.",
)
@grounding_options
def ground(paths: tuple[Path, ...], actions: tuple[str, ...], out: Path, **grounding: Any) -> None:
    """Ground actions in the newest frame of one window.

    Give images, oldest first, or one video file, folder of images or bag, whose last window is
    used. In the table, "prompts" are the probabilities of the verb, object and action prompts.
    """
    from videogem_ros.render import draw_overlay

    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InvalidValueError("--out", "a name that ends in .png, .jpg or .jpeg", str(out))
    check_apart("--out", (out,), paths)
    session, grounder = load_session(grounding)
    set_actions(session, actions)
    for frame in _frames(paths, grounding["frame_interval_s"]):
        session.push(frame)
    job = session.take()
    if job is None:
        raise RecordingError(f"{paths[0]}: nothing to ground: {session.status.value}")
    groundings = session.run(job)
    _save(out, draw_overlay(job.window.newest.image, groundings))
    _print(groundings)
    warn_of(grounder.backbone)


def _frames(paths: Sequence[Path], interval_s: float) -> Iterator[Frame]:
    """Images as frames at the window's spacing, or the frames of a recording."""
    from videogem_ros.adapters.bag import open_source
    from videogem_ros.adapters.bag.folder import SUFFIXES
    from videogem_ros.encodings import decode_compressed

    if len(paths) == 1 and paths[0].suffix.lower() not in SUFFIXES:
        with open_source(paths[0]) as source:
            yield from (event for event in source if isinstance(event, Frame))
        return
    hw: tuple[int, ...] = ()
    for index, path in enumerate(paths):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror}") from error
        image = decode_compressed(content, name=str(path), upright=True)
        hw = hw or image.shape[:2]
        if image.shape[:2] != hw:
            raise InvalidValueError(str(path), f"(H, W) {hw}, that of {paths[0]}", image.shape[:2])
        yield Frame(image, round(index * interval_s * 1e9))


def _save(path: Path, picture: Picture) -> None:
    import cv2

    _, encoded = cv2.imencode(path.suffix, picture[..., ::-1])
    with whole_file(path) as partial:
        partial.write_bytes(encoded.tobytes())


def _print(groundings: Sequence[Grounding]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("action", min_width=14)
    table.add_column("verb")
    table.add_column("object")
    for title in ("x, y in px", "score", "present", "prompts"):
        table.add_column(title, justify="right", no_wrap=True)
    for found in groundings:
        table.add_row(
            found.action.phrase,
            found.action.verb or "-",
            found.action.object or "-",
            f"{found.point.x:.1f}, {found.point.y:.1f}",
            f"{found.score:.2f}",
            "yes" if found.present else "no",
            " ".join(f"{probability:.2f}" for probability in found.prompt_probabilities),
        )
    result_console().print(table)

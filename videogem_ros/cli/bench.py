"""``videogem-ros bench``: what this machine can do, and what to choose on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from videogem_ros.cli.console import result_console, status
from videogem_ros.cli.numbers import LONGEST_S, FiniteRange
from videogem_ros.cli.options import warn
from videogem_ros.cli.signals import interruptible
from videogem_ros.core.configuration import SCOPES
from videogem_ros.errors import InvalidValueError, VideoGemError

if TYPE_CHECKING:
    from videogem_ros.evaluation.speed import Machine, Measurement, Setting

USUAL = ("viclip:B-16", "openclip:ViT-B-16", "openclip:ViT-B-32")
USUAL_ON_GPU = ("viclip:L-14", "viclip:B-16", "openclip:ViT-L-14", "openclip:ViT-B-16")
REFERENCE = "float32"
EXACT = SCOPES[0]
PERCENTILES = (50, 90, 99)
VIDEO = "viclip:"
STREAM = 8
"""Frames of an image backbone's window where all frames' heatmaps are wanted."""


@dataclass(frozen=True)
class _Row:
    """A measurement, and its points' agreement with float32: share and number, or None."""

    measured: Measurement
    agreement: tuple[float, int] | None


@click.command()
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    metavar="NAME",
    help="As for the other commands; repeatable, the preferred one first.  "
    f"[default: {', '.join(USUAL)}; on a GPU {', '.join(USUAL_ON_GPU)}]",
)
@click.option(
    "--weights",
    multiple=True,
    metavar="WEIGHTS",
    help="One for each backbone, in the same order.  [default: random:0, as fast as trained ones]",
)
@click.option("--device", help="cpu, cuda, cuda:1, ...  [default: cuda if available]")
@click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    type=click.Choice(("float32", "bfloat16", "float16")),
    help="Repeatable; float32 is always measured, as the reference for the others' points.  "
    "[default: float32, and bfloat16 if the hardware multiplies it]",
)
@click.option(
    "--self-self-scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    help="For video backbones; repeatable; window is always measured, as the reference for the "
    "others' points.  [default: window]",
)
@click.option(
    "--frames",
    "ground",
    type=click.Choice(("newest", "all")),
    default="newest",
    show_default=True,
    help="Frames to compute heatmaps for.",
)
@click.option(
    "--window",
    type=click.IntRange(1),
    metavar="N",
    help=f"Frames of an image backbone's window.  [default: 1, or {STREAM} with --frames all]",
)
@click.option(
    "--actions",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Actions to ground at once.",
)
@click.option(
    "--image-hw",
    type=click.IntRange(1),
    nargs=2,
    metavar="H W",
    help="Size of the network's input in pixels.  [default: the backbone's]",
)
@click.option(
    "--camera-hw",
    type=click.IntRange(32),
    nargs=2,
    metavar="H W",
    default=(480, 640),
    show_default=True,
    help="Size of the camera's images.",
)
@click.option(
    "--seconds",
    type=FiniteRange(0, LONGEST_S, min_open=True),
    default=6.0,
    show_default=True,
    metavar="S",
    help="How long to measure each setting; at least three frames.",
)
@click.option(
    "--rate",
    type=FiniteRange(0, min_open=True),
    metavar="HZ",
    help="Also recommend a setting for this many frames per second.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def bench(context: click.Context, /, *, rate: float | None, as_json: bool, **options: Any) -> None:
    """Measure speed on this machine, and recommend a setting for a frame rate.

    Latency is the time for each new camera frame, from its pixels to points and heatmaps, with
    texts already encoded and nothing else running. Each setting is measured in its own process.
    Memory is the peak of that process; (+N) is what grounding adds to the loaded model. An
    interrupted run prints the results so far.
    """
    from videogem_ros.evaluation.speed import this_machine

    device = _device(options["device"])
    machine = this_machine(device)
    settings = _settings(device, machine, options)
    _warn(device, settings)
    rows: list[_Row] = []
    failed: dict[str, str] = {}
    with interruptible() as signals:
        _measure(settings, options["seconds"], rows, failed, signals)
    if as_json:
        click.echo(json.dumps(_to_json(machine, rows, failed, rate, bool(signals)), indent=2))
    else:
        _show(machine, rows, options, rate)
    for name, cause in failed.items():
        click.echo(f"Error: {name}: {cause}", err=True)
    if signals:
        click.echo(f"interrupted after {len(rows)} of {len(settings)} settings", err=True)
        context.exit(128 + signals[0])  # as a shell reports it
    if failed:
        context.exit(1)


def _device(name: str | None) -> str:
    """The device, checked to be available; the default where None.

    Raises:
        InvalidValueError: It is not available.
    """
    import torch

    from videogem_ros.core.hardware import available_device

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return str(available_device(name, "--device"))


def _warn(device: str, settings: Sequence[Setting]) -> None:
    """Warns of dtypes that the device only emulates."""
    import torch

    from videogem_ros.core.backbones import DTYPES
    from videogem_ros.core.hardware import slowness

    for dtype in dict.fromkeys(setting.dtype for setting in settings):
        if said := slowness(torch.device(device), DTYPES[dtype]):
            warn(said)


def _settings(device: str, machine: Machine, options: dict[str, Any]) -> list[Setting]:
    """The settings to measure, the preferred ones first."""
    from videogem_ros.core.backbones.checkpoint import TABLETOP
    from videogem_ros.evaluation.speed import Setting

    names = options["backbones"] or (USUAL_ON_GPU if machine.gpu else USUAL)
    # Backbones that are part of the package have their weights with them.
    untrained = [None if name.endswith(f":{TABLETOP}") else "random:0" for name in names]
    weights = options["weights"] or untrained
    if len(weights) != len(names):
        raise InvalidValueError(
            "--weights", f"one for each of {len(names)} backbones", len(weights)
        )
    usual = (REFERENCE, *(("bfloat16",) if machine.bfloat16 else ()))
    dtypes = dict.fromkeys((REFERENCE, *(options["dtypes"] or usual)))
    scopes = dict.fromkeys((EXACT, *options["scopes"]))
    ground = options["ground"]
    window = options["window"] or (STREAM if ground == "all" else None)
    return [
        Setting(
            backbone=name,
            weights=given,
            device=device,
            dtype=dtype,
            self_self_scope=scope,
            ground=ground,
            actions=options["actions"],
            window=None if name.startswith(VIDEO) else window,
            image_hw=options["image_hw"],
            camera_hw=options["camera_hw"],
        )
        for name, given in zip(names, weights)
        for scope in (scopes if name.startswith(VIDEO) else (EXACT,))
        for dtype in dtypes
    ]


def _measure(
    settings: Sequence[Setting],
    seconds: float,
    rows: list[_Row],
    failed: dict[str, str],
    signals: Sequence[int],
) -> None:
    """Measures settings into ``rows`` and ``failed``, until the first signal."""
    from videogem_ros.evaluation.speed import agreement, measure_apart

    references: dict[tuple[str, str | None], Measurement] = {}
    for number, setting in enumerate(settings, start=1):
        name, key = _name(setting, " "), (setting.backbone, setting.weights)
        is_reference = (setting.dtype, setting.self_self_scope) == (REFERENCE, EXACT)
        if not is_reference and key not in references:
            continue  # its float32 failed, and said why
        try:
            with status(f"{number} of {len(settings)}: {name}"):
                measured = measure_apart(setting, seconds, lambda: bool(signals))
        except VideoGemError as error:
            failed[name] = str(error)
            continue
        if measured is None:
            return
        if is_reference:
            references[key] = measured
            rows.append(_Row(measured, None))
        else:
            rows.append(_Row(measured, agreement(references[key], measured)))
        click.echo(
            f"{number} of {len(settings)}: {name}, {_ms(measured.percentile(50))} ms", err=True
        )


def _name(setting: Setting, between: str) -> str:
    """Backbone, dtype and, where it is not the usual one, scope."""
    apart = "" if setting.self_self_scope == EXACT else f", scope {setting.self_self_scope}"
    return f"{setting.backbone}{between}{setting.dtype}{apart}"


def _ms(seconds: float) -> str:
    """Milliseconds with at least three significant digits."""
    milliseconds = 1e3 * seconds
    return f"{milliseconds:.{0 if milliseconds >= 100 else 1 if milliseconds >= 10 else 2}f}"


def _show(
    machine: Machine, rows: Sequence[_Row], options: dict[str, Any], rate: float | None
) -> None:
    console = result_console()
    console.print(_about(machine), highlight=False)
    if not rows:
        return
    height, width = options["camera_hw"]
    count = options["actions"]
    console.print(
        f"camera {height} x {width}, heatmaps of {_whose(options['ground'])}, "
        f"{count} action{'s' if count > 1 else ''}",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False)
    for title in ("backbone", "dtype", "scope", "input"):
        table.add_column(title)
    for title in ("min ms", *(f"p{percent}" for percent in PERCENTILES), "p25-p75", "frames"):
        table.add_column(title, justify="right")
    for title in ("per second", "MiB", "points as in float32"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)
    if any(row.measured.untrained for row in rows):
        console.print(
            "Random weights: time and memory are as with trained ones; the agreement of points is "
            "not.",
            highlight=False,
        )
    if rate is not None:
        console.print(_advice(rows, rate), highlight=False, soft_wrap=True)


def _about(machine: Machine) -> str:
    plural = "s" if machine.cores > 1 else ""
    about = (
        f"{machine.processor}, {machine.cores} core{plural}, "
        f"torch {machine.torch} with {machine.threads} threads"
    )
    return f"{about}; {machine.gpu}, {machine.gpu_mib} MiB" if machine.gpu else about


def _whose(ground: str) -> str:
    return "the newest frame" if ground == "newest" else "all frames"


def _cells(row: _Row) -> list[str]:
    measured = row.measured
    setting = measured.setting
    if measured.gpu_peak_mib is not None:
        memory = f"{measured.gpu_peak_mib:,.0f} GPU"
    else:
        added = measured.window_mib
        memory = f"{measured.peak_mib:,.0f}" + ("" if added is None else f" (+{added:,.0f})")
    agreement = ""
    if row.agreement is not None:
        share, points = row.agreement
        agreement = f"{share:.1%} of {points}"
    return [
        setting.backbone,
        setting.dtype,
        setting.self_self_scope if setting.backbone.startswith(VIDEO) else "",
        "{}x{}".format(*measured.input_hw),
        _ms(min(measured.latencies_s)),
        *(_ms(measured.percentile(percent)) for percent in PERCENTILES),
        f"{_ms(measured.percentile(25))}-{_ms(measured.percentile(75))}",
        str(len(measured.latencies_s)),
        f"{measured.rate:.3g}",
        memory,
        agreement,
    ]


def _advice(rows: Sequence[_Row], rate: float) -> str:
    from videogem_ros.evaluation.speed import choose

    chosen, sustained = choose([row.measured for row in rows], rate)
    setting = chosen.setting
    name = _name(setting, " in ")
    wanted = f"{rate:g} frame{'' if rate == 1 else 's'} a second"
    speed = f"9 of 10 frames within {_ms(chosen.percentile(90))} ms, {chosen.rate:.3g} a second"
    if not sustained:
        return f"{wanted}: none of these; the nearest is {name} ({speed})"
    size = "" if setting.image_hw is None else " --image-hw {} {}".format(*setting.image_hw)
    scope = setting.self_self_scope
    apart = "" if scope == EXACT else f" --self-self-scope {scope}"
    return (
        f"{wanted}: {name} ({speed})\n  --backbone {setting.backbone} "
        f"--dtype {setting.dtype} --device {setting.device}{size}{apart}"
    )


def _to_json(
    machine: Machine,
    rows: Sequence[_Row],
    failed: dict[str, str],
    rate: float | None,
    interrupted: bool,
) -> dict[str, Any]:
    from videogem_ros.evaluation.speed import choose

    settings = []
    for row in rows:
        measured = row.measured
        fields = measured.to_json()
        fields.pop("points")
        latencies = fields.pop("latencies_s")
        fields["latency_s"] = {
            "min": min(latencies),
            **{f"p{percent}": measured.percentile(percent) for percent in (25, 50, 75, 90, 99)},
            "max": max(latencies),
            "frames": len(latencies),
        }
        fields["frames_per_s"] = measured.rate
        if row.agreement is not None:
            fields["points_as_in_float32"] = dict(zip(("share", "points"), row.agreement))
        settings.append(fields)
    result: dict[str, Any] = {
        "machine": asdict(machine),
        "settings": settings,
        "failed": failed,
        "interrupted": interrupted,
    }
    if rate is not None and rows:
        chosen, sustained = choose([row.measured for row in rows], rate)
        result["rate"] = {
            "wanted": rate,
            "sustained": sustained,
            "setting": asdict(chosen.setting),
            "frames_per_s": chosen.rate,
        }
    return result

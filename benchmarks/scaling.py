"""Cost of grounding for more frames, pixels, actions and cameras, with a plot.

    python benchmarks/scaling.py [--backbone openclip:ViT-B-16] [--repeats 3] [--parts PART ...]
        [--json FILE] [--picture docs/pictures/scaling.svg]

Varies one of four sizes at a time, for an image backbone with seeded random weights:

    window      frames of the window, all heatmaps: all frames encoded again, or only the new one,
                as a session does
    input       side of the network's square input in pixels, one frame
    actions     actions on one frame, with new or known texts
    cameras     cameras, one frame of each: one after another, or encoded as one batch

Before timing, both ways of a pair must give the same heatmaps to 1e-5. Times are medians, with the
fastest and slowest run; memory is the peak above that of the loaded model.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
import torch
from speed import TOLERANCE, at_least_one
from streaming import camera

from videogem_ros.core import Grounder, GroundingConfig, load_backbone
from videogem_ros.datatypes import PROMPT_KINDS, Action, Frame, Grounding, Window
from videogem_ros.errors import InvalidValueError, VideoGemError
from videogem_ros.evaluation.report.plots import Scale, child
from videogem_ros.evaluation.speed import ACTIONS, PeakMemory, this_machine
from videogem_ros.files import whole_file
from videogem_ros.language import parse_actions
from videogem_ros.session import Session, SessionConfig

CAMERA_HW = (480, 640)
WINDOWS = (1, 4, 8, 12)
SIDES = (14, 21, 28, 35, 42)
"""Patches along a side of the network's input."""
SIDE = 14
"""The same when another size is varied."""
COUNTS = (1, 4, 8, 16, 32)
CAMERAS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        x: The size that is varied.
        seconds: Fastest, median and slowest run.
        peak_mib: Peak memory above that of the loaded model; None if it was not measured.
    """

    x: int
    seconds: tuple[float, float, float]
    peak_mib: float | None


@dataclass(frozen=True)
class Curve:
    """One of the compared ways, over the varied size."""

    name: str
    points: list[Point]


@dataclass(frozen=True)
class Panel:
    """A varied size, and the ways that are compared."""

    title: str
    axis: str
    curves: list[Curve]


def check(what: str, one: Sequence[Grounding], other: Sequence[Grounding]) -> None:
    """Exits if two ways differ."""
    for first, second in zip(one, other, strict=True):
        for kind in PROMPT_KINDS:
            apart = np.abs(first.heatmaps[kind].values - second.heatmaps[kind].values).max()
            if not apart <= TOLERANCE:
                sys.exit(f"{what}: heatmaps differ by {apart:.2e}, more than {TOLERANCE:g}")


def point(x: int, run: Callable[[], object], repeats: int) -> Point:
    """Measures peak memory in the warm-up run, then times."""
    memory = PeakMemory("cpu")
    run()
    _, peak_mib, _ = memory.peaks()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return Point(x, (min(seconds), median(seconds), max(seconds)), peak_mib)


def actions_of(count: int) -> list[Action]:
    return [action for text in ACTIONS[:count] for action in parse_actions(text)]


def grow_window(grounder: Grounder, repeats: int) -> Panel:
    anew, streamed = [], []
    for frames in WINDOWS:
        source = camera(CAMERA_HW)
        config = SessionConfig(frames=frames, ground="all", max_buffer_frames=max(frames, 64))
        session = Session(grounder, config)
        session.set_actions(ACTIONS[:1])
        for frame in islice(source, frames):
            session.push(frame)
        window = session.window()
        assert window is not None

        def again(window: Window = window) -> list[Grounding]:
            return grounder.ground(window, actions_of(1), "all")

        def stream(session: Session = session, source: Iterator[Frame] = source) -> None:
            session.push(next(source))
            session.ground()

        check(f"window of {frames}", again(), session.ground())
        anew.append(point(frames, again, repeats))
        streamed.append(point(frames, stream, repeats))
    curves = [Curve("encoded anew", anew), Curve("new frame alone", streamed)]
    return Panel("window, all heatmaps", "frames", curves)


def grow_input(grounder: Grounder, repeats: int) -> Panel:
    patch_h, patch_w = grounder.backbone.tower.patch_hw
    window = Window((next(camera(CAMERA_HW)),))
    points = []
    for side in SIDES:
        sized = Grounder(
            grounder.backbone, GroundingConfig(image_hw=(side * patch_h, side * patch_w))
        )
        run = point(side * patch_h, lambda s=sized: s.ground(window, actions_of(1)), repeats)
        points.append(run)
    return Panel("network's input, one frame", "pixels a side", [Curve("one frame", points)])


def grow_actions(grounder: Grounder, repeats: int) -> Panel:
    window = Window((next(camera(CAMERA_HW)),))
    new, known = [], []
    for count in COUNTS:
        actions = actions_of(count)

        def unknown(actions: Sequence[Action] = tuple(actions)) -> list[Grounding]:
            # A new grounder knows no texts.
            return Grounder(grounder.backbone, grounder.config).ground(window, actions)

        def usual(actions: Sequence[Action] = tuple(actions)) -> list[Grounding]:
            return grounder.ground(window, actions)

        check(f"{count} actions", unknown(), usual())
        new.append(point(count, unknown, repeats))
        known.append(point(count, usual, repeats))
    curves = [Curve("new texts", new), Curve("known texts", known)]
    return Panel("actions, one frame", "actions", curves)


def grow_cameras(grounder: Grounder, repeats: int) -> Panel:
    apart, together = [], []
    for cameras in CAMERAS:
        windows = [Window((next(camera(CAMERA_HW, seed)),)) for seed in range(cameras)]

        def alone(windows: Sequence[Window] = windows) -> list[Grounding]:
            return [found for w in windows for found in grounder.ground(w, actions_of(1))]

        def batch(windows: Sequence[Window] = windows) -> list[Grounding]:
            features = grounder.encode_each([window.newest for window in windows])
            return [
                found
                for of_one, window in zip(features, windows)
                for found in grounder.locate(of_one, window, actions_of(1))
            ]

        check(f"{cameras} cameras", alone(), batch())
        apart.append(point(cameras, alone, repeats))
        together.append(point(cameras, batch, repeats))
    curves = [Curve("one after another", apart), Curve("one batch", together)]
    return Panel("cameras, one frame each", "cameras", curves)


PANELS = {
    "window": grow_window,
    "input": grow_input,
    "actions": grow_actions,
    "cameras": grow_cameras,
}


# The plot.

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #333;
  paint-order: stroke; stroke: #fff; stroke-width: 4px }
.title { font-weight: 600; font-size: 14px }
.note { fill: #666 }
.grid { stroke: #e3e3e3 }
.axis { stroke: #888 }
polyline { fill: none; stroke-width: 2.2 }
.c0 { stroke: #1f6fb4; fill: #1f6fb4 } polyline.c0 { fill: none } text.c0 { stroke: #fff }
.c1 { stroke: #cf5c16; fill: #cf5c16 } polyline.c1 { fill: none } text.c1 { stroke: #fff }
.whisker { stroke-width: 1.2 }
.paper { fill: #fff }
"""
PANEL_W, PANEL_H, LEFT, TOP = 258, 178, 54, 66
GAP_X, GAP_Y = 62, 74


def draw(panels: Sequence[Panel], note: str) -> str:
    """All panels as one SVG: time above, memory below.

    Args:
        panels: The measurements.
        note: Conditions of the measurements.
    """
    width = LEFT + len(panels) * (PANEL_W + GAP_X) - GAP_X + 24
    height = TOP + 2 * PANEL_H + GAP_Y + 52
    svg = Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width} {height}",
            "width": str(width),
            "height": str(height),
            "role": "img",
        },
    )
    SubElement(svg, "title").text = "Time and memory as windows, inputs, actions and cameras grow"
    SubElement(svg, "style").text = STYLE
    child(svg, "rect", class_="paper", width=width, height=height)
    child(svg, "text", class_="note", x=LEFT, y=22).text = note
    for column, panel in enumerate(panels):
        left = LEFT + column * (PANEL_W + GAP_X)
        child(svg, "text", class_="title", x=left, y=TOP - 12).text = panel.title
        for row, unit in enumerate(("seconds", "MiB")):
            _draw_panel(svg, panel, (left, TOP + row * (PANEL_H + GAP_Y)), unit)
    return tostring(svg, encoding="unicode")


def _values(point: Point, unit: str) -> tuple[float, float, float]:
    """Low, middle and high."""
    if unit == "seconds":
        return point.seconds
    peak = point.peak_mib or 0.0
    return peak, peak, peak


def _draw_panel(svg: Element, panel: Panel, corner: tuple[int, int], unit: str) -> None:
    left, top = corner
    bottom = top + PANEL_H
    known = [point for curve in panel.curves for point in curve.points]
    across = Scale.around([0.0, *(float(point.x) for point in known)], ticks=4)
    up = Scale.around([0.0, *(_values(point, unit)[2] for point in known)], ticks=4)

    def x(value: float) -> float:
        return left + across.place(value) * PANEL_W

    def y(value: float) -> float:
        return bottom - up.place(value) * PANEL_H

    for tick in up.ticks:
        kind = "axis" if tick == up.low else "grid"
        child(svg, "line", class_=kind, x1=left, x2=left + PANEL_W, y1=y(tick), y2=y(tick))
        label = child(svg, "text", x=left - 7, y=y(tick) + 4, text_anchor="end")
        label.text = f"{tick:.{0 if up.step >= 1 else 1 if up.step >= 0.1 else 2}f}"
    for tick in across.ticks:
        child(svg, "text", x=x(tick), y=bottom + 19, text_anchor="middle").text = f"{tick:g}"
    middle = left + PANEL_W / 2
    child(
        svg, "text", class_="note", x=middle, y=bottom + 38, text_anchor="middle"
    ).text = panel.axis
    child(svg, "text", class_="note", x=left + 6, y=top + 14).text = (
        unit if unit == "seconds" else "MiB above the model"
    )
    # Names are at the upper left, in the order of the curves' ends.
    ends = [_values(curve.points[-1], unit)[1] for curve in panel.curves]
    for place, number in enumerate(sorted(range(len(ends)), key=lambda n: -ends[n])):
        curve, colour = panel.curves[number], f"c{number}"
        trail = " ".join(f"{x(p.x):.1f},{y(_values(p, unit)[1]):.1f}" for p in curve.points)
        child(svg, "polyline", class_=colour, points=trail)
        for p in curve.points:
            low, value, high = _values(p, unit)
            child(
                svg,
                "line",
                class_=f"whisker {colour}",
                x1=x(p.x),
                x2=x(p.x),
                y1=y(low),
                y2=y(high),
            )
            child(svg, "circle", class_=colour, cx=x(p.x), cy=y(value), r=3)
        if len(panel.curves) > 1:
            text = child(svg, "text", class_=colour, x=left + 6, y=top + 34 + 18 * place)
            text.text = curve.name


def report(panels: Sequence[Panel]) -> str:
    lines = []
    for panel in panels:
        for curve in panel.curves:
            lines.append(f"{panel.title}: {curve.name}")
            for at in curve.points:
                low, middle, high = at.seconds
                peak = "" if at.peak_mib is None else f"{at.peak_mib:8.0f} MiB"
                lines.append(f"  {at.x:4d}{middle:8.3f} s ({low:.3f} to {high:.3f}){peak}")
    return "\n".join(lines)


def _grounder(name: str) -> Grounder:
    backbone = load_backbone(name, "random:0")
    if backbone.window_frames > 1:
        sys.exit(f"--backbone: expected an image backbone, got {name}")
    patch_h, patch_w = backbone.tower.patch_hw
    return Grounder(backbone, GroundingConfig(image_hw=(SIDE * patch_h, SIDE * patch_w)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="openclip:ViT-B-16")
    parser.add_argument("--parts", nargs="+", choices=list(PANELS), default=list(PANELS))
    parser.add_argument("--repeats", type=at_least_one, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write an SVG plot to FILE")
    parser.add_argument(
        "--from-json",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="plot these figures, measure nothing",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.from_json:
        found = [_read(path) for path in options.from_json]
        panels, note = [panel for panels, _ in found for panel in panels], found[0][1]
    else:
        machine = this_machine("cpu")
        note = (
            f"{options.backbone}, float32, input {SIDE} x {SIDE} patches unless it grows; "
            f"{machine.processor}, {options.threads} threads, torch {machine.torch}; "
            f"medians of {options.repeats}, lines from fastest to slowest"
        )
        grounder = _grounder(options.backbone)
        grounder.ground(Window((next(camera(CAMERA_HW)),)), actions_of(1))  # a warm-up
        panels = [PANELS[part](grounder, options.repeats) for part in options.parts]
        print(report(panels))
    if options.json:
        result = {"note": note, "panels": [asdict(panel) for panel in panels]}
        with whole_file(options.json) as part:
            part.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if options.picture:
        with whole_file(options.picture) as part:
            part.write_text(draw(panels, note) + "\n", encoding="utf-8")


def _read(path: Path) -> tuple[list[Panel], str]:
    """What ``--json`` wrote."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [_panel(panel) for panel in found["panels"]], found["note"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidValueError("--from-json", "what --json wrote", f"{path}: {error}") from error


def _panel(panel: dict[str, Any]) -> Panel:
    curves = [
        Curve(
            curve["name"],
            [Point(p["x"], tuple(p["seconds"]), p["peak_mib"]) for p in curve["points"]],
        )
        for curve in panel["curves"]
    ]
    return Panel(panel["title"], panel["axis"], curves)


if __name__ == "__main__":
    try:
        main()
    except VideoGemError as error:
        sys.exit(f"error: {error}")

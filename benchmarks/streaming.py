"""Cost of a running session: per new frame, and per further action.

    python benchmarks/streaming.py frame [--backbone openclip:ViT-B-16] [--window 8] [--repeats 5]
    python benchmarks/streaming.py action [--backbone viclip:B-16]

``frame``: a sliding window of an image backbone. The baseline is the plain transcription in
benchmarks/speed.py, which computes the whole window again for each frame. Ours is a session's
``push`` and ``ground``, from camera pixels to points and heatmaps, once for all frames of the
window and once for the newest. Their heatmaps must be equal to 1e-5 before they are timed
alternately in one process.

``action``: the cost of one more action on an encoded window, with new or known texts. Its result
must be the same with and without another action. The baseline is the window's time with one
action.

Weights are random with a fixed seed: time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from speed import TOLERANCE, at_least_one, baseline

from videogem_ros.core import Encoder, Grounder, load_backbone
from videogem_ros.core.backbones.preprocessing import normalised, place, upload
from videogem_ros.datatypes import PROMPT_KINDS, Action, Frame, Grounding, Window
from videogem_ros.language import parse_actions
from videogem_ros.session import Session, SessionConfig

INTERVAL_NS = 250_000_000
ACTION = "pour the milk"
VERBS = ("open", "close", "wipe", "wash", "lift", "push", "pull", "cut", "stir", "fold", "move")
OBJECTS = ("top drawer", "red mug", "fridge", "towel", "tomato", "soup", "carrot", "plate", "door")
WAYS = {"all": "ours, all frames", "newest": "ours, newest frame"}


def camera(hw: tuple[int, int], seed: int = 0) -> Iterator[Frame]:
    """Frames of a seeded camera, all different."""
    generator = np.random.default_rng(seed)
    for number in range(2**31):
        image = generator.integers(0, 256, (*hw, 3), dtype=np.uint8)
        yield Frame(image, number * INTERVAL_NS)


def maps(groundings: Sequence[Grounding]) -> torch.Tensor:
    """Heatmaps (F, K, H, W) of one action."""
    return torch.tensor(
        np.stack([[found.heatmaps[kind].values for kind in PROMPT_KINDS] for found in groundings])
    )


def check(what: str, expected: torch.Tensor, found: torch.Tensor) -> float:
    """Largest deviation; exits if it exceeds the tolerance."""
    deviation = float((expected - found).abs().max())
    if not deviation <= TOLERANCE:
        sys.exit(f"{what}: heatmaps differ by {deviation:.2e}, more than {TOLERANCE:g}")
    return deviation


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def spread(seconds: Sequence[float]) -> list[float]:
    return [min(seconds), median(seconds), max(seconds)]


def transcription(grounder: Grounder, frames: int) -> Callable[[Window], torch.Tensor]:
    """The plain transcription for a whole window, from its pixels to heatmaps."""
    backbone, config = grounder.backbone, grounder.config
    tower = backbone.tower
    grid_hw = tuple(side // patch for side, patch in zip(grounder.input_hw, tower.patch_hw))
    positions = Encoder(tower, config.depth).positions(grid_hw)
    (action,) = parse_actions(ACTION)
    prompts = grounder.ground(next_window(grounder, frames), [action])[0].prompts
    text = backbone.encode_text(prompts.texts)

    def run(window: Window) -> torch.Tensor:
        pixels = normalised(
            upload([frame.image for frame in window.frames], text.device),
            place(window.hw, grounder.input_hw, config.resize),
            backbone.preprocessing,
            tower.patch_embedding.dtype,
        )
        return baseline(tower, pixels, positions, text)

    return run


def next_window(grounder: Grounder, frames: int) -> Window:
    """A window of the right length, for the warm-up."""
    source = camera(grounder.input_hw)
    return Window(tuple(next(source) for _ in range(frames)))


def measure_frame(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds per new frame of a sliding window."""
    grounder = Grounder(load_backbone(options.backbone, "random:0"))
    if grounder.backbone.window_frames > 1:
        sys.exit(f"--backbone: expected an image backbone, got {options.backbone}")
    plain = transcription(grounder, options.window)
    source = camera(tuple(options.hw))
    sessions = {}
    for ground in WAYS:
        session = Session(grounder, SessionConfig(frames=options.window, ground=ground))
        session.set_action(ACTION)
        sessions[ground] = session

    def feed(session: Session, frame: Frame) -> list[Grounding]:
        session.push(frame)
        return session.ground()

    for _ in range(options.window):
        frame = next(source)
        for session in sessions.values():
            feed(session, frame)
    window = sessions["all"].window()
    assert window is not None
    expected = plain(window)  # also the warm-up
    deviation = max(
        check(way, expected[-len(found) :], found)
        for way, session in sessions.items()
        for found in [maps(session.run(session.take_for(session.actions)))]
    )
    passes = {way: session.counts.encoder_passes for way, session in sessions.items()}

    seconds: dict[str, list[float]] = {"transcription": [], **{way: [] for way in WAYS}}
    for _ in range(options.repeats):
        for way, session in sessions.items():
            frame = next(source)
            seconds[way].append(seconds_of(lambda s=session, f=frame: feed(s, f)))
        window = sessions["all"].window()
        seconds["transcription"].append(seconds_of(lambda w=window: plain(w)))
    for way, session in sessions.items():
        if session.counts.encoder_passes - passes[way] != options.repeats:
            sys.exit(f"{way}: expected one encoder pass per new frame")
    base = median(seconds["transcription"])
    return {
        "backbone": options.backbone,
        "input_hw": list(grounder.input_hw),
        "camera_hw": options.hw,
        "window": options.window,
        "deviation": deviation,
        "seconds": {way: spread(values) for way, values in seconds.items()},
        "times_faster": {way: base / median(seconds[way]) for way in WAYS},
    }


def report_frame(result: dict[str, Any]) -> str:
    height, width = result["input_hw"]
    lines = [
        f"{result['backbone']} at {height} x {width}, window of {result['window']}, "
        f"per new frame: equal to {result['deviation']:.1e}"
    ]
    for way, (low, middle, high) in result["seconds"].items():
        faster = result["times_faster"].get(way)
        times = f"  {faster:5.1f} times faster" if faster else ""
        lines.append(f"  {WAYS.get(way, way):<20}{middle:7.2f} s ({low:.2f} to {high:.2f}){times}")
    return "\n".join(lines)


def different_actions(count: int) -> list[Action]:
    """Actions that share no texts."""
    if count > min(len(VERBS), len(OBJECTS)):
        sys.exit(f"--repeats: expected at most {min(len(VERBS), len(OBJECTS)) - 2}")
    return [
        action
        for verb, thing in zip(VERBS[:count], OBJECTS)
        for action in parse_actions(f"{verb} the {thing}")
    ]


def measure_action(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of one more action on an encoded window, for the newest frame and for all."""
    grounder = Grounder(load_backbone(options.backbone, "random:0"))
    window = next_window(grounder, grounder.backbone.window_frames)
    first, second, *further = different_actions(options.repeats + 2)
    results = []
    for frames in ("newest", "all") if len(window) > 1 else ("newest",):
        features = grounder.encode(window, frames)  # a warm-up
        grounder.locate(features, window, [first])  # encodes the neutral texts once
        alone = maps(grounder.locate(features, window, [second]))
        both = grounder.locate(features, window, [first, second])
        deviation = check("beside another action", alone, maps(both[len(both) // 2 :]))
        # Another grounder knows no texts yet.
        other = Grounder(grounder.backbone)
        other.locate(features, window, [first])
        seconds: dict[str, list[float]] = {"window": [], "new": [], "known": []}
        for action in further:
            seconds["window"].append(
                seconds_of(lambda f=frames: grounder.ground(window, [first], f))
            )
            for way in ("new", "known"):
                seconds[way].append(
                    seconds_of(lambda g=other, f=features, a=action: g.locate(f, window, [a]))
                )
        whole = median(seconds["window"])
        results.append(
            {
                "backbone": options.backbone,
                "frames": frames,
                "deviation": deviation,
                "seconds": {way: spread(values) for way, values in seconds.items()},
                "share": {way: median(seconds[way]) / whole for way in ("new", "known")},
            }
        )
    return results


def report_action(results: list[dict[str, Any]]) -> str:
    titles = {"window": "window, one action", "new": "one more, new", "known": "one more, known"}
    lines = []
    for result in results:
        lines.append(
            f"{result['backbone']}, heatmaps of {result['frames']}: "
            f"equal to {result['deviation']:.1e}"
        )
        for way, (low, middle, high) in result["seconds"].items():
            share = result["share"].get(way)
            part = f"  {share:6.2%} of the window" if share else ""
            milliseconds = f"{1e3 * middle:9.1f} ms ({1e3 * low:.1f} to {1e3 * high:.1f})"
            lines.append(f"  {titles[way]:<20}{milliseconds}{part}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("frame", "action"))
    parser.add_argument("--backbone", help="openclip:ViT-B-16 for frame, viclip:B-16 for action")
    parser.add_argument("--window", type=int, default=8, help="frames of an image backbone")
    parser.add_argument("--hw", type=int, nargs=2, default=[480, 640], help="camera image size")
    parser.add_argument("--repeats", type=at_least_one, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        if options.what == "frame":
            options.backbone = options.backbone or "openclip:ViT-B-16"
            result: Any = measure_frame(options)
            text = report_frame(result)
        else:
            options.backbone = options.backbone or "viclip:B-16"
            result = measure_action(options)
            text = report_action(result)
    print(json.dumps(result, indent=2) if options.json else text)


if __name__ == "__main__":
    main()

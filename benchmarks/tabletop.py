"""The paper's ablation on the tabletop benchmark, with the shipped backbones.

    python benchmarks/tabletop.py [--clips 500] [--json FILE] [--pictures DIR]
    python benchmarks/tabletop.py --backbone openclip:ViT-B-16 --weights openai
    python benchmarks/tabletop.py --backbone viclip:tabletop --self-self-scope frame

Pointing accuracy in percent, by layer weighting and prompt: GEM uses uniform weights, VideoGEM
static+dynamic weights and the fused points of the three prompts. Then, for VideoGEM:

pose, motion    actions recognisable from the hand's pose in one frame, and those only from motion
twins           actions on objects that look the same, distinguishable only by motion
swap test       share of pairs of actions in one clip for which both texts find their own action,
                not both where the boxes overlap; for twins, for pairs with one action that has a
                twin elsewhere in the clip, and for all others
presence        area under the ROC curve of the score: actions that happen against texts asked in
                clips without any action ("empty"), or texts of something that does not happen
                in a clip with actions ("absent", harder)
said to be there    share of each of these three groups with a score that counts as present
IoU             of the fused heatmap at half its maximum with the box

An image backbone sees a clip's last frame, a video backbone frames spread evenly over the clip;
the boxes are those of the last frame. See docs/tabletop.md.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import Progress

from videogem_ros.adapters.bag.tabletop import TWINS
from videogem_ros.core import Grounder, GroundingConfig, load_backbone
from videogem_ros.core.configuration import SCOPES, WEIGHTINGS
from videogem_ros.core.presence import PresenceConfig
from videogem_ros.errors import VideoGemError
from videogem_ros.evaluation.methods import VIDEOGEM
from videogem_ros.evaluation.metrics import Estimate, share, summarise
from videogem_ros.evaluation.records import CENTRE, Record, Run, Sample, method_name
from videogem_ros.evaluation.report import choose_cases
from videogem_ros.evaluation.runner import EvaluationConfig, evaluate
from videogem_ros.evaluation.tabletop import (
    ABSENT,
    EMPTY,
    ONE_TWIN,
    TabletopBenchmark,
    swaps,
    with_absent,
)
from videogem_ros.files import whole_file
from videogem_ros.render import SheetCell, draw_contact_sheet, sheet_cell
from videogem_ros.tabletop.clip import BENCHMARK_CLIPS, START_NS

SHIPPED = ("openclip:tabletop", "viclip:tabletop")
PROMPTS = ("verb", "object", "action", "fused")
ROWS = {"uniform": "GEM (uniform)"} | {name: name for name in WEIGHTINGS[1:]}
MAIN = VIDEOGEM.name
THERE = "there"
CELLS = 12
"""Pictures on a sheet."""


def measure(run: Run) -> dict[str, Estimate]:
    """Every number of the table, by name."""
    records = run.records
    methods = [method_name(weighting, prompt) for weighting in ROWS for prompt in PROMPTS]
    summaries = summarise(records, [CENTRE, *methods])
    main = summaries[MAIN]
    numbers = {name: summary.accuracy for name, summary in summaries.items()}
    numbers |= {name: main.per_group[name] for name in main.per_group}
    pairs = swaps(records)
    twins, one_twin = ([p for p in pairs if group in p.groups] for group in (TWINS, ONE_TWIN))
    others = [pair for pair in pairs if not {TWINS, ONE_TWIN} & {*pair.groups}]
    kinds = {"": pairs, ", twins": twins, f", {ONE_TWIN}": one_twin, ", others": others}
    for name, chosen in kinds.items():
        if chosen:
            numbers[f"swap test{name}"] = summarise(chosen, [MAIN])[MAIN].accuracy
    for group in (EMPTY, ABSENT):
        if area := summarise(with_absent(records, group), [MAIN])[MAIN].auc:
            numbers[f"presence, {group}"] = area
    threshold = PresenceConfig().threshold
    for group in (THERE, EMPTY, ABSENT):
        scores = [
            record.outcomes[MAIN].score or 0.0
            for record in records
            if (record.boxes if group == THERE else group in record.groups)
        ]
        if scores:
            numbers[f"said to be there, {group}"] = share([score >= threshold for score in scores])
    if main.iou:
        numbers["IoU"] = main.iou
    return numbers


def lines(numbers: Mapping[str, Estimate]) -> Iterator[str]:
    """The numbers as Markdown tables."""
    yield "| weighting | " + " | ".join(PROMPTS) + " |"
    yield "|---|" + "---:|" * len(PROMPTS)
    yield f"| centre |{' |' * (len(PROMPTS) - 1)} {100 * numbers[CENTRE].value:.1f} |"
    for weighting, title in ROWS.items():
        cells = (f"{100 * numbers[method_name(weighting, p)].value:.1f}" for p in PROMPTS)
        yield f"| {title} | {' | '.join(cells)} |"
    yield ""
    yield "| static+dynamic, fused | | 95 % interval | of |"
    yield "|---|---:|---:|---:|"
    grid = {CENTRE, *(method_name(weighting, prompt) for weighting in ROWS for prompt in PROMPTS)}
    for name, found in {"all": numbers[MAIN], **numbers}.items():
        if name not in grid:
            interval = f"{100 * found.low:.1f} to {100 * found.high:.1f}"
            yield f"| {name} | {100 * found.value:.1f} | {interval} | {found.count} |"


def draw_cases(
    run: Run, dataset: TabletopBenchmark, grounder: Grounder, folder: Path
) -> list[Path]:
    """Writes one contact sheet each of the best, typical and wrong groundings."""
    there = [record for record in run.records if record.boxes]
    wrong = [record for record in there if not record.outcomes[MAIN].hit]
    right = [record for record in there if record.outcomes[MAIN].hit]
    chosen = {
        "best": choose_cases(right, MAIN, CELLS).best,
        "typical": choose_cases(right, MAIN, CELLS).median,
        "wrong": choose_cases(wrong, MAIN, CELLS).worst,
    }
    samples = {sample.key: sample for sample in dataset.samples}
    presence = replace(
        grounder.config.presence, threshold=0.0
    )  # show where, regardless of whether
    grounder = grounder.with_config(replace(grounder.config, presence=presence))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, records in chosen.items():
        if not records:
            continue
        cells = [draw_case(samples[record.key], dataset, grounder) for record in records]
        sheet = draw_contact_sheet(f"{run.backbone}, fused heatmap", cells, kind.capitalize())
        path = folder / f"{re.sub(r'[^A-Za-z0-9]+', '_', run.backbone)}_{kind}.png"
        with whole_file(path) as partial:
            partial.write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
        written.append(path)
    return written


def draw_case(sample: Sample, dataset: TabletopBenchmark, grounder: Grounder) -> SheetCell:
    window, place = dataset.window(sample, grounder.backbone.window_frames)
    (found,) = grounder.ground(window, sample.actions, (place,))
    time_s = (window.newest.stamp_ns - START_NS) / 1e9
    cell = sheet_cell(window.newest.image, [found], time_s)
    picture = cell.picture.copy()
    scale = picture.shape[1] / window.hw[1]
    (box,) = sample.boxes
    # A box ends with its last pixel, not before it.
    low, high = np.array(box[:2]) * scale, (np.array(box[2:]) + 1) * scale
    corners = [tuple(np.rint(corner).astype(int).tolist()) for corner in (low, high)]
    for colour, thickness in (((24, 26, 30), 5), ((255, 255, 255), 2)):
        cv2.rectangle(picture, *corners, colour, thickness, cv2.LINE_AA)
    return replace(cell, picture=picture)


def run_one(name: str, grounder: Grounder, dataset: TabletopBenchmark) -> Run:
    """Evaluates a backbone with one encoder pass per clip."""
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=len(dataset.samples))
        return evaluate(
            dataset,
            grounder,
            EvaluationConfig(ablate=True),
            progress=lambda done, _: progress.update(task, completed=done),
        )


def counted(records: Sequence[Record]) -> str:
    there = sum(bool(record.boxes) for record in records)
    videos = len({record.video for record in records})
    return f"{videos} clips, {there} actions, {len(records) - there} texts of what does not happen"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", help="a backbone other than the shipped ones")
    parser.add_argument("--weights", help="its weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--self-self-scope", choices=SCOPES, default=SCOPES[0])
    parser.add_argument("--image-hw", type=int, nargs=2, metavar=("H", "W"))
    parser.add_argument("--clips", type=int, default=BENCHMARK_CLIPS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write contact sheets to DIR")
    arguments = parser.parse_args()
    if arguments.weights and not arguments.backbone:
        parser.error("--weights needs --backbone")
    if arguments.json and not arguments.json.parent.is_dir():
        parser.error(f"--json: expected a file in a folder that is there, got {arguments.json}")
    begin = time.perf_counter()
    print("drawing the scenes", flush=True)
    dataset = TabletopBenchmark(arguments.clips)
    config = GroundingConfig(
        self_self_scope=arguments.self_self_scope, image_hw=arguments.image_hw
    )
    results = {}
    for name in [arguments.backbone] if arguments.backbone else SHIPPED:
        backbone = load_backbone(name, arguments.weights, arguments.device, arguments.dtype)
        grounder = Grounder(backbone, config)
        run = run_one(name, grounder, dataset)
        numbers = measure(run)
        results[name] = {key: asdict(number) for key, number in numbers.items()}
        print(f"\n{name}: {counted(run.records)}")
        for note in run.notes:
            print(note)
        print("", *lines(numbers), sep="\n", flush=True)
        if arguments.pictures:
            written = draw_cases(run, dataset, grounder, arguments.pictures)
            print("", *written, sep="\n", flush=True)
    print(f"\n{time.perf_counter() - begin:.0f} s")
    if arguments.json:
        with whole_file(arguments.json) as partial:
            partial.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except VideoGemError as error:
        sys.exit(f"error: {error}")

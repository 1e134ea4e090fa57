"""``results.json``: all figures of a run and the records they were computed from.

One JSON object:

======================  ====================================================================
schema                  "videogem_ros/evaluation/1"; the number rises when a field changes
dataset, backbone       names
main                    the method that the run is about, a key of ``methods``
settings, timing        what was set (texts) and measured (numbers, unit in the name), by name
notes                   lines that a reader must know
missing                 samples without frames, by video
skipped                 samples or annotations left out, by reason
methods                 by name: ``samples``, then ``accuracy``, ``class_mean``, ``distance``,
                        ``iou`` and ``auc`` as {value, low, high, count} or null, then the
                        accuracies ``per_class`` and ``per_group``, each by name
records                 one line per sample: key, video, label, groups, action, time_ns, boxes
                        [x1, y1, x2, y2] in pixels of the source image, image_hw, ``outcomes``
                        by method {x, y, hit, distance, iou, score}, ``layer_weights`` by
                        weighting as (verb, object, action) rows of K + 1 numbers
======================  ====================================================================

Accuracies, distances and overlaps are fractions in [0, 1]; intervals are 95 % bootstrap intervals.
A number that does not exist is null.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videogem_ros.errors import VideoGemError, reason
from videogem_ros.evaluation.metrics import Summary
from videogem_ros.evaluation.records import Record, Run
from videogem_ros.files import whole_file

SCHEMA = "videogem_ros/evaluation/1"


def write_results(run: Run, summaries: Mapping[str, Summary], path: Path) -> None:
    """Writes ``results.json``; a file of that name is replaced at once or not at all.

    Raises:
        VideoGemError: The file cannot be written.
    """
    head = {
        "schema": SCHEMA,
        "dataset": run.dataset,
        "backbone": run.backbone,
        "main": run.main,
        "settings": dict(run.settings),
        "timing": None if run.timing is None else dict(run.timing),
        "notes": list(run.notes),
        "missing": dict(run.missing),
        "skipped": dict(run.skipped),
        "methods": {name: dataclasses.asdict(summary) for name, summary in summaries.items()},
    }
    records = ",\n".join(f"    {_dump(record.to_json())}" for record in run.records)
    body = _dump(head, indent=2).removesuffix("\n}")
    write_text(path, f'{body},\n  "records": [\n{records}\n  ]\n}}\n')


def read_results(path: Path) -> Run:
    """The run that a ``results.json`` was written from.

    Raises:
        VideoGemError: The file cannot be read, or is none of :data:`SCHEMA`.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VideoGemError(f"cannot read {path}: {reason(error)}") from error
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if schema != SCHEMA:
        raise VideoGemError(f"{path}: expected the schema {SCHEMA}, got {schema!r}")
    try:
        return Run(
            dataset=fields["dataset"],
            backbone=fields["backbone"],
            main=fields["main"],
            records=tuple(Record.from_json(record) for record in fields["records"]),
            missing=Counter(fields["missing"]),
            skipped=Counter(fields["skipped"]),
            settings=fields["settings"],
            notes=tuple(fields["notes"]),
            timing=fields["timing"],
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise VideoGemError(f"{path}: a field is missing or of another kind: {error}") from error


def write_text(path: Path, text: str) -> None:
    """Writes a file, and the folder that it is to be in, whole or not at all.

    Raises:
        VideoGemError: The file cannot be written.
    """
    with whole_file(path) as partial:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file name that is no UTF-8 has letters of its own, which JSON writes so as well.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def _dump(value: object, indent: int | None = None) -> str:
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value

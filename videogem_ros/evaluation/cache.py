"""Results of evaluations on disk, found again by what they were computed from.

A folder holds one file of JSON lines for every backbone and configuration. Its name has a digest
of the package's version, the backbone's name, structure, parameters (so their precision, too) and
preprocessing, and the configuration but for weighting and fusion, which a record's methods name. A
line has a digest of the sample (key, label, boxes, actions, ...), of what chooses its frames, and
of name, size and modification time of the files that they are in: frames need not be decoded to
know that their result is there. The device is in no digest; another one rounds otherwise.

Lines are only ever appended, each batch in one write. What an interruption tears is not a line of
JSON and is computed again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from videogem_ros import __version__
from videogem_ros.core.configuration import GroundingConfig
from videogem_ros.errors import RecordingError
from videogem_ros.evaluation.records import CENTRE, Dataset, Record, Sample

if TYPE_CHECKING:
    from videogem_ros.core import Backbone, Grounder

FORMAT = 1
"""Of the lines, and of what a record's numbers mean; another number makes old results unknown."""


class ResultCache:
    """Records of one data set, grounded in one way.

    Args:
        folder: Made if it is not there.
        grounder: That computes what is not there yet.
        dataset: Whose samples are asked for.

    Raises:
        RecordingError: The folder cannot be made.
    """

    def __init__(self, folder: Path, grounder: Grounder, dataset: Dataset) -> None:
        name = re.sub(r"\W+", "-", grounder.backbone.name.rpartition("/")[2])
        self.path = folder / f"{name}-{grounder_digest(grounder)[:16]}.jsonl"
        self._digests = {sample.key: sample_digest(dataset, sample) for sample in dataset.samples}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordingError(f"cannot make the cache {folder}: {error.strerror}") from error

    def find(self, methods: Sequence[str]) -> dict[str, Record]:
        """The records that are there, by the samples' keys.

        Args:
            methods: Names of those that a record must have an outcome of, beside the image's
                centre; outcomes of others are left out.

        Raises:
            RecordingError: The file is there but cannot be read.
        """
        if not self.path.exists():
            return {}
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError as error:
            raise RecordingError(f"cannot read {self.path}: {error.strerror}") from error
        known = {digest: key for key, digest in self._digests.items()}
        found = {}
        for line in lines:
            try:
                entry = json.loads(line)
                key = known[entry["sample"]]
                record = Record.from_json(entry["record"])
            except (ValueError, LookupError, TypeError):  # torn, or another sample's
                continue
            if record.outcomes.keys() >= {*methods, CENTRE}:
                found[key] = _only(record, methods)
        return found

    def add(self, records: Iterable[Record]) -> None:
        """Keeps records of the data set's samples.

        Raises:
            RecordingError: The file cannot be written.
        """
        entries = [
            {"sample": self._digests[record.key], "record": record.to_json()} for record in records
        ]
        # The first of the line breaks ends what an interrupted write left before it.
        text = "\n".join(["", *map(json.dumps, entries), ""])
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(text.encode())
        except OSError as error:
            raise RecordingError(f"cannot write {self.path}: {error.strerror}") from error


def _only(record: Record, methods: Sequence[str]) -> Record:
    """A record without outcomes of other methods."""
    weightings = {method.partition("/")[0] for method in methods}
    return replace(
        record,
        outcomes={name: record.outcomes[name] for name in (*methods, CENTRE)},
        layer_weights={
            name: rows for name, rows in record.layer_weights.items() if name in weightings
        },
    )


def grounder_digest(grounder: Grounder) -> str:
    """Of all that a sample's result depends on, but for the sample itself."""
    usual = GroundingConfig()
    shared = replace(grounder.config, weighting=usual.weighting, fusion=usual.fusion)
    backbone = grounder.backbone
    return _digest(
        *(FORMAT, __version__, backbone.name, parameters_digest(backbone), shared),
        *(backbone.preprocessing, backbone.presence_fit, backbone.tower.heads),
        *(backbone.model, [getattr(part, "num_heads", None) for part in backbone.model.modules()]),
    )


def parameters_digest(backbone: Backbone) -> str:
    """SHA-256 of names and values of all parameters of both towers, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in backbone.model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def sample_digest(dataset: Dataset, sample: Sample) -> str:
    """Of a sample, of what chooses its frames, and of the state of the files that they are in."""
    return _digest(sample, *map(_state, dataset.sources(sample)))


def _state(path: Path | str) -> tuple[str, int, int] | str:
    if isinstance(path, str):
        return path
    try:
        state = path.stat()
    except OSError as error:
        return f"{path.name}: {error.strerror}"  # to be told when its frames are asked for
    return path.name, state.st_size, state.st_mtime_ns


def _digest(*values: object) -> str:
    return hashlib.sha256("\n".join(map(repr, values)).encode()).hexdigest()

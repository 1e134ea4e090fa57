"""Results of evaluations on disk, found again by what they were computed from.

A folder holds one file of JSON lines for every backbone and configuration. Its name contains a
digest of the package's version, the backbone's name, structure, parameters (hence their precision)
and preprocessing, and the configuration except weighting and fusion, which are in the names of a
record's methods. A line contains a digest of the sample (key, label, boxes, actions, ...), of how
its frames are chosen, and of name, size and modification time of their files, so that results are
found without decoding frames. The device is in no digest, though results differ by rounding.

Lines are only ever appended, each batch in one write. A line that an interruption leaves
incomplete is not valid JSON and is computed again.
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
"""Version of the lines and of the meaning of their numbers; a new one invalidates old results."""


class ResultCache:
    """Records of one data set, grounded in one way.

    Args:
        folder: Folder of the cache; made if it does not exist.
        grounder: The grounder that computes the records.
        dataset: The data set.

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
        """Cached records, by the samples' keys.

        Args:
            methods: Names of methods that a record must have outcomes of, besides the image's
                centre; outcomes of other methods are left out.

        Raises:
            RecordingError: The file exists but cannot be read.
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
        """Adds records of the data set's samples.

        Raises:
            RecordingError: The file cannot be written.
        """
        entries = [
            {"sample": self._digests[record.key], "record": record.to_json()} for record in records
        ]
        # The first line break ends an incomplete line of an interrupted write.
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
    """A digest of all that a result depends on, except the sample."""
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
    """A digest of a sample, of how its frames are chosen, and of the state of their files."""
    return _digest(sample, *map(_state, dataset.sources(sample)))


def _state(path: Path | str) -> tuple[str, int, int] | str:
    if isinstance(path, str):
        return path
    try:
        state = path.stat()
    except OSError as error:
        return f"{path.name}: {error.strerror}"  # reported when its frames are loaded
    return path.name, state.st_size, state.st_mtime_ns


def _digest(*values: object) -> str:
    return hashlib.sha256("\n".join(map(repr, values)).encode()).hexdigest()

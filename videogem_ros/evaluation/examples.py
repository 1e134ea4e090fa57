"""Encoded samples with boxes, on which a setting is judged without the encoder.

Samples are encoded once for each K, since s_0 is the residual stream where the self-self path
begins. What is kept of them (:mod:`videogem_ros.evaluation.gram`) suffices to judge a setting in
about a tenth of a millisecond per sample.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from videogem_ros.core import Backbone, Grounder
from videogem_ros.core.backbones.preprocessing import Placement, place, to_source
from videogem_ros.core.configuration import FEATURE_FIELDS, GroundingConfig
from videogem_ros.core.prompts import prompts_for
from videogem_ros.datatypes import Action, Features, Frame, Window
from videogem_ros.errors import InvalidValueError, RecordingError, VideoGemError
from videogem_ros.evaluation.cache import grounder_digest, sample_digest
from videogem_ros.evaluation.gram import Corners, Grams
from videogem_ros.evaluation.metrics import judge
from videogem_ros.evaluation.records import Box, Dataset, Sample
from videogem_ros.evaluation.runner import AnnotatedWindow, boxes_in_source, load_window, prefetch
from videogem_ros.files import whole_file

CHUNK = 64
"""Samples that are judged together; few enough to fit the processor's cache."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Example:
    """A sample with a box, encoded.

    Attributes:
        video: The video that it comes from.
        boxes: Boxes in pixels of the source image.
        image_hw: Height and width of the source image.
        placement: Where the image lies in the network's input.
        grams: By K, the inner products of its frame and its action's prompts.
    """

    video: str
    boxes: tuple[Box, ...]
    image_hw: tuple[int, int]
    placement: Placement
    grams: Mapping[int, Grams]


def with_depth(setting: GroundingConfig, depth: int) -> GroundingConfig:
    """A setting with another K: last terms keep their weights, new ones get the first's."""
    weights = setting.static_weights
    missing = max(0, depth + 1 - len(weights))
    return replace(
        setting,
        depth=depth,
        dynamic_depth=min(setting.dynamic_depth, depth),
        static_weights=((weights[0],) * missing + weights)[-(depth + 1) :],
    )


@dataclass(frozen=True, eq=False)
class _Kept:
    """What is kept of a sample for one K, in memory or in a file.

    Attributes:
        image_hw: Height and width of the frame.
        grams: Of the frame.
    """

    image_hw: tuple[int, int]
    grams: Grams

    @classmethod
    def read(cls, path: Path) -> _Kept | None:
        """Reads it from a file; None where the file does not exist or is incomplete."""
        try:
            with safe_open(path, framework="pt") as file:
                patches, without, bias = map(file.get_tensor, ("patches", "without", "bias"))
                about = json.loads(file.metadata()["about"])
        except (OSError, SafetensorError):
            return None
        grams = Grams(patches, without, bias, about["eps"], tuple(about["grid_hw"]))
        return cls(tuple(about["image_hw"]), grams)

    def write(self, path: Path) -> None:
        """Writes it to a file, completely or not at all.

        Raises:
            RecordingError: It cannot be written.
        """
        grams = self.grams
        about = {"image_hw": self.image_hw, "eps": grams.eps, "grid_hw": grams.grid_hw}
        tensors = dict(zip(("patches", "without", "bias"), map(Tensor.contiguous, grams.tensors)))
        with whole_file(path) as partial:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                save_file(tensors, partial, {"about": json.dumps(about)})
            except SafetensorError as error:
                raise RecordingError(f"cannot write {path}: {error}") from error


@dataclass(frozen=True, eq=False)
class _Loaded:
    """What a sample's example is made of.

    Attributes:
        paths: By K, the file in the cache; empty without a cache.
        kept: By K, what was found in the cache.
        frames: The sample's frames, where that was not everything; else None.
    """

    paths: Mapping[int, Path]
    kept: dict[int, _Kept]
    frames: AnnotatedWindow | None


class ExampleEncoder:
    """Makes examples of a data set's samples.

    Args:
        dataset: Samples and their frames.
        backbone: Encodes them.
        default: Gives what all settings share: resize, input size and prompts.
        depths: Every K to try; each costs an encoder pass per sample.
        cache: Folder that keeps what was encoded, valid as long as the files with the frames do
            not change; made if it does not exist. None for no cache.
        stretch_s: Seconds of a recording that count as a video of their own, where there are few
            recordings; None where each recording is one video.
        loaders: Threads that decode the next windows in the meantime.

    Attributes:
        samples: The samples with a box, which examples are made of.
        videos: The samples' videos.
        skipped: Number of samples that could not be encoded, by reason.
        passes: Encoder passes so far.

    Raises:
        VideoGemError: The backbone has fewer blocks than a K.
    """

    def __init__(
        self,
        dataset: Dataset,
        backbone: Backbone,
        default: GroundingConfig,
        depths: Sequence[int],
        *,
        cache: Path | None = None,
        stretch_s: float | None = None,
        loaders: int = 2,
    ) -> None:
        self.samples = [sample for sample in dataset.samples if sample.present]
        self.videos = [_video(sample, stretch_s) for sample in self.samples]
        self.skipped: Counter[str] = Counter()
        self.passes = 0
        self._dataset = dataset
        self._backbone = backbone
        self._loaders = loaders
        # The parts of the configuration that features and prompts depend on, except K.
        fields = {name: getattr(default, name) for name in FEATURE_FIELDS if name != "depth"}
        self._config = GroundingConfig(**fields, prompts=default.prompts)
        self._input_hw = default.image_hw or backbone.input_hw
        self._grounders = {
            depth: Grounder(backbone, with_depth(self._config, depth)) for depth in depths
        }
        self._texts: dict[Action, Tensor] = {}
        # Samples that share a frame mostly come one after another.
        self._features = lru_cache(maxsize=len(self._grounders))(self._encode)
        self._folders = {}
        if cache:
            self._folders = {
                depth: cache / f"grams-{grounder_digest(grounder)[:16]}"
                for depth, grounder in self._grounders.items()
            }

    def __iter__(self) -> Iterator[Example]:
        """Examples in the samples' order; those that cannot be decoded are counted by reason.

        Raises:
            RecordingError: The cache cannot be written.
        """
        ahead = 2 * self._loaders
        with closing(prefetch(self._load, self.samples, self._loaders, ahead)) as loaded:
            for sample, video, found in zip(self.samples, self.videos, loaded):
                if isinstance(found, VideoGemError):
                    self.skipped[str(found)] += 1
                    continue
                if found.frames:
                    self._complete(found, sample, *found.frames)
                image_hw = next(iter(found.kept.values())).image_hw
                yield Example(
                    video,
                    boxes_in_source(sample, image_hw),
                    image_hw,
                    place(image_hw, self._input_hw, self._config.resize),
                    {depth: kept.grams for depth, kept in found.kept.items()},
                )

    def _load(self, sample: Sample) -> _Loaded | VideoGemError:
        digest = sample_digest(self._dataset, sample)[:32] if self._folders else ""
        paths = {depth: to / f"{digest}.safetensors" for depth, to in self._folders.items()}
        kept = {depth: one for depth, path in paths.items() if (one := _Kept.read(path))}
        if len(kept) == len(self._grounders):
            return _Loaded(paths, kept, None)
        try:
            frames = load_window(self._dataset, sample, self._backbone.window_frames)
        except VideoGemError as error:
            return error
        return _Loaded(paths, kept, frames)

    def _complete(self, loaded: _Loaded, sample: Sample, window: Window, frame: int) -> None:
        """Encodes what the cache did not have."""
        for depth in sorted(self._grounders.keys() - loaded.kept.keys()):
            features = self._features(depth, window.frames, frame)
            # All K have the same class token, so the choice is the same.
            action = self._grounders[depth].choose(features, sample.actions)
            with torch.inference_mode():
                grams = Grams.of(features, self._embed(action), self._backbone.tower)
            loaded.kept[depth] = kept = _Kept(window.hw, grams.map(Tensor.cpu))
            if loaded.paths:
                kept.write(loaded.paths[depth])

    def _encode(self, depth: int, frames: tuple[Frame, ...], frame: int) -> Features:
        self.passes += 1
        return self._grounders[depth].encode(Window(frames), (frame,))

    @torch.inference_mode()
    def _embed(self, action: Action) -> Tensor:
        if action not in self._texts:
            prompts = prompts_for(action, self._config.prompts)
            self._texts[action] = self._backbone.encode_text(prompts.texts)
        return self._texts[action]


def _video(sample: Sample, stretch_s: float | None) -> str:
    if stretch_s is None:
        return sample.video
    return f"{sample.video}, stretch {int(sample.time_ns / (1e9 * stretch_s))}"


@dataclass(frozen=True, eq=False)
class Trial:
    """A setting and how it does on every example.

    Attributes:
        setting: What was tried.
        hits: (S,) whether the fused point is in a box.
        distances: (S,) to the nearest box over the image's diagonal.
    """

    setting: GroundingConfig
    hits: Mask
    distances: npt.NDArray[np.float64]

    def score(self, seen: Mask) -> tuple[int, float]:
        """What a search maximises on the examples it sees: hits, then nearness."""
        return int(self.hits[seen].sum()), -float(self.distances[seen].sum())


class Examples:
    """Many examples, to judge settings on.

    Args:
        examples: Taken one by one; all of one backbone and input size.
        count: Most examples that there may be.
        folder: Folder for temporary files that hold the examples; in memory where None.
        device: Where settings are judged.

    Attributes:
        videos: (S,) the examples' videos.

    Raises:
        InvalidValueError: There is no example.
    """

    def __init__(
        self,
        examples: Iterable[Example],
        count: int,
        *,
        folder: Path | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._device = device
        self._grams: dict[int, Grams] = {}
        self._examples: list[Example] = []
        for row, example in enumerate(examples):
            for depth, one in example.grams.items():
                if depth not in self._grams:
                    self._grams[depth] = one.map(lambda of_one: _room(count, of_one, folder))
                for all_, of_one in zip(self._grams[depth].tensors, one.tensors):
                    all_[row] = of_one[0]
            self._examples.append(replace(example, grams={}))
        if not self._examples:
            raise InvalidValueError("samples", "one or more with a box and a frame", "none")
        self.videos = np.array([example.video for example in self._examples])

    @property
    def depths(self) -> tuple[int, ...]:
        """Every K that can be judged."""
        return tuple(sorted(self._grams))

    def judge(self, setting: GroundingConfig) -> Trial:
        """How a setting does on every example; see :meth:`points`."""
        outcomes = [
            judge(point, None, example.boxes, example.image_hw)
            for point, example in zip(self.points(setting), self._examples)
        ]
        return Trial(
            setting,
            np.array([outcome.hit for outcome in outcomes], dtype=bool),
            np.array([outcome.distance for outcome in outcomes], dtype=np.float64),
        )

    @torch.inference_mode()
    def points(self, setting: GroundingConfig) -> list[tuple[float, float]]:
        """Where a setting sees the action in every example.

        These are the points of :meth:`videogem_ros.core.Grounder.locate`; for what rounding can
        do, see :meth:`videogem_ros.evaluation.gram.Corners.locate`.

        Args:
            setting: Of one of ``depths``; resize, input size and prompts are the examples'.

        Returns:
            x and y of the fused points, in pixels of the source images.
        """
        points = []
        for rows, corners in self._chunks:
            cosines = self._rows(setting.depth, rows).cosines(setting)
            fused = corners.locate(cosines, setting)[:, -1].tolist()
            points += [
                to_source(x, y, example.placement.content_hw, example.image_hw)
                for (x, y), example in zip(fused, self._examples[rows])
            ]
        return points

    def _rows(self, depth: int, rows: slice) -> Grams:
        return self._grams[depth].map(lambda all_: all_[rows].to(self._device))

    @cached_property
    def _chunks(self) -> list[tuple[slice, Corners]]:
        """Slices of consecutive examples with the same placement in the network's input."""
        grid_hw = self._grams[self.depths[0]].grid_hw
        chunks: list[tuple[slice, Corners]] = []
        start = 0
        for placement, run in itertools.groupby(self._examples, lambda example: example.placement):
            corners = Corners.of(grid_hw, placement, self._device)
            stop = start + len(list(run))
            chunks += [
                (slice(first, min(first + CHUNK, stop)), corners)
                for first in range(start, stop, CHUNK)
            ]
            start = stop
        return chunks


def _room(count: int, one: Tensor, folder: Path | None) -> Tensor:
    """An uninitialised tensor (count, ...) for many like (1, ...), in memory or in a file."""
    shape = (count, *one.shape[1:])
    if folder is None:
        return torch.empty(shape, dtype=one.dtype)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        size = torch.Size(shape).numel()
        return torch.from_file(file.name, shared=True, size=size, dtype=one.dtype).view(shape)

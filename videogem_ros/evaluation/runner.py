"""From a data set and a grounder to a run: one encoder pass per sample for all methods."""

from __future__ import annotations

import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from videogem_ros.core import Grounder
from videogem_ros.core.backbones import caveat
from videogem_ros.core.backbones.preprocessing import to_source
from videogem_ros.datatypes import Action, Features, Frame, Window
from videogem_ros.errors import InvalidValueError, RecordingError, VideoGemError
from videogem_ros.evaluation.cache import ResultCache
from videogem_ros.evaluation.methods import VIDEOGEM, Method, compared
from videogem_ros.evaluation.metrics import judge, judge_centre
from videogem_ros.evaluation.records import CENTRE, Box, Dataset, Record, Run, Sample

AnnotatedWindow = tuple[Window, int]
"""A window and the index of the annotated frame in it."""

_Item = TypeVar("_Item")
_Loaded = TypeVar("_Loaded")


@dataclass(frozen=True)
class EvaluationConfig:
    """What is compared, and how samples are encoded.

    Attributes:
        main: The method that the evaluation is about.
        ablate: Whether the whole grid of methods is compared.
        batch: Samples per encoder pass: frames for an image backbone, windows for a video
            backbone.
        loaders: Threads that decode the next windows in the meantime.

    Raises:
        InvalidValueError: A number below one.
    """

    main: Method = VIDEOGEM
    ablate: bool = False
    batch: int = 1
    loaders: int = 2

    def __post_init__(self) -> None:
        for name in ("batch", "loaders"):
            if getattr(self, name) < 1:
                raise InvalidValueError(name, "one or more", getattr(self, name))

    @cached_property
    def methods(self) -> tuple[Method, ...]:
        """All compared methods except the image's centre."""
        return compared(self.main, ablate=self.ablate)


@dataclass(frozen=True)
class Batch:
    """Results of samples that were encoded together.

    Attributes:
        results: By the samples' keys, a record, or a text that says why there is none.
        encode_s: Seconds in the encoder; 0 where all frames had been encoded before.
    """

    results: Mapping[str, Record | str]
    encode_s: float


Work = Callable[[Sequence[Sample]], Generator[Batch, None, None]]
"""Makes records of samples, in any order and in batches as they are done."""


class Bench:
    """Makes records of a data set's samples with one grounder.

    Args:
        dataset: Where the frames come from.
        grounder: With the configuration that all methods share; its own weighting and fusion do
            not matter.
        config: What is compared.
    """

    def __init__(self, dataset: Dataset, grounder: Grounder, config: EvaluationConfig) -> None:
        self.dataset = dataset
        self.grounder = grounder
        self.config = config
        configs = {method: method.configure(grounder.config) for method in config.methods}
        grounders = {own: grounder.with_config(own) for own in configs.values()}
        # Methods that differ in whose point they take share a grounder.
        self._grounders = {method: grounders[own] for method, own in configs.items()}
        self._encoded: dict[tuple[tuple[Frame, ...], int], Features] = {}

    def run(self, samples: Sequence[Sample]) -> Generator[Batch, None, None]:
        """Records of samples, in their order; the next ones are decoded in the meantime.

        For a sample that cannot be decoded, the reason takes the place of its record.
        """
        size = self.config.batch
        with closing(
            prefetch(self._load, samples, self.config.loaders, size + self.config.loaders)
        ) as loaded:
            for first in range(0, len(samples), size):
                batch = samples[first : first + size]
                yield self._records(dict(zip(batch, loaded)))

    def case(self, record: Record) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """What the main method saw in a sample, for a report's gallery.

        Args:
            record: The sample's.

        Returns:
            The annotated frame (H, W, 3) RGB and the heatmap (h, w) in [0, 1] over all of it.

        Raises:
            VideoGemError: The frame cannot be decoded any more.
        """
        sample = next(sample for sample in self.dataset.samples if sample.key == record.key)
        window, index = load_window(self.dataset, sample, self.grounder.backbone.window_frames)
        ((features,), _) = self._encode([(window, index)])
        main = self.config.main
        action = self._action(sample, features)
        (found,) = self._grounders[main].locate(features, window, [action])
        return window.frames[index].image, found.heatmaps[main.output].values

    def _load(self, sample: Sample) -> AnnotatedWindow | VideoGemError:
        try:
            return load_window(self.dataset, sample, self.grounder.backbone.window_frames)
        except VideoGemError as error:
            return error

    def _records(self, loaded: Mapping[Sample, AnnotatedWindow | VideoGemError]) -> Batch:
        results: dict[str, Record | str] = {}
        usable = {}
        for sample, found in loaded.items():
            if isinstance(found, VideoGemError):
                reason = str(found)
                results[sample.key] = reason if sample.key in reason else f"{sample.key}: {reason}"
            else:
                usable[sample] = found
        if not usable:
            return Batch(results, 0.0)
        features, encode_s = self._encode(list(usable.values()))
        for (sample, (window, _)), of_one in zip(usable.items(), features):
            results[sample.key] = self._record(sample, window, of_one)
        return Batch(results, encode_s)

    def _encode(self, windows: Sequence[AnnotatedWindow]) -> tuple[list[Features], float]:
        """Features of the annotated frames, and how many seconds they took.

        Consecutive samples of the same frames are encoded once.
        """
        keys = [(window.frames, index) for window, index in windows]
        new = [key for key in dict.fromkeys(keys) if key not in self._encoded]
        if not new:
            return [self._encoded[key] for key in keys], 0.0
        begin = time.perf_counter()
        try:
            features = self._features(new)
        except torch.cuda.OutOfMemoryError as error:
            expected = "as many frames as fit into the GPU's memory"
            raise InvalidValueError("--batch", expected, self.config.batch) from error
        known = self._encoded | dict(zip(new, features))
        self._encoded = {key: known[key] for key in keys}
        if self.grounder.device.type == "cuda":
            torch.cuda.synchronize(self.grounder.device)
        return [known[key] for key in keys], time.perf_counter() - begin

    def _features(self, chosen: Sequence[tuple[tuple[Frame, ...], int]]) -> list[Features]:
        """Features of one frame of each window."""
        if self.grounder.backbone.window_frames == 1:
            return self.grounder.encode_each([frames[index] for frames, index in chosen])
        features: dict[int, Features] = {}
        for wanted in dict.fromkeys(index for _, index in chosen):
            indices = [i for i, (_, index) in enumerate(chosen) if index == wanted]
            windows = [Window(chosen[i][0]) for i in indices]
            features |= zip(indices, self.grounder.encode_windows(windows, (wanted,)))
        return [features[i] for i in range(len(chosen))]

    def _action(self, sample: Sample, features: Features) -> Action:
        if len(sample.actions) == 1:
            return sample.actions[0]
        return self.grounder.choose(features, sample.actions)

    def _record(self, sample: Sample, window: Window, features: Features) -> Record:
        action = self._action(sample, features)
        image_hw = window.hw
        boxes = boxes_in_source(sample, image_hw)
        groundings = {
            grounder: grounder.locate(features, window, [action])[0]
            for grounder in dict.fromkeys(self._grounders.values())
        }
        outcomes, layer_weights = {}, {}
        for method, grounder in self._grounders.items():
            found = groundings[grounder]
            layer_weights[method.weighting] = tuple(map(tuple, found.layer_weights.tolist()))
            point = found.points[method.output]
            heatmap = found.heatmaps[method.output].values
            outcomes[method.name] = judge(
                (point.x, point.y), heatmap, boxes, image_hw, found.score
            )
        outcomes[CENTRE] = judge_centre(boxes, image_hw)
        return Record.of(
            sample, action.text, boxes, image_hw, outcomes=outcomes, layer_weights=layer_weights
        )


def load_window(dataset: Dataset, sample: Sample, frames: int) -> AnnotatedWindow:
    """The frames to ground a sample in; for an image backbone the annotated frame alone.

    Args:
        dataset: The sample's data set.
        sample: The sample, whose boxes are checked against the frame.
        frames: T, the number of frames that the backbone encodes jointly.

    Raises:
        VideoGemError: The frames cannot be decoded, or a box lies outside of them.
    """
    window, index = dataset.window(sample, frames)
    check_boxes(boxes_in_source(sample, window.hw), window.hw)
    return (window, index) if frames > 1 else (Window((window.frames[index],)), 0)


def boxes_in_source(sample: Sample, image_hw: tuple[int, int]) -> tuple[Box, ...]:
    """A sample's boxes in pixels of the loaded frame, of this height and width."""
    boxes_hw = sample.boxes_hw or image_hw
    if boxes_hw == image_hw:
        return sample.boxes
    return tuple(
        (*to_source(x1, y1, boxes_hw, image_hw), *to_source(x2, y2, boxes_hw, image_hw))
        for x1, y1, x2, y2 in sample.boxes
    )


def check_boxes(boxes: Iterable[Box], image_hw: tuple[int, int]) -> None:
    """Refuse boxes that no point can hit.

    Args:
        boxes: Boxes in pixels of the image.
        image_hw: The image's height and width.

    Raises:
        InvalidValueError: A box has no pixel of the image in it.
    """
    height, width = image_hw
    for x1, y1, x2, y2 in boxes:
        if not (max(x1, 0) <= min(x2, width - 1) and max(y1, 0) <= min(y2, height - 1)):
            raise InvalidValueError(
                "box", f"one that lies in the image of {width} x {height}", (x1, y1, x2, y2)
            )


def prefetch(
    load: Callable[[_Item], _Loaded], items: Iterable[_Item], threads: int, ahead: int
) -> Generator[_Loaded, None, None]:
    """Loads items in threads before they are needed.

    Args:
        load: Called once for each item.
        items: Items in the order in which they are needed.
        threads: Number of threads.
        ahead: Most items that are loading or loaded at a time.

    Yields:
        What was loaded, in the items' order.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
    try:
        pending: deque[Future[_Loaded]] = deque()
        for item in items:
            pending.append(pool.submit(load, item))
            if len(pending) == ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def evaluate(
    dataset: Dataset,
    grounder: Grounder,
    config: EvaluationConfig | None = None,
    *,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    work: Work | None = None,
) -> Run:
    """Grounds all samples of a data set and judges every method's points.

    Args:
        dataset: Samples and their frames.
        grounder: Backbone and the configuration that all methods share.
        config: What is compared; VideoGEM and its baselines where None.
        cache: Folder of results. Results in it are not computed again, and new ones are added as
            they are computed, so that an interrupted run can continue.
        progress: Called with the number of samples that are done and their total: once with those
            from the cache, then after each batch.
        work: Makes the records, for example
            :func:`videogem_ros.evaluation.cluster.ray_work`; this process where None.

    Returns:
        The run. Samples that could not be decoded are in its ``skipped``, by key.

    Raises:
        RecordingError: No sample could be evaluated, or the cache cannot be read or written.
    """
    config = config or EvaluationConfig()
    work = work or Bench(dataset, grounder, config).run
    report = progress or (lambda done, total: None)
    store = ResultCache(cache, grounder, dataset) if cache else None
    results: dict[str, Record | str] = {}
    if store:
        results.update(store.find([method.name for method in config.methods]))
    total, cached = len(dataset.samples), len(results)
    todo = [sample for sample in dataset.samples if sample.key not in results]
    report(cached, total)
    computed, encode_ms = 0, list[float]()
    begin = time.perf_counter()
    with closing(work(todo)) as batches:
        for batch in batches:
            made = [result for result in batch.results.values() if isinstance(result, Record)]
            if store and made:
                store.add(made)
            computed += len(made)
            if batch.encode_s:
                encode_ms += [1e3 * batch.encode_s / len(made) for _ in made]
            results.update(batch.results)
            report(len(results), total)
    timing = {"samples_from_cache": float(cached)}
    if encode_ms:
        timing["encode_ms_median"] = statistics.median(encode_ms)
        timing["samples_per_s"] = computed / (time.perf_counter() - begin)
    return _run(dataset, grounder, config, results, timing)


def _run(
    dataset: Dataset,
    grounder: Grounder,
    config: EvaluationConfig,
    results: Mapping[str, Record | str],
    timing: Mapping[str, float],
) -> Run:
    """The run: results in the data set's order, and the settings that led to them."""
    records = []
    skipped = Counter(dataset.skipped)
    for sample in dataset.samples:
        result = results[sample.key]
        if isinstance(result, Record):
            records.append(result)
        else:
            skipped[result] += 1
    if not records:
        reasons = "; ".join([*skipped][:3]) or "no sample has its frames there"
        raise RecordingError(f"{dataset.name}: nothing to evaluate: {reasons}")
    shared = grounder.config
    height, width = grounder.input_hw
    frames = grounder.backbone.window_frames
    return Run(
        dataset=dataset.name,
        backbone=grounder.backbone.name,
        main=config.main.name,
        records=tuple(records),
        missing=Counter(dataset.missing),
        skipped=skipped,
        settings={
            "input": f"{width} x {height}, {shared.resize}",
            "window": f"{frames} frame{'s' if frames > 1 else ''}",
            "depth": f"{shared.depth}",
            "self-self scope": shared.self_self_scope,
            "dynamic depth": f"{shared.dynamic_depth}",
            "static weights": " ".join(f"{weight:g}" for weight in shared.static_weights),
            "fusion weights": " ".join(f"{weight:g}" for weight in shared.fusion_weights),
            "verb form": shared.prompts.verb_form,
        },
        notes=(note,) if (note := caveat(grounder.backbone)) else (),
        timing=timing,
    )

"""Frames and actions in, groundings out: the two calls a user needs.

>>> grounder = Grounder(load_backbone("openclip:ViT-B-16"))
>>> grounder.ground(Window((frame,)), parse_actions("open the top drawer"))
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from videogem_ros.core.acceleration import Graphs, to_host
from videogem_ros.core.backbones import Backbone
from videogem_ros.core.backbones.preprocessing import Placement, normalised, place, upload
from videogem_ros.core.comparison import (
    Found,
    Sizes,
    compare,
    compare_classes,
    compare_patches,
    embed_classes,
    packed,
)
from videogem_ros.core.configuration import FEATURE_FIELDS, GroundingConfig
from videogem_ros.core.encoder import Encoder, check_indices, join_features
from videogem_ros.core.presence import presence_margin, presence_score
from videogem_ros.core.prompts import prompts_for
from videogem_ros.datatypes import (
    PROMPT_KINDS,
    Action,
    Features,
    Frame,
    Grounding,
    Window,
)
from videogem_ros.errors import InvalidValueError, VideoGemError, check_type

FrameChoice = Literal["newest", "all"] | Sequence[int]
"""Which frames of a window are grounded: the newest, all, or those at these indices."""

TEXT_CACHE = 1024
"""Most texts whose embeddings are kept; an action needs three."""

Compared = tuple[tuple[Tensor, ...], Sizes]
"""On a GPU the tensors of :func:`.comparison.packed`, else those of :func:`.comparison.compare`;
and their sizes."""

PREPARED_FRAMES = 512
"""Most frames whose preprocessed input is kept on a GPU for later windows."""


class Grounder:
    """VideoGEM over one backbone.

    Args:
        backbone: From :func:`videogem_ros.core.load_backbone`.
        config: How features become heatmaps and points.
        cuda_graphs: "auto" records passes on a GPU and replays them, where that is possible;
            "never" does not. The results are the same.

    Attributes:
        encoder: Of the backbone's tower.
        graphs: Runs encoder passes, and together with what follows them, as CUDA graphs where
            possible.
        comparisons: Runs what follows the encoder alone, likewise.
        preparations: Runs what precedes it, likewise.
        input_hw: Height and width of the network's input in pixels.

    Raises:
        InvalidValueError: The backbone has fewer than ``config.depth`` blocks, the input size is
            not a multiple of its patch, or ``cuda_graphs`` is something else.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: GroundingConfig | None = None,
        *,
        cuda_graphs: str = "auto",
    ) -> None:
        self.backbone = backbone
        self.config = config or GroundingConfig()
        self.encoder = Encoder(backbone.tower, self.config.depth, self.config.self_self_scope)
        self.graphs = Graphs(backbone.tower, cuda_graphs)
        self.comparisons = Graphs((backbone.tower.ln_post, backbone.tower.projection), cuda_graphs)
        self.preparations = Graphs((), cuda_graphs, beside=self.graphs)
        self.input_hw = self.config.image_hw or backbone.input_hw
        patch_hw = backbone.tower.patch_hw
        if any(side % patch for side, patch in zip(self.input_hw, patch_hw)):
            raise InvalidValueError(
                "image_hw", f"multiples of the patch {patch_hw[0]} x {patch_hw[1]}", self.input_hw
            )
        self._embeddings: OrderedDict[str, Tensor] = OrderedDict()
        self._prepared: WeakKeyDictionary[Frame, Tensor] = WeakKeyDictionary()

    def with_config(self, config: GroundingConfig) -> Grounder:
        """A grounder with another configuration that shares the backbone and all that is cached.

        Both use the same features, so only what happens after the encoder may differ.

        Args:
            config: With this one's :data:`~videogem_ros.core.configuration.FEATURE_FIELDS`.

        Raises:
            InvalidValueError: One of those differs.
        """
        for name in FEATURE_FIELDS:
            before, after = getattr(self.config, name), getattr(config, name)
            if before != after:
                raise InvalidValueError(name, f"{before!r}, which features depend on", after)
        other = Grounder(self.backbone, config, cuda_graphs=self.graphs.mode)
        other.encoder, other.graphs = self.encoder, self.graphs
        other.preparations = self.preparations
        other._embeddings, other._prepared = self._embeddings, self._prepared
        return other

    def ground(
        self, window: Window, actions: Sequence[Action], frames: FrameChoice = "newest"
    ) -> list[Grounding]:
        """Ground actions in a window: one encoder pass, however many actions.

        Args:
            window: As many frames as the backbone encodes jointly, or any number for an image
                backbone.
            actions: M actions.
            frames: Whose groundings are wanted; the heatmaps do not depend on the choice.

        Returns:
            M x F groundings, action by action, within an action frame by frame.

        Raises:
            InvalidValueError: Something else than a window or actions, a window of another length,
                or frames outside it.
        """
        return self._ground(window, actions, frames, keep=False)[0]

    def ground_and_keep(
        self, window: Window, actions: Sequence[Action], frames: FrameChoice = "newest"
    ) -> tuple[list[Grounding], Features]:
        """:meth:`ground` actions, with the features, so that :meth:`locate` can find others.

        Args:
            window: As for :meth:`ground`.
            actions: Likewise.
            frames: Likewise.

        Returns:
            What :meth:`ground` and :meth:`encode` return.

        Raises:
            InvalidValueError: As for :meth:`ground`.
        """
        groundings, features = self._ground(window, actions, frames, keep=True)
        assert features is not None
        return groundings, features

    @torch.inference_mode()
    def _ground(
        self, window: Window, actions: Sequence[Action], frames: FrameChoice, keep: bool
    ) -> tuple[list[Grounding], Features | None]:
        chosen = self._chosen(window, frames)
        _check_actions(actions)
        if not actions:
            return [], self.encode(window, chosen) if keep else None
        compared, features = self._encode_and_compare(window, actions, chosen, keep)
        (found,) = self._on_host([compared])
        rows = dict(enumerate(chosen))
        return self._groundings(found, self._scores(found), rows, window, actions), features

    def ground_each(
        self,
        windows: Sequence[Window],
        actions: Sequence[Sequence[Action]],
        frames: FrameChoice = "newest",
    ) -> list[list[Grounding]]:
        """Ground unrelated windows, for example of several cameras.

        Takes one encoder pass and one wait for the GPU. Each window's groundings are those that
        :meth:`ground` finds, within 1e-5 in float32. Their heatmaps may share an array, which
        stays in memory as long as any of them: copy those that are kept longer than the others.

        Args:
            windows: B windows, of any image sizes; see :meth:`encode_windows`.
            actions: The actions of each window.
            frames: As for :meth:`ground`, the same for every window.

        Returns:
            For each window what :meth:`ground` returns.

        Raises:
            InvalidValueError: As for :meth:`ground`, or not one sequence of actions per window.
        """
        _check_asked(windows, actions)
        return self.locate_each(self.encode_windows(windows, frames), windows, actions)

    def warm_up(self, window: Window, actions: Sequence[Action]) -> None:
        """Ground a window and drop the result, so that the first real window is not slow.

        Args:
            window: Has as many frames as the real ones; their content and size do not matter.
            actions: One action or more.
        """
        if self.graphs.used_on(self.device):
            # The second pass is the one that is recorded as a CUDA graph: that of the encoder, for
            # other numbers of actions, then that with what follows it.
            self.encode(window)
            self.ground(window, actions)
        self.ground(window, actions)

    @torch.inference_mode()
    def encode(self, window: Window, frames: FrameChoice = "newest") -> Features:
        """The encoder pass alone; see :meth:`ground`."""
        chosen = self._chosen(window, frames)
        return replace(self._encode(*self._needed(window, chosen)), frames=chosen)

    @torch.inference_mode()
    def encode_windows(
        self, windows: Sequence[Window], frames: FrameChoice = "newest"
    ) -> list[Features]:
        """The encoder pass over several windows at once; see :meth:`ground_each`.

        Args:
            windows: Each has as many frames as a video backbone encodes jointly, or any number
                for an image backbone; image sizes may differ between windows.
            frames: As for :meth:`ground`, the same for every window.

        Returns:
            For each window what :meth:`encode` returns.

        Raises:
            InvalidValueError: A window of another length, or frames outside one.
        """
        if len(windows) < 2:
            return [self.encode(window, frames) for window in windows]
        choices = [self._chosen(window, frames) for window in windows]
        if self.backbone.window_frames > 1:
            chosen = choices[0]  # all windows have the same length
            pixels = self._pixels([frame for window in windows for frame in window.frames])
            pixels = pixels.view(len(windows), -1, *pixels.shape[1:])
            encoder = self.encoder  # so that a CUDA graph does not keep the grounder alive
            patch_terms, class_terms = self.graphs.run(
                chosen, lambda pixels: encoder.terms(pixels, chosen), pixels
            )
            return [
                Features(patches, classes, self._grid_hw, chosen)
                for patches, classes in zip(patch_terms, class_terms)
            ]
        wanted = [window.frames[index] for window, c in zip(windows, choices) for index in c]
        features = self._encode_images(wanted)
        counts = [len(chosen) for chosen in choices]
        parts = zip(
            torch.split(features.patch_terms, counts), torch.split(features.class_terms, counts)
        )
        return [
            Features(patches, classes, self._grid_hw, chosen)
            for (patches, classes), chosen in zip(parts, choices)
        ]

    @torch.inference_mode()
    def encode_each(self, frames: Sequence[Frame]) -> list[Features]:
        """Encode unrelated frames of any sizes in one pass of an image backbone.

        Args:
            frames: The frames.

        Returns:
            For each frame the features of a window of this frame alone.

        Raises:
            InvalidValueError: The backbone encodes several frames jointly.
        """
        if self.backbone.window_frames > 1:
            raise InvalidValueError(
                "backbone",
                "an image backbone, to encode frames each on its own",
                self.backbone.name,
            )
        return self.encode_windows([Window((frame,)) for frame in frames])

    def _chosen(self, window: Window, frames: FrameChoice) -> tuple[int, ...]:
        """Indices of the wanted frames in a window, whose length is checked."""
        check_type("window", window, Window, "a Window of frames")
        joint = self.backbone.window_frames
        if joint > 1 and len(window) != joint:
            raise InvalidValueError(
                "window.frames", f"{joint} frames for {self.backbone.name}", str(len(window))
            )
        return _indices(frames, len(window))

    def _needed(self, window: Window, chosen: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
        """The frames that have to be encoded, and the indices of the wanted ones among them."""
        if self.backbone.window_frames > 1:
            return self._pixels(window.frames), chosen
        # An image backbone encodes each frame on its own, so only the wanted ones.
        return self._pixels([window.frames[i] for i in chosen]), tuple(range(len(chosen)))

    def _encode(self, pixels: Tensor, chosen: tuple[int, ...]) -> Features:
        """Features of one window (T, 3, H, W)."""
        encoder = self.encoder

        def passed(pixels: Tensor) -> tuple[Tensor, ...]:
            features = encoder(pixels, chosen)
            return features.patch_terms, features.class_terms

        patch_terms, class_terms = self.graphs.run(chosen, passed, pixels)
        return Features(patch_terms, class_terms, self._grid_hw, chosen)

    def _encode_images(self, frames: Sequence[Frame]) -> Features:
        """Features of frames that are encoded each on its own, in one pass."""
        return self._encode(self._pixels(frames), tuple(range(len(frames))))

    def _pixels(self, frames: Sequence[Frame]) -> Tensor:
        """Frames of any sizes as the network's input, (T, 3, H, W).

        A video window shares most of its frames with those before and after it. On a GPU, inputs
        are kept as long as the frame lives. On a CPU preprocessing takes a fraction of a percent
        of a window's time, so memory is saved instead.
        """
        if self.device.type != "cuda" or self.backbone.window_frames == 1:
            return self._prepare(frames)
        known = self._prepared
        if new := [frame for frame in dict.fromkeys(frames) if frame not in known]:
            known.update(zip(new, self._prepare(new)))
        pixels = torch.stack([known[frame] for frame in frames])
        while len(known) > PREPARED_FRAMES:
            known.pop(next(known.keys()), None)
        return pixels

    def _prepare(self, frames: Sequence[Frame]) -> Tensor:
        """Frames of any sizes as the network's input, (T, 3, H, W)."""
        weight, preprocessing = self.backbone.tower.patch_embedding, self.backbone.preprocessing
        parts: list[Tensor] = []
        for hw, of_size in itertools.groupby(frames, key=lambda frame: frame.hw):
            placement = place(hw, self.input_hw, self.config.resize)

            def passed(levels: Tensor, placement: Placement = placement) -> tuple[Tensor]:
                # In one piece, as frames are put together for every window.
                return (normalised(levels, placement, preprocessing, weight.dtype).contiguous(),)

            levels = upload([frame.image for frame in of_size], weight.device)
            parts.extend(self.preparations.run(placement, passed, levels))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @property
    def _grid_hw(self) -> tuple[int, int]:
        """Patches down and across."""
        patch_h, patch_w = self.backbone.tower.patch_hw
        return self.input_hw[0] // patch_h, self.input_hw[1] // patch_w

    def locate(
        self, features: Features, window: Window, actions: Sequence[Action]
    ) -> list[Grounding]:
        """Everything after the encoder pass; see :meth:`ground`.

        Args:
            features: Of this window, from :meth:`encode`.
            window: The window that the features are of; gives stamps and image size.
            actions: M actions.

        Returns:
            M x F groundings, action by action, within an action frame by frame.
        """
        return self.locate_each([features], [window], [actions])[0]

    @torch.inference_mode()
    def locate_each(
        self,
        features: Sequence[Features],
        windows: Sequence[Window],
        actions: Sequence[Sequence[Action]],
    ) -> list[list[Grounding]]:
        """:meth:`locate` for several windows, with one wait for the GPU.

        Args:
            features: Those of each window.
            windows: The windows.
            actions: The actions of each window.

        Returns:
            For each window what :meth:`locate` returns.

        Raises:
            InvalidValueError: Windows, features and sequences of actions differ in number, or
                there is something else than actions in them.
        """
        _check_asked(windows, actions)
        if len(features) != len(windows):
            raise InvalidValueError(
                "features", f"those of each of {len(windows)} windows", f"{len(features)}"
            )
        # Windows of one size with the same actions are compared in one pass.
        groups: dict[Hashable, list[int]] = {}
        for i, asked in enumerate(actions):
            if asked:
                alike = (features[i].grid_hw, windows[i].hw, tuple(asked))
                groups.setdefault(alike, []).append(i)
        compared = [
            self._compare(
                _joined([features[i] for i in group]), windows[group[0]].hw, actions[group[0]]
            )
            for group in groups.values()
        ]
        groundings: list[list[Grounding]] = [[] for _ in windows]
        for group, found in zip(groups.values(), self._on_host(compared)):
            scores = self._scores(found)
            first = 0
            for i in group:
                frames = dict(enumerate(features[i].frames, first))
                groundings[i] = self._groundings(found, scores, frames, windows[i], actions[i])
                first += len(frames)
        return groundings

    def _encode_and_compare(
        self,
        window: Window,
        actions: Sequence[Action],
        chosen: tuple[int, ...],
        keep: bool = False,
    ) -> tuple[Compared, Features | None]:
        """Encode a window and compare it with actions' texts; does not wait for the device.

        On a GPU both are one recording from the second time on, so that the class tokens can be
        compared while the last patch terms are still computed.

        Args:
            window: The window.
            actions: One action or more.
            chosen: Indices of the wanted frames.
            keep: Whether features are wanted.

        Returns:
            What :meth:`_compare` returns, and the features, or None.
        """
        if not self.graphs.used_on(self.device):
            features = self.encode(window, chosen)
            return self._compare(features, window.hw, actions), features if keep else None
        pixels, places = self._needed(window, chosen)
        embeddings, count = self._texts(actions)
        encoder, tower, config = self.encoder, self.backbone.tower, self.config
        grid_hw, placement = self._grid_hw, place(window.hw, self.input_hw, config.resize)

        def passed(pixels: Tensor, embeddings: Tensor) -> tuple[Tensor, ...]:
            of_class: list[tuple[Tensor, ...]] = []

            def meanwhile(class_terms: Tensor) -> None:
                of_class.append(compare_classes(class_terms[0], embeddings, count, tower, config))

            (patches,), (classes,) = encoder.terms(pixels[None], places, meanwhile)
            features = Features(patches, classes, grid_hw, places)
            compared = compare_patches(
                features, placement, of_class[0], embeddings[:count], tower, config
            )
            return (*_on_device(compared), patches, classes)

        key = (places, count, placement, config)
        wanted = None if keep else -2
        outputs = self.graphs.replay(key, passed, pixels, embeddings, wanted=wanted)
        if outputs is None:
            features = replace(self._encode(pixels, places), frames=chosen)
            return self._compare(features, window.hw, actions), features if keep else None
        sizes = self._sizes(len(chosen), count, placement)
        if not keep:
            return (outputs, sizes), None
        *compared, patches, classes = outputs
        return (tuple(compared), sizes), Features(patches, classes, grid_hw, chosen)

    def _compare(
        self, features: Features, image_hw: tuple[int, int], actions: Sequence[Action]
    ) -> Compared:
        """Compare features with actions' texts; does not wait for the device."""
        config = self.config
        embeddings, count = self._texts(actions)
        placement = place(image_hw, self.input_hw, config.resize)
        key = (count, features.grid_hw, placement)
        tower, patches = self.backbone.tower, features.patch_terms

        def passed(*arguments: Tensor) -> tuple[Tensor, ...]:
            return _on_device(compare(key, *arguments, tower=tower, config=config))

        compared = self.comparisons.run(key, passed, patches, features.class_terms, embeddings)
        return compared, self._sizes(len(patches), count, placement)

    def _sizes(self, frames: int, prompts: int, placement: Placement) -> Sizes:
        neutral = len(self.config.presence.neutral)
        return Sizes(frames, prompts, neutral, self.config.depth + 1, placement.content_hw)

    def _texts(self, actions: Sequence[Action]) -> tuple[Tensor, int]:
        """Unit vectors of actions' prompts and the neutral texts, and the number of prompts."""
        config = self.config
        texts = [text for action in actions for text in prompts_for(action, config.prompts).texts]
        return self._embed_texts([*texts, *config.presence.neutral]), len(texts)

    def _on_host(self, compared: Sequence[Compared]) -> list[Found]:
        """What :meth:`_compare` found; waits for the device."""
        if self.device.type != "cuda":
            return [Found.of(tensors) for tensors, _ in compared]
        arrived = iter(to_host([each for tensors, _ in compared for each in tensors]))
        return [Found.unpacked(next(arrived), next(arrived), sizes) for _, sizes in compared]

    def _scores(self, found: Found) -> npt.NDArray[np.float64]:
        """Presence scores (F, M) of what was found.

        Raises:
            VideoGemError: A score or heatmap is NaN.
        """
        margins = presence_margin(
            found.cosines[..., PROMPT_KINDS.index("action")],
            found.neutral[:, None],
            self.backbone.logit_scale,
        )
        slope, offset = self.backbone.presence_fit
        scores = presence_score(slope * margins + offset, self.config.presence)
        # A NaN in one patch makes the whole min-max normalised heatmap NaN.
        corners = found.heatmaps[..., 0, 0]
        if not (np.isfinite(scores).all() and np.isfinite(corners).all()):
            raise VideoGemError(
                f"{self.backbone.name} in {self.backbone.tower.dtype}: expected finite heatmaps "
                "and scores, got nan; its weights, or what this dtype can hold, do not suffice"
            )
        return scores

    def _groundings(
        self,
        found: Found,
        scores: npt.NDArray[np.float64],
        frames: Mapping[int, int],
        window: Window,
        actions: Sequence[Action],
    ) -> list[Grounding]:
        """The groundings of one window.

        Args:
            found: What was found in this window and perhaps others.
            scores: (F, M) presence scores.
            frames: This window's rows in both, each with the index of its frame in the window.
            window: The window.
            actions: M actions.
        """
        config = self.config
        frames_used = len(set(window.stamps_ns))
        groundings = []
        for m, action in enumerate(actions):
            prompts = prompts_for(action, config.prompts)
            for f, index in frames.items():
                frame = window.frames[index]
                points, heatmaps = found.in_source(f, m, window.hw)
                groundings.append(
                    Grounding(
                        action=action,
                        prompts=prompts,
                        frame_index=index,
                        stamp_ns=frame.stamp_ns,
                        frame_id=frame.frame_id,
                        image_hw=window.hw,
                        window_start_ns=window.frames[0].stamp_ns,
                        window_end_ns=window.newest.stamp_ns,
                        frames_used=frames_used,
                        points=points,
                        heatmaps=heatmaps,
                        layer_weights=found.layer_weights[f, m],
                        prompt_probabilities=found.probabilities[f, m],
                        score=float(scores[f, m]),
                        present=bool(scores[f, m] >= config.presence.threshold),
                    )
                )
        return groundings

    @torch.inference_mode()
    def choose(self, features: Features, candidates: Sequence[Action]) -> Action:
        """The verb and the object of a free sentence that fit the class token best.

        The prompt probability is a softmax over all candidates' prompts, so the most probable one
        has the highest cosine.

        Args:
            features: Of the window, from :meth:`encode`.
            candidates: One action or more of the same phrase: verbs and objects to choose from.

        Returns:
            The first candidate with the chosen verb and object, which may come from two others.
        """
        chosen = candidates[0]
        classes = embed_classes(features.class_terms, self.backbone.tower)
        for kind, lemma in (("verb", "verb_lemma"), ("object", "object_head")):
            named = [action for action in candidates if getattr(action, kind) is not None]
            if named:
                prompts = [prompts_for(action, self.config.prompts) for action in named]
                text = self._embed_texts([getattr(prompt, kind) for prompt in prompts])
                best = named[int((classes @ text.T).mean(dim=0).argmax())]
                chosen = replace(
                    chosen, **{kind: getattr(best, kind), lemma: getattr(best, lemma)}
                )
        return chosen

    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(len(texts), E) unit vectors; only texts that are not cached are encoded."""
        known = self._embeddings
        # Another thread may drop from the cache what this one needs, so it has rows of its own.
        taken = {text: known.pop(text, None) for text in dict.fromkeys(texts)}
        rows = {text: row for text, row in taken.items() if row is not None}
        if unknown := [text for text in taken if text not in rows]:
            rows.update(zip(unknown, self.backbone.encode_text(unknown)))
        known.update(rows)
        while len(known) > TEXT_CACHE:
            known.popitem(last=False)
        return torch.stack([rows[text] for text in texts])

    @property
    def recording_problem(self) -> str:
        """Why something could not be recorded as a CUDA graph; empty where nothing failed."""
        return self.graphs.problem or self.comparisons.problem or self.preparations.problem

    @property
    def device(self) -> torch.device:
        """The device that the backbone is on."""
        return self.backbone.tower.class_embedding.device


def _check_asked(windows: Sequence[Window], actions: Sequence[Sequence[Action]]) -> None:
    """Refuse what are no actions for each window; :meth:`Grounder.ground_each` says so."""
    if len(windows) != len(actions):
        raise InvalidValueError(
            "actions",
            f"a sequence of actions for each of {len(windows)} windows",
            f"{len(actions)}",
        )
    for asked in actions:
        _check_actions(asked)


def _check_actions(actions: Sequence[Action]) -> None:
    """Refuse what no actions are; :meth:`Grounder.ground` says so."""
    check_type("actions", actions, Sequence, "a sequence of Action, as from parse_actions")
    for action in actions:
        check_type("actions", action, Action, "Action objects, as from parse_actions")


def _on_device(compared: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What was compared, packed on a GPU, from where few large pieces come fastest."""
    return packed(compared) if compared[0].device.type == "cuda" else compared


def _joined(parts: Sequence[Features]) -> Features:
    """Features of several windows as if of one."""
    return join_features(parts, [frame for part in parts for frame in part.frames])


def _indices(frames: FrameChoice, count: int) -> tuple[int, ...]:
    """A choice of frames as indices into a window of ``count`` frames."""
    if frames == "newest":
        return (count - 1,)
    if frames == "all":
        return tuple(range(count))
    if isinstance(frames, str):
        raise InvalidValueError("frames", '"newest", "all" or indices in the window', frames)
    return check_indices(frames, count)

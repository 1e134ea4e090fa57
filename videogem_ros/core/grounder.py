"""Frames and actions in, groundings out: the two calls a user needs.

>>> grounder = Grounder(load_backbone("openclip:ViT-B-16"))
>>> grounder.ground(Window((frame,)), parse_actions("open the top drawer"))
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from videogem_ros.core.backbones import Backbone
from videogem_ros.core.backbones.preprocessing import place, to_pixels
from videogem_ros.core.configuration import GroundingConfig
from videogem_ros.core.encoder import Encoder, check_places
from videogem_ros.core.fusion import locate_points
from videogem_ros.core.heatmaps import patch_similarity
from videogem_ros.core.presence import presence_margin, presence_score
from videogem_ros.core.prompts import prompts_for
from videogem_ros.core.weighting import layer_weights
from videogem_ros.datatypes import (
    PROMPT_KINDS,
    Action,
    Features,
    Frame,
    Grounding,
    Window,
)
from videogem_ros.errors import InvalidValueError

FrameChoice = Literal["newest", "all"] | Sequence[int]
"""Whose heatmaps are wanted: the newest frame's, all frames', or those at these places."""

TEXT_CACHE = 1024
"""Texts whose embeddings are kept; three an action."""

PROMPT_LOGIT_SCALE = 100.0
"""Scale of the prompt probabilities, the official code's for every backbone."""


class Grounder:
    """VideoGEM over one backbone.

    Args:
        backbone: From :func:`videogem_ros.core.load_backbone`.
        config: How features become heatmaps and points.

    Raises:
        InvalidValueError: The backbone has fewer than ``config.depth`` blocks, or the input size
            is not a multiple of its patch.
    """

    def __init__(self, backbone: Backbone, config: GroundingConfig | None = None) -> None:
        self.backbone = backbone
        self.config = config or GroundingConfig()
        self.encoder = Encoder(backbone.tower, self.config.depth)
        self.input_hw = self.config.image_hw or backbone.input_hw
        patch_hw = backbone.tower.patch_hw
        if any(side % patch for side, patch in zip(self.input_hw, patch_hw)):
            raise InvalidValueError(
                "image_hw", f"multiples of the patch {patch_hw[0]} x {patch_hw[1]}", self.input_hw
            )
        self._embeddings: OrderedDict[str, Tensor] = OrderedDict()

    def with_config(self, config: GroundingConfig) -> Grounder:
        """A grounder with another configuration that shares the backbone and all that is cached.

        Features of one serve the other, so only what happens after the encoder may differ.

        Args:
            config: With this one's ``depth``, ``resize`` and ``image_hw``.

        Raises:
            InvalidValueError: One of those differs.
        """
        for name in ("depth", "resize", "image_hw"):
            before, after = getattr(self.config, name), getattr(config, name)
            if before != after:
                raise InvalidValueError(name, f"{before!r}, which features depend on", after)
        other = Grounder(self.backbone, config)
        other._embeddings = self._embeddings
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
            InvalidValueError: A window of another length, or frames outside it.
        """
        return self.locate(self.encode(window, frames), window, actions)

    @torch.inference_mode()
    def encode(self, window: Window, frames: FrameChoice = "newest") -> Features:
        """The encoder pass alone; see :meth:`ground`."""
        joint = self.backbone.window_frames
        if joint > 1 and len(window) != joint:
            raise InvalidValueError(
                "window.frames", f"{joint} frames for {self.backbone.name}", str(len(window))
            )
        chosen = _places(frames, len(window))
        # Frames of an image backbone do not see each other: only the wanted ones are prepared.
        used = range(len(window)) if joint > 1 else chosen
        pixels = self._pixels([window.frames[index] for index in used])
        if joint > 1:
            return self.encoder(pixels, chosen)
        features = self.encoder(pixels)
        return Features(features.patch_terms, features.class_terms, features.grid_hw, chosen)

    @torch.inference_mode()
    def encode_each(self, frames: Sequence[Frame]) -> list[Features]:
        """Encode frames that have nothing to do with each other, of any sizes, in one pass.

        Args:
            frames: For an image backbone.

        Returns:
            Of each frame the features of a window that is this frame alone.

        Raises:
            InvalidValueError: The backbone encodes several frames jointly.
        """
        if self.backbone.window_frames > 1:
            raise InvalidValueError(
                "backbone",
                "an image backbone, to encode frames each on its own",
                self.backbone.name,
            )
        features = self.encoder(torch.cat([self._pixels([frame]) for frame in frames]))
        return [
            Features(
                features.patch_terms[f : f + 1],
                features.class_terms[f : f + 1],
                features.grid_hw,
                frames=(0,),
            )
            for f in range(len(frames))
        ]

    def _pixels(self, frames: Sequence[Frame]) -> Tensor:
        """Frames of one size as the network's input, (T, 3, H, W)."""
        placement = place(frames[0].hw, self.input_hw, self.config.resize)
        weight = self.backbone.tower.patch_embedding
        return to_pixels(
            [frame.image for frame in frames],
            placement,
            self.backbone.preprocessing,
            weight.device,
            weight.dtype,
        )

    @torch.inference_mode()
    def locate(
        self, features: Features, window: Window, actions: Sequence[Action]
    ) -> list[Grounding]:
        """Everything after the encoder pass; see :meth:`ground`.

        Args:
            features: Of this window, from :meth:`encode`.
            window: Where the features come from; gives stamps and image size.
            actions: M actions.

        Returns:
            M x F groundings, action by action, within an action frame by frame.
        """
        if not actions:
            return []
        config, tower = self.config, self.backbone.tower
        prompts = [prompts_for(action, config.prompts) for action in actions]
        texts = [text for prompt in prompts for text in prompt.texts]
        embeddings = self._embed_texts([*texts, *config.presence.neutral])
        text, neutral = embeddings[: len(texts)], embeddings[len(texts) :]

        weights = layer_weights(features.class_terms, text, tower, config)
        similarity = patch_similarity(features, weights, text, tower)
        placement = place(window.hw, self.input_hw, config.resize)
        located = locate_points(similarity, features.grid_hw, placement, config).cpu()

        class_embedding = self._embed_classes(features)
        shape = (len(features.frames), len(actions), len(PROMPT_KINDS))  # (F, M, K)
        cosines = (class_embedding @ text.T).view(shape)
        probabilities = torch.softmax(PROMPT_LOGIT_SCALE * cosines, dim=-1).cpu().numpy()
        margins = presence_margin(
            cosines[..., PROMPT_KINDS.index("action")].cpu().numpy(),
            (class_embedding @ neutral.T)[:, None].cpu().numpy(),
            self.backbone.logit_scale,
        )
        scores = presence_score(margins, config.presence)  # (F, M)
        layer = weights.expand(*similarity.shape[:2], -1).reshape(*shape, -1).cpu().numpy()

        frames_used = len(set(window.stamps_ns))
        groundings = []
        for m, (action, prompt) in enumerate(zip(actions, prompts)):
            for f, index in enumerate(features.frames):
                frame = window.frames[index]
                points, heatmaps = located.of(f, m, window.hw)
                groundings.append(
                    Grounding(
                        action=action,
                        prompts=prompt,
                        frame_index=index,
                        stamp_ns=frame.stamp_ns,
                        frame_id=frame.frame_id,
                        image_hw=window.hw,
                        window_start_ns=window.frames[0].stamp_ns,
                        window_end_ns=window.newest.stamp_ns,
                        frames_used=frames_used,
                        points=points,
                        heatmaps=heatmaps,
                        layer_weights=layer[f, m],
                        prompt_probabilities=probabilities[f, m],
                        score=float(scores[f, m]),
                        present=bool(scores[f, m] >= config.presence.threshold),
                    )
                )
        return groundings

    @torch.inference_mode()
    def choose(self, features: Features, candidates: Sequence[Action]) -> Action:
        """The verb and the object of a free sentence that the class token fits best.

        The prompt probability is a softmax over all candidates' prompts, so the most probable one
        is the one of highest cosine.

        Args:
            features: Of the window, from :meth:`encode`.
            candidates: One action or more, of one phrase: verbs and objects to choose from.

        Returns:
            The first candidate with the verb of one and the object of another, or the same, one.
        """
        chosen = candidates[0]
        classes = self._embed_classes(features)
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

    def _embed_classes(self, features: Features) -> Tensor:
        """(F, E) float32 unit vectors of the class tokens."""
        return self.backbone.tower.embed(features.class_terms.float().sum(dim=1))

    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(len(texts), E) unit vectors; those not seen before are encoded."""
        known = self._embeddings
        for text in texts:
            if text not in known:
                # Alone: rounding depends on a batch's size, so on what was asked for before.
                (known[text],) = self.backbone.encode_text([text])
            known.move_to_end(text)
        stacked = torch.stack([known[text] for text in texts])
        while len(known) > TEXT_CACHE:
            known.popitem(last=False)
        return stacked

    @property
    def device(self) -> torch.device:
        """Where the backbone lies."""
        return self.backbone.tower.class_embedding.device


def _places(frames: FrameChoice, count: int) -> tuple[int, ...]:
    """A choice of frames as places in a window of ``count`` frames."""
    if frames == "newest":
        return (count - 1,)
    if frames == "all":
        return tuple(range(count))
    if isinstance(frames, str):
        raise InvalidValueError("frames", '"newest", "all" or places in the window', frames)
    return check_places(frames, count)

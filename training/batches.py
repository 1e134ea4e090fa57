"""Batches: augmented frames, with true and false texts.

A batch depends only on the seed and the step, so training resumes exactly, however many processes
prepare the batches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import cache
from itertools import chain

import cv2
import numpy as np
import numpy.typing as npt
import open_clip
import torch
from pool import COLUMNS, NO_THING, NO_VERB, Pool
from torch import Tensor
from torch.utils.data import Dataset

from videogem_ros.tabletop.captions import (
    FREE_FORMS,
    NOTHING,
    TEMPLATES,
    Caption,
    Claim,
    caption,
)
from videogem_ros.tabletop.vocabulary import COLOURS, KINDS, MATERIALS, SIZES, VERBS

UNSAID = -1
"""Number of an attribute that a claim leaves open."""
TWIN = np.array(
    [COLUMNS[0].index(twin) if (twin := VERBS[verb].twin) else NO_THING for verb in COLUMNS[0]],
)
"""For every verb, its twin: the one with the same poses."""
REVERSED = np.where(
    [verb in ("rotate", "hold") or twin < 0 for verb, twin in zip(COLUMNS[0], TWIN)],
    np.arange(len(TWIN)),
    TWIN,
)
"""For every verb, the one that its clip shows when played backwards."""
OWN_TEXTS = 14
_TOKENIZER = open_clip.SimpleTokenizer(context_length=32)


@dataclass(frozen=True)
class Shard:
    """Part of a batch, whose losses are computed independently of other shards.

    Attributes:
        images: (B, T, S, S, 3) uint8 RGB.
        boxes: (B, T, 2, O, 4) from 0 to 1: box of the action, box of the object.
        pairs: (B, O, 5) int64, the action on each object and the object's attributes.
        tokens: (C, n) int64 of the C texts, cut to the longest; the neutral ones first.
        claims: (C, 5) int64, what the texts claim.
        own: (B, P) int64, indices of the texts made for each scene; padded with 0, a neutral text.
    """

    images: Tensor
    boxes: Tensor
    pairs: Tensor
    tokens: Tensor
    claims: Tensor
    own: Tensor

    def to(self, device: torch.device) -> Shard:
        """The same shard on a device."""
        return Shard(*(getattr(self, field.name).to(device) for field in fields(self)))


class Batches(Dataset[list[Shard]]):
    """Batches by step.

    Args:
        pool: Scenes; clips run backwards half of the time.
        seed: Seed of everything random here.
        steps: Steps of the whole training.
        shards: Shards per batch.
        size: Scenes per shard.
        easier: Number of first steps that use only scenes from the pool's easier third.
    """

    def __init__(
        self, pool: Pool, seed: int, steps: int, shards: int, size: int, easier: int = 0
    ) -> None:
        self.pool, self.seed, self.steps = pool, seed, steps
        self.shards, self.size, self.easier = shards, size, easier
        self.moving = pool.config.frames > 1

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> list[Shard]:
        random = np.random.default_rng([self.seed, 1, step])
        among = len(self.pool) // 3 if step < self.easier else len(self.pool)
        places = random.choice(among, self.shards * self.size, replace=among < 1000)
        return [self._shard(part, random) for part in np.split(places, self.shards)]

    def _shard(self, places: npt.NDArray[np.int64], random: np.random.Generator) -> Shard:
        moved, pairs = [], self.pool.pairs[places].astype(np.int64)
        for row, place in enumerate(places):
            images, boxes = self.pool.images[place], self.pool.boxes[place]
            if self.moving and random.random() < 0.5:
                images, boxes = images[::-1], boxes[::-1]
                verbs = pairs[row, :, 0]
                pairs[row, :, 0] = np.where(verbs >= 0, REVERSED[verbs], verbs)
            moved.append(move(images, boxes, random))
        texts: dict[str, tuple[int, Claim]] = {
            text: (number, Claim()) for number, text in enumerate(NOTHING)
        }
        own = np.zeros((len(places), OWN_TEXTS), np.int64)
        for row, scene in enumerate(pairs):
            made_of = captions_of(scene, random, self.moving)[:OWN_TEXTS]
            for column, made in enumerate(made_of):
                own[row, column] = texts.setdefault(made.text, (len(texts), made.claim))[0]
        tokens = torch.stack([tokens_of(text) for text in texts])
        longest = int((tokens != 0).sum(dim=1).max())
        claims = [claim_row(claim) for _, claim in texts.values()]
        return Shard(
            torch.from_numpy(np.stack([images for images, _ in moved])),
            torch.from_numpy(np.stack([boxes for _, boxes in moved])),
            torch.from_numpy(pairs),
            tokens[:, :longest],
            torch.tensor(claims),
            torch.from_numpy(own),
        )


def move(
    images: npt.NDArray[np.uint8],
    boxes: npt.NDArray[np.float32],
    random: np.random.Generator,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Mirrors, scales, shifts and brightens all frames of a clip in the same way.

    Args:
        images: (T, S, S, 3).
        boxes: (T, 2, O, 4) from 0 to 1.
        random: Random generator.

    Returns:
        Changed images and boxes.
    """
    side = images.shape[1]
    mirrored = random.random() < 0.5
    scale = random.uniform(0.92, 1.12, 2)
    shift = 0.5 - 0.5 * scale + random.uniform(-0.05, 0.05, 2)
    across = -1 if mirrored else 1
    matrix = np.array(
        [
            [across * scale[0], 0, side * (1 - shift[0] if mirrored else shift[0]) - mirrored],
            [0, scale[1], side * shift[1]],
        ]
    )
    gain, lift = random.uniform(0.88, 1.12), random.uniform(-10, 10)
    levels = np.clip(np.arange(256) * gain + lift, 0, 255).astype(np.uint8)
    changed = [
        cv2.warpAffine(
            cv2.LUT(image, levels), matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101
        )
        for image in images
    ]
    placed = boxes * np.tile(scale, 2) + np.tile(shift, 2)
    if mirrored:
        placed[..., [0, 2]] = 1 - placed[..., [2, 0]]
    return np.stack(changed), np.clip(placed, 0, 1).astype(np.float32)


def captions_of(
    pairs: npt.NDArray[np.int64], random: np.random.Generator, moving: bool
) -> list[Caption]:
    """Texts for a scene, true ones and near misses, in random order.

    Args:
        pairs: (O, 5), the action on each object and the object's attributes.
        random: Random generator.
        moving: Whether motion is visible: if so, twin verbs are more frequent among near misses.
    """
    things = [row for row in pairs if row[0] != NO_THING]
    acted = [row for row in things if row[0] != NO_VERB]
    idle = [row for row in things if row[0] == NO_VERB]
    claims: list[Claim] = []
    for row in acted:
        verb, kind = COLUMNS[0][row[0]], row[1]
        claims += [Claim(verb), _claim(None, row, random), _claim(verb, row, random)]
        # Near misses: another verb on this object, this verb on another object or colour.
        near = int(TWIN[row[0]]) if moving and random.random() < 0.5 else NO_VERB
        other_verb = COLUMNS[0][near] if near >= 0 else _one(COLUMNS[0], random)
        claims.append(_claim(other_verb, row, random, exact=True))
        other = things[int(random.integers(len(things)))]
        claims.append(_claim(verb, other, random, exact=True))
        if random.random() < 0.4:
            recoloured = np.array(row)
            recoloured[2] = random.integers(len(COLUMNS[2]))
            claims.append(_claim(_maybe(verb, random), recoloured, random, exact=True))
        if random.random() < 0.2:
            rekinded = np.array(row)
            rekinded[1] = (kind + random.integers(len(COLUMNS[1]))) % len(COLUMNS[1])
            claims.append(_claim(_maybe(verb, random), rekinded, random, exact=True))
    for row in idle:
        claims.append(_claim(None, row, random))
        if not acted or random.random() < 0.4:
            claims.append(_claim(_one(COLUMNS[0], random), row, random))
    order = random.permutation(len(claims))
    return [caption(claims[place], random) for place in order]


def _claim(
    verb: str | None,
    row: npt.NDArray[np.int64],
    random: np.random.Generator,
    exact: bool = False,
) -> Claim:
    """A claim about a thing: always its kind, mostly its colour, sometimes more."""
    _, kind, colour, size, material = (int(number) for number in row)
    return Claim(
        verb,
        COLUMNS[1][kind],
        COLUMNS[2][colour] if exact or random.random() < 0.8 else None,
        COLUMNS[3][size] if random.random() < 0.15 else None,
        COLUMNS[4][material] if random.random() < 0.15 else None,
    )


def _one(words: tuple[str, ...], random: np.random.Generator) -> str:
    return words[int(random.integers(len(words)))]


def _maybe(verb: str, random: np.random.Generator) -> str | None:
    return verb if random.random() < 0.5 else None


def claim_row(claim: Claim) -> list[int]:
    """A claim as indices into COLUMNS."""
    words = (claim.verb, claim.kind, claim.colour, claim.size, claim.material)
    return [UNSAID if word is None else column.index(word) for column, word in zip(COLUMNS, words)]


@cache
def tokens_of(text: str) -> Tensor:
    """(32,) int64, zero after the end token."""
    tokens: Tensor = _TOKENIZER([text])[0]
    return tokens


def spoken_tokens() -> list[int]:
    """All tokens that can occur in captions, including start, end and padding."""
    forms = (TEMPLATES.verb, TEMPLATES.object, TEMPLATES.action, *chain(*FREE_FORMS.values()))
    phrases = chain(*(verb.phrases for verb in VERBS.values()))
    words = chain(*(table.values() for table in (KINDS, SIZES, MATERIALS)))
    texts = (*NOTHING, *forms, *phrases, *chain(*words), *COLOURS)
    # The tokenizer works word by word, so what fills a text's placeholders changes no other token.
    tokens = torch.cat([tokens_of(re.sub(r"{\w*}", " ", text)) for text in texts])
    return sorted(set(tokens.tolist()))


def truth(claims: Tensor, pairs: Tensor, twins: bool = False) -> Tensor:
    """Which claims are true of which things.

    Args:
        claims: (C, 5).
        pairs: (B, O, 5).
        twins: Replace the performed verbs by their twins.

    Returns:
        (B, C, O) bool; always false for neutral texts, which claim nothing.
    """
    if twins:
        verbs = pairs[..., 0]
        table = torch.from_numpy(TWIN).to(verbs.device)
        pairs = pairs.clone()
        pairs[..., 0] = torch.where(verbs >= 0, table[verbs.clamp_min(0)], verbs)
    same = claims[None, :, None] == pairs[:, None]
    fits = (same | (claims == UNSAID)[None, :, None]).all(dim=-1)
    return fits & (claims != UNSAID).any(dim=-1)[None, :, None]

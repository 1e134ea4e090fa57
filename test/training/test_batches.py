"""Batches: what is moved stays labelled, and what runs backwards is called so."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from batches import OWN_TEXTS, REVERSED, Batches, captions_of, move, spoken_tokens, tokens_of
from pool import COLUMNS, NO_VERB, Pool

from videogem_ros.tabletop import Thing
from videogem_ros.tabletop.captions import NOTHING
from videogem_ros.tabletop.hands import Body, Hand, Motion, pose


@pytest.mark.parametrize("seed", range(8))
def test_boxes_move_with_the_pixels(seed: int) -> None:
    image, box = np.zeros((100, 100, 3), np.uint8), np.array([30, 40, 50, 70], np.float32)
    image[40:70, 30:50] = 255
    boxes = np.tile(box / 100, (2, 2, 3, 1))
    images, moved = move(np.stack([image, image]), boxes, np.random.default_rng(seed))
    rows, columns = (images[1, ..., 0] > 128).nonzero()
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(100 * moved[1, 0, 2], seen, atol=1.5)
    np.testing.assert_array_equal(images[0], images[1])


def test_other_processes_open_a_pool_instead_of_copying_it(clips: Pool) -> None:
    pickled = pickle.dumps(clips)
    assert len(pickled) < 1000
    opened = pickle.loads(pickled)
    assert isinstance(opened.images, np.memmap)
    np.testing.assert_array_equal(opened.pairs, clips.pairs)


def same(one: object, other: object) -> bool:
    return all(
        torch.equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one)
    )


def test_a_batch_follows_from_seed_and_step(clips: Pool) -> None:
    first, again, other = (Batches(clips, seed, 9, 2, 3) for seed in (1, 1, 2))
    _ = first[0]  # what came before does not matter
    assert all(same(one, two) for one, two in zip(first[4], again[4]))
    assert not same(first[4][0], first[5][0])
    assert not same(first[4][0], other[4][0])


def test_easier_scenes_come_alone_first(clips: Pool) -> None:
    """The pool's first third holds them."""
    numbered = replace(clips, images=np.zeros_like(clips.images))
    numbered.images[:] = (40 * np.arange(6, dtype=np.uint8))[:, None, None, None, None]
    batches = Batches(numbered, 1, 9, 1, 6, easier=3)
    brightest = [int(batches[step][0].images.max()) for step in range(6)]
    assert max(brightest[:3]) < 80 < min(brightest[3:])


def test_texts_of_a_batch_are_numbered_as_they_are_used(clips: Pool) -> None:
    (shard,) = Batches(clips, 1, 9, 1, 6)[0]
    assert shard.own.shape == (6, OWN_TEXTS)
    assert shard.own.max() < len(shard.tokens) == len(shard.claims)
    assert (shard.claims[: len(NOTHING)] == -1).all()
    width = shard.tokens.shape[1]
    for row, text in enumerate(NOTHING):
        assert torch.equal(shard.tokens[row], tokens_of(text)[:width])


@pytest.mark.parametrize("verb", COLUMNS[0])
@pytest.mark.parametrize("kind", ["box"])
def test_a_clip_backwards_shows_the_verb_it_is_given_for(verb: str, kind: str) -> None:
    """Where the verb changes, frames are those of the other verb in the other order."""
    backwards = COLUMNS[0][REVERSED[COLUMNS[0].index(verb)]]
    assert COLUMNS[0][REVERSED[COLUMNS[0].index(backwards)]] == verb
    if backwards == verb:
        return
    hand = Hand(human=True, skin=(200, 150, 120), sleeve=(50, 60, 70), azimuth=0.7, slope=0.5)
    body = Body(Thing(kind, "red", "large", "plastic"), (200, 40, 40), np.zeros(3), 0.3)
    for time in (0.0, 0.3, 1.0):
        one = pose(body, hand, Motion(verb), time)
        other = pose(body, hand, Motion(backwards), 1 - time)
        np.testing.assert_allclose(one.thing.points, other.thing.points, atol=1e-9)
        np.testing.assert_allclose(one.contact.points, other.contact.points, atol=1e-9)


def test_clips_run_both_ways(clips: Pool) -> None:
    """With the frames, the verbs change; of still things nothing does."""
    counted = replace(clips, images=np.zeros_like(clips.images))
    counted.images[:] = (20 * np.arange(8, dtype=np.uint8))[:, None, None, None]
    ways = set()
    for step in range(6):
        (shard,) = Batches(counted, 1, 9, 1, 6)[step]
        places = np.random.default_rng([1, 1, step]).choice(6, 6, replace=True)
        for row, place in enumerate(places):
            forwards = bool(shard.images[row, 0, 0, 0, 0] < shard.images[row, 7, 0, 0, 0])
            verbs = clips.pairs[place, :, 0].astype(int)
            turned = np.where(verbs >= 0, REVERSED[verbs], verbs)
            expected = verbs if forwards else turned
            assert shard.pairs[row, :, 0].tolist() == expected.tolist()
            ways.add(forwards)
    assert ways == {True, False}


def test_near_misses_ask_for_the_twin_where_motion_is_seen() -> None:
    push, pull = (COLUMNS[0].index(verb) for verb in ("push", "pull"))
    pairs = np.array([[push, 0, 0, 0, 0], [NO_VERB, 1, 1, 1, 1]])

    def share(moving: bool) -> float:
        random = np.random.default_rng(0)
        made = [captions_of(pairs, random, moving) for _ in range(200)]
        return float(np.mean([any(m.claim.verb == COLUMNS[0][pull] for m in s) for s in made]))

    assert share(True) > share(False) + 0.3


def test_every_token_of_captions_is_spoken(clips: Pool) -> None:
    spoken, random = set(spoken_tokens()), np.random.default_rng(0)
    for _ in range(100):
        for pairs in clips.pairs.astype(int):
            for made in captions_of(pairs, random, moving=True):
                assert spoken >= set(tokens_of(made.text).tolist()), made.text
    assert len(spoken) < 200

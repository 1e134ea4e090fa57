"""Scenes: determinism, ground truth seen in the pixels, twins that only motion tells apart."""

import numpy as np
import pytest

from videogem_ros.errors import InvalidValueError
from videogem_ros.tabletop import SceneConfig, Thing, draw_scene
from videogem_ros.tabletop.geometry import join
from videogem_ros.tabletop.hands import Body, Hand, Motion, pose
from videogem_ros.tabletop.objects import SHAPES, build
from videogem_ros.tabletop.vocabulary import KINDS, MOTION, VERBS

HW = (120, 160)
HAND = Hand(human=True, skin=(200, 150, 120), sleeve=(50, 60, 70), azimuth=0.7, slope=0.5)


def scene(seed: int, **config):
    return draw_scene(np.random.default_rng(seed), SceneConfig(**config))


def body(kind: str = "box") -> Body:
    return Body(Thing(kind, "red", "large", "plastic"), (200, 40, 40), np.zeros(3), 0.3)


def test_a_seed_gives_the_same_frames_and_boxes() -> None:
    first, second = (scene(3).render([0.2, 0.7], HW, depth=True) for _ in range(2))
    for name in ("images", "object_boxes", "action_boxes", "depths", "camera_matrix"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_a_frame_does_not_depend_on_the_others() -> None:
    together, alone = scene(4).render([0.1, 0.5], HW), scene(4).render([0.5], HW)
    np.testing.assert_array_equal(together.images[1], alone.images[0])


def test_seeds_differ() -> None:
    assert (scene(1).render([0.5], HW).images != scene(2).render([0.5], HW).images).any()


@pytest.mark.parametrize("seed", range(12))
def test_boxes_lie_in_the_image_and_an_action_holds_its_object(seed: int) -> None:
    drawn = scene(seed)
    view = drawn.render([0.0, 1.0], HW)
    x1, y1, x2, y2 = np.moveaxis(view.action_boxes, -1, 0)
    assert (x1 >= 0).all()
    assert (y1 >= 0).all()
    assert (x2 <= HW[1] - 1).all()
    assert (y2 <= HW[0] - 1).all()
    assert (x1 < x2).all()
    assert (y1 < y2).all()
    assert (view.action_boxes[..., :2] <= view.object_boxes[..., :2]).all()
    assert (view.action_boxes[..., 2:] >= view.object_boxes[..., 2:]).all()
    for place, verb in enumerate(drawn.verbs):
        same = np.array_equal(view.action_boxes[:, place], view.object_boxes[:, place])
        assert same or verb is not None


@pytest.mark.parametrize("seed", range(4))
def test_what_an_object_covers_lies_in_its_box_and_fills_it(seed: int) -> None:
    """Without an object the picture differs inside its box, shadow apart, and nowhere else."""
    drawn = scene(seed, actions=(0, 0), distractors=(1, 1), idle_hands=(0, 0), plain=1.0)
    depth = drawn.render([0.5], HW, depth=True).depths[0]
    x1, y1, x2, y2 = drawn.render([0.5], HW).object_boxes[0, 0]
    table = -drawn.camera.position[2] / drawn.camera.rays(HW)[..., 2]
    rows, columns = np.nonzero(table - depth > 1e-4)
    assert columns.min() == pytest.approx(x1, abs=1.5)
    assert columns.max() == pytest.approx(x2, abs=1.5)
    assert rows.min() == pytest.approx(y1, abs=1.5)
    assert rows.max() == pytest.approx(y2, abs=1.5)


@pytest.mark.parametrize("seed", range(20))
def test_kind_and_colour_tell_things_apart_unless_they_are_twins(seed: int) -> None:
    drawn = scene(seed, twins=0.5)
    pairs = list(zip(drawn.verbs, drawn.things))
    names = [(thing.kind, thing.colour) for thing in drawn.things]
    for place, name in enumerate(names):
        others = [i for i in range(len(names)) if i != place and names[i] == name]
        for other in others:
            assert drawn.things[other] == drawn.things[place]
            assert VERBS[pairs[place][0]].twin == pairs[other][0]


def test_counts_are_as_asked_for() -> None:
    drawn = scene(0, actions=(3, 3), distractors=(2, 2), idle_hands=(1, 1))
    assert sum(verb is not None for verb in drawn.verbs) == 3
    assert len(drawn.things) == 5
    assert len(drawn.idle) == 1
    empty = scene(0, actions=(3, 3), empty=1.0)
    assert set(empty.verbs) == {None}


@pytest.mark.parametrize("verb", [v for v in VERBS.values() if v.decided_by == MOTION])
def test_twins_go_through_the_same_poses(verb) -> None:
    """Backwards in time, or staying where the other one passes."""
    kind = verb.kinds[0]
    for time in (0.0, 0.3, 1.0):
        mine = pose(body(kind), HAND, Motion(verb.name), time)
        if {verb.name, verb.twin} == {"rotate", "hold"}:
            phase = time
            turned = pose(body(kind), HAND, Motion("rotate", phase, phase), 0.5)
            held = pose(body(kind), HAND, Motion("hold", phase, 1.0), 0.5)
            pair = (turned, held)
        else:
            pair = (mine, pose(body(kind), HAND, Motion(verb.twin), 1 - time))
        for name in ("thing", "contact", "arm"):
            points = [getattr(found, name).points for found in pair]
            np.testing.assert_allclose(*points, atol=1e-9)


@pytest.mark.parametrize(
    ("verb", "direction"),
    [
        ("push", -HAND.back),
        ("pull", HAND.back),
        ("lift", np.array([0, 0, 1])),
        ("lower", np.array([0, 0, -1])),
    ],
)
def test_objects_move_the_way_of_the_verb(verb: str, direction) -> None:
    places = [
        pose(body("block"), HAND, Motion(verb), time).thing.points.mean(axis=0)
        for time in (0.0, 1.0)
    ]
    way = places[1] - places[0]
    assert way @ direction == pytest.approx(np.linalg.norm(way), rel=1e-6)
    assert np.linalg.norm(way) > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_objects_stand_on_the_table_and_are_as_large_as_hands_think(kind: str) -> None:
    mesh = build(Thing(kind, "red", "large", "metal"), (200, 40, 40))
    shape = SHAPES[kind]
    assert mesh.points[:, 2].min() == pytest.approx(0, abs=1e-3)
    assert mesh.points[:, 2].max() == pytest.approx(1.2 * shape.height, abs=0.012)
    small = build(Thing(kind, "red", "small", "metal"), (200, 40, 40))
    ratio = np.ptp(mesh.points, axis=0) / np.ptp(small.points, axis=0)
    np.testing.assert_allclose(ratio, 1.2 / 0.85)


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_fingers_reach_their_object(verb) -> None:
    for kind in verb.kinds:
        posed = pose(body(kind), HAND, Motion(verb.name), 0.5)
        thing, hand = posed.thing.points, posed.contact.points
        outside = np.maximum(thing.min(axis=0) - hand, hand - thing.max(axis=0)).clip(0)
        assert np.linalg.norm(outside, axis=1).min() < 0.015, kind
        assert np.isfinite(join(posed.thing, posed.contact, posed.arm).points).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [("actions", (3, 2)), ("distractors", (-1, 2)), ("idle_hands", (0, 9)), ("twins", 1.5)],
)
def test_impossible_configurations_are_refused(field: str, value: object) -> None:
    with pytest.raises(InvalidValueError, match=field):
        SceneConfig(**{field: value})


def test_a_scene_needs_a_thing() -> None:
    with pytest.raises(InvalidValueError, match=r"distractors: expected 1 or more"):
        SceneConfig(actions=(0, 2), distractors=(0, 3))
    assert SceneConfig(actions=(0, 0), distractors=(1, 1)).distractors == (1, 1)

"""The camera against OpenCV's projection, meshes against closed forms."""

import cv2
import numpy as np
import pytest

from videogem_ros.tabletop.drawing import depth_image
from videogem_ros.tabletop.geometry import (
    UP,
    Camera,
    around,
    circle,
    join,
    limbs,
    prism,
    rectangle,
    shade,
    sheet,
)

HW = (120, 160)


def camera(tilt: float = 1.0, heading: float = 0.4, roll: float = 0.1) -> Camera:
    return Camera.above(np.array([0.05, -0.02, 0.0]), 0.8, tilt, heading, roll, focal=1.1)


@pytest.mark.parametrize("tilt", [0.7, 1.2, np.pi / 2])
def test_projects_as_opencv_does(tilt: float) -> None:
    seen_by = camera(tilt)
    points = np.random.default_rng(0).uniform(-0.2, 0.2, (20, 3))
    turn, _ = cv2.Rodrigues(seen_by.rotation)
    shift = -seen_by.rotation @ seen_by.position
    expected, _ = cv2.projectPoints(points, turn, shift, seen_by.matrix(HW), None)
    pixels, depths = seen_by.project(points, HW)
    np.testing.assert_allclose(pixels, expected[:, 0], atol=1e-8)
    np.testing.assert_allclose(depths, (points @ seen_by.rotation.T + shift)[:, 2])


def test_axes_are_a_right_handed_optical_frame_that_looks_at_its_target() -> None:
    seen_by = camera()
    np.testing.assert_allclose(seen_by.rotation @ seen_by.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(seen_by.rotation) == pytest.approx(1)
    pixel, depth = seen_by.project(np.array([[0.05, -0.02, 0.0]]), HW)
    np.testing.assert_allclose(pixel[0], [(HW[1] - 1) / 2, (HW[0] - 1) / 2], atol=1e-9)
    assert depth[0] == pytest.approx(0.8)


def test_turning_keeps_the_position_and_turns_by_the_angle() -> None:
    seen_by = camera()
    turned = seen_by.turned(np.array([0.0, 0.01, 0.0]))
    np.testing.assert_allclose(turned.rotation @ turned.rotation.T, np.eye(3), atol=1e-12)
    between = turned.rotation @ seen_by.rotation.T
    assert np.arccos((np.trace(between) - 1) / 2) == pytest.approx(0.01, rel=1e-3)


def test_a_place_in_the_image_comes_back_from_the_table() -> None:
    seen_by, places = camera(), np.array([[-0.3, 0.1], [0.2, -0.2], [0.0, 0.0]])
    pixels, _ = seen_by.project(seen_by.on_table(places), HW)
    middle = np.array([(HW[1] - 1) / 2, (HW[0] - 1) / 2])
    np.testing.assert_allclose((pixels - middle) / HW[1], places, atol=1e-9)


def test_rays_go_through_their_pixels() -> None:
    seen_by = camera()
    ends = seen_by.position + 0.5 * seen_by.rays(HW)
    pixels, depths = seen_by.project(ends, HW)
    x, y = np.meshgrid(np.arange(HW[1]), np.arange(HW[0]))
    np.testing.assert_allclose(pixels, np.stack([x, y], axis=-1), atol=1e-6)
    np.testing.assert_allclose(depths, 0.5)


def test_faces_of_a_prism_point_outwards() -> None:
    mesh = prism(circle(0.05, 8), 0.0, 0.1, (10, 20, 30), spread=1.3)
    middles = np.stack(
        [mesh.points[s : s + n].mean(axis=0) for s, n in zip(mesh.starts, mesh.sizes)]
    )
    outwards = middles - mesh.points.mean(axis=0)
    assert (np.sum(outwards * mesh.normals, axis=1) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1)


def test_moving_scales_then_turns_then_shifts() -> None:
    mesh = limbs(np.array([[[1.0, 0, 0], [0, 0, 1]]]), 0.1, (1, 2, 3))
    moved = mesh.moved(around(UP, np.pi / 2), np.array([0.0, 0.0, 1.0]), scale=2.0)
    np.testing.assert_allclose(moved.points, [[0, 2, 1], [0, 0, 3]], atol=1e-12)
    assert moved.radii.tolist() == [0.2]


def test_joined_parts_keep_their_order() -> None:
    both = join(sheet(rectangle(1, 1), 0.2, (9, 9, 9)), limbs(np.zeros((2, 2, 3)), 0.3, (1, 1, 1)))
    assert both.sizes.tolist() == [4, 2, 2]
    assert both.starts.tolist() == [0, 4, 6]
    assert both.radii.tolist() == [0, 0.3, 0.3]


def test_depth_of_the_bare_table_is_that_of_its_plane() -> None:
    seen_by = camera()
    far = sheet(rectangle(1e-4, 1e-4) + 50.0, 0.0, (0, 0, 0))
    depth = depth_image(far, seen_by, HW)
    ends = seen_by.position + depth[..., None] * seen_by.rays(HW)
    np.testing.assert_allclose(ends[..., 2], 0, atol=1e-6)


def test_depth_on_a_box_seen_from_above_is_the_distance_to_its_lid() -> None:
    above = Camera.above(np.zeros(3), 0.8, np.pi / 2, 0.0, 0.0, focal=1.0)
    depth = depth_image(prism(rectangle(0.2, 0.2), 0.0, 0.1, (0, 0, 0)), above, HW)
    assert depth[HW[0] // 2, HW[1] // 2] == pytest.approx(0.7)
    assert depth[0, 0] == pytest.approx(0.8)
    # 0.2 m at 0.7 m and a focal length of 160 pixels
    assert np.sum(depth[HW[0] // 2] < 0.75) == pytest.approx(0.2 / 0.7 * 160, abs=2)


def test_depth_of_a_limb_is_nearer_by_its_radius() -> None:
    above = Camera.above(np.zeros(3), 0.8, np.pi / 2, 0.0, 0.0, focal=1.0)
    rod = limbs(np.array([[[-0.1, 0, 0.2], [0.1, 0, 0.2]]]), 0.03, (0, 0, 0))
    depth = depth_image(rod, above, HW)
    assert depth[HW[0] // 2, HW[1] // 2] == pytest.approx(0.8 - 0.2 - 0.03)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 3.0])
def test_shades_stay_colours(factor: float) -> None:
    assert all(0 <= channel <= 255 for channel in shade((0, 128, 255), factor))

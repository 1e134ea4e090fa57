"""Rays of pixels, against OpenCV's projection of the points that they are of."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from live_graph import camera_info

from videogem_ros.errors import InvalidValueError
from videogem_ros.live.camera import CameraIntrinsics, PositionUnknown, check_view, doubt

HW = (48, 64)
CAMERA = CameraIntrinsics.from_message(camera_info(HW))

HD = (720, 1280)
K = np.array([[610.0, 0, 640], [0, 605, 360], [0, 0, 1]])
LENSES = {
    "plumb_bob": (-0.3, 0.1, 1e-3, -5e-4, 0.0),
    "rational_polynomial": (0.5, -2.8, 1e-3, -3e-4, 1.6, 0.4, -2.6, 1.5),
    "equidistant": (-0.02, 0.01, -0.005, 0.001),
}
POINTS = ((0.35, -0.15, 1.0), (-0.8, 0.4, 1.3), (1.0, 0.55, 1.0), (0.0, 0.0, 2.0))


def wide(model: str = "plumb_bob", **fields: Any) -> Any:
    """CameraInfo of a wide lens in HD; P as a calibration without black borders has it."""
    d = np.array(fields.pop("d", LENSES.get(model, ())))
    if "p" not in fields:
        fields["p"] = undistorted(model, d)
    return camera_info(HD, k=K, d=d, distortion_model=model, **fields)


def undistorted(model: str, d: Any) -> Any:
    """(3, 3) camera matrix of the rectified images, by OpenCV."""
    if model == "equidistant":
        fisheye = cv2.fisheye
        return fisheye.estimateNewCameraMatrixForUndistortRectify(K, d, HD[::-1], np.eye(3))
    return cv2.getOptimalNewCameraMatrix(K, d, HD[::-1], 0.0)[0]


def shown(point: tuple[float, ...], info: Any) -> tuple[float, float]:
    """Where a raw image of the full size shows a point, by OpenCV."""
    functions = cv2.fisheye if info.distortion_model == "equidistant" else cv2
    points = np.array(point).reshape(1, 1, 3)
    pixel, _ = functions.projectPoints(points, np.zeros(3), np.zeros(3), K, info.d)
    x, y = pixel.reshape(2).tolist()
    return x, y


def shown_rectified(point: tuple[float, ...], info: Any) -> tuple[float, float]:
    """The same in a rectified image: P's product with the point."""
    x, y, w = info.p.reshape(3, 4) @ (*point, 1.0)
    return x / w, y / w


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("model", LENSES)
def test_a_point_is_found_in_the_raw_image_and_in_the_rectified_one(
    model: str, point: tuple[float, float, float]
):
    info = wide(model)
    raw = CameraIntrinsics.from_message(info)
    assert raw.at_depth(shown(point, info), point[2]) == pytest.approx(point, abs=1e-5)
    rectified = CameraIntrinsics.from_message(info, rectified=True)
    there = rectified.at_depth(shown_rectified(point, info), point[2])
    assert there == pytest.approx(point, abs=1e-9)


@pytest.mark.parametrize("model", ["plumb_bob", "rational_polynomial"])
@pytest.mark.parametrize("count", [4, 5, 8, 12, 14])
def test_a_lens_may_have_as_many_coefficients_as_opencv_knows(count: int, model: str):
    bends = (*LENSES["rational_polynomial"], 2e-3, -1e-3, 3e-3, 1e-3, 0.02, -0.03)
    d = (LENSES["plumb_bob"] if count < 8 else bends)[:count]
    info = wide(model, d=d)
    for point in POINTS:
        found = CameraIntrinsics.from_message(info).at_depth(shown(point, info), point[2])
        assert found == pytest.approx(point, abs=1e-5)


def test_a_rectified_camera_without_p_is_that_of_k():
    info = wide(p=np.zeros((3, 3)))
    camera = CameraIntrinsics.from_message(info, rectified=True)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (610, 605, 640, 360)


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("resized", [1, 2])
def test_a_binned_part_of_a_bent_image_shows_the_same_point(rectified: bool, resized: int):
    point = (0.35, -0.15, 1.0)
    info = wide(roi=(600, 200, 400, 500), binning=(4, 2))
    x, y = (shown_rectified if rectified else shown)(point, info)
    # Pixels of the part; then four of them in a row, and two in a column, are one.
    x, y = (x - 600 + 0.5) / 4 - 0.5, (y - 200 + 0.5) / 2 - 0.5
    camera = CameraIntrinsics.from_message(info, rectified=rectified)
    assert camera.hw == (200, 125)
    x, y = (x + 0.5) * resized - 0.5, (y + 0.5) * resized - 0.5
    camera = camera.scaled((200 * resized, 125 * resized))
    assert camera.at_depth((x, y), 1.0) == pytest.approx(point, abs=1e-5)


def test_the_second_camera_of_a_pair_is_its_own_origin():
    p = np.hstack([K, [[-610 * 0.12], [0], [0]]])
    camera = CameraIntrinsics.from_message(wide(p=p), rectified=True)
    assert camera.at_depth((640, 360), 1.0) == (0, 0, 1)


def test_zeros_after_the_coefficients_do_not_count():
    longer = wide("equidistant", d=(*LENSES["equidistant"], 0.0), p=K)
    assert CameraIntrinsics.from_message(longer) == CameraIntrinsics.from_message(
        wide("equidistant")
    )
    shorter = CameraIntrinsics.from_message(wide(d=LENSES["plumb_bob"][:4]))
    assert shorter == CameraIntrinsics.from_message(wide())


@pytest.mark.parametrize(
    ("model", "d"), [("plumb_bob", (-0.3, 0, 0, 0, 0)), ("equidistant", (-0.4, 0, 0, 0))]
)
def test_a_pixel_that_the_lens_does_not_reach_has_no_ray(model: str, d: tuple[float, ...]):
    # x (1 - 0.3 x^2) is 0.70 at most, and t (1 - 0.4 t^2) 0.61: 429 and 371 pixels.
    camera = CameraIntrinsics.from_message(wide(model, d=d, p=K))
    with pytest.raises(PositionUnknown, match=f"{model}.* 1279.0, 360.0"):
        camera.at_depth((1279, 360), 1.0)
    assert camera.at_depth((960, 360), 1.0)[0] > 320 / 610


def test_a_pixel_beyond_the_fold_of_a_lens_has_no_ray():
    # x (1 - 0.4 x^2) would show x = 1.94 on the other side of the centre.
    camera = CameraIntrinsics.from_message(wide(d=(-0.4, 0, 0, 0, 0), p=K))
    with pytest.raises(PositionUnknown, match="plumb_bob"):
        camera.at_depth((32, 360), 1.0)


@pytest.mark.parametrize("x", [975, 1100, 1240])
def test_a_pixel_that_a_lens_shows_beyond_its_fold_alone_has_no_ray(x: int):
    # x (1 - 0.25 x^2 + 0.02 x^4) falls from x = 1.3 on, and rises again from 2.4.
    matrix = np.array([400, 0, 640, 0, 400, 360, 0, 0, 1.0])
    info = camera_info(HD, k=matrix, d=np.array([-0.25, 0.02, 0, 0, 0]))
    camera = CameraIntrinsics.from_message(info)
    assert camera.at_depth((960, 360), 1.0)[0] > 320 / 400
    with pytest.raises(PositionUnknown, match="plumb_bob"):
        camera.at_depth((x, 360), 1.0)


STRAIGHT, ODD = np.zeros(5), np.full(3, 0.1)


@pytest.mark.parametrize(
    ("info", "rectified", "said"),
    [
        (wide(), False, ""),
        (wide(), True, ""),
        (wide(p=K), True, "D is not 0, but P is 0 or equals K"),
        (wide(p=np.zeros((3, 3))), True, "D is not 0, but P is 0 or equals K"),
        (wide(p=K), False, ""),
        (wide(d=STRAIGHT, p=K), True, ""),
        (wide("", d=STRAIGHT, p=K), False, ""),
        (wide("thin_prism", d=ODD, p=K), False, "'thin_prism' with 3 coefficients is not known"),
        (wide("equidistant", d=(1, 1, 1, 1, 1), p=K), False, "with 5 coefficients is not known"),
        (wide("thin_prism", d=ODD, p=2 * K), True, ""),
    ],
)
def test_what_is_doubtful_is_said(info: Any, rectified: bool, said: str):
    found = doubt(info, rectified=rectified)
    assert said in found
    assert bool(found) == bool(said)


def test_an_unknown_lens_is_left_out():
    camera = CameraIntrinsics.from_message(wide("thin_prism", d=ODD, p=K))
    assert camera.at_depth((640 + 61, 360), 1.0) == pytest.approx((0.1, 0, 1))


def test_scaled_intrinsics_keep_every_ray():
    half = CAMERA.scaled((24, 32))
    for x, y in ((0, 0), (63, 47), (10.5, 20)):
        # Pixel edges scale: the left edge -0.5 stays the left edge.
        there = half.at_depth(((x + 0.5) / 2 - 0.5, (y + 0.5) / 2 - 0.5), 1.0)
        assert there == pytest.approx(CAMERA.at_depth((x, y), 1.0))
    assert half.scaled(HW).cx == pytest.approx(CAMERA.cx)


def test_a_region_of_interest_moves_the_principal_point():
    whole = CameraIntrinsics.from_message(camera_info())
    part = CameraIntrinsics.from_message(camera_info(roi=(10, 20, 24, 32)))
    assert part.hw == (24, 32)
    assert part.at_depth((0, 0), 1.0) == pytest.approx(whole.at_depth((10, 20), 1.0))


def test_pixels_that_fill_no_bin_are_left_out_and_change_no_ray():
    camera = CameraIntrinsics.from_message(camera_info((49, 67), binning=(4, 2)))
    assert camera.hw == (24, 16)
    # Pixels of 60 and 55 of the sensor's, in fours and in twos; edges scale, not centres.
    assert (camera.fx, camera.fy) == (15.0, 27.5)
    assert (camera.cx, camera.cy) == (31.5 / 4 - 0.5, 25.0 / 2 - 0.5)


def test_a_region_of_interest_may_begin_at_the_corner():
    assert CameraIntrinsics.from_message(camera_info(roi=(0, 0, 24, 32))).hw == (24, 32)


def test_intrinsics_are_not_scaled_to_another_aspect():
    with pytest.raises(InvalidValueError, match=r"camera_info: .*another aspect"):
        CAMERA.scaled((48, 48))


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (camera_info(focal_px=(0, 0)), "fx 0, fy 0"),
        (camera_info(focal_px=(-1, 1)), "fx -1"),
        (camera_info(focal_px=(np.nan, 1)), "fx nan"),
        (camera_info(centre_px=(np.inf, 1)), "cx inf"),
        (camera_info(centre_px=(1, np.inf)), "cy inf"),
        (camera_info(hw=(0, 64)), "image 64x0"),
        (camera_info(d=np.array([np.nan, 0, 0, 0, 0])), "D nan 0 0"),
        (camera_info(binning=(1, 100)), "image 64x48"),
    ],
)
def test_an_uncalibrated_camera_is_refused(message: Any, shown: str):
    with pytest.raises(InvalidValueError, match=f"calibrated camera, got .*{shown}"):
        CameraIntrinsics.from_message(message)


@pytest.mark.parametrize(
    ("hw", "image_hw", "fits"),
    [
        ((480, 640), (240, 320), True),
        ((480, 848), (720, 1280), True),  # of a RealSense, 0.6 % apart
        ((480, 640), (720, 1280), False),
        ((640, 480), (480, 640), False),
        ((720, 1280), (480, 640), False),
        ((480, 656), (480, 640), False),
        ((60, 106), (720, 1280), True),  # twelve times as large, 0.6 % apart
        ((480, 640), (480, 646), True),  # 0.94 % apart
        ((480, 640), (480, 647), False),  # 1.09 %
    ],
)
def test_an_image_of_another_aspect_is_not_the_same_view(
    hw: tuple[int, int], image_hw: tuple[int, int], fits: bool
):
    if fits:
        check_view("depth", hw, image_hw)
    else:
        with pytest.raises(InvalidValueError, match="another aspect"):
            check_view("depth", hw, image_hw)

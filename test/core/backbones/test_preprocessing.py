from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from videogem_ros.core.backbones import preprocessing, viclip
from videogem_ros.core.backbones.preprocessing import (
    OPENAI_MEAN,
    OPENAI_STD,
    Placement,
    Preprocessing,
    normalised,
    place,
    to_source,
    upload,
)

CLIP = Preprocessing(OPENAI_MEAN, OPENAI_STD, "bicubic", antialias=True)
VICLIP = viclip.PREPROCESSING
CPU = torch.device("cpu")

side = st.integers(1, 900)
size = st.tuples(side, side)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Edges, ramps and noise."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    image = np.stack(
        [rows * 255 // height, columns * 255 // width, 255 * ((rows // 7 + columns // 5) % 2)],
        axis=-1,
    )
    noise = generator.integers(-40, 40, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def to_pixels(
    images: Sequence[np.ndarray],
    placement: Placement,
    preprocessing: Preprocessing,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """(T, 3, h, w) network input of images."""
    return normalised(upload(images, device), placement, preprocessing, dtype)


def levels(pixels: Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """(T, 3, h, w) network input back to (T, h, w, 3) levels in [0, 255]."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    return (255 * (pixels.float() * std + mean)).permute(0, 2, 3, 1).numpy()


def stretched(image: np.ndarray, hw: tuple[int, int], preprocessing: Preprocessing) -> np.ndarray:
    placement = place(image.shape[:2], hw, "stretch")
    return levels(to_pixels([image], placement, preprocessing, CPU, torch.float32), preprocessing)[
        0
    ]


@pytest.mark.parametrize("image_hw", [(480, 640), (1080, 1920), (240, 320)], ids=str)
def test_clip_stretch_to_448_is_torchvisions_resize_of_a_pillow_image(
    image_hw: tuple[int, int],
) -> None:
    image = picture(*image_hw)
    reference = transforms.resize(
        Image.fromarray(image), [448, 448], InterpolationMode.BICUBIC, antialias=True
    )
    off = np.abs(stretched(image, (448, 448), CLIP) - np.asarray(reference, dtype=float))
    assert (off > 1.001).mean() < 1e-5


SIZES = [(480, 640), (1080, 1920), (200, 150), (37, 53), (448, 448), (64, 64), (720, 448)]


@pytest.mark.parametrize("image_hw", SIZES, ids=str)
@pytest.mark.parametrize("input_hw", [(448, 448), (96, 128)], ids=str)
def test_clip_stretch_is_pillows_bicubic_within_a_level(
    image_hw: tuple[int, int], input_hw: tuple[int, int]
) -> None:
    image = picture(*image_hw)
    found = stretched(image, input_hw, CLIP)
    # Across, then down: the order of every Pillow for these sizes but of the newest for some.
    across = Image.fromarray(image).resize((input_hw[1], image_hw[0]), Image.Resampling.BICUBIC)
    pillow = across.resize(input_hw[::-1], Image.Resampling.BICUBIC)
    off = np.abs(found - np.asarray(pillow, dtype=float))
    # Pillow's weights have a fixed point; where both axes round the other way, it is two levels.
    assert (off > 1.001).mean() < 1e-5
    assert off.max() < 2.001


@pytest.mark.parametrize("image_hw", SIZES, ids=str)
@pytest.mark.parametrize("input_hw", [(224, 224), (96, 128)], ids=str)
def test_viclip_stretch_is_opencvs_bilinear_within_a_level(
    image_hw: tuple[int, int], input_hw: tuple[int, int]
) -> None:
    image = picture(*image_hw)
    found = stretched(image, input_hw, VICLIP)
    reference = cv2.resize(image, input_hw[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(found - reference.astype(float)).max() <= 1.001


@pytest.mark.parametrize("preprocessing", [CLIP, VICLIP], ids=["clip", "viclip"])
def test_an_image_of_the_networks_size_is_only_normalised(preprocessing: Preprocessing) -> None:
    image = picture(48, 64)
    placement = place((48, 64), (48, 64), "stretch")
    pixels = to_pixels([image], placement, preprocessing, CPU, torch.float32)[0]
    for channel in range(3):
        expected = (image[..., channel] / 255 - preprocessing.mean[channel]) / preprocessing.std[
            channel
        ]
        assert np.allclose(pixels[channel].numpy(), expected, atol=1e-6)


def test_frames_are_prepared_each_on_its_own() -> None:
    images = [picture(60, 80, seed) for seed in range(3)]
    placement = place((60, 80), (48, 48), "letterbox")
    together = to_pixels(images, placement, CLIP, CPU, torch.float32)
    for index, image in enumerate(images):
        alone = to_pixels([image], placement, CLIP, CPU, torch.float32)
        assert torch.equal(together[index], alone[0])


def test_a_read_only_frame_is_neither_changed_nor_refused() -> None:
    image = picture(30, 40)
    image.setflags(write=False)
    before = image.copy()
    to_pixels([image], place((30, 40), (48, 48), "stretch"), CLIP, CPU, torch.float32)
    assert np.array_equal(image, before)


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "read-only": lambda image: np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape),
    "padded rows": lambda image: np.pad(image, ((0, 0), (0, 5), (0, 0)))[:, :-5],
    "read-only padded rows": lambda image: LAYOUTS["read-only"](
        np.pad(image, ((0, 0), (0, 5), (0, 0)))
    )[:, :-5],
    "channels reversed": lambda image: image[..., ::-1].copy()[..., ::-1],
    "upside down": lambda image: image[::-1].copy()[::-1],
    "every other": lambda image: np.kron(image, np.ones((2, 2, 1), np.uint8))[::2, ::2],
    "planes": lambda image: image.transpose(2, 0, 1).copy().transpose(1, 2, 0),
    "column by column": np.asfortranarray,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("hw", [(48, 48), (30, 40)], ids=["resized", "as it is"])
@pytest.mark.filterwarnings("error")
def test_an_image_may_lie_in_memory_in_any_way(
    layout: str, count: int, hw: tuple[int, int]
) -> None:
    images = [picture(30, 40, seed) for seed in range(count)]
    lying = [LAYOUTS[layout](image) for image in images]
    placement = place((30, 40), hw, "stretch")
    found = to_pixels(lying, placement, CLIP, CPU, torch.float32)
    assert torch.equal(found, to_pixels(images, placement, CLIP, CPU, torch.float32))
    for image, there in zip(images, lying):
        assert np.array_equal(image, there)


@pytest.mark.parametrize(("hw", "axis"), [((1, 40), 0), ((30, 1), 1)], ids=["row", "column"])
def test_a_single_row_or_column_may_run_backwards(hw: tuple[int, int], axis: int) -> None:
    image, placement = picture(*hw), place(hw, (32, 32), "letterbox")
    backwards = np.flip(np.flip(image, axis).copy(), axis)
    found = to_pixels([backwards], placement, CLIP, CPU, torch.float32)
    assert torch.equal(found, to_pixels([image], placement, CLIP, CPU, torch.float32))


@pytest.mark.parametrize("read_only", [False, True])
def test_one_image_is_read_where_it_is(read_only: bool) -> None:
    image = picture(30, 40)
    image.setflags(write=not read_only)
    (uploaded,) = preprocessing.upload([image], CPU)
    assert uploaded.data_ptr() == image.ctypes.data
    pixels = to_pixels([image], place((30, 40), (30, 40), "stretch"), CLIP, CPU, torch.float32)
    before = pixels.clone()
    image.setflags(write=True)
    image[:] = 0  # by a driver that fills the same memory again
    assert torch.equal(pixels, before)


def test_memory_that_is_read_lives_as_long_as_its_tensor() -> None:
    image = picture(30, 40)
    image.setflags(write=False)
    alive = weakref.ref(image)
    expected = image.copy()
    (uploaded,) = preprocessing.upload([image], CPU)
    del image
    gc.collect()
    assert alive() is not None
    assert np.array_equal(uploaded.numpy(), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", [CLIP, VICLIP], ids=["clip", "viclip"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_gpu_prepares_images_as_the_cpu_does(kind: Preprocessing, count: int) -> None:
    images = [picture(90, 120, seed) for seed in range(count)]
    placement = place((90, 120), (48, 64), "letterbox")
    on_cpu = to_pixels(images, placement, kind, CPU, torch.float32)
    cuda = torch.device("cuda")
    found = to_pixels(images, placement, kind, cuda, torch.float32)
    for image in images:
        image[:] = 0  # what was handed over is there already, or copied
    off = np.abs(levels(found.cpu(), kind) - levels(on_cpu, kind))
    assert off.max() < 1.001  # a value near a half may round the other way
    assert (off > 1e-3).mean() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_result_has_the_dtype_of_the_tower(dtype: torch.dtype) -> None:
    placement = place((30, 40), (48, 48), "stretch")
    assert to_pixels([picture(30, 40)], placement, CLIP, CPU, dtype).dtype == dtype


# Where things lie.


@given(size, size)
def test_a_letterbox_keeps_the_aspect_and_touches_two_sides(
    image_hw: tuple[int, int], input_hw: tuple[int, int]
) -> None:
    placement = place(image_hw, input_hw, "letterbox")
    (height, width), (rows, columns) = input_hw, placement.content_hw
    assert rows == height or columns == width
    assert 1 <= rows <= height
    assert 1 <= columns <= width
    scale = min(height / image_hw[0], width / image_hw[1])
    assert abs(rows - image_hw[0] * scale) <= 0.5 or rows == 1
    assert abs(columns - image_hw[1] * scale) <= 0.5 or columns == 1
    # Centred, the odd row or column at the far side.
    assert 0 <= (height - rows - placement.top) - placement.top <= 1
    assert 0 <= (width - columns - placement.left) - placement.left <= 1


@given(size, size)
def test_stretching_fills_the_input(image_hw: tuple[int, int], input_hw: tuple[int, int]) -> None:
    assert place(image_hw, input_hw, "stretch") == Placement(input_hw, 0, 0, input_hw)


@given(size, size, st.sampled_from(["stretch", "letterbox"]))
def test_corners_of_the_content_are_corners_of_the_image(
    image_hw: tuple[int, int], input_hw: tuple[int, int], resize: str
) -> None:
    rows, columns = place(image_hw, input_hw, resize).content_hw
    height, width = image_hw
    assert to_source(-0.5, -0.5, (rows, columns), image_hw) == pytest.approx((-0.5, -0.5))
    far = to_source(columns - 0.5, rows - 0.5, (rows, columns), image_hw)
    assert far == pytest.approx((width - 0.5, height - 0.5))
    middle = to_source((columns - 1) / 2, (rows - 1) / 2, (rows, columns), image_hw)
    assert middle == pytest.approx(((width - 1) / 2, (height - 1) / 2))


@given(size, st.tuples(st.floats(0, 1), st.floats(0, 1)), size)
def test_a_source_pixel_comes_back_at_that_pixel(
    image_hw: tuple[int, int], part: tuple[float, float], input_hw: tuple[int, int]
) -> None:
    content_hw = place(image_hw, input_hw, "letterbox").content_hw
    x, y = part[0] * (image_hw[1] - 1), part[1] * (image_hw[0] - 1)
    inside = [
        (place_ + 0.5) * content / source - 0.5
        for place_, content, source in zip((x, y), content_hw[::-1], image_hw[::-1])
    ]
    assert to_source(*inside, content_hw, image_hw) == pytest.approx((x, y), abs=1e-9)


@given(size, st.integers(0, 10**6), st.integers(0, 10**6))
def test_points_of_a_source_of_the_networks_size_stay_whole(
    hw: tuple[int, int], x: int, y: int
) -> None:
    x, y = x % hw[1], y % hw[0]
    assert to_source(x, y, hw, hw) == (x, y)  # to the bit


@settings(max_examples=60)
@given(
    image_hw=st.tuples(st.integers(40, 400), st.integers(40, 400)),
    part=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
    resize=st.sampled_from(["stretch", "letterbox"]),
    kind=st.sampled_from([CLIP, VICLIP]),
)
def test_a_dot_in_the_source_is_found_at_its_pixel(
    image_hw: tuple[int, int], part: tuple[float, float], resize: str, kind: Preprocessing
) -> None:
    """Through the pixels themselves: the dot's centre of mass in the input, taken back."""
    x, y = part[0] * (image_hw[1] - 1), part[1] * (image_hw[0] - 1)
    rows, columns = np.mgrid[: image_hw[0], : image_hw[1]]
    radius = [0.05 * side for side in image_hw]
    dot = np.exp(-(((rows - y) / radius[0]) ** 2 + ((columns - x) / radius[1]) ** 2) / 2)
    image = np.repeat((250 * dot).astype(np.uint8)[..., None], 3, axis=2)
    smooth = replace(kind, antialias=True)
    placement = place(image_hw, (112, 112), resize)
    found = levels(to_pixels([image], placement, smooth, CPU, torch.float32), smooth)[0, ..., 0]
    content = found[
        placement.top : placement.top + placement.content_hw[0],
        placement.left : placement.left + placement.content_hw[1],
    ]
    mass = np.clip(content, 0, None)
    down, across = np.mgrid[: content.shape[0], : content.shape[1]]
    centre = ((mass * across).sum() / mass.sum(), (mass * down).sum() / mass.sum())
    back = to_source(*centre, placement.content_hw, image_hw)
    step = [max(1.0, s / c) for s, c in zip(image_hw[::-1], placement.content_hw[::-1])]
    assert abs(back[0] - x) <= 0.25 * step[0]
    assert abs(back[1] - y) <= 0.25 * step[1]


@given(image_hw=st.tuples(st.integers(1, 200), st.integers(1, 200)))
def test_padding_is_the_mean_colour_and_content_keeps_out_of_it(
    image_hw: tuple[int, int],
) -> None:
    placement = place(image_hw, (48, 64), "letterbox")
    white = np.full((*image_hw, 3), 255, np.uint8)
    pixels = to_pixels([white], placement, CLIP, CPU, torch.float32)
    content = placement.crop(pixels)
    assert tuple(content.shape[-2:]) == placement.content_hw
    expected = [(1 - mean) / std for mean, std in zip(OPENAI_MEAN, OPENAI_STD)]
    for channel in range(3):
        assert torch.allclose(content[0, channel], torch.tensor(expected[channel]), atol=1e-5)
    assert int((pixels == 0).sum()) == pixels.numel() - content.numel()

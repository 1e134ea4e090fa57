"""From RGB frames to the network's input, and from its pixels back to the source image's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from videogem_ros.core.acceleration import constant


@dataclass(frozen=True)
class Preprocessing:
    """A backbone's resampling filter and normalisation.

    Attributes:
        mean: Mean of the RGB channels, in [0, 1].
        std: Standard deviation of the RGB channels.
        interpolation: "bicubic" or "bilinear".
        antialias: Whether the filter widens when it shrinks an image, as Pillow's does and
            OpenCV's does not.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    antialias: bool


OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
OPENAI_PREPROCESSING = Preprocessing(OPENAI_MEAN, OPENAI_STD, "bicubic", antialias=True)


@dataclass(frozen=True)
class Placement:
    """Where a source image lies in the network's input.

    Attributes:
        input_hw: Height and width of the network's input in pixels.
        top: First row of the image's content.
        left: First column of the image's content.
        content_hw: Height and width of the content; the rest is padding.
    """

    input_hw: tuple[int, int]
    top: int
    left: int
    content_hw: tuple[int, int]

    def crop(self, maps: Tensor) -> Tensor:
        """(..., input_h, input_w) to (..., content_h, content_w)."""
        height, width = self.content_hw
        return maps[..., self.top : self.top + height, self.left : self.left + width]


def place(image_hw: tuple[int, int], input_hw: tuple[int, int], resize: str) -> Placement:
    """Where an image goes in the network's input.

    Args:
        image_hw: Source height and width in pixels.
        input_hw: Network height and width in pixels.
        resize: "stretch" fills the input; "letterbox" keeps the aspect ratio (to whole pixels) and
            centres the image.

    Returns:
        The placement.
    """
    if resize == "stretch":
        return Placement(input_hw, 0, 0, input_hw)
    scale = min(input_hw[0] / image_hw[0], input_hw[1] / image_hw[1])
    height, width = (max(1, round(side * scale)) for side in image_hw)
    return Placement(
        input_hw, (input_hw[0] - height) // 2, (input_hw[1] - width) // 2, (height, width)
    )


def to_source(
    x: float, y: float, content_hw: tuple[int, int], image_hw: tuple[int, int]
) -> tuple[float, float]:
    """Map a pixel of the content to the source image.

    Both coordinates are 0 at the centre of the top left pixel, and edges map to edges:
    x_source = (x + 1/2) W / w - 1/2.

    Args:
        x: Column in the content.
        y: Row in the content.
        content_hw: Height and width of the content.
        image_hw: Height and width of the source image.

    Returns:
        x and y in source pixels.
    """
    return (
        (x + 0.5) * image_hw[1] / content_hw[1] - 0.5,
        (y + 0.5) * image_hw[0] / content_hw[0] - 0.5,
    )


def normalised(
    levels: Tensor, placement: Placement, preprocessing: Preprocessing, dtype: torch.dtype
) -> Tensor:
    """Resample, round to whole levels as image libraries do, and normalise.

    Can be recorded as a CUDA graph.

    Args:
        levels: (T, H, W, 3) uint8 RGB of :func:`upload`.
        placement: Where they go; the padding is the mean colour, which is zero after normalising.
        preprocessing: Filter, mean and standard deviation.
        dtype: Dtype of the result.

    Returns:
        (T, 3, input_h, input_w) on the levels' device; shares no memory with them.
    """
    device, levels = levels.device, levels.permute(0, 3, 1, 2)
    # One memory layout for all, so that results do not depend on the images' own or on the batch.
    x = levels.to(torch.float32, memory_format=torch.channels_last)
    height, width = placement.content_hw
    if tuple(x.shape[-2:]) != placement.content_hw:
        # Pillow resizes across, then down, in whole levels each time: bicubic overshoot at an edge
        # is clipped twice. OpenCV's bilinear filter rounds once.
        across_first = [(x.shape[-2], width)] if preprocessing.antialias else []
        for size in (*across_first, (height, width)):
            x = F.interpolate(
                x,
                size=size,
                mode=preprocessing.interpolation,
                align_corners=False,
                antialias=preprocessing.antialias,
            )
            x = x.round_().clamp_(0, 255)
    mean, std = (
        constant(numbers, device).view(3, 1, 1)
        for numbers in (preprocessing.mean, preprocessing.std)
    )
    x = (x / 255 - mean) / std
    right = placement.input_hw[1] - placement.left - width
    bottom = placement.input_hw[0] - placement.top - height
    padding = (placement.left, right, placement.top, bottom)
    return (F.pad(x, padding) if any(padding) else x).to(dtype)


def upload(images: Sequence[npt.NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Images of one size on a device; to a GPU through page-locked memory, without waiting.

    Args:
        images: T images (H, W, 3) uint8 of one size, in any layout; read-only views are fine.
        device: The device.

    Returns:
        (T, H, W, 3) uint8; on a CPU the memory of a single image itself.
    """
    if device.type == "cuda":
        shape = (len(images), *images[0].shape)
        locked = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        for place, image in zip(locked, images):
            place.copy_(_as_tensor(image))
        return locked.to(device, non_blocking=True)
    if len(images) == 1:
        return _as_tensor(images[0])[None].to(device)
    return torch.from_numpy(np.stack(images)).to(device)


class _Writable:
    """Presents a read-only array as writable, as torch would warn; nothing here writes to it."""

    def __init__(self, array: npt.NDArray[np.uint8]) -> None:
        interface = array.__array_interface__
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}
        self.array = array  # keeps its memory alive


def _as_tensor(image: npt.NDArray[np.uint8]) -> Tensor:
    """An image's memory as a tensor to read; a copy where strides are negative."""
    if min(image.strides) < 0:
        # NumPy takes one row or column for contiguous, whichever way it runs.
        return torch.from_numpy(image.copy(order="C"))
    return torch.from_numpy(image if image.flags.writeable else np.asarray(_Writable(image)))

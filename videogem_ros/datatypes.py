"""What flows through the package: frames in, groundings out.

Frozen, validated dataclasses without behaviour of their own beyond what follows from their fields.
Images are RGB, points are pixels of the source image (x right, y down, the centre of the top left
pixel is (0, 0)), times are header stamps in nanoseconds.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from videogem_ros.errors import InvalidValueError, check_type

if TYPE_CHECKING:
    from torch import Tensor

PROMPT_KINDS = ("verb", "object", "action")
"""The three prompts of the decomposition, in the order of every K axis."""


def describe_array(value: object) -> str:
    """Shape and dtype of an array, or the type of anything else, for error messages."""
    if isinstance(value, np.ndarray):
        return f"array of shape {value.shape} and dtype {value.dtype}"
    return type(value).__name__


@dataclass(frozen=True, eq=False)
class Frame:
    """One camera image with its header.

    Attributes:
        image: RGB, (H, W, 3) uint8; a read-only view is fine.
        stamp_ns: Header stamp, nanoseconds, not negative.
        frame_id: The camera's optical frame (REP-103), may be empty.

    Raises:
        InvalidValueError: The image is not a non-empty (H, W, 3) uint8 array, or the stamp is
            negative or not a whole number.
    """

    image: npt.NDArray[np.uint8]
    stamp_ns: int
    frame_id: str = ""

    def __post_init__(self) -> None:
        image = self.image
        if (
            not isinstance(image, np.ndarray)
            or image.dtype != np.uint8
            or image.ndim != 3
            or image.shape[2] != 3
            or image.size == 0
        ):
            raise InvalidValueError(
                "frame.image", "a non-empty (H, W, 3) uint8 RGB array", describe_array(image)
            )
        try:
            stamp_ns = operator.index(self.stamp_ns)
        except TypeError:
            stamp_ns = -1
        if stamp_ns < 0:
            raise InvalidValueError(
                "frame.stamp_ns", "whole nanoseconds, zero or more", self.stamp_ns
            )
        object.__setattr__(self, "stamp_ns", stamp_ns)

    @property
    def hw(self) -> tuple[int, int]:
        """Image height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True, eq=False)
class Window:
    """The T frames that are grounded together, oldest first.

    A frame may occur in a window more than once: before T frames have arrived, the oldest one
    fills the empty slots.

    Attributes:
        frames: T frames of one size, stamps not decreasing.

    Raises:
        InvalidValueError: No frames, frames of different sizes, or decreasing stamps.
    """

    frames: tuple[Frame, ...]

    def __post_init__(self) -> None:
        check_type("window.frames", self.frames, Iterable, "Frame objects")
        object.__setattr__(self, "frames", tuple(self.frames))
        if not self.frames:
            raise InvalidValueError("window.frames", "at least one frame", "none")
        for frame in self.frames:
            check_type("window.frames", frame, Frame, "Frame objects")
        sizes = {frame.hw for frame in self.frames}
        if len(sizes) > 1:
            raise InvalidValueError(
                "window.frames", "frames of one size", f"sizes (H, W) {sorted(sizes)}"
            )
        stamps = self.stamps_ns
        if any(later < earlier for earlier, later in itertools.pairwise(stamps)):
            raise InvalidValueError("window.frames", "stamps that do not decrease", stamps)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def stamps_ns(self) -> tuple[int, ...]:
        """Header stamps of the T frames, nanoseconds."""
        return tuple(frame.stamp_ns for frame in self.frames)

    @property
    def newest(self) -> Frame:
        """The last frame of the window."""
        return self.frames[-1]

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of every frame in pixels."""
        return self.frames[0].hw


@dataclass(frozen=True)
class Action:
    """One action, decomposed.

    Attributes:
        text: What the user said, whole and unchanged.
        phrase: The action as the action template takes it: lower case, without punctuation,
            "please" or "still" ("pour the milk", "pick up the red mug").
        verb: The verb as the verb template takes it, with its particle ("pour", "pick up"); None
            where the text has no verb.
        verb_lemma: The head verb's lemma alone ("pick"); None where there is no verb.
        object: The object phrase without its determiner ("red mug"); None where there is none.
        object_head: Lemma of the object phrase's head noun ("mug"); None where there is none.

    Raises:
        InvalidValueError: Text or phrase is empty.
    """

    text: str
    phrase: str
    verb: str | None = None
    verb_lemma: str | None = None
    object: str | None = None
    object_head: str | None = None

    def __post_init__(self) -> None:
        for name in ("text", "phrase"):
            if not getattr(self, name).strip():
                raise InvalidValueError(f"action.{name}", "words", "an empty text")


@dataclass(frozen=True)
class Prompts:
    """The texts that an action is grounded with.

    Attributes:
        verb: Verb prompt, "A photo of a person pour something."
        object: Object prompt, "A photo of a person using milk."
        action: Action prompt, "A photo of a person pour the milk."
    """

    verb: str
    object: str
    action: str

    @property
    def texts(self) -> tuple[str, str, str]:
        """The three texts in the order of :data:`PROMPT_KINDS`."""
        return self.verb, self.object, self.action


@dataclass(frozen=True, eq=False)
class Features:
    """What the encoder computes for the chosen frames of one window, before any layer weighting.

    Attributes:
        patch_terms: (F, L, N, D), the encoder's dtype: s_0 ... s_K of the N = grid_h * grid_w
            patch tokens of each chosen frame, row by row.
        class_terms: (F, L, D) float32: c_0 ... c_K, the class token before the first of the K
            blocks and what each block added to it. A video backbone has one class token per
            window, so its values are the same for every frame.
        grid_hw: Rows and columns of patches.
        frames: Indices of the F chosen frames in the window (0 is the oldest).

    Raises:
        InvalidValueError: The shapes do not match.
    """

    patch_terms: Tensor
    class_terms: Tensor
    grid_hw: tuple[int, int]
    frames: tuple[int, ...]

    def __post_init__(self) -> None:
        terms, classes = self.patch_terms, self.class_terms
        expected = (
            len(self.frames),
            classes.shape[1],
            self.grid_hw[0] * self.grid_hw[1],
            classes.shape[2],
        )
        if tuple(terms.shape) != expected or classes.shape[0] != len(self.frames):
            raise InvalidValueError(
                "features.patch_terms",
                f"shape (F, L, N, D) = {expected}",
                f"{tuple(terms.shape)} beside class_terms {tuple(classes.shape)}",
            )


@dataclass(frozen=True, eq=False)
class Heatmap:
    """Where in one frame a prompt's action is.

    Attributes:
        values: (h, w) float32 in [0, 1], at the resolution of the network's input; covers exactly
            the source image (the padding of a letterboxed input is cut off).
        image_hw: Height and width of the source image in pixels.

    Raises:
        InvalidValueError: The values are not a two-dimensional float32 array.
    """

    values: npt.NDArray[np.float32]
    image_hw: tuple[int, int]

    def __post_init__(self) -> None:
        values = self.values
        if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype != np.float32:
            raise InvalidValueError(
                "heatmap.values", "a (h, w) float32 array", describe_array(values)
            )

    def to_image(self, hw: tuple[int, int] | None = None) -> npt.NDArray[np.float32]:
        """The heatmap resampled bilinearly to the source image's pixels.

        Args:
            hw: Another height and width to resample to, say half the source's.

        Returns:
            (H, W) float32 in [0, 1]; at the source's size, pixel (x, y) is that of the image.
        """
        import cv2  # noqa: PLC0415 - only who asks for pixels needs OpenCV

        height, width = hw or self.image_hw
        if (height, width) == self.values.shape:
            return self.values
        resized = cv2.resize(self.values, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(resized, dtype=np.float32)


@dataclass(frozen=True)
class Point:
    """A grounded point in the source image.

    Attributes:
        x: Pixels from the left, in [-0.5, W - 0.5]; the centre of the first column is 0.
        y: Pixels from the top, in [-0.5, H - 0.5]; the centre of the first row is 0.
        similarity: Cosine similarity in [-1, 1] of the features there with the prompt's text; for
            a fused point the mean over the three prompts with the fusion's weights.
    """

    x: float
    y: float
    similarity: float


@dataclass(frozen=True, eq=False)
class Grounding:
    """Where one action is in one frame of a window.

    Attributes:
        action: The action that was asked for.
        prompts: The texts it was grounded with.
        frame_index: Index of the grounded frame in the window (0 is the oldest).
        stamp_ns: Header stamp of the grounded frame, nanoseconds.
        frame_id: Optical frame of the grounded frame.
        image_hw: Height and width of the source image in pixels.
        window_start_ns: Stamp of the window's oldest frame.
        window_end_ns: Stamp of the window's newest frame.
        frames_used: Number of frames with different stamps in the window.
        points: Points by "verb", "object", "action" and "fused", in source pixels.
        heatmaps: Heatmaps by the same names; the fused one is the prompts' mean with the fusion's
            weights.
        layer_weights: (K, L) float32, prompts in the order of :data:`PROMPT_KINDS`.
        prompt_probabilities: (K,) float32, softmax over the three prompts of 100 x cosine of
            class token and text.
        score: Presence score in [0, 1]: how much better the class token fits the action prompt
            than the neutral prompts; see :mod:`videogem_ros.core.presence`.
        present: Whether the score reaches the configured threshold. Where it does not, the points
            are where the action would be if it were there.
    """

    action: Action
    prompts: Prompts
    frame_index: int
    stamp_ns: int
    frame_id: str
    image_hw: tuple[int, int]
    window_start_ns: int
    window_end_ns: int
    frames_used: int
    points: Mapping[str, Point]
    heatmaps: Mapping[str, Heatmap]
    layer_weights: npt.NDArray[np.float32]
    prompt_probabilities: npt.NDArray[np.float32]
    score: float
    present: bool

    @property
    def point(self) -> Point:
        """The fused point: the answer."""
        return self.points["fused"]

    @property
    def heatmap(self) -> Heatmap:
        """The fused heatmap."""
        return self.heatmaps["fused"]

    @cached_property
    def agreement(self) -> float:
        """Fused heatmap's value at the fused point, in [0, 1]: 1 where all prompts peak there."""
        values = self.heatmap.values
        rows, columns = values.shape
        height, width = self.image_hw
        row = int((self.point.y + 0.5) * rows / height)
        column = int((self.point.x + 0.5) * columns / width)
        return float(values[min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)])

    def to_json(self) -> dict[str, Any]:
        """The grounding without its heatmaps, of plain numbers, strings, lists and dicts."""
        return {
            "action": self.action.text,
            "verb": self.action.verb,
            "object": self.action.object,
            "prompts": dict(zip(PROMPT_KINDS, self.prompts.texts)),
            "stamp_ns": self.stamp_ns,
            "frame_id": self.frame_id,
            "frame_index": self.frame_index,
            "image_hw": list(self.image_hw),
            "window_start_ns": self.window_start_ns,
            "window_end_ns": self.window_end_ns,
            "frames_used": self.frames_used,
            "points": {
                name: {"x": point.x, "y": point.y, "similarity": point.similarity}
                for name, point in self.points.items()
            },
            "prompt_probabilities": _floats(self.prompt_probabilities),
            "layer_weights": [_floats(row) for row in self.layer_weights],
            "score": self.score,
            "present": self.present,
        }


def _floats(values: Sequence[float] | npt.NDArray[np.float32]) -> list[float]:
    return [float(value) for value in values]

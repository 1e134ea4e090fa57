"""Videos and images that show their frame number, and annotation files of data sets."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

BITS = 12
HW = (48, 96)


def numbered_image(number: int, hw: tuple[int, int] = HW) -> npt.NDArray[np.uint8]:
    """The number's bits as vertical stripes, white for one; survives lossy coding."""
    bits = [number >> bit & 1 for bit in range(BITS)]
    columns = np.arange(hw[1]) * BITS // hw[1]
    row = np.array(bits, np.uint8)[columns] * 255
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (*hw, 3)))


def number_in(image: npt.NDArray[np.uint8]) -> int:
    """The number that an image shows."""
    middles = (np.arange(BITS) * 2 + 1) * image.shape[1] // (2 * BITS)
    return sum(1 << bit for bit, x in enumerate(middles) if image[:, x].mean() > 128)


def write_video(
    path: Path,
    times_s: Sequence[float],
    *,
    codec: str = "libx264",
    hw: tuple[int, int] = HW,
    options: dict[str, str] | None = None,
) -> Path:
    """A video of numbered frames, shown from the given times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_base = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        fast = {"preset": "ultrafast"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=25, options={**fast, **(options or {})})
        stream.height, stream.width = hw
        stream.pix_fmt = {"ffv1": "bgr0", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        if codec != "mjpeg" and path.suffix != ".avi":
            stream.codec_context.time_base = time_base
        for number, time_s in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(numbered_image(number, hw), format="rgb24")
            base = stream.codec_context.time_base or time_base
            frame.pts, frame.time_base = round(Fraction(time_s) / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_images(folder: Path, names: dict[str, int], hw: tuple[int, int] = HW) -> Path:
    """Images of numbers, by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, number in names.items():
        assert cv2.imwrite(str(folder / name), numbered_image(number, hw))
    return folder


def regular(count: int, rate: float) -> list[float]:
    """Times of frames at a constant rate."""
    return [number / rate for number in range(count)]


def write_grounding_youtube(root: Path, annotations: dict[str, list[dict[str, Any]]]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "box_anno.json").write_text(json.dumps(annotations))


def write_vhico(root: Path, classes: dict[str, Any], protocol: int = 2) -> None:
    root.mkdir(parents=True, exist_ok=True)
    content = {"annos": classes}
    (root / "gt_bbox_test.json").write_bytes(pickle.dumps(content, protocol=protocol))


def vhico_frame(number: int, label: str = "throwing ball", **fields: Any) -> dict[str, Any]:
    return {
        "label": label,
        "path": f"test/throwing/clip.mp4/{number}.jpg",
        "human": [[10, 20, 40, 50]],
        "object": [[30, 5, 60, 25], [50, 30, 70, 60]],
        "height": 100,
        "width": 200,
        **fields,
    }


def write_daly(root: Path, videos: dict[str, dict[str, Any]], test: Sequence[str] = ()) -> None:
    root.mkdir(parents=True, exist_ok=True)
    content = {"annot": {name: {"annot": actions} for name, actions in videos.items()}}
    content["splits"] = [list(test)]
    (root / "daly1.1.0.pkl").write_bytes(pickle.dumps(content, protocol=2))


def daly_keyframe(time_s: float, number: int, box: Sequence[float] = (0.25, 0.5, 0.5, 1)) -> Any:
    return {
        "time": np.float64(time_s),
        "frameNumber": np.int64(number),
        "boundingBox": np.array([box], dtype=np.float32),
    }


def write_youcook(
    root: Path,
    boxes: dict[str, Any],
    segments: Any,
    sentences: dict[str, list[tuple[Sequence[int], str]]],
) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "final_dataset_annotations.pkl").write_bytes(pickle.dumps(boxes))
    (root / "final_dataset_segments.pkl").write_bytes(pickle.dumps(segments))
    database = {
        video: {"annotations": [{"segment": s, "sentence": text} for s, text in entries]}
        for video, entries in sentences.items()
    }
    youcook = json.dumps({"database": database})
    (root / "youcookii_annotations_trainval.json").write_text(youcook)

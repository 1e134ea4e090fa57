"""Image messages to RGB arrays and back, with NumPy, OpenCV and Pillow alone.

Works on the plain fields of ``sensor_msgs/Image`` and ``sensor_msgs/CompressedImage`` and, duck
typed, on the messages of rclpy, rosbags or a DDS binding. Encodings have the names of
``sensor_msgs/image_encodings.hpp``. What cannot be converted raises EncodingError.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from videogem_ros.datatypes import Frame, describe_array
from videogem_ros.errors import EncodingError

MAX_COMPRESSED_PX = 2**26
"""Most pixels of a compressed image: 8192 x 8192, twice those of an 8K video frame."""

_Array = npt.NDArray[Any]
_Converter = Callable[[_Array], _Array]


@dataclass(frozen=True)
class _Layout:
    """How an encoding's pixels lie in memory, and what makes RGB (or metres) of them.

    Attributes:
        channels: Samples per pixel, in rows of ``width`` pixels.
        convert: From (rows, width, channels) samples, of 8 bits for RGB, to the image.
        sample: NumPy type of a sample, without its byte order.
        rows: Rows in memory per row of the image, as numerator and denominator: planar encodings
            store chroma below luma.
        multiple_hw: Height and width must be multiples of these.
        least_px: Least height and width that can be converted.
    """

    channels: int
    convert: _Converter
    sample: str = "u1"
    rows: tuple[int, int] = (1, 1)
    multiple_hw: tuple[int, int] = (1, 1)
    least_px: int = 1


def _opencv(code: int) -> _Converter:
    return lambda image: np.asarray(cv2.cvtColor(image, code))


def _as_is(image: _Array) -> _Array:
    return image


def _nv21_to_rgb(planes: _Array) -> _Array:
    # (H * 3/2, W): full luma, then rows of alternating V and U at half the resolution.
    height = planes.shape[0] * 2 // 3
    luma, chroma = planes[:height, :, 0], planes[height:, :, 0].reshape(height // 2, -1, 2)
    return np.asarray(cv2.cvtColorTwoPlane(luma, chroma, cv2.COLOR_YUV2RGB_NV21))


def _nv24_to_rgb(planes: _Array) -> _Array:
    # (H * 3, W): full luma, then rows of alternating U and V at full resolution. OpenCV knows two
    # planes with chroma at half the resolution only: double the luma to suit, halve the result.
    height = planes.shape[0] // 3
    luma, chroma = planes[:height, :, 0], planes[height:, :, 0].reshape(height, -1, 2)
    doubled = luma.repeat(2, axis=0).repeat(2, axis=1)
    return np.asarray(cv2.cvtColorTwoPlane(doubled, chroma, cv2.COLOR_YUV2RGB_NV12))[::2, ::2]


_grey_to_rgb = _opencv(cv2.COLOR_GRAY2RGB)


def _image_layouts() -> dict[str, _Layout]:
    uyvy = _Layout(2, _opencv(cv2.COLOR_YUV2RGB_UYVY), multiple_hw=(1, 2))
    yuyv = _Layout(2, _opencv(cv2.COLOR_YUV2RGB_YUYV), multiple_hw=(1, 2))
    layouts = {
        "uyvy": uyvy,
        "yuv422": uyvy,  # its deprecated name
        "yuyv": yuyv,
        "yuv422_yuy2": yuyv,  # its deprecated name
        "nv21": _Layout(1, _nv21_to_rgb, rows=(3, 2), multiple_hw=(2, 2)),
        "nv24": _Layout(1, _nv24_to_rgb, rows=(3, 1)),
    }
    for bits, sample in ((8, "u1"), (16, "u2")):
        packed = {
            "rgb": _Layout(3, _as_is, sample),
            "bgr": _Layout(3, _opencv(cv2.COLOR_BGR2RGB), sample),
            "rgba": _Layout(4, _opencv(cv2.COLOR_RGBA2RGB), sample),
            "bgra": _Layout(4, _opencv(cv2.COLOR_BGRA2RGB), sample),
            "mono": _Layout(1, _grey_to_rgb, sample),
        }
        # sensor_msgs names a mosaic after its top left 2 x 2 pixels, and so do these constants
        # (OpenCV's older ones, BayerBG for "rggb", go by the second row and column).
        mosaics = {
            "bayer_rggb": cv2.COLOR_BayerRGGB2RGB,
            "bayer_bggr": cv2.COLOR_BayerBGGR2RGB,
            "bayer_gbrg": cv2.COLOR_BayerGBRG2RGB,
            "bayer_grbg": cv2.COLOR_BayerGRBG2RGB,
        }
        layouts |= {f"{name}{bits}": layout for name, layout in packed.items()}
        layouts |= {
            f"{name}{bits}": _Layout(1, _opencv(code), sample, least_px=3)
            for name, code in mosaics.items()
        }
        # OpenCV's type names do not say which colours; where OpenCV has to know, it takes BGR.
        layouts |= {f"{bits}UC{packed[n].channels}": packed[n] for n in ("mono", "bgr", "bgra")}
    return layouts


_IMAGES = _image_layouts()
_MILLIMETRES = _Layout(1, lambda depth: depth * np.float32(0.001), "u2")
_HEATMAPS = {"32FC1": _Layout(1, _as_is, "f4")}
_DEPTHS = {**_HEATMAPS, "16UC1": _MILLIMETRES, "mono16": _MILLIMETRES}
_FILE_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "SUN", "TIFF", "WEBP")


def pixel_kind(encoding: str) -> Literal["colour", "grey", "depth", "unknown"]:
    """What an Image's ``encoding`` or a CompressedImage's ``format`` says that it shows.

    16UC1 counts as depth (REP-118). A bare "jpeg" or "png" says nothing.
    """
    pixels = encoding.partition(";")[0].strip()
    if pixels in ("32FC1", "16UC1") or _is_compressed_depth(encoding):
        return "depth"
    if pixels not in _IMAGES:
        return "unknown"
    return "grey" if _IMAGES[pixels].convert is _grey_to_rgb else "colour"


def decode_image(
    encoding: str,
    height: int,
    width: int,
    step: int,
    is_bigendian: bool | int,
    data: object,
) -> npt.NDArray[np.uint8]:
    """RGB pixels of a ``sensor_msgs/Image``'s fields.

    16-bit samples v become round(v / 257), as in cv_bridge: the full range is mapped, not each
    image's own range, so that brightness stays comparable between frames. YUV is BT.601 with luma
    in [16, 235]. Alpha is dropped. Padding after the last row may be missing or longer than a
    row's, since drivers hand over whole buffers.

    Args:
        encoding: Name out of ``sensor_msgs/image_encodings.hpp``: rgb, bgr, rgba, bgra and mono
            with 8 or 16 bits, 8UC1 to 16UC4 as grey, BGR and BGRA, uyvy (yuv422), yuyv
            (yuv422_yuy2), nv21, nv24, and bayer_rggb8 to bayer_grbg16.
        height: Rows.
        width: Columns.
        step: Bytes from one row to the next.
        is_bigendian: Byte order of 16-bit samples.
        data: The bytes: bytes, memoryview, array, uint8 ndarray or a sequence of integers.

    Returns:
        (height, width, 3) uint8, C-contiguous; for rgb8 without padding a read-only view of
        data, which keeps the message's bytes alive and cannot change them.

    Raises:
        EncodingError: Unknown encoding, no pixels, a size the encoding cannot have, a step
            shorter than a row, or too few bytes.
    """
    layout, samples = _stored(encoding, height, width, step, is_bigendian, data, layouts=_IMAGES)
    image = np.ascontiguousarray(layout.convert(_eight_bits(samples)), dtype=np.uint8)
    if image.base is not None:  # a view, of bytes that are not ours
        image.flags.writeable = False
    return image


def decode_depth(
    encoding: str,
    height: int,
    width: int,
    step: int,
    is_bigendian: bool | int,
    data: object,
) -> npt.NDArray[np.float32]:
    """Metres of a depth image's fields (REP-118).

    Args:
        encoding: 32FC1 (metres), 16UC1 or mono16 (millimetres).
        height: Rows.
        width: Columns.
        step: Bytes from one row to the next.
        is_bigendian: Byte order of the samples.
        data: The bytes, as for :func:`decode_image`.

    Returns:
        (height, width) float32, metres along the optical axis; NaN where nothing was measured:
        zero, negative, infinite (too near or too far) or NaN in the message.

    Raises:
        EncodingError: Another encoding, no pixels, a step shorter than a row, or too few bytes.
    """
    layout, samples = _stored(encoding, height, width, step, is_bigendian, data, layouts=_DEPTHS)
    depth = layout.convert(samples[..., 0].astype(np.float32))
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth


def decode_compressed(
    data: object, *, name: str = "compressed image.data", upright: bool = False
) -> npt.NDArray[np.uint8]:
    """RGB pixels of a JPEG, PNG or other image file's bytes.

    Memory is reserved for as many pixels as the file's header claims, and a damaged one may claim
    any number; so the header is read first.

    Args:
        data: The file's bytes, as for :func:`decode_image`.
        name: What to call the bytes in an error: a message's field, or a file.
        upright: Turn the image as its EXIF orientation says. Not for camera messages: their
            camera_info belongs to the pixels as they are stored.

    Returns:
        (H, W, 3) uint8, C-contiguous; 16-bit samples reduced as in :func:`decode_image`.

    Raises:
        EncodingError: The bytes are not a whole image that Pillow and OpenCV know, or it claims
            more than :data:`MAX_COMPRESSED_PX` pixels.
    """
    encoded = _as_bytes(data)
    content = encoded.tobytes()
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    if not upright:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    bgr = None
    if _has_fit_size(content, name) and not _is_cut_jpeg(content):
        with contextlib.suppress(cv2.error):  # of widths or heights that it refuses to decode
            bgr = cv2.imdecode(encoded, flags)
    if bgr is None or bgr.dtype not in (np.uint8, np.uint16):
        raise EncodingError(
            name,
            "a complete JPEG, PNG or other image of 8 or 16 bits",
            f"{encoded.size} bytes that are not one",
        )
    return np.asarray(cv2.cvtColor(_eight_bits(bgr), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def time_ns(time: Any) -> int:
    """A ``builtin_interfaces/Time`` in nanoseconds."""
    return int(time.sec) * 10**9 + int(time.nanosec)


def header_stamp_ns(message: Any) -> int:
    """Header stamp of any message that has one, nanoseconds."""
    return time_ns(message.header.stamp)


def frame_from_message(message: Any) -> Frame:
    """The frame in a ``sensor_msgs/Image`` message.

    Raises:
        EncodingError: See :func:`decode_image`.
        InvalidValueError: The stamp is negative.
    """
    image = decode_image(*_pixel_fields(message))
    return Frame(image, header_stamp_ns(message), message.header.frame_id)


def depth_from_message(message: Any) -> npt.NDArray[np.float32]:
    """Metres of a ``sensor_msgs/Image`` of depth: :func:`decode_depth`.

    Raises:
        EncodingError: See :func:`decode_depth`.
    """
    return decode_depth(*_pixel_fields(message))


def heatmap_from_message(message: Any) -> npt.NDArray[np.float32]:
    """The values of a ``sensor_msgs/Image`` that holds a heatmap, as they are.

    Returns:
        (height, width) float32; may be a read-only view of the message's bytes.

    Raises:
        EncodingError: Another encoding than 32FC1, no pixels, a step shorter than a row, or too
            few bytes.
    """
    _, samples = _stored(*_pixel_fields(message), layouts=_HEATMAPS)
    return samples[..., 0].astype(np.float32, copy=False)


def _pixel_fields(message: Any) -> tuple[str, int, int, int, int, Any]:
    return (
        message.encoding,
        message.height,
        message.width,
        message.step,
        message.is_bigendian,
        message.data,
    )


def frame_from_compressed(message: Any) -> Frame:
    """The frame in a ``sensor_msgs/CompressedImage`` message.

    The image file's own colours count, not the pixel formats in ``format``, which publishers fill
    in at will ("jpeg", "rgb8; jpeg compressed bgr8").

    Raises:
        EncodingError: See :func:`decode_compressed`; or the message holds compressed depth.
        InvalidValueError: The stamp is negative.
    """
    if _is_compressed_depth(message.format):
        raise EncodingError(
            "compressed image.format", "a colour or grey image such as 'jpeg'", message.format
        )
    image = decode_compressed(message.data, name=f"{message.format!r} image.data")
    return Frame(image, header_stamp_ns(message), message.header.frame_id)


def image_message_fields(image: npt.NDArray[Any], encoding: str) -> dict[str, Any]:
    """The fields of a ``sensor_msgs/Image`` that holds an image, all but its header.

    Args:
        image: RGB (H, W, 3) uint8 for "rgb8" and "bgr8", (H, W) float32 for "32FC1".
        encoding: One of those three: what the message shall hold.

    Returns:
        height, width, encoding, is_bigendian, step and data; rows without padding, little endian,
        data as a flat uint8 array.

    Raises:
        EncodingError: Another encoding, or an array that does not suit it.
    """
    expected = {
        "rgb8": (np.uint8, 3, "an (H, W, 3) uint8 RGB array"),
        "bgr8": (np.uint8, 3, "an (H, W, 3) uint8 RGB array"),
        "32FC1": (np.float32, 2, "an (H, W) float32 array"),
    }
    if encoding not in expected:
        raise EncodingError("image.encoding", f"one of {', '.join(expected)}", encoding)
    dtype, dimensions, words = expected[encoding]
    if image.dtype != dtype or image.ndim != dimensions or image.shape[2:] not in ((), (3,)):
        raise EncodingError(f"{encoding} image", words, describe_array(image))
    if encoding == "bgr8":
        image = image[..., ::-1]
    stored = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("<"))
    height, width = image.shape[:2]
    return {
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": 0,
        "step": stored.strides[0],
        "data": stored.reshape(-1).view(np.uint8),
    }


def _as_bytes(data: object) -> npt.NDArray[np.uint8]:
    """Data as a flat uint8 array, without a copy where data is a buffer."""
    if isinstance(data, (bytes, bytearray)):
        return np.frombuffer(data, dtype=np.uint8)
    return np.asarray(data, dtype=np.uint8).reshape(-1)


def _stored(
    encoding: str,
    height: int,
    width: int,
    step: int,
    is_bigendian: bool | int,
    data: object,
    *,
    layouts: Mapping[str, _Layout],
) -> tuple[_Layout, _Array]:
    """The encoding's layout and a checked (rows, width, channels) view of the samples in data."""
    layout = layouts.get(encoding)
    if layout is None:
        raise EncodingError("image.encoding", f"one of {', '.join(layouts)}", encoding)
    least, (down, across) = layout.least_px, layout.multiple_hw
    if min(height, width) < least or height % down or width % across:
        raise EncodingError(
            f"{encoding} image.height and width",
            f"at least {least} and multiples of {down} and {across}",
            f"{height} and {width}",
        )
    dtype = np.dtype(layout.sample).newbyteorder(">" if is_bigendian else "<")
    rows = height * layout.rows[0] // layout.rows[1]
    pixel_bytes = layout.channels * dtype.itemsize
    row_bytes = width * pixel_bytes
    if step < row_bytes:
        raise EncodingError(
            f"{encoding} image.step",
            f"at least {row_bytes} bytes, {pixel_bytes} for each of {width} pixels",
            step,
        )
    content = _as_bytes(data)
    needed = step * (rows - 1) + row_bytes
    if content.size < needed:
        raise EncodingError(
            f"{encoding} image.data",
            f"at least {needed} bytes, {rows} rows {step} apart",
            f"{content.size} bytes",
        )
    strides = (step, pixel_bytes, dtype.itemsize)
    shape = (rows, width, layout.channels)
    return layout, np.ndarray(shape, dtype, buffer=content, strides=strides)


def _eight_bits(image: _Array) -> _Array:
    """8-bit samples of 8-bit or 16-bit ones: 65535 / 257 is 255."""
    if image.dtype.itemsize == 1:
        return image
    native = np.require(image, np.uint16, ["C", "A"])
    return np.asarray(cv2.convertScaleAbs(native, alpha=1 / 257))


def _is_compressed_depth(form: str) -> bool:
    return "compresseddepth" in form.lower()


def _has_fit_size(encoded: bytes, name: str) -> bool:
    """Whether the bytes begin as an image file; raises where it claims too many pixels."""
    try:
        # Opening reads the header alone. OpenCV's own limit comes from the environment, once.
        with Image.open(io.BytesIO(encoded), formats=_FILE_FORMATS) as image:
            width, height = image.size
    except (OSError, ValueError):  # no image, or a damaged header
        return False
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # above Pillow's limit
        claimed = f"more than {Image.MAX_IMAGE_PIXELS}"
    else:
        if width * height <= MAX_COMPRESSED_PX:
            return True
        claimed = f"{width} x {height}"
    raise EncodingError(name, f"at most {MAX_COMPRESSED_PX} pixels", claimed)


def _is_cut_jpeg(encoded: bytes) -> bool:
    # OpenCV 4.8 makes of a JPEG without its end an image with a grey bottom (4.14 refuses it). In
    # a whole one an end-of-image marker follows the last start-of-scan marker (ITU-T T.81, B.2).
    starts_as_jpeg = encoded.startswith(b"\xff\xd8")
    return starts_as_jpeg and encoded.rfind(b"\xff\xd9") < encoded.rfind(b"\xff\xda")

from __future__ import annotations

import array
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from videogem_ros import encodings
from videogem_ros.encodings import (
    decode_compressed,
    decode_depth,
    decode_image,
    frame_from_compressed,
    frame_from_message,
    header_stamp_ns,
    image_message_fields,
    pixel_kind,
)
from videogem_ros.errors import EncodingError, InvalidValueError, VideoGemError

H, W = 6, 8
YUV_TOLERANCE = 2  # OpenCV converts in fixed point


def random_rgb(height=H, width=W, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def decode(encoding, stored, height=H, width=W, *, padding=0, big=False):
    """Decodes rows of samples of any shape, each row followed by padding that must not matter."""
    rows = stored.shape[0]
    stored = stored.astype(stored.dtype.newbyteorder(">" if big else "<"))
    row_bytes = np.frombuffer(stored.tobytes(), np.uint8).reshape(rows, -1)
    noise = np.full((rows, padding), 0xA5, np.uint8)
    data = np.concatenate([row_bytes, noise], axis=1)
    return decode_image(encoding, height, width, data.shape[1], big, data.tobytes())


def with_alpha(image):
    alpha = np.full((*image.shape[:2], 1), 77, image.dtype)
    return np.concatenate([image, alpha], axis=2)


def bt601(y, u, v):
    """ITU-R BT.601 with luma in [16, 235], from its luma coefficients, in floating point."""
    kr, kb = 0.299, 0.114
    y, u, v = (np.asarray(plane, np.float64) for plane in (y, u, v))
    luma, cb, cr = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    red = luma + 2 * (1 - kr) * cr
    blue = luma + 2 * (1 - kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.rint(255 * np.stack([red, green, blue], axis=-1)), 0, 255)


COLOURS = {
    "rgb": lambda rgb: rgb,
    "bgr": lambda rgb: rgb[..., ::-1],
    "rgba": with_alpha,
    "bgra": lambda rgb: with_alpha(rgb[..., ::-1]),
}
PACKED_8 = {f"{name}8": pack for name, pack in COLOURS.items()} | {
    "8UC3": COLOURS["bgr"],
    "8UC4": COLOURS["bgra"],
}
PACKED_16 = {f"{name}16": pack for name, pack in COLOURS.items()} | {
    "16UC3": COLOURS["bgr"],
    "16UC4": COLOURS["bgra"],
}


@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize("encoding", PACKED_8)
def test_packed_colours_come_back_exactly(encoding, padding):
    rgb = random_rgb()
    decoded = decode(encoding, PACKED_8[encoding](rgb), padding=padding)
    np.testing.assert_array_equal(decoded, rgb)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("encoding", PACKED_16)
def test_16_bit_colours_keep_their_8_bit_value_in_either_byte_order(encoding, big):
    rgb = random_rgb()
    stored = PACKED_16[encoding](rgb.astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode(encoding, stored, padding=6, big=big), rgb)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_fills_all_three_channels(encoding):
    grey = random_rgb()[..., 0]
    decoded = decode(encoding, grey, padding=3)
    np.testing.assert_array_equal(decoded, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("padding", [0, 3, 4])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_mono16_maps_the_whole_range_onto_the_whole_range(encoding, big, padding):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = decode(encoding, values, 256, 256, padding=padding, big=big)
    expected = np.rint(values / 257.0)
    np.testing.assert_array_equal(decoded, np.repeat(expected[..., None], 3, axis=2))
    assert decoded[0, 0, 0] == 0
    assert decoded[-1, -1, 0] == 255


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [("uyvy", "uyvy"), ("yuv422", "uyvy"), ("yuyv", "yuyv"), ("yuv422_yuy2", "yuyv")],
)
def test_yuv_4_2_2_is_bt601_of_limited_range(encoding, order, padding):
    rng = np.random.default_rng(3)
    luma = rng.integers(16, 236, (H, W), dtype=np.uint8)
    u, v = rng.integers(16, 241, (2, H, W // 2), dtype=np.uint8)
    pairs = {"y": [luma[:, 0::2], luma[:, 1::2]], "u": [u], "v": [v]}
    stored = np.stack([pairs[name].pop(0) for name in order], axis=2)
    expected = bt601(luma, u.repeat(2, axis=1), v.repeat(2, axis=1))
    decoded = decode(encoding, stored, padding=padding)
    np.testing.assert_allclose(decoded, expected, atol=YUV_TOLERANCE)


@pytest.mark.parametrize("padding", [0, 6])
def test_nv21_has_v_before_u_below_the_luma(padding):
    rng = np.random.default_rng(4)
    luma = rng.integers(16, 236, (H, W), dtype=np.uint8)
    u, v = rng.integers(16, 241, (2, H // 2, W // 2), dtype=np.uint8)
    stored = np.concatenate([luma, np.stack([v, u], axis=2).reshape(H // 2, W)])
    expected = bt601(luma, *(c.repeat(2, axis=0).repeat(2, axis=1) for c in (u, v)))
    decoded = decode("nv21", stored, padding=padding)
    np.testing.assert_allclose(decoded, expected, atol=YUV_TOLERANCE)


@pytest.mark.parametrize("hw", [(H, W), (3, 5)])
def test_nv24_has_a_u_and_a_v_for_every_pixel(hw):
    luma, u, v = np.random.default_rng(5).integers(16, 236, (3, *hw), dtype=np.uint8)
    stored = np.concatenate([luma, np.stack([u, v], axis=2).reshape(2 * hw[0], hw[1])])
    decoded = decode("nv24", stored, *hw)
    np.testing.assert_allclose(decoded, bt601(luma, u, v), atol=YUV_TOLERANCE)


@pytest.mark.parametrize(
    ("yuv", "rgb"),
    [
        ((16, 128, 128), (0, 0, 0)),
        ((235, 128, 128), (255, 255, 255)),
        ((81, 90, 240), (255, 0, 0)),
        ((145, 54, 34), (0, 255, 0)),
        ((41, 240, 110), (0, 0, 255)),
    ],
)
def test_yuv_primaries_are_those_of_the_standard(yuv, rgb):
    y, u, v = yuv
    stored = np.tile(np.array([u, y, v, y], np.uint8), (2, 2))
    np.testing.assert_allclose(decode("uyvy", stored, 2, 4)[0, 0], rgb, atol=YUV_TOLERANCE)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_mosaic_of_one_colour_gives_that_colour(pattern, bits, big):
    colour = {"r": 200, "g": 120, "b": 40}
    tile = np.array([colour[letter] for letter in pattern]).reshape(2, 2)
    mosaic = np.tile(tile, (H // 2, W // 2))
    stored = mosaic.astype(np.uint8) if bits == 8 else (mosaic * 257).astype(np.uint16)
    decoded = decode(f"bayer_{pattern}{bits}", stored, padding=2, big=big)
    np.testing.assert_array_equal(decoded, np.broadcast_to((200, 120, 40), (H, W, 3)))


@pytest.mark.parametrize(
    "wrap",
    [
        bytes,
        bytearray,
        memoryview,
        list,
        lambda raw: array.array("B", raw),
        lambda raw: np.frombuffer(raw, np.uint8),
    ],
    ids=["bytes", "bytearray", "memoryview", "list", "array", "ndarray"],
)
def test_data_may_be_any_sequence_of_bytes(wrap):
    rgb = random_rgb()
    decoded = decode_image("rgb8", H, W, W * 3, 0, wrap(rgb.tobytes()))
    np.testing.assert_array_equal(decoded, rgb)


def test_rgb8_without_padding_is_a_view():
    data = random_rgb().reshape(-1)
    image = decode_image("rgb8", H, W, W * 3, 0, data)
    assert np.shares_memory(image, data)
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 0


def test_the_last_rows_padding_may_be_missing_and_more_bytes_may_follow():
    rgb = random_rgb()
    padded = np.zeros((H, W * 3 + 4), np.uint8)
    padded[:, : W * 3] = rgb.reshape(H, -1)
    for data in (padded.tobytes()[:-4], padded.tobytes() + bytes(100)):
        np.testing.assert_array_equal(decode_image("rgb8", H, W, W * 3 + 4, 0, data), rgb)


@pytest.mark.parametrize(
    ("encoding", "height", "width", "step", "size", "message"),
    [
        ("bgr8", 0, 8, 24, 0, r"bgr8 image.height and width: expected .*got 0 and 8"),
        ("bgr8", 6, 0, 0, 144, r"got 6 and 0"),
        ("bgr8", -6, 8, 24, 144, r"got -6 and 8"),
        ("bgr8", 6, 8, 23, 144, r"bgr8 image.step: expected at least 24 bytes.*got 23"),
        ("bgr8", 6, 8, 0, 144, r"step.*got 0"),
        ("mono16", 6, 8, 8, 144, r"mono16 image.step: expected at least 16 bytes.*got 8"),
        ("bgr8", 6, 8, 24, 143, r"bgr8 image.data: expected at least 144 bytes.*got 143 bytes"),
        ("rgb8", 2**31, 2**31, 2**33, 144, r"image.data: expected at least \d+ bytes"),
        ("nv21", 6, 8, 8, 71, r"nv21 image.data: expected at least 72 bytes, 9 rows"),
        ("nv21", 5, 8, 8, 144, r"multiples of 2 and 2, got 5 and 8"),
        ("uyvy", 6, 7, 14, 144, r"multiples of 1 and 2, got 6 and 7"),
        ("bayer_rggb8", 2, 2, 2, 4, r"at least 3 .*got 2 and 2"),
        ("rgb9", 6, 8, 24, 144, r"image.encoding: expected one of .*rgb8.*got rgb9"),
        ("32FC1", 6, 8, 32, 192, r"image.encoding: expected one of .*got 32FC1"),
        ("", 6, 8, 24, 144, r"image.encoding"),
    ],
)
def test_a_malformed_image_says_what_was_expected_and_what_came(
    encoding, height, width, step, size, message
):
    with pytest.raises(EncodingError, match=message) as caught:
        decode_image(encoding, height, width, step, 0, bytes(size))
    assert isinstance(caught.value, VideoGemError)


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=40, deadline=None)
@given(hw=shapes, padding=st.integers(0, 9), seed=st.integers(0, 99))
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_what_is_written_is_read_again_whatever_the_padding(encoding, hw, padding, seed):
    rgb = random_rgb(*hw, seed=seed)
    fields = image_message_fields(rgb, encoding)
    rows = fields["data"].reshape(hw[0], -1)
    np.testing.assert_array_equal(decode(encoding, rows, *hw, padding=padding), rgb)


def test_message_fields_are_tight_and_little_endian():
    rgb = random_rgb()
    fields = image_message_fields(rgb, "bgr8")
    data = fields.pop("data")
    assert fields == {
        "height": H,
        "width": W,
        "encoding": "bgr8",
        "is_bigendian": 0,
        "step": W * 3,
    }
    assert data.tobytes() == rgb[..., ::-1].tobytes()
    assert data.dtype == np.uint8
    assert data.ndim == 1


def test_a_heatmap_is_read_again_as_32fc1():
    heatmap = np.random.default_rng(0).random((H, W), dtype=np.float32)
    fields = image_message_fields(heatmap[:, ::-1], "32FC1")
    assert fields["step"] == 4 * W
    read = np.frombuffer(fields["data"].tobytes(), "<f4").reshape(H, W)
    np.testing.assert_array_equal(read, heatmap[:, ::-1])


@pytest.mark.parametrize(
    ("image", "encoding"),
    [
        (random_rgb(), "yuv422"),
        (random_rgb(), "32FC1"),
        (random_rgb()[..., :2], "rgb8"),
        (random_rgb()[..., 0], "rgb8"),
        (np.zeros((H, W)), "32FC1"),
        (np.zeros((H, W, 3), np.float32), "rgb8"),
    ],
)
def test_an_image_that_does_not_suit_the_encoding_is_refused(image, encoding):
    with pytest.raises(EncodingError, match=r"expected .* got "):
        image_message_fields(image, encoding)


@pytest.mark.parametrize("big", [False, True])
def test_depth_is_metres_with_nan_where_nothing_was_measured(big):
    order = ">" if big else "<"
    millimetres = np.array([[0, 1, 1500], [65535, 250, 0]], f"{order}u2")
    expected = np.array([[np.nan, 0.001, 1.5], [65.535, 0.25, np.nan]], np.float32)
    for encoding in ("16UC1", "mono16"):
        depth = decode_depth(encoding, 2, 3, 6, big, millimetres.tobytes())
        assert depth.dtype == np.float32
        np.testing.assert_allclose(depth, expected, rtol=1e-6)
    metres = np.array([[np.nan, 0.0, -1.0], [np.inf, -np.inf, 2.5]], f"{order}f4")
    depth = decode_depth("32FC1", 2, 3, 12, big, metres.tobytes())
    np.testing.assert_array_equal(depth, [[np.nan] * 3, [np.nan, np.nan, 2.5]])


def test_depth_honours_step():
    rows = np.zeros((2, 5), np.uint16)
    rows[:, :3] = [[1000, 2000, 3000], [4000, 5000, 6000]]
    depth = decode_depth("16UC1", 2, 3, 10, 0, rows.tobytes())
    np.testing.assert_allclose(depth, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(
    ("encoding", "step", "size", "message"),
    [
        ("rgb8", 9, 18, "expected one of 32FC1, 16UC1, mono16, got rgb8"),
        ("32FC1", 11, 24, "32FC1 image.step"),
        ("32FC1", 12, 23, "32FC1 image.data"),
    ],
)
def test_malformed_depth_is_refused(encoding, step, size, message):
    with pytest.raises(EncodingError, match=message):
        decode_depth(encoding, 2, 3, step, 0, bytes(size))


@pytest.mark.parametrize(
    ("encoding", "kind"),
    [
        ("rgb8", "colour"),
        ("8UC3", "colour"),
        ("yuv422_yuy2", "colour"),
        ("nv21", "colour"),
        ("bayer_grbg8", "colour"),
        ("rgb8; jpeg compressed bgr8", "colour"),
        ("mono8", "grey"),
        ("mono16; png compressed ", "grey"),
        ("16UC1", "depth"),
        ("32FC1", "depth"),
        ("16UC1; png compressed ", "depth"),
        ("16UC1; compressedDepth png", "depth"),
        ("mono16; compressedDepth", "depth"),
        ("jpeg", "unknown"),
        ("", "unknown"),
    ],
)
def test_an_encoding_or_format_tells_what_it_shows(encoding, kind):
    assert pixel_kind(encoding) == kind


def encoded(extension, image):
    done, data = cv2.imencode(extension, image)
    assert done
    return data.tobytes()


SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:200:48j, 0:255:64j], 90.0), 2).astype(np.uint8)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".ppm", ".tiff", ".webp"])
def test_image_files_decode_to_rgb(extension):
    decoded = decode_compressed(encoded(extension, SMOOTH[..., ::-1]))
    tolerance = 6 if extension in (".jpg", ".webp") else 0
    np.testing.assert_allclose(decoded.astype(int), SMOOTH, atol=tolerance)
    assert decoded.flags.c_contiguous


def test_jpeg_agrees_with_pillow(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(".jpg", random_rgb(40, 56)))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"), dtype=int)
    assert np.abs(decode_compressed(path.read_bytes()) - expected).mean() < 1


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_png_is_reduced_like_mono16(channels):
    image = np.random.default_rng(2).integers(0, 65536, (H, W, channels), dtype=np.uint16)
    expected = np.rint(image / 257.0)
    expected = expected.repeat(3, axis=2) if channels == 1 else expected[..., 2::-1]
    np.testing.assert_array_equal(decode_compressed(encoded(".png", image)), expected)


def message(**fields):
    stamp = SimpleNamespace(sec=12, nanosec=345)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp, frame_id="optical"), **fields)


@pytest.mark.parametrize(
    "form",
    ["jpeg", "png", "", "rgb8; jpeg compressed bgr8", "bgr8; jpeg compressed rgb8", "bgr8; jpeg"],
)
def test_the_files_own_colours_count_whatever_the_format_says(form):
    data = encoded(".png" if form == "png" else ".jpg", SMOOTH[..., ::-1])
    frame = frame_from_compressed(message(format=form, data=data))
    np.testing.assert_allclose(frame.image.astype(int), SMOOTH, atol=6)
    assert (frame.stamp_ns, frame.frame_id) == (12_000_000_345, "optical")


def jpeg_of_size(side: int) -> bytes:
    """A JPEG that says it has so many pixels either way, whatever it holds (ITU-T T.81, B.2.2)."""
    data = bytearray(encoded(".jpg", random_rgb(64, 64)))
    size = data.find(b"\xff\xc0") + 5
    data[size : size + 4] = struct.pack(">HH", side, side)
    return bytes(data)


WHOLE_JPEG, WHOLE_PNG = encoded(".jpg", random_rgb(64, 64)), encoded(".png", random_rgb(64, 64))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        WHOLE_JPEG[:-2],
        WHOLE_JPEG[: len(WHOLE_JPEG) // 2],
        WHOLE_JPEG[:20],
        WHOLE_PNG[:-20],
        WHOLE_PNG[: len(WHOLE_PNG) // 2],
        encoded(".tiff", np.zeros((4, 4, 3), np.float32)),
    ],
)
def test_bytes_that_are_no_whole_image_are_refused(data):
    with pytest.raises(EncodingError, match=rf"'jpeg' image.data: .*got {len(data)} bytes"):
        frame_from_compressed(message(format="jpeg", data=data))


def png_of_size(side: int) -> bytes:
    """The same of a PNG, with the checksum of its header (RFC 2083, 4.1.1)."""
    data = bytearray(WHOLE_PNG)
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "claimed"),
    [
        (jpeg_of_size(8193), "8193 x 8193"),
        (jpeg_of_size(16384), r"more than \d+"),
        (jpeg_of_size(65500), r"more than \d+"),  # more than OpenCV decodes
        (png_of_size(9000), "9000 x 9000"),
        (png_of_size(2**31 - 1), r"more than \d+"),
        (b"P6 16384 16384 255\n" + bytes(100), r"more than \d+"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_size_that_no_camera_has_is_refused_undecoded(data, claimed, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    expected = rf"^'jpeg' image.data: expected at most 67108864 pixels, got {claimed}$"
    with pytest.raises(EncodingError, match=expected):
        frame_from_compressed(message(format="jpeg", data=data))


def test_the_size_limit_itself_is_allowed(monkeypatch):
    monkeypatch.setattr(encodings, "MAX_COMPRESSED_PX", 64 * 64)
    assert decode_compressed(WHOLE_JPEG).shape == (64, 64, 3)
    monkeypatch.setattr(encodings, "MAX_COMPRESSED_PX", 64 * 64 - 1)
    with pytest.raises(EncodingError, match="at most 4095 pixels, got 64 x 64"):
        decode_compressed(WHOLE_JPEG)


def test_compressed_depth_is_not_an_image():
    depth = message(format="16UC1; compressedDepth png", data=WHOLE_PNG)
    with pytest.raises(EncodingError, match="compressedDepth"):
        frame_from_compressed(depth)


def test_only_files_are_turned_upright(tmp_path):
    path = tmp_path / "turned.jpg"
    picture = Image.fromarray(SMOOTH)
    exif = Image.Exif()
    exif[0x0112] = 6  # TIFF 6.0 orientation: row 0 is the right hand side
    picture.save(path, exif=exif, quality=95)
    data = path.read_bytes()
    assert decode_compressed(data).shape == SMOOTH.shape
    upright = decode_compressed(data, upright=True).astype(int)
    np.testing.assert_allclose(upright, np.rot90(SMOOTH, -1), atol=6)


def test_a_message_becomes_a_frame_with_its_header():
    rgb = random_rgb()
    sent = message(data=array.array("B", rgb.tobytes()), height=H, width=W)
    sent.encoding, sent.step, sent.is_bigendian = "rgb8", W * 3, 0
    frame = frame_from_message(sent)
    np.testing.assert_array_equal(frame.image, rgb)
    assert (frame.stamp_ns, frame.frame_id) == (12_000_000_345, "optical")
    assert header_stamp_ns(sent) == frame.stamp_ns


def test_a_message_from_before_1970_is_refused():
    sent = message(**image_message_fields(random_rgb(), "rgb8"))
    sent.header.stamp.sec = -1
    with pytest.raises(InvalidValueError, match="stamp_ns"):
        frame_from_message(sent)

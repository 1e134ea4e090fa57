from __future__ import annotations

import itertools
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from videogem_ros.adapters.bag import open_source
from videogem_ros.errors import RecordingError

EXAMPLE = Path(__file__).parents[4] / "shared" / "video" / "example.mp4"
HW = (48, 64)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)

CORNERS = np.empty((*HW, 3), np.uint8)  # red top left, green top right, blue below
CORNERS[:24, :32], CORNERS[:24, 32:], CORNERS[24:] = RED, GREEN, BLUE


def write(
    path,
    pts,
    *,
    codec="mpeg4",
    pix_fmt="yuv420p",
    time_base=Fraction(1, 30000),
    rate=10,
    options=None,
):
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = HW
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = time_base
        for moment in pts:
            frame = av.VideoFrame.from_ndarray(CORNERS, format="rgb24")
            frame.pts, frame.time_base = moment, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def frames(path):
    with open_source(path) as source:
        return list(source)


def test_stamps_are_the_presentation_times_of_a_variable_rate(tmp_path):
    pts = [0, 1001, 2002, 15000, 30001]
    read = frames(write(tmp_path / "a.mp4", pts))
    assert [frame.stamp_ns for frame in read] == [round(Fraction(p, 30000) * 10**9) for p in pts]


def test_stamps_that_begin_later_are_kept(tmp_path):
    read = frames(write(tmp_path / "a.mkv", [500, 600], time_base=Fraction(1, 1000)))
    assert [frame.stamp_ns for frame in read] == [500_000_000, 600_000_000]


def test_stamps_begin_at_zero_where_the_first_time_is_negative(tmp_path):
    kept = {"avoid_negative_ts": "disabled"}
    path = write(tmp_path / "a.ts", [-300, -100, 50], time_base=Fraction(1, 1000), options=kept)
    assert [frame.stamp_ns for frame in frames(path)] == [0, 200_000_000, 350_000_000]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "tolerance"),
    [
        ("a.mp4", "mpeg4", "yuv420p", 4),
        ("a.avi", "mjpeg", "yuvj420p", 4),
        ("a.mkv", "ffv1", "bgr0", 0),
    ],
)
def test_pixels_are_rgb(tmp_path, name, codec, pix_fmt, tolerance):
    path = write(
        tmp_path / name, [0, 1, 2], codec=codec, pix_fmt=pix_fmt, time_base=Fraction(1, 10)
    )
    image = frames(path)[1].image.astype(int)
    for (row, column), colour in {(8, 8): RED, (8, 56): GREEN, (40, 32): BLUE}.items():
        np.testing.assert_allclose(image[row, column], colour, atol=tolerance)


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [((1, 0, 0, 1), 0), ((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],
)
def test_frames_are_turned_as_the_display_matrix_says(tmp_path, matrix, turns):
    # ISO/IEC 14496-12, 6.2.2 and 8.3.2: point (p, q) is shown at (ap + cq + x, bp + dq + y), so
    # (0, 1, -1, 0) turns a quarter clockwise. The matrix stands 40 bytes into the tkhd box.
    path = write(tmp_path / "a.mp4", [0, 3000])
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    image = frames(path)[0].image
    assert image.flags.c_contiguous
    expected = np.rot90(CORNERS, turns).astype(int)
    assert image.shape == expected.shape
    assert np.abs(image - expected).mean() < 4


def test_a_video_knows_its_length_and_reads_twice(tmp_path):
    with open_source(write(tmp_path / "a.mp4", range(0, 30000, 3000))) as source:
        assert source.frame_count == 10
        assert source.duration_s == pytest.approx(1.0, abs=0.11)
        assert (source.image_topic, source.action_topic) == (None, None)
        assert len(list(source)) == len(list(source)) == 10


def test_a_stream_without_times_runs_at_its_nominal_rate(tmp_path):
    path = write(tmp_path / "a.mp4", [0, 1, 2], time_base=Fraction(1, 10))
    raw = tmp_path / "a.m4v"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [bytes(packet) for packet in container.demux(stream)]
        raw.write_bytes((stream.codec_context.extradata or b"") + b"".join(packets))
    read = frames(raw)
    assert len(read) == 3
    assert all(a.stamp_ns < b.stamp_ns for a, b in itertools.pairwise(read))


@pytest.mark.parametrize("rate", [Fraction(10), Fraction(25), Fraction(30000, 1001)], ids=str)
def test_raw_h264_runs_at_the_rate_that_it_tells(tmp_path, rate):
    path = write(tmp_path / "a.h264", range(4), codec="h264", time_base=1 / rate, rate=rate)
    stamps_ns = [frame.stamp_ns for frame in frames(path)]
    assert stamps_ns == [round(place / rate * 10**9) for place in range(4)]


def test_a_damaged_packet_is_left_out_and_counted(tmp_path):
    path = write(
        tmp_path / "a.avi", range(6), codec="mjpeg", pix_fmt="yuvj420p", time_base=Fraction(1, 10)
    )
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0)]
    at, size = places[3]
    content[at : at + size] = bytes(size)
    path.write_bytes(content)
    with open_source(path) as source:
        read = list(source)
    assert [frame.stamp_ns // 10**8 for frame in read] == [0, 1, 2, 4, 5]
    assert source.skipped.total() == 1


def silent(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut(path):
    write(path, [0, 3000, 6000])
    path.write_bytes(path.read_bytes()[:300])
    return path


def text(path):
    path.write_text("neither a bag nor a video")
    return path


def foreign(path):
    write(path, [0, 1], codec="ffv1", time_base=Fraction(1, 10))
    path.write_bytes(path.read_bytes().replace(b"FFV1", b"NONE"))
    return path


def without_frames(path):
    write(path, [0, 1], time_base=Fraction(1, 10))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"movi") + 4])
    return path


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (silent, "a.wav", "no video stream in it"),
        (cut, "a.mp4", "not a bag, and not a video either|no video stream"),
        (text, "a.mp4", r"not a bag, and not a video either \(Invalid data"),
        (text, "a.txt", "not a bag, and not a video either"),
        (foreign, "a.avi", "no decoder for its video codec"),
        (without_frames, "a.avi", "no readable frame in it"),
    ],
)
def test_what_is_no_video_is_refused_in_one_line(tmp_path, make, name, message):
    path = make(tmp_path / name)
    with pytest.raises(RecordingError, match=message) as caught:
        list(open_source(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not EXAMPLE.exists(), reason="needs ../shared/video/example.mp4")
def test_a_real_video_is_read_whole():
    with av.open(str(EXAMPLE)) as container:
        stream = container.streams.video[0]
        expected = [round(f.pts * stream.time_base * 10**9) for f in container.decode(stream)]
    with open_source(EXAMPLE) as source:
        read = list(source)
        assert source.frame_count == len(expected) == 40
        assert source.duration_s == pytest.approx(8.0)
    assert [frame.stamp_ns for frame in read] == expected
    assert {frame.hw for frame in read} == {(480, 640)}

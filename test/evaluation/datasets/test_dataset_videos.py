from __future__ import annotations

import random
from fractions import Fraction

import av
import numpy as np
import pytest
from numbered import HW, number_in, regular, write_video

from videogem_ros.errors import RecordingError
from videogem_ros.evaluation.datasets.video import VideoReader, frame_index

VARIABLE = np.cumsum([0, *random.Random(1).choices([0.02, 0.04, 0.1, 0.5], k=59)]).round(3)

FORMATS = {
    "h264.mp4": ("libx264", {"g": "12", "bf": "3"}),
    "opengop.mp4": ("libx264", {"g": "10", "bf": "3", "x264-params": "open-gop=1:b-pyramid=2"}),
    "onekey.mp4": ("libx264", {"g": "1000"}),
    "h264.mkv": ("libx264", {"g": "12", "bf": "3"}),
    "h264.ts": ("libx264", {"g": "12", "bf": "3"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "mpeg4.mov": ("mpeg4", {"g": "7", "bf": "2"}),
    "intra.mkv": ("ffv1", {}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_frame_is_found_in_any_order(tmp_path, name):
    codec, options = FORMATS[name]
    path = write_video(tmp_path / name, VARIABLE, codec=codec, options=options)
    reader = VideoReader(path)
    assert [round(ns / 1e9, 3) for ns in reader.index.stamps_ns] == [*VARIABLE]
    order = [*range(60), *random.Random(2).sample(range(60), 60)]
    for place in order:
        (frame,) = reader.frames([place])
        assert (number_in(frame.image), frame.hw) == (place, HW)
        assert frame.stamp_ns == reader.index.stamps_ns[place]
    reader.close()


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_an_avi_of_constant_rate_is_read_too(tmp_path, codec):
    reader = VideoReader(write_video(tmp_path / "a.avi", regular(40, 25), codec=codec))
    places = [31, 3, 38, 0]
    assert [number_in(frame.image) for frame in reader.frames(places)] == places


def test_places_outside_the_video_are_its_first_and_last_frame(tmp_path):
    reader = VideoReader(write_video(tmp_path / "a.mp4", regular(10, 10)))
    frames = reader.frames([-5, 0, 4, 9, 200])
    assert [number_in(frame.image) for frame in frames] == [0, 0, 4, 9, 9]
    assert frames[0] is frames[1]


def test_neighbouring_windows_share_frames_and_are_decoded_on(tmp_path):
    options = {"g": "30", "bf": "0"}
    reader = VideoReader(write_video(tmp_path / "a.mp4", regular(60, 10), options=options))
    first = reader.frames([10, 12, 14])
    decoding = reader._decoding
    second = reader.frames([12, 14, 16])
    assert second[:2] == first[1:]
    assert reader._decoding is decoding
    reader.frames([45])  # a keyframe lies between
    assert reader._decoding is not decoding


@pytest.mark.parametrize(
    ("time_s", "place"),
    [(-1, 0), (0, 0), (0.099, 1), (0.1, 1), (0.15, 1), (0.1985, 1), (0.1995, 2), (99, 9)],
)
def test_a_time_shows_the_frame_that_began_last(tmp_path, time_s, place):
    index = frame_index(write_video(tmp_path / "a.mp4", regular(10, 10)))
    assert index.at(round(time_s * 1e9)) == place


def test_times_count_from_the_first_frame(tmp_path):
    index = frame_index(write_video(tmp_path / "a.mkv", [2.0, 2.5, 3.0]))
    assert index.stamps_ns == (0, 500_000_000, 1_000_000_000)


def test_frames_that_a_cut_without_reencoding_hides_do_not_count(tmp_path):
    """A clip that begins between keyframes holds frames that its edit list does not show."""
    path = write_video(tmp_path / "a.mp4", regular(40, 10), options={"g": "10", "bf": "0"})
    cut, kept = tmp_path / "cut.mp4", {"avoid_negative_ts": "disabled"}
    with av.open(str(path)) as whole, av.open(str(cut), "w", options=kept) as part:
        source = whole.streams.video[0]
        stream = part.add_stream_from_template(source)
        for packet in whole.demux(source):
            if packet.size and packet.pts * packet.time_base >= 1:
                begin = round(Fraction(13, 10) / packet.time_base)
                packet.pts, packet.dts = packet.pts - begin, packet.dts - begin
                packet.stream = stream
                part.mux(packet)
    reader = VideoReader(cut)
    assert reader.index.stamps_ns == tuple(round(n * 1e8) for n in range(27))
    places = [0, 1, 8, 26]
    assert [number_in(frame.image) for frame in reader.frames(places)] == [13, 14, 21, 39]


def test_a_damaged_video_is_one_readable_error(tmp_path):
    good = write_video(tmp_path / "good.mkv", regular(60, 25)).read_bytes()
    for name, content in {
        "text.mp4": b"no video",
        "empty.mp4": b"",
        "head.mkv": good[:200],
        "cut.mp4": write_video(tmp_path / "g.mp4", regular(60, 25)).read_bytes()[:2000],
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(RecordingError, match=name):
            VideoReader(path)


def test_a_frame_whose_data_are_damaged_is_an_error_and_the_others_are_not(tmp_path):
    path = write_video(tmp_path / "a.mp4", regular(60, 25), options={"g": "10", "bf": "0"})
    content = bytearray(path.read_bytes())
    reader = VideoReader(path)
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        place = next(i for i, p in enumerate(packets) if i >= 30 and p.is_keyframe)
        begin, size = packets[place].pos, packets[place].size
    content[begin : begin + size] = bytes(size)
    path.write_bytes(content)
    reader = VideoReader(path)
    with pytest.raises(RecordingError, match=r"a\.mp4: (damaged video|frame)"):
        reader.frames([place])
    assert [number_in(frame.image) for frame in reader.frames([5, 25])] == [5, 25]

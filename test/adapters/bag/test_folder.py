from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest

from videogem_ros.adapters.bag import open_source
from videogem_ros.errors import InvalidValueError, RecordingError


def write(folder, *names):
    """Images whose red value is their place among the names."""
    folder.mkdir(exist_ok=True)
    for place, name in enumerate(names):
        image = np.zeros((4, 6, 3), np.uint8)
        image[..., 2] = 40 + place
        assert cv2.imwrite(str(folder / name), image)
    return folder


def read(folder, **options):
    with open_source(folder, **options) as source:
        return [(int(frame.image[0, 0, 0]) - 40, frame.stamp_ns) for frame in source]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["frame10.png", "frame2.png", "frame1.png"], [(2, 0.0), (1, 0.25), (0, 0.5)]),
        (["0000000002.png", "0000000010.png", "0000000001.png"], [(2, 0), (0, 0.25), (1, 0.5)]),
        (["b.png", "a.PNG", "1.png"], [(2, 0.0), (1, 0.25), (0, 0.5)]),
        (["1403636579813555456.png", "1403636579763555584.png"], [1, 0]),
        (["1305031102.175304.png", "1305031102.05.png", "x.png"], [(1, 0), (0, 0.25), (2, 0.5)]),
        (["0.500.png", "0.250000001.png"], [(1, 0.250000001), (0, 0.5)]),
        (["1700000002.png", "1700000000.png"], [(1, 1700000000), (0, 1700000002)]),
        (["1700000000.png", "1700000000.bmp"], [(1, 0.0), (0, 0.25)]),
        (["1.9.png", "1.10.png"], [(0, 0.0), (1, 0.25)]),
        # Later than a header can tell: numbers of another kind.
        (["5045017971.png", "5045017970.png"], [(1, 0.0), (0, 0.25)]),
        (["5403579763555584123.png"], [(0, 0.0)]),
        (["2147483648.000.png"], [(0, 0.0)]),
    ],
)
def test_images_come_in_order_of_their_names_or_times(tmp_path, names, expected):
    times = [(e, int(names[e][:-4])) if isinstance(e, int) else e for e in expected]
    stamps = [(i, t if t > 10**12 else round(t * 10**9)) for i, t in times]
    assert read(write(tmp_path, *names)) == stamps


def test_the_rate_spaces_images_without_times(tmp_path):
    write(tmp_path, "a.png", "b.png", "c.png", "d.png")
    assert [stamp for _, stamp in read(tmp_path, rate_hz=30)] == [
        0,
        33_333_333,
        66_666_667,
        100_000_000,
    ]


def test_a_folder_knows_its_length_and_reads_twice(tmp_path):
    write(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._a.png").write_bytes(b"a file system's shadow")
    with open_source(tmp_path) as source:
        assert (source.frame_count, source.duration_s) == (3, 0.5)
        assert (source.image_topic, source.action_topic) == (None, None)
        first, second = ([frame.stamp_ns for frame in source] for _ in range(2))
    assert first == second == [0, 250_000_000, 500_000_000]


def test_a_broken_image_is_left_out_counted_and_logged_once(tmp_path, caplog):
    write(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "2.png").write_bytes(b"broken")
    with open_source(tmp_path) as source, caplog.at_level(logging.WARNING):
        assert [frame.stamp_ns for frame in source] == [0, 500_000_000]
    assert source.skipped.total() == 1
    assert "2.png" in caplog.text


def test_a_folder_of_broken_images_is_an_error_that_says_so(tmp_path):
    (tmp_path / "1.png").write_bytes(b"broken")
    with pytest.raises(RecordingError, match=r"no readable frame.*1 x 1.png: expected"):
        list(open_source(tmp_path))


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(RecordingError, match="no images and no recording in this folder"):
        open_source(tmp_path)


def test_the_rate_must_be_positive(tmp_path):
    with pytest.raises(InvalidValueError, match=r"rate_hz: expected .* got 0"):
        open_source(write(tmp_path, "a.png"), rate_hz=0)

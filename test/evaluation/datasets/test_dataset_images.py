from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from numbered import number_in, numbered_image, regular, write_images, write_video
from PIL import Image

from videogem_ros.errors import InvalidValueError, RecordingError
from videogem_ros.evaluation.datasets.frames import Footage, Moment, Spacing
from videogem_ros.window import NS_PER_S

QUARTER = Spacing(250_000_000)
EVERY_4TH = Spacing.of_frames(4)


def at(time_s):
    return Moment(round(time_s * 1e9))


def shown(footage, moment, frames=8, video="v"):
    window, place = footage.window(video, moment, frames)
    return [number_in(frame.image) for frame in window.frames], place


@pytest.mark.parametrize("folder", ["", "videos", "a/b/c"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".WEBM"])
def test_a_video_is_found_by_its_name_at_any_depth(tmp_path, folder, suffix):
    codec = "libvpx-vp9" if suffix == ".WEBM" else "libx264"
    path = tmp_path / folder / f"v{suffix.lower()}"
    write_video(path, regular(4, 4), codec=codec)
    path.rename(path.with_suffix(suffix))
    footage = Footage(tmp_path, QUARTER)
    assert footage.holds("v", at(0))
    assert footage.holds("v.mp4", at(0))
    assert not footage.holds("w", at(0))
    assert shown(footage, at(0.5), 1) == ([2], 0)


@pytest.mark.parametrize(
    ("time_s", "frames", "expected"),
    [
        (4, 8, [30, 32, 35, 37, 40, 42, 45, 47]),
        (4, 1, [40]),
        (4, 2, [37, 40]),
        (0.5, 8, [0, 0, 0, 2, 5, 7, 10, 12]),  # clamped to the first
        (5.8, 8, [48, 50, 53, 55, 58, 59, 59, 59]),  # and to the last
        (6.9, 1, [59]),  # which may stand for a second
    ],
)
def test_frames_of_a_video_are_a_quarter_second_apart(tmp_path, time_s, frames, expected):
    write_video(tmp_path / "v.mp4", regular(60, 10))
    place = frames // 2
    assert shown(Footage(tmp_path, QUARTER), at(time_s), frames) == (expected, place)


def test_stamps_are_times_in_the_video(tmp_path):
    write_video(tmp_path / "v.mp4", [0, 0.3, 0.7, 1.9])
    window, place = Footage(tmp_path, QUARTER).window("v", at(1), 8)
    assert window.stamps_ns[place] == 700_000_000
    assert window.stamps_ns == tuple(round(s * 1e9) for s in (0, 0, 0.3, 0.7, 0.7, 0.7, 0.7, 0.7))


def test_frames_are_counted_whatever_the_rate(tmp_path):
    write_video(tmp_path / "v.mkv", np.cumsum(np.tile([0.01, 0.1], 60)).round(3))
    footage = Footage(tmp_path, EVERY_4TH)
    counted = [44, 48, 52, 56, 60, 64, 68, 72]
    assert shown(footage, Moment(number=60)) == (counted, 4)
    assert shown(footage, at(3.3)) == (counted, 4)  # 30 pairs of 0.11 s after the first frame


@pytest.mark.parametrize(
    ("moment", "spacing"), [(at(7.1), QUARTER), (Moment(number=60), EVERY_4TH)]
)
def test_a_video_that_ends_before_the_annotated_frame_is_an_error(tmp_path, moment, spacing):
    write_video(tmp_path / "v.mp4", regular(60, 10))
    with pytest.raises(RecordingError, match="ends before the annotated frame"):
        Footage(tmp_path, spacing).window("v", moment, 8)


@pytest.mark.parametrize(
    ("names", "spacing", "moment", "expected"),
    [
        # Seconds, a quarter apart as the paper extracted them.
        (
            {f"{n / 4}.jpg": n for n in range(20)},
            QUARTER,
            at(2),
            [4, 5, 6, 7, 8, 9, 10, 11],
        ),
        # Whole seconds: the nearest that is there stands in.
        ({f"{n}.jpg": n for n in range(5)}, QUARTER, at(2), [1, 1, 1, 2, 2, 2, 2, 3]),
        ({"img_00007.png": 7}, QUARTER, at(7), [7] * 8),
        # Every frame by number.
        (
            {f"{n:06d}.jpg": n for n in range(80)},
            EVERY_4TH,
            Moment(number=47),
            [*range(31, 60, 4)],
        ),
        ({"frame-9.png": 9, "frame-5.png": 5}, EVERY_4TH, Moment(number=5), [5] * 5 + [9] * 3),
        # V-HICO's keyframes alone.
        (
            {f"{n}.jpg": n for n in (27, 47, 67)},
            EVERY_4TH,
            Moment(number=47),
            [27, 27, 47, 47, 47, 47, 47, 67],
        ),
        # Frames are counted, but the images tell seconds.
        ({f"{n / 30:.3f}.png": n for n in range(60)}, EVERY_4TH, at(1), [*range(14, 43, 4)]),
        # One name with decimals makes all of them seconds, also where frames are counted.
        ({"1.jpg": 1, "1.5.jpg": 2}, EVERY_4TH, at(1), [1] * 6 + [2] * 2),
        # Names are rounded: 31 thirtieths of a second are 1.0333... s.
        ({"1.03.jpg": 31}, QUARTER, Moment(31 * NS_PER_S // 30), [31] * 8),
    ],
)
def test_images_are_chosen_by_their_names(tmp_path, names, spacing, moment, expected):
    write_images(tmp_path / "frames" / "v", names)
    footage = Footage(tmp_path, spacing)
    assert footage.holds("v", moment)
    assert shown(footage, moment) == (expected, 4)
    assert shown(footage, moment, 1) == ([expected[4]], 0)


def test_images_of_one_video_may_lie_in_several_folders(tmp_path):
    write_images(tmp_path / "extracted_frames/v", {"8.jpg": 32})
    write_images(tmp_path / "surrounding/v.mp4", {f"{n / 4}.jpg": n for n in range(40) if n % 4})
    # There is no image of second 7; the one before is as near as the one after.
    expected = [27, 29, 30, 31, 32, 33, 34, 35]
    assert shown(Footage(tmp_path, QUARTER), at(8)) == (expected, 4)


@pytest.mark.parametrize(
    ("names", "spacing", "moment"),
    [
        ({"8.jpg": 8}, QUARTER, at(7)),
        ({"8.jpg": 8}, QUARTER, at(9)),
        ({"8.25.jpg": 8}, QUARTER, at(8)),
        ({"47.jpg": 47}, EVERY_4TH, Moment(number=46)),
        ({"47.jpg": 47, "49.jpg": 49}, EVERY_4TH, Moment(number=48)),
        ({"cover.jpg": 0}, QUARTER, at(0)),
    ],
)
def test_an_annotated_frame_without_its_image_is_missing(tmp_path, names, spacing, moment):
    write_images(tmp_path / "v", names)
    assert not Footage(tmp_path, spacing).holds("v", moment)


def test_a_video_is_taken_before_its_images(tmp_path):
    write_images(tmp_path / "v", {"1.jpg": 99})
    path = write_video(tmp_path / "v.mp4", regular(8, 4))
    footage = Footage(tmp_path, QUARTER)
    assert shown(footage, at(1), 1) == ([4], 0)
    assert footage.sources("v", at(1)) == (path,)


def test_sources_of_images_are_the_annotated_one_and_the_folders(tmp_path):
    folder = write_images(tmp_path / "v", {"1.jpg": 1, "2.jpg": 2})
    assert Footage(tmp_path, QUARTER).sources("v", at(2)) == (folder / "2.jpg", folder)


def test_links_are_followed_and_those_that_lead_back_end(tmp_path):
    write_video(tmp_path / "disk" / "v.mp4", regular(4, 4))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "videos").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "root")
    footage = Footage(tmp_path / "root", QUARTER)
    assert footage.holds("v", at(0))
    assert len(footage.files) == 1


def test_a_damaged_image_is_named(tmp_path):
    folder = write_images(tmp_path / "v", {"1.jpg": 1, "2.jpg": 2})
    (folder / "2.jpg").write_bytes((folder / "2.jpg").read_bytes()[:200])
    footage = Footage(tmp_path, QUARTER)
    with pytest.raises(RecordingError, match=r"v/2\.jpg"):
        footage.window("v", at(2), 1)
    assert shown(footage, at(1), 1) == ([1], 0)


def test_images_of_different_sizes_make_no_window(tmp_path):
    folder = write_images(tmp_path / "v", {"1.jpg": 1})
    cv2.imwrite(str(folder / "2.jpg"), numbered_image(2, (40, 60)))
    with pytest.raises(RecordingError, match=r"v: window\.frames: expected frames of one size"):
        Footage(tmp_path, QUARTER).window("v", at(1), 8)


def test_images_are_upright_as_their_exif_says(tmp_path):
    folder = write_images(tmp_path / "v", {"1.jpg": 1}, hw=(40, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.open(folder / "1.jpg").save(folder / "2.jpg", exif=exif)
    (folder / "1.jpg").unlink()
    footage = Footage(tmp_path, QUARTER)
    assert footage.image_hw("v") == (60, 40)
    window, _ = footage.window("v", at(2), 1)
    assert window.hw == (60, 40)


def test_sizes_are_known_without_a_window(tmp_path):
    write_images(tmp_path / "v", {"1.jpg": 1}, hw=(40, 60))
    write_video(tmp_path / "w.mp4", [0, 1], hw=(24, 32))
    (tmp_path / "x.mp4").write_bytes(b"no video")
    footage = Footage(tmp_path, QUARTER)
    sizes = [footage.image_hw(name) for name in ("v", "w", "x", "y")]
    assert sizes == [(40, 60), (24, 32), None, None]


def test_several_threads_and_a_pickled_copy_read_at_once(tmp_path):
    for name in "abc":
        write_video(tmp_path / f"{name}.mp4", regular(60, 10), options={"g": "12"})
    footage = Footage(tmp_path, QUARTER)
    wanted = [(name, place) for place in range(10, 50, 5) for name in "abc"]

    def read(wish):
        name, place = wish
        return shown(footage, at(place / 10), 1, name)[0][0]

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(read, wanted)] == [place for _, place in wanted]
    copy = pickle.loads(pickle.dumps(footage))
    assert shown(copy, at(3), 1, "b") == ([30], 0)


def test_a_root_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(InvalidValueError, match=r"root: expected a folder, got .*nowhere"):
        Footage(tmp_path / "nowhere", QUARTER)

"""The folder that a replay leaves, read back with rosbags, PyAV and OpenCV."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from example_groundings import frame_of, grounding_of
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from videogem_ros.adapters.bag.results import RESULTS, ResultWriter, _fit, _Sheet, action_namespace
from videogem_ros.datatypes import Frame, Grounding
from videogem_ros.errors import RecordingError

HW = (60, 80)
START_NS = 1_700_000_000_123_456_789


def warm(x: int) -> np.ndarray:
    """A 12 x 16 heatmap that is 1 at one column's middle row."""
    values = np.zeros((12, 16), np.float32)
    values[6, x] = 1
    return values


def run() -> list[tuple[Frame, list[Grounding]]]:
    """Three frames, 0.1 and 0.4 s apart, the last with two actions."""
    frames = [frame_of(HW, START_NS + offset) for offset in (0, 100_000_000, 500_000_000)]
    found = [[grounding_of(frame, values=warm(3), xy=(17.0, 32.0))] for frame in frames]
    found[-1].append(grounding_of(frames[-1], "öffne die Tür", values=warm(9), xy=(47.0, 32.0)))
    return list(zip(frames, found))


def write(folder: Path, **options: Any) -> None:
    with ResultWriter(folder, "a recording", **options) as results:
        for frame, groundings in run():
            results.write(frame, groundings)


def messages(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    by_topic: dict[str, list[tuple[int, Any]]] = {}
    with AnyReader([folder], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        for connection, time_ns, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            by_topic.setdefault(connection.topic, []).append((time_ns, message))
    return by_topic


def frame_times(video: Path) -> list[float]:
    with av.open(str(video)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "deep" / "out"
    write(folder)
    return folder


def test_the_folder_holds_the_results_and_nothing_else(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == sorted(RESULTS)


@pytest.mark.parametrize("name", [".", "groundings.mcap"])
def test_the_bag_opens_as_a_folder_and_as_a_file(written: Path, name: str) -> None:
    with Reader(written / name) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
    names = ("heatmap", "overlay/compressed", "point_px", "grounded_action")
    first = {f"/videogem/{name}": 3 for name in names}
    second = {f"/videogem/action_2/{name}": 1 for name in names}
    assert counts == first | second


def test_the_metadata_are_those_that_humble_reads(written: Path) -> None:
    lines = (written / "metadata.yaml").read_text().splitlines()
    assert "  version: 8" in lines
    assert "  storage_identifier: mcap" in lines
    assert "  - groundings.mcap" in lines
    assert "      offered_qos_profiles: ''" in lines


def test_messages_carry_the_sources_header(written: Path) -> None:
    for topic, found in messages(written).items():
        for (time_ns, message), (frame, _) in zip(found[::-1], run()[::-1]):
            assert time_ns == frame.stamp_ns
            if not topic.endswith("grounded_action"):
                stamp = message.header.stamp
                assert (stamp.sec, stamp.nanosec) == divmod(frame.stamp_ns, 10**9)
                assert message.header.frame_id == frame.frame_id


def test_the_heatmap_is_the_source_images_size_and_values(written: Path) -> None:
    for index, namespace in enumerate(("/videogem", "/videogem/action_2")):
        _, message = messages(written)[f"{namespace}/heatmap"][-1]
        assert (message.height, message.width, message.encoding) == (*HW, "32FC1")
        assert (message.step, message.is_bigendian) == (4 * HW[1], 0)
        values = message.data.view("<f4").reshape(HW)
        expected = run()[-1][1][index].heatmap.to_image()
        assert (values == expected).all()
        y, x = np.unravel_index(values.argmax(), HW)
        # 5 source pixels a cell; the middle of cell 6 down, and of cell 3 or 9 across.
        assert (x, y) == ((17, 32), (47, 32))[index]


def test_the_point_is_in_pixels_with_z_zero(written: Path) -> None:
    found = messages(written)
    points = [found[f"/videogem{name}/point_px"][-1][1].point for name in ("", "/action_2")]
    assert [(point.x, point.y, point.z) for point in points] == [(17, 32, 0), (47, 32, 0)]


def test_the_overlay_is_a_jpeg_of_the_source_images_size(written: Path) -> None:
    for _, message in messages(written)["/videogem/overlay/compressed"]:
        assert message.format == "jpeg"
        assert cv2.imdecode(message.data, cv2.IMREAD_COLOR).shape == (*HW, 3)


def test_the_action_is_what_was_grounded(written: Path) -> None:
    found = messages(written)
    assert {m.data for _, m in found["/videogem/grounded_action"]} == {"pick up the red mug"}
    assert found["/videogem/action_2/grounded_action"][0][1].data == "öffne die Tür"


def test_lines_are_the_groundings_in_order(written: Path) -> None:
    lines = (written / "groundings.jsonl").read_text(encoding="utf-8").splitlines()
    expected = [grounding.to_json() for _, groundings in run() for grounding in groundings]
    assert [json.loads(line) for line in lines] == expected


def test_the_same_groundings_make_the_same_files(written: Path, tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("groundings.jsonl", "groundings.mcap", "metadata.yaml", "contact_sheet.png"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_the_video_plays_in_a_browser_and_in_time(written: Path) -> None:
    with av.open(str(written / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.width) == HW
        assert container.duration == pytest.approx(600_000, abs=1000)
    assert frame_times(written / "overlay.mp4") == pytest.approx([0, 0.1, 0.5], abs=1e-4)
    content = (written / "overlay.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays before all of it is there


def test_the_video_shows_the_overlay(written: Path) -> None:
    with av.open(str(written / "overlay.mp4")) as container:
        shown = next(container.decode(video=0)).to_ndarray(format="bgr24")
    _, message = messages(written)["/videogem/overlay/compressed"][0]
    expected = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
    # Noise at a quarter of the colour resolution: only brightness is alike.
    greys = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(int) for image in (shown, expected)]
    assert np.corrcoef(greys[0].ravel(), greys[1].ravel())[0, 1] > 0.95


def test_the_contact_sheet_is_a_picture(written: Path) -> None:
    sheet = cv2.imread(str(written / "contact_sheet.png"))
    assert sheet is not None
    assert sheet.shape[1] > 3 * 480


@pytest.mark.parametrize("hw", [(61, 81), (1, 1), (2, 3)])
def test_odd_and_tiny_frames_are_no_trouble(tmp_path: Path, hw: tuple[int, int]) -> None:
    with ResultWriter(tmp_path / "out", "odd") as results:
        for n in range(3):
            frame = frame_of(hw, START_NS + n)
            results.write(frame, [grounding_of(frame)])
    assert len(frame_times(tmp_path / "out" / "overlay.mp4")) == 3


def test_a_change_of_size_keeps_the_videos_size_and_the_messages_own(tmp_path: Path) -> None:
    sizes = [(60, 80), (80, 60), (240, 320), (60, 80)]
    with ResultWriter(tmp_path / "out", "sizes") as results:
        for n, hw in enumerate(sizes):
            frame = frame_of(hw, START_NS + n * 10**8)
            results.write(frame, [grounding_of(frame)])
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as container:
        assert {(f.height, f.width) for f in container.decode(video=0)} == {(60, 80)}
    heatmaps = messages(tmp_path / "out")["/videogem/heatmap"]
    assert [(message.height, message.width) for _, message in heatmaps] == sizes


@pytest.mark.parametrize(
    ("hw", "rows", "columns"),
    [
        ((60, 80), (0, 60), (0, 80)),
        ((61, 81), (0, 60), (0, 80)),
        ((80, 60), (0, 60), (17, 62)),
        ((60, 240), (20, 40), (0, 80)),
        ((30, 40), (0, 60), (0, 80)),
    ],
)
def test_a_picture_lies_in_the_middle_of_a_video_of_another_size(
    hw: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    expected = np.zeros((60, 80, 3), np.uint8)
    expected[slice(*rows), slice(*columns)] = 200
    assert (_fit(np.full((*hw, 3), 200, np.uint8), (60, 80)) == expected).all()


def test_a_bag_that_starts_over_and_a_long_hole_play_on(tmp_path: Path) -> None:
    stamps_s = [10.0, 10.2, 0.0, 0.2, 0.2, 86400.0, 86400.1]
    with ResultWriter(tmp_path / "out", "jumps") as results:
        for stamp_s in stamps_s:
            frame = frame_of(HW, round(stamp_s * 1e9))
            results.write(frame, [grounding_of(frame)])
    steps = np.diff(frame_times(tmp_path / "out" / "overlay.mp4"))
    assert steps == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.2, 0.1], abs=1e-4)


def test_a_long_run_keeps_twelve_pictures_spread_over_it() -> None:
    sheet = _Sheet()
    for n in range(500):
        frame = frame_of((4, 4), START_NS + n * 10**9)
        sheet.add(frame, [grounding_of(frame)])
    assert len(sheet._kept) < 50
    times = [cell.time_s for cell in sheet.cells()]
    assert len(times) == 12
    assert times[0] == 0
    assert times[-1] >= 450
    assert np.diff(times) == pytest.approx(500 / 12, rel=0.45)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    frame, groundings = run()[0]
    with pytest.raises(error), ResultWriter(tmp_path / "out", "x") as results:
        results.write(frame, groundings)
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_grounded_nothing_leaves_nothing(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "out", "x"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_nothing_has_its_name_before_the_end(tmp_path: Path) -> None:
    frame, groundings = run()[0]
    with ResultWriter(tmp_path, "x") as results:
        results.write(frame, groundings)
        assert not {path.name for path in tmp_path.iterdir()} & set(RESULTS)
    assert {path.name for path in tmp_path.iterdir()} == set(RESULTS)


def test_results_are_replaced_only_by_force_and_only_in_the_end(tmp_path: Path) -> None:
    write(tmp_path)
    before = (tmp_path / "groundings.jsonl").read_bytes()
    with pytest.raises(RecordingError, match=r"holds results already \(groundings\.mcap.*--force"):
        write(tmp_path)
    frame, groundings = run()[0]
    with pytest.raises(ValueError, match="no"), ResultWriter(tmp_path, "x", force=True) as results:
        results.write(frame, groundings)
        raise ValueError("no")
    assert (tmp_path / "groundings.jsonl").read_bytes() == before
    with ResultWriter(tmp_path, "x", force=True) as results:
        results.write(frame, groundings)
    assert len((tmp_path / "groundings.jsonl").read_text().splitlines()) == 1


def test_another_recording_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text("another")
    with pytest.raises(RecordingError, match="another recording"):
        write(tmp_path, force=True)
    assert (tmp_path / "metadata.yaml").read_text() == "another"


def test_a_file_in_the_folders_place_is_one_readable_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("kept")
    with pytest.raises(RecordingError, match="out is a file; choose a folder"):
        write(tmp_path / "out")
    with pytest.raises(RecordingError, match=r"cannot write results to .*out/within: \w+"):
        write(tmp_path / "out" / "within")
    assert (tmp_path / "out").read_text() == "kept"


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_is_one_readable_line_and_leaves_nothing(tmp_path: Path) -> None:
    with files_up_to(10_000), pytest.raises(RecordingError, match="cannot write results to"):
        write(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("index", "namespace"),
    [(0, "/videogem"), (1, "/videogem/action_2"), (7, "/videogem/action_8")],
)
def test_every_action_has_its_namespace(index: int, namespace: str) -> None:
    assert action_namespace(index) == namespace

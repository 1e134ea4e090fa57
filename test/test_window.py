from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogem_ros.datatypes import Frame
from videogem_ros.errors import InvalidValueError
from videogem_ros.window import NS_PER_S, FrameBuffer, Push, WindowConfig

PAPER = WindowConfig(frames=8)  # 0.25 s apart: spans 1.75 s


def frame(time_s: float, hw: tuple[int, int] = (2, 3), frame_id: str = "camera") -> Frame:
    return Frame(np.zeros((*hw, 3), np.uint8), round(time_s * NS_PER_S), frame_id)


def pushed(config: WindowConfig, times_s: Iterable[float]) -> FrameBuffer:
    buffer = FrameBuffer(config)
    for time_s in times_s:
        buffer.push(frame(time_s))
    return buffer


def window_times(buffer: FrameBuffer) -> list[float]:
    window = buffer.window()
    assert window is not None
    return [round(stamp_ns / NS_PER_S, 6) for stamp_ns in window.stamps_ns]


def held_times(buffer: FrameBuffer) -> list[float]:
    return [round(held.stamp_ns / NS_PER_S, 6) for held in buffer]


class TestChoice:
    def test_camera_at_the_interval_gives_its_last_frames(self) -> None:
        buffer = pushed(PAPER, np.arange(20) * 0.25)
        assert window_times(buffer) == [3.0, 3.25, 3.5, 3.75, 4.0, 4.25, 4.5, 4.75]

    def test_fast_camera_frames_between_the_places_are_passed_over(self) -> None:
        buffer = pushed(PAPER, np.arange(41) * 0.05)
        assert window_times(buffer) == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]

    def test_rate_that_does_not_divide_the_interval_gives_the_nearest_frames(self) -> None:
        buffer = pushed(PAPER, np.arange(31) / 10)  # places at 1.25, 1.5, 1.75, 2.0, ...
        assert window_times(buffer) == [1.3, 1.5, 1.8, 2.0, 2.3, 2.5, 2.8, 3.0]

    def test_slow_camera_frames_stand_in_several_places(self) -> None:
        buffer = pushed(PAPER, np.arange(5) * 0.6)
        assert window_times(buffer) == [0.6, 1.2, 1.2, 1.2, 1.8, 1.8, 2.4, 2.4]

    def test_camera_of_one_frame_a_second_is_no_gap(self) -> None:
        buffer = pushed(PAPER, range(4))
        assert window_times(buffer) == [1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0]

    def test_of_two_equally_near_frames_the_newer_is_taken(self) -> None:
        buffer = pushed(WindowConfig(frames=2, frame_interval_s=0.5), [0.0, 1.0, 1.5])
        assert window_times(buffer) == [1.0, 1.5]
        buffer = pushed(WindowConfig(frames=2, frame_interval_s=0.5), [0.8, 1.2, 1.5])
        assert window_times(buffer) == [1.2, 1.5]

    def test_window_of_one_frame_is_the_newest_and_nothing_else_is_held(self) -> None:
        buffer = pushed(WindowConfig(), [0.0, 0.1, 9.0])
        assert window_times(buffer) == [9.0]
        assert held_times(buffer) == [9.0]

    def test_stamps_as_large_as_todays_are_exact(self) -> None:
        now_ns = 1_760_000_000_123_456_789
        buffer = FrameBuffer(WindowConfig(frames=2, frame_interval_s=0.25))
        for back_ns in (500_000_001, 250_000_001, 0):
            buffer.push(Frame(np.zeros((1, 1, 3), np.uint8), now_ns - back_ns))
        window = buffer.window()
        assert window is not None
        assert window.stamps_ns == (now_ns - 250_000_001, now_ns)


class TestStart:
    def test_empty_buffer_has_no_window(self) -> None:
        buffer = FrameBuffer(PAPER)
        assert not buffer.ready
        assert buffer.window() is None
        assert buffer.newest is None

    def test_fill_lets_the_oldest_frame_stand_in_the_places_before_it(self) -> None:
        assert window_times(pushed(PAPER, [5.0])) == [5.0] * 8
        assert window_times(pushed(PAPER, [5.0, 5.25, 5.5])) == [5.0] * 6 + [5.25, 5.5]

    def test_wait_gives_no_window_until_frames_span_it(self) -> None:
        config = WindowConfig(frames=8, start="wait")
        buffer = pushed(config, np.arange(7) * 0.25)
        assert buffer.window() is None
        buffer.push(frame(1.75))
        assert window_times(buffer) == [0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]

    def test_wait_bears_jitter_within_the_tolerance(self) -> None:
        config = WindowConfig(frames=2, start="wait", tolerance_intervals=0.1)
        assert not pushed(config, [0.026, 0.25]).ready
        assert pushed(config, [0.025, 0.25]).ready

    def test_wait_is_over_for_a_camera_slower_than_the_span(self) -> None:
        assert pushed(WindowConfig(frames=2, start="wait"), [0.0, 1.0]).ready

    def test_wait_begins_anew_after_a_restart(self) -> None:
        buffer = pushed(WindowConfig(frames=2, start="wait"), [0.0, 0.25])
        assert buffer.ready
        assert buffer.push(frame(10.0)) is Push.GAP
        assert not buffer.ready


class TestStamps:
    def test_first_frame_is_accepted(self) -> None:
        assert FrameBuffer(PAPER).push(frame(3.0)) is Push.ACCEPTED

    def test_duplicate_stamp_is_dropped_and_the_first_frame_stays(self) -> None:
        buffer, first = FrameBuffer(PAPER), frame(1.0)
        buffer.push(first)
        assert buffer.push(frame(1.0)) is Push.DUPLICATE
        assert list(buffer) == [first]

    def test_driver_that_stamps_nothing_yields_duplicates(self) -> None:
        buffer = FrameBuffer(PAPER)
        assert [buffer.push(frame(0.0)) for _ in range(3)] == [
            Push.ACCEPTED,
            Push.DUPLICATE,
            Push.DUPLICATE,
        ]

    def test_duplicate_of_an_older_frame_is_dropped(self) -> None:
        assert pushed(PAPER, [1.0, 1.25]).push(frame(1.0)) is Push.DUPLICATE

    def test_out_of_order_frame_takes_its_place_and_the_newest_stays(self) -> None:
        buffer = pushed(PAPER, [0.0, 0.5])
        assert buffer.push(frame(0.25)) is Push.OUT_OF_ORDER
        assert held_times(buffer) == [0.0, 0.25, 0.5]
        assert window_times(buffer)[-3:] == [0.0, 0.25, 0.5]

    def test_out_of_order_frame_may_be_the_oldest(self) -> None:
        buffer = pushed(PAPER, [0.5])
        assert buffer.push(frame(0.25)) is Push.OUT_OF_ORDER
        assert held_times(buffer) == [0.25, 0.5]

    def test_frame_that_no_window_can_choose_any_more_is_late(self) -> None:
        buffer = pushed(WindowConfig(frames=2), [1.0, 1.3, 1.35])
        assert held_times(buffer) == [1.0, 1.3, 1.35]
        assert buffer.push(frame(0.99)) is Push.LATE
        assert buffer.push(frame(1.05)) is Push.OUT_OF_ORDER

    def test_with_windows_of_one_frame_every_older_frame_is_late(self) -> None:
        assert pushed(WindowConfig(), [1.0]).push(frame(0.9)) is Push.LATE


class TestRestarts:
    def test_looping_recording_restarts(self) -> None:
        buffer = pushed(PAPER, np.arange(12) * 0.25)
        assert buffer.push(frame(0.0)) is Push.TIME_JUMP
        assert window_times(buffer) == [0.0] * 8
        assert buffer.push(frame(0.25)) is Push.ACCEPTED

    @pytest.mark.parametrize(
        ("back_s", "outcome"), [(0.5, Push.OUT_OF_ORDER), (0.51, Push.TIME_JUMP)]
    )
    def test_time_jump_is_what_lies_further_back_than_configured(
        self, back_s: float, outcome: Push
    ) -> None:
        assert (
            pushed(WindowConfig(frames=8, time_jump_s=0.5), [5.0]).push(frame(5.0 - back_s))
            is outcome
        )

    @pytest.mark.parametrize(("hole_s", "outcome"), [(2.0, Push.ACCEPTED), (2.01, Push.GAP)])
    def test_gap_is_a_hole_longer_than_configured(self, hole_s: float, outcome: Push) -> None:
        buffer = pushed(PAPER, [0.0])  # eight intervals of 0.25 s
        assert buffer.push(frame(hole_s)) is outcome

    @pytest.mark.parametrize(("hole_s", "outcome"), [(1.5, Push.ACCEPTED), (1.51, Push.GAP)])
    def test_gap_is_counted_in_intervals(self, hole_s: float, outcome: Push) -> None:
        config = WindowConfig(frames=8, frame_interval_s=0.5, max_gap_intervals=3)
        assert pushed(config, [0.0]).push(frame(hole_s)) is outcome

    def test_window_after_a_gap_holds_nothing_from_before(self) -> None:
        buffer = pushed(PAPER, [0.0, 0.25, 0.5, 4.0, 4.25])
        assert window_times(buffer) == [4.0] * 7 + [4.25]

    def test_windows_of_one_frame_know_no_gap(self) -> None:
        assert pushed(WindowConfig(), [0.0]).push(frame(1e6)) is Push.ACCEPTED

    def test_straggler_from_before_a_gap_is_late(self) -> None:
        buffer = pushed(WindowConfig(frames=8, time_jump_s=10), [0.0, 4.0])
        assert buffer.push(frame(0.25)) is Push.LATE
        assert buffer.push(frame(3.5)) is Push.OUT_OF_ORDER

    def test_change_of_resolution_restarts(self) -> None:
        buffer = pushed(PAPER, [0.0, 0.25])
        assert buffer.push(frame(0.5, hw=(4, 6))) is Push.RESOLUTION
        window = buffer.window()
        assert window is not None
        assert window.hw == (4, 6)
        assert window_times(buffer) == [0.5] * 8

    def test_change_of_the_optical_frame_restarts(self) -> None:
        buffer = pushed(PAPER, [0.0, 0.25])
        assert buffer.push(frame(0.5, frame_id="other")) is Push.CAMERA
        assert window_times(buffer) == [0.5] * 8

    def test_straggler_of_the_old_resolution_is_late_and_restarts_nothing(self) -> None:
        buffer = pushed(PAPER, [0.0])
        buffer.push(frame(0.5, hw=(4, 6)))
        assert buffer.push(frame(0.25)) is Push.LATE
        assert held_times(buffer) == [0.5]

    def test_stray_stamp_in_the_future_is_survived(self) -> None:
        buffer = pushed(PAPER, [0.0, 0.25])
        assert buffer.push(frame(1e6)) is Push.GAP
        assert buffer.push(frame(0.5)) is Push.TIME_JUMP
        assert window_times(buffer) == [0.5] * 8

    def test_clear_forgets_every_frame(self) -> None:
        buffer = pushed(PAPER, [0.0, 0.25])
        buffer.clear()
        assert len(buffer) == 0
        assert buffer.push(frame(0.25)) is Push.ACCEPTED

    @pytest.mark.parametrize("outcome", Push)
    def test_outcomes_say_whether_the_frame_was_kept_and_others_dropped(
        self, outcome: Push
    ) -> None:
        assert outcome.kept == (outcome not in (Push.DUPLICATE, Push.LATE))
        assert outcome.restarted == outcome.value.startswith("restarted")


class TestMemory:
    def test_frames_no_window_can_choose_are_dropped(self) -> None:
        buffer = pushed(WindowConfig(frames=2), np.arange(100) * 0.1)
        assert held_times(buffer) == [9.6, 9.7, 9.8, 9.9]  # the oldest place is 9.65

    def test_camera_of_1000_hz_is_thinned_out(self) -> None:
        buffer = FrameBuffer(PAPER)
        most = 0
        for stamp_ms in range(5000):
            buffer.push(frame(stamp_ms / 1000))
            most = max(most, len(buffer))
        # Any three frames held span more than twice the tolerance of 25 ms.
        assert most <= 2 * 1.75 / 0.05 + 3
        places_s = 4.999 - 0.25 * np.arange(7, -1, -1)
        assert np.abs(np.array(window_times(buffer)) - places_s).max() <= 0.025 + 1e-9

    def test_without_tolerance_no_frame_in_the_span_is_thinned_out(self) -> None:
        config = WindowConfig(frames=2, tolerance_intervals=0, max_buffer_frames=1000)
        buffer = pushed(config, np.arange(2000) / 1000)
        assert len(buffer) == 251

    @pytest.mark.parametrize(
        "bound", [{"max_buffer_frames": 10}, {"max_buffer_bytes": 10 * 2 * 3 * 3 + 1}]
    )
    def test_at_a_bound_the_span_stays_covered(self, bound: dict[str, int]) -> None:
        buffer = FrameBuffer(WindowConfig(frames=8, start="wait", **bound))
        for index in range(300):
            buffer.push(frame(index / 30))
            assert len(buffer) <= 10
        assert buffer.nbytes == len(buffer) * 18
        places_s = 299 / 30 - 0.25 * np.arange(7, -1, -1)
        # Ten frames over 1.75 s: thinning leaves no hole of more than twice an even spacing.
        assert np.abs(np.array(window_times(buffer)) - places_s).max() <= 1.75 / 9

    @pytest.mark.parametrize("bound", [{"max_buffer_frames": 8}, {"max_buffer_bytes": 8 * 18}])
    def test_a_bound_of_one_window_holds_a_whole_window(self, bound: dict[str, int]) -> None:
        buffer = pushed(WindowConfig(frames=8, **bound), np.arange(20) * 0.25)
        assert window_times(buffer) == [3.0, 3.25, 3.5, 3.75, 4.0, 4.25, 4.5, 4.75]

    def test_images_larger_than_the_bound_leave_the_outermost_two(self) -> None:
        buffer = pushed(WindowConfig(frames=8, max_buffer_bytes=1), np.arange(8) * 0.25)
        assert held_times(buffer) == [0.0, 1.75]


@st.composite
def streams(draw: st.DrawFn) -> list[int]:
    """Stamps in milliseconds, of any rate, jittered and out of order by up to 400 ms."""
    longest = draw(st.integers(1, 120))
    steps = draw(st.lists(st.integers(0, longest), min_size=1, max_size=60))
    stamps_ms = np.cumsum(steps)
    delays_ms = draw(st.lists(st.integers(0, 400), min_size=len(steps), max_size=len(steps)))
    return [int(stamps_ms[at]) for at in np.argsort(stamps_ms + delays_ms, kind="stable")]


@settings(max_examples=200, deadline=None)
@given(
    stamps_ms=streams(),
    frames=st.integers(1, 5),
    interval_s=st.sampled_from([0.02, 0.1, 0.25]),
    tolerance=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_chosen_frames_are_nearest_of_all_ever_pushed_or_within_the_tolerance(
    stamps_ms: list[int], frames: int, interval_s: float, tolerance: float
) -> None:
    config = WindowConfig(
        frames=frames,
        frame_interval_s=interval_s,
        tolerance_intervals=tolerance,
        max_gap_intervals=1000,
    )
    buffer = FrameBuffer(config)
    seen: list[int] = []
    for stamp_ms in stamps_ms:
        outcome = buffer.push(frame(stamp_ms / 1000))
        assert not outcome.restarted
        seen.append(stamp_ms * 1_000_000)
        window = buffer.window()
        assert window is not None
        assert window.newest.stamp_ns == max(seen)
        for back, chosen_ns in enumerate(reversed(window.stamps_ns)):
            place_ns = max(seen) - back * interval_s * NS_PER_S
            nearest_ns = min(abs(stamp_ns - place_ns) for stamp_ns in seen)
            assert abs(chosen_ns - place_ns) <= max(nearest_ns, tolerance * interval_s * NS_PER_S)
    held = [one.stamp_ns for one in buffer]
    assert held == sorted(set(held))


@settings(max_examples=100, deadline=None)
@given(
    pushes=st.lists(
        st.tuples(
            st.integers(0, 20_000), st.sampled_from([(1, 1), (2, 1)]), st.sampled_from(["", "a"])
        ),
        max_size=80,
    ),
    start=st.sampled_from(["fill", "wait"]),
    bound=st.integers(4, 9),
)
def test_any_stream_leaves_a_sound_buffer(
    pushes: list[tuple[int, tuple[int, int], str]], start: str, bound: int
) -> None:
    config = WindowConfig(frames=4, start=start, max_buffer_frames=bound)  # type: ignore[arg-type]
    buffer = FrameBuffer(config)
    for stamp_ms, hw, frame_id in pushes:
        newest = buffer.newest
        one = frame(stamp_ms / 1000, hw, frame_id)
        outcome = buffer.push(one)
        held = list(buffer)
        assert 1 <= len(held) <= bound
        assert len({(each.hw, each.frame_id) for each in held}) == 1
        assert (buffer.newest is not newest) == (outcome is Push.ACCEPTED or outcome.restarted)
        if outcome.restarted:
            assert held == [one]
        window = buffer.window()
        assert (window is not None) == buffer.ready
        assert window is None or window.newest is buffer.newest


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("frames", 0, "frames: expected a whole number of at least 1, got 0"),
        ("frames", 2.5, "frames: expected a whole number of at least 1, got 2.5"),
        ("frame_interval_s", 0, "frame_interval_s: expected a number in [1e-09, 1e+06], got 0"),
        ("frame_interval_s", 1e300, "expected a number in [1e-09, 1e+06], got 1e+300"),
        ("frame_interval_s", math.nan, "got nan"),
        ("frame_interval_s", "0.25", "got 0.25"),
        ("start", "repeat", "start: expected one of fill, wait, got repeat"),
        ("tolerance_intervals", 0.6, "expected a number in [0, 0.5], got 0.6"),
        ("tolerance_intervals", -0.1, "got -0.1"),
        ("max_gap_intervals", 0.9, "max_gap_intervals: expected a number of at least 1, got 0.9"),
        ("max_gap_intervals", math.inf, "got inf"),
        ("time_jump_s", -1, "time_jump_s: expected a number in [0, 1e+06], got -1"),
        ("max_buffer_frames", 7, "expected a whole number of at least 8, got 7"),
        ("max_buffer_bytes", 0, "max_buffer_bytes: expected a whole number of at least 1, got 0"),
    ],
)  # fmt: skip
def test_configuration_refuses_what_cannot_be(field: str, value: object, message: str) -> None:
    with pytest.raises(InvalidValueError) as error:
        WindowConfig(**{"frames": 8, field: value})  # type: ignore[arg-type]
    assert message in str(error.value)
    assert error.value.field == field

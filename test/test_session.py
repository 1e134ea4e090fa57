from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
import torch

from videogem_ros.core import Grounder, GroundingConfig
from videogem_ros.core.backbones import Backbone
from videogem_ros.core.grounder import FrameChoice
from videogem_ros.datatypes import PROMPT_KINDS, Action, Features, Frame, Grounding, Window
from videogem_ros.errors import InvalidValueError
from videogem_ros.language import parse_actions
from videogem_ros.session import Session, SessionConfig, Status
from videogem_ros.window import NS_PER_S, Push

TOLERANCE = 1e-4
"""Float32, heatmaps in [0, 1]: a frame encoded by itself against the same frame in a batch."""


class CountingGrounder(Grounder):
    """The real thing; keeps what was encoded when, and of its features only weak references."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.encoded: list[tuple[int, ...]] = []
        self.features: list[weakref.ref[Features]] = []
        self.located: list[tuple[int, ...]] = []

    def encode(self, window: Window, frames: FrameChoice = "newest") -> Features:
        features = super().encode(window, frames)
        stamps = window.stamps_ns
        if self.backbone.window_frames == 1:  # which encodes the wanted frames only
            stamps = tuple(stamps[index] for index in features.frames)
        self.encoded.append(stamps)
        self.features.append(weakref.ref(features))
        return features

    def locate(
        self, features: Features, window: Window, actions: Sequence[Action]
    ) -> list[Grounding]:
        self.located.append(features.frames)
        return super().locate(features, window, actions)

    @property
    def features_alive(self) -> int:
        return sum(features() is not None for features in self.features)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Backbones this small only wait for each other's threads, long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def image_grounder(tiny_image_backbone: Backbone) -> CountingGrounder:
    return CountingGrounder(tiny_image_backbone)


@pytest.fixture
def video_grounder(tiny_video_backbone: Backbone) -> CountingGrounder:
    return CountingGrounder(tiny_video_backbone)


def frame(time_s: float, seed: int | None = None, hw: tuple[int, int] = (48, 64)) -> Frame:
    """A frame of noise, another for every stamp (or seed)."""
    stamp_ns = round(time_s * NS_PER_S)
    noise = np.random.default_rng(stamp_ns if seed is None else seed)
    return Frame(noise.integers(0, 256, (*hw, 3), np.uint8), stamp_ns, "camera")


def session_of(grounder: Grounder, **settings: Any) -> Session:
    session = Session(grounder, SessionConfig(**settings))
    session.set_action("open the drawer")
    return session


def push(session: Session, times_s: Iterable[float]) -> None:
    for time_s in times_s:
        session.push(frame(time_s))


def from_scratch(
    grounder: CountingGrounder, session: Session, frames: FrameChoice = "newest"
) -> list[Grounding]:
    """The session's newest window grounded by a grounder that has seen nothing before."""
    window = session.window()
    assert window is not None
    return Grounder(grounder.backbone).ground(window, session.actions, frames)


def assert_equal(groundings: Sequence[Grounding], expected: Sequence[Grounding]) -> None:
    assert len(groundings) == len(expected) > 0
    for one, other in zip(groundings, expected):
        for field in (
            *("action", "frame_index", "stamp_ns"),
            *("window_start_ns", "window_end_ns", "frames_used"),
        ):
            assert getattr(one, field) == getattr(other, field)
        assert one.score == pytest.approx(other.score, abs=TOLERANCE)
        np.testing.assert_allclose(one.layer_weights, other.layer_weights, atol=TOLERANCE)
        for name, heatmap in other.heatmaps.items():
            np.testing.assert_allclose(one.heatmaps[name].values, heatmap.values, atol=TOLERANCE)
        for name in PROMPT_KINDS:
            # Noise has flat peaks, on which rounding decides: the point must lie on the peak.
            peaked = replace(
                other, points={"fused": one.points[name]}, heatmaps={"fused": other.heatmaps[name]}
            )
            assert peaked.agreement == pytest.approx(1.0, abs=TOLERANCE)


class TestConfiguration:
    def test_frames_are_the_backbones_unless_said_otherwise(
        self, image_grounder: CountingGrounder, video_grounder: CountingGrounder
    ) -> None:
        assert Session(image_grounder).config.frames == 1
        assert Session(video_grounder).config.frames == 8
        assert Session(image_grounder, SessionConfig(frames=5)).config.frames == 5

    def test_video_backbone_refuses_another_number_of_frames(
        self, video_grounder: CountingGrounder
    ) -> None:
        assert Session(video_grounder, SessionConfig(frames=8)).config.frames == 8
        with pytest.raises(InvalidValueError, match=r"frames: expected the 8 that .* got 4"):
            Session(video_grounder, SessionConfig(frames=4))

    def test_buffer_must_hold_the_backbones_frames(self, video_grounder: CountingGrounder) -> None:
        with pytest.raises(InvalidValueError, match=r"max_buffer_frames: .* at least 8, got 7"):
            Session(video_grounder, SessionConfig(max_buffer_frames=7))

    @pytest.mark.parametrize(
        ("field", "value"),
        [("ground", "oldest"), ("max_actions", 0), ("max_feature_bytes", -1), ("frames", 0)],
    )
    def test_refuses_what_cannot_be(self, field: str, value: object) -> None:
        with pytest.raises(InvalidValueError) as error:
            SessionConfig(**{field: value})  # type: ignore[arg-type]
        assert error.value.field == field


class TestStatus:
    def test_something_else_than_a_frame_is_refused(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = Session(image_grounder)
        with pytest.raises(InvalidValueError, match=r"frame: expected a Frame, got .* ndarray"):
            session.push(frame(0).image)  # type: ignore[arg-type]
        assert session.counts.pushed == 0

    def test_says_why_there_is_nothing_to_ground(self, image_grounder: CountingGrounder) -> None:
        session = Session(image_grounder, SessionConfig(frames=2, start="wait"))
        assert session.status is Status.NO_FRAMES
        assert session.window() is None
        push(session, [0.0])
        assert session.status is Status.WAITING_FOR_FRAMES
        assert session.window() is None
        push(session, [0.25])
        assert session.status is Status.NO_COMMAND
        assert session.window() is not None
        assert session.ground() == []
        session.set_action("open the drawer")
        assert session.status is Status.READY
        assert len(session.ground()) == 1
        assert session.status is Status.NOTHING_NEW
        assert session.ground() == []
        push(session, [0.5])
        assert session.status is Status.READY
        session.set_action("")
        assert session.status is Status.NO_COMMAND
        session.reset()
        assert session.status is Status.NO_FRAMES
        assert image_grounder.encoded == [(250_000_000,)]


class TestCommand:
    @pytest.fixture
    def session(self, image_grounder: CountingGrounder) -> Session:
        return Session(image_grounder)

    def test_action_is_parsed_and_stands(self, session: Session) -> None:
        assert session.actions == ()
        assert session.set_action("Open the drawer!") == parse_actions("Open the drawer!")
        assert session.actions == parse_actions("Open the drawer!")

    def test_lines_and_conjunctions_give_several_actions(self, session: Session) -> None:
        actions = session.set_action(
            "open the drawer\n\n  pick up the cup and place it on the plate\r\n"
        )
        assert [action.verb_lemma for action in actions] == ["open", "pick", "place"]
        texts = ["open the drawer", "pick up the cup and place it on the plate"]
        assert session.set_actions(texts) == actions

    def test_equal_actions_stand_once(self, session: Session) -> None:
        assert len(session.set_action("open the drawer\nopen the drawer")) == 1

    @pytest.mark.parametrize("text", ["", "  ", "\n \t\n"])
    def test_empty_text_stops(self, session: Session, text: str) -> None:
        session.set_action("open the drawer")
        assert session.set_action(text) == ()
        assert session.actions == ()

    @pytest.mark.parametrize("text", ["?!", "open the drawer\n...", "\N{HAMMER}" * 1024])
    def test_text_without_words_is_refused_and_the_command_stays(
        self, session: Session, text: str
    ) -> None:
        standing = session.set_action("pour the milk")
        with pytest.raises(InvalidValueError, match="action: expected a text with words") as error:
            session.set_action(text)
        assert len(str(error.value)) < 200
        assert session.actions == standing
        assert session.command_id == 1

    @pytest.mark.parametrize("text", [["open the drawer"], None, b"open the drawer"])
    def test_something_else_than_a_text_is_refused(self, session: Session, text: Any) -> None:
        for give in (session.set_action, session.add_actions):
            with pytest.raises(InvalidValueError, match="action: expected a text"):
                give(text)

    def test_a_single_text_in_place_of_several_is_refused(self, session: Session) -> None:
        for give in (session.set_actions, session.parse):
            with pytest.raises(InvalidValueError, match="several texts; set_action takes one"):
                give("cut")

    def test_more_actions_than_allowed_are_refused_and_the_command_stays(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = Session(image_grounder, SessionConfig(max_actions=2))
        standing = session.set_action("open the drawer\npour the milk")
        with pytest.raises(InvalidValueError, match="at most 2 actions, got 3"):
            session.set_action("open the drawer\npour the milk\ncut the bread")
        assert session.actions == standing

    def test_a_command_that_would_take_seconds_to_parse_is_refused_unparsed(
        self, image_grounder: CountingGrounder
    ) -> None:
        parsed: list[str] = []

        def parse(text: str) -> tuple[Action, ...]:
            parsed.append(text)
            return parse_actions(text)

        session = Session(image_grounder, parse=parse)
        standing = session.set_action("pour the milk")
        for text in ("pick up the cup " * 257, "pick up\n" * 2**17):
            with pytest.raises(InvalidValueError, match="action: expected at most 4096 char"):
                session.set_action(text)
        assert parsed == ["pour the milk"]
        assert session.actions == standing

    def test_actions_may_be_added_and_the_oldest_go(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = Session(image_grounder, SessionConfig(max_actions=2))
        for text in ("open the door", "close the door", "open the door"):
            session.add_actions(text)
        assert [action.verb for action in session.actions] == ["open", "close"]
        session.add_actions("wash the cup")
        assert [action.verb for action in session.actions] == ["close", "wash"]
        with pytest.raises(InvalidValueError, match="words"):
            session.add_actions("?!")
        assert session.command_id == 4
        assert session.add_actions("") == session.actions == ()
        assert session.command_id == 5

    def test_every_command_has_its_number(self, session: Session) -> None:
        ids = [session.command_id]
        for text in ("open the drawer", "open the drawer", ""):
            session.set_action(text)
            ids.append(session.command_id)
        assert ids == [0, 1, 2, 3]

    def test_parser_can_be_another(self, image_grounder: CountingGrounder) -> None:
        session = Session(image_grounder, parse=lambda text: (Action(text, text.upper()),))
        assert session.set_action("open it")[0].phrase == "OPEN IT"


class TestGrounding:
    def test_newest_window_wins_and_older_ones_are_counted(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = session_of(image_grounder)
        push(session, [0.0, 0.1, 0.2])
        (grounding,) = session.ground()
        assert grounding.stamp_ns == 200_000_000
        push(session, [0.3])
        session.ground()
        assert session.counts.windows_grounded == 2
        assert session.counts.windows_superseded == 2

    def test_frames_without_a_command_are_not_superseded_windows(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = Session(image_grounder)
        push(session, [0.0, 0.1])
        assert session.counts.windows_superseded == 0

    def test_frame_that_is_not_the_newest_makes_no_new_window(
        self, video_grounder: CountingGrounder
    ) -> None:
        session = session_of(video_grounder)
        push(session, [0.0, 0.5])
        session.ground()
        assert session.push(frame(0.25)) is Push.OUT_OF_ORDER
        assert session.status is Status.NOTHING_NEW

    def test_new_command_grounds_the_same_window_without_an_encoder_pass(
        self, video_grounder: CountingGrounder
    ) -> None:
        session = session_of(video_grounder)
        push(session, np.arange(8) * 0.25)
        session.ground()
        session.set_action("pour the milk\ncut the bread")
        groundings = session.ground()
        assert [grounding.action.verb for grounding in groundings] == ["pour", "cut"]
        assert len(video_grounder.encoded) == 1
        assert_equal(groundings, from_scratch(video_grounder, session))

    def test_another_configuration_grounds_what_is_known_without_an_encoder_pass(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = session_of(image_grounder)
        push(session, [0.0])
        (before,) = session.ground()
        uniform = replace(image_grounder.config, weighting="uniform")
        session.use(image_grounder.with_config(uniform))
        session.set_action("open the drawer")
        (after,) = session.ground()
        assert len(image_grounder.encoded) == session.counts.encoder_passes == 1
        assert (after.layer_weights == 1).all()
        assert not (before.layer_weights == 1).all()
        (expected,) = Grounder(image_grounder.backbone, uniform).ground(
            Window((frame(0.0),)), session.actions
        )
        assert (after.point.x, after.point.y) == (expected.point.x, expected.point.y)

    def test_a_configuration_of_other_features_is_refused(
        self, image_grounder: CountingGrounder
    ) -> None:
        for change in ({"resize": "letterbox"}, {"image_hw": (32, 32)}):
            other = replace(image_grounder.config, **change)
            with pytest.raises(InvalidValueError, match="features depend on"):
                image_grounder.with_config(other)

    def test_other_actions_leave_the_standing_command_alone(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = session_of(image_grounder)
        asked = session.parse(["pour the milk"])
        assert session.take_for(asked) is None
        push(session, [0.0])
        job = session.take_for(asked)
        assert job is not None
        (grounding,) = session.run(job)
        assert grounding.action.verb == "pour"
        assert session.status is Status.READY
        (grounding,) = session.ground()
        assert grounding.action.verb == "open"
        assert len(image_grounder.encoded) == 1

    def test_job_carries_the_command_it_was_taken_for(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = session_of(image_grounder)
        push(session, [0.0])
        job = session.take()
        assert job is not None
        session.set_action("pour the milk")
        push(session, [0.1])
        (grounding,) = session.run(job)
        assert (job.command_id, grounding.action.verb, grounding.stamp_ns) == (1, "open", 0)
        assert session.status is Status.READY

    def test_reset_forgets_the_frames_and_keeps_the_command(
        self, image_grounder: CountingGrounder
    ) -> None:
        session, one = session_of(image_grounder), frame(0.0)
        session.push(one)
        session.ground()
        session.reset()
        assert session.window() is None
        session.push(one)
        assert len(session.ground()) == 1

    def test_session_survives_a_window_that_fails(
        self, image_grounder: CountingGrounder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = session_of(image_grounder)
        push(session, [0.0])
        with monkeypatch.context() as broken:
            broken.setattr(image_grounder, "encode", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                session.ground()
        assert session.counts.windows_grounded == 0
        push(session, [0.1])
        assert_equal(session.ground(), from_scratch(image_grounder, session))

    @pytest.mark.parametrize("ground", ["newest", "all"])
    def test_video_window_is_grounded_as_from_scratch(
        self, video_grounder: CountingGrounder, ground: Any
    ) -> None:
        session = session_of(video_grounder, ground=ground)
        for index in range(12):
            push(session, [index * 0.25])
            if index in (0, 3, 11):
                assert_equal(session.ground(), from_scratch(video_grounder, session, ground))
                assert video_grounder.features_alive == 1


class TestFeaturesOfAnImageBackbone:
    def test_only_the_newest_frame_is_encoded_where_only_it_is_grounded(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = session_of(image_grounder, frames=4)
        for index in range(6):
            push(session, [index * 0.25])
            assert_equal(session.ground(), from_scratch(image_grounder, session))
            assert image_grounder.features_alive == 1
        assert image_grounder.encoded == [(index * 250_000_000,) for index in range(6)]

    @pytest.mark.parametrize("rate_hz", [2, 4, 10, 30])
    def test_every_frame_is_encoded_once_whatever_the_rate(
        self, image_grounder: CountingGrounder, rate_hz: int
    ) -> None:
        session = session_of(image_grounder, frames=3, ground="all")
        count = 6 + rate_hz
        for index in range(count):
            push(session, [index / rate_hz])
            groundings = session.ground()
            assert [grounding.frame_index for grounding in groundings] == [0, 1, 2]
            if index % 9 == 0:
                assert_equal(groundings, from_scratch(image_grounder, session, "all"))
        assert len(image_grounder.encoded) == count
        counts = session.counts
        assert counts.encoder_passes == count
        assert counts.encoder_passes_saved == 2 * count
        assert image_grounder.features_alive <= counts.buffered_frames

    def test_features_go_with_their_frames(self, image_grounder: CountingGrounder) -> None:
        session = session_of(image_grounder, frames=3, ground="all")
        push(session, [0.0, 0.25, 0.5])
        session.ground()
        assert image_grounder.features_alive == 3
        session.push(frame(0.75, hw=(64, 48)))
        assert_equal(session.ground(), from_scratch(image_grounder, session, "all"))
        assert image_grounder.features_alive == 1

    def test_heatmaps_go_with_their_frames(self, image_grounder: CountingGrounder) -> None:
        session = session_of(image_grounder, frames=3, ground="all")
        push(session, [0.0, 0.25, 0.5])
        known = [weakref.ref(grounding.heatmap) for grounding in session.ground()]
        assert all(heatmap() is not None for heatmap in known)
        session.push(frame(0.75, hw=(64, 48)))
        session.ground()
        assert all(heatmap() is None for heatmap in known)

    def test_no_features_are_kept_where_none_may_be(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = session_of(image_grounder, frames=3, max_feature_bytes=0)
        push(session, [0.0])
        session.ground()
        assert image_grounder.features_alive == 0

    def test_looping_recording_is_never_answered_from_the_loop_before(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = session_of(image_grounder, frames=3, ground="all")
        for seed in range(2):
            for index in range(4):
                session.push(frame(index * 0.25, seed=10 * seed + index))
                assert_equal(session.ground(), from_scratch(image_grounder, session, "all"))
        assert session.counts.pushes[Push.TIME_JUMP] == 1
        assert len(image_grounder.encoded) == 8

    def test_a_frame_is_grounded_once_for_an_action(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = session_of(image_grounder, frames=3, ground="all")
        for index in range(5):
            push(session, [index * 0.25])
            assert_equal(session.ground(), from_scratch(image_grounder, session, "all"))
        assert image_grounder.located == [(0,), (2,), (2,), (2,), (2,)]  # the first one repeated
        session.set_action("pour the milk")
        assert_equal(session.ground(), from_scratch(image_grounder, session, "all"))
        assert image_grounder.located[5:] == [(0, 1, 2)]
        session.set_actions(["open the drawer", "pour the milk"])
        assert_equal(session.ground(), from_scratch(image_grounder, session, "all"))
        assert len(image_grounder.located) == 6
        session.add_actions("close the door")  # beside two that are known
        assert_equal(session.ground(), from_scratch(image_grounder, session, "all"))
        assert len(image_grounder.encoded) == 5

    def test_groundings_of_another_configuration_are_not_taken(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = session_of(image_grounder, frames=3, ground="all")
        push(session, [0.0, 0.25, 0.5])
        before = session.ground()
        config = GroundingConfig(weighting="uniform")
        session.use(image_grounder.with_config(config))
        push(session, [0.75])
        window = session.window()
        assert window is not None
        expected = Grounder(image_grounder.backbone, config).ground(window, session.actions, "all")
        found = session.ground()
        assert_equal(found, expected)
        assert not np.array_equal(found[0].heatmap.values, before[1].heatmap.values)

    def test_nobody_can_change_what_later_windows_share(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = session_of(image_grounder, frames=3, ground="all")
        push(session, [0.0, 0.25])
        for grounding in session.ground():
            with pytest.raises(ValueError, match="read-only"):
                grounding.heatmap.values[0] = 0
            with pytest.raises(ValueError, match="read-only"):
                grounding.layer_weights[0] = 0
            with pytest.raises(ValueError, match="read-only"):
                grounding.prompt_probabilities[0] = 0

    def test_what_is_kept_keeps_no_more_in_memory(self, image_grounder: CountingGrounder) -> None:
        session = session_of(image_grounder, frames=3, ground="all")
        session.set_action("open the drawer and push the button")
        push(session, [0.0, 0.25, 0.5])
        for grounding in session.ground():
            for heatmap in grounding.heatmaps.values():
                assert heatmap.values.base is None

    def test_an_action_that_is_asked_for_twice_is_answered_twice(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = session_of(image_grounder, frames=2, ground="all")
        push(session, [0.0, 0.25])
        job = session.take_for(session.actions * 2)
        assert job is not None
        first, second = np.split(np.array(session.run(job)), 2)
        assert_equal(list(first), list(second))

    @pytest.mark.parametrize("meanwhile", ["encode", "locate"])
    def test_another_configuration_during_a_run_holds_from_the_next_one_on(
        self, tiny_image_backbone: Backbone, meanwhile: str
    ) -> None:
        """The change comes while the worker is at it, as a callback's may."""

        class Interrupted(CountingGrounder):
            change: Callable[[], None] | None = None

            def encode(self, window: Window, frames: FrameChoice = "newest") -> Features:
                self.interrupt("encode")
                return super().encode(window, frames)

            def locate(self, *arguments: Any) -> list[Grounding]:
                found = super().locate(*arguments)
                self.interrupt("locate")
                return found

            def interrupt(self, where: str) -> None:
                if where == meanwhile and self.change:
                    change, self.change = self.change, None
                    change()

        grounder = Interrupted(tiny_image_backbone)
        session = session_of(grounder, frames=2, ground="all")
        push(session, [0.0, 0.25])
        before = session.ground()
        uniform = grounder.with_config(replace(grounder.config, weighting="uniform"))
        push(session, [0.5])
        grounder.change = lambda: session.use(uniform)
        during = session.ground()
        assert grounder.change is None
        assert_equal(
            during[:1],
            [
                replace(
                    before[1],
                    frame_index=0,
                    window_start_ns=250_000_000,
                    window_end_ns=500_000_000,
                )
            ],
        )
        push(session, [0.75])
        after = session.ground()
        assert all((found.layer_weights == 1).all() for found in after)
        assert not any((found.layer_weights == 1).all() for found in (*before, *during))

    @pytest.mark.parametrize(("pieces", "passes"), [(0, 12), (1, 9), (2, 6), (3, 6)])
    def test_bytes_of_features_are_bounded(
        self, image_grounder: CountingGrounder, pieces: int, passes: int
    ) -> None:
        features = Grounder(image_grounder.backbone).encode(Window((frame(0.0),)))
        nbytes = features.patch_terms.nbytes + features.class_terms.nbytes
        session = session_of(
            image_grounder, frames=3, ground="all", max_feature_bytes=pieces * nbytes
        )
        push(session, [0.0, 0.25])
        for index in range(2, 6):
            push(session, [index * 0.25])
            assert_equal(session.ground(), from_scratch(image_grounder, session, "all"))
            assert image_grounder.features_alive <= pieces
        assert len(image_grounder.encoded) == passes


class TestCounts:
    def test_every_frame_is_counted_by_what_became_of_it(
        self, image_grounder: CountingGrounder
    ) -> None:
        session = session_of(image_grounder, frames=3)
        times_s = [1.0, 1.25, 1.25, 1.5, 1.4, 0.6, 1.1, 9.0, 9.25]
        outcomes = [session.push(frame(time_s)) for time_s in times_s]
        outcomes.append(session.push(frame(9.5, hw=(8, 8))))
        session.reset()
        session.push(frame(9.75))
        counts = session.counts
        assert counts.pushed == 11
        assert counts.pushes == {
            Push.ACCEPTED: 6,
            Push.OUT_OF_ORDER: 1,
            Push.DUPLICATE: 1,
            Push.LATE: 0,
            Push.GAP: 1,
            Push.TIME_JUMP: 1,
            Push.RESOLUTION: 1,
            Push.CAMERA: 0,
        }
        assert counts.kept == 10
        assert counts.restarts == 3
        assert (counts.resets, counts.commands) == (1, 1)
        assert (counts.buffered_frames, counts.buffered_bytes) == (1, 48 * 64 * 3)

    def test_snapshot_does_not_change_afterwards(self, image_grounder: CountingGrounder) -> None:
        session = session_of(image_grounder)
        before = session.counts
        push(session, [0.0])
        session.ground()
        assert before.pushed == before.windows_grounded == before.buffered_frames == 0
        with pytest.raises(FrozenInstanceError):
            before.resets = 1  # type: ignore[misc]


def test_callbacks_push_under_a_lock_while_a_worker_grounds_the_newest(
    image_grounder: CountingGrounder,
) -> None:
    session = session_of(image_grounder, frames=2, ground="all", max_buffer_frames=4)
    lock, done = threading.Lock(), threading.Event()
    stamps_ns: list[int] = []

    def work() -> None:
        while True:
            last = done.is_set()
            with lock:
                job = session.take()
            if job is not None:
                stamps_ns.append(session.run(job)[-1].stamp_ns)
            elif last:
                return

    worker = threading.Thread(target=work)
    worker.start()
    for index in range(400):
        with lock:
            assert session.push(frame(index * 0.01, seed=0)) is Push.ACCEPTED
    done.set()
    worker.join(timeout=30)
    assert not worker.is_alive()
    assert stamps_ns == sorted(set(stamps_ns))
    assert stamps_ns[-1] == 3_990_000_000
    counts = session.counts
    assert counts.windows_grounded == len(stamps_ns)
    assert counts.windows_grounded + counts.windows_superseded == counts.pushed == 400


@pytest.mark.parametrize("kind", ["image", "video"])
def test_jobs_of_several_cameras_are_grounded_together(
    kind: str, request: pytest.FixtureRequest
) -> None:
    grounder = request.getfixturevalue(f"{kind}_grounder")
    sessions = [session_of(grounder) for _ in range(3)]
    commands = ("pour the milk", "cut the tomato", "open the drawer\nclose the drawer")
    for camera, (session, command) in enumerate(zip(sessions, commands)):
        session.set_action(command)
        for index in range(10):
            session.push(frame(index * 0.25, seed=10 * camera + index))
    sessions[1].set_action("")  # this camera has nothing to do
    jobs = [job for session in sessions if (job := session.take())]
    assert len(jobs) == 2
    together = grounder.ground_each([job.window for job in jobs], [job.actions for job in jobs])
    for found, job in zip(together, jobs):
        assert_equal(found, Grounder(grounder.backbone).ground(job.window, job.actions))
    assert all(session.take() is None for session in sessions)

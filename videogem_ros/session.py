"""What to ground next: camera frames and commands go in, groundings of the newest window come out.

A session owns no thread, no socket and no clock. It does not lock, but two threads can share it:
what callbacks call (:meth:`Session.push`, the commands, :meth:`Session.reset`,
:meth:`Session.take` and everything that only reads) returns at once and has to be guarded by one
lock; :meth:`Session.run`, the slow part, touches none of that state and needs no lock as long as
a single worker calls it.
"""

from __future__ import annotations

import enum
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal

import numpy as np
import numpy.typing as npt

from videogem_ros.core import Grounder, join_features
from videogem_ros.core.grounder import FrameChoice
from videogem_ros.datatypes import Action, Features, Frame, Grounding, Window
from videogem_ros.errors import InvalidValueError, check_choice, check_range, check_type
from videogem_ros.language import parse_actions
from videogem_ros.window import FrameBuffer, Push, WindowConfig

MAX_CHARACTERS = 4096
"""Most characters of a command, whose parsing and encoding the node waits for.

Odd texts of this length take half a second to parse, and a single word, in which CLIP's tokenizer
grows with the square, two seconds to encode.
"""


@dataclass(frozen=True)
class SessionConfig(WindowConfig):
    """What a session grounds: the attributes of :class:`WindowConfig`, and these.

    Attributes:
        ground: Which frames of a window get heatmaps and points: the ``newest`` or ``all``.
        max_actions: Most actions that are grounded at once, at least 1.
        max_feature_bytes: Most bytes of features and, where all frames are grounded, heatmaps
            that are cached for frames of later windows (image backbones), at least 0. Heatmaps
            are dropped before features, the least recently used first.

    Raises:
        InvalidValueError: A value is outside its range.
    """

    ground: Literal["newest", "all"] = "newest"
    max_actions: int = 8
    max_feature_bytes: int = 512 * 2**20

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("ground", self.ground, ("newest", "all"))
        check_range("max_actions", self.max_actions, 1, kind=Integral)
        check_range("max_feature_bytes", self.max_feature_bytes, 0, kind=Integral)


class Status(enum.Enum):
    """Whether there is something to ground, and if not, why; the values are descriptions."""

    READY = "ready"
    NO_FRAMES = "no frames"
    WAITING_FOR_FRAMES = "waiting for frames"
    """Frames do not span the window yet, and ``start`` is "wait"."""
    NO_COMMAND = "no command"
    NOTHING_NEW = "nothing new"
    """The newest window has been taken for the current command already."""


@dataclass(frozen=True, eq=False)
class Job:
    """A window that is to be grounded for some actions.

    Attributes:
        window: The frames.
        actions: The actions, at least one.
        command_id: Number of the command that was current; see :attr:`Session.command_id`.
        choosable: The buffered frames, which later windows may contain.
    """

    window: Window
    actions: tuple[Action, ...]
    command_id: int
    choosable: frozenset[Frame]


@dataclass(frozen=True)
class Counts:
    """What a session has seen and done so far.

    Attributes:
        pushes: Number of pushed frames by outcome.
        resets: Calls of :meth:`Session.reset`.
        commands: Commands given, including those that stop.
        windows_superseded: Windows that were ready to be grounded when a newer one replaced them.
        windows_grounded: Windows grounded, for commands or by :meth:`Session.take_for`.
        encoder_passes: Passes of the backbone over a window, or over one frame of it for an image
            backbone.
        encoder_passes_saved: Passes that were not needed because the features were cached.
        buffered_frames: Frames in the buffer now.
        buffered_bytes: Bytes of their images.
    """

    pushes: Mapping[Push, int]
    resets: int
    commands: int
    windows_superseded: int
    windows_grounded: int
    encoder_passes: int
    encoder_passes_saved: int
    buffered_frames: int
    buffered_bytes: int

    @property
    def pushed(self) -> int:
        """All frames pushed."""
        return sum(self.pushes.values())

    @property
    def kept(self) -> int:
        """Frames taken into the buffer."""
        return sum(count for push, count in self.pushes.items() if push.kept)

    @property
    def restarts(self) -> int:
        """Number of frames that restarted the window, for any reason."""
        return sum(count for push, count in self.pushes.items() if push.restarted)


class Session:
    """The sliding window of one camera and the current command.

    Args:
        grounder: Grounds the windows.
        config: How windows are formed and which frames are grounded; the default where None.
        parse: Splits one line of a command into actions; returns none where it has no words.

    Raises:
        InvalidValueError: ``config.frames`` is not the number that a video backbone encodes
            jointly.
    """

    def __init__(
        self,
        grounder: Grounder,
        config: SessionConfig | None = None,
        parse: Callable[[str], tuple[Action, ...]] = parse_actions,
    ) -> None:
        config = config or SessionConfig()
        jointly = grounder.backbone.window_frames
        if jointly > 1 and config.frames not in (None, jointly):
            raise InvalidValueError(
                "frames", f"the {jointly} that {grounder.backbone.name} encodes", config.frames
            )
        self.config = replace(config, frames=config.frames or jointly)
        self._parse = parse
        self._buffer = FrameBuffer(self.config)
        self._worker = _Worker(grounder, self.config)
        self._actions: tuple[Action, ...] = ()
        self._pushes: Counter[Push] = Counter()
        self._resets = self._commands = self._windows = self._superseded = 0
        self._taken = (self._windows, self._commands)

    def push(self, frame: Frame) -> Push:
        """Take a camera frame in.

        Returns:
            What became of it.

        Raises:
            InvalidValueError: It is not a :class:`~videogem_ros.datatypes.Frame`.
        """
        check_type("frame", frame, Frame, "a Frame")
        newest, pending = self._buffer.newest, self.status is Status.READY
        outcome = self._buffer.push(frame)
        self._pushes[outcome] += 1
        if self._buffer.newest is not newest:
            self._windows += 1
            self._superseded += pending
        return outcome

    def set_action(self, text: str) -> tuple[Action, ...]:
        """Replace the current command.

        Args:
            text: One action or several, on separate lines or joined in one sentence; an empty or
                blank text stops grounding.

        Returns:
            The current actions.

        Raises:
            InvalidValueError: It is not a text, is longer than :data:`MAX_CHARACTERS`, a line has
                characters but no words, or there are more actions than ``max_actions``; the
                command before stays current.
        """
        check_type("action", text, str, "a text; set_actions takes several")
        return self.set_actions(text.splitlines())

    def set_actions(self, texts: Iterable[str]) -> tuple[Action, ...]:
        """Replace the current command by several texts; see :meth:`set_action`.

        Returns:
            The current actions, each once.

        Raises:
            InvalidValueError: As for :meth:`set_action`, or it is a single text.
        """
        self._actions = self.parse(texts)
        self._commands += 1
        return self._actions

    def add_actions(self, text: str) -> tuple[Action, ...]:
        """Add actions to the current ones; beyond ``max_actions`` the oldest are dropped.

        Args:
            text: As for :meth:`set_action`; an empty or blank text stops grounding.

        Returns:
            The current actions.

        Raises:
            InvalidValueError: As for :meth:`set_action`.
        """
        check_type("action", text, str, "a text")
        added = self.parse(text.splitlines())
        standing = tuple(dict.fromkeys((*self._actions, *added)))
        self._actions = standing[-self.config.max_actions :] if added else ()
        self._commands += 1
        return self._actions

    def parse(self, texts: Iterable[str]) -> tuple[Action, ...]:
        """The actions in texts, each once; the current command does not change.

        Raises:
            InvalidValueError: As for :meth:`set_actions`.
        """
        if isinstance(texts, str):  # whose letters would be taken for texts
            raise InvalidValueError("action", "several texts; set_action takes one", "one text")
        actions: dict[Action, None] = {}
        texts = [*filter(None, map(str.strip, texts))]
        characters = sum(map(len, texts))
        if characters > MAX_CHARACTERS:
            raise InvalidValueError("action", f"at most {MAX_CHARACTERS} characters", characters)
        for text in texts:
            parsed = self._parse(text)
            if not parsed:
                raise InvalidValueError("action", "a text with words", repr(text[:80]))
            actions |= dict.fromkeys(parsed)
        if len(actions) > self.config.max_actions:
            raise InvalidValueError(
                "action", f"at most {self.config.max_actions} actions", len(actions)
            )
        return tuple(actions)

    def use(self, grounder: Grounder) -> None:
        """Ground with another grounder from the next run on; cached features are kept.

        Args:
            grounder: From :meth:`~videogem_ros.core.Grounder.with_config` of the one before.
        """
        self._worker.grounder = grounder

    def reset(self) -> None:
        """Forget all frames; the command stays current."""
        self._buffer.clear()
        self._resets += 1

    @property
    def actions(self) -> tuple[Action, ...]:
        """The actions of the current command; none where there is no command."""
        return self._actions

    @property
    def command_id(self) -> int:
        """Number of the current command: 0 before the first, and one more with each."""
        return self._commands

    @property
    def status(self) -> Status:
        """Whether :meth:`take` returns a job; missing frames are reported before other reasons."""
        if not self._buffer.ready:
            return Status.WAITING_FOR_FRAMES if len(self._buffer) else Status.NO_FRAMES
        if not self._actions:
            return Status.NO_COMMAND
        if self._taken == (self._windows, self._commands):
            return Status.NOTHING_NEW
        return Status.READY

    @property
    def counts(self) -> Counts:
        """What the session has seen and done so far."""
        return Counts(
            pushes={outcome: self._pushes[outcome] for outcome in Push},
            resets=self._resets,
            commands=self._commands,
            windows_superseded=self._superseded,
            windows_grounded=self._worker.windows,
            encoder_passes=self._worker.passes,
            encoder_passes_saved=self._worker.passes_saved,
            buffered_frames=len(self._buffer),
            buffered_bytes=self._buffer.nbytes,
        )

    def window(self) -> Window | None:
        """The newest window, whether or not there is a command for it.

        Returns:
            The window; None where :attr:`status` is ``NO_FRAMES`` or ``WAITING_FOR_FRAMES``.
        """
        return self._buffer.window()

    def take(self) -> Job | None:
        """The newest window for the current command, once per newest frame and command.

        Returns:
            A job for :meth:`run`; None where :attr:`status` is not ``READY``.
        """
        if self.status is not Status.READY:
            return None
        self._taken = (self._windows, self._commands)
        return self.take_for(self._actions)

    def take_for(self, actions: Sequence[Action]) -> Job | None:
        """The newest window for any actions; does not affect :meth:`take`.

        Args:
            actions: At least one, for example from :meth:`parse`.

        Returns:
            A job for :meth:`run`; None where there is no window.
        """
        window = self._buffer.window()
        if window is None:
            return None
        return Job(window, tuple(actions), self.command_id, frozenset(self._buffer))

    def run(self, job: Job) -> list[Grounding]:
        """Ground a window.

        Returns:
            One grounding for each action and wanted frame: by action, then by time. Where an image
            backbone grounds all frames, the arrays are read-only, as later windows share them.
        """
        return self._worker.run(job)

    def ground(self) -> list[Grounding]:
        """Ground the newest window for the current command: :meth:`take`, then :meth:`run`.

        Returns:
            The groundings; none where :attr:`status` is not ``READY``.
        """
        job = self.take()
        return self.run(job) if job else []


class _Worker:
    """Grounds windows, and encodes and grounds nothing twice.

    A piece is what is encoded on its own: a window of a video backbone, or a frame of an image
    backbone. Features of a piece are cached while a later job can need them: those of the newest
    window, and of an image backbone's frames that later windows may contain. Where all frames are
    grounded, so are these frames' groundings by action.
    """

    def __init__(self, grounder: Grounder, config: SessionConfig) -> None:
        self.grounder = grounder  # set by callbacks, read once a run
        self._finder = grounder  # which found all that is in _found
        self.windows = self.passes = self.passes_saved = 0
        self._config = config
        self._known: dict[tuple[Frame, ...], Features] = {}  # least recently used first
        self._found: dict[tuple[Frame, Action], Grounding] = {}  # the same

    def run(self, job: Job) -> list[Grounding]:
        grounder = self.grounder  # read once, as a callback may replace it during this run
        if grounder is not self._finder:
            self._finder, self._found = grounder, {}
        by_frame = self._config.ground == "all" and grounder.backbone.window_frames == 1
        groundings = (self._run_by_frame if by_frame else self._run_whole)(grounder, job)
        self.windows += 1
        return groundings

    def _run_whole(self, grounder: Grounder, job: Job) -> list[Grounding]:
        window, piece = job.window, job.window.frames
        frames: FrameChoice = self._config.ground
        newest = (len(window) - 1,)
        alone = grounder.backbone.window_frames == 1  # which encodes the newest frame alone
        if alone:
            piece, frames = (window.newest,), newest
        self._keep({piece})
        known = self._known.pop(piece, None)
        if known is None:
            groundings, features = grounder.ground_and_keep(window, job.actions, frames)
            self.passes += 1
        else:
            features = join_features([known], newest) if alone else known
            groundings = grounder.locate(features, window, job.actions)
            self.passes_saved += 1
        self._known[piece] = features
        self._make_room()
        return groundings

    def _run_by_frame(self, grounder: Grounder, job: Job) -> list[Grounding]:
        window, actions = job.window, job.actions
        self._keep({(frame,) for frame in (*window.frames, *job.choosable)})
        new = [
            window.frames.index(frame)
            for frame in dict.fromkeys(window.frames)
            if any((frame, action) not in self._found for action in actions)
        ]
        self.passes_saved += len(window) - len(new)
        if new:
            pieces = [Window((window.frames[place],)) for place in new]
            features = join_features([self._encode(grounder, piece) for piece in pieces], new)
            for found in grounder.locate(features, window, actions):
                self._found[window.frames[found.frame_index], found.action] = _frozen(found)
        used = {
            (frame, action): self._found.pop((frame, action))
            for frame, action in itertools.product(
                dict.fromkeys(window.frames), dict.fromkeys(actions)
            )
        }
        self._found |= used
        self._make_room()
        frames_used = len(set(window.stamps_ns))
        return [
            replace(
                used[frame, action],
                frame_index=place,
                window_start_ns=window.frames[0].stamp_ns,
                window_end_ns=window.newest.stamp_ns,
                frames_used=frames_used,
            )
            for action in actions
            for place, frame in enumerate(window.frames)
        ]

    def _keep(self, pieces: set[tuple[Frame, ...]]) -> None:
        """Forget all other pieces; before encoding, to free their memory first."""
        self._known = {piece: self._known[piece] for piece in self._known if piece in pieces}
        self._found = {
            (frame, action): found
            for (frame, action), found in self._found.items()
            if (frame,) in pieces
        }

    def _make_room(self) -> None:
        """Forget groundings, then features, beyond ``max_feature_bytes``."""
        excess = sum(map(_nbytes, self._known.values())) - self._config.max_feature_bytes
        excess += sum(map(_nbytes_of_maps, self._found.values()))
        while self._found and excess > 0:
            excess -= _nbytes_of_maps(self._found.pop(next(iter(self._found))))
        while self._known and excess > 0:
            excess -= _nbytes(self._known.pop(next(iter(self._known))))

    def _encode(self, grounder: Grounder, piece: Window) -> Features:
        features = self._known.pop(piece.frames, None)
        if features is None:
            features = grounder.encode(piece, frames=self._config.ground)
            self.passes += 1
        else:
            self.passes_saved += 1
        self._known[piece.frames] = features
        return features


def _nbytes(features: Features) -> int:
    return features.patch_terms.nbytes + features.class_terms.nbytes


def _nbytes_of_maps(grounding: Grounding) -> int:
    return sum(heatmap.values.nbytes for heatmap in grounding.heatmaps.values())


def _frozen(grounding: Grounding) -> Grounding:
    """A copy with read-only arrays, as later windows share it."""
    return replace(
        grounding,
        heatmaps={
            name: replace(heatmap, values=_fixed(heatmap.values))
            for name, heatmap in grounding.heatmaps.items()
        },
        layer_weights=_fixed(grounding.layer_weights),
        prompt_probabilities=_fixed(grounding.prompt_probabilities),
    )


def _fixed(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A read-only copy, which keeps no larger array alive."""
    copied: npt.NDArray[np.float32] = array.copy()
    copied.setflags(write=False)
    return copied

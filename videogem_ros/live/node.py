"""The node: callbacks convert and push, one worker grounds the newest window and publishes.

However many images arrive, the worker takes the newest window when it is free: a pending window is
replaced by a newer one, and counted. So latency stays below the time of two windows. All state
that callbacks and worker share is guarded by one lock, which neither holds while it converts,
grounds or publishes. A second one puts answers and the answer to a stop in order.

Image messages of every encoding, including Bayer and YUV, are converted by
:mod:`videogem_ros.encodings`, and not by cv_bridge, which makes the same OpenCV calls but
breaks where it was built for another NumPy.
"""

from __future__ import annotations

import contextlib
import enum
import gc
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from videogem_ros.core import Grounder, backbone_name, caveat, load_backbone
from videogem_ros.core.hardware import slowness
from videogem_ros.datatypes import Action, Frame, Window
from videogem_ros.encodings import (
    frame_from_compressed,
    frame_from_message,
    header_stamp_ns,
)
from videogem_ros.errors import InvalidValueError, VideoGemError
from videogem_ros.live import diagnostics
from videogem_ros.live.camera import doubt
from videogem_ros.live.health import Health, Level
from videogem_ros.live.messages import Answer, Circumstances, Status
from videogem_ros.live.middleware import Middleware, TransformUnavailable
from videogem_ros.live.outputs import Outputs
from videogem_ros.live.parameters import Parameters, parameter_names
from videogem_ros.live.positions import Positions
from videogem_ros.live.topics import DIAGNOSTICS, INPUTS, NODE_NAME, outputs
from videogem_ros.session import Job, Session
from videogem_ros.session import Status as SessionStatus
from videogem_ros.window import NS_PER_S, Push

__all__ = ["GroundOutcome", "GroundingNode", "Middleware", "State", "TransformUnavailable"]

WARM_UP_HW = (480, 640)
"""Height and width in pixels of the blank image that warms the model up."""

WARM_UP_COMMAND = "pick up the cup"
_PUSH_CONDITIONS = {
    Push.DUPLICATE: ("duplicate images", "images of a stamp that was there already are dropped"),
    Push.OUT_OF_ORDER: ("images out of order", "images arrive after newer ones"),
    Push.LATE: ("late images", "images arrive too late for any window and are dropped"),
    Push.GAP: ("gap", "no image for longer than a window may have a hole; it starts anew"),
    Push.TIME_JUMP: ("time jump", "stamps jumped back in time; the window starts anew"),
    Push.RESOLUTION: ("resolution change", "images have another size; the window starts anew"),
    Push.CAMERA: ("camera change", "images have another frame_id; the window starts anew"),
}
"""Name and text of the condition that an image which is not simply the next one is reported as."""


class State(enum.Enum):
    """States of a ROS 2 lifecycle node."""

    UNCONFIGURED = "unconfigured"
    CONFIGURING = "configuring"
    INACTIVE = "inactive"
    ACTIVE = "active"


@dataclass(frozen=True)
class GroundOutcome:
    """Answer to a request.

    Attributes:
        success: Whether every action of the request was found, in space too where depth is used.
        reason: Why not; empty on success.
        groundings: ``videogem_ros/msg/ActionGrounding`` of each action, in order; empty where
            nothing was grounded.
    """

    success: bool
    reason: str
    groundings: tuple[Any, ...] = ()


@dataclass(eq=False)
class _Request:
    """Actions that a caller waits for to be grounded once."""

    actions: tuple[Action, ...]
    answered: threading.Event = field(default_factory=threading.Event)
    outcome: GroundOutcome | None = None

    def answer(self, outcome: GroundOutcome) -> None:
        self.outcome = outcome
        self.answered.set()


@dataclass(frozen=True, eq=False)
class _Task:
    """A window to ground for the current command, or for a request."""

    session: Session
    job: Job
    backbone: str
    parameters: Parameters
    request: _Request | None = None


_DEACTIVATED = GroundOutcome(False, "the node was deactivated")


class GroundingNode:
    """The node's life cycle and work, without its middleware.

    Every method may be called from any thread. Those named ``on_`` return at once and never raise:
    problems with a message are logged, counted and shown in diagnostics.

    Args:
        middleware: The graph to publish on.
        parameters: Initial values; :meth:`set_parameters` changes them.
        name: The node's full name, for diagnostics.
    """

    def __init__(
        self, middleware: Middleware, parameters: Parameters, name: str = f"/{NODE_NAME}"
    ) -> None:
        self._middleware = middleware
        self._parameters = parameters
        self._name = name
        self._health = Health(middleware.log)
        self._outputs = Outputs(middleware)
        self._positions = Positions(middleware.transform)
        # Held while a window's answers go out, and while a stop is answered, so that none of them
        # comes after that. Taken before the lock below.
        self._speaking = threading.Lock()
        # Guards all below, and wakes the worker.
        self._wake = threading.Condition()
        self._state = State.UNCONFIGURED
        self._grounder: Grounder | None = None
        self._session: Session | None = None
        self._worker: threading.Thread | None = None
        self._activated_s = -math.inf
        self._busy = False
        self._requests: list[_Request] = []
        self._answered_command = 0
        self._stopping_command = 0  # the latest empty one
        self._renewed_s = -math.inf  # when the newest window's newest image came
        self._taken_s = -math.inf  # when the current command last got a window

    @property
    def parameters(self) -> Parameters:
        """The current parameters."""
        return self._parameters

    @property
    def state(self) -> State:
        """The node's lifecycle state."""
        return self._state

    # Life

    def configure(self) -> None:
        """Load the backbone and ground a blank window with it, so that the first real one is fast.

        Weights are read, or downloaded where the hub's cache lacks them, here and nowhere else.

        Raises:
            VideoGemError: Parameters are inconsistent, or do not suit the machine or the backbone,
                or the weights cannot be loaded.
        """
        self._enter(State.CONFIGURING, after=State.UNCONFIGURED)
        try:
            with parameter_names():
                grounder, session = _load(self._parameters)
        except BaseException:
            self._enter(State.UNCONFIGURED, after=State.CONFIGURING)
            raise
        with self._wake:
            self._enter(State.INACTIVE, after=State.CONFIGURING)
            self._grounder, self._session = grounder, session
            self._use_parameters()  # they may have changed meanwhile
        if said := caveat(grounder.backbone):
            self._health.report("backbone", said, hold_s=math.inf)
        if said := slowness(grounder.device, grounder.backbone.tower.dtype):
            self._health.report("dtype", said, hold_s=math.inf)
        if problem := grounder.recording_problem:
            self._health.report(
                "cuda graphs", f"none, so windows take longer: {problem}", hold_s=math.inf
            )
        self._middleware.log("info", f"{grounder.backbone.name} is ready on {grounder.device}")

    def activate(self) -> None:
        """Start to accept and ground images; an earlier command is still current.

        Raises:
            VideoGemError: The node is not configured, or is active already.
        """
        with self._wake:
            self._enter(State.ACTIVE, after=State.INACTIVE)
            self._activated_s = time.monotonic()
            self._worker = threading.Thread(
                target=self._work, name=f"{self._name} worker", daemon=True
            )
            self._worker.start()

    def deactivate(self) -> None:
        """Stop all work; does nothing where the node is not active.

        Waits for the window that is being grounded and drops its result, so that its command is
        still to be answered. Images are forgotten; the current command is kept.
        """
        with self._wake:
            if self._state is not State.ACTIVE:
                return
            self._state = State.INACTIVE
            worker, self._worker = self._worker, None
            requests, self._requests = self._requests, []
            self._wake.notify_all()
        for request in requests:
            request.answer(_DEACTIVATED)
        if worker is not None:
            worker.join()
        with self._wake:
            if self._session is not None:
                self._session.reset()
            self._renewed_s = -math.inf
        self._positions.clear()
        self._health.settle(at_once=True)
        for topic in INPUTS:  # they are no longer subscribed to
            self._health.resolve(_qos_of(topic))
        with self._guarded("answer failed"):
            self._outputs.clear_markers()

    def cleanup(self) -> None:
        """Free what configure loaded, GPU memory too; from any state."""
        self.deactivate()
        with self._wake:
            self._grounder = self._session = None
            self._answered_command = self._stopping_command = 0
            self._state = State.UNCONFIGURED
        # Conditions of what was loaded, and of outputs that are no longer advertised.
        gone = [_qos_of(topic) for topic in outputs(self._parameters["max_actions"])]
        gone.remove(_qos_of(DIAGNOSTICS))
        for condition in ("backbone", "dtype", "cuda graphs", *gone):
            self._health.resolve(condition)
        _free_memory()

    def _enter(self, state: State, *, after: State) -> None:
        with self._wake:
            if self._state is not after:
                raise VideoGemError(
                    f"the node is {self._state.value} and cannot become {state.value}"
                )
            self._state = state

    # What arrives

    @property
    def sensor_handlers(self) -> Mapping[str, Callable[[Any], None]]:
        """The callbacks of the sensor topics that an adapter is to subscribe to, by topic.

        ``image_transport`` chooses one of the two images; ``depth.use`` decides about depth and
        camera_info.
        """
        topic = self._image_topic
        handlers = {topic: self.on_image if topic == "image" else self.on_compressed}
        if self._parameters["depth.use"] != "never":
            handlers |= {"depth": self.on_depth, "camera_info": self.on_camera_info}
        return handlers

    @property
    def _image_topic(self) -> str:
        raw = self._parameters["image_transport"] == "raw"
        return "image" if raw else "image/compressed"

    def on_image(self, message: Any) -> None:
        """Take in a ``sensor_msgs/Image`` of the camera."""
        self._take_image(message, frame_from_message)

    def on_compressed(self, message: Any) -> None:
        """Take in a ``sensor_msgs/CompressedImage`` of the camera."""
        self._take_image(message, frame_from_compressed)

    def _take_image(self, message: Any, convert: Callable[[Any], Frame]) -> None:
        if self._state is not State.ACTIVE:
            return
        self._health.event("images")
        with self._guarded("image refused"):
            frame = convert(message)
            frame = replace(frame, stamp_ns=self._stamp(frame.stamp_ns, "image"))
            self._judge_stamp(frame.stamp_ns)
            pushed = self._push(frame)
            if pushed in _PUSH_CONDITIONS:
                self._health.report(*_PUSH_CONDITIONS[pushed])

    def _push(self, frame: Frame) -> Push | None:
        with self._wake:
            if self._state is not State.ACTIVE or self._session is None:
                return None
            pending, busy = self._pending, self._busy
            pushed = self._session.push(frame)
            renewed = pushed is Push.ACCEPTED or pushed.restarted
            if renewed:
                self._renewed_s = time.monotonic()
                self._wake.notify_all()
        if renewed:
            self._positions.depth.expect("the newest image", frame.stamp_ns)
        if renewed and pending:
            self._health.count("windows replaced")
            if busy:
                self._health.report(
                    "overload",
                    "images come faster than they are grounded: the newest window counts",
                    Level.OK,
                )
        return pushed

    def on_depth(self, message: Any) -> None:
        """Take in a ``sensor_msgs/Image`` of depth, aligned to the camera's (REP-118)."""
        if self._state is not State.ACTIVE or self._parameters["depth.use"] == "never":
            return
        self._health.event("depth images")
        with self._guarded("depth image refused"):
            stamp_ns = self._stamp(header_stamp_ns(message), "depth image")
            self._positions.push_depth(stamp_ns, message)

    def on_camera_info(self, message: Any) -> None:
        """Take in the camera's ``sensor_msgs/CameraInfo``."""
        if self._state is not State.ACTIVE or self._parameters["depth.use"] == "never":
            return
        self._health.event("camera infos")
        with self._guarded("camera info refused"):
            parameters = self._parameters
            self._positions.push_camera_info(message, parameters)
            said = doubt(message, rectified=parameters["depth.rectified"])
            self._report_if(bool(said), "lens", said)

    def on_action(self, text: str) -> None:
        """Take in a command: one action or several; an empty or blank text stops grounding.

        A refused command leaves the current one, and is answered on ``grounding``.
        """
        self._health.count("commands")
        with self._guarded("command refused"):
            try:
                before, actions, command_id = self._take_command(text)
            except InvalidValueError as error:
                self._say(Answer(Status.NOT_UNDERSTOOD, str(error)), text=text)
                raise
            if actions != before:
                phrases = "; ".join(action.phrase for action in actions) or "stop"
                self._middleware.log("info", f"command: {phrases}")
            if not actions:
                stopped = Answer(Status.NO_COMMAND, "an empty command stopped it")
                with self._speaking:
                    self._say(stopped, text=text, command_id=command_id)
                    self._outputs.clear_markers()

    def _take_command(self, text: str) -> tuple[tuple[Action, ...], tuple[Action, ...], int]:
        """Pass a command to the session; returns the actions before and after it, and its id."""
        with self._wake:
            session = self._session
            if session is None:
                raise VideoGemError(f"the node is {self._state.value}")
            before = session.actions
            add = self._parameters["commands"] == "add"
            actions = session.add_actions(text) if add else session.set_action(text)
            if not actions:
                self._stopping_command = session.command_id
            self._wake.notify_all()
            return before, actions, session.command_id

    def on_qos_incompatible(self, topic: str, policy: str) -> None:
        """Take in that a peer on a topic requests, or offers, an incompatible QoS policy.

        The middleware does not report when the peer disappears, so the condition ends with the
        subscription or publication: for inputs on :meth:`deactivate`, for outputs on
        :meth:`cleanup`.

        Args:
            topic: Its name, as in :mod:`videogem_ros.live.topics` where an adapter has these
                transitions before the node's end.
            policy: Name of the policy.
        """
        self._health.count(f"incompatible QoS on {topic}")
        self._health.report(
            _qos_of(topic),
            f"a peer's {policy} is incompatible: nothing goes between it and this node",
            hold_s=math.inf,
        )

    def on_undecodable(self, topic: str, reason: str) -> None:
        """Take in that a message on a topic could not be deserialized."""
        self._health.count(f"undecodable on {topic}")
        self._health.report(f"messages on {topic}", f"they cannot be deserialized: {reason}")

    def on_callback_error(self, error: Exception) -> None:
        """Take in that a callback of the adapter failed, beyond what those of this class catch."""
        self._health.count("callback failed")
        self._health.report("callback failed", _in_words(error), Level.ERROR)
        self._middleware.log("debug", "".join(traceback.format_exception(error)))

    def on_messages_lost(self, topic: str, count: int) -> None:
        """Take in that the middleware lost messages of a topic."""
        self._health.count(f"lost of {topic}", count)
        self._health.report(
            f"lost messages of {topic}",
            "larger packets and receive buffers of DDS, or compressed images, help",
        )

    def on_images_skipped(self, count: int) -> None:
        """Take in that images were skipped because newer ones were waiting."""
        self._health.count("images skipped", count)
        self._health.report(
            "slow images",
            "they come faster than they are converted, so some are skipped: a smaller or less "
            "compressed image, or a lower rate, helps",
        )

    def request(self, text: str, timeout_s: float = 0.0) -> GroundOutcome:
        """Ground actions once, in the newest window; blocks, and keeps the current command.

        Args:
            text: As for :meth:`on_action`.
            timeout_s: Longest wait in seconds; ``request_timeout_s`` where 0 or less.
        """
        self._health.count("requests")
        default_s = self._parameters["request_timeout_s"]
        outcome = self._request(text, timeout_s if timeout_s > 0 else default_s)
        if not outcome.groundings:
            self._health.count("requests unanswered")
        return outcome

    def _request(self, text: str, timeout_s: float) -> GroundOutcome:
        try:
            request = self._enqueue(text)
        except VideoGemError as error:
            return GroundOutcome(False, str(error))
        request.answered.wait(min(timeout_s, threading.TIMEOUT_MAX))
        with self._wake:
            if request.outcome is not None:
                return request.outcome
            if request in self._requests:
                self._requests.remove(request)
            obstacle = self._obstacle
        why = obstacle[1] if obstacle else "grounding takes longer"
        return GroundOutcome(False, f"no answer within {timeout_s:g} s: {why}")

    def _enqueue(self, text: str) -> _Request:
        with self._wake:
            if self._session is None or self._worker is None:
                raise VideoGemError(f"the node is {self._state.value}")
            actions = self._session.parse(text.splitlines())
            if not actions:
                raise InvalidValueError("action", "a text with words", repr(text[:80]))
            request = _Request(actions)
            self._requests.append(request)
            self._wake.notify_all()
        return request

    def set_parameters(self, changes: Mapping[str, Any]) -> None:
        """Change parameters, from the next window on; all of them or, where one is refused, none.

        Args:
            changes: Values by flat name.

        Raises:
            InvalidValueError: A parameter is unknown or out of range or, while the node is
                configured, inconsistent with the others or not live; the error names it.
        """
        with self._wake:
            before = self._parameters
            running = self._state is not State.UNCONFIGURED
            self._parameters = before.updated(changes, running=running)
            self._use_parameters()
            self._wake.notify_all()

    def _use_parameters(self) -> None:
        """Apply the parameters to the grounder; cached features and texts are kept."""
        if self._grounder is None or self._session is None:
            return
        config = self._parameters.grounding_config()
        if self._grounder.config != config:
            self._grounder = self._grounder.with_config(config)
            self._session.use(self._grounder)

    def tick(self) -> None:
        """Report what is missing, and publish diagnostics; to be called once a second."""
        with self._guarded("tick failed"):
            now_ns = self._middleware.now_ns()
            self._report_if(
                now_ns == 0, "no clock", "use_sim_time is set, but no /clock has arrived"
            )
            if self._state is State.ACTIVE:
                self._report_missing()
            self._health.settle()
            self._diagnose(now_ns)

    def _diagnose(self, now_ns: int) -> None:
        with self._wake:
            state, session = self._state, self._session
            values = {"state": state.value, "mode": self._parameters["mode"]}
            if self._grounder is not None:
                values["backbone"] = self._grounder.backbone.name
                values["device"] = str(self._grounder.device)
                values |= diagnostics.graphs(self._grounder)
            if session is not None:
                values |= diagnostics.describe(self._health, session)
        values |= diagnostics.conditions(self._health)
        message = diagnostics.summary(self._health, state.value)
        name = f"{self._name.strip('/')}: grounding"
        self._outputs.diagnose(now_ns, self._health.level, name, message, values)

    def _report_missing(self) -> None:
        """Report missing inputs as conditions, and as answers to an unanswered command."""
        timeout_s, positions = self._parameters["image_timeout_s"], self._positions
        input_name = self._middleware.input_name
        with self._wake:
            session = self._session
            if session is None:
                return
            actions, command_id = session.actions, session.command_id
            unanswered = self._unanswered
            image_age_s, obstacle = self._image_age_s, self._obstacle
            up_s = time.monotonic() - self._activated_s
        self._report_if(
            image_age_s > timeout_s,
            "no images",
            self._no_image_for(image_age_s),
            Level.STALE,
        )
        self._report_if(not actions, "no command", "there is nothing to look for", Level.OK)
        depth_age_s = min(self._health.age_s("depth images"), up_s)
        in_space = positions.wanted(self._parameters)
        # With depth.use "auto", missing depth is logged, but is no fault.
        self._report_if(
            self._parameters["depth.use"] != "never" and depth_age_s > timeout_s,
            "no depth",
            f"no depth image on {input_name('depth')} for {depth_age_s:.1f} s: points have no "
            "position in space",
            Level.WARN if in_space else Level.OK,
        )
        self._report_if(
            in_space and positions.camera_info is None,
            "no camera_info",
            f"no calibrated camera on {input_name('camera_info')}: points have no position in "
            "space",
        )
        if not unanswered or obstacle is None:
            return
        with self._speaking:
            if self._is_stopped(command_id):
                return
            for index, action in enumerate(actions):
                self._say(Answer(*obstacle, action, index), command_id=command_id)
            self._outputs.clear_markers()  # they would show where the action was

    def _no_image_for(self, age_s: float) -> str:
        topic = self._middleware.input_name(self._image_topic)
        return f"no new image on {topic} for {age_s:.1f} s"

    def _report_if(self, is_so: bool, name: str, text: str, level: Level = Level.WARN) -> None:
        if is_so:
            self._health.report(name, text, level)
        else:
            self._health.resolve(name)

    def _say(self, answer: Answer, *, text: str = "", command_id: int = 0) -> None:
        """Publish an answer without a grounding, stamped as the newest image, or now."""
        now_ns = self._middleware.now_ns()
        with self._wake:
            window = self._session.window() if self._session is not None else None
        stamp_ns, frame_id = (
            (window.newest.stamp_ns, window.newest.frame_id) if window else (now_ns, "")
        )
        self._outputs.say(answer, Circumstances(stamp_ns, frame_id, now_ns, command_id, text=text))

    def _stamp(self, stamp_ns: int, what: str) -> int:
        """The stamp; the time of arrival where it was never set."""
        if stamp_ns:
            return stamp_ns
        self._health.count(f"{what} stamps replaced")
        self._health.report(
            f"{what} without stamp", "the driver sets none: the time of arrival is taken"
        )
        return self._middleware.now_ns()

    def _judge_stamp(self, stamp_ns: int) -> None:
        """Report a stamp that is far from the node's clock; the image is used anyway."""
        now_ns = self._middleware.now_ns()
        behind_s = (now_ns - stamp_ns) / NS_PER_S
        if now_ns == 0:
            return  # reported by tick
        if behind_s > self._parameters["max_stamp_age_s"]:
            self._health.report(
                "stale stamps",
                f"image stamps are {behind_s:.1f} s behind the node's clock (a recording without "
                "use_sim_time, or clocks of two machines?)",
            )
        elif -behind_s > self._parameters["max_stamp_ahead_s"]:
            self._health.report(
                "stamps ahead", f"image stamps are {-behind_s:.1f} s ahead of the node's clock"
            )

    @contextlib.contextmanager
    def _guarded(self, problem: str) -> Iterator[None]:
        """A context that counts and reports any exception, so that a bad message ends no node."""
        try:
            yield
        except Exception as error:
            self._health.count(problem)
            self._health.report(problem, _in_words(error))

    # What prevents grounding. The lock is held.

    @property
    def _unanswered(self) -> bool:
        """Whether the current command is still to be answered (in continuous mode, always)."""
        session = self._session
        if session is None or not session.actions:
            return False
        once = self._parameters["mode"] == "on_command"
        return not (once and session.command_id == self._answered_command)

    @property
    def _pending(self) -> bool:
        """Whether there is a new window for the current command."""
        session = self._session
        return session is not None and self._unanswered and session.status is SessionStatus.READY

    @property
    def _image_age_s(self) -> float:
        """Seconds since an image renewed the window, or since the activation."""
        return time.monotonic() - max(self._activated_s, self._renewed_s)

    @property
    def _obstacle(self) -> tuple[Status, str] | None:
        """Why there is no window to ground; None where there is one."""
        age_s = self._image_age_s
        if age_s > self._parameters["image_timeout_s"]:
            return Status.NO_IMAGES, self._no_image_for(age_s)
        if self._session is None or self._session.window() is None:
            return Status.WAITING_FOR_FRAMES, "the images do not span the window yet"
        return None

    @property
    def _due_in_s(self) -> float:
        """Seconds until the rate limit allows the next window; 0 or less where it does now."""
        rate_hz = self._parameters["max_rate_hz"]
        return self._taken_s + 1 / rate_hz - time.monotonic() if rate_hz else 0.0

    # The worker

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                self._ground(task)
            except Exception as error:  # a window that fails must not end the node
                self._fail(task, error)

    def _next(self) -> _Task | None:
        """Waits for the next task; None when the worker is to end."""
        with self._wake:
            self._busy = False
            while self._is_working:
                task = self._choose()
                if task is not None:
                    self._busy = True
                    return task
                limited = self._pending and self._obstacle is None
                self._wake.wait(min(self._due_in_s, threading.TIMEOUT_MAX) if limited else None)
        return None

    @property
    def _is_working(self) -> bool:
        """Whether the calling thread is (still) the worker."""
        return self._worker is threading.current_thread()

    def _choose(self) -> _Task | None:
        """The next task; None where there is none. The lock is held."""
        session, grounder = self._session, self._grounder
        if session is None or grounder is None or self._obstacle is not None:
            return None
        request = self._requests.pop(0) if self._requests else None
        if request is not None:
            job = session.take_for(request.actions)
        elif self._pending and self._due_in_s <= 0:
            self._taken_s, self._answered_command = time.monotonic(), session.command_id
            job = session.take()
        else:
            job = None
        if job is None:
            return None
        return _Task(session, job, grounder.backbone.name, self._parameters, request)

    def _ground(self, task: _Task) -> None:
        job, frame, request = task.job, task.job.window.newest, task.request
        self._positions.depth.expect("the window being grounded", frame.stamp_ns)
        began_s = time.monotonic()
        groundings = task.session.run(job)
        compute_s = time.monotonic() - began_s
        self._health.event("windows grounded", compute_s)
        in_space = request is not None or self._outputs.want_positions(len(groundings))
        answers = self._positions.answers(groundings, task.parameters, in_space=in_space)
        now_ns = self._middleware.now_ns()
        about = Circumstances(
            frame.stamp_ns,
            frame.frame_id,
            now_ns,
            0 if request else job.command_id,
            compute_s,
            task.backbone,
        )
        if request is not None:
            self._count(answers)
            request.answer(self._outcome(answers, about))
            return
        with self._speaking:
            if not self._goes_on(task):
                return
            self._count(answers)
            self._outputs.publish(answers, about)
        self._outputs.draw(frame, answers, task.parameters)
        self._health.event("latency", (now_ns - frame.stamp_ns) / NS_PER_S)

    def _goes_on(self, task: _Task) -> bool:
        """Whether a window's answers may be published.

        After a deactivation they are not, and its command counts as unanswered. Nor are they after
        an empty command, so that a robot that was told to stop is sent nowhere.
        """
        command_id = task.job.command_id
        with self._wake:
            working, stopped = self._is_working, self._is_stopped(command_id)
            if not working and self._answered_command == command_id:
                self._answered_command = 0  # so that it is grounded after the next activation
        if stopped:
            self._health.count("windows stopped")
        return working and not stopped

    def _is_stopped(self, command_id: int) -> bool:
        """Whether an empty command came after a command."""
        with self._wake:
            return command_id < self._stopping_command

    def _count(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            self._health.count(f"answers {answer.status.name}")
            if answer.status in (Status.NO_DEPTH, Status.NO_TRANSFORM):
                self._health.report("no position", answer.reason)

    def _outcome(self, answers: Sequence[Answer], about: Circumstances) -> GroundOutcome:
        reason = next((answer.reason for answer in answers if answer.reason), "")
        messages = tuple(self._outputs.build.grounding(answer, about) for answer in answers)
        return GroundOutcome(not reason, reason, messages)

    def _fail(self, task: _Task, error: Exception) -> None:
        reason = _in_words(error)
        self._health.count("windows failed")
        self._health.report("grounding failed", reason, Level.ERROR)
        self._middleware.log("debug", traceback.format_exc())
        if task.request is not None:
            task.request.answer(GroundOutcome(False, reason))
            return
        with self._speaking, self._guarded("answer failed"):
            if not self._goes_on(task):
                return
            for index, action in enumerate(task.job.actions):
                answer = Answer(Status.ERROR, reason, action, index)
                self._say(answer, command_id=task.job.command_id)


def _load(parameters: Parameters) -> tuple[Grounder, Session]:
    """Load the backbone and run everything once, so that the first window does not wait for it."""
    parameters.check_together()
    device = parameters["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    weights = parameters["weights"] or None
    name = backbone_name(parameters["backbone"], weights)
    backbone = load_backbone(name, weights, device, parameters["dtype"])
    config, graphs = parameters.grounding_config(), parameters["cuda_graphs"]
    grounder = Grounder(backbone, config, cuda_graphs=graphs)
    session = Session(grounder, parameters.session_config(), parameters.parse)
    blank = Frame(np.zeros((*WARM_UP_HW, 3), np.uint8), stamp_ns=0)
    window = Window((blank,) * (session.config.frames or 1))
    grounder.warm_up(window, parameters.parse(WARM_UP_COMMAND))
    return grounder, session


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch._C._cuda_clearCublasWorkspaces()  # left by recorded passes for their streams
    torch.cuda.empty_cache()  # does nothing where CUDA was never used


def _qos_of(topic: str) -> str:
    """Name of the condition that a topic has incompatible peers."""
    return f"QoS of {topic}"


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, VideoGemError) else f"{type(error).__name__}: {error}"

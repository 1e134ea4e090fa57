"""The node's parameters in one table: names, defaults, ranges, meaning, and what may change live.

Names are flat and dotted, as in ROS 2. Parameters of the grounder and the session take their
default and validation from there.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from videogem_ros.core.configuration import (
    CUDA_GRAPHS,
    FUSIONS,
    RESIZES,
    SCOPES,
    SHIPPED,
    USUAL,
    WEIGHTINGS,
    GroundingConfig,
)
from videogem_ros.core.presence import PresenceConfig
from videogem_ros.core.prompts import VERB_FORMS, PromptConfig
from videogem_ros.errors import InvalidValueError, reason
from videogem_ros.live.topics import NODE_NAME
from videogem_ros.render import HEAT_OPACITY
from videogem_ros.window import WindowConfig

if TYPE_CHECKING:
    from videogem_ros.datatypes import Action
    from videogem_ros.session import SessionConfig

Value = str | bool | int | float | tuple[float, ...] | tuple[str, ...]
"""A parameter's value; the default has the same type."""


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        name: Flat and dotted.
        default: Decides the type: str, bool, int, float, tuple of float or tuple of str.
        description: For users, including the meaning of special values.
        choices: Allowed texts; any where empty.
        minimum: Least number allowed.
        maximum: Greatest number allowed.
        live: Whether it may change while the node is configured.
        unit: "s", "px", ...; empty where there is none.
    """

    name: str
    default: Value
    description: str
    choices: tuple[str, ...] = ()
    minimum: float = -math.inf
    maximum: float = math.inf
    live: bool = False
    unit: str = ""

    def check(self, value: Any) -> Value:
        """The value in the parameter's type: whole numbers become floats, lists become tuples.

        Raises:
            InvalidValueError: It has another type, or is outside the range or choices.
        """
        converted: Value | None = _CONVERTERS[self.kind](value)
        if converted is not None:
            items = converted if isinstance(converted, tuple) else (converted,)
            if all(map(self._allows, items)):
                return converted
        # What is no text is shown with quotes, which may be all that is wrong with it.
        got = value if self.kind == "string" else repr(value)
        raise InvalidValueError(self.name, self.expected, got)

    def _allows(self, value: str | float) -> bool:
        if isinstance(value, str):
            return not self.choices or value in self.choices
        return self.minimum <= value <= self.maximum

    @property
    def kind(self) -> str:
        """Type in ROS's terms: string, bool, integer, double, double_array or string_array."""
        if isinstance(self.default, tuple):
            return "string_array" if isinstance(self.default[0], str) else "double_array"
        kinds = {str: "string", bool: "bool", int: "integer", float: "double"}
        return kinds[type(self.default)]

    @property
    def expected(self) -> str:
        """Type, unit and range in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = _KIND_WORDS[self.kind] + (f" [{self.unit}]" if self.unit else "")
        if self.minimum > -math.inf and self.maximum < math.inf:
            return f"{words} in [{self.minimum:g}, {self.maximum:g}]"
        return f"{words} of at least {self.minimum:g}" if self.minimum > -math.inf else words


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _integer(value: Any) -> int | None:
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def _double(value: Any) -> float | None:
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def _tuple_of(convert: Any) -> Any:
    def convert_all(value: Any) -> tuple[Any, ...] | None:
        items = value.tolist() if hasattr(value, "tolist") else value  # NumPy's or array.array
        if isinstance(items, str) or not isinstance(items, Sequence) or not items:
            return None
        converted = tuple(map(convert, items))
        return None if None in converted else converted

    return convert_all


_CONVERTERS = {
    "string": _text,
    "bool": _flag,
    "integer": _integer,
    "double": _double,
    "double_array": _tuple_of(_double),
    "string_array": _tuple_of(_text),
}
_KIND_WORDS = {
    "string": "a string",
    "bool": "true or false",
    "integer": "a whole number",
    "double": "a number",
    "double_array": "numbers",
    "string_array": "strings",
}

_GROUNDING, _PROMPTS, _PRESENCE = GroundingConfig(), PromptConfig(), PresenceConfig()
_WINDOW = WindowConfig()

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "backbone",
        "",
        "openclip:MODEL (an open_clip model name or the path of a model configuration), "
        "viclip:B-16, viclip:L-14, or openclip:tabletop or viclip:tabletop, which are part of "
        f"the package; empty for {SHIPPED}, or for {USUAL} if weights are given",
    ),
    Parameter(
        "weights",
        "",
        "published tag, weight file, or random:SEED for an untrained model; empty for the "
        "backbone's default weights",
    ),
    Parameter("device", "", "cpu, cuda, cuda:1, ...; empty for cuda if available, else cpu"),
    Parameter(
        "dtype",
        "float32",
        "precision of the vision tower; slow if the processor or GPU does not support it natively",
        choices=("float32", "bfloat16", "float16"),
    ),
    Parameter(
        "cuda_graphs",
        CUDA_GRAPHS[0],
        "whether vision tower passes are recorded as CUDA graphs and replayed on a GPU; "
        "results are the same",
        choices=CUDA_GRAPHS,
    ),
    Parameter(
        "resize",
        _GROUNDING.resize,
        "how an image is resized to the network's input",
        choices=RESIZES,
    ),
    Parameter(
        "input_height",
        0,
        "height of the network's input; 0 for the backbone's default",
        minimum=0,
        unit="px",
    ),
    Parameter(
        "input_width",
        0,
        "width of the network's input; 0 for the backbone's default",
        minimum=0,
        unit="px",
    ),
    Parameter(
        "self_self_depth",
        _GROUNDING.depth,
        "number of last blocks with a self-self path, K",
        minimum=1,
    ),
    Parameter(
        "self_self_scope",
        _GROUNDING.self_self_scope,
        "whether, in the self-self path, a video backbone's patch attends to the patches of "
        "the whole window or, as an approximation in 0.6 to 0.7 of the time, of its own frame",
        choices=SCOPES,
    ),
    Parameter(
        "weighting",
        _GROUNDING.weighting,
        "layer weighting; uniform is GEM, static+dynamic VideoGEM",
        choices=WEIGHTINGS,
        live=True,
    ),
    Parameter(
        "static_weights",
        _GROUNDING.static_weights,
        "K + 1 static layer weights, earliest first",
        live=True,
    ),
    Parameter(
        "dynamic_depth",
        _GROUNDING.dynamic_depth,
        "number of last terms that get dynamic weights, at most K",
        minimum=1,
        live=True,
    ),
    Parameter(
        "dynamic_scale",
        _GROUNDING.dynamic_scale,
        "inverse temperature of the dynamic weights",
        minimum=0.0,
        live=True,
    ),
    Parameter(
        "fusion",
        _GROUNDING.fusion,
        "whether the prompts' points or their heatmaps are averaged",
        choices=FUSIONS,
        live=True,
    ),
    Parameter(
        "fusion_weights",
        _GROUNDING.fusion_weights,
        "weights of the verb, object and action prompts, with a sum of 1",
        minimum=0.0,
        live=True,
    ),
    Parameter("prompts.verb", _PROMPTS.verb, "verb prompt, contains {verb}", live=True),
    Parameter("prompts.object", _PROMPTS.object, "object prompt, contains {object}", live=True),
    Parameter("prompts.action", _PROMPTS.action, "action prompt, contains {action}", live=True),
    Parameter(
        "prompts.no_verb", _PROMPTS.no_verb, "verb prompt for actions without a verb", live=True
    ),
    Parameter(
        "prompts.no_object",
        _PROMPTS.no_object,
        "object prompt for actions without an object",
        live=True,
    ),
    Parameter(
        "prompts.verb_form",
        _PROMPTS.verb_form,
        "form of the verb in the prompts: base form or gerund (pouring)",
        choices=VERB_FORMS,
        live=True,
    ),
    Parameter(
        "presence.threshold",
        _PRESENCE.threshold,
        "minimum score of an action that counts as present",
        minimum=0.0,
        maximum=1.0,
        live=True,
    ),
    Parameter(
        "presence.slope", _PRESENCE.slope, "slope of the score's calibration, above 0", live=True
    ),
    Parameter("presence.offset", _PRESENCE.offset, "offset of the score's calibration", live=True),
    Parameter(
        "presence.neutral",
        _PRESENCE.neutral,
        "texts for an image in which nothing in particular is done",
        live=True,
    ),
    Parameter(
        "spacy_model",
        "",
        "installed spaCy pipeline for parsing commands; empty for the built-in parser",
    ),
    Parameter(
        "window.frames",
        0,
        "number of images in a window; 0 for the number that the backbone encodes jointly",
        minimum=0,
    ),
    Parameter(
        "window.frame_interval_s",
        _WINDOW.frame_interval_s,
        "time between the images of a window, above 0",
        minimum=0.0,
        unit="s",
    ),
    Parameter(
        "window.start",
        _WINDOW.start,
        "until a window is full: fill it with its oldest image, or wait",
        choices=("fill", "wait"),
    ),
    Parameter(
        "window.tolerance_intervals",
        _WINDOW.tolerance_intervals,
        "how far an image may be from its slot although a nearer one arrived, in intervals; 0 "
        "keeps every image",
        minimum=0.0,
        maximum=0.5,
    ),
    Parameter(
        "window.max_gap_intervals",
        _WINDOW.max_gap_intervals,
        "longest gap between two images, in intervals; a longer one restarts the window",
        minimum=1.0,
    ),
    Parameter(
        "window.time_jump_s",
        _WINDOW.time_jump_s,
        "stamps that jump back by more than this restart the window (bag loops)",
        minimum=0.0,
        unit="s",
    ),
    Parameter(
        "window.max_buffer_frames",
        _WINDOW.max_buffer_frames,
        "maximum number of buffered images",
        minimum=1,
    ),
    Parameter(
        "window.max_buffer_bytes",
        _WINDOW.max_buffer_bytes,
        "maximum size of all buffered images",
        minimum=1,
        unit="B",
    ),
    Parameter(
        "image_transport",
        "raw",
        "raw subscribes to image, compressed to image/compressed",
        choices=("raw", "compressed"),
    ),
    Parameter(
        "image_reliability",
        "best_effort",
        "QoS reliability of image, depth and camera_info; best_effort receives from every "
        "publisher (REP-2003)",
        choices=("best_effort", "reliable"),
    ),
    Parameter(
        "mode",
        "continuous",
        "ground every window, as fast as the machine allows, or once per command",
        choices=("continuous", "on_command"),
        live=True,
    ),
    Parameter(
        "max_rate_hz",
        0.0,
        "maximum rate of grounded windows; 0 for no limit",
        minimum=0.0,
        live=True,
        unit="Hz",
    ),
    Parameter(
        "commands",
        "replace",
        "whether a command replaces the current actions or is added to them (beyond "
        "max_actions the oldest are removed); an empty command always stops grounding",
        choices=("replace", "add"),
        live=True,
    ),
    Parameter(
        "max_actions",
        4,
        "maximum number of simultaneous actions; each has its own topics",
        minimum=1,
        maximum=64,
    ),
    Parameter(
        "request_timeout_s",
        10.0,
        "timeout of requests that do not set one",
        minimum=0.01,
        live=True,
        unit="s",
    ),
    Parameter(
        "image_timeout_s",
        2.0,
        "if no image arrives for this long, images are reported missing, and old ones no "
        "longer answer new commands",
        minimum=0.01,
        live=True,
        unit="s",
    ),
    Parameter(
        "max_stamp_age_s",
        2.0,
        "arriving images with older stamps are reported as stale",
        minimum=0.0,
        live=True,
        unit="s",
    ),
    Parameter(
        "max_stamp_ahead_s",
        0.1,
        "stamps further ahead of the node's clock than this are reported",
        minimum=0.0,
        live=True,
        unit="s",
    ),
    Parameter(
        "heatmap.scale",
        1.0,
        "size of the published heatmap relative to the image",
        minimum=0.01,
        maximum=1.0,
        live=True,
    ),
    Parameter(
        "overlay.opacity",
        HEAT_OPACITY,
        "opacity of an overlay where the heatmap is highest",
        minimum=0.0,
        maximum=1.0,
        live=True,
    ),
    Parameter(
        "overlay.jpeg_quality",
        90,
        "JPEG quality of compressed overlays",
        minimum=1,
        maximum=100,
        live=True,
    ),
    Parameter(
        "depth.use",
        "auto",
        "when to compute positions in space; auto: once a depth image has arrived",
        choices=("auto", "always", "never"),
    ),
    Parameter(
        "depth.rectified",
        False,
        "whether image and depth are rectified (image_rect), so that positions use P of "
        "camera_info; false for image_raw, where they use K and the distortion D",
        live=True,
    ),
    Parameter(
        "depth.tolerance_s",
        0.05,
        "maximum difference between the stamps of image and depth",
        minimum=0.0,
        live=True,
        unit="s",
    ),
    Parameter(
        "depth.wait_s",
        0.1,
        "maximum wait for the depth image of a grounded image",
        minimum=0.0,
        maximum=5.0,
        live=True,
        unit="s",
    ),
    Parameter(
        "depth.window_px",
        11,
        "side of the square around the point whose median depth is used, in depth pixels",
        minimum=1,
        maximum=501,
        live=True,
        unit="px",
    ),
    Parameter(
        "depth.min_samples",
        5,
        "minimum number of valid depths in that square",
        minimum=1,
        live=True,
    ),
    Parameter(
        "target_frame",
        "",
        "frame of positions, looked up in TF at the image's stamp; empty for the camera's optical "
        "frame (REP-103)",
        live=True,
    ),
)
"""Every parameter, in the order of ``config/ground.yaml``."""

_OF_EVERY_NODE = ("start_type_description_service", "qos_overrides.")
"""Prefixes of other parameters that ``ros2 param dump`` writes."""

_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}

_GROUNDING_FIELDS = {
    "resize": "resize",
    "self_self_depth": "depth",
    "self_self_scope": "self_self_scope",
    "weighting": "weighting",
    "static_weights": "static_weights",
    "dynamic_depth": "dynamic_depth",
    "dynamic_scale": "dynamic_scale",
    "fusion": "fusion",
    "fusion_weights": "fusion_weights",
}
_WINDOW_FIELDS = {
    name: name.removeprefix("window.") for name in _BY_NAME if name.startswith("window.")
}
_FIELD_NAMES = {field: name for name, field in (_GROUNDING_FIELDS | _WINDOW_FIELDS).items()}
_FIELD_NAMES["image_hw"] = "input_height"

_TOGETHER = (
    *("input_height", "input_width"),
    *("self_self_depth", "dynamic_depth", "static_weights"),
    *("window.frames", "window.max_buffer_frames"),
)
"""Parameters whose allowed values depend on other parameters."""


@contextlib.contextmanager
def parameter_names() -> Iterator[None]:
    """A context in which errors of grounder and session name the parameter instead of a field."""
    try:
        yield
    except InvalidValueError as error:
        name = _FIELD_NAMES.get(error.field, error.field)
        raise InvalidValueError(name, error.expected, error.got) from error


class Parameters:
    """Values of all parameters, each of them valid by itself; immutable.

    Attributes:
        values: Every parameter's value by name.
    """

    def __init__(self) -> None:
        self.values: Mapping[str, Value] = MappingProxyType(
            {parameter.name: parameter.default for parameter in PARAMETERS}
        )

    @classmethod
    def from_mapping(cls, changes: Mapping[str, Any]) -> Parameters:
        """The defaults with changes.

        Args:
            changes: Values by flat name.

        Raises:
            InvalidValueError: An unknown name, a value outside its range, or values that are
                inconsistent; the error's field is the parameter's name.
        """
        parameters = cls().updated(changes, running=False)
        parameters.check_together()
        return parameters

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def updated(self, changes: Mapping[str, Any], *, running: bool = True) -> Parameters:
        """A copy with changes.

        Args:
            changes: Values by flat name.
            running: Whether the node is configured. Then only live parameters may change, and
                values have to be consistent. Otherwise consistency is left to
                :meth:`check_together`, as parameters may be set one by one.

        Raises:
            InvalidValueError: As for :meth:`from_mapping`, or the parameter cannot change while
                the node is configured.
        """
        values = dict(self.values)
        for name, value in changes.items():
            parameter = _BY_NAME.get(name)
            if parameter is None:
                near = difflib.get_close_matches(name, _BY_NAME, n=1)
                hint = f" (such as {near[0]})" if near else ""
                raise InvalidValueError(name, f"a parameter of the node{hint}", "an unknown name")
            values[name] = parameter.check(value)
            if running and not parameter.live and values[name] != self.values[name]:
                raise InvalidValueError(
                    name,
                    f"{self.values[name]!r} as long as the node is configured (clean up, set, "
                    "configure)",
                    value,
                )
        updated = _holding(values)
        if running:
            updated.check_together()
        else:  # only parameters that do not depend on others
            alone = {name: value for name, value in values.items() if name not in _TOGETHER}
            _holding({**Parameters().values, **alone}).check_together()
        return updated

    def check_together(self) -> None:
        """Refuse inconsistent values.

        Raises:
            InvalidValueError: Values are inconsistent; the error's field is a parameter's name.
        """
        with parameter_names():
            self.grounding_config()
            WindowConfig(**self._window_fields)
        if bool(self["input_height"]) != bool(self["input_width"]):
            raise InvalidValueError(
                "input_width", "both sides of the network's input or neither", self["input_width"]
            )

    def grounding_config(self) -> GroundingConfig:
        """The grounder's configuration."""
        height, width = self["input_height"], self["input_width"]
        return GroundingConfig(
            **{field: self[name] for name, field in _GROUNDING_FIELDS.items()},
            image_hw=(height, width) if height and width else None,
            prompts=PromptConfig(**self._below("prompts.")),
            presence=PresenceConfig(**self._below("presence.")),
        )

    def session_config(self) -> SessionConfig:
        """The session's configuration, which grounds the newest image of a window."""
        from videogem_ros.session import SessionConfig  # noqa: PLC0415 - brings torch

        return SessionConfig(**self._window_fields, max_actions=self["max_actions"])

    def parse(self, text: str) -> tuple[Action, ...]:
        """The actions of a command, parsed with ``spacy_model``."""
        from videogem_ros.language import parse_actions  # noqa: PLC0415 - brings spaCy

        return parse_actions(text, spacy_model=self["spacy_model"] or None)

    @property
    def _window_fields(self) -> dict[str, Any]:
        fields = self._below("window.")
        return fields | {"frames": fields["frames"] or None}

    def _below(self, prefix: str) -> dict[str, Any]:
        return {
            name.removeprefix(prefix): value
            for name, value in self.values.items()
            if name.startswith(prefix)
        }


def _holding(values: Mapping[str, Value]) -> Parameters:
    """Parameters with these values, which must be complete and valid."""
    parameters = Parameters()
    parameters.values = MappingProxyType(dict(values))
    return parameters


def grounding_parameters(config: GroundingConfig) -> dict[str, Value]:
    """The parameters of a grounder's configuration.

    The inverse of :meth:`Parameters.grounding_config`.

    Args:
        config: The configuration.

    Returns:
        Values by flat name, in the order of ``PARAMETERS``.
    """
    height, width = config.image_hw or (0, 0)
    values = {
        **{name: getattr(config, field) for name, field in _GROUNDING_FIELDS.items()},
        **{f"prompts.{field}": value for field, value in vars(config.prompts).items()},
        **{f"presence.{field}": value for field, value in vars(config.presence).items()},
        "input_height": height,
        "input_width": width,
    }
    return {name: values[name] for name in _BY_NAME if name in values}


def load_parameter_file(path: Path, node_name: str = NODE_NAME) -> dict[str, Any]:
    """Parameters of one node in a ROS 2 parameter file.

    Sections whose name matches the node's full name apply, in the order of the file. In names,
    ``*`` stands for one part and ``**`` for any number of parts, namespaces may be nested, and the
    leading slash may be omitted.

    Args:
        path: YAML file with ``<node>: ros__parameters: ...``.
        node_name: The node's name with its namespace.

    Returns:
        Values by flat name, unchecked; see :meth:`Parameters.from_mapping`.

    Raises:
        InvalidValueError: The file cannot be read, or is not a parameter file.
    """
    import yaml  # noqa: PLC0415 - only who has a file needs YAML

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        got = f"{path} ({reason(error)})"
        raise InvalidValueError("parameter file", "a readable YAML file", got) from error
    if not isinstance(content, Mapping):
        raise InvalidValueError("parameter file", "sections by node name", f"{path}: {content!r}")
    found: dict[str, Any] = {}
    for name, parameters in _sections(content):
        if _section_pattern(name).fullmatch("/" + node_name.strip("/")):
            found |= _flattened(parameters)
    return found


def take_common(values: dict[str, Any]) -> bool:
    """Remove parameters that every ROS 2 node, or our lifecycle node, declares by itself.

    Args:
        values: Values by flat name, from :func:`load_parameter_file`; changed in place.

    Returns:
        ``use_sim_time``.

    Raises:
        InvalidValueError: ``use_sim_time`` or ``autostart`` is neither true nor false.
    """
    flags = {name: values.pop(name, False) for name in ("use_sim_time", "autostart")}
    for name, value in flags.items():
        if _flag(value) is None:
            raise InvalidValueError(name, _KIND_WORDS["bool"], repr(value))
    for name in [name for name in values if name.startswith(_OF_EVERY_NODE)]:
        del values[name]
    return bool(flags["use_sim_time"])


def _sections(
    tree: Mapping[Any, Any], parents: str = ""
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Full node names of a parameter file, each with its ros__parameters."""
    for key, below in tree.items():
        if not isinstance(below, Mapping):
            raise InvalidValueError("parameter file", "node names above ros__parameters", str(key))
        if key == "ros__parameters":
            yield parents, below
        else:
            yield from _sections(below, f"{parents}/{str(key).strip('/')}")


def _section_pattern(name: str) -> re.Pattern[str]:
    parts = {"**": "(/[^/]+)*", "*": "/[^/]+"}
    return re.compile(
        "".join(parts.get(part, f"/{re.escape(part)}") for part in name.strip("/").split("/"))
    )


def _flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        flat |= _flattened(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat

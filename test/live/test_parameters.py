from __future__ import annotations

import array
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from videogem_ros.core import GroundingConfig
from videogem_ros.errors import InvalidValueError
from videogem_ros.live.parameters import (
    PARAMETERS,
    Parameters,
    grounding_parameters,
    load_parameter_file,
    parameter_names,
    take_common,
)
from videogem_ros.resources import find
from videogem_ros.session import SessionConfig

KINDS = {"string", "bool", "integer", "double", "double_array", "string_array"}


def test_the_defaults_are_those_of_core_and_session():
    parameters = Parameters()
    assert parameters.grounding_config() == GroundingConfig()
    assert parameters.session_config() == SessionConfig(max_actions=parameters["max_actions"])


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.name)
def test_every_parameter_is_documented_and_allows_its_default(parameter: Any):
    assert parameter.kind in KINDS
    assert parameter.check(parameter.default) == parameter.default
    assert parameter.description.strip()


def test_names_are_unique_and_none_is_a_group_of_another():
    names = [parameter.name for parameter in PARAMETERS]
    assert len(set(names)) == len(names)
    assert not [a for a in names for b in names if b.startswith(f"{a}.")]


def test_the_configuration_file_holds_every_parameter_with_its_default():
    given = load_parameter_file(find("config/ground.yaml"))
    assert list(given) == [parameter.name for parameter in PARAMETERS]
    assert dict(Parameters.from_mapping(given).values) == dict(Parameters().values)
    for parameter in PARAMETERS:  # ROS has types: 1 is not 1.0
        default = list(parameter.default) if parameter.kind.endswith("array") else None
        value = given[parameter.name]
        assert value == (default or parameter.default)
        assert type(value) is type(default or parameter.default)


def test_the_configuration_file_says_what_may_change_live():
    text = find("config/ground.yaml").read_text(encoding="utf-8")
    for parameter in PARAMETERS:
        comment = text[: text.index(f"\n    {parameter.name}:")].rpartition("\n\n")[2]
        assert comment.rstrip().endswith("(live)") == parameter.live, parameter.name


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [
        ("max_rate_hz", 5, 5.0),
        ("max_rate_hz", np.float32(2.5), 2.5),
        ("max_actions", np.int64(2), 2),
        ("fusion_weights", [0, 0, 1], (0.0, 0.0, 1.0)),
        ("fusion_weights", array.array("d", [0.5, 0.5, 0]), (0.5, 0.5, 0.0)),
        ("fusion_weights", np.array([0.25, 0.25, 0.5]), (0.25, 0.25, 0.5)),
        ("presence.neutral", ["A kitchen."], ("A kitchen.",)),
        ("window.frames", 3, 3),
        ("target_frame", "base_link", "base_link"),
        ("depth.rectified", True, True),
    ],
)
def test_values_are_taken_as_the_parameters_type(name: str, value: Any, held: Any):
    parameters = Parameters.from_mapping({name: value})
    assert parameters[name] == held
    assert type(parameters[name]) is type(held)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_rate_hz", -1, "at least 0"),
        ("max_rate_hz", 10**400, "a number"),
        ("max_rate_hz", math.nan, r"a number \[Hz\]"),
        ("max_rate_hz", math.inf, "a number"),
        ("max_rate_hz", True, "a number"),
        ("max_rate_hz", "fast", "a number"),
        ("max_actions", 2.0, "a whole number"),
        ("max_actions", 0, r"in \[1, 64\]"),
        ("max_actions", True, "a whole number"),
        ("depth.rectified", 1, "true or false"),
        ("depth.rectified", "true", "true or false"),
        ("mode", "sometimes", "one of continuous, on_command"),
        ("weighting", "dynamite", "one of uniform, static, dynamic"),
        ("cuda_graphs", "always", "one of auto, never"),
        ("overlay.opacity", 1.1, r"in \[0, 1\]"),
        ("backbone", 3, "a string"),
        ("backbone", None, "a string"),
        ("fusion_weights", [0.5, 0.5], "three weights"),
        ("fusion_weights", [0.5, 0.5, 0.5], "sum to 1"),
        ("fusion_weights", [0.5, "a", 0.5], "numbers"),
        ("fusion_weights", "0.5", "numbers"),
        ("presence.neutral", [], "strings"),
        ("presence.neutral", [" "], "one text or more"),
        ("presence.slope", 0.0, "above zero"),
        ("prompts.verb", "A photo.", "a template with {verb}"),
        ("prompts.verb", "{", "a template"),
        ("window.frame_interval_s", 0.0, r"in \[1e-09, 1e\+06\]"),
        ("window.max_buffer_frames", 0, "at least 1"),
        ("max_rat_hz", 1, "such as max_rate_hz"),
        ("use_sim_time", True, "a parameter of the node"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: Any, expected: str):
    with pytest.raises(InvalidValueError, match=expected) as refused:
        Parameters.from_mapping({name: value})
    assert refused.value.field == name


@pytest.mark.parametrize(
    ("name", "value", "got"),
    [
        ("presence.threshold", "0.3", "got '0.3'"),
        ("max_actions", "4", "got '4'"),
        ("depth.rectified", "true", "got 'true'"),
        ("fusion_weights", "0.5", "got '0.5'"),
        ("fusion_weights", [0.5, "0.5"], r"got \[0.5, '0.5'\]"),
        ("mode", "sometimes", "got sometimes"),
    ],
)
def test_a_number_or_flag_in_quotes_is_shown_with_them(name: str, value: Any, got: str):
    with pytest.raises(InvalidValueError, match=f"{got}$"):
        Parameters.from_mapping({name: value})


@pytest.mark.parametrize("name", ["use_sim_time", "autostart"])
def test_a_flag_of_every_node_in_quotes_is_shown_with_them(name: str):
    with pytest.raises(InvalidValueError, match=r"expected true or false, got 'true'$"):
        take_common({name: "true"})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"self_self_depth": 5}, "static_weights"),
        ({"dynamic_depth": 8}, "dynamic_depth"),
        ({"input_height": 224}, "input_width"),
        ({"input_width": 224}, "input_width"),
        ({"window.frames": 16, "window.max_buffer_frames": 8}, "window.max_buffer_frames"),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes: dict[str, Any], field: str):
    with pytest.raises(InvalidValueError) as refused:
        Parameters.from_mapping(changes)
    assert refused.value.field == field


def test_values_that_go_together_only_are_taken_together():
    parameters = Parameters.from_mapping(
        {"self_self_depth": 2, "dynamic_depth": 1, "static_weights": [1, 1, 1]}
    )
    assert parameters.grounding_config().depth == 2


def test_the_inputs_size_is_height_and_width_and_back():
    values = {"input_height": 224, "input_width": 448}
    config = Parameters.from_mapping(values).grounding_config()
    assert config.image_hw == (224, 448)
    given = grounding_parameters(config)
    assert {name: given[name] for name in values} == values
    assert Parameters.from_mapping(given).grounding_config() == config


def test_errors_of_the_inputs_size_name_the_parameter():
    with pytest.raises(InvalidValueError, match=r"^input_height: "), parameter_names():
        raise InvalidValueError("image_hw", "multiples of 16", (225, 225))


def test_commands_are_read_by_the_pipeline_that_is_named():
    with pytest.raises(InvalidValueError, match="no_such_pipeline"):
        Parameters.from_mapping({"spacy_model": "no_such_pipeline"}).parse("open the drawer")


ONE_BY_ONE = [
    {"input_height": 448, "input_width": 448},
    {"self_self_depth": 5, "static_weights": (0.1,) * 6},
    {"self_self_depth": 2, "dynamic_depth": 2, "static_weights": (1.0,) * 3},
    {"window.frames": 300, "window.max_buffer_frames": 300},
]


@pytest.mark.parametrize("values", ONE_BY_ONE)
@pytest.mark.parametrize("backwards", [False, True])
def test_values_that_go_together_only_are_taken_one_by_one_before_the_node_is_configured(
    values: dict[str, Any], backwards: bool
):
    parameters = Parameters()
    for name in reversed(values) if backwards else values:
        parameters = parameters.updated({name: values[name]}, running=False)
    parameters.check_together()
    assert {name: parameters[name] for name in values} == values


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"input_height": 448}, "input_width"),
        ({"self_self_depth": 5}, "static_weights"),
        ({"dynamic_depth": 8}, "dynamic_depth"),
        ({"window.frames": 300}, "window.max_buffer_frames"),
    ],
)
def test_what_does_not_go_together_is_found_when_all_are_set(changes: dict[str, Any], field: str):
    parameters = Parameters().updated(changes, running=False)
    with pytest.raises(InvalidValueError) as refused:
        parameters.check_together()
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_height", -1),
        ("self_self_depth", 0),
        ("fusion_weights", [0.5, 0.5, 0.5]),
        ("presence.slope", 0.0),
        ("prompts.verb", "A photo."),
        ("window.frame_interval_s", 0.0),
    ],
)
def test_what_is_wrong_by_itself_is_refused_at_once(name: str, value: Any):
    odd = Parameters().updated({"input_width": 448, "self_self_depth": 5}, running=False)
    with pytest.raises(InvalidValueError) as refused:
        odd.updated({name: value}, running=False)
    assert refused.value.field == name


LIVE = {
    "weighting": "uniform",
    "fusion": "heatmaps",
    "fusion_weights": (0.0, 0.0, 1.0),
    "presence.threshold": 0.9,
    "overlay.opacity": 0.2,
    "heatmap.scale": 0.5,
    "max_rate_hz": 3.0,
    "mode": "on_command",
    "target_frame": "base_link",
    "depth.tolerance_s": 0.2,
}


def test_what_may_change_live_changes_and_the_set_before_does_not():
    before = Parameters()
    after = before.updated(LIVE)
    assert {name: after[name] for name in LIVE} == LIVE
    assert dict(before.values) == dict(Parameters().values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "cuda"),
        ("cuda_graphs", "never"),
        ("backbone", "viclip:B-16"),
        ("window.frames", 4),
        ("max_actions", 9),
    ],
)
def test_what_may_not_change_live_is_refused_with_the_reason(name: str, value: Any):
    with pytest.raises(InvalidValueError, match="as long as the node is configured") as refused:
        Parameters().updated({name: value})
    assert refused.value.field == name
    assert Parameters().updated({name: value}, running=False)[name] == value


def test_setting_a_fixed_parameter_to_what_it_is_changes_nothing_and_is_no_error():
    assert Parameters().updated({"device": "", "max_rate_hz": 1})["max_rate_hz"] == 1


# Parameter files


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("section", "matches"),
    [
        ("/**", True),
        ("videogem", True),
        ("/videogem", True),
        ("/robot/videogem", False),
        ("/*", True),
        ("/**/videogem", True),
        ("other", False),
        ("video.em", False),
    ],
)
def test_sections_apply_to_the_nodes_they_name(tmp_path: Path, section: str, matches: bool):
    path = written(tmp_path / "p.yaml", {section: {"ros__parameters": {"max_rate_hz": 1.0}}})
    assert load_parameter_file(path) == ({"max_rate_hz": 1.0} if matches else {})


@pytest.mark.parametrize(
    "section", ["/robot/videogem", "/*/videogem", "/robot/*", "/**", "/**/videogem", "/robot/**"]
)
def test_namespaces_count(tmp_path: Path, section: str):
    path = written(tmp_path / "p.yaml", {section: {"ros__parameters": {"max_rate_hz": 1.0}}})
    assert load_parameter_file(path, "/robot/videogem") == {"max_rate_hz": 1.0}


def test_a_star_is_one_part_of_a_name(tmp_path: Path):
    path = written(tmp_path / "p.yaml", {"/*": {"ros__parameters": {"max_rate_hz": 1.0}}})
    assert load_parameter_file(path, "/robot/videogem") == {}


def test_nested_and_dotted_names_are_one(tmp_path: Path):
    content = """
    robot:
      videogem:
        ros__parameters:
          depth: {use: never, tolerance_s: 0.5}
          depth.wait_s: 0.0
    """
    given = load_parameter_file(written(tmp_path / "p.yaml", content), "/robot/videogem")
    assert given == {"depth.use": "never", "depth.tolerance_s": 0.5, "depth.wait_s": 0.0}
    assert Parameters.from_mapping(given)["depth.use"] == "never"


def test_later_sections_win(tmp_path: Path):
    content = {"/**": {"ros__parameters": {"mode": "continuous", "max_rate_hz": 1.0}}} | {
        "videogem": {"ros__parameters": {"mode": "on_command"}}
    }
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    assert load_parameter_file(path) == {"mode": "on_command", "max_rate_hz": 1.0}


@pytest.mark.parametrize(
    "content",
    ["{", "- 1", "just words", "", "videogem: 3", "max_rate_hz: 1.0", "a: {ros__parameters: 3}"],
)
def test_what_is_no_parameter_file_is_refused(tmp_path: Path, content: str):
    with pytest.raises(InvalidValueError, match="parameter file"):
        load_parameter_file(written(tmp_path / "p.yaml", content))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(InvalidValueError, match="parameter file"):
        load_parameter_file(tmp_path / "none.yaml")


def test_what_every_node_declares_is_taken_out_of_a_dumped_file(tmp_path: Path):
    """As ``ros2 param dump`` writes it."""
    dump = {
        "autostart": True,
        "backbone": "openclip:tabletop",
        "qos_overrides": {"/parameter_events": {"publisher": {"depth": 1000}}},
        "start_type_description_service": True,
        "use_sim_time": True,
    }
    path = tmp_path / "dump.yaml"
    path.write_text(yaml.safe_dump({"/videogem": {"ros__parameters": dump}}))
    values = load_parameter_file(path)
    assert take_common(values) is True
    assert values == {"backbone": "openclip:tabletop"}
    assert take_common({}) is False


@pytest.mark.parametrize("name", ["use_sim_time", "autostart"])
@pytest.mark.parametrize("value", ["false", "flase", 0, 1, None, [True]])
def test_a_flag_of_every_node_is_true_or_false(name: str, value: Any):
    with pytest.raises(InvalidValueError, match=f"{name}: expected true or false, got "):
        take_common({name: value})

"""``--config`` of the commands that ground offline, through ``videogem-ros ground``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from videogem_ros.cli import main
from videogem_ros.core import (
    Grounder,
    GroundingConfig,
    PresenceConfig,
    PromptConfig,
    acceleration,
    grounder,
)
from videogem_ros.core.backbones import Backbone
from videogem_ros.datatypes import Frame, Window
from videogem_ros.language import parse_actions

SETTING = GroundingConfig(
    weighting="static+dynamic",
    depth=4,
    dynamic_depth=2,
    static_weights=(0.0, 0.2, 1.0, 0.1, 0.4),
    dynamic_scale=7.0,
    fusion="heatmaps",
    fusion_weights=(0.5, 0.3, 0.2),
    resize="letterbox",
    image_hw=(48, 96),
    prompts=PromptConfig(action="{action}", verb_form="gerund"),
    presence=PresenceConfig(threshold=0.0, slope=0.1),
)
FILE = """
/**:
  ros__parameters:
    use_sim_time: true
    backbone: "openclip:{backbone}"
    weights: "random:0"
    device: cpu
    resize: letterbox
    input_height: 48
    input_width: 96
    self_self_depth: 4
    static_weights: [0.0, 0.2, 1.0, 0.1, 0.4]
    dynamic_depth: 2
    dynamic_scale: 7.0
    fusion: heatmaps
    fusion_weights: [0.5, 0.3, 0.2]
    prompts: {{action: "{{action}}", verb_form: gerund}}
    presence: {{threshold: 0.0, slope: 0.1}}
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    small = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), cv2.resize(small, (160, 120), interpolation=cv2.INTER_CUBIC))
    return path


@pytest.fixture
def config(tmp_path: Path, tiny_clip_config: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(FILE.format(backbone=tiny_clip_config))
    return path


def ground(image: Path, *options: object) -> Result:
    out = ("--action", "pour the milk", "--out", image.with_name("out.png"))
    return CliRunner().invoke(main, ["ground", *map(str, (image, *out, *options))])


def expected(image: Path, backbone: Backbone, config: GroundingConfig) -> str:
    frame = Frame(np.ascontiguousarray(cv2.imread(str(image))[..., ::-1]), 0)
    (found,) = Grounder(backbone, config).ground(Window((frame,)), parse_actions("pour the milk"))
    place, there = f"{found.point.x:.1f}, {found.point.y:.1f}", "yes" if found.present else "no"
    shares = " ".join(f"{share:.2f}" for share in found.prompt_probabilities)
    return f"pour the milk pour milk {place} {found.score:.2f} {there} {shares}"


def last_row(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.splitlines()[-1].split())


def test_a_parameter_file_says_model_weights_prompts_and_presence(
    image: Path, config: Path, tiny_image_backbone: Backbone
) -> None:
    row = last_row(ground(image, "--config", config))
    assert row == expected(image, tiny_image_backbone, SETTING)


def test_options_go_before_the_file(
    image: Path, config: Path, tiny_image_backbone: Backbone
) -> None:
    row = last_row(ground(image, "--config", config, "--weighting=uniform", "--fusion=points"))
    changed = replace(SETTING, weighting="uniform", fusion="points")
    assert row == expected(image, tiny_image_backbone, changed)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("max_actions: 1", "action: expected at most 1 actions, got 2"),
        ("spacy_model: no_such_pipeline", "no_such_pipeline"),
    ],
    ids=["max_actions", "spacy_model"],
)
def test_a_parameter_file_says_how_commands_are_taken(
    image: Path, config: Path, more: str, message: str
) -> None:
    with config.open("a") as file:
        file.write(f"    {more}\n")
    result = ground(image, "--config", config, "--action", "cut the bread")
    assert result.exit_code == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ((), "auto"),
        (("--config", "{config}"), "never"),
        (("--config", "{config}", "--cuda-graphs", "auto"), "auto"),
        (("--cuda-graphs", "never"), "never"),
    ],
    ids=str,
)
def test_cuda_graphs_are_chosen_by_option_or_file(
    image: Path,
    config: Path,
    tiny_clip_config: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    mode: str,
) -> None:
    config.write_text(config.read_text() + "    cuda_graphs: never\n")
    modes: list[str] = []
    graphs = acceleration.Graphs

    def noted(weights: object, mode: str, **more: Any) -> acceleration.Graphs:
        modes.append(mode)
        return graphs(weights, mode, **more)

    monkeypatch.setattr(grounder, "Graphs", noted)
    model = ("--backbone", f"openclip:{tiny_clip_config}", "--weights", "random:0")
    last_row(ground(image, *model, *(option.format(config=config) for option in options)))
    assert modes == [mode] * 3  # the encoder, what comes after it, and what comes before


def test_another_way_with_cuda_graphs_is_refused(image: Path) -> None:
    result = ground(image, "--cuda-graphs", "always")
    assert result.exit_code == 2
    assert "'always' is not one of 'auto', 'never'" in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "parameter file: expected sections by node name"),
        ("[", "parameter file: expected a readable YAML file, got {config} (while parsing"),
        ("/**: {ros__parameters: {fusion: best}}", "fusion: expected one of points, heatmaps"),
        ("/**: {ros__parameters: {fusoin: points}}", "such as fusion"),
        ("/**: {ros__parameters: {self_self_depth: 5}}", "static_weights: expected depth + 1 = 6"),
    ],
)
def test_a_file_that_does_not_suit_is_told_in_one_line(
    image: Path, config: Path, text: str, message: str
) -> None:
    config.write_text(text)
    result = ground(image, "--config", config)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert message.replace("{config}", str(config)) in line
    missing = ground(image, "--config", config.with_name("none.yaml"))
    expected = "Error: parameter file: expected a readable YAML file, got {} ({})\n"
    none = config.with_name("none.yaml")
    assert missing.stderr == expected.format(none, "No such file or directory")


def test_a_file_of_another_node_is_told(image: Path, config: Path, untrained: list[str]) -> None:
    config.write_text("/camera: {ros__parameters: {fusion: heatmaps}}")
    result = ground(image, *untrained, "--config", config)
    assert result.exit_code == 0, result.output
    assert f"warning: {config} holds no parameters of /videogem" in result.stderr.splitlines()
    config.write_text("videogem: {ros__parameters: {fusion: heatmaps}}")
    assert "holds no parameters" not in ground(image, *untrained, "--config", config).stderr

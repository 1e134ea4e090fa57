"""``videogem-ros node``: the grounding node without a ROS installation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from videogem_ros.cli.graph import graph_arguments, graph_options, logger, require_cyclone
from videogem_ros.cli.signals import interruptible
from videogem_ros.errors import InvalidValueError


@click.command(short_help="Run the node on live topics, without a ROS installation.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="ROS 2 parameter file, such as config/ground.yaml.",
)
@click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="NAME:=VALUE",
    help="Set a parameter, overriding the file's; repeatable.",
)
@click.option("--backbone", metavar="NAME", help="The parameter of this name.")
@click.option("--weights", metavar="WEIGHTS", help="The parameter of this name.")
@click.option("--device", help="The parameter of this name.")
@click.option("--name", default="videogem", show_default=True, help="Name of the node.")
@click.option(
    "--log-level",
    type=click.Choice(("debug", "info", "warn", "error")),
    default="info",
    show_default=True,
    help="Least severe messages to log.",
)
@graph_options
def node(
    config: Path | None,
    *,
    params: tuple[str, ...],
    backbone: str | None,
    weights: str | None,
    device: str | None,
    name: str,
    log_level: str,
    **graph: Any,
) -> None:
    """Subscribe to images and commands over DDS, and publish where the actions are.

    ROS 2 machines see a node like any other, with the topics, types and QoS of the ROS package's
    active node. Services do not work across DDS vendors, so it has neither ~/ground nor parameter
    services. Ctrl-C ends it, with exit code 0 once it listens.
    """
    require_cyclone()
    from videogem_ros.adapters.dds.node import DdsNode
    from videogem_ros.live.parameters import Parameters, load_parameter_file, take_common

    arguments = graph_arguments(name, graph)
    full_name = arguments["names"].full
    named = load_parameter_file(config, full_name) if config else {}
    values = named | dict(map(_parameter, params))
    shortcuts = {"backbone": backbone, "weights": weights, "device": device}
    values |= {key: value for key, value in shortcuts.items() if value is not None}
    use_sim_time = take_common(values)
    log = logger(name, log_level)
    if config and not named:
        log("warn", f"{config} holds no parameters of {full_name}")
    parameters = Parameters.from_mapping(values)
    with (
        # While it loads the model there is nothing that a signal would have to wait for.
        DdsNode(parameters, log=log, use_sim_time=use_sim_time, **arguments) as running,
        interruptible() as signals,
    ):
        log("info", f"{full_name} listens: {', '.join(running.inputs)}")
        running.spin(lambda: signals)
    log("info", "ended")


def _parameter(text: str) -> tuple[str, Any]:
    import yaml

    name, separator, value = text.partition(":=")
    if not name or not separator:
        raise InvalidValueError("-p", "NAME:=VALUE", text)
    try:
        return name, yaml.safe_load(value) if value else ""
    except yaml.YAMLError as error:
        raise InvalidValueError(f"-p {name}", "a YAML value", value) from error

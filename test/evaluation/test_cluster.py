"""Ray on this machine, beside the run of one process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from scenes import open_bench, opener, scenes
from tiny import ROOT

from videogem_ros.core.backbones import Backbone
from videogem_ros.core.grounder import Grounder
from videogem_ros.errors import InvalidValueError, VideoGemError
from videogem_ros.evaluation.cluster import ONE_MACHINE, connected, ray_work
from videogem_ros.evaluation.runner import EvaluationConfig, Run, Work, evaluate

CONFIG = EvaluationConfig(batch=2)


@pytest.fixture(scope="module")
def ray() -> Iterator[ModuleType]:
    """A local cluster of two; it takes a while to start."""
    with pytest.MonkeyPatch.context() as patch:
        # Workers import the data set of the tests as well.
        folders = [ROOT / "test" / "evaluation", ROOT / "test", *sys.path]
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
        patch.setenv(*ONE_MACHINE)  # before Ray is imported
        pytest.importorskip("ray", reason="Ray is not installed (the extra videogem_ros[ray])")
        with connected(workers=2) as ray:
            yield ray


def everything(run: Run) -> Run:
    """Without what differs between any two runs."""
    return replace(run, timing=None)


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("dies", [False, True], ids=["all live", "one is killed midway"])
def test_two_workers_find_what_one_process_finds(
    tiny_clip_config: Path, tmp_path: Path, dies: bool
) -> None:
    dataset = scenes(20)
    dataset.broken = frozenset({"film/3"})
    bench = open_bench(tiny_clip_config, dataset, CONFIG)
    plain = evaluate(dataset, bench.grounder, CONFIG)
    if dies:
        dataset.deadly = tmp_path / "deadly"
        dataset.deadly.touch()
    dataset.asked.clear()
    work = ray_work(opener(tiny_clip_config, dataset, CONFIG), workers=2, batch=2)
    kept = tmp_path / "cache"
    run = evaluate(dataset, bench.grounder, CONFIG, work=work, cache=kept)
    assert everything(run) == everything(plain)
    assert dataset.asked == []  # all of it was done elsewhere
    assert not (dataset.deadly and dataset.deadly.exists())
    found = evaluate(dataset, bench.grounder, CONFIG, cache=kept)
    assert found.records == plain.records
    assert set(dataset.asked) == dataset.broken


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_a_sample_that_kills_every_worker_costs_its_own_batch_alone(
    tiny_clip_config: Path,
) -> None:
    dataset = scenes(100)
    dataset.poison = frozenset({"film/9"})
    work = ray_work(opener(tiny_clip_config, dataset, CONFIG), workers=2, batch=2)
    grounder = open_bench(tiny_clip_config, dataset, CONFIG).grounder
    run = evaluate(dataset, grounder, CONFIG, work=work)
    assert len(run.records) == 98
    assert set(run.skipped) == {f"film/{number}: 3 workers died on its batch" for number in (8, 9)}


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_what_a_worker_cannot_open_is_told_in_one_line(
    tiny_clip_config: Path, tiny_image_backbone: Backbone
) -> None:
    absent = tiny_clip_config.with_name("absent.json")
    work = ray_work(opener(absent, scenes(1), CONFIG), workers=1)
    with pytest.raises(VideoGemError, match=r"backbone: expected .*/absent\.json") as raised:
        evaluate(scenes(1), Grounder(tiny_image_backbone), CONFIG, work=work)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_local_workers_are_not_to_be_reached_from_elsewhere(ray: ModuleType) -> None:
    assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_a_cluster_without_a_gpu_is_told(
    tiny_clip_config: Path, tiny_image_backbone: Backbone
) -> None:
    work = ray_work(opener(tiny_clip_config, scenes(1), CONFIG), gpu=True)
    with pytest.raises(VideoGemError, match="the Ray cluster at local has no GPU"):
        evaluate(scenes(1), Grounder(tiny_image_backbone), CONFIG, work=work)


def test_no_samples_need_no_cluster() -> None:
    pytest.importorskip("ray", reason="Ray is not installed (the extra videogem_ros[ray])")
    work: Work = ray_work(lambda: pytest.fail("opened"), "nowhere:1")
    assert list(work([])) == []


def test_fewer_than_one_worker_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="workers: expected one or more, got 0"):
        ray_work(lambda: pytest.fail("opened"), workers=0)


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        InvalidValueError, match=r"--ray: expected Ray, which .*videogem_ros\[ray\]"
    ):
        ray_work(lambda: pytest.fail("opened"))

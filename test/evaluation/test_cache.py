"""Results that are kept: what finds them again, and what must not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scenes import Scenes, sample_of, scenes

from videogem_ros.core import Grounder, GroundingConfig, PresenceConfig, load_backbone
from videogem_ros.core.backbones import Backbone
from videogem_ros.errors import RecordingError
from videogem_ros.evaluation import cache
from videogem_ros.evaluation.cache import ResultCache, grounder_digest, parameters_digest
from videogem_ros.evaluation.methods import GEM, Method
from videogem_ros.evaluation.runner import EvaluationConfig, evaluate


@pytest.fixture
def grounder(tiny_image_backbone: Backbone) -> Grounder:
    return Grounder(tiny_image_backbone)


def lines(folder: Path) -> list[str]:
    """Of the one file that is there; blank lines aside."""
    (file,) = folder.iterdir()
    return [line for line in file.read_text().split("\n") if line]


def test_a_second_run_asks_for_no_frame_and_finds_the_same(
    grounder: Grounder, tmp_path: Path
) -> None:
    first = evaluate(scenes(5), grounder, cache=tmp_path)
    again = scenes(5)
    told: list[tuple[int, int]] = []
    second = evaluate(again, grounder, cache=tmp_path, progress=lambda *now: told.append(now))
    assert again.asked == []
    assert second.records == first.records == evaluate(scenes(5), grounder).records
    assert told == [(5, 5)]
    assert second.timing == {"samples_from_cache": 5}
    assert len(lines(tmp_path)) == 5


def test_an_interrupted_run_continues(grounder: Grounder, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    config = EvaluationConfig(batch=2, loaders=1)
    with pytest.raises(KeyboardInterrupt):
        evaluate(scenes(9), grounder, config, cache=tmp_path, progress=interrupt)
    assert len(lines(tmp_path)) == 4
    rest = scenes(9)
    run = evaluate(rest, grounder, config, cache=tmp_path)
    assert rest.asked == [f"film/{number}" for number in range(4, 9)]
    assert len(lines(tmp_path)) == 9
    assert [record.key for record in run.records] == [sample.key for sample in rest.samples]
    assert run.records == evaluate(scenes(9), grounder, config).records


@pytest.mark.parametrize("kept", [1, 30, -1])
def test_a_torn_line_is_computed_again_and_spoils_no_other(
    grounder: Grounder, tmp_path: Path, kept: int
) -> None:
    whole = evaluate(scenes(3), grounder, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    text = file.read_text().rstrip("\n")
    last = text.rfind("\n") + 1
    file.write_text(text[:last] + text[last:][:kept])
    for asked in (["film/2"], []):
        dataset = scenes(3)
        assert evaluate(dataset, grounder, cache=tmp_path).records == whole.records
        assert dataset.asked == asked


@pytest.mark.parametrize("line", ["null", "[]", '{"sample": []}', '{"record": {}}', "\x00\x01"])
def test_other_lines_are_passed_over(grounder: Grounder, tmp_path: Path, line: str) -> None:
    evaluate(scenes(2), grounder, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(line + "\n" + file.read_text())
    dataset = scenes(2)
    evaluate(dataset, grounder, cache=tmp_path)
    assert dataset.asked == []


def test_a_record_that_lost_a_field_is_computed_again(grounder: Grounder, tmp_path: Path) -> None:
    evaluate(scenes(2), grounder, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    entries = [json.loads(line) for line in lines(tmp_path)]
    del entries[0]["record"]["boxes"]
    file.write_text("\n".join(map(json.dumps, entries)))
    dataset = scenes(2)
    evaluate(dataset, grounder, cache=tmp_path)
    assert dataset.asked == ["film/0"]


def test_the_grid_holds_the_results_of_every_method(grounder: Grounder, tmp_path: Path) -> None:
    grid = evaluate(scenes(2), grounder, EvaluationConfig(ablate=True), cache=tmp_path)
    for main in (GEM, Method("dynamic", "fused-heatmaps")):
        dataset, config = scenes(2), EvaluationConfig(main)
        run = evaluate(dataset, grounder, config, cache=tmp_path)
        assert dataset.asked == []
        assert run.records == evaluate(scenes(2), grounder, config).records
        name = main.name
        assert run.records[0].outcomes[name] == grid.records[0].outcomes[name]


def test_methods_that_are_not_there_are_computed(grounder: Grounder, tmp_path: Path) -> None:
    evaluate(scenes(2), grounder, cache=tmp_path)
    grid, again = scenes(2), scenes(2)
    evaluate(grid, grounder, EvaluationConfig(ablate=True), cache=tmp_path)
    assert grid.asked == ["film/0", "film/1"]
    evaluate(again, grounder, cache=tmp_path)
    assert again.asked == []


def test_what_could_not_be_decoded_is_tried_again(grounder: Grounder, tmp_path: Path) -> None:
    broken, mended = scenes(3), scenes(3)
    broken.broken = frozenset({"film/1"})
    assert len(evaluate(broken, grounder, cache=tmp_path).records) == 2
    assert len(evaluate(mended, grounder, cache=tmp_path).records) == 3
    assert mended.asked == ["film/1"]


# What a result depends on.


@pytest.fixture
def film(tmp_path: Path) -> Path:
    file = tmp_path / "film.mp4"
    file.write_bytes(b"frames")
    return file


def longer(film: Path) -> None:
    state = film.stat()
    film.write_bytes(b"more frames")
    os.utime(film, ns=(state.st_atime_ns, state.st_mtime_ns))


def touched(film: Path) -> None:
    os.utime(film, ns=(0, film.stat().st_mtime_ns + 1))


@pytest.mark.parametrize("change", [longer, touched, Path.unlink])
def test_a_file_that_changed_is_read_again(
    grounder: Grounder, tmp_path: Path, film: Path, change: Callable[[Path], None]
) -> None:
    kept = tmp_path / "cache"
    evaluate(Scenes([sample_of(0)], files=[film]), grounder, cache=kept)
    same, changed = (Scenes([sample_of(0)], files=[film]) for _ in range(2))
    evaluate(same, grounder, cache=kept)
    assert same.asked == []
    change(film)
    evaluate(changed, grounder, cache=kept)
    assert changed.asked == ["film/0"]


def test_a_file_that_moved_is_the_same(grounder: Grounder, tmp_path: Path, film: Path) -> None:
    kept, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    evaluate(Scenes([sample_of(0)], files=[film]), grounder, cache=kept)
    elsewhere.mkdir()
    moved = Scenes([sample_of(0)], files=[film.rename(elsewhere / film.name)])
    evaluate(moved, grounder, cache=kept)
    assert moved.asked == []


@pytest.mark.parametrize(
    "change",
    [
        {"boxes": ((1.0, 2.0, 30.0, 40.0),)},
        {"boxes_hw": (65, 64)},
        {"actions": sample_of(1).actions},
        {"time_ns": 1},
        {"label": "other"},
        {"groups": ("other",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_sample_that_changed_is_another(
    grounder: Grounder, tmp_path: Path, change: dict[str, object]
) -> None:
    evaluate(Scenes([sample_of(0)]), grounder, cache=tmp_path)
    changed = Scenes([replace(sample_of(0), **change)])
    evaluate(changed, grounder, cache=tmp_path)
    assert changed.asked == ["film/0"]


@pytest.mark.parametrize(
    "config",
    [
        GroundingConfig(depth=6, static_weights=(1.0,) * 7),
        GroundingConfig(resize="letterbox"),
        GroundingConfig(fusion_weights=(0.1, 0.1, 0.8)),
        GroundingConfig(presence=PresenceConfig(offset=1)),
    ],
    ids=["depth", "resize", "fusion weights", "presence"],
)
def test_a_configuration_that_changed_is_another(
    tiny_image_backbone: Backbone, config: GroundingConfig
) -> None:
    usual = grounder_digest(Grounder(tiny_image_backbone))
    assert grounder_digest(Grounder(tiny_image_backbone)) == usual
    assert grounder_digest(Grounder(tiny_image_backbone, config)) != usual


@pytest.mark.parametrize(
    "config", [GroundingConfig("uniform"), GroundingConfig(fusion="heatmaps")]
)
def test_weighting_and_fusion_are_told_by_the_methods(
    tiny_image_backbone: Backbone, config: GroundingConfig
) -> None:
    assert grounder_digest(Grounder(tiny_image_backbone, config)) == grounder_digest(
        Grounder(tiny_image_backbone)
    )


@pytest.mark.parametrize("name", ["__version__", "FORMAT"])
def test_another_version_is_another(
    grounder: Grounder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    usual = grounder_digest(grounder)
    monkeypatch.setattr(cache, name, "other")
    assert grounder_digest(grounder) != usual


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("vision_cfg", {"head_width": 16}),
        ("text_cfg", {"heads": 4}),
        (None, {"quick_gelu": True}),
    ],
    ids=["heads", "heads of the text", "activation"],
)
def test_the_same_weights_in_another_model_are_another(
    tiny_clip_config: Path, tmp_path: Path, part: str | None, change: dict[str, object]
) -> None:
    path = tmp_path / "model.json"
    config = json.loads(tiny_clip_config.read_text())
    path.write_text(json.dumps(config))
    before = load_backbone(f"openclip:{path}", "random:0")
    (config if part is None else config[part]).update(change)
    path.write_text(json.dumps(config))
    after = load_backbone(f"openclip:{path}", "random:0")
    assert parameters_digest(before) == parameters_digest(after)
    assert grounder_digest(Grounder(before)) != grounder_digest(Grounder(after))


def test_the_same_model_with_another_fit_or_preprocessing_is_another(
    tiny_clip_config: Path,
) -> None:
    backbone = load_backbone(f"openclip:{tiny_clip_config}", "random:0")
    digests = [grounder_digest(Grounder(backbone))]
    backbone.presence_fit = (0.5, 1.0)
    digests.append(grounder_digest(Grounder(backbone)))
    backbone.preprocessing = replace(backbone.preprocessing, mean=(0.5, 0.5, 0.5))
    digests.append(grounder_digest(Grounder(backbone)))
    assert len(set(digests)) == 3


def test_weights_are_told_by_every_bit_of_both_towers(tiny_clip_config: Path) -> None:
    def digest(seed: int = 0, change: str | None = None) -> str:
        backbone = load_backbone(f"openclip:{tiny_clip_config}", f"random:{seed}")
        if change is not None:
            flat = backbone.model.get_parameter(change).data.flatten()
            flat[-1] = torch.nextafter(flat[-1], flat[-1] + 1)
        return parameters_digest(backbone)

    usual = digest()
    assert digest() == usual
    others = [digest(1), digest(change="visual.proj"), digest(change="token_embedding.weight")]
    half = load_backbone(f"openclip:{tiny_clip_config}", "random:0", dtype="bfloat16")
    assert len({usual, *others, parameters_digest(half)}) == 5


# Files.


def test_two_runs_may_write_at_once(grounder: Grounder, tmp_path: Path) -> None:
    dataset = scenes(4)
    records = evaluate(dataset, grounder).records
    stores = [ResultCache(tmp_path, grounder, dataset) for _ in range(2)]
    for record, store in zip(records, stores * 2):
        store.add([record])
    methods = [name for name in records[0].outcomes if name != "centre"]
    assert stores[0].find(methods) == {record.key: record for record in records}


def test_a_folder_that_cannot_be_used_is_named(grounder: Grounder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match=r"cannot make the cache .*file"):
        evaluate(scenes(1), grounder, cache=tmp_path / "file")
    taken = ResultCache(tmp_path / "cache", grounder, scenes(1)).path
    taken.mkdir()
    with pytest.raises(RecordingError, match=r"cannot read .*Is a directory"):
        evaluate(scenes(1), grounder, cache=tmp_path / "cache")

"""``benchmarks/parity.py``: equal, different and foreign files, by what users see."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import DATA, ROOT
from torch import Tensor
from torch.nn.functional import normalize
from transcription import Sizes, Transcription, min_max, upsampled

from videogem_ros.core.backbones import openclip, viclip

SCRIPT = ROOT / "benchmarks" / "parity.py"
GOLDEN = sorted((DATA / "golden").glob("*.safetensors"))


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def tampered(path: Path, source: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    metadata, arrays = read(source)
    change(arrays)
    save_file(arrays, path, metadata)
    return path


def add(name: str, amount: float) -> Callable[[dict[str, Tensor]], None]:
    def change(arrays: dict[str, Tensor]) -> None:
        arrays[name].view(-1)[-1] += amount

    return change


def test_the_command_tells_equal_from_different_files(tmp_path: Path) -> None:
    different = tampered(
        tmp_path / "different.safetensors", GOLDEN[0], add("expected/videogem.logits", 2e-5)
    )
    runs = [  # at the same time: most of each is importing torch
        subprocess.Popen(
            [sys.executable, str(SCRIPT), *map(str, files)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for files in (GOLDEN, [GOLDEN[1], different])
    ]
    (equal, errors), (unequal, _) = (run.communicate(timeout=180) for run in runs)
    assert [run.returncode for run in runs] == [0, 1], errors
    for path in GOLDEN:
        assert path.name in equal
    assert equal.count("videogem.heatmaps") == 4
    assert "4 files, largest deviation" in equal.splitlines()[-1]
    assert "equal (tolerance 1e-05)" in equal.splitlines()[-1]
    assert "DIFFERENT" in unequal.splitlines()[-1]


def test_a_foreign_file_ends_the_script_with_2_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.ones(2)}, foreign)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(foreign)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1
    assert "foreign.safetensors: not a golden file" in error


@pytest.fixture(scope="module")
def parity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code(parity: ModuleType, monkeypatch: pytest.MonkeyPatch, *files: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["parity.py", *map(str, files)])
    return parity.main()


@pytest.mark.parametrize("source", GOLDEN, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    "change",
    [
        add("expected/gem.logits", 2e-5),
        add("expected/videogem.heatmaps", -2e-5),
        add("expected/static.patch_logits", 2e-5),
        add("expected/dynamic.patch_logits", float("nan")),
        add("expected/weights.total", 2e-5),
        add("expected/weights.dynamic", -2e-5),
        add("expected/weights.static", 2e-5),
        add("expected/prompt_probs", 2e-5),
        add("expected/points", 1),
        add("input/frames", 0.5),
        lambda arrays: arrays.update({"expected/prompt_probs": torch.ones(4)}),
        lambda arrays: arrays.update({"expected/something": torch.ones(4)}),
    ],
    ids=[
        "gem",
        "heatmaps",
        "static",
        "not a number",
        "total",
        "dynamic",
        "static weights",
        "probabilities",
        "a point",
        "a pixel",
        "a shape",
        "an array more",
    ],
)
def test_one_number_off_is_different(
    parity: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    source: Path,
    change: Callable[[dict[str, Tensor]], None],
) -> None:
    path = tampered(tmp_path / "x.safetensors", source, change)
    assert code(parity, monkeypatch, path) == 1


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_prompts_point_off_the_maximum_is_different(
    parity: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: int
) -> None:
    def change(arrays: dict[str, Tensor]) -> None:
        point = arrays["expected/points"][0, 2 * kind : 2 * kind + 2]
        point += 1 if int(point.max()) == 0 else -1

    path = tampered(tmp_path / "x.safetensors", GOLDEN[1], change)
    assert code(parity, monkeypatch, path) == 1


@pytest.mark.parametrize(
    ("gone", "metadata"),
    [
        ("input/frames", None),
        ("input/text_embeddings", None),
        ("weights/visual.proj", None),
        (None, {}),
        (None, {"case": "{"}),
        (None, {"case": "{}"}),
        (None, {"case": '{"backbone": "clip", "cfg": {}, "gem_depth": 7}'}),
    ],
    ids=str,
)
def test_a_file_that_lacks_something_is_no_golden_file(
    parity: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    gone: str | None,
    metadata: dict[str, str] | None,
) -> None:
    case, arrays = read(GOLDEN[0])
    arrays.pop(gone, None)
    save_file(arrays, tmp_path / "x.safetensors", case if metadata is None else metadata)
    assert code(parity, monkeypatch, tmp_path / "x.safetensors") == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 64])
def test_what_is_no_safetensors_file_is_no_golden_file(
    parity: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    assert code(parity, monkeypatch, tmp_path / "x.safetensors") == 2
    assert code(parity, monkeypatch, tmp_path / "not there") == 2


# Files of the format that nobody has seen, written by the float64 transcription.


def written(path: Path, case: dict, vision: torch.nn.Module, pixels: Tensor, sizes: Sizes) -> None:
    """A golden file of a tower and an input."""
    video = case["backbone"] == "viclip"
    depth, terms = case["gem_depth"], case["gem_depth"] + 1
    state = {n: v.detach().contiguous() for n, v in vision.state_dict().items()}
    truth = Transcription({n: v.squeeze(2) if v.ndim == 5 else v for n, v in state.items()}, sizes)
    found = truth.terms(pixels, depth)
    text = normalize(torch.randn(3, case["cfg"]["embed_dim"]).double(), dim=-1)
    static = (
        [0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.9, 0.9]
        if depth == 7
        else [0.5 + 0.1 * term for term in range(terms)]
    )
    bases = {"uniform": [1.0] * terms, "static": static, "dynamic": [1.0] * terms, "total": static}
    weights, similarity = {}, {}
    for name, base in bases.items():
        last = min(depth, 3) if name in ("dynamic", "total") else 0
        weights[name] = torch.stack(
            [truth.layer_weights(found.token[0], prompt, base, last, 20.0) for prompt in text]
        )
        similarity[name] = torch.stack(  # (3, T, N)
            [
                torch.stack([truth.similarity(s, w, prompt) for s in found.patch])
                for w, prompt in zip(weights[name], text)
            ]
        )
    patch_hw = state["conv1.weight"].shape[-2:]
    input_hw = tuple(pixels.shape[-2:])
    grid_hw = (input_hw[0] // patch_hw[0], input_hw[1] // patch_hw[1])

    def over_frames(name: str, finish: Callable[[Tensor], Tensor]) -> Tensor:
        maps = torch.stack(
            [
                torch.stack([finish(upsampled(frame, grid_hw, input_hw)) for frame in prompt])
                for prompt in similarity[name]
            ]
        ).float()
        return maps if video else maps[:, 0]

    heatmaps = over_frames("total", min_max)
    flat = (heatmaps if video else heatmaps[:, None]).flatten(2).argmax(dim=-1)  # (3, T)
    points = torch.stack([flat % input_hw[1], flat // input_hw[1]], dim=-1).transpose(0, 1)
    fused = (points * torch.tensor([1, 1, 3])[:, None]).sum(dim=1) // 5
    token = truth.embed(found.token[0].sum(dim=0))
    prefix = "vision_encoder." if video else "visual."
    arrays = {f"weights/{prefix}{name}": value for name, value in state.items()}
    arrays |= {
        "input/frames": pixels[None] if video else pixels,
        "input/text_embeddings": text.float(),
        "expected/gem.logits": over_frames("uniform", lambda values: values),
        "expected/videogem.logits": over_frames("total", lambda values: values),
        "expected/videogem.heatmaps": heatmaps,
        "expected/prompt_probs": torch.softmax(100 * text @ token, dim=0).float(),
        "expected/points": torch.cat([points.flatten(1), fused], dim=1).contiguous(),
    }
    for name in ("static", "dynamic"):
        logits = similarity[name].transpose(1, 2).flatten(1)  # time is the fastest axis
        arrays[f"expected/{name}.patch_logits"] = logits.float().contiguous()
    for name in ("static", "dynamic", "total"):
        arrays[f"expected/weights.{name}"] = weights[name].float()
    save_file(arrays, path, {"case": json.dumps(case)})


@pytest.mark.parametrize("depth", [2, 7, 9])
@pytest.mark.parametrize(
    ("sizes", "layers", "width", "patch", "input_hw"),
    [
        (Sizes(3, (4, 4), quick_gelu=False), 9, 48, 8, (32, 32)),
        (Sizes(2, (4, 4), quick_gelu=True), 12, 32, 14, (42, 84)),
    ],
    ids=["as trained", "resampled"],
)
def test_unseen_clip_files_are_equal(
    parity: ModuleType,
    tmp_path: Path,
    depth: int,
    *,
    sizes: Sizes,
    layers: int,
    width: int,
    patch: int,
    input_hw: tuple[int, int],
) -> None:
    vision_cfg = {
        "image_size": 4 * patch,
        "layers": layers,
        "width": width,
        "head_width": width // sizes.heads,
        "patch_size": patch,
    }
    text_cfg = {"context_length": 77, "vocab_size": 99, "width": 8, "heads": 1, "layers": 1}
    cfg = {
        "embed_dim": 40,
        "quick_gelu": sizes.quick_gelu,
        "vision_cfg": vision_cfg,
        "text_cfg": text_cfg,
    }
    with openclip.seeded(depth):
        vision = openclip.build(cfg).visual
        case = {"backbone": "clip", "cfg": cfg, "gem_depth": depth}
        pixels = torch.randn(1, 3, *input_hw)
        written(tmp_path / "x.safetensors", case, vision, pixels, sizes)
    assert parity.compare(tmp_path / "x.safetensors") <= 1e-5


@pytest.mark.parametrize(("depth", "frames", "input_hw"), [(3, 4, (32, 32)), (8, 8, (16, 48))])
def test_unseen_viclip_files_are_equal(
    parity: ModuleType, tmp_path: Path, depth: int, frames: int, input_hw: tuple[int, int]
) -> None:
    cfg = {
        "embed_dim": 24,
        "image_size": 32,
        "patch_size": 8,
        "width": 48,
        "layers": 8,
        "heads": 4,
        "quick_gelu": True,
    }
    with openclip.seeded(depth):
        vision = viclip.ViClipVision(viclip.ViClipConfig(num_frames=frames, **cfg))
        pixels = torch.randn(frames, 3, *input_hw)
        case = {"backbone": "viclip", "gem_depth": depth, "num_frames": frames, "cfg": cfg}
        written(tmp_path / "x.safetensors", case, vision, pixels, Sizes(4, (4, 4), True))
    assert parity.compare(tmp_path / "x.safetensors") <= 1e-5

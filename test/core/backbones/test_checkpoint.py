"""Weight files: what is read, and what is refused with one clear line."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from videogem_ros.core.backbones.checkpoint import (
    fill,
    is_file_name,
    random_seed,
    read_state,
    seeded,
)
from videogem_ros.errors import InvalidValueError, WeightsError

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(0.5)}


def equal(found: dict[str, Tensor], expected: dict[str, Tensor] = STATE) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], value) for name, value in expected.items()
    )


# What is read.


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state},
        lambda state: {"model": state},
        lambda state: {"state_dict": state, "epoch": 3, "name": "mine", "optimizer": {"lr": 1.0}},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"module.{n}": v for n, v in state.items()}},
        lambda state: state | {"input_resolution": 224},
    ],
    ids=["bare", "state_dict", "model", "training", "module.", "both", "number"],
)
def test_pickles_of_every_usual_layout_hold_the_same_tensors(
    tmp_path: Path, suffix: str, wrap: Callable[[dict], Any]
) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(wrap(STATE), path)
    assert equal(read_state(path))


def test_safetensors_hold_the_same_tensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "weights.safetensors")
    assert equal(read_state(tmp_path / "weights.safetensors"))


def test_a_pickle_of_the_old_format_is_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "weights.pth", _use_new_zipfile_serialization=False)
    assert equal(read_state(tmp_path / "weights.pth"))


def test_module_prefixes_stay_where_not_every_name_has_one(tmp_path: Path) -> None:
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(state, tmp_path / "weights.pt")
    assert read_state(tmp_path / "weights.pt").keys() == state.keys()


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("model.pt", True),
        ("/a/b.pth", True),
        ("x.safetensors", True),
        ("pytorch_model.bin", True),
        ("openai", False),
        ("laion2b_s34b_b88k", False),
        ("random:3", False),
        ("v1.5", False),
    ],
)
def test_a_file_is_known_by_its_ending_be_it_there_or_not(weights: str, expected: bool) -> None:
    assert is_file_name(weights) is expected


def test_a_file_of_another_ending_is_one_where_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(b"")
    assert is_file_name(str(path))
    assert not is_file_name(str(tmp_path))


# What is refused.


class Runs:
    """Pickles to a call that leaves a file behind, should anyone run it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


class Program(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def zip_pickle(path: Path) -> None:
    torch.save(STATE, path)


def cut(path: Path, write: Callable[[Path], None], part: float) -> None:
    write(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])


def old_pickle(path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)


def torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.trace(Program(), torch.zeros(1)), path)


BAD_FILES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "missing": ("x.pt", lambda path: None, "no such file"),
    "a folder": ("x.pt", lambda path: path.mkdir(), "no such file"),
    "empty": ("x.pt", lambda path: path.write_bytes(b""), "truncated"),
    "text": ("x.pth", lambda path: path.write_text("hello, world"), "cannot be read"),
    "half a zip": ("x.pt", lambda path: cut(path, zip_pickle, 0.5), "truncated"),
    "nearly all of a zip": ("x.pt", lambda path: cut(path, zip_pickle, 0.99), "truncated"),
    "half an old pickle": ("x.pth", lambda path: cut(path, old_pickle, 0.5), "truncated"),
    "a list": ("x.pt", lambda path: torch.save([1, 2], path), "holds a list, not a state dict"),
    "a tensor": ("x.pt", lambda path: torch.save(torch.ones(1), path), "holds a Tensor"),
    "a whole module": ("x.pt", lambda path: torch.save(Program(), path), "weights_only=True"),
    "TorchScript": ("ViT-B-16.pt", torchscript, "TorchScript program, which is not run"),
    "empty safetensors": ("x.safetensors", lambda path: path.write_bytes(b""), "truncated"),
    "no safetensors": (
        "x.safetensors",
        lambda path: path.write_bytes(b"\1" * 99),
        "cannot be read",
    ),
    "half of safetensors": (
        "x.safetensors",
        lambda path: cut(path, lambda p: save_file(STATE, p), 0.6),
        "truncated",
    ),
    "a pickle as safetensors": ("x.safetensors", zip_pickle, "cannot be read"),
}


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize(("name", "write", "problem"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(
    tmp_path: Path, name: str, write: Callable[[Path], Any], problem: str
) -> None:
    path = tmp_path / name
    write(path)
    with pytest.raises(WeightsError) as caught:
        read_state(path)
    message = str(caught.value)
    assert problem in message
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("old", [False, True])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, old: bool) -> None:
    path, trace = tmp_path / "x.pt", tmp_path / "ran"
    torch.save({"a": Runs(trace)}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(WeightsError, match="read with weights_only=True"):
        read_state(path)
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps({"a": Runs(trace)}))
    with pytest.raises(WeightsError):
        read_state(plain)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".pt", ".pth", ".safetensors"]),
    source=st.sampled_from(["noise", "new", "old", "safe"]),
    noise=st.binary(max_size=64),
    place=st.floats(0, 1),
)
def test_whatever_bytes_a_file_holds_only_a_weights_error_comes_of_it(
    tmp_path: Path, suffix: str, source: str, noise: bytes, place: float
) -> None:
    path = tmp_path / f"x{suffix}"
    if source == "safe":
        save_file(STATE, path)
    elif source != "noise":
        torch.save(STATE, path, _use_new_zipfile_serialization=source == "new")
    data = path.read_bytes() if source != "noise" else b""
    start = int(place * len(data))
    path.write_bytes(data[:start] + noise + data[start + len(noise) :])
    try:
        found = read_state(path)
    except WeightsError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(value, Tensor) for value in found.values())


# Filling a module.


def test_filling_copies_values_into_the_modules_own_dtype() -> None:
    module = nn.Linear(3, 2)
    state = {"weight": torch.ones(2, 3).half(), "bias": torch.tensor([1.0, 2.0]).bfloat16()}
    assert fill(module, state, "x") is module
    assert module.weight.dtype == torch.float32
    assert module.bias.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": torch.ones(3, 3)}, ["weight is (3, 3), expected (2, 3)", "1 shapes differ"]),
        ({"bias": None}, ["bias is missing", "1 missing"]),
        ({"scale": torch.ones(1)}, ["scale is unknown", "1 unknown"]),
        ({"weight": None, "bias": None}, ["2 missing", "of 2 tensors"]),
    ],
    ids=["shape", "missing", "unknown", "empty"],
)
def test_a_state_dict_that_does_not_fit_says_where(change: dict, words: list[str]) -> None:
    state = {"weight": torch.ones(2, 3), "bias": torch.ones(2)} | change
    state = {name: value for name, value in state.items() if value is not None}
    module = nn.Linear(3, 2)
    before = module.weight.clone()
    with pytest.raises(WeightsError) as caught:
        fill(module, state, "mine.pt")
    assert "weights 'mine.pt': of another architecture" in str(caught.value)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_no_numbers_are_refused(value: float) -> None:
    state = {"weight": torch.ones(2, 3), "bias": torch.tensor([1.0, value])}
    with pytest.raises(WeightsError, match=r"nan or inf in bias \(1 of 2 tensors\)"):
        fill(nn.Linear(3, 2), state, "mine.pt")


# Seeds.


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("random:0", 0),
        ("random:17", 17),
        (f"random:{2**64 - 1}", 2**64 - 1),
        ("openai", None),
        ("randomly", None),
        ("x.pt", None),
    ],
)
def test_a_seed_is_read(weights: str, expected: int | None) -> None:
    assert random_seed(weights) == expected


@pytest.mark.parametrize("seed", ["", "x", "-1", "1.5", " 3", str(2**64), "9" * 40])
def test_what_is_no_seed_is_refused(seed: str) -> None:
    with pytest.raises(InvalidValueError, match="random:SEED with a whole number"):
        random_seed(f"random:{seed}")


def test_drawing_from_a_seed_leaves_the_generator_outside_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(2**64 - 1):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(2**64 - 1):
        assert torch.equal(torch.rand(3), inside)

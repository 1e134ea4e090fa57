"""Weights from local files or the hub, checked against the module that they are loaded into."""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from videogem_ros.errors import InvalidValueError, WeightsError, reason, said

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
"""Suffixes of weight files; all but the first are pickles, read with ``weights_only=True``."""

TABLETOP = "tabletop"
"""Model name of the small backbones that are part of the package, in either family."""
SHIPPED = Path(__file__).parent / "shipped"
"""Folder of the small backbones' configuration and weights."""

UNFITTED = (1.0, 0.0)
"""Platt's slope and offset that leave presence margins as they are."""
PRESENCE_FIT = "presence_fit"
"""Key of slope and offset in a safetensors file's metadata; the value is "SLOPE OFFSET"."""

_Module = TypeVar("_Module", bound=nn.Module)


def is_file_name(weights: str) -> bool:
    """Whether a weights argument means a local file, which need not exist."""
    return Path(weights).suffix in SUFFIXES or Path(weights).is_file()


def random_seed(weights: str) -> int | None:
    """The seed of ``random:SEED``, None for any other weights.

    Raises:
        InvalidValueError: What follows ``random:`` is not a whole number below 2^64.
    """
    kind, _, seed = weights.partition(":")
    if kind != "random":
        return None
    if not seed.isdecimal() or int(seed) >= 2**64:
        raise InvalidValueError("weights", "random:SEED with a whole number below 2^64", weights)
    return int(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A context in which random numbers follow from a seed; the generator is restored after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def hub_file(repository: str, names: Sequence[str], tag: str) -> str:
    """A file of a hub repository, from the cache or downloaded into it.

    Args:
        repository: "owner/name".
        names: Possible names of the file, the preferred one first.
        tag: What was asked for, for the error.

    Returns:
        The file's path in the cache.

    Raises:
        WeightsError: It is not cached and cannot be downloaded.
    """
    from huggingface_hub import (  # noqa: PLC0415 - only for published weights
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import EntryNotFoundError  # noqa: PLC0415

    for name in names:
        cached = try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return cached

    def is_there(name: str) -> bool:
        # Without the client's retries, so that a missing network is an error at once.
        with suppress(EntryNotFoundError):
            get_hf_file_metadata(hf_hub_url(repository, name))
            return True
        return False

    try:
        return hf_hub_download(repository, next(filter(is_there, names), names[0]))
    except Exception as error:  # the hub's client raises many kinds; all mean the same here
        raise WeightsError(
            tag,
            f"not in the hub's cache, and it cannot be downloaded ({said(error)[:160]})",
            "connect once, point HF_HOME at a filled cache, or name a local .safetensors, .pt or "
            ".pth file with --weights",
        ) from error


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weight file.

    Args:
        path: ``.safetensors``, or a pickle (``.pt``, ``.pth``, ``.bin``) that is a state dict or
            holds one under "state_dict" or "model"; a prefix "module." of all names is removed.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        WeightsError: The file does not exist, is truncated, is not a weight file, is a
            TorchScript program, or is a pickle that holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(str(path), "no such file", "name an existing file or a published tag")
    state: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise WeightsError(
            str(path),
            f"holds a {type(state).__name__}, not a state dict",
            "save model.state_dict()",
        )
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name[len("module.") :]: value for name, value in tensors.items()}
    return tensors


def read_presence_fit(path: str | Path) -> tuple[float, float]:
    """Platt's slope and offset in a weight file's metadata; ``UNFITTED`` where there are none.

    Args:
        path: A readable weight file; only ``.safetensors`` has metadata.

    Raises:
        WeightsError: They are not a slope above zero and a finite offset.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return UNFITTED
    from safetensors import safe_open  # noqa: PLC0415 - only for this kind of file

    with safe_open(path, "pt") as file:
        fit = (file.metadata() or {}).get(PRESENCE_FIT)
    if fit is None:
        return UNFITTED
    try:
        slope, offset = map(float, fit.split())
        if not (0 < slope < math.inf and math.isfinite(offset)):
            raise ValueError(fit)
    except ValueError as error:
        raise WeightsError(
            str(path),
            f"its {PRESENCE_FIT} is {fit!r}, not a slope above zero and an offset",
            "export it again",
        ) from error
    return slope, offset


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError  # noqa: PLC0415 - only for this kind of file
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _read_pickle(path: Path) -> Any:
    try:
        if _is_program(path):
            raise WeightsError(
                str(path),
                "is a TorchScript program, which is not run",
                "use the tag (openai) or save its state_dict() as .safetensors",
            )
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            str(path),
            "is not a pickle of tensors only (read with weights_only=True), or is damaged",
            "download it again or save its state_dict() as .safetensors",
        ) from error
    except WeightsError:
        raise
    except Exception as error:  # damaged bytes make the unpickler raise errors of every kind
        raise _unreadable(path, error) from error


def _is_program(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in f"/{name}" for name in archive.namelist())


def _unreadable(path: Path, error: Exception) -> WeightsError:
    why = f"{type(error).__name__}: {reason(error)}"[:120]
    return WeightsError(
        str(path),
        f"cannot be read ({why}): {path.stat().st_size} bytes, perhaps truncated",
        "download it again",
    )


def fill(module: _Module, state: Mapping[str, Tensor], source: str) -> _Module:
    """Copy a state dict into a module; names and shapes must match exactly.

    Args:
        module: The module, any dtype.
        state: Tensors by parameter name.
        source: Tag or path, for the error.

    Returns:
        The module.

    Raises:
        WeightsError: Names or shapes differ, or values are not finite; says how many and shows
            one.
    """
    wanted = module.state_dict()
    wrong = [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    missing = [f"{name} is missing" for name in wanted if name not in state]
    unknown = [f"{name} is unknown" for name in state if name not in wanted]
    problems = wrong + missing + unknown
    if problems:
        raise WeightsError(
            source,
            f"of another architecture: {problems[0]} ({len(wrong)} shapes differ, "
            f"{len(missing)} missing, {len(unknown)} unknown of {len(wanted)} tensors)",
            "name the backbone that these weights were trained for",
        )
    broken = [name for name, value in state.items() if not value.isfinite().all()]
    if broken:
        raise WeightsError(
            source,
            f"expected finite values, got nan or inf in {broken[0]} "
            f"({len(broken)} of {len(wanted)} tensors)",
            "download or export it again",
        )
    module.load_state_dict(dict(state))
    return module

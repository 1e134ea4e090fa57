"""Which devices there are, and which dtypes they multiply natively.

Emulated dtypes are many times slower.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from pathlib import Path

import torch

from videogem_ros.errors import InvalidValueError

CPU_FLAGS = {
    torch.bfloat16: {"avx512_bf16", "amx_bf16", "bf16"},
    torch.float16: {"avx512_fp16", "amx_fp16", "asimdhp"},
}
"""Linux's names for the CPU features, on x86 and ARM; one of them is enough."""


def available_device(name: str | torch.device, field: str = "device") -> torch.device:
    """A device, tried out.

    Args:
        name: "cpu", "cuda", "cuda:1", ...
        field: What to call it in an error.

    Raises:
        InvalidValueError: There is no such device, or torch cannot use it.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise InvalidValueError(field, "an available torch device", str(name)) from error
    return device


@functools.cache
def processor_fields() -> dict[str, str]:
    """Fields of the first processor in /proc/cpuinfo; empty where there is no such file."""
    fields: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    return fields


def multiplies(device: torch.device, dtype: torch.dtype) -> bool | None:
    """Whether a device multiplies a dtype natively.

    Args:
        device: "cpu" or a CUDA device.
        dtype: float32, bfloat16 or float16.

    Returns:
        The answer; None where the system does not report it.
    """
    if dtype not in CPU_FLAGS:
        return True
    if device.type == "cuda":
        return dtype != torch.bfloat16 or torch.cuda.is_bf16_supported(including_emulation=False)
    fields = processor_fields()
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return not CPU_FLAGS[dtype].isdisjoint(flags) if flags else None


def slowness(device: torch.device, dtype: torch.dtype) -> str:
    """A warning where a device only emulates a dtype; empty where it does not."""
    if multiplies(device, dtype) is not False:
        return ""
    name = str(dtype).removeprefix("torch.")
    return f"this {device.type} does not multiply {name} natively; float32 is faster here"

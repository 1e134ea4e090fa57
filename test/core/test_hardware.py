"""What a processor multiplies itself, told by what Linux says of real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from videogem_ros.core import hardware
from videogem_ros.core.hardware import multiplies, processor_fields, slowness

CPU = torch.device("cpu")

ZEN_3 = {"flags": "fpu sse2 fma f16c avx2 vaes"}
COOPER_LAKE = {"flags": "fpu fma f16c avx2 avx512f avx512_vnni avx512_bf16"}
GRANITE_RAPIDS = {"flags": "avx2 avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_fp16"}
CORTEX_A72 = {"Features": "fp asimd evtstrm crc32 cpuid"}
CORTEX_A78AE = {"Features": "fp asimd crc32 atomics fphp asimdhp cpuid asimddp"}
NEOVERSE_V2 = {"Features": "fp asimd atomics fphp asimdhp cpuid sve i8mm bf16"}


@pytest.mark.parametrize(
    ("fields", "bfloat16", "float16"),
    [
        (ZEN_3, False, False),
        (COOPER_LAKE, True, False),
        (GRANITE_RAPIDS, True, True),
        (CORTEX_A72, False, False),
        (CORTEX_A78AE, False, True),
        (NEOVERSE_V2, True, True),
        ({}, None, None),  # any system but Linux
    ],
)
def test_flags_tell_what_is_multiplied(
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, str],
    bfloat16: bool | None,
    float16: bool | None,
) -> None:
    monkeypatch.setattr(hardware, "processor_fields", lambda: fields)
    assert multiplies(CPU, torch.bfloat16) is bfloat16
    assert multiplies(CPU, torch.float16) is float16
    assert multiplies(CPU, torch.float32) is True


def test_only_what_is_known_to_be_slow_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "processor_fields", lambda: CORTEX_A78AE)
    said = "this cpu does not multiply bfloat16 natively; float32 is faster here"
    assert slowness(CPU, torch.bfloat16) == said
    assert slowness(CPU, torch.float16) == ""
    assert slowness(CPU, torch.float32) == ""
    monkeypatch.setattr(hardware, "processor_fields", dict)
    assert slowness(CPU, torch.bfloat16) == ""


def test_this_processor_has_flags() -> None:
    if not Path("/proc/cpuinfo").exists():
        pytest.skip("this system has no /proc/cpuinfo")
    fields = processor_fields()
    assert len((fields.get("flags") or fields["Features"]).split()) > 3
    assert isinstance(multiplies(CPU, torch.bfloat16), bool)

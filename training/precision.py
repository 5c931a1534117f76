"""Whether half precision is worth having on this machine."""

from __future__ import annotations

from typing import Literal

import torch

_CPU_FLAGS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Of `torch.cpu.get_capabilities()`, on x86 and on ARM."""


def bfloat16_is_native(device: str) -> bool:
    """Whether a kind of device, "cpu" or "cuda", computes in bfloat16 itself. A CPU without such instructions emulates them, and a
    step of the small backbone takes it 18 times as long as in float32."""
    if device != "cpu":
        return True
    found = torch.cpu.get_capabilities()
    return any(found.get(flag, False) for flag in _CPU_FLAGS)


def native_dtype() -> Literal["bfloat16", "float32"]:
    """bfloat16 where the device that is trained on computes in it, else float32."""
    return "bfloat16" if bfloat16_is_native("cuda" if torch.cuda.is_available() else "cpu") else "float32"

"""Keys and values of a driver's tokens, in a network of the host's memory manager: it sees them, moves and evicts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import comfy.model_management
import comfy.model_patcher
import torch

Precision = Literal["auto", "full", "fp8"]
_FP8 = torch.float8_e4m3fn
_HIGHEST = torch.finfo(_FP8).max


class _Slot(torch.nn.Module):
    """Of one block: (1, M, width) each. In fp8 they are kept as shares of their largest value."""

    def __init__(self, tokens: int, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        for name in ("k", "v"):
            kept = torch.empty(1, tokens, width, dtype=dtype)
            self.register_parameter(name, torch.nn.Parameter(kept, requires_grad=False))
        self.scales = {"k": 1.0, "v": 1.0}

    def put(self, **values: torch.Tensor) -> None:
        for name, value in values.items():
            kept = getattr(self, name)
            if kept.dtype == _FP8:
                self.scales[name] = max(float(value.abs().max()), 1e-12) / _HIGHEST
                value = value / self.scales[name]
            kept.data.copy_(value)

    def read(self, name: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """In the computation's precision. From pinned memory this does not wait."""
        kept = getattr(self, name).data.to(device, non_blocking=True)
        return kept if kept.dtype == dtype else kept.to(dtype) * self.scales[name]


class MotionKeys(torch.nn.Module):
    """Of all blocks. `made_by`: what they were computed with, None while they are empty."""

    def __init__(self, blocks: int, tokens: int, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.slots = torch.nn.ModuleList(_Slot(tokens, width, dtype) for _ in range(blocks))
        self.made_by: object = None
        self._ahead: dict[int, tuple[torch.Tensor, torch.Tensor, Any]] = {}

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in self.parameters())

    def put(self, block: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Keys and values (B, M, width) of a block; every sample of a batch has the same driver, and one is kept."""
        self.slots[block].put(k=k[:1], v=v[:1])

    def get(self, block: int, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of a block on a device; the next block's begin to travel there while this one's are used."""
        found = self._ahead.pop(block, None)
        k, v, stream = found if found is not None else self._read(block, device, dtype, None)
        comfy.model_management.sync_stream(device, stream)
        after = block + 1
        if after < len(self.slots) and self.slots[after].k.device != device:
            self._ahead = {after: self._read(after, device, dtype, comfy.model_management.get_offload_stream(device))}
        return k, v

    def _read(self, block: int, device: torch.device, dtype: torch.dtype, stream: Any) -> tuple[torch.Tensor, torch.Tensor, Any]:
        slot = self.slots[block]
        if stream is None:
            return slot.read("k", device, dtype), slot.read("v", device, dtype), None
        stream.wait_stream(comfy.model_management.current_stream(device))
        with torch.cuda.stream(stream):
            made = slot.read("k", device, dtype), slot.read("v", device, dtype)
        for one in made:
            one.record_stream(comfy.model_management.current_stream(device))
        return *made, stream

    def done(self) -> None:
        """Nothing more is asked for in this pass."""
        self._ahead = {}


@dataclass(frozen=True)
class Kept:
    """A driver's keys, and the handle by which the host's memory manager has them. `info`: size and place, for people."""

    keys: MotionKeys
    patcher: comfy.model_patcher.ModelPatcher
    tokens: int
    context: str
    info: str


def reserve(model: Any, tokens: int, precision: Precision, name: str) -> Kept:
    """Room for the keys of a driver of that many tokens on a Wan MODEL.

    Raises MemoryError when neither the computation's precision nor fp8 fits into what RAM is free.
    """
    network, base = model.model.diffusion_model, model.model
    device, rest = comfy.model_management.get_torch_device(), torch.device("cpu")
    dtype = base.get_dtype_inference()
    free = comfy.model_management.get_free_memory(rest)
    sizes = {kind: 2 * len(network.blocks) * tokens * network.dim * kind.itemsize for kind in (dtype, _FP8)}
    if precision == "auto":
        precision = "full" if sizes[dtype] <= free / 2 else "fp8"
    chosen = dtype if precision == "full" else _FP8
    if sizes[chosen] > free:
        raise MemoryError(
            f"the driver's keys and values take {sizes[chosen] / 1e9:.1f} GB ({chosen}), and {free / 1e9:.1f} GB of RAM are free; "
            f"set motion_cache to fp8, shorten the clip, make it smaller, or use a LoRA of a half-size motion context"
        )
    keys = MotionKeys(len(network.blocks), tokens, network.dim, chosen)
    patcher = comfy.model_patcher.ModelPatcher(keys, load_device=device, offload_device=rest)
    place = "RAM" if comfy.model_management.is_device_cpu(device) else f"{device} as far as there is room, the rest in RAM"
    size = f"{keys.nbytes / 1e9:.2f} GB" if keys.nbytes >= 1e8 else f"{keys.nbytes / 1e6:.1f} MB"
    kind = str(chosen).removeprefix("torch.")
    info = f"motion context {name}: {size} of keys and values in {kind}, {place}"
    return Kept(keys, patcher, tokens, name, info)

"""Keys and values of a driver's tokens, in a network of the host's memory manager: it sees them, moves and evicts them."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakSet

import comfy.context_windows
import comfy.memory_management
import comfy.model_management
import comfy.model_patcher
import torch
from comfy.patcher_extension import CallbacksMP

Precision = Literal["auto", "full", "fp8"]
_FP8 = torch.float8_e4m3fn
_HIGHEST = torch.finfo(_FP8).max
_RAM = torch.device("cpu")
_IN_VAIN = 4  # computed for one call so often in a row


_all: WeakSet[MotionKeys] = WeakSet()
"""Those that there are, whoever holds them."""


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
        ahead = comfy.model_management.device_supports_non_blocking(device)
        kept = getattr(self, name).data.to(device, non_blocking=ahead)
        return kept if kept.dtype == dtype else kept.to(dtype) * self.scales[name]


class MotionKeys(torch.nn.Module):
    """Of all blocks. `made_by`: what they were computed with, None while they are empty. `uses`: how often they served since, in
    `network`."""

    def __init__(self, blocks: int, tokens: int, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.slots = torch.nn.ModuleList(_Slot(tokens, width, dtype) for _ in range(blocks))
        self.made_by: object = None
        self.uses = self.network = 0
        _all.add(self)
        self._ahead: dict[int, tuple[torch.Tensor, torch.Tensor, Any]] = {}

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in self.parameters())

    @torch.compiler.disable
    def put(self, block: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Keys and values (B, M, width) of a block; every sample of a batch has the same driver, and one is kept."""
        self.slots[block].put(k=k[:1], v=v[:1])

    @torch.compiler.disable
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
        if stream is not None:
            stream.wait_stream(comfy.model_management.current_stream(device))
        with nullcontext() if stream is None else stream.as_context(stream):
            made = slot.read("k", device, dtype), slot.read("v", device, dtype)
        if stream is not None:
            for one in made:
                one.record_stream(comfy.model_management.current_stream(device))
        return *made, stream

    def done(self) -> None:
        """Nothing more is asked for in this pass."""
        self._ahead = {}


@dataclass(eq=False)
class Kept:
    """A driver's keys on a network.

    Attributes:
        motion: The driver's latents as the network takes them, (1, C, t, h', w').
        keys: Of the whole clip. None where the host shows the network windows of it.
        patcher: The handle by which the host's memory manager has them.
        kind: Of the keys; not `dtype`, by which the host knows a tensor.
        context: Name of the motion context. info: Size and place, for people.
        windows: Keys of parts of the clip by their latent frames, in RAM; where there are several, in half of what is free.
        asked: Windows that there were. told: Warnings that were given.
        in_vain: How often in a row keys were computed for a single call.
    """

    motion: torch.Tensor
    keys: MotionKeys | None
    patcher: comfy.model_patcher.ModelPatcher | None
    context: str
    kind: torch.dtype
    info: str
    windows: OrderedDict[tuple[int, ...], MotionKeys] = field(default_factory=OrderedDict)
    asked: set[tuple[int, ...]] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
    in_vain: int = 0

    @property
    def nbytes(self) -> int:
        return sum(keys.nbytes for keys in (self.keys, *self.windows.values()) if keys is not None)

    def window(self, frames: tuple[int, ...], blocks: int, tokens: int, width: int) -> MotionKeys:
        """Keys of some latent frames. Raises MemoryError when there is no room for them."""
        if frames in self.windows:
            self.windows.move_to_end(frames)
            return self.windows[frames]
        size = _size(blocks, tokens, width, self.kind)
        free = _free(2 * size + self.nbytes, self.nbytes)
        while self.windows and size > free - (free + self.nbytes) / 2:
            # windows that come again do so in the same order at every step: the one that was used last is used again last. Those
            # that move do not come again, and the oldest goes
            free += self.windows.popitem(last=frames in self.asked)[1].nbytes
            self._tell(
                "full",
                f"the driver's keys and values of {len(self.windows) + 1} context windows fill half of the free RAM: those of the "
                f"others are computed again at every step; set motion_cache to fp8, make the clip smaller, or take a schedule "
                f"whose windows stand still",
            )
        _check_room(size, free, self.kind)
        if self.keys is not None:
            self._tell(
                "whole",
                f"room for keys and values of the whole clip, {self.keys.nbytes / 1e9:.2f} GB, was made for nothing: put the node "
                f"that makes context windows in front of In-Context Conditioning",
            )
        self.asked.add(frames)
        self.windows[frames] = MotionKeys(blocks, tokens, width, self.kind)
        return self.windows[frames]

    def count_fill(self, keys: MotionKeys, network: int) -> None:
        """Keys are about to be computed, in the place of others. `network`: tells the network from others."""
        self.in_vain = self.in_vain + 1 if keys.uses == 1 and keys.network == network else 0
        keys.uses, keys.network = 0, network
        if self.in_vain == _IN_VAIN:
            self._tell(
                "in vain",
                "the driver's keys and values are computed again at every call of the network, whose weights are other ones each "
                "time: give both conditionings the same LoRA hooks, without keyframes, or none",
            )

    def _tell(self, what: str, text: str) -> None:
        """Once for a conditioning, not at every step."""
        if what not in self.told:
            logging.warning(text)
        self.told.add(what)


def _free(wanted: int, own: int = 0) -> int:
    """RAM that is free.

    Where keys of another driver, which an earlier run has left, are what is missing to `wanted`, the host lets go of what such runs
    have left. By itself it does so after a node is done, which is too late for the one that makes the next keys.

    Args:
        own: Bytes of keys that stay.
    """
    free, others = comfy.model_management.get_free_memory(_RAM), sum(keys.nbytes for keys in _all) - own
    if free < wanted <= free + others:
        comfy.memory_management.extra_ram_release(wanted)
        return comfy.model_management.get_free_memory(_RAM)
    return free


def _size(blocks: int, tokens: int, width: int, dtype: torch.dtype) -> int:
    return 2 * blocks * tokens * width * dtype.itemsize


def _readable(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def windows_of(model: Any, frames: int) -> Any:
    """What makes the host show a MODEL windows of so many latent frames; None where it shows it all of them at once."""
    handler = model.model_options.get("context_handler")
    listed = isinstance(handler, comfy.context_windows.IndexListContextHandler)
    return None if listed and frames <= handler.context_length else handler


def _shown(frames: int, length: int, overlap: int) -> float:
    """How often windows that stand still show each latent frame of a clip, on average: their keys to those of the whole clip. All
    but the first have a frame more, which the host puts in front."""
    if length >= frames:
        return 1.0
    windows = 1 + math.ceil((frames - length) / max(1, length - overlap))
    return (windows * (length + 1) - 1) / frames


def _check_room(size: int, free: int, dtype: torch.dtype) -> None:
    if size > free:
        raise MemoryError(
            f"the driver's keys and values take {size / 1e9:.1f} GB ({dtype}), and {free / 1e9:.1f} GB of RAM are free; set "
            f"motion_cache to fp8, shorten the clip, make it smaller, or use a LoRA of a half-size motion context"
        )


def _after_load(patcher: comfy.model_patcher.ModelPatcher, *_: Any) -> None:
    """What found no room on the device goes there block by block, which overlaps with the work from pinned memory only."""
    # the host takes modules that are not its own for there whole, and would not look for room again; and of those that came there
    # earlier it counts only what it would take there now
    there = [slot for slot in patcher.model.slots if getattr(slot, "comfy_patched_weights", False)]
    patcher.model.model_loaded_weight_memory = sum(value.nbytes for slot in there for value in slot.parameters())
    patcher.model.model_lowvram = len(there) < len(patcher.model.slots)
    if comfy.model_management.is_device_cuda(patcher.load_device):
        for name, value in patcher.model.named_parameters():
            if value.device == _RAM:
                patcher.pin_weight_to_device(name)


def reserve(model: Any, motion: torch.Tensor, precision: Precision, name: str) -> Kept:
    """Room for the keys of a driver (1, C, t, h', w') on a Wan MODEL.

    Raises MemoryError when it does not fit into what RAM is free, ValueError for a precision that the device does not know.
    """
    network, base, device = model.model.diffusion_model, model.model, model.load_device
    dtype, blocks, tokens = base.get_dtype_inference(), len(network.blocks), motion[0, 0].numel() // math.prod(network.patch_size)
    frames = motion.shape[2]
    windows = windows_of(model, frames)
    listed = isinstance(windows, comfy.context_windows.IndexListContextHandler)  # what others show is not known beforehand
    if precision == "auto":
        shown = _shown(frames, windows.context_length, windows.context_overlap) if listed else 1.0
        half = shown * _size(blocks, tokens, network.dim, dtype)
        fits = 2 * half <= _free(math.ceil(2 * half))
        precision = "full" if fits or not comfy.model_management.supports_cast(device, _FP8) else "fp8"
        if precision == "fp8":
            logging.warning("the driver's keys and values are kept in fp8: in full they would fill more than half of the free RAM")
    elif precision == "fp8" and not comfy.model_management.supports_cast(device, _FP8):
        raise ValueError(f"motion_cache is fp8, which {device} can't compute with; set it to full")
    chosen = dtype if precision == "full" else _FP8
    kind = str(chosen).removeprefix("torch.")
    if windows is not None:
        each = _size(blocks, tokens * (windows.context_length + 1) // frames, network.dim, chosen) if listed else None
        size = "" if each is None else f"up to {_readable(each)} of "
        info = f"motion context {name}: {size}keys and values of each context window in {kind}, RAM"
        return Kept(motion, None, None, name, chosen, info)
    needed = _size(blocks, tokens, network.dim, chosen)
    _check_room(needed, _free(needed), chosen)
    keys = MotionKeys(blocks, tokens, network.dim, chosen)
    patcher = comfy.model_patcher.ModelPatcher(keys, load_device=device, offload_device=_RAM)
    patcher.add_callback(CallbacksMP.ON_LOAD, _after_load)
    place = "RAM" if comfy.model_management.is_device_cpu(device) else f"{device} as far as there is room, the rest in RAM"
    info = f"motion context {name}: {_readable(keys.nbytes)} of keys and values in {kind}, {place}"
    return Kept(motion, keys, patcher, name, chosen, info)

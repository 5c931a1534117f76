"""What a second run need not compute again: latents of pictures that were encoded, and keys of a driver that was seen before.

ComfyUI itself reuses the outputs of nodes whose inputs are the same. With another reference, only the driver is the same.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import comfy.model_management
import torch

from .motion_keys import Kept, Precision, reserve, windows_of

_LATENTS = 4  # of a VAE: reference and driver, and those of the run before
_SHARE = 4  # keys that take more than this part of the RAM go with the conditioning that they are of, as do those of windows

_encoded: WeakKeyDictionary[torch.nn.Module, OrderedDict[str, torch.Tensor]] = WeakKeyDictionary()
_kept: WeakKeyDictionary[torch.nn.Module, tuple[tuple, Kept]] = WeakKeyDictionary()


def _digest(values: torch.Tensor) -> str:
    values = values.detach().cpu().contiguous()
    digest = hashlib.blake2b(f"{tuple(values.shape)} {values.dtype}".encode(), digest_size=20)
    digest.update(memoryview(values.flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()


def encoded(vae: Any, pixels: torch.Tensor, encode: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """`encode(pixels)`, or what that was when this VAE last saw the same pixels."""
    seen, name = _encoded.setdefault(vae.first_stage_model, OrderedDict()), _digest(pixels)
    if name not in seen:
        seen[name] = encode(pixels)
        while len(seen) > _LATENTS:
            seen.popitem(last=False)
    seen.move_to_end(name)
    return seen[name].clone()  # what is handed out may be changed


def kept_for(model: Any, motion: torch.Tensor, precision: Precision, context: str) -> Kept:
    """`reserve`, or the keys that are there since the same driver was shown to the same network. motion: (1, C, t, h', w')."""
    windows = windows_of(model, motion.shape[2]) is not None
    about = (_digest(motion), precision, model.model.get_dtype_inference(), context, windows)
    found = _kept.get(model.model)
    if found is not None and found[0] == about:
        return _alone(found[1])
    _kept.pop(model.model, None)  # before there is room for others
    kept = reserve(model, motion, precision, context)
    if kept.keys is not None and kept.nbytes <= comfy.model_management.get_total_memory(torch.device("cpu")) / _SHARE:
        _kept[model.model] = about, kept
        return _alone(kept)
    return replace(kept, info=f"{kept.info}, computed again for another reference")


def forget_keys(model: Any) -> None:
    """Let go of the keys of a network that is not going to be asked for them: their RAM is wanted for others."""
    _kept.pop(model.model, None)


def _alone(kept: Kept) -> Kept:
    """The same keys, but windows of its own: out of the host's sight, they are not to outlive their conditioning."""
    return replace(kept, windows=OrderedDict(), asked=set(), told=set())

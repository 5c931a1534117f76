"""Muon for weight matrices and AdamW for the rest, and the learning-rate schedule.

Networks that are trained from nothing here see few steps; Muon makes several times more of each than AdamW alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from training.precision import bfloat16_is_native


class _Float32Instead(TorchFunctionMode):
    """Within it, `Tensor.bfloat16()` makes a copy in float32."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.Tensor.bfloat16:
            return args[0].to(torch.float32, copy=True)  # what asks for it goes on in place
        return function(*args, **(kwargs or {}))


def muon_dtype(device: torch.device) -> str:
    """What Muon orthogonalises in there, "bfloat16" or "float32": part of what has to be the same for a run to be gone on with."""
    return "bfloat16" if bfloat16_is_native(device.type) else "float32"


class Muon(torch.optim.Muon):
    """torch's, which orthogonalises in bfloat16 (`update.bfloat16()`, in torch 2.11); on a CPU that only emulates it, in float32.
    For a LoRA of the small backbone of rank 128 that took two AVX2 cores 0.14 s a step instead of 3.1 s, and the network 2 s."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        device = self.param_groups[0]["params"][0].device
        with nullcontext() if muon_dtype(device) == "bfloat16" else _Float32Instead():
            return super().step(closure)


class MuonAdamW:
    """Muon on every weight of two or more axes (convolutions flattened), AdamW on vectors and `adamw_only`.

    Args:
        lr: For Muon, scaled to AdamW's usual step size; AdamW gets half of it.
        adamw_only: Parts of parameter names whose matrices are not linear maps between features (embeddings).
        weight_decay: Of both, decoupled.
    """

    def __init__(
        self, module: torch.nn.Module, lr: float, adamw_only: Iterable[str] = (), weight_decay: float = 0.0
    ) -> None:
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        plain = tuple(adamw_only)
        self._whole = [p for n, p in named if p.ndim >= 2 and min(p.shape[:2]) > 1 and not any(part in n for part in plain)]
        chosen = {id(p) for p in self._whole}
        # Muon takes matrices only: each of these shares the memory of its convolution or linear weight
        self._flat = [torch.nn.Parameter(p.detach().view(p.shape[0], -1)) for p in self._whole]
        rest = [p for _, p in named if id(p) not in chosen]
        self.parts: dict[str, torch.optim.Optimizer] = {}
        if self._flat:
            self.parts["muon"] = Muon(
                self._flat, lr=lr, momentum=0.95, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            )
        if rest:  # a LoRA has matrices only
            self.parts["adamw"] = torch.optim.AdamW(rest, lr=lr / 2, betas=(0.9, 0.95), weight_decay=weight_decay)

    def set_lr(self, lr: float) -> None:
        for name, part in self.parts.items():
            for group in part.param_groups:
                group["lr"] = lr if name == "muon" else lr / 2

    def zero_grad(self) -> None:
        for parameter in self._whole:
            parameter.grad = None
        if "adamw" in self.parts:
            self.parts["adamw"].zero_grad(set_to_none=True)

    def step(self) -> None:
        for flat, whole in zip(self._flat, self._whole, strict=True):
            flat.grad = None if whole.grad is None else whole.grad.reshape(flat.shape)
        for part in self.parts.values():
            part.step()


def cosine_lr(step: int, steps: int, peak: float, warmup: int = 50, floor: float = 0.03) -> float:
    """Linear warm-up, then a cosine from `peak` to `floor * peak` at `steps`."""
    rise = min(1.0, (step + 1) / warmup)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    return peak * rise * (floor + (1 - floor) * fall)


_COOLDOWN = 0.25


def flat_steps(steps: int) -> int:
    """Steps before `trapezoid_lr` falls: until then a run can be lengthened or shortened."""
    return steps - int(_COOLDOWN * steps)


def trapezoid_lr(step: int, steps: int, peak: float, warmup: int = 50) -> float:
    """Linear warm-up, constant, then linear to zero over the last quarter."""
    rise = min(1.0, (step + 1) / warmup)
    fall = min(1.0, (steps - step) / max(1.0, _COOLDOWN * steps))
    return peak * rise * fall

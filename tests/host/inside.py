"""The host's network looked at from inside this process: what it is given, and how it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import comfy.sample
import torch


@dataclass(frozen=True)
class Call:
    """One forward pass: all channels of the input, the timestep, the text, and what came out."""

    x: torch.Tensor
    timestep: torch.Tensor
    context: torch.Tensor
    out: torch.Tensor


def spied(model: Any) -> tuple[Any, list[Call]]:
    """A clone of a MODEL, and the list in which the calls of its network will appear."""
    calls: list[Call] = []

    def note(forward: Callable[..., torch.Tensor], *given: Any, **more: Any) -> torch.Tensor:
        x, timestep, context = (value.clone() for value in given[:3])
        out = forward(*given, **more)
        calls.append(Call(x, timestep, context, out.clone()))
        return out

    clone = model.clone()
    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "spy", note)
    return clone, calls


def sample(
    model: Any, positive: list, negative: list, latent: dict, steps: int = 3, seed: int = 7, sampler: str = "euler", **stage: Any
) -> dict[str, Any]:
    """What the stock KSampler does, at guidance 1; `stage` as in KSampler (Advanced)."""
    import nodes

    with torch.inference_mode():
        return nodes.common_ksampler(model, seed, steps, 1.0, sampler, "simple", positive, negative, latent, **stage)[0]


def noise_of(latent: dict[str, Any], seed: int = 7) -> torch.Tensor:
    """The noise that a stock sampler draws for a LATENT."""
    return comfy.sample.prepare_noise(latent["samples"], seed)


def weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights that a MODEL computes with, patches included."""
    comfy.model_management.load_models_gpu([model])
    return {key: value.clone() for key, value in model.model.diffusion_model.state_dict().items()}

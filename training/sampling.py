"""Sampling with the driver's half pinned at the noise level of the step, as the nodes have it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dreamactor_core.layout import Layout
from training.backbones.base import Context, VideoBackbone
from training.flow import Sampler, euler, lcm, shifted_sigmas


@torch.no_grad()
def sample(
    backbone: VideoBackbone,
    model: torch.nn.Module,
    layout: Layout,
    given: torch.Tensor,
    context: Context,
    steps: int,
    shift: float,
    seeds: Sequence[int],
    empty: Context | None = None,
    cfg: float = 1.0,
    sampler: Sampler = "euler",
) -> torch.Tensor:
    """Composite latents (B, C, t, h, w') by a sampler's steps.

    Args:
        given: Z of Eq. 2, (B, C, t, h, w').
        seeds: Of each sample's noise, drawn on the CPU whatever the device, as ComfyUI draws it there; lcm's later noise is of the
            next seed.
        empty: Context of an empty prompt, for `cfg` over 1.
    """
    device = next(model.parameters()).device

    def drawn(generators: Sequence[torch.Generator]) -> torch.Tensor:
        return torch.stack([torch.randn(given.shape[1:], generator=generator) for generator in generators]).to(device)

    noise = drawn([torch.Generator().manual_seed(seed) for seed in seeds])
    given = given.to(device, torch.float32)
    # a composite's cropped half has the size that the masks are asked for
    size = layout.crop(given).shape[2:]
    known, generate = (mask.to(device) for mask in (layout.known_mask(*size), layout.generated_mask(*size)))
    driver = {name: context[name] for name in ("motion",) if name in context}  # the same whatever the text
    told = [one | driver for one in (context, empty) if one is not None]
    contexts = [{name: value.to(device) for name, value in one.items()} for one in told]

    def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        found = backbone.predict(model, x, sigma, given, known, contexts[0])
        if cfg == 1 or empty is None:
            return found
        plain = backbone.predict(model, x, sigma, given, known, contexts[1])
        return plain + cfg * (found - plain)

    def pin(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.where(generate > 0, x, (1 - sigma) * given + sigma * noise)

    sigmas = shifted_sigmas(steps, shift)
    if sampler == "euler":
        return euler(velocity, noise, sigmas, pin)
    later = [torch.Generator().manual_seed(seed + 1) for seed in seeds]
    return lcm(velocity, noise, sigmas, pin, fresh=lambda: drawn(later))

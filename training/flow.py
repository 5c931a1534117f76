"""Flow matching as Wan's networks are trained: x_s = (1 - s) x + s e, and the network predicts e - x."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

import torch


def sample_sigmas(count: int, generator: torch.Generator, mean: float, std: float) -> torch.Tensor:
    """Noise levels of a logit-normal distribution; a positive mean prefers noisy ones, where motion is decided."""
    return torch.sigmoid(mean + std * torch.randn(count, generator=generator))


def shifted_sigmas(steps: int, shift: float) -> torch.Tensor:
    """Noise levels of a sampler: steps + 1 values from 1 to 0, shifted to the noisy end."""
    plain = torch.linspace(1, 0, steps + 1)
    return shift * plain / (1 + (shift - 1) * plain)


Sampler = Literal["euler", "lcm"]
"""ComfyUI's names."""
Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x, sigma of shape (B,)) to predicted e - x."""
Pin = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x, sigma) to x with what is known put in its place."""


def _nothing_known(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return x


@torch.no_grad()
def euler(
    velocity: Velocity, noise: torch.Tensor, sigmas: torch.Tensor, pin: Pin = _nothing_known
) -> torch.Tensor:
    """Integrate from noise (B, ...) to data; `pin` is called before each step and at the end."""
    x = noise
    for now, after in itertools.pairwise(sigmas):
        x = pin(x, now)
        x = x + (after - now) * velocity(x, now.expand(x.shape[0]).to(x))
    return pin(x, sigmas[-1])


@torch.no_grad()
def lcm(
    velocity: Velocity,
    noise: torch.Tensor,
    sigmas: torch.Tensor,
    pin: Pin = _nothing_known,
    *,
    fresh: Callable[[], torch.Tensor],
) -> torch.Tensor:
    """From noise (B, ...) to data as ComfyUI's `lcm` does it: after each step what is predicted gets new noise of the next level.

    An early mistake is not carried on as in `euler`, where all noise is the first one's.

    Args:
        pin: Called before each step and at the end.
        fresh: Makes noise like `noise`, once for each level but the last.
    """
    x = noise
    for now, after in itertools.pairwise(sigmas):
        x = pin(x, now)
        x = x - now * velocity(x, now.expand(x.shape[0]).to(x))
        if after > 0:
            x = (1 - after) * x + after * fresh()
    return pin(x, sigmas[-1])

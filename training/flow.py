"""Flow matching as Wan's networks are trained: x_s = (1 - s) x + s e, and the network predicts e - x."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch


def sample_sigmas(count: int, generator: torch.Generator, mean: float, std: float) -> torch.Tensor:
    """Noise levels of a logit-normal distribution; a positive mean prefers noisy ones, where motion is decided."""
    return torch.sigmoid(mean + std * torch.randn(count, generator=generator))


def shifted_sigmas(steps: int, shift: float) -> torch.Tensor:
    """Noise levels of a sampler: steps + 1 values from 1 to 0, shifted to the noisy end."""
    plain = torch.linspace(1, 0, steps + 1)
    return shift * plain / (1 + (shift - 1) * plain)


@torch.no_grad()
def euler(
    velocity: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    noise: torch.Tensor,
    sigmas: torch.Tensor,
    pin: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = lambda x, sigma: x,
) -> torch.Tensor:
    """Integrate from noise (B, ...) to data.

    Args:
        velocity: (x, sigma of shape (B,)) to predicted e - x.
        pin: (x, sigma) to x with what is known put in its place, before each step and at the end.
    """
    x = noise
    for now, after in itertools.pairwise(sigmas):
        x = pin(x, now)
        x = x + (after - now) * velocity(x, now.expand(x.shape[0]).to(x))
    return pin(x, sigmas[-1])

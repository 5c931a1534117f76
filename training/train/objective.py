"""The objective: flow matching, on the half that is generated."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dreamactor_core.layout import Layout
from training.backbones.base import Context, VideoBackbone
from training.config import Timesteps
from training.errors import UserError

_GAMMA = 5.0  # min-SNR's
_TRIES = 10_000


@dataclass
class Batch:
    """Latents (B, C, t, h, w'): `clean` the truth in both halves, `given` Z of Eq. 2; `known` and `generate` (1, 1, t, h, w')."""

    clean: torch.Tensor
    given: torch.Tensor
    known: torch.Tensor
    generate: torch.Tensor
    context: Context

    def __len__(self) -> int:
        return len(self.clean)

    def first(self, count: int) -> Batch:
        """The first samples alone."""
        context = {name: value[:count] for name, value in self.context.items()}
        return Batch(self.clean[:count], self.given[:count], self.known, self.generate, context)

    def to(self, device: torch.device) -> Batch:
        context = {name: value.to(device) for name, value in self.context.items()}
        return Batch(*(value.to(device) for value in (self.clean, self.given, self.known, self.generate)), context)


def draw_sigma(settings: Timesteps, generator: torch.Generator) -> float:
    """One noise level as the backbone was trained: drawn, shifted to the noisy end; drawn anew while outside an expert's range.

    Raises UserError when the range is all but never met.
    """
    for _ in range(_TRIES):
        if settings.kind == "uniform":
            drawn = float(torch.rand((), generator=generator))
        else:
            drawn = float(torch.sigmoid(settings.mean + settings.std * torch.randn((), generator=generator)))
        sigma = settings.shift * drawn / (1 + (settings.shift - 1) * drawn)
        if settings.low <= sigma <= settings.high:
            return sigma
    raise UserError(
        f"none of {_TRIES} noise levels was from {settings.low:g} to {settings.high:g}; change mean, std, shift, low or high in "
        f"train.timesteps"
    )


def losses(
    backbone: VideoBackbone,
    model: torch.nn.Module,
    layout: Layout,
    batch: Batch,
    sigma: torch.Tensor,
    noise: torch.Tensor,
    over: str = "generated",
    weighting: str = "none",
) -> torch.Tensor:
    """Mean squared error of the velocity of each sample, (B,): x = (1 - s) clean + s noise, the network predicts noise - clean.

    Args:
        over: `generated` half, or the `full` composite.
        weighting: `min_snr`: min(SNR, 5) s^2 with SNR = ((1 - s) / s)^2, which is min-SNR's min(SNR, 5) on the error of x: an error
            of the velocity e - x is one of x by s.
    """
    s = sigma.view(-1, 1, 1, 1, 1)
    x = (1 - s) * batch.clean + s * noise
    error = backbone.predict(model, x, sigma, batch.given, batch.known, batch.context) - (noise - batch.clean)
    if over == "generated":
        error = layout.crop(error)
    loss = error.square().mean((1, 2, 3, 4))
    if weighting == "min_snr":
        snr = ((1 - sigma) / sigma.clamp_min(1e-3)).square()
        loss = loss * snr.clamp_max(_GAMMA) * sigma.square()
    return loss

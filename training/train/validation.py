"""Held-out loss at fixed noise levels and with fixed noise: with the right driver, and with another clip's."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator

from training.backbones.base import VideoBackbone
from training.config import Timesteps
from training.train.data import Batches, Chance, with_drivers_of
from training.train.objective import losses

LEVELS = (0.5, 0.75, 0.9, 0.98)
"""Noise levels, as places in the range that is trained."""
_SEED = 0


def levels(settings: Timesteps) -> list[float]:
    """The levels of a run: an expert is not asked about what it never sees."""
    return [settings.low + (settings.high - settings.low) * place for place in LEVELS]


@torch.no_grad()
def validate(
    backbone: VideoBackbone, model: torch.nn.Module, batches: Batches, numbers: list[int], batch: int, accelerator: Accelerator
) -> tuple[float, float]:
    """Mean losses over the samples and levels. All processes share the work and get the same figures.

    A network that follows its driver is worse off with another clip's.
    """
    groups = _groups(batches, numbers, batch)
    totals = np.zeros(3)
    for round_ in range(0, len(groups), accelerator.num_processes):
        mine = round_ + accelerator.process_index
        group = groups[min(mine, len(groups) - 1)]  # one more pass where the work does not divide: sharded networks need all
        weight = 1.0 if mine < len(groups) else 0.0
        chances = [Chance(_SEED, 0, number) for number in group]
        made, _, noise = batches.batch(group, chances, train=False)
        made, noise = made.to(accelerator.device), noise.to(accelerator.device)
        swapped = with_drivers_of(made, np.roll(np.arange(len(group)), 1).tolist())
        for level in levels(batches.settings.train.timesteps):
            sigma = torch.full((len(group),), level, device=noise.device)
            for row, one in enumerate((made, swapped)):
                totals[row] += weight * float(losses(backbone, model, batches.layout, one, sigma, noise).sum())
            totals[2] += weight * len(group)
    summed = accelerator.reduce(torch.from_numpy(totals).to(accelerator.device, torch.float32), "sum")
    return float(summed[0] / summed[2]), float(summed[1] / summed[2])


def _groups(batches: Batches, numbers: list[int], batch: int) -> list[list[int]]:
    """Samples in groups of one bucket, of at least two where there are two: each needs another one's driver."""
    groups = []
    for members in batches.cache.buckets().values():
        mine = [number for number in members if number in set(numbers)]
        size = max(2, batch)
        parts = [mine[k : k + size] for k in range(0, len(mine), size)]
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [parts[-2] + parts[-1]]
        groups += parts
    return groups

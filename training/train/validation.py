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
) -> tuple[float, float | None]:
    """Mean losses over the samples and levels. All processes share the work and get the same figures.

    A network that follows its driver is worse off with another clip's: the second figure, over the samples whose bucket holds
    another one to take it from; None when there is none of them.
    """
    groups = _groups(batches, numbers, batch)
    totals = np.zeros(4)
    for round_ in range(0, len(groups), accelerator.num_processes):
        mine = round_ + accelerator.process_index
        group = groups[min(mine, len(groups) - 1)]  # one more pass where the work does not divide: sharded networks need all
        weight = 1.0 if mine < len(groups) else 0.0
        shown = group + _lenders(batches, group)
        paired = weight * (len(shown) > 1)
        chances = [Chance(_SEED, 0, number) for number in shown]
        made, _, noise = batches.batch(shown, chances, train=False)
        made, noise = made.to(accelerator.device), noise[: len(group)].to(accelerator.device)
        swapped = with_drivers_of(made, np.roll(np.arange(len(shown)), 1).tolist()).first(len(group))
        made = made.first(len(group))
        for level in levels(batches.settings.train.timesteps):
            sigma = torch.full((len(group),), level, device=noise.device)
            for row, (one, counts) in enumerate(((made, weight), (swapped, paired))):  # uncounted passes too: all need the same
                totals[row] += counts * float(losses(backbone, model, batches.layout, one, sigma, noise).sum())
                totals[2 + row] += counts * len(group)
    right, other, all_, with_other = accelerator.reduce(torch.from_numpy(totals).to(accelerator.device, torch.float32), "sum")
    return float(right / all_), float(other / with_other) if with_other else None


def _lenders(batches: Batches, group: list[int]) -> list[int]:
    """Another sample of the bucket, for the driver of one that is by itself; none where a group is several, or there is none."""
    if len(group) > 1:
        return []
    place = batches.cache.places[group[0]]
    members = batches.cache.buckets()[place.bucket]
    following = members[(members.index(group[0]) + 1) % len(members)]
    return [] if following == group[0] else [following]


def _groups(batches: Batches, numbers: list[int], batch: int) -> list[list[int]]:
    """Samples in groups of one bucket, of at least two where there are two: each is shown another one's driver."""
    groups = []
    for members in batches.cache.buckets().values():
        mine = [number for number in members if number in set(numbers)]
        size = max(2, batch)
        parts = [mine[k : k + size] for k in range(0, len(mine), size)]
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [parts[-2] + parts[-1]]
        groups += parts
    return groups

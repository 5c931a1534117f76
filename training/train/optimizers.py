"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from training.config import Train
from training.optimizer import Muon, cosine_lr, trapezoid_lr


def make(settings: Train, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW as in the paper, AdamW with its state in 8 bits, or Muon, which suits a LoRA as all of it is matrices."""
    if settings.optimizer == "adamw8bit":
        from torchao.optim import AdamW8bit

        return AdamW8bit(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    if settings.optimizer == "muon":
        options = {"momentum": 0.95, "adjust_lr_fn": "match_rms_adamw"}
        return Muon(parameters, lr=settings.lr, weight_decay=settings.weight_decay, **options)
    return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


def rate(settings: Train, step: int) -> float:
    """Learning rate of a step."""
    if settings.schedule == "trapezoid":
        return trapezoid_lr(step, settings.steps, settings.lr, max(1, settings.warmup))
    if settings.schedule == "cosine":
        return cosine_lr(step, settings.steps, settings.lr, max(1, settings.warmup))
    return settings.lr * min(1.0, (step + 1) / max(1, settings.warmup))

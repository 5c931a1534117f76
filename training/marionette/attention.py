"""Attention for training on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers import transformer_wan


def plain_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d)) V, each (B, tokens, heads, d), without masks."""
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return (scores.softmax(-1) @ v).transpose(1, 2)


def use_plain_attention() -> None:
    """Let diffusers' Wan networks attend by plain matrix products from now on.

    For the few hundred tokens of the small backbone torch's fused CPU kernel takes twice as long for a training step.
    """
    transformer_wan.dispatch_attention_fn = plain_attention

"""Attention heads that start out looking at the same place and time in the neighbouring panel.

Video networks that were trained on the web's split screens find their way across panels by themselves. A small one with few
steps does not: it learns to compare colours first, and stays with that. So a few heads get this habit before training, as
their first weights: queries and keys that depend on position alone, by the rotary embedding. Training goes on from there.
"""

from __future__ import annotations

import math

import torch
from diffusers import WanTransformer3DModel

_PAIRS = 2  # rotary frequencies an axis: the highest ones, which tell neighbours apart
_SHARPNESS = 6.0  # length of a query's and a key's part for one frequency
_THETA = 10000.0  # of the rotary embedding


def _axes(dim: int) -> tuple[int, int, int]:
    """How many of a head's channels turn with time, height and width."""
    side = 2 * (dim // 6)
    return dim - 2 * side, side, side


@torch.no_grad()
def place_panel_heads(model: WanTransformer3DModel, panel_width: int) -> None:
    """Overwrite queries and keys of the last two heads in every second block but the first and the last two.

    One looks to the right, one to the left. What they see has no effect at first: their outputs start from nothing.

    Args:
        panel_width: Tokens from a place in one panel to the same place in its neighbour.
    """
    dim, heads = model.config.attention_head_dim, model.config.num_attention_heads
    for block in model.blocks[1:-2:2]:
        attention = block.attn1
        # a pair of channels is as large as one of before on inputs of unit variance. The norm is taken over all heads together and
        # these leave most of theirs empty, so that the others get a little sharper
        sizes = {x: (x.weight.square().sum(1) + x.bias.square()).mean().sqrt() for x in (attention.to_q, attention.to_k)}
        for head, offset in ((heads - 2, panel_width), (heads - 1, -panel_width)):
            for linear, norm, shift in ((attention.to_q, attention.norm_q, offset), (attention.to_k, attention.norm_k, 0)):
                rows = slice(head * dim, (head + 1) * dim)
                channels, gains = _pattern(dim, shift)
                linear.weight[rows] = 0
                linear.bias[rows] = sizes[linear] * channels
                norm.weight[rows] = torch.where(gains > 0, gains, norm.weight[rows])
            attention.to_out[0].weight[:, head * dim : (head + 1) * dim] = 0


def _pattern(dim: int, shift: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit channels of a head whose query meets the key `shift` tokens to its right, and the gain of each."""
    channels, gains, start = torch.zeros(dim), torch.zeros(dim), 0
    for axis, count in enumerate(_axes(dim)):
        for pair in range(_PAIRS):
            angle = (shift if axis == 2 else 0) * _THETA ** (-2 * pair / count)
            at = start + 2 * pair
            channels[at], channels[at + 1] = math.cos(angle), math.sin(angle)
            gains[at : at + 2] = _SHARPNESS
        start += count
    return channels, gains

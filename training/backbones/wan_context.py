"""Cached motion contexts in training: diffusers' Wan network shows the driver to itself first, then the result sees its keys and
values in every block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers.models.transformers import transformer_wan
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor, WanRotaryPosEmbed

from dreamactor_core.motion_context import MotionContext, attend_with_motion, token_places

_THETA = 10_000.0


@dataclass
class _Pass:
    """One of a call's two. `kept`: keys and values of the driver by block, which the first leaves to the second.

    It goes from block to block beside the rotary positions, so that a block that is computed again in the backward pass finds the
    one that it was computed in.
    """

    of: Literal["driver", "result"]
    frames: int
    kept: dict[int, tuple[torch.Tensor, torch.Tensor]]

    # what differs from block to block is kept from the compiler, which would make each block anew
    @torch.compiler.disable
    def keep(self, attention: _SelfAttention, k: torch.Tensor, v: torch.Tensor) -> None:
        self.kept[attention.block] = k, v

    @torch.compiler.disable
    def driver(self, attention: _SelfAttention) -> tuple[torch.Tensor, torch.Tensor]:
        return self.kept[attention.block]


@dataclass
class _Shared:
    """What the parts of one network share. `now`: the pass that is begun, `at`: what the block that is computed is a part of."""

    context: MotionContext
    now: _Pass | None = None
    width: int = 0
    at: Literal["driver", "result"] = "result"


Places = tuple[torch.Tensor, torch.Tensor, _Pass]
"""Cosine and sine of the rotary positions, (1, S, 1, d) with each twice, and the pass."""


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Tokens on axis 1, heads on axis 2."""
    return transformer_wan.dispatch_attention_fn(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False)


def _turned(x: torch.Tensor, places: Places) -> torch.Tensor:
    """Rotary positions on (B, S, heads, d): pairs of neighbouring channels are turned."""
    cosine, sine = (place[..., ::2] for place in places[:2])
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cosine - b * sine, a * sine + b * cosine], -1).flatten(-2).type_as(x)


class _SelfAttention:
    """Of a block: keeps the driver's keys and values, or sees them beside its own."""

    def __init__(self, shared: _Shared, block: int) -> None:
        self.shared, self.block = shared, block

    def __call__(
        self, attn: WanAttention, hidden_states: torch.Tensor, _text: None = None, _mask: None = None,
        rotary_emb: Places | None = None,
    ) -> torch.Tensor:  # fmt: skip
        own, heads = rotary_emb[2], (attn.heads, -1)
        self.shared.at = own.of  # for the text's attention, which comes after this one
        q = _turned(attn.norm_q(attn.to_q(hidden_states)).unflatten(2, heads), rotary_emb)
        k = _turned(attn.norm_k(attn.to_k(hidden_states)).unflatten(2, heads), rotary_emb)
        v = attn.to_v(hidden_states).unflatten(2, heads)
        if own.of == "driver":
            own.keep(self, k, v)
            out = _attend(q, k, v)
        else:
            out = attend_with_motion(_attend, q, k, v, own.driver(self), own.frames, self.shared.context.near)
        return attn.to_out[1](attn.to_out[0](out.flatten(2, 3).type_as(q)))


class _TextAttention(WanAttnProcessor):
    """Of a block: the driver's tokens find nothing to attend to, so that they are the same whatever the text is."""

    def __init__(self, shared: _Shared) -> None:
        super().__init__()
        self.shared = shared

    def __call__(self, attn: WanAttention, hidden_states: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        if self.shared.at == "driver":
            return attn.to_out[1](attn.to_out[0](torch.zeros_like(hidden_states)))
        return super().__call__(attn, hidden_states, *rest, **more)


class _Places(torch.nn.Module):
    """The network's rotary positions, and the driver's, which are beside and may lie wider apart."""

    def __init__(self, rope: WanRotaryPosEmbed, shared: _Shared) -> None:
        super().__init__()
        self.rope, self.shared = rope, shared

    def forward(self, video: torch.Tensor) -> Places:
        own = self.shared.now
        if own.of == "result":
            return *self.rope(video), own
        _, high, wide = self.rope.patch_size
        t, h, w = video.shape[2], video.shape[3] // high, video.shape[4] // wide
        top, left, step = token_places(self.shared.context, self.shared.width)
        axes = (torch.arange(t, device=video.device), torch.arange(h, device=video.device) * step + top,
                torch.arange(w, device=video.device) * step + left)  # fmt: skip
        dims = (self.rope.t_dim, self.rope.h_dim, self.rope.w_dim)
        grid = torch.meshgrid(*(axis.double() for axis in axes), indexing="ij")
        angles = []
        for places, dim in zip(grid, dims, strict=True):
            slow = _THETA ** -(torch.arange(0, dim, 2, device=video.device, dtype=torch.float64) / dim)
            angles.append(places.flatten()[:, None] * slow)
        turned = torch.cat(angles, 1).repeat_interleave(2, 1)[None, :, None]
        return turned.cos().float(), turned.sin().float(), own


class _TwoPasses:
    """In the place of a network's `forward`: the driver's pass, then the result's.

    Inside of one call, so that whatever wraps the network (DDP, FSDP2) sees one.
    """

    def __init__(self, model: torch.nn.Module, shared: _Shared) -> None:
        self.plain, self.shared, self.patch = model.forward, shared, model.config.patch_size[-1]

    def __call__(
        self, hidden_states: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor, *,
        motion: torch.Tensor, **more: Any,
    ) -> Any:  # fmt: skip
        shared, frames, kept = self.shared, hidden_states.shape[2], {}
        shared.width = hidden_states.shape[4] // self.patch
        shared.now = _Pass("driver", frames, kept)
        self.plain(motion, torch.zeros_like(timestep), encoder_hidden_states, **more)
        shared.now = _Pass("result", frames, kept)
        made = self.plain(hidden_states, timestep, encoder_hidden_states, **more)
        shared.now = None  # it holds what the backward pass will let go
        return made


def show_driver_apart(model: torch.nn.Module, context: MotionContext) -> None:
    """Let a WanTransformer3DModel take `motion` (B, channels, t, h', w') too, the driver's latents with mask and themselves beside.

    They are shown at timestep 0, without the text.
    """
    shared = _Shared(context)
    for number, block in enumerate(model.blocks):
        block.attn1.set_processor(_SelfAttention(shared, number))
        block.attn2.set_processor(_TextAttention(shared))
    model.rope = _Places(model.rope, shared)
    model.forward = _TwoPasses(model, shared)

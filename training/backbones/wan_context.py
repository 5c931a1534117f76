"""Cached motion contexts in training: in every block of diffusers' Wan network the driver's tokens attend to each other, then the
result's to themselves and to the driver's keys and values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.transformers import transformer_wan
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor

from dreamactor_core.motion_context import MotionContext, attend_with_motion, token_places

_THETA = 10_000.0
Keys = tuple[torch.Tensor, torch.Tensor]


@dataclass
class _Driver:
    """How a block sees the driver's tokens: their rotary positions, cosine and sine (1, M, 1, d). Keys and values are left here."""

    places: Keys
    kept: list[Keys] = field(default_factory=list)


@dataclass
class _Result:
    """How a block sees the result's tokens: their rotary positions, and the driver's keys and values."""

    places: Keys
    motion: Keys
    frames: int
    near: int | None


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Tokens on axis 1, heads on axis 2."""
    return transformer_wan.dispatch_attention_fn(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False)


def _turned(x: torch.Tensor, places: Keys) -> torch.Tensor:
    """Rotary positions on (B, S, heads, d): pairs of neighbouring channels are turned."""
    cosine, sine = (place[..., ::2] for place in places)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cosine - b * sine, a * sine + b * cosine], -1).flatten(-2).type_as(x)


class _SelfAttention:
    """diffusers hands what a block was given as rotary positions on to here."""

    def __call__(
        self, attn: WanAttention, hidden_states: torch.Tensor, _text: None = None, _mask: None = None,
        rotary_emb: _Driver | _Result | None = None,
    ) -> torch.Tensor:  # fmt: skip
        heads = attn.heads, -1
        q = _turned(attn.norm_q(attn.to_q(hidden_states)).unflatten(2, heads), rotary_emb.places)
        k = _turned(attn.norm_k(attn.to_k(hidden_states)).unflatten(2, heads), rotary_emb.places)
        v = attn.to_v(hidden_states).unflatten(2, heads)
        if isinstance(rotary_emb, _Driver):
            rotary_emb.kept.append((k, v))
            out = _attend(q, k, v)
        else:
            out = attend_with_motion(_attend, q, k, v, rotary_emb.motion, rotary_emb.frames, rotary_emb.near)
        return attn.to_out[1](attn.to_out[0](out.flatten(2, 3).type_as(q)))


class _TextAttention(WanAttnProcessor):
    """The driver's tokens are given no text, and attend to nothing."""

    def __call__(
        self, attn: WanAttention, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None, *rest: Any
    ) -> torch.Tensor:
        if encoder_hidden_states is None:
            return attn.to_out[1](attn.to_out[0](torch.zeros_like(hidden_states)))
        return super().__call__(attn, hidden_states, encoder_hidden_states, *rest)


class _Block:
    """In the place of a block's `forward`: both videos in one call, as sharding and checkpointing need it."""

    def __init__(self, block: torch.nn.Module, context: MotionContext) -> None:
        self.plain, self.near = block.forward, context.near

    def __call__(
        self, result: torch.Tensor, driver: torch.Tensor, text: torch.Tensor, times: Keys, places: tuple[Keys, Keys], frames: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        own = _Driver(places[1])
        driver = self.plain(driver, None, times[1], own)
        return self.plain(result, text, times[0], _Result(places[0], own.kept[0], frames, self.near)), driver


class _Network:
    """In the place of a network's `forward`, which it repeats with two videos."""

    def __init__(self, model: torch.nn.Module, context: MotionContext) -> None:
        self.model, self.context = model, context

    def _driver_places(self, driver: torch.Tensor, width: int) -> Keys:
        """Rotary positions of (B, C, t, h', w'), beside a result of so many tokens' width."""
        rope = self.model.rope
        _, high, wide = rope.patch_size
        top, left, step = token_places(self.context, width)
        t, h, w = driver.shape[2], driver.shape[3] // high, driver.shape[4] // wide
        count = lambda n: torch.arange(n, device=driver.device, dtype=torch.float64)  # noqa: E731
        grid = torch.meshgrid(count(t), count(h) * step + top, count(w) * step + left, indexing="ij")
        angles = []
        for along, dim in zip(grid, (rope.t_dim, rope.h_dim, rope.w_dim), strict=True):
            slow = _THETA ** -(torch.arange(0, dim, 2, device=driver.device, dtype=torch.float64) / dim)
            angles.append(along.flatten()[:, None] * slow)
        turned = torch.cat(angles, 1).repeat_interleave(2, 1)[None, :, None]
        return turned.cos().float(), turned.sin().float()

    def __call__(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_image: torch.Tensor | None = None,
        *,
        motion: torch.Tensor,
        return_dict: bool = False,
    ) -> tuple[torch.Tensor]:
        model = self.model
        size = [n // p for n, p in zip(hidden_states.shape[2:], model.config.patch_size, strict=True)]
        places = model.rope(hidden_states), self._driver_places(motion, size[2])
        result, driver = (model.patch_embedding(x).flatten(2).transpose(1, 2).contiguous() for x in (hidden_states, motion))
        time, changes, text, picture = model.condition_embedder(timestep, encoder_hidden_states, encoder_hidden_states_image)
        still = model.condition_embedder(torch.zeros_like(timestep), encoder_hidden_states, None)[1]
        times = changes.unflatten(1, (6, -1)), still.unflatten(1, (6, -1))
        if picture is not None:
            text = torch.cat([picture, text], 1)
        for block in model.blocks:
            if torch.is_grad_enabled() and model.gradient_checkpointing:
                result, driver = model._gradient_checkpointing_func(block, result, driver, text, times, places, size[0])
            else:
                result, driver = block(result, driver, text, times, places, size[0])
        shift, scale = (model.scale_shift_table + time.unsqueeze(1)).chunk(2, 1)
        out = model.proj_out((model.norm_out(result.float()) * (1 + scale) + shift).type_as(result))
        out = out.unflatten(1, size).unflatten(-1, (*model.config.patch_size, -1))  # B t h w, each token's p q r, C
        out = out.permute(0, 7, 1, 4, 2, 5, 3, 6)
        return (out.flatten(6, 7).flatten(4, 5).flatten(2, 3),)


def show_driver_apart(model: torch.nn.Module, context: MotionContext) -> None:
    """Let a WanTransformer3DModel take `motion` (B, channels, t, h', w') too, the driver's latents with mask and themselves beside.

    They are shown at timestep 0, without the text.
    """
    for block in model.blocks:
        block.attn1.set_processor(_SelfAttention())
        block.attn2.set_processor(_TextAttention())
        block.forward = _Block(block, context)
    model.forward = _Network(model, context)

"""Cached motion contexts in the host: the driver's tokens go through the network once, and what samples sees their keys and values.

Everything is hung on the transformer's documented hooks, in a wrapper around its forward pass: blocks are replaced by themselves
with another attention function. So samplers, LoRAs, guidance, batches and context windows work as with any model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP

from ..dreamactor_core.motion_context import MotionContext, attend_with_motion, token_places
from .motion_keys import Kept, MotionKeys

_KEY = "dreamactor_m2_motion"
MOTION, KEYS = "dreamactor_m2_motion", "dreamactor_m2_keys"
"""Among a conditioning's `model_conds`: the driver's latents as the network takes them, and where its keys are kept."""
_MASK = 4  # channels of the mask between noise and latents

Attention = Callable[..., torch.Tensor]
Options = dict[str, Any]


def motion_values(motion: torch.Tensor, kept: Kept) -> dict[str, Any]:
    """What a conditioning must hold for `see_driver_apart`. motion: (1, C, t, h', w')."""
    conds = {MOTION: comfy.conds.CONDRegular(motion), KEYS: comfy.conds.CONDConstant(kept.keys)}
    return {"model_conds": conds, "additional_models": [kept.patcher]}


def see_driver_apart(model: Any, context: MotionContext) -> None:
    """Patch a Wan MODEL whose LoRA was trained with that cached motion context."""
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, _KEY, _name_weights)
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, _KEY, _Context(context))


def refuse_driver_apart(model: Any) -> None:
    """Patch a MODEL whose LoRA knows no cached motion context: it would take no notice of the driver, and say nothing."""
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, _KEY, _refuse)


def _refuse(forward: Callable[..., torch.Tensor], *given: Any, **more: Any) -> torch.Tensor:
    if MOTION in more:
        raise ValueError(
            "this conditioning was made for a LoRA with a cached motion context, and the model's LoRA has motion context joint; "
            "give the sampler the model that In-Context Conditioning was given"
        )
    return forward(*given, **more)


def _name_weights(apply: Any, x: torch.Tensor, t: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
    """Around the host's call of the network: tell the inner wrapper which weights are patched in, other LoRAs included."""
    options = rest[3] if len(rest) > 3 else more["transformer_options"]
    base = apply.class_obj
    options[_KEY] = (base.current_patcher.patches_uuid, id(base))
    return apply(x, t, *rest, **more)


@dataclass
class _Window:
    """Keys of a part of a clip, for the host's context windows."""

    motion: torch.Tensor
    keys: MotionKeys


class _Context:
    """The wrapper around the forward pass of a network."""

    def __init__(self, context: MotionContext) -> None:
        self.context = context
        self._windows: OrderedDict[int, _Window] = OrderedDict()
        self._count = 0

    def __call__(
        self,
        forward: Any,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        clip_fea: torch.Tensor | None = None,
        time_dim_concat: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **more: Any,
    ) -> torch.Tensor:
        motion, kept = more.pop(MOTION, None), more.pop(KEYS, None)
        options = transformer_options or {}
        if motion is None:
            raise ValueError(
                f"the model's LoRA has motion context {self.context.name}, and this conditioning was made for another one; give In-"
                f"Context Conditioning the model that the sampler is given"
            )
        network = forward.class_obj
        keys = self._keys(network, motion[:1], kept, options)
        made_by = (options.get(_KEY), options.get("rope_options"), x.dtype)
        if keys.made_by != made_by:
            self._fill(forward, keys, x, motion[:1], context[:1], None if clip_fea is None else clip_fea[:1], options)
            keys.made_by = made_by
        frames = x.shape[2] // network.patch_size[0]

        def beside(block: int) -> _Beside:
            return _Beside(keys.get(block, x.device, x.dtype), frames, self.context.near)

        seeing = _with_attention(options, len(network.blocks), beside)
        try:
            return forward(x, timestep, context, clip_fea, time_dim_concat, seeing, **more)
        finally:
            keys.done()

    def _keys(self, network: Any, motion: torch.Tensor, kept: MotionKeys, options: Options) -> MotionKeys:
        """Those of the clip, or of the part of it that a context window shows: these are in RAM, half of it at most."""
        tokens = motion.shape[2] * motion.shape[3] * motion.shape[4] // (network.patch_size[1] * network.patch_size[2])
        slot = kept.slots[0].k
        if tokens == slot.shape[1]:
            return kept
        for number, window in self._windows.items():
            if window.motion.shape == motion.shape and torch.equal(window.motion, motion):
                self._windows.move_to_end(number)
                return window.keys
        keys = MotionKeys(len(network.blocks), tokens, network.dim, slot.dtype)
        room = comfy.model_management.get_free_memory(torch.device("cpu")) / 2
        while self._windows and keys.nbytes * (len(self._windows) + 1) > room:
            self._windows.popitem(last=False)
        self._count += 1
        self._windows[self._count] = _Window(motion.clone(), keys)
        return keys

    def _fill(
        self,
        forward: Any,
        keys: MotionKeys,
        x: torch.Tensor,
        motion: torch.Tensor,
        text: torch.Tensor,
        clip_fea: torch.Tensor | None,
        options: Options,
    ) -> None:
        """The driver's pass: clean, at timestep 0, beside the result, with nothing to attend to but itself."""
        network = forward.class_obj
        top, left, step = token_places(self.context, x.shape[-1] // network.patch_size[2])
        user = options.get("rope_options") or {}
        places = {"scale_t": user.get("scale_t", 1.0), "shift_t": user.get("shift_t", 0.0)}
        for axis, first in (("y", top), ("x", left)):
            scale, shift = user.get(f"scale_{axis}", 1.0), user.get(f"shift_{axis}", 0.0)
            places |= {f"scale_{axis}": scale * step, f"shift_{axis}": shift + scale * first}
        # none of what others have hung on the network: they know nothing of this pass
        plain = {"rope_options": places, "wrappers": {}, "patches": {}, "patches_replace": {}}
        if "optimized_attention_override" in options:
            plain["optimized_attention_override"] = options["optimized_attention_override"]
        seeing = _with_attention(plain, len(network.blocks), lambda block: _Keeper(keys, block))
        shown = torch.cat([motion, torch.ones_like(motion[:, :_MASK]), motion], 1).to(x)
        keys.made_by = None  # if this is cancelled, what is there is of no use
        # beside the wrappers, which expect one call a step
        forward.original(shown, torch.zeros_like(x[:1, 0, 0, 0, 0]), text, clip_fea, None, seeing)


class _Beside:
    """Attention of one block: its first call is the self-attention, which sees the driver's keys too."""

    def __init__(self, motion: tuple[torch.Tensor, torch.Tensor], frames: int, near: int | None) -> None:
        self.motion, self.frames, self.near, self.first = motion, frames, near, True

    def __call__(self, attend: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if not self.first:
            return attend(q, k, v)
        self.first = False
        return attend_with_motion(attend, q, k, v, self.motion, self.frames, self.near)


class _Keeper:
    """Attention of one block in the driver's pass: keeps keys and values; the text's finds nothing to attend to."""

    def __init__(self, keys: MotionKeys, block: int) -> None:
        self.keys, self.block, self.first = keys, block, True

    def __call__(self, attend: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if not self.first:
            return torch.zeros_like(q)
        self.first = False
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.keys.put(self.block, k, v)
        return attend(q, k, v)


def _with_attention(options: Options, blocks: int, make: Callable[[int], Callable[..., torch.Tensor]]) -> Options:
    """Options in which every block is replaced by itself (or by what replaces it already) with the attention that `make` gives."""
    replaced = {kind: dict(found) for kind, found in options.get("patches_replace", {}).items()}
    others = replaced.setdefault("dit", {})
    for block in range(blocks):
        others["double_block", block] = _Replaced(others.get(("double_block", block)), block, make)
    return options | {"patches_replace": replaced}


@dataclass(frozen=True)
class _Replaced:
    """A replacement of a block, over another one."""

    other: Callable[..., dict[str, torch.Tensor]] | None
    block: int
    make: Callable[[int], Callable[..., torch.Tensor]]

    def __call__(self, args: Options, extra: dict[str, Any]) -> dict[str, torch.Tensor]:
        options, chosen = args["transformer_options"], self.make(self.block)
        before = options.get("optimized_attention_override")

        def override(attention: Attention, *given: Any, **more: Any) -> torch.Tensor:
            qkv, rest = given[:3], given[3:]

            def attend(*qkv: torch.Tensor) -> torch.Tensor:
                return attention(*qkv, *rest, **more) if before is None else before(attention, *qkv, *rest, **more)

            return chosen(attend, *qkv)

        given = args | {"transformer_options": options | {"optimized_attention_override": override}}
        return extra["original_block"](given) if self.other is None else self.other(given, extra)

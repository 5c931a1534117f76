"""Cached motion contexts in the host: the driver's tokens go through the network once, and what samples sees their keys and values.

Everything is hung on the transformer's documented hooks, in a wrapper around its forward pass: blocks are replaced by themselves
with another attention function. So samplers, LoRAs, guidance, batches and context windows work as with any model.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP

from ..dreamactor_core.motion_context import MotionContext, attend_with_motion, token_places
from . import unseen
from .motion_keys import Kept, MotionKeys

_KEY = "dreamactor_m2_motion"
KEPT = "dreamactor_m2_driver"
"""Among a conditioning's `model_conds`: the driver, a Kept."""
_MASK = 4  # channels of the mask between noise and latents

Attention = Callable[..., torch.Tensor]
Options = dict[str, Any]


def motion_values(kept: Kept) -> dict[str, Any]:
    """What a conditioning must hold for `see_driver_apart`."""
    values: dict[str, Any] = {"model_conds": unseen.constants(**{KEPT: kept, unseen.KEY: unseen.CACHED})}
    return values | ({} if kept.patcher is None else {"additional_models": [kept.patcher]})


def see_driver_apart(model: Any, context: MotionContext) -> None:
    """Patch a Wan MODEL whose LoRA was trained with that cached motion context."""
    wrappers = {
        WrappersMP.PREPARE_SAMPLING: _count_driver,
        WrappersMP.APPLY_MODEL: _name_weights,
        WrappersMP.DIFFUSION_MODEL: _Context(context),
    }
    for kind, wrapper in wrappers.items():
        model.add_wrapper_with_key(kind, _KEY, wrapper)


def _count_driver(prepare: Any, model: Any, noise_shape: Any, conds: dict[str, Any], *rest: Any, **more: Any) -> Any:
    """Around the host's estimate of a step's memory, which knows of the result's tokens alone.

    A token of the driver counts as much as one of the result. It takes a little less: its keys and values, once more as copies
    beside the result's, and those of the next block, which are on their way.
    """
    kept = [cond["model_conds"][KEPT].cond for group in conds.values() for cond in group if KEPT in cond.get("model_conds", {})]
    if kept:
        *size, width = noise_shape
        height, wide = kept[0].motion.shape[3:]
        noise_shape = [*size, width + height * wide / size[-1]]
    return prepare(model, noise_shape, conds, *rest, **more)


def _name_weights(apply: Any, x: torch.Tensor, t: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
    """Around the host's call of the network: tell the inner wrapper which weights are at work, other LoRAs and hooks included."""
    options = rest[3] if len(rest) > 3 else more["transformer_options"]
    base = apply.class_obj
    patcher = base.current_patcher
    hooks = patcher.current_hooks.hooks if patcher.current_hooks else ()
    injected = [one for group in patcher.injections.values() for one in group]
    changed = [one for name, one in patcher.object_patches.items() if name.startswith("diffusion_model.")]
    others = tuple(_Same(one) for one in (*injected, *changed))
    options[_KEY] = (patcher.patches_uuid, id(base), tuple((weakref.ref(hook), hook.strength) for hook in hooks), others)
    return apply(x, t, *rest, **more)


class _Same:
    """Equal for the same object alone. It is not kept alive: what others hang on a network may hold the network itself."""

    def __init__(self, one: Any) -> None:
        try:
            self.get = weakref.ref(one)
        except TypeError:  # numbers and strings, which hold nothing
            self.get = lambda: one

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.get() is not None and self.get() is other.get()


class _Context:
    """The wrapper around the forward pass of a network."""

    def __init__(self, context: MotionContext) -> None:
        self.context = context

    # the host's compiled networks do not look whether options have changed
    @torch.compiler.disable(recursive=False)
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
        kept = more.pop(KEPT, None)
        options, network = transformer_options or {}, forward.class_obj
        if kept is None or kept.context != self.context.name:
            made_for = "joint, or is not from In-Context Conditioning" if kept is None else kept.context
            raise ValueError(
                f"the model's LoRA has motion context {self.context.name}, and this conditioning was made for {made_for}; give "
                f"In-Context Conditioning the model that the sampler is given, and the sampler both of its conditionings"
            )
        if "multigpu_thread_device" in options:
            raise ValueError("a cached motion context works on one GPU, got a model that is split over several; take that node out")
        more.pop(unseen.KEY)
        motion, keys = self._part(network, kept, options)
        self._check(x, motion)
        made_by = (options.get(_KEY), options.get("rope_options"), x.dtype, tuple(x.shape[2:]))
        if keys.made_by != made_by:
            kept.count_fill(keys, id(network))
            self._fill(forward, keys, x, motion.to(x), context[:1], None if clip_fea is None else clip_fea[:1], options)
            keys.made_by = made_by
        keys.uses += 1
        frames = x.shape[2] // network.patch_size[0]

        def beside(block: int) -> _Beside:
            return _Beside(keys.get(block, x.device, x.dtype), frames, self.context.near)

        seeing = _with_attention(options, len(network.blocks), beside)
        try:
            return forward(x, timestep, context, clip_fea, time_dim_concat, seeing, **more)
        finally:
            keys.done()

    def _part(self, network: Any, kept: Kept, options: Options) -> tuple[torch.Tensor, MotionKeys]:
        """The driver as far as one of the host's context windows shows it, or all of it."""
        motion, window = kept.motion, options.get("context_window")
        if window is None and kept.keys is not None:
            return motion, kept.keys
        frames = tuple(range(motion.shape[2]))
        if window is not None:
            anchor = getattr(window, "causal_anchor_index", None)  # a frame in front that is not kept
            frames = (*([anchor] if anchor is not None and anchor >= 0 else []), *window.index_list)
        shown = motion[:, :, list(frames)]
        tokens = shown.shape[2] * shown.shape[3] * shown.shape[4] // (network.patch_size[1] * network.patch_size[2])
        return shown, kept.window(frames, len(network.blocks), tokens, network.dim)

    def _check(self, x: torch.Tensor, motion: torch.Tensor) -> None:
        """Raises ValueError when the driver is not of the size and length of what is sampled."""
        expected = (x.shape[2], x.shape[3] // self.context.scale, x.shape[4] // self.context.scale)
        if tuple(motion.shape[2:]) != expected:
            raise ValueError(
                f"the driver's latents are {tuple(motion.shape[2:])} frames, height, width, expected {expected} for a latent of "
                f"{tuple(x.shape[2:])}: the latent was cut, lengthened or resized after In-Context Conditioning; make both anew"
            )

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
        plain = options | {"rope_options": places, "wrappers": {}, "patches": {}, "patches_replace": {}}
        plain |= {name: options[name][:1] for name in ("cond_or_uncond", "uuids") if name in options}  # one sample
        seeing = _with_attention(plain, len(network.blocks), lambda block: _Keeper(keys, block))
        shown = torch.cat([motion, torch.ones_like(motion[:, :_MASK]), motion], 1)
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
        _check_own(q, k)
        return attend_with_motion(attend, q, k, v, self.motion, self.frames, self.near)


class _Keeper:
    """Attention of one block in the driver's pass: keeps keys and values; the text's finds nothing to attend to."""

    def __init__(self, keys: MotionKeys, block: int) -> None:
        self.keys, self.block, self.first = keys, block, True

    def __call__(self, attend: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if not self.first:
            return torch.zeros_like(q)
        self.first = False
        _check_own(q, k)
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.keys.put(self.block, k, v)
        return attend(q, k, v)


def _check_own(q: torch.Tensor, k: torch.Tensor) -> None:
    """Raises RuntimeError when a block's first attention is not that of its tokens to each other."""
    if q.shape[1] != k.shape[1]:
        raise RuntimeError(
            f"a block's first attention has {q.shape[1]} queries and {k.shape[1]} keys, expected as many: something has replaced "
            f"the network's self-attention, by which a cached motion context shows the driver; leave that node out"
        )


def _with_attention(options: Options, blocks: int, make: Callable[[int], Callable[..., torch.Tensor]]) -> Options:
    """Options in which every block is replaced by itself (or by what replaces it already) with the attention that `make` gives."""
    replaced = {kind: dict(found) for kind, found in options.get("patches_replace", {}).items()}
    others = replaced.setdefault("dit", {})
    for block in range(blocks):
        others["double_block", block] = _Replaced(others.get(("double_block", block)), block, make)
    return options | {"patches_replace": replaced}


@dataclass(eq=False)  # torch.compile asks for its hash while it is made
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

        def block(given: Options) -> dict[str, torch.Tensor]:
            chosen.first = True
            made = extra["original_block"](given)
            if chosen.first:
                raise RuntimeError(
                    "a block's attention did not go through the host's attention function, by which a cached motion context shows "
                    "the driver: something has replaced it; leave that node out"
                )
            return made

        given = args | {"transformer_options": options | {"optimized_attention_override": override}}
        # another replacement may skip the block, or have it called more than once
        return block(given) if self.other is None else self.other(given, extra | {"original_block": block})

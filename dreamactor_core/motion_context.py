"""How the driver's tokens take part in the network: the paper's way, and ways that cost less at every step.

Shapes: B batch, S tokens of the generated video, M tokens of the driver, t latent frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.checkpoint import checkpoint

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Attention of queries (B, S, ...) to keys and values (B, N, ...), tokens on axis 1; as long as the queries."""


@dataclass(frozen=True)
class MotionContext:
    """One way. Data only: what it says is done by `attend_with_motion`, `build_condition` and `token_places`.

    Attributes:
        cached: The driver's tokens are clean, at timestep 0, see neither text nor the result, and attend only to each other. So
            their keys and values are the same at every step and in both halves of classifier-free guidance: they are computed once
            a clip. Otherwise driver and result are one video, noise and all (Eq. 2).
        near: Latent frames before and after its own of which a generated frame sees the driver; None: all.
        scale: The driver is shown at this part of the size: 2 is half of width and height, and a quarter of the tokens.
    """

    name: str
    cached: bool = False
    near: int | None = None
    scale: int = 1


JOINT = MotionContext("joint")
CONTEXTS: dict[str, MotionContext] = {
    context.name: context
    for context in (
        JOINT,
        MotionContext("cached", cached=True),
        MotionContext("cached_near", cached=True, near=1),
        MotionContext("cached_half", cached=True, scale=2),
        MotionContext("cached_near_half", cached=True, near=1, scale=2),
    )
}


def get_context(name: str) -> MotionContext:
    """Context by name. Raises ValueError naming the known ones."""
    if name not in CONTEXTS:
        raise ValueError(f"unknown motion context {name!r}; known: {', '.join(CONTEXTS)}")
    return CONTEXTS[name]


def token_places(context: MotionContext, width: int) -> tuple[float, float, float]:
    """Where the driver's tokens lie among the result's, for the rotary positions of both.

    Args:
        width: Tokens of a row of the result. The driver stands to the right of it, as in the paper's composite.

    Returns:
        The first token's place along height and along width, and the way from one to the next along both, in tokens of the
        result: a token of a smaller driver lies where the first of those lies that it covers. Whole numbers, as half precision,
        in which the host computes positions, has no halves beyond 128. Time is the result's.
    """
    return 0.0, float(width), float(context.scale)


def window(frame: int, frames: int, near: int) -> tuple[int, int]:
    """First of the driver's latent frames that a generated one sees, and how many it sees: as many at the ends as elsewhere."""
    count = min(2 * near + 1, frames)
    return min(max(frame - near, 0), frames - count), count


def _attend_to_both(attend: Attend, q: torch.Tensor, *keys_and_values: torch.Tensor) -> torch.Tensor:
    k, v, motion_k, motion_v = keys_and_values
    return attend(q, torch.cat([k, motion_k], 1), torch.cat([v, motion_v], 1))


def attend_with_motion(
    attend: Attend,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    motion: tuple[torch.Tensor, torch.Tensor],
    frames: int,
    near: int | None,
) -> torch.Tensor:
    """Attention of the result's tokens (B, S, ...) to themselves and to the driver's.

    Args:
        motion: The driver's keys and values, (B, M, ...), or (1, M, ...) for all of the batch.
        frames: t, which both have. near: As in MotionContext.
    """
    motion_k, motion_v = (x.expand(len(q), *x.shape[1:]) for x in motion)
    if near is None or 2 * near + 1 >= frames:
        return _attend_to_both(attend, q, k, v, motion_k, motion_v)
    each = motion_k.shape[1] // frames
    parts = [slice(first * each, (first + count) * each) for first, count in (window(f, frames, near) for f in range(frames))]
    queries = q.chunk(frames, 1)
    if torch.is_grad_enabled():  # made again for the backward pass: all keys once for each frame are more than a block may keep
        return torch.cat([
            checkpoint(_attend_to_both, attend, own, k, v, motion_k[:, part], motion_v[:, part], use_reentrant=False)
            for own, part in zip(queries, parts, strict=True)
        ], 1)  # fmt: skip
    # one buffer, of which a frame's turn changes the end only: copying all keys for each frame would cost as much as attending
    seen = (2 * near + 1) * each
    keys, values = (torch.cat([x, x.new_empty(len(q), seen, *x.shape[2:])], 1) for x in (k, v))
    made = []
    for own, part in zip(queries, parts, strict=True):
        keys[:, k.shape[1] :], values[:, k.shape[1] :] = motion_k[:, part], motion_v[:, part]
        made.append(attend(own, keys, values))
    return torch.cat(made, 1)

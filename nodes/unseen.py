"""What stops a network that would take no notice of a conditioning's driver, and say nothing: one without the LoRA.

It lies in the conditioning where every Wan network of the host looks; those that our loader patched take it out before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.conds
import torch

KEY = "context_latents"
"""Something that every Wan network of the host looks into when it is there."""


@dataclass(frozen=True)
class Unseen:
    """Stops what looks into it."""

    reason: str

    def __iter__(self) -> Any:
        raise ValueError(f"{self.reason}; give the sampler the model that In-Context Conditioning was given")


JOINT = Unseen(
    "this conditioning was made for a model with a DreamActor LoRA, and the sampler's model has none by 'DreamActor LoRA Loader'; "
    "of a network in two halves, as Wan2.2's, each sampler needs its own from there"
)
CACHED = Unseen(
    "this conditioning was made for a LoRA with a cached motion context, and the sampler's model has none: without a LoRA, or with "
    "one of motion context joint"
)


def constants(**values: Any) -> dict[str, Any]:
    """Values of a conditioning as the network gets them. What the host knows nothing of it must not cut, move or repeat."""
    return {name: comfy.conds.CONDConstant(value) for name, value in values.items()}


# the host's compiled networks do not look whether options have changed
@torch.compiler.disable(recursive=False)
def see_joint(forward: Any, *given: Any, **more: Any) -> torch.Tensor:
    """Wrapper around the forward pass of a Wan network whose LoRA sees the driver among the tokens that it is given."""
    if more.get(KEY) == JOINT:
        del more[KEY]
    return forward(*given, **more)

"""A node for the host: each step of a sampler is done when it is told of. Without it a GPU is only told of all steps before it has
done one, and the host's messages say when that was."""

from __future__ import annotations

from typing import Any

import torch


def _waited(arguments: dict[str, Any]) -> torch.Tensor:
    if arguments["denoised"].device.type != "cpu":
        torch.accelerator.synchronize()
    return arguments["denoised"]


class WaitForSteps:
    """MODEL to MODEL, as the host's own interface of nodes has it."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "benchmarks"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",)}}

    def patch(self, model: Any) -> tuple[Any]:
        waiting = model.clone()
        waiting.set_model_sampler_post_cfg_function(_waited)
        return (waiting,)


NODE_CLASS_MAPPINGS = {"WaitForSteps": WaitForSteps}

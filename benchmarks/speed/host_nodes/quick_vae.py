"""A node for the host: the small backbone's VAE for a large network. What is encoded is of no matter there, and a video of that
size takes the real one minutes on a CPU."""

from __future__ import annotations

from typing import Any

import comfy.sd
import comfy.utils
import folder_paths

_WIDTH = 96
"""Of Wan 2.1's own VAE, by which the pack tells the two apart."""


class QuickVAE:
    """To VAE, as the host's own interface of nodes has it."""

    RETURN_TYPES = ("VAE",)
    FUNCTION = "load"
    CATEGORY = "benchmarks"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def load(self) -> tuple[Any]:
        path = folder_paths.get_full_path_or_raise("vae", "marionette_vae.safetensors")
        state, metadata = comfy.utils.load_torch_file(path, return_metadata=True)
        vae = comfy.sd.VAE(sd=state, metadata=metadata)
        vae.first_stage_model.dim = _WIDTH
        return (vae,)


NODE_CLASS_MAPPINGS = {"QuickVAE": QuickVAE}

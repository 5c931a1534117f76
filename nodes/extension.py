"""What ComfyUI asks the pack for at start-up."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, io


class DreamActorExtension(ComfyExtension):
    """The pack: its nodes, and its model folders in the host's lists."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def on_load(self) -> None:
        for kind in ("diffusion_models", "vae", "loras", "text_encoders"):
            folder_paths.add_model_folder_path(kind, str(self.root / "models" / kind))

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        from . import conditioning, decode, loaders, pose, pose_edit, pose_extract, text

        return [
            loaders.SmallBackboneLoader,
            loaders.LoraLoader,
            pose.LoadPoses,
            pose_extract.PoseExtract,
            pose_edit.PoseAugment,
            pose_edit.PoseRetarget,
            pose_edit.PoseSmooth,
            pose.PoseDraw,
            conditioning.InContextConditioning,
            decode.Decode,
            text.TextFusion,
            text.TextPrompt,
        ]

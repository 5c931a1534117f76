"""DreamActor-M2 for ComfyUI: animate a reference character with the motion of a driving video."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

# pytest imports this file as a plain module when it collects from the root; ComfyUI imports it as a package
if __package__:
    WEB_DIRECTORY = "./web"  # holds the nodes' help pages

    async def comfy_entrypoint() -> ComfyExtension:
        """Called by ComfyUI: registers the shipped models and returns the nodes."""
        try:
            from .nodes.extension import DreamActorExtension
        except Exception:
            # the host reports this as one line without a traceback
            logging.exception("DreamActor-M2 could not be loaded")
            raise
        return DreamActorExtension(Path(__file__).parent)

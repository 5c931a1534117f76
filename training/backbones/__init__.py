"""The networks that a LoRA can be trained on: one file each."""

from __future__ import annotations

from training.backbones.base import VideoBackbone
from training.config import Backbone as Settings


def get(settings: Settings) -> VideoBackbone:
    """The backbone of a run. Nothing is loaded yet."""
    if settings.name == "marionette":
        from training.backbones.marionette import MarionetteBackbone as Made
    elif settings.name == "hunyuanvideo-1.5-i2v":
        from training.backbones.hunyuan import HunyuanBackbone as Made
    else:
        from training.backbones.wan import WanBackbone as Made
    return Made(settings)

"""The small backbone: Wan's architecture, from the files that ship."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import ModelMixin

from dreamactor_core.words import encode_text
from training.backbones.base import Context, Encoders, quantized, stacked
from training.backbones.wan import WanBackbone, WanEncoders
from training.marionette import backbone as files
from training.marionette.attention import use_plain_attention


class MarionetteEncoders(WanEncoders):
    """Its VAE, and words that are not trained."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(files.load_vae().to(device), None, device)
        self._words = files.load_words()

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        # half the time on the CPU, and less error than the half precision that caches keep
        with torch.autocast(self.device.type, torch.bfloat16):
            return super().encode(pixels)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        # an eighth of the time on the CPU, and a quarter of a level of 256 away
        with torch.autocast(self.device.type, torch.bfloat16):
            return super().decode(latents)

    def text(self, prompts: Sequence[str]) -> list[Context]:
        return [{"text": row} for row in encode_text(self._words, list(prompts))]

    def image(self, reference: torch.Tensor) -> Context:
        return Encoders.image(self, reference)


class MarionetteBackbone(WanBackbone):
    """Files of its own, everything else as Wan."""

    def load_transformer(self) -> ModelMixin:
        if not torch.cuda.is_available():
            use_plain_attention()
        model = files.load_model()
        model.requires_grad_(False)
        quantized(model.blocks, self.settings.base)
        return model

    def load_encoders(self, device: torch.device, only_vae: bool = False) -> MarionetteEncoders:
        return MarionetteEncoders(device)

    def weights(self) -> dict[str, list[Path]]:
        return {"transformer": [files.MODEL_FILE], "vae": [files.VAE_FILE], "text": [files.WORDS_FILE]}

    def collate(self, contexts: Sequence[Context]) -> Context:
        return stacked(contexts, "text", "motion")

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

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(files.load_vae().to(device), None, device)
        self._words = files.load_words()
        self.precision, self._half = dtype, dtype == torch.bfloat16
        # torch has float32 convolutions of a small single video done by a kernel that takes ten times as long
        self._slow_alone = device.type == "cpu" and not self._half
        self.at_once = 4 if self._slow_alone else 1

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        # what half precision costs is 0.05 at most here, of values up to 10
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            return super().encode(self._several(pixels))[: len(pixels)]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        # in half precision a quarter of a level of 256 away
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            return super().decode(self._several(latents))[: len(latents)]

    def _several(self, videos: torch.Tensor) -> torch.Tensor:
        """A single video twice, where that is quicker."""
        return videos.expand(2, *videos.shape[1:]) if self._slow_alone and len(videos) == 1 else videos

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
        return MarionetteEncoders(device, self.dtype)

    def weights(self) -> dict[str, list[Path]]:
        return {"transformer": [files.MODEL_FILE], "vae": [files.VAE_FILE], "text": [files.WORDS_FILE]}

    def collate(self, contexts: Sequence[Context]) -> Context:
        return stacked(contexts, "text", "motion")

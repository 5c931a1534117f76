"""Wan2.1-I2V-14B and each expert of Wan2.2-I2V-A14B, from a folder in diffusers' layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, ModelMixin, WanImageToVideoPipeline, WanTransformer3DModel

from training.backbones.base import Context, Encoders, VideoBackbone, pad_tokens, quantized
from training.errors import UserError
from training.native import wan_transformer_key

_TOKENS = 512
_MASK_CHANNELS = 4


class WanEncoders(Encoders):
    """The pipeline's own encoders."""

    def __init__(self, vae: AutoencoderKLWan, pipeline: WanImageToVideoPipeline, device: torch.device) -> None:
        self.vae, self.pipeline, self.device = vae.eval().requires_grad_(False), pipeline, device
        shape = (1, -1, 1, 1, 1)
        self._mean, self._std = (torch.tensor(value).view(shape) for value in (vae.config.latents_mean, vae.config.latents_std))

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        latents = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist.mode().float()
        return (latents - self._mean.to(latents)) / self._std.to(latents)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        raw = latents * self._std.to(latents) + self._mean.to(latents)
        return self.vae.decode(raw.to(self.vae.device, self.vae.dtype)).sample.float().clamp(-1, 1)

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> list[Context]:
        pipe = self.pipeline
        options = {"do_classifier_free_guidance": False, "max_sequence_length": _TOKENS, "device": self.device}
        found, _ = pipe.encode_prompt(list(prompts), **options)
        # the pipeline zeroes what is behind the last token
        lengths = [max(1, int(row.abs().sum(-1).gt(0).sum())) for row in found]
        return [{"text": row[:length].cpu()} for row, length in zip(found, lengths, strict=True)]

    @torch.no_grad()
    def image(self, reference: torch.Tensor) -> Context:
        if self.pipeline.image_encoder is None:
            return {}
        from torchvision.transforms.functional import to_pil_image

        return {"image": self.pipeline.encode_image(to_pil_image((reference + 1) / 2), self.device)[0].cpu()}


class WanBackbone(VideoBackbone):
    """The networks that take mask and latents beside the noise."""

    family, channels, stride, patch = "wan", 16, 8, 2
    rename = staticmethod(wan_transformer_key)

    @property
    def _transformer(self) -> str:
        # the second network of diffusers' layout is the one for low noise
        return "transformer_2" if self.settings.expert == "low_noise" else "transformer"

    def load_transformer(self) -> ModelMixin:
        model = WanTransformer3DModel.from_pretrained(self.part(self._transformer), torch_dtype=self.dtype, local_files_only=True)
        expected = 2 * self.channels + _MASK_CHANNELS
        if model.config.in_channels != expected:
            raise UserError(
                f"{self.part(self._transformer)} takes {model.config.in_channels} channels, expected the {expected} of an "
                f"image-to-video Wan; a text-to-video network can't be shown a driver"
            )
        return quantized(model.requires_grad_(False), self.settings.base)

    def load_encoders(self, device: torch.device) -> WanEncoders:
        # the reference implementation encodes in float32
        vae = AutoencoderKLWan.from_pretrained(self.part("vae"), torch_dtype=torch.float32, local_files_only=True).to(device)
        pipeline = WanImageToVideoPipeline.from_pretrained(
            self.folder(), transformer=None, transformer_2=None, vae=vae, torch_dtype=self.dtype, local_files_only=True
        )
        return WanEncoders(vae, pipeline.to(device), device)

    def weights(self) -> dict[str, list[Path]]:
        return {
            "transformer": self.safetensors(self._transformer),
            "vae": self.safetensors("vae"),
            "text": self.safetensors("text_encoder"),
        }

    def predict(
        self,
        model: torch.nn.Module,
        x: torch.Tensor,
        sigma: torch.Tensor,
        given: torch.Tensor,
        known: torch.Tensor,
        context: Context,
    ) -> torch.Tensor:
        inputs = torch.cat([x, known.expand(len(x), _MASK_CHANNELS, -1, -1, -1), given], 1)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            velocity = model(
                inputs, sigma * 1000, context["text"], encoder_hidden_states_image=context.get("image"), return_dict=False
            )[0]
        return velocity.float()

    def collate(self, contexts: Sequence[Context]) -> Context:
        made = {"text": pad_tokens([context["text"] for context in contexts], _TOKENS)}
        if "image" in contexts[0]:
            made["image"] = torch.stack([context["image"] for context in contexts])
        return made

"""HunyuanVideo-1.5 image-to-video, from a folder in diffusers' layout: an MMDiT, of which the video branch learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import (
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Transformer3DModel,
    ModelMixin,
)

from training.backbones.base import Context, Encoders, VideoBackbone, pad_tokens, quantized
from training.errors import UserError
from training.native import hunyuan_video_15_key

_TEXT, _MASK, _GLYPH, _GLYPH_MASK = "text", "text_mask", "glyph", "glyph_mask"


class HunyuanEncoders(Encoders):
    """The pipeline's own encoders."""

    def __init__(self, pipeline: HunyuanVideo15ImageToVideoPipeline, device: torch.device) -> None:
        self.pipeline, self.device = pipeline, device
        self.vae = pipeline.vae.eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        latents = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist.mode().float()
        return latents * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        raw = (latents / self.vae.config.scaling_factor).to(self.vae.device, self.vae.dtype)
        return self.vae.decode(raw).sample.float().clamp(-1, 1)

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> list[Context]:
        made = []
        for prompt in prompts:
            text, mask, glyph, glyph_mask = (v[0].cpu() for v in self.pipeline.encode_prompt(prompt, device=self.device))
            seen = mask.bool()
            made.append({_TEXT: text[seen], _GLYPH: glyph, _GLYPH_MASK: glyph_mask})
        return made

    @torch.no_grad()
    def image(self, reference: torch.Tensor) -> Context:
        from torchvision.transforms.functional import to_pil_image

        picture = to_pil_image((reference + 1) / 2)
        return {"image": self.pipeline.encode_image(picture, 1, self.device, self.pipeline.text_encoder.dtype)[0].cpu()}


class HunyuanBackbone(VideoBackbone):
    """HunyuanVideo-1.5."""

    family, channels, stride, patch = "hunyuan-video-1.5", 32, 16, 1
    rename = staticmethod(hunyuan_video_15_key)

    def load_transformer(self) -> ModelMixin:
        model = HunyuanVideo15Transformer3DModel.from_pretrained(
            self.part("transformer"), torch_dtype=self.dtype, local_files_only=True
        )
        expected = 2 * self.channels + 1
        if model.config.in_channels != expected or model.config.task_type != "i2v":
            raise UserError(
                f"{self.part('transformer')} is a {model.config.task_type} network of {model.config.in_channels} channels, "
                f"expected an i2v one of {expected}"
            )
        return quantized(model.requires_grad_(False), self.settings.base)

    def load_encoders(self, device: torch.device) -> HunyuanEncoders:
        pipeline = HunyuanVideo15ImageToVideoPipeline.from_pretrained(
            self.folder(), transformer=None, torch_dtype=self.dtype, local_files_only=True
        )
        pipeline.vae.to(torch.float32)
        return HunyuanEncoders(pipeline.to(device), device)

    def weights(self) -> dict[str, list[Path]]:
        return {
            "transformer": self.safetensors("transformer"),
            "vae": self.safetensors("vae"),
            "text": self.safetensors("text_encoder") + self.safetensors("text_encoder_2"),
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
        inputs = torch.cat([x, given, known.expand(len(x), 1, -1, -1, -1)], 1)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            velocity = model(
                inputs, sigma * 1000, encoder_hidden_states=context[_TEXT], encoder_attention_mask=context[_MASK],
                encoder_hidden_states_2=context[_GLYPH], encoder_attention_mask_2=context[_GLYPH_MASK],
                image_embeds=context["image"], return_dict=False,
            )[0]  # fmt: skip
        return velocity.float()

    def collate(self, contexts: Sequence[Context]) -> Context:
        tokens = [context[_TEXT] for context in contexts]
        longest = max(len(one) for one in tokens)
        mask = torch.stack([torch.arange(longest) < len(one) for one in tokens])
        rest = {name: torch.stack([context[name] for context in contexts]) for name in (_GLYPH, _GLYPH_MASK, "image")}
        return {_TEXT: pad_tokens(tokens, longest), _MASK: mask.to(tokens[0].dtype), **rest}

"""HunyuanVideo-1.5 image-to-video, from a folder in diffusers' layout: an MMDiT, of which the video branch learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Transformer3DModel,
    ModelMixin,
)

from training.backbones.base import Context, Encoders, VideoBackbone, pad_tokens, quantized, reading, to_picture
from training.backbones.hunyuan_vae import work_in_parts
from training.backbones.trimmed_attention import TrimmedAttention
from training.errors import UserError
from training.native import hunyuan_video_15_key

_TEXT, _MASK, _GLYPH, _GLYPH_MASK = "text", "text_mask", "glyph", "glyph_mask"


class HunyuanEncoders(Encoders):
    """The pipeline's own encoders."""

    def __init__(
        self, vae: AutoencoderKLHunyuanVideo15, pipeline: HunyuanVideo15ImageToVideoPipeline | None, device: torch.device
    ) -> None:
        self.vae, self.pipeline, self.device = vae.eval().requires_grad_(False), pipeline, device
        self.precision = vae.dtype

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        # one by one: a clip is enough for a GPU
        made = [self.vae.encode(one.to(self.vae.device, self.vae.dtype)).latent_dist.mode() for one in pixels.split(1)]
        return torch.cat(made).float() * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        raw = (latents / self.vae.config.scaling_factor).to(self.vae.device, self.vae.dtype)
        return torch.cat([self.vae.decode(one).sample for one in raw.split(1)]).float().clamp(-1, 1)

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> list[Context]:
        made = []
        for prompt in prompts:
            text, mask, glyph, glyph_mask = (v[0].cpu() for v in self.pipeline.encode_prompt(prompt, device=self.device))
            made.append({_TEXT: text[mask.bool()], _GLYPH: glyph[glyph_mask.bool()]})
        return made

    @torch.no_grad()
    def image(self, reference: torch.Tensor) -> Context:
        found = self.pipeline.encode_image(to_picture(reference), 1, self.device, self.pipeline.text_encoder.dtype)
        return {"image": found[0].cpu()}


class HunyuanBackbone(VideoBackbone):
    """HunyuanVideo-1.5."""

    family, channels, stride, patch = "hunyuan-video-1.5", 32, 16, 1
    rename = staticmethod(hunyuan_video_15_key)
    encoding = "all frames attended"  # earlier caches: those so far

    def load_transformer(self) -> ModelMixin:
        model = self.network(HunyuanVideo15Transformer3DModel, "transformer", self.dtype)
        config, expected = model.config, 2 * self.channels + 1
        if config.in_channels != expected or config.task_type != "i2v" or config.use_meanflow:
            kind = "step-distilled" if config.use_meanflow else config.task_type
            raise UserError(
                f"{self.part('transformer')} is a {kind} network of {config.in_channels} channels, expected an i2v one of "
                f"{expected} that is not distilled"
            )
        for block in model.transformer_blocks:
            block.attn.set_processor(TrimmedAttention())
        quantized(model.transformer_blocks, self.settings.base)
        return model

    def load_encoders(self, device: torch.device, only_vae: bool = False) -> HunyuanEncoders:
        # as ComfyUI and the reference implementation have it
        vae = self.network(AutoencoderKLHunyuanVideo15, "vae", torch.float16 if device.type == "cuda" else torch.float32)
        if vae.config.latent_channels != self.channels:
            raise UserError(f"{self.part('vae')} has {vae.config.latent_channels} channels, expected {self.channels}")
        work_in_parts(vae)
        if only_vae:
            return HunyuanEncoders(vae.to(device), None, device)
        for name in ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "image_encoder", "feature_extractor"):
            self.part(name)
        with reading(self.folder(), self.settings.name):
            pipeline = HunyuanVideo15ImageToVideoPipeline.from_pretrained(
                self.folder(), transformer=None, guider=None, vae=vae, local_files_only=True, dtype=self.dtype
            )
        return HunyuanEncoders(vae.to(device), pipeline.to(device), device)

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
        # the original training shows it zeros in unknown places, not the latents of a blank picture
        inputs = torch.cat([x, given * known, known.expand(len(x), 1, -1, -1, -1)], 1).to(self.dtype)
        told = self.floats(context)
        # the timesteps stay in float32, as in the original training: the pipeline's own half precision rounds them to fours
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            velocity = model(
                inputs, sigma * 1000, encoder_hidden_states=told[_TEXT], encoder_attention_mask=told[_MASK],
                encoder_hidden_states_2=told[_GLYPH], encoder_attention_mask_2=told[_GLYPH_MASK],
                image_embeds=told["image"], return_dict=False,
            )[0]  # fmt: skip
        return velocity.float()

    def collate(self, contexts: Sequence[Context]) -> Context:
        made = {"image": torch.stack([context["image"] for context in contexts])}
        # glyphs are words in quotation marks, which most prompts have none of
        for name, seen in ((_TEXT, _MASK), (_GLYPH, _GLYPH_MASK)):
            tokens = [context[name] for context in contexts]
            longest = max(1, *(len(one) for one in tokens))
            made[name] = pad_tokens(tokens, longest)
            made[seen] = torch.stack([torch.arange(longest) < len(one) for one in tokens])
        return made

"""Wan2.1-I2V-14B and each expert of Wan2.2-I2V-A14B, from a folder in diffusers' layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, ModelMixin, WanImageToVideoPipeline, WanTransformer3DModel

from dreamactor_core.motion_context import MotionContext
from training.backbones.base import Context, Encoders, VideoBackbone, pad_tokens, quantized, reading, stacked, to_picture
from training.backbones.wan_context import show_driver_apart
from training.errors import UserError
from training.native import wan_transformer_key

_TOKENS = 512
_MASK_CHANNELS = 4


class WanEncoders(Encoders):
    """The pipeline's own encoders."""

    def __init__(self, vae: AutoencoderKLWan, pipeline: WanImageToVideoPipeline | None, device: torch.device) -> None:
        self.vae, self.pipeline, self.device = vae.eval().requires_grad_(False), pipeline, device
        self.precision = vae.dtype
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
        # not the pipeline's encode_prompt: it mends the prompt with a package of its own, and the host shows it as it is
        pipe = self.pipeline
        options = {"padding": "longest", "truncation": True, "max_length": _TOKENS, "return_tensors": "pt"}
        tokens = pipe.tokenizer(list(prompts), return_attention_mask=True, **options).to(self.device)
        found = pipe.text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        return [{"text": row[seen].cpu()} for row, seen in zip(found, tokens.attention_mask.bool(), strict=True)]

    @torch.no_grad()
    def image(self, reference: torch.Tensor) -> Context:
        pipe = self.pipeline
        if pipe.image_encoder is None:
            return {}
        # not the pipeline's encode_image: its processor cuts the middle out, where the original code and ComfyUI stretch the whole
        side = pipe.image_encoder.config.image_size
        whole = {"size": {"height": side, "width": side}, "do_center_crop": False}
        values = pipe.image_processor(to_picture(reference), return_tensors="pt", **whole).pixel_values
        found = pipe.image_encoder(values.to(self.device, pipe.image_encoder.dtype), output_hidden_states=True)
        return {"image": found.hidden_states[-2][0].cpu()}


class InFloat32(torch.nn.Module):
    """A module that computes in float32, whatever is around it: half precision can't tell neighbouring timesteps apart."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module.float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.module(x.float())


class WanBackbone(VideoBackbone):
    """The networks that take mask and latents beside the noise."""

    family, channels, stride, patch = "wan", 16, 8, 2
    rename = staticmethod(wan_transformer_key)

    @property
    def encoding(self) -> str:
        # earlier caches of Wan2.1: the middle of the picture; the others know no CLIP vision
        return "whole pictures" if self.settings.name == "wan2.1-i2v-14b" else ""

    @property
    def _transformer(self) -> str:
        # the second network of diffusers' layout is the one for low noise
        return "transformer_2" if self.settings.expert == "low_noise" else "transformer"

    def load_transformer(self) -> ModelMixin:
        model = self.network(WanTransformer3DModel, self._transformer, self.dtype)
        path, expected = self.part(self._transformer), 2 * self.channels + _MASK_CHANNELS
        if model.config.in_channels != expected:
            raise UserError(
                f"{path} takes {model.config.in_channels} channels, expected the {expected} of an image-to-video Wan; a "
                f"text-to-video network can't be shown a driver"
            )
        image = self.settings.name == "wan2.1-i2v-14b"
        if image != (model.config.image_dim is not None):
            raise UserError(
                f"{path} has {'no' if image else 'an'} image embedding, so it is a Wan2.{2 if image else 1}, expected "
                f"{self.settings.name}: correct backbone.name or backbone.path"
            )
        model.condition_embedder.time_embedder = InFloat32(model.condition_embedder.time_embedder)
        quantized(model.blocks, self.settings.base)
        return model

    def load_encoders(self, device: torch.device, only_vae: bool = False) -> WanEncoders:
        # the reference implementation encodes in float32
        vae = self.network(AutoencoderKLWan, "vae", torch.float32)
        if vae.config.z_dim != self.channels:
            raise UserError(f"{self.part('vae')} has {vae.config.z_dim} channels, expected the {self.channels} of Wan 2.1's VAE")
        if only_vae:
            return WanEncoders(vae.to(device), None, device)
        for name in ("text_encoder", "tokenizer", *(["image_encoder"] if self.settings.name == "wan2.1-i2v-14b" else [])):
            self.part(name)
        with reading(self.folder(), self.settings.name):
            pipeline = WanImageToVideoPipeline.from_pretrained(
                self.folder(), transformer=None, transformer_2=None, vae=vae, local_files_only=True,
                dtype={"default": self.dtype, "image_encoder": torch.float32},
            )  # fmt: skip
        return WanEncoders(vae.to(device), pipeline.to(device), device)

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
        inputs = torch.cat([x, known.expand(len(x), _MASK_CHANNELS, -1, -1, -1), given], 1).to(self.dtype)
        told = self.floats(context)
        more = {}
        if "motion" in told:
            driver = told["motion"]
            shown = torch.ones_like(driver[:, :_MASK_CHANNELS])
            more["motion"] = torch.cat([driver, shown, driver], 1)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            velocity = model(
                inputs, sigma * 1000, told["text"], encoder_hidden_states_image=told.get("image"), return_dict=False, **more
            )[0]
        return velocity.float()

    def collate(self, contexts: Sequence[Context]) -> Context:
        made = {"text": pad_tokens([context["text"] for context in contexts], _TOKENS)}
        return made | stacked(contexts, "image", "motion")

    def use_context(self, model: torch.nn.Module, context: MotionContext) -> None:
        if context.cached:
            show_driver_apart(model, context)

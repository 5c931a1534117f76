"""The composite of reference and driver, as conditioning for a stock sampler (Eq. 2)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import node_helpers
import torch
from comfy_api.latest import io
from einops import rearrange

from ..dreamactor_core.clips import ClipSpec, check_fps, check_size, fit_frames, resample_rate
from ..dreamactor_core.conditions import build_condition, check_frames
from ..dreamactor_core.layout import TEMPORAL_STRIDE, Layout, SpatialLayout, get_layout
from .backbone import check_image_to_video, check_text, check_vae, contract_of, size_multiple
from .loaders import CATEGORY
from .motion_context import motion_values
from .motion_keys import Precision
from .reuse import encoded, kept_for
from .video import prepare_frames, read_driver

_NAME = "DreamActor In-Context Conditioning"

CLIP_KEY = "dreamactor_m2_clip"
"""Key in a LATENT under which Decode finds the clip that it belongs to. Samplers pass it through."""


@dataclass(frozen=True)
class Clip:
    """What Decode must know of a LATENT: layout, lead-in and rate, and the driver's audio."""

    layout: Layout
    spec: ClipSpec
    audio: dict[str, Any] | None


def _to_pixels(images: torch.Tensor, what: str) -> torch.Tensor:
    """IMAGE (N, H, W, C) in [0, 1] to (N, 3, H, W) in [-1, 1], checked."""
    frames = images.movedim(-1, 1) if images.ndim == 4 else images
    check_frames(frames, what)
    return frames.float() * 2 - 1


class InContextConditioning(io.ComfyNode):
    """Reference and driver side by side, with the masks that say what is known."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamActorInContextConditioning",
            display_name=_NAME,
            category=f"{CATEGORY}/conditioning",
            description="Puts the reference beside the driver (skeleton video or raw video, as the LoRA wants it), blanks the "
            "lead-in, and gives the sampler a latent of twice the width. Frame rate and lead-in come from the model's LoRA.",
            search_aliases=["dreamactor", "motion transfer", "character animation", "animate character", "image to video"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="The prompt: who does what."),
                io.Conditioning.Input("negative", tooltip="The negative prompt."),
                io.Model.Input("model", tooltip="Model with a DreamActor LoRA; for Wan2.2 the high-noise one."),
                io.Vae.Input("vae", tooltip="The VAE that belongs to the model."),
                io.Image.Input("reference", tooltip="One image of the character, cropped to the size below."),
                io.MultiType.Input(
                    "driving", types=[io.Image, io.Video],
                    tooltip="Skeleton video for a pose LoRA, raw video for an rgb LoRA. IMAGE batch or VIDEO.",
                ),
                io.Int.Input("width", default=832, min=16, max=8192, step=16, tooltip="Width of the result."),
                io.Int.Input("height", default=480, min=16, max=8192, step=16, tooltip="Height of the result."),
                io.Int.Input(
                    "length", default=81, min=1, max=8192, step=4,
                    tooltip="Frames, 4n+1, lead-in included; the lead-in is cut from the result.",
                ),
                io.Float.Input(
                    "fps", default=0.0, min=0.0, max=240.0, step=0.01,
                    tooltip="Frames per second of the result. 0: as the LoRA was trained.",
                ),
                io.Float.Input(
                    "lead_in", default=-1.0, min=-1.0, max=60.0, step=0.01,
                    tooltip="Seconds of travel from the character's own pose to the driver's first. -1: as the LoRA was trained.",
                ),
                io.Combo.Input(
                    "fit", options=["letterbox", "crop"], default="letterbox",
                    tooltip="How a driver of another aspect ratio is brought to the size. It is never stretched.",
                ),
                io.Float.Input(
                    "driving_fps", default=0.0, min=0.0, max=240.0, step=0.01, optional=True,
                    tooltip="Frames per second of a driving IMAGE batch. 0: the same as fps. A VIDEO brings its own.",
                ),
                io.ClipVisionOutput.Input(
                    "clip_vision_output", optional=True,
                    tooltip="CLIP Vision Encode of the reference, for Wan2.1 and HunyuanVideo-1.5.",
                ),
                io.Combo.Input(
                    "motion_cache", options=["auto", "full", "fp8"], default="auto", optional=True, advanced=True,
                    tooltip="For LoRAs with a cached motion context: how the driver's keys and values are kept. fp8 takes half the "
                    "memory; auto takes it when the full ones would fill more than half of the free RAM.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(
                    display_name="latent", tooltip="Twice as wide as the result, or as wide with a LoRA of a cached motion context."
                ),
                io.Image.Output(display_name="composite", tooltip="What the network is shown."),
                io.Mask.Output(display_name="mask", tooltip="White is generated, black is known."),
                io.String.Output(
                    display_name="info", tooltip="The LoRA's motion context, and how much memory its keys and values take, where."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        positive: list,
        negative: list,
        model: Any,
        vae: Any,
        reference: torch.Tensor,
        driving: Any,
        width: int,
        height: int,
        length: int,
        fps: float,
        lead_in: float,
        fit: str,
        driving_fps: float = 0.0,
        clip_vision_output: Any = None,
        motion_cache: Precision = "auto",
    ) -> io.NodeOutput:
        contract = contract_of(model)
        check_image_to_video(model)
        check_vae(model, vae)
        check_text(model, positive, negative)
        layout = get_layout(contract.layout, contract.motion_context)
        check_size(height, width, size_multiple(model, vae) * layout.context.scale)
        rate = check_fps(fps) if fps else contract.fps
        spec = ClipSpec.from_seconds(length, contract.lead_in if lead_in < 0 else lead_in, rate)

        source = _to_pixels(reference, "the reference")
        if source.shape[0] != 1:
            raise ValueError(f"got {source.shape[0]} reference images, expected one; pick one with 'Get Image from Batch'")
        source = fit_frames(source, height, width, "crop")

        def prepare(images: torch.Tensor) -> torch.Tensor:
            return fit_frames(_to_pixels(images, "the driver"), height, width, fit)

        if isinstance(driving, torch.Tensor):
            frames, audio = driving, None
            if frames.ndim == 4 and frames.shape[0]:
                if not driving_fps:
                    logging.info("%s: the driving images are taken at %g fps; set driving_fps if they are not", _NAME, rate)
                frames = frames[resample_rate(frames.shape[0], driving_fps or rate, rate)[: spec.driven]]
            driver = prepare_frames(frames, prepare)
        else:
            driver, audio = read_driver(driving, rate, spec.driven, prepare)

        def encode(pixels: torch.Tensor) -> torch.Tensor:
            return encoded(vae, pixels, lambda new: vae.encode((rearrange(new, "1 c t h w -> t h w c") + 1) / 2))

        condition = build_condition(layout, source, rearrange(driver, "t c h w -> 1 c t h w"), spec, encode, vae.vae_dtype)
        values = {"concat_latent_image": condition.latents, "concat_mask": 1 - condition.known}
        if clip_vision_output is not None:
            values["clip_vision_output"] = clip_vision_output
        samples = condition.latents * (1 - condition.generate)
        latent = {"samples": samples.to(comfy.model_management.intermediate_device()), CLIP_KEY: Clip(layout, spec, audio)}
        if condition.motion is None:
            # the driver's half needs no sampling: the mask makes the sampler keep it at its own noise level, which is what
            # the network saw in training
            latent["noise_mask"] = condition.generate
            info = f"motion context joint: the driver is sampled with the result, {condition.latents.shape[-1]} latents wide"
        else:
            kept = kept_for(model, model.model.process_latent_in(condition.motion), motion_cache, layout.context.name)
            values |= motion_values(kept)
            info = kept.info
        if contract.mostly_normalised:
            info += "; skeletons were put in the middle by their box in training: draw them with fit = people"
        preview = (rearrange(condition.composite, "1 c t h w -> t h w c") + 1) / 2
        stride = vae.spacial_compression_encode()
        shown = condition.known
        if layout.name == "alone":  # the picture above has both halves
            shown = SpatialLayout().known_mask(*condition.latents.shape[2:])
        known = shown[0, 0].repeat_interleave(stride, -1).repeat_interleave(stride, -2)
        pixel_mask = torch.cat([known[:1], known[1:].repeat_interleave(TEMPORAL_STRIDE, 0)])
        return io.NodeOutput(
            node_helpers.conditioning_set_values(positive, values),
            node_helpers.conditioning_set_values(negative, values),
            latent,
            preview,
            1 - pixel_mask,
            info,
        )

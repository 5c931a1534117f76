"""The result: the generated half, without the lead-in, as images and as a video in sync with the driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from typing import Any

import comfy.ldm.wan.vae
import torch
from comfy_api.latest import InputImpl, Types, io
from einops import rearrange

from ..dreamactor_core.clips import trim_lead_in
from ..dreamactor_core.layout import Layout
from .conditioning import CLIP_KEY, Clip
from .loaders import CATEGORY
from .video import cut_audio

_MARGIN = 13
"""Latents beside the generated half that its pixels depend on. After the attention in its middle, the decoder of Wan 2.1's VAE has
six 3x3 convolutions at the latents' size, seven at each of twice and four and eight at eight times that: fewer will not do."""


@contextmanager
def _cut_after_middle(decoder: Any, width: int, kept: int) -> Iterator[None]:
    """Let a decoder go on with the first `kept` of `width` columns after its middle, whose attention has seen all of them."""

    def cut(_module: Any, _given: Any, out: torch.Tensor) -> torch.Tensor:
        # tiles, which the host decodes when memory is short, are narrower and stay whole
        return out[..., :kept].contiguous() if out.shape[-1] == width else out

    hook = decoder.middle[-1].register_forward_hook(cut)
    try:
        yield
    finally:
        hook.remove()


def _decoded(vae: Any, latents: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The generated part of a composite as pixels (B, C, T, H, W). Of a spatial one the driver's half is not decoded, where the VAE
    is Wan 2.1's."""
    columns = latents.shape[-1]
    half = columns // 2
    spatial = layout.name == "spatial" and isinstance(vae.first_stage_model, comfy.ldm.wan.vae.WanVAE)
    cut = _cut_after_middle(vae.first_stage_model.decoder, columns, half + _MARGIN) if spatial else nullcontext()
    with cut:
        decoded = rearrange(vae.decode(latents), "b t h w c -> b c t h w")
    if layout.name == "spatial":
        return decoded[..., : half * vae.spacial_compression_decode()]
    return layout.crop(decoded)


class Decode(io.ComfyNode):
    """LATENT of a composite to the animation."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamActorDecode",
            display_name="DreamActor Decode",
            category=f"{CATEGORY}/latent",
            description="Decodes the sampled latent, keeps the generated half and cuts off the lead-in. The video has the clip's "
            "frame rate and the driver's audio, in sync from its first frame.",
            search_aliases=["vae decode", "decode dreamactor", "crop composite"],
            inputs=[
                io.Latent.Input("samples", tooltip="From a sampler fed by In-Context Conditioning."),
                io.Vae.Input("vae", tooltip="The VAE that In-Context Conditioning was given."),
            ],
            outputs=[
                io.Image.Output(display_name="images"),
                io.Video.Output(display_name="video"),
                io.Float.Output(display_name="fps"),
            ],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], vae: Any) -> io.NodeOutput:
        clip = samples.get(CLIP_KEY)
        if not isinstance(clip, Clip):
            raise ValueError(
                "this LATENT does not come from 'DreamActor In-Context Conditioning' (or a node in between dropped its clip); "
                "connect the sampler's output, or use the stock VAE Decode"
            )
        latents = samples["samples"]
        if latents.ndim != 5 or vae.latent_channels != latents.shape[1]:
            raise ValueError(
                f"got latents of shape {tuple(latents.shape)} for a VAE of {vae.latent_channels} channels; use the VAE that "
                f"In-Context Conditioning was given"
            )
        if latents.shape[0] != 1:
            raise ValueError(f"got a batch of {latents.shape[0]} latents, expected one clip; pick one with 'Get Latent From Batch'")
        animation = _decoded(vae, latents, clip.layout)
        if animation.shape[2] != clip.spec.frames:
            raise ValueError(
                f"the LATENT decodes to {animation.shape[2]} frames, expected the {clip.spec.frames} of its clip: a node in "
                f"between cut or lengthened it; connect the sampler's output"
            )
        result = trim_lead_in(animation, clip.spec)
        images = rearrange(result, "b c t h w -> (b t) h w c").contiguous().clamp(0, 1)
        audio = cut_audio(clip.audio, clip.spec.driven / clip.spec.fps)
        rate = Fraction(clip.spec.fps).limit_denominator(1001)
        video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=audio, frame_rate=rate))
        return io.NodeOutput(images, video, clip.spec.fps)

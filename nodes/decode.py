"""The result: the generated half, without the lead-in, as images and as a video in sync with the driver."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from comfy_api.latest import InputImpl, Types, io
from einops import rearrange

from ..dreamactor_core.clips import trim_lead_in
from .conditioning import CLIP_KEY, Clip
from .loaders import CATEGORY
from .video import cut_audio


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
            raise ValueError(f"got a batch of {latents.shape[0]} latents, expected one clip; queue the graph once for each seed")
        decoded = rearrange(vae.decode(latents), "b t h w c -> b c t h w")
        animation = clip.layout.crop(decoded)
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

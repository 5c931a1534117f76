"""The composite of reference and driver, as conditioning for a stock sampler (Eq. 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import node_helpers
import torch
from comfy_api.latest import io
from einops import rearrange

from ..dreamactor_core.clips import ClipSpec, check_fps, check_size, fit_frames, resample_rate
from ..dreamactor_core.conditions import build_condition, check_frames
from ..dreamactor_core.contract import BACKBONES, Contract
from ..dreamactor_core.layout import TEMPORAL_STRIDE, Layout, SpatialLayout, get_layout
from .backbone import check_clip_vision, check_image_to_video, check_text, check_vae, contract_of, size_multiple
from .loaders import CATEGORY
from .motion_context import motion_values
from .motion_keys import Precision
from .reuse import encoded, forget_keys, kept_for
from .sampling import joint_values
from .telling import show_on_node
from .video import prepare_frames, read_driver

_NAME = "DreamActor In-Context Conditioning"

CLIP_KEY = "dreamactor_m2_clip"
"""Key in a LATENT under which Decode finds the clip that it belongs to. Samplers pass it through."""


_LIT = -0.9
"""Of a skeleton video, in [-1, 1]: what is lighter in some colour is drawn."""
_SKELETON = 0.15
"""Share of a picture that a skeleton leaves black, at the least: eight people who fill one of 64x64 leave 0.2, one leaves 0.7. A
photograph has next to no black."""
_FAR = 2.0
"""Times as many or as few pixels as a LoRA was trained with, which is worth a word."""
_OTHER_SHAPE = 1.02
"""Ratio of two aspect ratios from which on pictures are not of one shape."""


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


def check_skeleton(lit: torch.Tensor, seconds: float) -> None:
    """Raises ValueError for a driver of a pose LoRA that shows no skeleton. `lit` (N,): share of each picture that is not black."""
    if not lit.any():
        raise ValueError(
            f"the driver is black in all of the {seconds:.1f} s that drive the clip, expected a skeleton in some of them: nobody "
            f"was found there; trim the driving video to where somebody is seen, or look at the preview of Pose Extract"
        )
    black = 1 - float(lit.median())
    if black < _SKELETON:
        raise ValueError(
            f"the LoRA is of the pose variant and wants a skeleton on black, but only {black:.0%} of the driver's pictures are "
            f"black; put Pose Extract and Pose Draw in front, or load an rgb LoRA, which takes the video itself"
        )


def trained_with(contract: Contract, width: int, height: int) -> list[str]:
    """What of a LoRA's training the graph should agree with, and nobody can see in a picture."""
    told = []
    if contract.mostly_normalised:
        told.append("skeletons were centred by their box, standing on the lower margin, in training: draw them with fit = people")
    absent = [name for name in ("face", "hands") if name not in contract.skeleton]
    if contract.variant == "pose" and contract.skeleton and absent:
        told.append(f"skeletons had no {' and no '.join(absent)} in training: turn {' and '.join(absent)} off in Pose Draw")
    areas = [math.prod(map(int, size.split("x"))) for size in contract.sizes.split(",") if size]
    if areas and not min(areas) / _FAR <= width * height <= max(areas) * _FAR:
        told.append(f"trained at {contract.sizes.replace(',', ', ')}, which is far from {width}x{height}")
    return told


class InContextConditioning(io.ComfyNode):
    """Reference and driver side by side, with the masks that say what is known."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamActorInContextConditioning",
            display_name=_NAME,
            category=f"{CATEGORY}/conditioning",
            description="Puts the reference beside the driver (skeleton video or raw video, as the LoRA wants it), blanks the "
            "lead-in, and gives the sampler a latent of twice the width, or of the width itself with a LoRA of a cached motion "
            "context. Frame rate and lead-in come from the model's LoRA.",
            hidden=[io.Hidden.unique_id],
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
                    "length", default=81, min=5, max=8192, step=4,
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
                    tooltip="CLIP Vision Encode of the reference: Wan2.1 and HunyuanVideo-1.5 need it, others do not know it.",
                ),
                io.Combo.Input(
                    "motion_cache", options=["auto", "full", "fp8"], default="auto", optional=True, advanced=True,
                    tooltip="For LoRAs with a cached motion context: how the driver's keys and values are kept. fp8 takes half the "
                    "memory; auto takes it when the full ones would fill more than half of the free RAM.",
                ),
                io.Audio.Input(
                    "audio", optional=True,
                    tooltip="The driver's sound, for a driving IMAGE batch: Pose Extract has it. A VIDEO brings its own.",
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
                    display_name="info",
                    tooltip="The LoRA's motion context, how much memory its keys and values take, where, and what its training "
                    "asks of the graph.",
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
        audio: Any = None,
    ) -> io.NodeOutput:
        contract = contract_of(model)
        check_image_to_video(model)
        check_vae(model, vae)
        check_text(model, positive, negative)
        check_clip_vision(model, clip_vision_output)
        layout = get_layout(contract.layout, contract.motion_context)
        check_size(height, width, size_multiple(model, vae) * layout.context.scale)
        rate = check_fps(fps) if fps else contract.fps
        spec = ClipSpec.from_seconds(length, contract.lead_in if lead_in == -1 else lead_in, rate)

        source = _to_pixels(reference, "the reference")
        if source.shape[0] != 1:
            raise ValueError(f"got {source.shape[0]} reference images, expected one; pick one with 'Get Image from Batch'")
        told = trained_with(contract, width, height)
        shape = source.shape[-1] * height / (source.shape[-2] * width)
        if clip_vision_output is not None and max(shape, 1 / shape) > _OTHER_SHAPE:
            told.append("the reference is cropped here, in training it was before CLIP vision: crop it to this shape before both")
        source = fit_frames(source, height, width, "crop")

        lit: list[torch.Tensor] = []

        def prepare(images: torch.Tensor) -> torch.Tensor:
            pixels = _to_pixels(images, "the driver")
            lit.append((pixels > _LIT).any(1).float().mean((1, 2)))  # before there are black bars
            return fit_frames(pixels, height, width, fit)

        if isinstance(driving, torch.Tensor):
            frames = driving
            if frames.ndim == 4 and frames.shape[0]:
                if not driving_fps:
                    told.append(f"driving_fps is 0: the driving images are taken at {rate:g} fps")
                frames = frames[resample_rate(frames.shape[0], driving_fps or rate, rate)[: spec.driven]]
            driver = prepare_frames(frames, prepare)
        else:
            driver, own = read_driver(driving, rate, spec.driven, prepare)
            audio = own if audio is None else audio
        if contract.skeleton:  # of a LoRA without a contract nobody knows what drives it
            check_skeleton(torch.cat(lit), driver.shape[0] / rate)

        def encode(pixels: torch.Tensor) -> torch.Tensor:
            return encoded(vae, pixels, lambda new: vae.encode((rearrange(new, "1 c t h w -> t h w c") + 1) / 2))

        condition = build_condition(layout, source, rearrange(driver, "t c h w -> 1 c t h w"), spec, encode, vae.vae_dtype)
        given = condition.latents * condition.known if BACKBONES[contract.backbone].blank_latents else condition.latents
        values = {"concat_latent_image": given, "concat_mask": 1 - condition.known}
        if clip_vision_output is not None:
            values["clip_vision_output"] = clip_vision_output
        samples = condition.latents * (1 - condition.generate)
        latent = {"samples": samples.to(comfy.model_management.intermediate_device()), CLIP_KEY: Clip(layout, spec, audio)}
        if condition.motion is None:
            # the driver's half needs no sampling: the mask makes the sampler keep it at its own noise level, which is what
            # the network saw in training
            latent["noise_mask"] = condition.generate
            values |= joint_values(model)
            forget_keys(model)
            info = f"motion context joint: the driver is sampled with the result, {condition.latents.shape[-1]} latents wide"
        else:
            kept = kept_for(model, model.model.process_latent_in(condition.motion), motion_cache, layout.context.name)
            values |= motion_values(kept)
            info = kept.info
        info = "; ".join([info, *told])
        show_on_node(info, None if cls.hidden is None else cls.hidden.unique_id)
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

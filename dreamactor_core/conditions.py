"""From a reference and a driver to what the network is given. Nodes and training both call this, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .clips import ClipSpec, add_lead_in
from .layout import BLANK, Layout, SpatialLayout, latent_frames

Encode = Callable[[torch.Tensor], torch.Tensor]
"""A VAE's encoder: pixels (B, 3, T, H, W) in [-1, 1] to latents (B, c, t, h, w)."""

_PREFIX = 29
"""Frames of a reference and blanks that are encoded at first; twice as many if the latents have not settled by then."""
_SETTLED, _SHRINKS = 5e-4, 0.3
"""Latents of blank frames have settled when all that is to come, each change being a share of the last, is less than _SETTLED;
or when they change no more than the encoder's precision rounds the largest, and hardly less each time."""


@dataclass(frozen=True)
class Condition:
    """Eq. 2 for one clip.

    Attributes:
        composite: C, pixels (B, 3, T, H, W') in [-1, 1]; W' is 2W in the spatial layout. With a cached motion context the network
            is shown its halves one by one, and this is for people.
        latents: Z = VAE(C), (B, c, t, h, w'); with a cached motion context, of reference and blank frames, w' = w.
        known: M in latents, (1, 1, t, h, w'): 1 known, 0 to generate.
        generate: (1, 1, t, h, w'): 1 where the result is, 0 on the driver.
        motion: The driver's latents for a cached motion context, (B, c, t, h / scale, w / scale); else None, they are in Z.
    """

    composite: torch.Tensor
    latents: torch.Tensor
    known: torch.Tensor
    generate: torch.Tensor
    motion: torch.Tensor | None = None


def check_frames(images: torch.Tensor, what: str) -> None:
    """Raises ValueError unless `images` is (N, 3, H, W) with at least one frame and finite values."""
    if images.ndim != 4:
        raise ValueError(f"{what} has shape {tuple(images.shape)}, expected a batch of images")
    if images.shape[0] == 0:
        raise ValueError(f"{what} has zero frames, expected at least one")
    if images.shape[1] != 3:
        fix = "remove the alpha channel first" if images.shape[1] == 4 else "convert it to RGB first"
        raise ValueError(f"{what} has {images.shape[1]} channels, expected 3 (RGB); {fix}")
    if not torch.isfinite(images).all():
        raise ValueError(f"{what} holds NaN or infinite values; the node that made it failed, look there")


def build_condition(
    layout: Layout,
    reference: torch.Tensor,
    driving: torch.Tensor,
    spec: ClipSpec,
    encode: Encode,
    precision: torch.dtype,
) -> Condition:
    """Composite, masks and latents of Eq. 2.

    Args:
        reference: (B, 3, H, W) in [-1, 1].
        driving: (B, 3, N, H, W) in [-1, 1] without lead-in, at least `spec.driven` frames.
        precision: What `encode` computes in.

    Raises:
        ValueError: too few driving frames, or sizes that differ.
    """
    driver = add_lead_in(driving, spec)
    motion = None
    if layout.context.cached:
        composite = SpatialLayout().composite(reference, driver)
        latents = encode_still(encode, reference, spec.frames, precision)
        motion = encode(shrink(driver, layout.context.scale))
    else:
        composite = layout.composite(reference, driver)
        latents = encode(composite)
    _, _, t, h, w = latents.shape
    size = (t // 2, h, w) if layout.name == "temporal" else (t, h, w // 2) if layout.name == "spatial" else (t, h, w)
    known, generate = (mask.to(latents.device) for mask in (layout.known_mask(*size), layout.generated_mask(*size)))
    return Condition(composite, latents, known, generate, motion)


def shrink(video: torch.Tensor, scale: int) -> torch.Tensor:
    """A video (B, C, T, H, W) at a whole part of its size, by averages. Raises ValueError when the size can't be divided."""
    if scale == 1:
        return video
    if video.shape[-1] % scale or video.shape[-2] % scale:
        raise ValueError(f"the driver is {video.shape[-1]}x{video.shape[-2]}, expected both to be multiples of {scale}; resize it")
    return F.avg_pool3d(video, (1, scale, scale))


def encode_still(encode: Encode, reference: torch.Tensor, frames: int, precision: torch.dtype) -> torch.Tensor:
    """Latents of a reference (B, 3, H, W) and blank frames after it, (B, c, t, h, w), as the encoder makes them of all `frames`.

    The encoder is causal, so what it makes of blank frames settles some time after the reference. The first of them are encoded
    until it has, and its last answer stands for the rest: of each picture by itself, whatever is in the batch. `precision`: what
    the encoder computes in.
    """
    count, total = min(_PREFIX, frames), latent_frames(frames)
    made: dict[int, torch.Tensor] = {}
    left = list(range(len(reference)))
    while left:
        video = reference.new_full((len(left), reference.shape[1], count, *reference.shape[2:]), BLANK)
        video[:, :, 0] = reference[left]
        again = []
        for k, latents in zip(left, encode(video), strict=True):
            if count == frames or _has_settled(latents, precision):
                made[k] = torch.cat([latents, latents[:, -1:].expand(-1, total - latents.shape[1], -1, -1)], 1)
            else:
                again.append(k)
        left, count = again, min(2 * count - 1, frames)
    return torch.stack([made[k] for k in range(len(reference))])


def _has_settled(latents: torch.Tensor, precision: torch.dtype) -> bool:
    """Whether blank frames' latents (c, t, h, w) stay as they are from here on."""
    earlier, change = latents[:, -3:].diff(dim=1).abs().amax((0, 2, 3)).tolist()
    rounds = 2 * torch.finfo(precision).eps * float(latents[:, -1].abs().max())
    rounding = change < rounds and change > _SHRINKS * earlier
    to_come = change * change / (earlier - change) if change < earlier else change
    return to_come < _SETTLED or rounding

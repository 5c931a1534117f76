"""From a reference and a driver to what the network is given. Nodes and training both call this, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .clips import ClipSpec, add_lead_in
from .layout import Layout

Encode = Callable[[torch.Tensor], torch.Tensor]
"""A VAE's encoder: pixels (B, 3, T, H, W) in [-1, 1] to latents (B, c, t, h, w)."""


@dataclass(frozen=True)
class Condition:
    """Eq. 2 for one clip.

    Attributes:
        composite: C, pixels (B, 3, T, H, W') in [-1, 1]; W' is 2W in the spatial layout.
        latents: Z = VAE(C), (B, c, t, h, w').
        known: M in latents, (1, 1, t, h, w'): 1 known, 0 to generate.
        generate: (1, 1, t, h, w'): 1 where the result is, 0 on the driver.
    """

    composite: torch.Tensor
    latents: torch.Tensor
    known: torch.Tensor
    generate: torch.Tensor


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
    layout: Layout, reference: torch.Tensor, driving: torch.Tensor, spec: ClipSpec, encode: Encode
) -> Condition:
    """Composite, masks and latents of Eq. 2.

    Args:
        reference: (B, 3, H, W) in [-1, 1].
        driving: (B, 3, N, H, W) in [-1, 1] without lead-in, at least `spec.driven` frames.

    Raises:
        ValueError: too few driving frames, or sizes that differ.
    """
    composite = layout.composite(reference, add_lead_in(driving, spec))
    latents = encode(composite)
    _, _, t, h, w = latents.shape
    if layout.name == "spatial":
        size = (t, h, w // 2)
    else:
        size = (t // 2, h, w)
    known, generate = (mask.to(latents.device) for mask in (layout.known_mask(*size), layout.generated_mask(*size)))
    return Condition(composite, latents, known, generate)

"""The in-context layout of Eq. 2: how a reference and its driver become one video, and how the result is cut out of it.

Shapes: B batch, C channels, T frames, H height, W width; t, h, w are the same in latents. Time is axis 2 and width is
the last axis in pixels and in latents alike, so one function serves both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from .motion_context import JOINT, MotionContext, get_context

LayoutName = Literal["spatial", "temporal", "alone"]

BLANK = 0.0
"""The zero image of Eq. 2 in pixels of [-1, 1]: mid-grey, as Wan's image-to-video networks were trained with. HunyuanVideo-1.5 was
trained with zeros in the latents: `contract.Backbone.blank_latents`."""

TEMPORAL_STRIDE = 4
"""Frames in a latent frame after the first, which holds one."""


def latent_frames(frames: int) -> int:
    """Latent frames of a video of 4n+1 frames. Raises ValueError for another count."""
    if frames < 1 or (frames - 1) % TEMPORAL_STRIDE:
        low = max(1, (frames - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1)
        raise ValueError(f"got {frames} frames, expected 4n+1; the nearest are {low} and {low + TEMPORAL_STRIDE}")
    return (frames - 1) // TEMPORAL_STRIDE + 1


def _check_pair(reference: torch.Tensor, driving: torch.Tensor) -> None:
    if reference.ndim != 4 or driving.ndim != 5:
        raise ValueError(
            f"got a reference of shape {tuple(reference.shape)} and a driver of shape {tuple(driving.shape)}, "
            f"expected (B, C, H, W) and (B, C, T, H, W)"
        )
    if reference.shape[:2] != driving.shape[:2] or reference.shape[-2:] != driving.shape[-2:]:
        raise ValueError(
            f"the reference {tuple(reference.shape)} and the driver {tuple(driving.shape)} differ in batch, channels "
            f"or size; resize both to one size first"
        )


@dataclass(frozen=True)
class SpatialLayout:
    """The paper's layout: the animation is the left half, the driver the right half (Eq. 2)."""

    name: LayoutName = "spatial"
    context: MotionContext = JOINT

    def join(self, generated: torch.Tensor, driving: torch.Tensor) -> torch.Tensor:
        """Put two videos (B, C, T, H, W) of one size together: (B, C, T, H, 2W)."""
        return torch.cat([generated, driving], dim=-1)

    def composite(self, reference: torch.Tensor, driving: torch.Tensor) -> torch.Tensor:
        """C of Eq. 2: frame 0 is the reference beside driving[0], later frames are blank beside driving[t].

        Args:
            reference: (B, C, H, W), pixels in [-1, 1].
            driving: (B, C, T, H, W), pixels in [-1, 1], lead-in included.

        Returns:
            (B, C, T, H, 2W). Raises ValueError when batch, channels or sizes differ.
        """
        _check_pair(reference, driving)
        left = torch.full_like(driving, BLANK)
        left[:, :, 0] = reference
        return self.join(left, driving)

    def known_mask(self, frames: int, height: int, width: int) -> torch.Tensor:
        """M of Eq. 2 for clips of this size in pixels, or of this size in latents: 1 known, 0 to generate.

        Returns:
            float32 (1, 1, T, H, 2W): the driver's half is known everywhere, the other in frame 0 only.
        """
        mask = torch.ones(1, 1, frames, height, 2 * width)
        mask[:, :, 1:, :, :width] = 0
        return mask

    def generated_mask(self, frames: int, height: int, width: int) -> torch.Tensor:
        """1 on the half that is generated, frame 0 included, 0 on the driver's: where a sampler has work to do."""
        mask = torch.zeros(1, 1, frames, height, 2 * width)
        mask[..., :width] = 1
        return mask

    def crop(self, composite: torch.Tensor) -> torch.Tensor:
        """The generated half of a composite in pixels or latents, any number of leading axes. Raises ValueError if odd."""
        if composite.shape[-1] % 2:
            raise ValueError(f"a spatial composite has an even width, got {composite.shape[-1]}")
        return composite[..., : composite.shape[-1] // 2]


@dataclass(frozen=True)
class TemporalLayout:
    """The ablation's layout (Temp-IC): the animation first, the driver after it along time.

    The driver's first frame is repeated three times, so that its latent frame i covers the frames which latent
    frame i of the animation covers, and the whole has 4n+1 frames.
    """

    name: LayoutName = "temporal"
    context: MotionContext = JOINT

    def join(self, generated: torch.Tensor, driving: torch.Tensor) -> torch.Tensor:
        """Put two videos (B, C, T, H, W) together: (B, C, 2T+3, H, W)."""
        repeats = driving[:, :, :1].expand(-1, -1, TEMPORAL_STRIDE - 1, -1, -1)
        return torch.cat([generated, repeats, driving], dim=2)

    def composite(self, reference: torch.Tensor, driving: torch.Tensor) -> torch.Tensor:
        """Reference, blank frames, then the driver. Arguments as in `SpatialLayout.composite`."""
        _check_pair(reference, driving)
        generated = torch.full_like(driving, BLANK)
        generated[:, :, 0] = reference
        return self.join(generated, driving)

    def known_mask(self, frames: int, height: int, width: int) -> torch.Tensor:
        """1 known, 0 to generate, for a clip of `frames` LATENT frames: float32 (1, 1, 2t, h, w)."""
        mask = torch.ones(1, 1, 2 * frames, height, width)
        mask[:, :, 1:frames] = 0
        return mask

    def generated_mask(self, frames: int, height: int, width: int) -> torch.Tensor:
        """1 on the animation's latent frames, 0 on the driver's."""
        mask = torch.zeros(1, 1, 2 * frames, height, width)
        mask[:, :, :frames] = 1
        return mask

    def crop(self, composite: torch.Tensor) -> torch.Tensor:
        """The animation's frames of a composite (..., T, H, W), pixels (2T+3 frames) or latents (2t frames)."""
        total = composite.shape[-3]
        return composite[..., : total // 2 if total % 2 == 0 else (total - TEMPORAL_STRIDE + 1) // 2, :, :]


@dataclass(frozen=True)
class AloneLayout:
    """The animation by itself, for cached motion contexts: the driver is no part of the video, so nothing is put together, and
    nothing is cut. Its tokens are placed beside the video's as in the spatial layout."""

    context: MotionContext
    name: LayoutName = "alone"

    def join(self, generated: torch.Tensor, driving: torch.Tensor) -> torch.Tensor:
        """The animation (B, C, T, H, W)."""
        return generated

    def composite(self, reference: torch.Tensor, driving: torch.Tensor) -> torch.Tensor:
        """Reference, then blank frames, as many as the driver has: (B, C, T, H, W). Arguments as in `SpatialLayout.composite`."""
        _check_pair(reference, driving)
        video = torch.full_like(driving, BLANK)
        video[:, :, 0] = reference
        return video

    def known_mask(self, frames: int, height: int, width: int) -> torch.Tensor:
        """1 in frame 0, 0 elsewhere: float32 (1, 1, T, H, W)."""
        mask = torch.zeros(1, 1, frames, height, width)
        mask[:, :, 0] = 1
        return mask

    def generated_mask(self, frames: int, height: int, width: int) -> torch.Tensor:
        """1 everywhere: float32 (1, 1, T, H, W)."""
        return torch.ones(1, 1, frames, height, width)

    def crop(self, composite: torch.Tensor) -> torch.Tensor:
        """All of it."""
        return composite


Layout = SpatialLayout | TemporalLayout | AloneLayout
LAYOUTS: dict[str, SpatialLayout | TemporalLayout] = {layout.name: layout for layout in (SpatialLayout(), TemporalLayout())}


def get_layout(name: str, motion_context: str = JOINT.name) -> Layout:
    """Layout by its name and the motion context's. Raises ValueError naming the known ones, or for a pair that does not go."""
    if name not in LAYOUTS:
        raise ValueError(f"unknown in-context layout {name!r}; known: {', '.join(LAYOUTS)}")
    context = get_context(motion_context)
    if not context.cached:
        return LAYOUTS[name]
    if name != "spatial":
        raise ValueError(f"motion context {context.name} goes with the spatial layout, got {name!r}: its driver stands beside")
    return AloneLayout(context)

"""Clips: which frames of a source are shown when, the lead-in in front of them, and the trim after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from .layout import BLANK, TEMPORAL_STRIDE, latent_frames

MIN_FPS, MAX_FPS = 0.1, 240.0
TIME_SLACK = 1e-3
"""Seconds by which a presentation time may be off: Matroska and WebM round them to milliseconds."""
Fit = Literal["letterbox", "crop"]


def check_fps(fps: float, what: str = "fps") -> float:
    """Return fps. Raises ValueError unless it is a number from MIN_FPS to MAX_FPS."""
    if not MIN_FPS <= fps <= MAX_FPS:  # NaN neither
        raise ValueError(f"{what} is {fps}, expected {MIN_FPS:g} to {MAX_FPS:g} frames per second; correct it")
    return float(fps)


def resample_by_timestamp(timestamps: Sequence[float], end: float, fps: float) -> np.ndarray:
    """Which source frame is on screen at the times 0, 1/fps, 2/fps ...

    Args:
        timestamps: Seconds at which each source frame appears, growing; the first need not be 0.
        end: Second at which the last frame disappears.
        fps: Wanted rate.

    Returns:
        int64 indices into the source, one for every output frame that begins before `end`. A source of variable
        frame rate keeps its speed. Times are taken to be right to TIME_SLACK. Raises ValueError when there are no
        frames or the timestamps decrease.
    """
    check_fps(fps)
    times = np.asarray(timestamps, np.float64)
    if times.size == 0:
        raise ValueError("got zero frames, expected at least one")
    if not (np.diff(times) >= 0).all():
        raise ValueError("timestamps must not decrease; the file's presentation times are broken, re-encode it")
    duration = max(end - times[0], 0.0)
    count = max(1, math.ceil((duration - TIME_SLACK) * fps))
    wanted = times[0] + np.arange(count) / fps
    # a frame that is due now must not be missed because its time was rounded up
    return np.clip(np.searchsorted(times, wanted + TIME_SLACK, side="right") - 1, 0, times.size - 1)


def resample_rate(count: int, source_fps: float, fps: float) -> np.ndarray:
    """`resample_by_timestamp` for `count` frames at a constant rate."""
    check_fps(source_fps, "the driver's fps")
    return resample_by_timestamp(np.arange(count) / source_fps, count / source_fps, fps)


@dataclass(frozen=True)
class ClipSpec:
    """Length of a clip in frames, lead-in included, and what of it the driver fills.

    Attributes:
        frames: All frames, 4n+1.
        lead_in: Frames in front in which the driver is blank; they are cut from the result.
        fps: Frames per second.
    """

    frames: int
    lead_in: int
    fps: float

    def __post_init__(self) -> None:
        check_fps(self.fps)
        latent_frames(self.frames)
        if self.frames < TEMPORAL_STRIDE + 1:
            raise ValueError(
                f"length is {self.frames} frame, expected a video of at least {TEMPORAL_STRIDE + 1} frames; raise it"
            )
        if self.lead_in < 0:
            raise ValueError(f"the lead-in is {self.lead_in} frames, expected 0 or more")
        if self.lead_in >= self.frames:
            raise ValueError(
                f"the lead-in of {self.lead_in} frames ({self.lead_in / self.fps:.2f} s) leaves nothing of a clip of "
                f"{self.frames} frames ({self.frames / self.fps:.2f} s); lengthen the clip or shorten the lead-in"
            )

    @property
    def driven(self) -> int:
        """Frames that the driver fills and that remain in the result."""
        return self.frames - self.lead_in

    @classmethod
    def from_seconds(cls, frames: int, lead_in: float, fps: float) -> ClipSpec:
        """With the lead-in in seconds, rounded to whole frames."""
        check_fps(fps)
        if not math.isfinite(lead_in) or lead_in < 0:
            raise ValueError(f"the lead-in is {lead_in} s, expected 0 or more seconds")
        return cls(frames, round(lead_in * fps), fps)

    def longest_for(self, available: int) -> int:
        """The longest 4n+1 length, lead-in included, that `available` driving frames fill (0 if none)."""
        longest = (available + self.lead_in - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1
        return longest if longest > max(self.lead_in, 1) else 0


def add_lead_in(driving: torch.Tensor, spec: ClipSpec) -> torch.Tensor:
    """Put blank frames in front of a driver (B, C, T, H, W) in [-1, 1] and cut it to the clip's length.

    Raises:
        ValueError: fewer driving frames than the clip needs, with the longest length that they would fill.
    """
    available = driving.shape[2]
    if available < spec.driven:
        longest = spec.longest_for(available)
        shorten = f"set length to at most {longest} or " if longest else ""
        raise ValueError(
            f"got {available} driving frame{'s' * (available != 1)} at {spec.fps:g} fps, expected {spec.driven} (length "
            f"{spec.frames} less the lead-in of {spec.lead_in}); {shorten}use a longer driver"
        )
    blank = driving.new_full((*driving.shape[:2], spec.lead_in, *driving.shape[3:]), BLANK)
    return torch.cat([blank, driving[:, :, : spec.driven]], dim=2)


def trim_lead_in(video: torch.Tensor, spec: ClipSpec) -> torch.Tensor:
    """Cut the lead-in from a result (B, C, T, H, W)."""
    return video[:, :, spec.lead_in :]


def fit_frames(frames: torch.Tensor, height: int, width: int, fit: Fit, pad: float = -1.0) -> torch.Tensor:
    """Bring frames (N, C, H, W) to another size without stretching them.

    Args:
        fit: `letterbox` shows everything and pads with `pad` (black in [-1, 1]); `crop` fills the frame and cuts
            what stands out, evenly on both sides.
    """
    source_height, source_width = frames.shape[-2:]
    if (source_height, source_width) == (height, width):
        return frames
    pick = min if fit == "letterbox" else max
    scale = pick(width / source_width, height / source_height)
    new_height, new_width = max(1, round(source_height * scale)), max(1, round(source_width * scale))
    # not "area": its windows of whole pixels move parts of the picture by half a pixel unless the ratio is whole
    resized = F.interpolate(frames, size=(new_height, new_width), mode="bicubic", antialias=True).clamp(-1, 1)
    top, left = (height - new_height) // 2, (width - new_width) // 2
    if fit == "crop":
        return resized[..., -top : -top + height, -left : -left + width]
    return F.pad(resized, (left, width - new_width - left, top, height - new_height - top), value=pad)


def check_size(height: int, width: int, multiple: int = 16) -> None:
    """Raises ValueError naming the nearest allowed sizes unless both sides are positive multiples of `multiple`."""
    wrong = []
    for name, value in (("width", width), ("height", height)):
        if value < multiple or value % multiple:
            low = max(multiple, value // multiple * multiple)
            wrong.append(f"{name} is {value}, the nearest are {low} and {low + multiple}")
    if wrong:
        raise ValueError(f"width and height must be divisible by {multiple}: {'; '.join(wrong)}")

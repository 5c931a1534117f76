"""What of a video and a picture a model is shown: few frames, small, as JPEG."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

SECONDS = 5.0
"""A motion text covers this much of a video, from its beginning."""


@dataclass(frozen=True)
class Budget:
    """How much of a driver is sent.

    Attributes:
        fps: Frames per second of the first `SECONDS`.
        longest_side: Pixels; larger pictures are made smaller, smaller ones stay.
    """

    fps: float = 4.0
    longest_side: int = 512

    def __post_init__(self) -> None:
        if not 0.2 <= self.fps <= 30:  # NaN neither
            raise ValueError(f"the sampling rate is {self.fps}, expected 0.2 to 30 frames per second; correct it")
        if not 64 <= self.longest_side <= 4096:
            raise ValueError(f"the longest side is {self.longest_side}, expected 64 to 4096 pixels; correct it")

    @property
    def frames(self) -> int:
        """Frames of a video that is long enough."""
        return math.ceil(SECONDS * self.fps)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that a picture is sent in."""
        scale = min(1.0, self.longest_side / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))


QUALITY = 85
"""Of the JPEG encoding."""


def shrink(picture: np.ndarray, budget: Budget) -> np.ndarray:
    """An RGB uint8 picture (H, W, 3) in the size that it is sent in, itself if that is its own."""
    from PIL import Image  # not at start-up

    height, width = budget.size(*picture.shape[:2])
    if (height, width) == picture.shape[:2]:
        return picture
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def encode(pictures: Iterable[np.ndarray], budget: Budget) -> list[bytes]:
    """JPEG files of RGB uint8 pictures (H, W, 3), which are asked for one by one."""
    from PIL import Image  # not at start-up

    files = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(shrink(picture, budget))).save(buffer, "JPEG", quality=QUALITY)
        files.append(buffer.getvalue())
    return files

"""Filtered copies of a clip: the same shapes in other colours, or as outlines.

Beside its clip in a split screen, such a copy cannot be matched by colour, only by place and time. A network that learns to
use it learns to look across panels at the same place, which is what a driver in the other panel asks of it.
"""

from __future__ import annotations

import cv2
import numpy as np

FILTERS = ("negative", "recoloured copy", "outlines")
"""Names, as captions have them."""
_SHARES = (0.2, 0.3, 0.5)
_EDGES = (40, 120)  # Canny's thresholds
_SCALE = 4  # clips are enlarged for their outlines, so that lines may be thinner than a pixel is wide


def filtered(frames: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A filtered copy of RGB uint8 frames (T, H, W, 3), and the filter's name. Lines and hues are the same in all frames."""
    name = str(rng.choice(FILTERS, p=_SHARES))
    if name == "negative":
        return 255 - frames, name
    if name == "recoloured copy":
        turn = int(rng.integers(30, 150))
        return np.stack([_rotate_hue(frame, turn) for frame in frames]), name
    line = rng.integers(90, 256, 3).astype(np.float32)
    return np.stack([_outlines(frame, line) for frame in frames]), name


def _rotate_hue(frame: np.ndarray, turn: int) -> np.ndarray:
    """Hue turned by `turn` of OpenCV's 180 steps."""
    hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int32) + turn) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _outlines(frame: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Edges as lines of one colour on black."""
    large = cv2.resize(frame, None, fx=_SCALE, fy=_SCALE, interpolation=cv2.INTER_CUBIC)
    edges = cv2.dilate(cv2.Canny(large, *_EDGES, L2gradient=True), np.ones((5, 5), np.uint8))
    share = cv2.resize(edges, frame.shape[1::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return (share[..., None] * line).round().astype(np.uint8)

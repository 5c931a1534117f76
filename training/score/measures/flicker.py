"""How much a clip flickers where nothing moves."""

from __future__ import annotations

import cv2
import numpy as np

from .clip import Pair, camera_of, flows, small, somebody


class Flicker:
    """Mean absolute second difference over time, in [0, 1] of the brightness range, where nothing should move; lower is better.

    |v[t - 1] - 2 v[t] + v[t + 1]| / 4 of the result v, both neighbours moved to frame t as its camera moves, over the pixels
    farther than a tenth of the height from the limbs of the poses that drove it; over all pixels where these fill the picture. A
    clip that gets steadily brighter has none, one that jumps to and fro has all.
    """

    name, version, higher_is_better = "flicker", 2, False
    _FEW = 0.02  # share of pixels under which the rest of the picture says nothing

    def __call__(self, pair: Pair) -> float | None:
        """None for a clip of fewer than three frames."""
        if len(pair.result) < 3:
            return None
        result = small(pair.result)
        height, width = result.shape[1:3]
        reach = max(3, round(0.2 * height)) | 1
        masks = somebody(pair, pair.driven_by, height, width)
        near = cv2.dilate(masks.any(0).astype(np.uint8), np.ones((reach, reach), np.uint8)).astype(bool)
        still = ~near if (~near).mean() >= self._FEW else np.ones_like(near)
        moves = flows(result)
        values = []
        for t in range(1, len(result) - 1):
            before = _moved(result[t - 1], -camera_of(moves[t - 1]))
            after = _moved(result[t + 1], camera_of(moves[t]))
            second = np.abs(before - 2 * result[t].astype(np.float32) + after).mean(-1) / (4 * 255)
            values.append(float(second[still & ~np.isnan(second)].mean()) if (still & ~np.isnan(second)).any() else 0.0)
        return float(np.mean(values))


def _moved(frame: np.ndarray, by: np.ndarray) -> np.ndarray:
    """The frame as seen at x + by(x): float32 (H, W, 3), nan from beyond its edge."""
    height, width = by.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32) + by
    picture = frame.astype(np.float32)
    beyond = (np.nan,) * 4
    return cv2.remap(picture, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=beyond)

"""Motion agreement without a pose estimator: optical flow of both clips inside the driver's limbs."""

from __future__ import annotations

import cv2
import numpy as np

from .clip import Pair, flows, resized, small, somebody


class FlowMotion:
    """Agreement of the two clips' motion fields around the driver's limbs, in [0, 1]; 1: the same motion.

    With a, b the flow of source and result (DIS flow, blurred over a limb's width, between successive frames, over all places
    x within the source's limbs and all frames t):

        max(0, 2 sum a.b / (sum a.a + sum b.b))

    which is 0 for a result that stands still and for one that moves otherwise. It knows of no joints: how far it can rise
    hangs on how alike the two bodies are, so compare it with itself (`filter.keep_best`), not with a fixed number. Where a
    source moves less than `_STILL` pixels a frame, a result that does so too gets 1.
    """

    name, version, higher_is_better = "motion_flow", 1, True
    _STILL = 0.02  # of 160 pixels, root mean square over the limbs

    def __call__(self, pair: Pair) -> float | None:
        """None for a clip of a single frame."""
        if len(pair.result) < 2:
            return None
        source = small(pair.source)
        height, width = source.shape[1:3]
        result = resized(pair.result, height, width)
        masks = somebody(pair, height, width)[:-1]
        wide = max(3, round(0.05 * max(height, width)) | 1)
        kernel = np.ones((wide, wide), np.uint8)
        where = np.stack([cv2.dilate(mask.astype(np.uint8), kernel) for mask in masks]).astype(bool)
        a, b = (np.stack([cv2.GaussianBlur(flow, (0, 0), wide / 2) for flow in flows(clip)])[where] for clip in (source, result))
        return _agreement(a, b, self._STILL)


def _agreement(a: np.ndarray, b: np.ndarray, still: float) -> float:
    """Of vectors (N, 2)."""
    if not len(a):
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    energy = float((a * a).sum() + (b * b).sum())
    if energy <= 2 * len(a) * still**2:
        return 1.0
    return max(0.0, 2 * float((a * b).sum()) / energy)

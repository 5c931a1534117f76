"""Motion agreement without a pose estimator: optical flow of both clips inside the driver's limbs."""

from __future__ import annotations

import cv2
import numpy as np

from dreamactor_core.poses import PoseSequence

from .clip import Pair, flows, resized, small, somebody


class FlowMotion:
    """Agreement of the two clips' motion fields around the driver's limbs, in [0, 1]; 1: the same motion.

    A result that stands elsewhere, or in another size, by the poses that drove it is brought to the source's place first: by the
    similarity of the boxes around both over the whole clip. With a, b the flow of source and result (DIS flow, blurred over a
    limb's width, between successive frames, over all places x within the source's limbs that the result's picture covers, and
    all frames t):

        max(0, 2 sum a.b / (sum a.a + sum b.b))

    which is 0 for a result that stands still and for one that moves otherwise. It knows of no joints: how far it can rise
    hangs on how alike the two bodies are, so compare it with itself (`filter.keep_best`), not with a fixed number. Where a
    source moves less than `_STILL` pixels a frame, a result that does so too gets 1.
    """

    name, version, higher_is_better = "motion_flow", 2, True
    _STILL = 0.02  # of 160 pixels, root mean square over the limbs

    def __call__(self, pair: Pair) -> float | None:
        """None for a clip of a single frame."""
        if len(pair.result) < 2:
            return None
        source = small(pair.source)
        height, width = source.shape[1:3]
        result, covered = _in_place(resized(pair.result, height, width), pair)
        masks = somebody(pair, pair.poses, height, width)[:-1]
        wide = max(3, round(0.05 * max(height, width)) | 1)
        kernel = np.ones((wide, wide), np.uint8)
        where = np.stack([cv2.dilate(mask.astype(np.uint8), kernel) for mask in masks]).astype(bool) & covered
        a, b = (np.stack([cv2.GaussianBlur(flow, (0, 0), wide / 2) for flow in flows(clip)])[where] for clip in (source, result))
        return _agreement(a, b, self._STILL)


def _in_place(result: np.ndarray, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """The result's frames (T, H, W, 3) with its character in the source's place and size; where there is picture, bool (H, W)."""
    height, width = result.shape[1:3]
    whole = np.ones((height, width), bool)
    if pair.poses is None or pair.result_poses is None:
        return result, whole
    source, own = _box(pair.poses.fitted(height, width)), _box(pair.result_poses.fitted(height, width))
    if source is None or own is None or np.allclose(source, own, atol=0.01):
        return result, whole
    scale = np.linalg.norm(source[1] - source[0]) / np.linalg.norm(own[1] - own[0])
    shift = (source.mean(0) - scale * own.mean(0))[:, None]
    matrix = np.concatenate([scale * np.eye(2), shift], 1)
    moved = [cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE) for frame in result]
    return np.stack(moved), cv2.warpAffine(whole.astype(np.uint8), matrix, (width, height)).astype(bool)


def _box(poses: PoseSequence) -> np.ndarray | None:
    """Corners (2, 2), each x and y in pixels, of the box around all joints of the bodies over the whole clip; None for none."""
    joints = [person.body[person.body[:, 2] > 0, :2] for people in poses.frames for person in people]
    seen = np.concatenate(joints) if joints else np.zeros((0, 2))
    if not len(seen) or not np.ptp(seen, axis=0).any():
        return None
    return np.stack([seen.min(0), seen.max(0)]).astype(np.float64)


def _agreement(a: np.ndarray, b: np.ndarray, still: float) -> float:
    """Of vectors (N, 2)."""
    if not len(a):
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    energy = float((a * a).sum() + (b * b).sum())
    if energy <= 2 * len(a) * still**2:
        return 1.0
    return max(0.0, 2 * float((a * b).sum()) / energy)

"""Whether the clip still shows the character it was made from, by the colours of its parts."""

from __future__ import annotations

import cv2
import numpy as np

from .clip import Pair, cropped, limb_masks, small

_LOOKS = 8  # frames that are looked at, spread over the clip
_BANDS = 3


class Identity:
    """Likeness of the character's colours in reference and result, in [0, 1]; 1: the same.

    The reference is cropped to the result's aspect ratio, as it was for the teacher. The subject is cut out of the reference
    and of frames of the result by GrabCut; it begins from the limbs of the poses that drove the result, where these are known,
    and from the middle of the picture else. Of both subjects a histogram in CIE Lab is taken, whole and in three bands from top
    to bottom (head, trunk, legs); the measure is the mean Bhattacharyya coefficient of these, the whole counting as much as the
    bands together, and the mean over frames.
    """

    name, version, higher_is_better = "identity", 2, True

    def __call__(self, pair: Pair) -> float | None:
        """None without a reference."""
        if pair.reference is None:
            return None
        picks = np.unique(np.linspace(0, len(pair.result) - 1, _LOOKS).round().astype(int))
        result = small(pair.result[picks])
        height, width = result.shape[1:3]
        reference = cropped(pair.reference, height, width)
        wanted = _histograms(reference, subject(reference, None))
        poses = pair.driven_by
        limbs = [None] * len(picks) if poses is None else list(limb_masks(poses[picks.tolist()], height, width))
        values = [_likeness(wanted, _histograms(frame, subject(frame, mask))) for frame, mask in zip(result, limbs, strict=True)]
        return float(np.mean(values))


def subject(picture: np.ndarray, limbs: np.ndarray | None) -> np.ndarray:
    """Where the character is in an RGB picture: bool (H, W)."""
    height, width = picture.shape[:2]
    kinds = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    if limbs is not None and limbs.any():
        kinds[limbs] = cv2.GC_PR_FGD
        reach = max(3, round(0.2 * height))
        near = cv2.dilate(limbs.astype(np.uint8), np.ones((reach, reach), np.uint8)).astype(bool)
        kinds[~near] = cv2.GC_BGD
    else:
        rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        kinds[(rows / 0.8) ** 2 + (columns / 0.55) ** 2 < 1] = cv2.GC_PR_FGD
    edge = max(1, round(0.03 * height))
    kinds[:edge], kinds[:, :edge], kinds[:, -edge:] = cv2.GC_BGD, cv2.GC_BGD, cv2.GC_BGD
    if not (kinds == cv2.GC_PR_FGD).any():
        return np.ones((height, width), bool)
    cv2.setRNGSeed(0)  # of this thread: the same clip gets the same number
    before = kinds == cv2.GC_PR_FGD
    cv2.grabCut(np.ascontiguousarray(picture), kinds, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    found = (kinds == cv2.GC_FGD) | (kinds == cv2.GC_PR_FGD)
    return found if found.sum() > 0.1 * before.sum() else before


def _histograms(picture: np.ndarray, where: np.ndarray) -> list[np.ndarray]:
    """Of the whole subject, then of its bands; each sums to 1."""
    lab = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2LAB)
    rows = np.flatnonzero(where.any(1))
    edges = np.linspace(rows[0], rows[-1] + 1, _BANDS + 1).round().astype(int)
    bands = [(edges[k], edges[k + 1]) for k in range(_BANDS)]
    return [_histogram(lab[a:b], where[a:b]) for a, b in [(0, len(lab)), *bands]]


def _histogram(lab: np.ndarray, where: np.ndarray) -> np.ndarray:
    counts = cv2.calcHist([lab], [0, 1, 2], where.astype(np.uint8), [6, 16, 16], [0, 256] * 3)
    soft = np.stack([cv2.GaussianBlur(plane, (0, 0), 0.8) for plane in counts])  # the same cloth in other light
    return soft / max(float(soft.sum()), 1e-9)


def _likeness(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    values = [float(np.sqrt(x * y).sum()) for x, y in zip(a, b, strict=True)]
    return min(1.0, (values[0] + float(np.mean(values[1:]))) / 2)

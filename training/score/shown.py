"""Which frames of a clip a model is shown to grade it, and how they are put together.

Video-Bench (Han et al., 2025, arXiv 2504.04907, and its public code) shows a model two frames a second and the last one for
imaging and aesthetic quality, and rows of eight frames, at eight frames a second, one row a picture, for temporal consistency
and motion effects. This follows it in these numbers, and gives the paper's two consistencies of character and background the
single frames. Three things differ: frames are taken by their time, where its whole-number steps would show a clip of 12 fps
at 12 and not at 8; a last row that is not full is shown, where it is dropped there, as it may be a fifth of a short clip; and
each clip is graded alone, without frames of other models' results beside it, for there are none.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from dreamactor_core.clips import resample_rate
from dreamactor_core.text.budget import Budget, encode, shrink

VERSION = "1"
"""Raised when a model would be shown something else of the same clip: kept answers of another version are not used."""
SINGLE_FPS, ROW_FPS, ROW = 2.0, 8.0, 8
SINGLE_BUDGET, ROW_BUDGET = Budget(SINGLE_FPS, 768), Budget(ROW_FPS, 320)

SHOWN: dict[str, Literal["single", "rows"]] = {
    "imaging_quality": "single",
    "aesthetic_quality": "single",
    "temporal_consistency": "rows",
    "motion_smoothness": "rows",
    "appearance_consistency": "single",
    "background_consistency": "single",
}
"""How each dimension is shown a clip."""
WITH_REFERENCE = ("appearance_consistency", "background_consistency")


def singles(frames: np.ndarray, fps: float) -> list[np.ndarray]:
    """Two frames a second of (T, H, W, 3), and the last."""
    picks = list(resample_rate(len(frames), fps, min(fps, SINGLE_FPS)))
    return [frames[t] for t in dict.fromkeys([*picks, len(frames) - 1])]


def rows(frames: np.ndarray, fps: float) -> list[np.ndarray]:
    """Eight frames a second of (T, H, W, 3), side by side in rows of eight; the last row has the rest."""
    picked = [shrink(frames[t], ROW_BUDGET) for t in resample_rate(len(frames), fps, min(fps, ROW_FPS))]
    return [np.concatenate(picked[k : k + ROW], 1) for k in range(0, len(picked), ROW)]


def question_pictures(dimension: str, frames: np.ndarray, fps: float, reference: np.ndarray | None) -> tuple[list[bytes], str]:
    """JPEG files of what a model is shown for a dimension, and the sentence that says what they are.

    Args:
        frames: RGB uint8 (T, H, W, 3).
        reference: RGB uint8 (H, W, 3); shown for the dimensions of `WITH_REFERENCE`.
    """
    first, sentence = [], ""
    if reference is not None and dimension in WITH_REFERENCE:
        first = encode([reference], SINGLE_BUDGET)
        sentence = "The first picture is the reference image that the video was made from. "
    if SHOWN[dimension] == "single":
        pictures = encode(singles(frames, fps), SINGLE_BUDGET)
        told = f"{len(pictures)} frames of the video in the order of time, {min(fps, SINGLE_FPS):g} per second and the last"
    else:
        pictures = encode(rows(frames, fps), Budget(ROW_FPS, ROW * ROW_BUDGET.longest_side))
        told = (
            f"the video in the order of time: each of the {len(pictures)} pictures is a row of up to {ROW} frames that follow each "
            f"other from left to right, {min(fps, ROW_FPS):g} frames per second"
        )
    return first + pictures, f"{sentence}You are shown {told}."

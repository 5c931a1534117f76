"""How close a result is to the true answer, beside the control of a reference that is held still."""

from __future__ import annotations

import math

import numpy as np

MOVING = 0.1
"""A pixel moves when it differs from the held-still reference by more than this, in any channel of [0, 1]."""

KEYS = {
    "frames": "compared frames (the lead-in is not among them)",
    "moving_fraction": f"share of moving pixels: truth and still reference differ by more than {MOVING} in a channel",
    "psnr": "dB over the moving pixels, result against truth",
    "psnr_still": "dB over the moving pixels, the reference held still against truth: the control to be beaten",
    "psnr_all": "dB over all pixels, result against truth",
    "psnr_all_still": "dB over all pixels, the reference held still against truth",
}
"""What the figures mean; written into metrics.json."""


def psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray | None = None) -> float:
    """10 log10(1 / mean squared error), in dB, of values in [0, 1], over the pixels `where` (all axes but the channel).

    nan when no pixel is chosen, inf when they are equal.
    """
    square = (np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2
    chosen = square if where is None else square[where]
    if not chosen.size:
        return math.nan
    error = float(chosen.mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def moving_region(truth: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(T, H, W): where the truth (T, H, W, 3) differs from the still reference (H, W, 3) by more than MOVING of [0, 1] in a
    channel; both uint8."""
    return (np.abs(truth.astype(np.float32) - reference.astype(np.float32)) / 255 > MOVING).any(-1)


def against_truth(result: np.ndarray, truth: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """The figures of `KEYS`.

    Args:
        result, truth: uint8, (T, H, W, 3).
        reference: uint8, (H, W, 3), of the same size.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    if result.shape != truth.shape or reference.shape != truth.shape[1:]:
        raise ValueError(
            f"got a result {result.shape}, a truth {truth.shape} and a reference {reference.shape}; expected the same "
            f"frames, height and width, so that pixels can be compared"
        )
    made, true, still = (picture.astype(np.float32) / 255 for picture in (result, truth, reference))
    held = np.broadcast_to(still, true.shape)
    moving = moving_region(truth, reference)
    return {
        "frames": len(true),
        "moving_fraction": float(moving.mean()),
        "psnr": psnr(made, true, moving),
        "psnr_still": psnr(held, true, moving),
        "psnr_all": psnr(made, true),
        "psnr_all_still": psnr(held, true),
    }

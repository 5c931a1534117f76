"""Motion in depth: how much larger a body is in each frame than in others, because it comes nearer or the camera zooms.

Bones get shorter in a picture for other reasons too: whoever turns, bows, sits or squats foreshortens some of them. Motion in
depth is what changes all of them alike, and slowly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_KNOT = 8  # frames between two values of the curve; a squat is not followed in detail
_KNOTS = 64  # of a long clip
_FRAMES = 512  # of a long clip that are fitted
_STIFF = 3.0
_UPPER = 0.85  # foreshortening only shortens: what is longer than expected counts so much more than what is shorter
_ROUGH = 0.05  # residuals larger than this count by their size, not its square: a glitch tells little
_STEPS = 30
_RANGE = (1.12, 1.25)  # largest size to smallest: below the first it is estimation error, above the second motion in depth
_AGREE = (0.4, 0.7)  # shares of the common change that the part changing least must show, likewise


def upper_fit(design: np.ndarray, values: np.ndarray, upper: float, rough: float, stiff: np.ndarray | None = None) -> np.ndarray:
    """Coefficients (n,) with which `design` (m, n) passes the upper `values` (m,), by asymmetric least squares.

    Args:
        upper: Weight of a value above, against 1 - `upper` of one below; near 1 the curve passes the largest ones.
        rough: Residual, in the values' unit, beyond which one counts by its size only.
        stiff: Quadratic penalty (n, n) on the coefficients.
    """
    weight = np.ones(len(values))
    penalty = 1e-9 * np.eye(design.shape[1]) + (0 if stiff is None else stiff)
    found = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        weighted = design * weight[:, None]
        found = np.linalg.solve(design.T @ weighted + penalty, weighted.T @ values)
        off = values - design @ found
        weight = np.where(off > 0, upper, 1 - upper) * np.minimum(1, rough / np.maximum(np.abs(off), 1e-12))
    return found


def motion_in_depth(lengths: np.ndarray, groups: Sequence[Sequence[int]]) -> tuple[np.ndarray, float]:
    """Size of a body over time, out of how long its parts look.

    Args:
        lengths: Pixels (T, parts), NaN where not seen.
        groups: Parts that a turn or a bow does not shorten together, each with the stand-ins for where it does not tell. At least
            two groups must show the change, all that tell must, else it is none.

    Returns:
        Natural logarithm of the size (T,), up to a constant, and how surely it is motion in depth: 0 (all are 0 then) to 1.
    """
    still = np.zeros(len(lengths)), 0.0
    seen = np.isfinite(lengths) & (lengths > 0)
    thin = -(-len(lengths) // _FRAMES)
    frames, parts = np.nonzero(seen[::thin])
    frames *= thin
    if not len(frames):
        return still
    knots = int(np.clip(round((len(lengths) - 1) / _KNOT) + 1, 1, _KNOTS))
    if knots < 3:
        return still
    place = np.linspace(0, knots - 1, len(lengths))
    hats = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(knots)))
    bends = np.diff(np.eye(knots + lengths.shape[1])[:, :knots], 2, axis=1)
    values = np.log(lengths[frames, parts])
    design = np.concatenate([hats[frames], np.eye(lengths.shape[1])[parts]], 1)
    curve = hats @ upper_fit(design, values, _UPPER, _ROUGH, _STIFF * bends @ bends.T)[:knots]
    shown = curve[seen.any(1)]
    extent = np.interp(np.ptp(shown), np.log(_RANGE), [0, 1])
    slopes = np.full(lengths.shape[1], np.nan)
    for part in range(lengths.shape[1]):
        there = seen[:, part]
        # a part that is seen for a piece of the way only does not tell
        if there.any() and np.ptp(curve[there]) > 0.5 * np.ptp(shown) > 0:
            change = curve[there] - curve[there].mean()
            slopes[part] = change @ np.log(lengths[there, part]) / (change @ change)
    told = [next((slopes[part] for part in group if np.isfinite(slopes[part])), np.nan) for group in groups]
    told = [slope for slope in told if np.isfinite(slope)]
    sure = float(extent * np.interp(min(told), _AGREE, [0, 1])) if len(told) > 1 else 0.0
    return (curve * sure, sure) if sure else still

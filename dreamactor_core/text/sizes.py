"""How large somebody is in each frame of the picture, next to the rest of the clip: walking up to the camera, zooming."""

from __future__ import annotations

import numpy as np

_GROUPS = (
    ((1, 8), (1, 11)),  # trunk
    ((2, 5), (8, 11)),  # widths
    ((0, 1), (14, 15)),  # head
    ((2, 3), (3, 4), (5, 6), (6, 7)),  # arms
    ((8, 9), (9, 10), (11, 12), (12, 13)),  # legs
)
"""Pairs of joints by the part of the body. Each part can look shorter by itself: a bow, a turn, an arm towards the viewer."""
_LEAST_GROUPS = 2
_ROUNDS = 4


def _middle(values: np.ndarray) -> np.ndarray:
    """Median over the rows (K, T) -> (T,) of what is seen; of the middle two the one nearer to no change."""
    count = np.isfinite(values).sum(0)
    ordered = np.sort(values, axis=0)  # NaN last
    frames = np.arange(values.shape[1])
    low, high = ordered[np.maximum(count - 1, 0) // 2, frames], ordered[count // 2, frames]
    return np.where(np.abs(low) <= np.abs(high), low, high)


def _lengths(body: np.ndarray, pairs: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Logarithms (K, T) of the pairs' distances, NaN where not seen."""
    lengths = np.stack([np.hypot(*(body[:, a] - body[:, b]).T) for a, b in pairs])
    return np.log(np.where(lengths > 1e-3, lengths, np.nan))


def _usual(values: np.ndarray) -> np.ndarray:
    """Median over time, (K, T) -> (K, 1), NaN for rows of which nothing is seen."""
    return _middle(values.T)[:, None]


def size_of(body: np.ndarray) -> np.ndarray:
    """Logarithm (T,) of the size of a body (T, 18, 2) in each frame; 0 is its usual size.

    What most parts of the body agree on, as log length = usual log length + size, solved by taking medians in turn. Where
    fewer than two parts are seen, the size is what it is in the frames around.
    """
    groups = [_lengths(body, pairs) for pairs in _GROUPS]
    size = np.zeros(len(body))
    for _ in range(_ROUNDS):
        changes = np.stack([_middle(lengths - _usual(lengths - size)) for lengths in groups])
        known = np.isfinite(changes).sum(0) >= _LEAST_GROUPS
        if not known.any():
            return np.zeros(len(body))
        frames = np.arange(len(body))
        size = np.interp(frames, frames[known], _middle(changes)[known])
    return size - np.median(size)

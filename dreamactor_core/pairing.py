"""Which of those who were there before is which of those who are there now: all pairs of a frame chosen together."""

from __future__ import annotations

import numpy as np

_NEAR, _FARTHER = 1.0, 0.1
_IMPOSSIBLE = 1e6  # large against any sum of possible costs


def reach(gap: np.ndarray | int) -> np.ndarray | float:
    """Body sizes that somebody may be off where they should be, who was seen `gap` frames ago (1 is the frame before)."""
    return _NEAR + _FARTHER * (gap - 1)


def matched(costs: np.ndarray) -> list[tuple[int, int]]:
    """Rows and columns of (n, m) costs that go together: as many pairs of finite cost as can be, at the least cost in all."""
    from scipy.optimize import linear_sum_assignment  # the host has it; not at start-up

    possible = np.isfinite(costs)
    rows, columns = linear_sum_assignment(np.where(possible, costs, _IMPOSSIBLE))
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if possible[i, j]]

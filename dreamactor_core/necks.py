"""Where a person's neck is, or would be: the point that bones are scaled about.

Estimators that make the neck out of both shoulders lose it as soon as one of them is unsure. The body is there all the
same, and must not change its size for those frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .poses import BODY, Person

NECK = 1

_STAND_INS = ((2, 5), (2,), (5,), (0,), (8, 11), (8,), (11,))
"""Joints whose middle tells where the neck is, the best first: the nearer to it, the less their own motion matters."""

_OUTWARDS = (14, 15, 16, 17, 3, 6, 4, 7, 9, 12, 10, 13)
"""The other joints, the nearest to the neck first."""


def steady(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values (T, ...) of unknown frames interpolated from the known ones, held beyond the first and the last."""
    time = np.arange(len(values))
    flat = values.reshape(len(values), -1)
    filled = [np.interp(time, time[known], column[known]) for column in flat.T]
    return np.stack(filled, 1).reshape(values.shape)


def necks(people: Sequence[Person]) -> np.ndarray:
    """Neck of one person in each frame, (T, 2) in pixels.

    Where it is not seen, the best stand-in that is seen tells: the neck is as far from it as in the frames around that
    show both. Without a stand-in it is between where it was and where it will be. In a clip that never shows it, the
    stand-in itself takes its place, else the nearest joint that is seen; NaN in frames without any joint of the body.
    """
    bodies = np.array([person.body for person in people], np.float64).reshape(len(people), BODY, 3)
    xy, seen = bodies[..., :2], bodies[..., 2] > 0
    known = seen[:, NECK]
    found = np.where(known[:, None], xy[:, NECK], np.nan)
    for joints in (*_STAND_INS, *((joint,) for joint in _OUTWARDS)):
        here, middle = seen[:, joints].all(1), xy[:, joints].mean(1)
        lost = here & np.isnan(found[:, 0])
        if (known & here).any() and joints in _STAND_INS:
            found[lost] = (middle + steady(xy[:, NECK] - middle, known & here))[lost]
        elif not known.any():
            found[lost] = middle[lost]
    return np.where(np.isnan(found), steady(found, known), found) if known.any() else found

"""Smoothing of poses over time: jitter goes, timing stays. For whole clips, not for live use.

Each coordinate is fitted by a parabola over the frames around it (local quadratic regression, Savitzky and Golay 1964,
with weights). Looking as far ahead as back, it has no lag; being weighted, it needs no filled gaps and no invented
frames beyond the ends, and a joint that the estimator doubts counts less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .poses import Person, PoseSequence

REACH = 4
"""Frames looked at on each side."""

LONG_LOSS = 2
"""A joint that was not seen for more frames than this begins anew: nothing is known of what it did."""

FARTHEST_MOVE = 0.019
"""Share of the body's height by which a joint is moved at most: beyond that it is motion too fast for a parabola, not
jitter."""

_JUMP = 0.25  # of the body's height between two frames: a cut, or another person under the same number


def _tracks(sequence: PoseSequence, who: int) -> np.ndarray:
    """Float64 (T, joints, 3) of one person, all groups after each other, zero where not there."""
    absent = np.concatenate(list(Person().groups().values()))
    frames = [
        np.concatenate(list(people[who].groups().values())) if who < len(people) else absent for people in sequence.frames
    ]
    return np.array(frames, np.float64)


def _height(tracks: np.ndarray, seen: np.ndarray) -> float:
    """Pixels from the highest to the lowest joint (or across, if that is more), in the middle of all frames."""
    sizes = [np.ptp(frame[there, :2], axis=0).max() for frame, there in zip(tracks, seen, strict=True) if there.any()]
    return float(np.median(sizes)) if sizes else 0.0


def _takes(tracks: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Number (T, joints) of the uninterrupted take that each sample belongs to: losses and jumps begin a new one."""
    count = len(tracks)
    time = np.arange(count)[:, None]
    last = np.maximum.accumulate(np.where(seen, time, -1), 0)
    lost = np.zeros_like(seen)
    lost[1:] = seen[1:] & (time[1:] - last[:-1] - 1 > LONG_LOSS)
    far = max(_JUMP * _height(tracks, seen), 1e-6)
    before: int | None = None
    for t in range(count):
        if not seen[t].any():
            continue
        if before is not None:
            both = seen[t] & seen[before]
            moved = np.linalg.norm(tracks[t, both, :2] - tracks[before, both, :2], axis=1)
            if not len(moved) or np.median(moved) > far:
                lost[t] = True
        before = t
    return np.cumsum(lost, 0)


def _shifted(values: np.ndarray, by: int) -> np.ndarray:
    """values[t + by], zero beyond the ends."""
    out = np.zeros_like(values)
    if abs(by) < len(values):
        if by >= 0:
            out[: len(values) - by] = values[by:]
        else:
            out[-by:] = values[:by]
    return out


def _smooth_tracks(tracks: np.ndarray, reach: int) -> np.ndarray:
    seen = tracks[..., 2] > 0
    takes = _takes(tracks, seen)
    moments = np.zeros((5, *seen.shape))  # sums of weight * offset^k
    products = np.zeros((3, *seen.shape, 2))  # the same times the coordinates
    for offset in range(-reach, reach + 1):
        x = offset / (reach + 1)
        kernel = (1 - abs(x) ** 3) ** 3  # tricube: no step where a frame comes into reach
        same = (_shifted(takes + 1, offset) == takes + 1) & _shifted(seen, offset)
        weight = kernel * np.where(same, _shifted(tracks[..., 2], offset), 0)
        for k in range(5):
            moments[k] += weight * x**k
        for k in range(3):
            products[k] += (weight * x**k)[..., None] * (_shifted(tracks[..., :2], offset) - tracks[..., :2])
    normal = np.stack([moments[k : k + 3] for k in range(3)])[..., seen].transpose(2, 0, 1)
    # the pseudo-inverse, because one or two frames do not make a parabola
    inverse = np.linalg.pinv(normal, rcond=1e-9, hermitian=True)
    move = np.einsum("nk,kni->ni", inverse[:, 0], products[:, seen])
    most = FARTHEST_MOVE * _height(tracks, seen)
    move *= np.minimum(1, most / np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-12))
    out = tracks.copy()
    out[seen, :2] += move
    return out


def smooth(sequence: PoseSequence, reach: int = REACH, progress: Callable[[int, int], None] | None = None) -> PoseSequence:
    """The sequence without jitter.

    Person k is taken for the same one in every frame, until a joint is lost for more than LONG_LOSS frames or the body
    jumps by a quarter of its height; what is before is then not mixed with what is after. What is not seen stays so.

    Args:
        reach: Frames looked at on each side; 0 changes nothing. Raises ValueError for a negative one.
        progress: Called before each person with how many are done, and of how many; raises to stop.
    """
    if reach < 0:
        raise ValueError(f"the reach is {reach} frames, expected 0 or more")
    if reach == 0:
        return sequence
    sizes = [len(points) for points in Person().groups().values()]
    frames: list[list[Person]] = [[] for _ in sequence.frames]
    most = max((len(people) for people in sequence.frames), default=0)
    for who in range(most):
        if progress is not None:
            progress(who, most)
        smoothed = _smooth_tracks(_tracks(sequence, who), reach).astype(np.float32)
        for t, people in enumerate(sequence.frames):
            if who < len(people):
                groups = np.split(smoothed[t], np.cumsum(sizes)[:-1])
                frames[t].append(Person(**dict(zip(people[who].groups(), groups, strict=True))))
    return replace(sequence, frames=frames)

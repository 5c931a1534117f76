"""Smoothing of poses over time: jitter goes, timing stays. For whole clips, not for live use.

Each coordinate is fitted by a parabola over the frames around it (local quadratic regression, Savitzky and Golay 1964,
with weights). Looking as far ahead as back, it has no lag; being weighted, it needs no filled gaps and no invented
frames beyond the ends, and a joint that the estimator doubts counts less.

A least-squares fit follows what is far off. So a joint that is elsewhere for one frame, while the frames on both sides agree with
each other on where it should be, is left out and put there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .augment import PARENTS, RIDERS
from .poses import Person, PoseSequence

REACH = 4
"""Frames looked at on each side."""

LONG_LOSS = 2
"""A joint that was not seen for more frames than this begins anew: nothing is known of what it did."""

FARTHEST_MOVE = 0.019
"""Share of the body's height by which a joint is moved at most: beyond that it is motion too fast for a parabola, not
jitter. Only a joint that is astray for a single frame goes further."""

_ASTRAY = 0.1  # of the body's height, and
_AGREED = 6.0  # times what its neighbours differ by: a blow that takes three frames out and back is nearer to them
_AGAIN, _BACK = 0.5, 1.5  # shares of `_ASTRAY`, and times what the neighbours differ by, that make another excursion
_ALONG = 0.25  # share of a joint's excursion that shows in the one next to it when the whole limb moves

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


def _together(off: np.ndarray, joint: int | slice, other: int) -> np.ndarray:
    """Whether `other` is off the same way as a joint in each frame: then the limb has moved."""
    along = (off[:, joint] * off[:, [other] if isinstance(joint, slice) else other]).sum(-1)
    return along > _ALONG * (off[:, joint] ** 2).sum(-1)


def _astray(tracks: np.ndarray, seen: np.ndarray, takes: np.ndarray, height: float) -> np.ndarray:
    """Samples (T, joints) that are far from where the frames on both sides, going on as they do, say that they are.

    Not where a joint next to it in the body goes along, nor where it happens again within reach: that is motion, if a fast one.
    """
    xy = np.where(seen[..., None], tracks[..., :2], np.nan)
    around = {}
    for offset in (-2, -1, 1, 2):
        same = (_shifted(takes + 1, offset) == takes + 1) & _shifted(seen, offset)
        around[offset] = np.where(same[..., None], _shifted(xy, offset), np.nan)
    said = np.stack([around[-1], around[1], 2 * around[-1] - around[-2], 2 * around[1] - around[2]])
    told = np.isfinite(said[..., 0])
    enough = seen & told[:2].all(0) & (told.sum(0) > 2)
    middle = np.where(told[..., None], said, 0).sum(0) / np.maximum(told.sum(0), 1)[..., None]
    differ = np.where(told, np.linalg.norm(said - middle, axis=-1), 0).max(0)
    off = np.where(enough[..., None], tracks[..., :2] - middle, 0)
    far = np.linalg.norm(off, axis=-1)
    alone = (far > _ASTRAY * height) & (far > _AGREED * differ)
    for joint, parent in PARENTS.items():
        alone[:, joint] &= ~_together(off, joint, parent)
        alone[:, parent] &= ~_together(off, parent, joint)
    start = 0
    for name, points in Person().groups().items():
        group = slice(start, start + len(points))
        if name in RIDERS:
            alone[:, group] &= ~(_together(off, group, RIDERS[name]) & ~alone[:, RIDERS[name], None])
        start = group.stop
    out_and_back = (far > _AGAIN * _ASTRAY * height) & (far > _BACK * differ)
    again = sum(_shifted(out_and_back.astype(int), offset) for offset in range(-REACH, REACH + 1)) > 1
    return alone & ~again


def _smooth_tracks(tracks: np.ndarray, reach: int) -> np.ndarray:
    seen = tracks[..., 2] > 0
    takes, height = _takes(tracks, seen), _height(tracks, seen)
    astray = _astray(tracks, seen, takes, height)
    trusted = seen & ~astray
    moments = np.zeros((5, *seen.shape))  # sums of weight * offset^k
    products = np.zeros((3, *seen.shape, 2))  # the same times the coordinates
    for offset in range(-reach, reach + 1):
        x = offset / (reach + 1)
        kernel = (1 - abs(x) ** 3) ** 3  # tricube: no step where a frame comes into reach
        same = (_shifted(takes + 1, offset) == takes + 1) & _shifted(trusted, offset)
        weight = kernel * np.where(same, _shifted(tracks[..., 2], offset), 0)
        for k in range(5):
            moments[k] += weight * x**k
        for k in range(3):
            products[k] += (weight * x**k)[..., None] * (_shifted(tracks[..., :2], offset) - tracks[..., :2])
    normal = np.stack([moments[k : k + 3] for k in range(3)])[..., seen].transpose(2, 0, 1)
    # the pseudo-inverse, because one or two frames do not make a parabola
    inverse = np.linalg.pinv(normal, rcond=1e-9, hermitian=True)
    move = np.einsum("nk,kni->ni", inverse[:, 0], products[:, seen])
    most = np.where(astray[seen], np.inf, FARTHEST_MOVE * height)[:, None]
    move *= np.minimum(1, most / np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-12))
    out = tracks.copy()
    out[seen, :2] += move
    return out


def smooth(sequence: PoseSequence, reach: int = REACH, progress: Callable[[int, int], None] | None = None) -> PoseSequence:
    """The sequence without jitter.

    Person k is taken for the same one in every frame, until a joint is lost for more than LONG_LOSS frames or the body
    jumps by a quarter of its height; what is before is then not mixed with what is after. What is not seen stays so. A joint that
    is astray for one frame, by a tenth of the body's height at least, goes to where its neighbours in time say.

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

"""What moves in a pose sequence: people followed through the frames, and their limbs as curves in body lengths.

Everything is told from joints in the plane of the picture: which limb is in front and which behind is not known here, and not
said. A body length grows and shrinks with the whole body, which comes nearer then or goes away, and moves no limb by that.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from ..order import steady_people
from ..poses import BODY, HAND, PoseSequence
from .sizes import size_of

THRESHOLD = 0.3
"""Joints of a lower confidence are guesses."""

_NOSE, _NECK, _HIPS = 0, 1, (8, 11)
_ARMS = {"right": (2, 3, 4), "left": (5, 6, 7)}
_LEGS = {"right": (8, 9, 10), "left": (11, 12, 13)}
SIDES = ("right", "left")

_FEW = 3  # joints; of whom fewer are seen, nothing can be told
_GAP = 0.5  # seconds of a loss that is bridged
_SMOOTH = 0.2  # seconds over which positions are averaged
_LEAST_SEEN = 0.2  # share of the frames in which somebody must be seen to count
_SIZE_SMOOTH = 0.3  # seconds over which the size is averaged
_SIZE_NOISE = 0.02  # spread of a size that does not change
_NEARER = 1.25
"""Body lengths that one unit of the logarithm of the size counts as: a quarter larger or a fifth smaller is told."""
_DEGREES = 40.0
"""An angle that counts as much as one body length: 12 degrees are the smallest movement that is told."""


@dataclass
class Track:
    """One person: body (T, 18, 2) and hands (T, 21, 2) in pixels, NaN where not seen."""

    body: np.ndarray
    hands: dict[str, np.ndarray]


def _points(points: np.ndarray) -> np.ndarray:
    return np.where(points[:, 2:] > THRESHOLD, points[:, :2], np.nan)


def follow(sequence: PoseSequence) -> list[Track]:
    """People from left to right as they first appear."""
    frames = steady_people(sequence).frames
    count = len(frames)
    tracks: list[Track] = []
    for who in range(max(map(len, frames), default=0)):
        track = Track(np.full((count, BODY, 2), np.nan), {side: np.full((count, HAND, 2), np.nan) for side in SIDES})
        for t, people in enumerate(frames):
            if who < len(people) and (people[who].body[:, 2] > THRESHOLD).sum() >= _FEW:
                track.body[t] = _points(people[who].body)
                track.hands["right"][t], track.hands["left"][t] = _points(people[who].right_hand), _points(people[who].left_hand)
        if np.isfinite(track.body).any():
            tracks.append(track)
    shares = [float(np.isfinite(track.body).any((1, 2)).mean()) for track in tracks]
    kept = [track for track, share in zip(tracks, shares, strict=True) if share >= min(_LEAST_SEEN, max(shares))]
    return sorted(kept, key=lambda track: float(np.nanmean(track.body[np.isfinite(track.body).any((1, 2))][0, :, 0])))


def _bridged(values: np.ndarray, gap: int) -> np.ndarray:
    """A curve (T,) with losses of up to `gap` frames filled in by straight lines."""
    seen = np.flatnonzero(np.isfinite(values))
    out = values.copy()
    for a, b in itertools.pairwise(seen):
        if 1 < b - a <= gap + 1:
            out[a + 1 : b] = np.interp(np.arange(a + 1, b), [a, b], values[[a, b]])
    return out


def _averaged(values: np.ndarray, reach: int) -> np.ndarray:
    """Mean over up to `reach` frames on both sides, as many on the one as on the other, over what is seen."""
    out = values.copy()
    for t in range(len(values)):
        r = min(reach, t, len(values) - 1 - t)
        window = values[t - r : t + r + 1]
        if np.isfinite(values[t]):
            out[t] = window[np.isfinite(window)].mean()
    return out


def _smooth(joints: np.ndarray, fps: float) -> np.ndarray:
    out = joints.copy()
    gap, reach = round(_GAP * fps), round(_SMOOTH * fps) // 2
    for j in range(joints.shape[1]):
        for axis in (0, 1):
            out[:, j, axis] = _averaged(_bridged(joints[:, j, axis], gap), reach)
    return out


def _median(values: np.ndarray) -> float | None:
    seen = values[np.isfinite(values)]
    return float(np.median(seen)) if len(seen) >= max(1, _LEAST_SEEN * len(values)) else None


def _high(values: np.ndarray, share: float = 95.0) -> float:
    seen = values[np.isfinite(values)]
    return float(np.percentile(seen, share)) if len(seen) else float("nan")


@dataclass
class Figure:
    """One person's limbs over time, in body lengths (neck to hips, at the size of the frame); NaN where not seen.

    Attributes:
        arms: Per side, (T, 2): how far out from the shoulder to that side, how far above it, of the hand.
        past_middle: Per side, (T,): how far the hand is from the neck towards its own side; negative is past the middle.
        elbows: Per side, (T,): the angle in degrees, 180 is straight.
        legs: Per side, (T,): how far out from the hip the foot is.
        lift: (T,) How far the right foot is above the left one.
        knees: (T,) How far the hips have come down towards the feet.
        lean, tilt: (T,) Of the trunk, and of the head against it, towards the own right side, in units of 40 degrees.
        across: (T,) Place of the body in the picture, growing to the right, in body lengths of the usual size.
        off_ground: (T,) Height of the lower foot above where it usually is at that size.
        nearer: (T,) How much larger the whole body is in the picture than usual, as `_NEARER` says.
        head: Height of the nose above the shoulders.
        backs: Per side, (T,): 1 where the back of the hand faces the viewer, -1 the palm, 0 where it cannot be told.
    """

    arms: dict[str, np.ndarray]
    past_middle: dict[str, np.ndarray]
    elbows: dict[str, np.ndarray]
    legs: dict[str, np.ndarray]
    lift: np.ndarray
    knees: np.ndarray
    lean: np.ndarray
    tilt: np.ndarray
    across: np.ndarray
    off_ground: np.ndarray
    nearer: np.ndarray
    head: float
    backs: dict[str, np.ndarray] = field(default_factory=dict)


def _unit(body: np.ndarray) -> float:
    """Pixels from neck to hips, from whatever is seen."""
    hips = (body[:, 8] + body[:, 11]) / 2
    shoulders = np.hypot(*(body[:, 2] - body[:, 5]).T)
    head = np.hypot(*(body[:, _NECK] - body[:, _NOSE]).T)
    trunk = _median(np.hypot(*(body[:, _NECK] - hips).T))
    if trunk is None and _median(shoulders) is not None:
        trunk = 1.3 * _high(shoulders, 90)  # turned to the side they look narrow
    if trunk is None and _median(head) is not None:
        trunk = 2.2 * _high(head, 90)
    if trunk is None:
        seen = body[np.isfinite(body).all(2)]
        trunk = float(np.hypot(*(seen.max(0) - seen.min(0)))) / 2
    return max(trunk, 1e-3)


def _angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees from direction a to direction b, (T, 2) each, positive clockwise in the picture."""
    return np.degrees(np.arctan2(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0], (a * b).sum(1)))


def _backs(hand: np.ndarray, side: str) -> np.ndarray:
    index, little = hand[:, 5] - hand[:, 0], hand[:, 17] - hand[:, 0]
    turn = np.sin(np.radians(_angle(index, little)))
    facing = np.where(np.abs(turn) > 0.3, np.sign(turn), 0.0)  # seen from its edge, a hand tells nothing
    return np.nan_to_num(facing) * (1 if side == "right" else -1)


def _raised(level: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Pixels by which a height in the picture, growing downwards, is above where it is kept at this scale; all (T,).

    Who comes nearer on the ground, or is zoomed in on, has the feet at a height that is linear in the scale.
    """
    seen = np.isfinite(level)
    if not seen.any():
        return level
    change = scale - scale[seen].mean()
    slope = (change * level)[seen].mean() / ((change[seen] ** 2).mean() + _SIZE_NOISE**2)
    kept = level - slope * change
    return _high(kept) - kept


def figure_of(track: Track, fps: float) -> Figure:
    """Measure a person."""
    body = _smooth(track.body, fps)
    size = _averaged(size_of(body), round(_SIZE_SMOOTH * fps) // 2)
    scale = np.exp(size)
    usual = _unit(body / scale[:, None, None])
    unit = usual * scale
    hips, neck = (body[:, 8] + body[:, 11]) / 2, body[:, _NECK]
    # where the own right side is in the picture: on the left of somebody who faces the viewer
    width = _median(body[:, 2, 0] - body[:, 5, 0])
    if width is None:
        width = _median(body[:, 8, 0] - body[:, 11, 0])
    right = 1.0 if width is not None and width > 0 else -1.0
    out = {"right": right, "left": -right}
    arms, past, elbows, legs, below = {}, {}, {}, {}, {}
    for side in SIDES:
        shoulder, elbow, wrist = (body[:, j] for j in _ARMS[side])
        arms[side] = np.stack([out[side] * (wrist[:, 0] - shoulder[:, 0]), shoulder[:, 1] - wrist[:, 1]], 1) / unit[:, None]
        past[side] = out[side] * (wrist[:, 0] - neck[:, 0]) / unit
        elbows[side] = np.abs(_angle(shoulder - elbow, wrist - elbow))
        hip, _, ankle = (body[:, j] for j in _LEGS[side])
        legs[side] = out[side] * (ankle[:, 0] - hip[:, 0]) / unit
        below[side] = (ankle[:, 1] - hip[:, 1]) / unit
    feet = np.stack([body[:, 10, 1], body[:, 13, 1]])
    standing = np.maximum(below["right"], below["left"])  # a foot that is lifted bends no knee of the other leg
    up = neck - hips
    level = np.maximum(feet[0], feet[1])
    place = np.where(np.isfinite(hips[:, 0]), hips[:, 0], neck[:, 0])
    upright = np.tile([0.0, -1.0], (len(body), 1))
    trunk = np.where(np.isfinite(up).all(1, keepdims=True), up, upright)
    head = _median((neck[:, 1] - body[:, _NOSE, 1]) / unit)
    return Figure(
        arms, past, elbows, legs,
        lift=(feet[1] - feet[0]) / unit,
        knees=_high(standing) - standing,
        lean=right * _angle(upright, up) / _DEGREES,
        tilt=right * _angle(trunk, body[:, _NOSE] - neck) / _DEGREES,
        across=place / usual,
        off_ground=_raised(level, scale) / unit,
        nearer=np.where(np.isfinite(place), _NEARER * size, np.nan),
        head=0.45 if head is None or head <= 0 else head,
        backs={side: _backs(track.hands[side], side) for side in SIDES},
    )  # fmt: skip

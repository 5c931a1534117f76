"""Person k stays person k: people of a clip in an order that holds for all of its frames.

DWPose and SDPose list people anew in each frame. Whoever takes the place in the list for the person (to smooth, to scale,
to retarget, to describe) must put them in order first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .poses import Person, PoseSequence

_SURE = 0.3
_FEW = 3  # joints; with fewer in common people are compared by their middles
_NEAR, _FARTHER = 1.0, 0.1  # body sizes that somebody may be off where they should be; and more for each frame unseen
_FLIPPED = 0.5  # body sizes that another order must save to be believed against the list
_COASTING = 10  # frames that somebody unseen goes on at their speed


@dataclass(frozen=True)
class _Look:
    """Somebody in a frame: place in the list, joints (18, 2), NaN where not sure, middle (2,) and size in pixels."""

    place: int
    joints: np.ndarray
    middle: np.ndarray
    size: float

    @classmethod
    def at(cls, place: int, person: Person) -> _Look:
        sure = person.body[:, 2] > _SURE
        if sure.sum() < _FEW:
            sure = person.body[:, 2] > 0
        points = person.body[sure, :2].astype(np.float64)
        if not len(points):
            everything = np.concatenate(list(person.groups().values()))
            points = everything[everything[:, 2] > 0, :2].astype(np.float64)
        joints = np.where(sure[:, None], person.body[:, :2].astype(np.float64), np.nan)
        return cls(place, joints, points.mean(0), max(float(np.ptp(points, axis=0).max()), 1.0))

    def moved(self, other: _Look) -> np.ndarray:
        """How far it is to another look at the same person, (2,)."""
        steps = other.joints - self.joints
        common = np.isfinite(steps[:, 0])
        return steps[common].mean(0) if common.sum() >= _FEW else other.middle - self.middle


def _distances(one: list[_Look], other: list[_Look], ahead: np.ndarray) -> np.ndarray:
    """Mean distance of joints in body sizes, (one, other), with those of `one` moved `ahead` (one, 2)."""
    a = np.array([look.joints for look in one]) + ahead[:, None]
    steps = np.linalg.norm(np.array([look.joints for look in other])[None] - a[:, None], axis=-1)
    common = np.isfinite(steps)
    count = common.sum(-1)
    by_joints = np.where(common, steps, 0).sum(-1) / np.maximum(count, 1)
    middles = np.array([look.middle for look in one]) + ahead
    by_middle = np.linalg.norm(np.array([look.middle for look in other])[None] - middles[:, None], axis=-1)
    sizes = np.maximum.outer([look.size for look in one], [look.size for look in other])
    return np.where(count >= _FEW, by_joints, by_middle) / sizes


def _steady_so_far(before: list[_Look], now: list[_Look], ahead: np.ndarray) -> bool:
    """Whether the same place in the list can be the same person in two frames that follow each other: unless another order
    is nearer by far, both to where people were and to where they were heading."""
    far = np.minimum(_distances(before, now, ahead), _distances(before, now, 0 * ahead))
    places, later = [look.place for look in before], [look.place for look in now]
    stay = [(i, later.index(place)) for i, place in enumerate(places) if place in later]
    for i, j in stay:
        for other in range(len(before)):
            if places[other] not in later and far[i, j] - far[other, j] > _FLIPPED:
                return False
        for other in range(len(now)):
            if later[other] not in places and far[i, j] - far[i, other] > _FLIPPED:
                return False
        for k, m in stay:
            if far[i, j] + far[k, m] - far[i, m] - far[k, j] > _FLIPPED:
                return False
    return True


def _is_steady(frames: list[list[_Look]]) -> bool:
    for t in range(1, len(frames)):
        if frames[t - 1] and frames[t]:
            ahead = np.zeros((len(frames[t - 1]), 2))
            if t > 1:
                earlier = {look.place: look for look in frames[t - 2]}
                for i, look in enumerate(frames[t - 1]):
                    ahead[i] = earlier[look.place].moved(look) if look.place in earlier else 0
            if not _steady_so_far(frames[t - 1], frames[t], ahead):
                return False
    return True


@dataclass
class _Track:
    """One person: the last look, in which frame it was, and the speed in pixels a frame."""

    last: _Look
    frame: int
    speed: np.ndarray

    def see(self, look: _Look, frame: int, jumps: bool) -> None:
        moved = self.last.moved(look) / (frame - self.frame)
        self.speed = np.zeros(2) if jumps else (self.speed + moved) / 2 if self.speed.any() else moved
        self.last, self.frame = look, frame


def _pairs(tracks: list[_Track], looks: list[_Look], now: int) -> tuple[list[tuple[int, int]], bool]:
    """Which track each look belongs to, (track, look), and whether all of them jump: a cut, after which the nearest ones
    are taken for the same. Looks without a track are of somebody new."""
    from scipy.optimize import linear_sum_assignment  # the host has it; not at start-up

    if not tracks or not looks:
        return [], False
    gaps = np.array([now - track.frame for track in tracks])
    ahead = np.array([track.speed for track in tracks]) * np.minimum(gaps, _COASTING)[:, None]
    far = _distances([track.last for track in tracks], looks, ahead)
    possible = far <= (_NEAR + _FARTHER * (gaps - 1))[:, None]
    ties = 1e-6 * np.abs(np.subtract.outer(np.arange(len(tracks)), [look.place for look in looks]))
    jumps = not possible.any()
    # large against any sum of possible distances: as many pairs as can be, then the nearest
    rows, columns = linear_sum_assignment(far + ties if jumps else np.where(possible, far + ties, 1e6))
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if jumps or possible[i, j]], jumps


def in_steady_order(sequence: PoseSequence) -> PoseSequence:
    """The sequence with each person at one place in the list, in every frame.

    A list that may be right is left as it is. Else people are followed by where they should be (constant speed), as many as
    can be and the nearest ones together; of equals the place in the list decides. Whoever is not seen in a frame is there
    without joints, so that others keep their places. Where never more than one is seen at a time, it is one person.
    """
    frames = [[_Look.at(k, person) for k, person in enumerate(people) if person.seen] for people in sequence.frames]
    most = max(map(len, frames), default=0)
    if most <= 1:
        if all(look.place == 0 for looks in frames for look in looks):
            return sequence
        alone = [[people[looks[0].place]] if looks else [] for people, looks in zip(sequence.frames, frames, strict=True)]
        return PoseSequence(alone, sequence.height, sequence.width)
    if _is_steady(frames):
        return sequence
    tracks: list[_Track] = []
    ordered: list[list[Person]] = []
    for t, (people, looks) in enumerate(zip(sequence.frames, frames, strict=True)):
        pairs, jumps = _pairs(tracks, looks, t)
        owner = {j: i for i, j in pairs}
        for j, look in enumerate(looks):
            if j in owner:
                tracks[owner[j]].see(look, t, jumps)
            else:
                owner[j] = len(tracks)
                tracks.append(_Track(look, t, np.zeros(2)))
        row = [Person() for _ in range(max(owner.values(), default=-1) + 1)]
        for j, look in enumerate(looks):
            row[owner[j]] = people[look.place]
        ordered.append(row)
    return PoseSequence(ordered, sequence.height, sequence.width)

"""Person k stays person k: people of a clip in an order that holds for all of its frames.

DWPose and SDPose list people anew in each frame. Whoever takes the place in the list for the person (to smooth, to scale,
to retarget, to describe) must put them in order first. Pose Extract has followed people by their looks too, and marks its
list as one to be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .hands import with_own_hands
from .pairing import matched, reach
from .poses import Person, PoseSequence

_SURE = 0.3
_FEW = 3  # joints; with fewer in common people are compared by their middles
_FLIPPED = 0.5  # body sizes that another order must save to be believed against the list
_COASTING = 10  # frames that somebody unseen goes on at their speed, and may be farther off with each
_BLINK = 2  # frames; who is seen in no more is maybe nobody
_LAST_RESORT = 1e6  # body sizes, more than any sum of distances


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


@dataclass
class _Track:
    """One person: the last look, in which frame it was, the speed in pixels a frame, and in how many frames they were seen."""

    last: _Look
    frame: int
    speed: np.ndarray = field(default_factory=lambda: np.zeros(2))
    seen: int = 1

    def see(self, look: _Look, frame: int, jumps: bool = False) -> None:
        moved = self.last.moved(look) / (frame - self.frame)
        self.speed = np.zeros(2) if jumps else (self.speed + moved) / 2 if self.speed.any() else moved
        self.last, self.frame, self.seen = look, frame, self.seen + 1


def _ahead(tracks: list[_Track], now: int) -> np.ndarray:
    """How far each has gone on since the last look, (n, 2) in pixels, if nothing changed."""
    return np.array([track.speed * min(now - track.frame, _COASTING) for track in tracks])


def _known(tracks: list[_Track]) -> np.ndarray:
    """Who can be expected in the next frame, (n,): those who were there of late, without what was there for a blink only."""
    frames, lasting = np.array([track.frame for track in tracks]), np.array([track.seen > _BLINK for track in tracks])
    return (frames == frames.max()) | (lasting & (frames >= frames[lasting].max(initial=0) - _COASTING))


def _steady_so_far(tracks: list[_Track], now: list[_Look], t: int) -> bool:
    """Whether the same place in the list can be the same person as at their last look: unless another order is nearer by far,
    both to where people were and to where they were heading."""
    before, ahead = [track.last for track in tracks], _ahead(tracks, t)
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
    """Whether each place can be one person, also over frames in which they are not seen."""
    tracks: dict[int, _Track] = {}
    for t, looks in enumerate(frames):
        if tracks and looks:
            here, everybody = {look.place for look in looks}, list(tracks.values())
            known = _known(everybody)
            # a blink of long ago that happens to be where somebody is now tells nothing
            before = [track for track, sure in zip(everybody, known, strict=True) if sure or track.last.place in here]
            if not _steady_so_far(before, looks, t):
                return False
        for look in looks:
            if look.place in tracks:
                tracks[look.place].see(look, t)
            else:
                tracks[look.place] = _Track(look, t)
    return True


def _pairs(tracks: list[_Track], looks: list[_Look], now: int) -> tuple[list[tuple[int, int]], bool]:
    """Which track each look belongs to, (track, look), and whether all of them jump: a cut, after which the nearest ones
    are taken for the same. Looks without a track are of somebody new."""
    if not tracks or not looks:
        return [], False
    gaps, known = np.array([now - track.frame for track in tracks]), _known(tracks)
    far = _distances([track.last for track in tracks], looks, _ahead(tracks, now))
    possible = far <= reach(np.minimum(gaps, _COASTING))[:, None]
    far += 1e-6 * np.abs(np.subtract.outer(np.arange(len(tracks)), [look.place for look in looks]))  # of equals, the place
    jumps = not possible[known].any()
    return matched(far + _LAST_RESORT * ~known[:, None] if jumps else np.where(possible, far, np.inf)), jumps


def in_steady_order(sequence: PoseSequence) -> PoseSequence:
    """The sequence with each person at one place in the list, in every frame.

    A list whose writer followed people, or that may be right, is left as it is. Else people are followed by where they should
    be (constant speed), as many as can be and the nearest ones together; of equals the place in the list decides. Whoever is
    not seen in a frame is there without joints, so that others keep their places. Where never more than one is seen at a
    time, it is one person.
    """
    if sequence.tracked:
        return sequence
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
                tracks.append(_Track(look, t))
        row = [Person() for _ in range(max(owner.values(), default=-1) + 1)]
        for j, look in enumerate(looks):
            row[owner[j]] = people[look.place]
        ordered.append(row)
    return PoseSequence(ordered, sequence.height, sequence.width)


def steady_people(sequence: PoseSequence) -> PoseSequence:
    """The sequence for whoever takes the place in the list for the person: everybody has one place, and their own hands."""
    return with_own_hands(in_steady_order(sequence))

"""Who is who: detections of each frame to people who keep their place in the list for the whole clip.

A person is followed by where they should be now (constant velocity) and by what they look like (colours of the torso), so that
two who cross keep their names, and one who is hidden for a while gets the old one back. The pairs of a frame are chosen
together, at the least cost in all. Who comes back after a cut or a long absence is told by looks, in the end.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ..pairing import matched, reach
from .detector import intersection_over_union

_LEVELS = 4  # of each colour channel
_SIDE = 32  # pixels of the patch that colours are counted on
_LOOK, _SIZE = 2.0, 0.5  # weights of looks and of size against a distance of one body size
_STRANGER = 0.5  # difference of looks beyond which somebody who was away for a while is somebody else
_WHILE = 5  # frames
_ALIKE = 0.25  # difference of looks up to which somebody who comes in is somebody who left
_TIE, _FARTHEST = 1e-3, 10.0  # weight of a body size between those who look the same, and body sizes that are told apart
_COVERED = 0.3  # overlap with another box from which on the colours in it are not only one's own
MIN_SEEN = 3
"""Frames that somebody is seen in, in a clip of more than twice as many; less is a mistake of the detector."""


@dataclass(frozen=True)
class Detection:
    """Somebody in a frame: box (x0, y0, x1, y1), joints (n, 3), and looks (see `looks`)."""

    box: np.ndarray
    joints: np.ndarray
    looks: np.ndarray


def looks(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """How often each coarse colour occurs around the middle of a box in an RGB frame; sums to 1."""
    x0, y0, x1, y1 = box
    left, right = x0 + 0.25 * (x1 - x0), x0 + 0.75 * (x1 - x0)
    top, bottom = y0 + 0.2 * (y1 - y0), y0 + 0.65 * (y1 - y0)
    rows, columns = slice(int(top), max(int(bottom), int(top) + 1)), slice(int(left), max(int(right), int(left) + 1))
    patch = frame[rows, columns]
    if patch.size == 0:
        return np.full(_LEVELS**3, 1 / _LEVELS**3)
    patch = cv2.resize(patch, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    level = (patch.reshape(-1, 3).astype(np.int64) * _LEVELS) >> 8
    return np.bincount(level @ np.array([_LEVELS**2, _LEVELS, 1]), minlength=_LEVELS**3) / _SIDE**2


def unlikeness(one: np.ndarray, other: np.ndarray) -> float:
    """0 for the same looks, 1 for no colour in common (one less the Bhattacharyya coefficient)."""
    return 1.0 - float(np.sqrt(one * other).sum())


def _centre(box: np.ndarray) -> np.ndarray:
    return (box[:2] + box[2:]) / 2


def _size(box: np.ndarray) -> float:
    return float(np.sqrt(np.prod(box[2:] - box[:2])))


@dataclass(eq=False)
class Track:
    """One person: the detections by frame, what is expected next, and of how many appearances it was joined."""

    seen: dict[int, Detection] = field(default_factory=dict)
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    looks: np.ndarray = field(default_factory=lambda: np.zeros(0))
    last: int = -1
    appearances: int = 1

    def add(self, frame: int, detection: Detection, alone: bool) -> None:
        """Note where the person was seen; `alone` when nobody covers them."""
        if self.seen:
            moved = (_centre(detection.box) - _centre(self.seen[self.last].box)) / (frame - self.last)
            self.velocity = moved if len(self.seen) == 1 else (self.velocity + moved) / 2
            if alone:
                self.looks = 0.9 * self.looks + 0.1 * detection.looks
        else:
            self.looks = detection.looks
        self.seen[frame] = detection
        self.last = frame

    def cost(self, frame: int, detection: Detection) -> float:
        """How unlikely it is that this is the person; infinite when it cannot be."""
        gap, box = frame - self.last, self.seen[self.last].box
        size = (_size(box) + _size(detection.box)) / 2
        off = float(np.linalg.norm(_centre(detection.box) - _centre(box) - self.velocity * gap)) / size
        unlike = unlikeness(self.looks, detection.looks)
        if off > reach(gap) or (gap > _WHILE and unlike > _STRANGER):
            return np.inf
        return off + _LOOK * unlike + _SIZE * abs(float(np.log(_size(box) / _size(detection.box))))


class _Left:
    """Those who were seen to the end of a track, as arrays: a clip of many cuts has thousands."""

    def __init__(self, most: int, colours: int) -> None:
        self._roots, self._centres, self._sizes = np.zeros((most, colours)), np.zeros((most, 2)), np.zeros(most)
        self._last = np.full(most, -1)

    def put(self, person: int, track: Track) -> None:
        box = track.seen[track.last].box
        self._roots[person], self._centres[person], self._sizes[person] = np.sqrt(track.looks), _centre(box), _size(box)
        self._last[person] = track.last

    def before(self, frame: int, gap: float) -> np.ndarray:
        """Who left up to `gap` frames before a frame."""
        return np.flatnonzero((self._last >= 0) & (frame > self._last) & (frame - self._last <= gap))

    def costs(self, people: np.ndarray, new: Sequence[Track]) -> np.ndarray:
        """How unlikely it is that a later track is one of these people (P, N); infinite when they look different.

        After a cut or a long absence a place tells nothing: the nearer one only counts among those who look the same.
        """
        boxes = [track.seen[_start(track)].box for track in new]
        centres, sizes = np.stack([_centre(box) for box in boxes]), np.array([_size(box) for box in boxes])
        unlike = 1.0 - self._roots[people] @ np.sqrt(np.stack([track.looks for track in new])).T
        off = np.linalg.norm(self._centres[people][:, None] - centres, axis=-1) / ((self._sizes[people][:, None] + sizes) / 2)
        return np.where(unlike <= _ALIKE, unlike + _TIE * np.minimum(off, _FARTHEST), np.inf)


def _start(track: Track) -> int:
    return min(track.seen)


def _followed(tracks: Sequence[Track], gap: float = np.inf) -> list[list[Track]]:
    """Tracks, in order of time, that go on from each other within `gap` frames (1 is the next one).

    Those who come in at one frame are shared out together among those who left, at the least cost in all.
    """
    people: list[list[Track]] = []
    left = _Left(len(tracks), len(tracks[0].looks) if tracks else 0)
    for now, group in itertools.groupby(sorted(tracks, key=_start), key=_start):
        new, absent = list(group), left.before(now, gap)
        known = {j: int(absent[i]) for i, j in matched(left.costs(absent, new))}
        for j, one in enumerate(new):
            place = known.get(j, len(people))
            if place == len(people):
                people.append([])
            people[place].append(one)
            left.put(place, one)
    return people


def _joined(tracks: Sequence[Track]) -> Track:
    """Tracks in order of time as one person."""
    seen = {t: one for track in tracks for t, one in track.seen.items()}
    last = tracks[-1]
    return Track(seen, last.velocity, last.looks, last.last, sum(track.appearances for track in tracks))


def reunited(tracks: Sequence[Track]) -> list[Track]:
    """The tracks, those of one person joined.

    Where never more than one is seen at a time, it is one person. Else those who come in are the ones who left before and
    look like them, the most likely first.
    """
    if sum(len(track.seen) for track in tracks) == len({t for track in tracks for t in track.seen}):
        return [_joined(sorted(tracks, key=_start))] if tracks else []
    return [_joined(person) for person in _followed(tracks)]


def without_blinks(tracks: Sequence[Track], least: int) -> list[Track]:
    """The tracks but for those of somebody who is seen in fewer than `least` frames, beside others.

    Who moves too far between two frames to be followed, or is cut to, leaves many short tracks. They count together: each goes
    on from one of the frame before that looks like it. A track that is alone in its frames stays: it may be the only one's.
    """
    crowd = Counter(t for track in tracks for t in track.seen)

    def lasting(run: list[Track]) -> bool:
        return sum(len(track.seen) for track in run) >= least

    return [track for run in _followed(tracks, gap=1) for track in run if lasting(run) or all(crowd[t] == 1 for t in track.seen)]


class Tracker:
    """Takes the detections frame by frame.

    Args:
        patience: Frames that somebody may be unseen and still be the same person afterwards.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self.tracks: list[Track] = []
        self.frames = 0

    def add(self, detections: list[Detection]) -> None:
        """The next frame."""
        now = self.frames
        self.frames += 1
        live = [track for track in self.tracks if now - track.last <= self._patience + 1]
        costs = np.array([[track.cost(now, one) for one in detections] for track in live]).reshape(len(live), len(detections))
        pairs = {j: live[i] for i, j in matched(costs)}
        for j, detection in enumerate(detections):
            others = (other.box for k, other in enumerate(detections) if k != j)
            alone = all(intersection_over_union(detection.box, box) < _COVERED for box in others)
            if j not in pairs:
                pairs[j] = Track()
                self.tracks.append(pairs[j])
            pairs[j].add(now, detection, alone)

    def people(self, most: int) -> list[Track]:
        """The `most` prominent people, in the order in which they come in, those of one frame from the left.

        Prominent is who is seen large and long: what counts is the sum of a person's sizes over the frames.

        In a clip of any length, what is seen in fewer than MIN_SEEN frames is not a person but a mistake of the detector. Who left
        and came back is one person, if anything tells.
        """
        least = MIN_SEEN if self.frames > 2 * MIN_SEEN else 1
        people = [person for person in reunited(without_blinks(self.tracks, least)) if len(person.seen) >= least]
        prominent = sorted(people, key=lambda track: -sum(_size(one.box) for one in track.seen.values()))[:most]

        def entry(track: Track) -> tuple[int, float]:
            first = min(track.seen)
            return first, float(_centre(track.seen[first].box)[0])

        return sorted(prominent, key=entry)

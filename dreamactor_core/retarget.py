"""Retargeting: the driver's motion with the reference's proportions, in the reference's place.

The skeleton that a model is shown should be one that the reference could make: bones of its lengths, feet on its floor,
steps of its size. Nothing is invented: a joint that the driver does not show is not there, and neither is what lies
below the edge of a reference that is cut off at the hips or the knees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .augment import PARENTS, RIDERS, scale_people
from .depth import upper_fit
from .necks import steady
from .poses import Person, PoseFormatError, PoseSequence
from .proportions import HIPS, SURE, NothingInCommon, Proportions, bones_of, measure

_LEGS = ((8, 11), (9, 12), (10, 13))  # by level, from the hips down
_ANKLES = _LEGS[-1]
_CHAINS = {10: (8, 9), 13: (11, 12)}  # hip and knee above each ankle
_RESTS, _MOVES = 0.03, 0.1  # leg lengths a frame: slower than the first a foot rests, faster than the second it swings
_RELEASE = 0.35  # share of a correction that a swinging foot loses a frame
_LARGEST_PULL = 0.1  # of the leg
_ON_FLOOR = 0.9  # share of the frames whose lowest foot is not below the floor
_ROUGH_FLOOR = 0.02  # of the leg: feet further off the floor count by how far, not by its square


def _anchors(people: Sequence[Person], kind: str) -> np.ndarray:
    """Where the body is, (T, 2): the middle of the hips, the neck, or of everything seen. NaN where that is not seen."""
    out = np.full((len(people), 2), np.nan)
    for t, person in enumerate(people):
        if kind == "all":
            points = np.concatenate(list(person.groups().values()))
            points = points[points[:, 2] > 0]
        else:
            points = person.body[list({"hips": (8, 11), "neck": (1,)}[kind])]
            points = points if (points[:, 2] > SURE).all() else points[:0]
        if len(points):
            out[t] = points[:, :2].astype(np.float64).mean(0)
    return out


def _pick_anchor(people: Sequence[Person], reference: Person) -> str:
    """The best anchor that the reference has and the driver has in most of the frames in which it is seen at all."""
    present = np.isfinite(_anchors(people, "all")[:, 0]).sum()
    for kind in ("hips", "neck"):
        has = np.isfinite(_anchors(people, kind)[:, 0]).sum()
        if has * 2 >= present and np.isfinite(_anchors([reference], kind)).all():
            return kind
    return "all"


def _feet(people: Sequence[Person]) -> np.ndarray:
    """Both ankles (T, 2 feet, 2), NaN where not sure."""
    points = np.array([person.body[list(_ANKLES)] for person in people], np.float64)
    return np.where(points[..., 2:] > SURE, points[..., :2], np.nan)


def _rest_weights(feet: np.ndarray, leg: np.ndarray) -> np.ndarray:
    """How much each foot rests from the frame before to this one, (T, 2) from 0 to 1; 0 where it is not seen in both. The `leg`
    has its length (T,) in each frame."""
    speed = np.full(feet.shape[:2], np.inf)
    moved = np.linalg.norm(np.diff(feet, axis=0), axis=-1)
    speed[1:] = np.nan_to_num(moved, nan=np.inf) / np.maximum(leg[1:, None], 1e-9)
    swing = np.clip((speed - _RESTS) / (_MOVES - _RESTS), 0, 1)
    return 1 - swing * swing * (3 - 2 * swing)


def _ground(driver: np.ndarray, scaled: np.ndarray, reference: Person, found: Proportions, leg: float) -> np.ndarray:
    """Vertical offset (T,) that puts the lowest foot where the driver's is above its floor, in the reference's size.

    The floor is that of the first frame. Under somebody who comes nearer on level ground, and under a camera that zooms, it moves
    in the picture in proportion to the body's size: from the horizon, or from what is zoomed on.
    """
    low, low_scaled = np.fmax.reduce(driver[..., 1], axis=1), np.fmax.reduce(scaled[..., 1], axis=1)
    known = np.isfinite(low)
    nearer = found.near[known] - 1
    slope = 0.0
    if np.ptp(nearer):
        rough = _ROUGH_FLOOR * leg
        slope = float(upper_fit(np.stack([np.ones_like(nearer), nearer], 1), low[known], _ON_FLOOR, rough)[1])
    floor = float(np.percentile(low[known] - slope * nearer, 100 * _ON_FLOOR))  # the deepest foot of all may be a mistake
    if known[found.nearest]:  # a reference out of the driver itself shows how far above the floor it is
        floor += found.same * (float(low[found.nearest]) - floor)
    own = reference.body[list(_ANKLES)].astype(np.float64)
    return own[own[:, 2] > SURE, 1].max() + found.size * (low - floor) - low_scaled


def _unslide(offset: np.ndarray, driver: np.ndarray, scaled: np.ndarray, size: float, rests: np.ndarray) -> np.ndarray:
    """Horizontal offset (T,) changed so that a resting foot moves as the driver's does, however the legs have changed.

    While a foot rests it carries the body; in flight the body goes back to where its scaled travel has it.
    """
    out, astray = offset.copy(), 0.0
    for t in range(1, len(offset)):
        rest = float(rests[t].max())
        if rest > 0:
            feet = rests[t] > 0
            steps = size * (driver[t, feet, 0] - driver[t - 1, feet, 0]) - (scaled[t, feet, 0] - scaled[t - 1, feet, 0])
            held = float(np.average(steps, weights=rests[t, feet]))
            astray += rest * (held - (offset[t] - offset[t - 1]))
        astray *= 1 - 0.1 * (1 - rest)
        out[t] = offset[t] + astray
    return out


def _pull_feet(people: list[Person], driver: np.ndarray, size: float, rests: np.ndarray, leg: np.ndarray) -> list[Person]:
    """Keep both feet where they rest. One offset cannot do that for two feet when the legs' parts changed unevenly: what
    is left of sliding is taken by knee and ankle, as a little more or less foreshortening. The `leg` is (T,) long."""
    placed, error, out = _feet(people), np.zeros((2, 2)), [people[0]]
    for t in range(1, len(people)):
        wanted = size * (driver[t] - driver[t - 1]) - (placed[t] - placed[t - 1])
        error = np.where(np.isfinite(wanted), error + rests[t][:, None] * np.nan_to_num(wanted), 0)
        error *= 1 - _RELEASE * (1 - rests[t][:, None])
        error *= np.minimum(1, _LARGEST_PULL * leg[t] / np.maximum(np.linalg.norm(error, axis=1, keepdims=True), 1e-9))
        person = people[t]
        body = person.body.astype(np.float64)
        for (ankle, (hip, knee)), pull in zip(_CHAINS.items(), error, strict=True):
            if (body[[hip, knee, ankle], 2] > 0).all():
                thigh, shin = np.linalg.norm(body[knee] - body[hip]), np.linalg.norm(body[ankle] - body[knee])
                body[knee, :2] += pull * thigh / max(thigh + shin, 1e-9)
                body[ankle, :2] += pull
        out.append(Person(**{**person.groups(), "body": body.astype(np.float32)}))
    return out


def _hips_apart(people: Sequence[Person], scaled: list[Person], more: float) -> list[Person]:
    """Legs further out, or in, by so much of the driver's own hips: bones scaled from the neck leave a slim body that is driven by
    a broad one with its hips. While a hip is lost the other goes where it would; the lost one's knee and foot stay with it."""
    hips = np.array([person.body[list(HIPS)] for person in people], np.float64)
    known = (hips[..., 2] > SURE).all(1)
    if not known.any() or not more:
        return scaled
    moves = steady(more * (hips[..., :2] - hips[..., :2].mean(1, keepdims=True)), known)
    out = []
    for person, both in zip(scaled, moves, strict=True):
        body = person.body.astype(np.float64)
        for leg, move in zip(zip(*_LEGS, strict=True), both, strict=True):
            shown = [joint for joint in leg if body[joint, 2] > 0]
            body[shown, :2] += move
        out.append(Person(**{**person.groups(), "body": body.astype(np.float32)}))
    return out


def _cut_off(reference: Person, same: float) -> list[int]:
    """Joints of the legs below the last level that the reference shows: its picture ends there. A reference that is a
    frame of the driver itself ends where the driver does."""
    shown = [level for level, joints in enumerate(_LEGS) if (reference.body[list(joints), 2] > SURE).any()]
    return [joint for joints in _LEGS[max(shown, default=-1) + 1 :] for joint in joints] if same < 0.5 else []


def retarget_person(people: Sequence[Person], reference: Person) -> list[Person]:
    """One driver's frames on one reference. Frames that see nobody stay so.

    Raises:
        NothingInCommon: the two have no limb in common.
    """
    found = measure(people, reference)
    scaled = _hips_apart(people, scale_people(people, found.scale), found.hips - found.scale.bones[HIPS[0]])
    cut = _cut_off(reference, found.same)
    for person in scaled:
        person.body[cut] = 0
    kind = _pick_anchor(people, reference)
    driver_at, scaled_at = _anchors(people, kind), _anchors(scaled, kind)
    known = np.isfinite(driver_at[:, 0]) & np.isfinite(scaled_at[:, 0])
    start = driver_at[np.flatnonzero(known)[0]]
    if known[found.nearest]:
        start = start + found.same * (driver_at[found.nearest] - start)
    place = _anchors([reference], kind)[0]
    offset = steady(place + found.size * (driver_at - start) - scaled_at, known)
    driver_feet, scaled_feet = _feet(people), _feet(scaled)
    stands = np.isfinite(scaled_feet[..., 0]).any(1)
    floor_known = (reference.body[list(_ANKLES), 2] > SURE).any()
    if not (stands.any() and floor_known):
        return [_moved(person, by) for person, by in zip(scaled, offset, strict=True)]
    leg = _leg_length(people, found.near)
    rests = _rest_weights(driver_feet, leg * found.near)
    lift = _ground(driver_feet, scaled_feet, reference, found, leg) - offset[:, 1]
    offset[:, 1] += steady(lift, stands)
    offset[:, 0] = _unslide(offset[:, 0], driver_feet, scaled_feet, found.size, rests)
    placed = [_moved(person, by) for person, by in zip(scaled, offset, strict=True)]
    return _pull_feet(placed, driver_feet, found.size, rests, leg * found.near * found.size)


def _leg_length(people: Sequence[Person], near: np.ndarray) -> float:
    """Longest leg that the driver shows, in pixels of a frame where `near` (T,) is 1; without a whole one, the size of its body."""
    longest = 0.0
    for person, nearer in zip(people, near, strict=True):
        body = person.body.astype(np.float64)
        for ankle, (hip, knee) in _CHAINS.items():
            if (body[[hip, knee, ankle], 2] > SURE).all():
                parts = np.diff(body[[hip, knee, ankle], :2], axis=0)
                longest = max(longest, float(np.linalg.norm(parts, axis=1).sum() / nearer))
    if longest:
        return longest
    shown = [(p.body[p.body[:, 2] > 0, :2], nearer) for p, nearer in zip(people, near, strict=True) if (p.body[:, 2] > 0).any()]
    return max(float(np.ptp(points, axis=0).max() / nearer) for points, nearer in shown)


def _moved(person: Person, by: np.ndarray) -> Person:
    return person.mapped((1.0, 1.0), (float(by[0]), float(by[1])))


def _between(one: Person, other: Person, share: float) -> Person:
    """A pose `share` of the way from one to another: bones turn and grow. Only joints that both show are there."""
    a, b = one.body.astype(np.float64), other.body.astype(np.float64)
    body = a + (b - a) * share
    both = (a[:, 2] > 0) & (b[:, 2] > 0)
    for joint, parent in PARENTS.items():
        if both[joint] and both[parent]:
            start, end = (complex(*(p[joint, :2] - p[parent, :2])) for p in (a, b))
            turn = np.angle(end * np.conj(start)) if start and end else 0.0
            bone = start * np.exp(1j * turn * share) * ((1 - share) + share * abs(end) / abs(start)) if start else end * share
            body[joint, :2] = body[parent, :2] + (bone.real, bone.imag)
    body[~both] = 0
    groups = {"body": body}
    for name, joint in RIDERS.items():
        p, q = (getattr(person, name).astype(np.float64) for person in (one, other))
        middle = p + (q - p) * share
        if both[joint]:
            shift = body[joint, :2] - (a[joint, :2] + (b[joint, :2] - a[joint, :2]) * share)
            middle[:, :2] += shift
        groups[name] = np.where((p[:, 2:] > 0) & (q[:, 2:] > 0), middle, 0)
    for name, points in groups.items():
        points[:, 2] = np.where(points[:, 2] > 0, np.minimum(getattr(one, name)[:, 2], getattr(other, name)[:, 2]), 0)
    return Person(**{name: points.astype(np.float32) for name, points in groups.items()})


def _across(person: Person) -> float:
    return float(_anchors([person], "all")[0, 0])


def _has_bone(person: Person) -> bool:
    return bool(np.isfinite(bones_of(person.body)).any())


def _pair(sequence: PoseSequence, references: Sequence[Person]) -> list[int]:
    """Which of the driver's people each reference follows: of those who show a bone in some frame, if there are any. A hand or
    a face without a body is a mistake of the estimator beside somebody, and a person where there is nobody else."""
    most = max(len(people) for people in sequence.frames)
    whole = {k for people in sequence.frames for k, person in enumerate(people) if _has_bone(person)}
    firsts: dict[int, Person] = {}
    sizes = np.zeros(most)
    for people in sequence.frames:
        for k, person in enumerate(people):
            if person.seen and (k in whole or not whole):
                firsts.setdefault(k, person)
                points = np.concatenate(list(person.groups().values()))
                sizes[k] += np.ptp(points[points[:, 2] > 0, :2], axis=0).max()
    prominent = sorted(firsts, key=lambda k: -sizes[k])[: len(references)]
    drivers = sorted(prominent, key=lambda k: _across(firsts[k]))
    order = sorted(range(len(references)), key=lambda k: _across(references[k]))
    return [drivers[order.index(k) % len(drivers)] for k in range(len(references))]


def retarget(
    sequence: PoseSequence, reference: PoseSequence, travel: int = 0, progress: Callable[[int, int], None] | None = None
) -> PoseSequence:
    """Give the driver's motion the proportions and the place of the reference.

    Bone lengths, the distance of the hips, place and floor are those of the reference's own pose: of the first of its frames that
    shows somebody. Limbs' angles are the driver's. The lowest foot is as far above the reference's floor as the driver's is above
    its own, in the size of the reference's legs; a foot that rests stays at rest; travel is scaled by the size of the legs.

    Motion in depth stays motion: the first frame that shows a bone has the reference's size and floor, and whoever comes nearer,
    or is zoomed on, grows from there as the driver does, with feet that go as far down in that size.

    Of several people the k-th from the left follows the k-th driver from the left. With more drivers than references the
    largest ones count, with fewer they are taken again from the left: one driver moves everybody. People without any bone of a
    confidence above SURE count for nothing while there is somebody with one.

    Args:
        travel: Frames put in front in which people go from the reference's pose to the first driven one.
        progress: Called before each person with how many are done, and of how many; raises to stop.

    Returns:
        `travel` more frames than `sequence`, on the reference's canvas, its people in the reference's order. Retargeting
        onto a frame of the sequence itself gives the sequence back.

    Raises:
        PoseFormatError: nobody is seen in one of the two.
        NothingInCommon: a ValueError: a reference and its driver have no limb in common.
        ValueError: `travel` is negative.
    """
    if travel < 0:
        raise ValueError(f"the travel is {travel} frames, expected 0 or more")
    whole = [[p for p in people if _has_bone(p)] for people in reference.frames]
    shown = [[p for p in people if (p.body[:, 2] > SURE).any()] for people in reference.frames]
    references = next((people for people in (*whole, *shown) if people), None)
    if references is None:
        raise PoseFormatError(
            f"nobody in the reference has a body joint of a confidence above {SURE:g}, expected one person at least; take "
            f"another picture, or check the pose extractor"
        )
    if not any(person.seen for people in sequence.frames for person in people):
        raise PoseFormatError(f"there is nobody in any of the driver's {len(sequence)} frames; check the pose extractor")
    if not any((q[:, 2] > SURE).any() for people in sequence.frames for person in people for q in person.groups().values()):
        raise PoseFormatError(
            f"nobody in any of the driver's {len(sequence)} frames has a joint of a confidence above {SURE:g}, expected one person "
            f"at least; take another clip, or check the pose extractor"
        )
    tracks = []
    for person, driver in zip(references, _pair(sequence, references), strict=True):
        if progress is not None:
            progress(len(tracks), len(references))
        own = [people[driver] if driver < len(people) else Person() for people in sequence.frames]
        try:
            done = retarget_person(own, person)
        except NothingInCommon as error:
            who = f"person {len(tracks) + 1} of the reference, whom person {driver + 1} of the driver is to move"
            raise NothingInCommon(f"{who}: {error}") from error
        first = next((p for p in done if p.seen), person)
        eased = [(1 - np.cos(np.pi * k / travel)) / 2 for k in range(travel)]
        tracks.append([_between(person, first, share) for share in eased] + done)
    frames = [list(people) for people in zip(*tracks, strict=True)]
    for people in frames:
        while people and not people[-1].seen:  # an unseen one in between keeps the others' numbers
            people.pop()
    return PoseSequence(frames, reference.height, reference.width, sequence.tracked)

"""What a driver's bones must be scaled by to have a reference's lengths, measured from poses in a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .augment import PARENTS, BodyScale
from .depth import motion_in_depth
from .poses import BODY, Person

SURE = 0.3
"""Joints above this confidence are measured; less sure ones are moved along, but nothing is learned from them."""

PARTS: dict[str, tuple[tuple[int, ...], ...]] = {
    "shoulders": ((2, 5),), "torso": ((8, 11),), "neck": ((0,),), "head": ((14, 15), (16, 17)),
    "upper_arms": ((3, 6),), "lower_arms": ((4, 7),), "upper_legs": ((9, 12),), "lower_legs": ((10, 13),),
}  # fmt: skip
"""Bones measured together, by the joints that they lead to; within brackets the same bone of the right and left side.
Unlike in augmentation the neck is apart from the head: a chibi's head is large, its neck short."""

_STAND_INS = {
    "upper_arms": ("lower_arms",), "lower_arms": ("upper_arms",), "upper_legs": ("lower_legs",),
    "lower_legs": ("upper_legs",), "neck": ("head",), "head": ("neck",), "shoulders": (), "torso": (),
    "hands": ("lower_arms", "upper_arms"), "face": ("head", "neck"),
}  # fmt: skip
HIPS = (8, 11)
_BROAD, _SIDEWAYS = 2.5, 4.0
"""Hips' factor to the torso's, or the inverse: up to the first bodies differ so, beyond the second one is seen from the side, and
the torso's factor holds. In between it is in between, so that not much hangs on a little."""
_APART = (("torso", "shoulders"), ("face", "ears", "eyes"), ("lower_legs", "upper_legs"))
"""Parts that no turn or bow shortens together, and their stand-ins: what changes them alike is motion in depth."""
_PALM = (5, 9, 13, 17)  # knuckles: the one part of a hand that fingers do not change
_SAME = 0.02  # directions and shares of length nearer than this: the reference is a frame of the driver itself
_SAME_VIEW = 0.1  # radians; when all directions are as near as this, bones are foreshortened alike too
_FARTHEST_RATIO = 8.0  # to the body's scale; more is a measuring error


@dataclass(frozen=True)
class Proportions:
    """A reference measured against a driver.

    Attributes:
        scale: Factors for the driver's bones.
        hips: Factor for the distance between its hips: of bodies with a torso of the same length one is broad, another slim. A
            reference that is half turned away looks slim, as it does at the shoulders.
        size: Size of the reference's legs (without legs: of its body) in the driver's: what travel is scaled by.
        nearest: The driver's frame whose pose is most like the reference's.
        same: 1 when that pose is the reference's own, 0 when it is another. Of a driver that moves in depth it must be in the
            reference's place too: the same pose is there in many sizes.
        near: Size of the driver's body in each frame (T,), against the first that shows a bone (against `nearest` with `same`): 1
            throughout without motion in depth.
    """

    scale: BodyScale
    hips: float
    size: float
    nearest: int
    same: float
    near: np.ndarray


class NothingInCommon(ValueError):
    """A driver and a reference of which no part can be compared."""


def bones_of(bodies: np.ndarray) -> np.ndarray:
    """Vectors (..., 18, 2) to each joint from its parent, NaN where either is not sure and for the root."""
    xy = np.where(bodies[..., 2:] > SURE, bodies[..., :2].astype(np.float64), np.nan)
    out = np.full_like(xy, np.nan)
    for joint, parent in PARENTS.items():
        out[..., joint, :] = xy[..., joint, :] - xy[..., parent, :]
    return out


def _along(bones: np.ndarray) -> np.ndarray:
    """Bones (..., 18, 2) with the vector from the neck to the middle of the hips in the place of those to each."""
    out = bones.copy()
    out[..., HIPS, :] = bones[..., HIPS, :].mean(-2, keepdims=True)
    return out


def _across(bones: np.ndarray) -> np.ndarray:
    """Bones (..., 18, 2) of which there is but one: from the left hip to the right one, in the place of the right hip's."""
    out = np.full_like(bones, np.nan)
    out[..., HIPS[0], :] = bones[..., HIPS[0], :] - bones[..., HIPS[1], :]
    return out


def _nearest(driver: np.ndarray, reference: np.ndarray, apart: np.ndarray | None = None) -> tuple[int, float, float]:
    """The frame of `driver` bones (T, 18, 2) most like the `reference` bones (18, 2), how far its directions are off (root
    mean square of the difference of unit vectors), and its shares of the whole length. Of frames that are alike the one least
    `apart` (T,)."""

    def of(bones: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lengths = np.linalg.norm(bones, axis=1, keepdims=True)
        return bones / np.maximum(lengths, 1e-9), bones / max(lengths.sum(), 1e-9)

    known = np.isfinite(reference[:, 0]) & np.isfinite(driver[..., 0]).any(0)
    best, least = (0, np.inf, np.inf), (np.inf, np.inf)
    for t, bones in enumerate(driver):
        both = known & np.isfinite(bones[:, 0])
        if both.any():
            pairs = zip(of(bones[both]), of(reference[both]), strict=True)
            missing = 1 - both.sum() / known.sum()
            turned, grown = (float(np.sqrt(((a - b) ** 2).sum(1).mean()) + missing) for a, b in pairs)
            off = turned + 0.25 * grown  # lengths may differ between bodies; directions tell the pose
            rank = (off, 0.0) if apart is None else (round(off, 4), float(apart[t]))
            if rank < least:
                best, least = (t, turned, grown), rank
    return best


def _longest(lengths: np.ndarray, kinds: Sequence[tuple[int, ...]], sides: np.ndarray) -> np.ndarray:
    """Longer side of each kind of bone, (..., kinds), of the joints marked in `sides`: the shorter one is foreshortened."""
    chosen = np.where(sides, lengths, np.nan)
    return np.stack([np.fmax.reduce(chosen[..., list(kind)], axis=-1) for kind in kinds], -1)


def _blend(view: float, near: tuple[float, float], clip: tuple[float, float]) -> float | None:
    """Ratio of lengths (reference, driver), from the most similar frame by `view` (0 to 1) and else from the clip's long
    ones. None where nothing can be measured."""
    ratios = [a / b if a > 0 and b > 0 else None for a, b in (near, clip)]  # NaN neither
    if ratios[0] is None or ratios[1] is None:
        return ratios[0] or ratios[1]
    return float(np.exp(view * np.log(ratios[0]) + (1 - view) * np.log(ratios[1])))


def _part(kinds: Sequence[tuple[int, ...]], driver: np.ndarray, reference: np.ndarray, nearest: int, view: float) -> float | None:
    """Ratio of one part. A picture shows bones foreshortened; in a frame where they point the same way in both, they are
    so alike. Where there is no such frame, the long ones of the clip stand against the reference's own."""
    lengths, own = np.linalg.norm(driver, axis=-1), np.linalg.norm(reference, axis=-1)
    everywhere = np.ones(BODY, bool)
    all_own, per_frame = _longest(own, kinds, everywhere), _longest(lengths, kinds, everywhere)
    seen = np.isfinite(per_frame).any(0)
    long = np.full(len(kinds), np.nan)
    long[seen] = np.nanpercentile(per_frame[:, seen], 90, axis=0)
    measured = np.isfinite(all_own) & np.isfinite(long)
    clip = float(all_own[measured].sum()), float(long[measured].sum())
    sides = np.isfinite(own) & np.isfinite(lengths[nearest])
    near_own, near = _longest(own, kinds, sides), _longest(lengths[nearest], kinds, sides)
    both = np.isfinite(near_own) & np.isfinite(near)
    if not both.any():
        return _blend(0.0, (0.0, 0.0), clip)
    joints = [joint for kind in kinds for joint in kind if sides[joint]]
    cosine = (driver[nearest, joints] * reference[joints]).sum() / max((lengths[nearest, joints] * own[joints]).sum(), 1e-9)
    alike = np.clip((cosine - 0.8) / 0.2, 0, 1) * min(1.0, near[both].sum() / max(long[both].sum(), 1e-9)) ** 2
    return _blend(view + (1 - view) * float(alike), (float(near_own[both].sum()), float(near[both].sum())), clip)


def _hand_size(person: Person) -> float:
    sizes = [0.0]
    for hand in (person.left_hand, person.right_hand):
        if hand[0, 2] > SURE and (hand[list(_PALM), 2] > SURE).all():
            sizes.append(float(np.linalg.norm(hand[list(_PALM), :2] - hand[0, :2], axis=1).sum()))
    return max(sizes)


def _face_size(person: Person) -> float:
    sure = person.face[:, 2] > SURE
    if sure.mean() < 0.9:  # another set of points has another size
        return 0.0
    points = person.face[sure, :2].astype(np.float64)
    return float(np.sqrt(((points - points.mean(0)) ** 2).sum(1).mean()))


def _rider(sizes: np.ndarray, own: float, nearest: int, view: float) -> float | None:
    seen = [size for size in sizes if size > 0]
    return _blend(view, (own, sizes[nearest]), (own, float(np.median(seen)) if seen else 0.0))


def _sizes_over_time(bones: np.ndarray, faces: Sequence[float]) -> tuple[np.ndarray, float]:
    """`motion_in_depth` of a driver's bones (T, 18, 2) and face sizes."""
    lengths, across = np.linalg.norm(_along(bones), axis=-1), np.linalg.norm(_across(bones), axis=-1)
    kinds = {name: _longest(lengths, joints, np.ones(lengths.shape, bool)).T for name, joints in PARTS.items()}
    shoulders = np.linalg.norm(bones[:, 2] - bones[:, 5], axis=-1)
    eyes, ears = kinds["head"]
    columns = {
        "torso": kinds["torso"][0], "shoulders": shoulders, "hips": across[:, HIPS[0]], "face": np.array(faces),
        "neck": kinds["neck"][0], "eyes": eyes, "ears": ears,
    } | {name: kinds[name][0] for name in ("upper_arms", "lower_arms", "upper_legs", "lower_legs")}  # fmt: skip
    order = list(columns)
    groups = [[order.index(name) for name in group] for group in _APART]
    return motion_in_depth(np.stack(list(columns.values()), 1), groups)


def _places_apart(driver: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """How far joints (T, 18, 3) are from the reference's (18, 3), root mean square in sizes of the reference; inf if none is
    sure in both."""
    both = (driver[..., 2] > SURE) & (reference[:, 2] > SURE)
    squares = np.where(both, ((driver[..., :2].astype(np.float64) - reference[:, :2]) ** 2).sum(-1), 0).sum(1)
    size = np.ptp(reference[reference[:, 2] > SURE, :2], axis=0).max() if both.any() else 0.0
    count = both.sum(1)
    return np.where(count > 0, np.sqrt(squares / np.maximum(count, 1)) / max(float(size), 1e-9), np.inf)


def measure(driver: Sequence[Person], reference: Person) -> Proportions:
    """Measure `reference` against the frames of one driver (of which some may see nobody).

    What one of the two does not show is taken from the neighbouring part, else from the size of the body. Of a driver that moves
    in depth, sizes count as they would be at its first frame.

    Raises:
        NothingInCommon: there is nothing of the two that could be compared.
    """
    bodies = np.array([p.body for p in driver])
    bones, own = bones_of(bodies), bones_of(reference.body)
    faces, hands = np.array([_face_size(p) for p in driver]), np.array([_hand_size(p) for p in driver])
    depth, moves = _sizes_over_time(bones, faces)
    apart = _places_apart(bodies, reference.body) if moves else None
    nearest, turned, grown = _nearest(bones, own, apart)
    same, view = float(np.exp(-(((turned + grown) / _SAME) ** 2))), float(np.exp(-((turned / _SAME_VIEW) ** 2)))
    if apart is not None:
        same *= 1 - moves + moves * float(np.exp(-((apart[nearest] / _SAME) ** 2)))
    first = int(np.isfinite(bones[..., 0]).any(1).argmax())
    near = np.exp(depth - depth[first] - same * (depth[nearest] - depth[first]))
    bones = bones / near[:, None, None]
    found = {name: _part(kinds, bones, own, nearest, view) for name, kinds in PARTS.items()}
    hips = None
    shown = np.isfinite(bones[:, HIPS, 0])
    if 2 * shown.all(1).sum() >= shown.any(1).sum():  # a few frames with both hips may be mistakes
        hips = _part((HIPS[:1],), _across(bones), _across(own), nearest, view)
        # how broad the hips are must not tell in the torso's length; without both hips of both it does
        found["torso"] = _part(PARTS["torso"], _along(bones), _along(own), nearest, view) or found["torso"]
    found["hands"] = _rider(hands / near, _hand_size(reference), nearest, view)
    found["face"] = _rider(faces / near, _face_size(reference), nearest, view)
    size = _body_size(found, np.linalg.norm(bones, axis=-1))
    ratios = {}
    for name, stand_ins in _STAND_INS.items():
        known = [found[k] for k in (name, *stand_ins) if found[k] is not None]
        ratios[name] = float(np.clip(known[0] if known else size, size / _FARTHEST_RATIO, size * _FARTHEST_RATIO))
    ratios["head"] = ratios["face"]  # the eyes of both are the same
    more = 0.0 if hips is None else float(np.log(hips / ratios["torso"]))
    more *= float(np.interp(abs(more), np.log([_BROAD, _SIDEWAYS]), [1, 0]))
    hips = ratios["torso"] * float(np.exp(more))
    factors = {joint: ratios[name] for name, kinds in PARTS.items() for kind in kinds for joint in kind}
    return Proportions(BodyScale(factors, face=ratios["face"], hands=ratios["hands"]), hips, size, nearest, same, near)


def _body_size(found: dict[str, float | None], lengths: np.ndarray) -> float:
    """Of the legs if they are known, else of the torso, else of all that is."""
    for names in (("upper_legs", "lower_legs"), ("torso",), tuple(PARTS), ("face", "hands")):
        known = [name for name in names if found[name] is not None]
        if known:
            weights = [np.nanmax(lengths[:, [j for kind in PARTS[n] for j in kind]]) if n in PARTS else 1.0 for n in known]
            return float(np.average([found[name] for name in known], weights=np.nan_to_num(weights) + 1e-9))
    raise NothingInCommon(
        f"the reference and the driver have no bone in common, expected at least one limb that both show with a confidence above "
        f"{SURE:g}; take another reference picture or driver, or check the pose extractor"
    )

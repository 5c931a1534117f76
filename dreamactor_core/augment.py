"""Pose augmentation (section on the pose variant of the paper): a skeleton that tells motion and not shape.

Bones get other lengths with the same joint angles, and the clip is normalised by the box around all of its joints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .necks import NECK, necks
from .poses import Person, PoseSequence

PARENTS = {
    2: 1, 5: 1, 8: 1, 11: 1, 0: 1, 3: 2, 4: 3, 6: 5, 7: 6, 9: 8, 10: 9, 12: 11, 13: 12, 14: 0, 15: 0, 16: 14, 17: 15,
}  # fmt: skip
"""Parent of each body joint in an order in which parents come first; the neck (1) is the root."""

SEGMENTS = {
    "shoulders": (2, 5), "torso": (8, 11), "head": (0, 14, 15, 16, 17), "upper_arms": (3, 6), "lower_arms": (4, 7),
    "upper_legs": (9, 12), "lower_legs": (10, 13),
}  # fmt: skip
"""Joints whose bone (from their parent) is scaled together, left and right alike."""

RIDERS = {"face": 0, "left_hand": 7, "right_hand": 4}
"""Body joint that each rigid group rides on."""

LOW, HIGH, SHARE = 0.8, 1.2, 0.3
"""Range of the random factors, and the share of clips that get any (arXiv version of the paper)."""

MARGIN = 0.07
_POINT = 1e-3  # pixels; people smaller than this have no size to bring to another


@dataclass(frozen=True)
class BodyScale:
    """Factors of one person: of the bone to each body joint from its parent, and of the groups that ride on joints."""

    bones: Mapping[int, float]
    face: float
    hands: float

    def rider(self, group: str) -> float:
        """Factor of "face", "left_hand" or "right_hand"."""
        return self.face if group == "face" else self.hands


def _carried(joint: int, at: np.ndarray, before: np.ndarray, after: np.ndarray, scale: BodyScale) -> np.ndarray:
    """Where a point that stands for a body joint goes, given that its ancestors are placed in `after` already.

    It keeps its direction from the nearest ancestor that is seen, in the end from the neck, whose place is known in any
    case. Over unseen joints in between, the mean of their factors holds: exact for a straight limb of equal bones.
    """
    factors = []
    while joint != NECK:
        factors.append(scale.bones[joint])
        joint = PARENTS[joint]
        if before[joint, 2] > 0:
            break
    return after[joint, :2] + (at - before[joint, :2]) * np.mean(factors)


def scale_person(person: Person, scale: BodyScale, neck: np.ndarray | None = None) -> Person:
    """Other bone lengths, the same joint angles; the neck stays in place.

    Hands and face are scaled as rigid groups about the joint that they ride on (wrists, nose), or where that is not
    seen, about a stand-in (a hand's own wrist, the middle of the points) that is carried in its place. A joint that is
    not seen stays so; `_carried` says what becomes of those beyond it.

    Args:
        neck: Where the neck is or would be, (2,), from `necks` of the whole clip. None: from this frame alone.
    """
    before = person.body.astype(np.float64)
    before[NECK, :2] = necks([person])[0] if neck is None else neck
    after = before.copy()
    for joint in PARENTS:
        if before[joint, 2] > 0:
            after[joint, :2] = _carried(joint, before[joint, :2], before, after, scale)
    body = after.copy()
    body[NECK] = person.body[NECK]
    moved = {"body": body.astype(np.float32)}
    rooted = bool(np.isfinite(before[NECK, :2]).all())  # else nothing of the body is known, and its parts stay
    for group, joint in RIDERS.items():
        points = getattr(person, group).astype(np.float64)
        seen = points[:, 2] > 0
        if seen.any():
            if before[joint, 2] > 0:
                old, new = before[joint, :2], after[joint, :2]
            else:
                old = points[0, :2] if group != "face" and seen[0] else points[seen, :2].mean(0)
                new = _carried(joint, old, before, after, scale) if rooted else old
            points[seen, :2] = new + (points[seen, :2] - old) * scale.rider(group)
        moved[group] = points.astype(np.float32)
    return Person(**moved)


def scale_people(people: Sequence[Person], scale: BodyScale) -> list[Person]:
    """`scale_person` for one person in every frame of a clip; a neck that is lost for some frames is where it would be."""
    return [scale_person(person, scale, neck) for person, neck in zip(people, necks(people), strict=True)]


def draw_scale(rng: np.random.Generator, low: float = LOW, high: float = HIGH) -> BodyScale:
    """One factor of U(low, high) for each segment and for the hands. The face is a part of the head and has its factor:
    otherwise the eyes of the face would leave those of the body."""
    drawn = {name: float(rng.uniform(low, high)) for name in (*SEGMENTS, "hands")}
    bones = {joint: drawn[name] for name, joints in SEGMENTS.items() for joint in joints}
    return BodyScale(bones, face=drawn["head"], hands=drawn["hands"])


def scale_bones(
    sequence: PoseSequence,
    rng: np.random.Generator,
    low: float = LOW,
    high: float = HIGH,
    share: float = SHARE,
    progress: Callable[[int, int], None] | None = None,
) -> PoseSequence:
    """With a chance of `share`, scale each anatomical segment by one random factor for the whole clip.

    Person k has the same factors in every frame, and others than the next person.

    Args:
        progress: Called before each person with how many are done, and of how many; raises to stop.

    Raises:
        ValueError: factors that are not positive or the wrong way round, or a share outside 0 to 1.
    """
    if not 0 < low <= high < np.inf:
        raise ValueError(f"the factors go from {low:g} to {high:g}, expected two positive numbers, the smaller one first")
    if not 0 <= share <= 1:
        raise ValueError(f"the share is {share:g}, expected 0 (never) to 1 (always)")
    if rng.random() >= share:
        return sequence
    most = max((len(people) for people in sequence.frames), default=0)
    frames: list[list[Person]] = [[] for _ in sequence.frames]
    for who in range(most):
        if progress is not None:
            progress(who, most)
        track = [people[who] if who < len(people) else Person() for people in sequence.frames]
        for t, scaled in enumerate(scale_people(track, draw_scale(rng, low, high))):
            if who < len(sequence.frames[t]):
                frames[t].append(scaled)
    return replace(sequence, frames=frames)


def normalise(
    sequence: PoseSequence, height: int, width: int, margin: float = MARGIN, threshold: float = 0.3
) -> PoseSequence:
    """The sequence moved and scaled onto a canvas so that people fill it: the paper's bounding-box normalisation.

    One box encloses every joint of the whole clip that is drawn (of a confidence above `threshold`: some estimators guess
    a place for every joint), so motion across the frame is kept. It is scaled to fit the canvas less `margin` of it on
    each side, aspect ratio kept, centred, with its lower edge on the lower margin. A clip in which nothing is seen is
    letterboxed. Raises ValueError for a margin that leaves no room.
    """
    if not 0 <= margin < 0.5:
        raise ValueError(f"the margin is {margin:g} of the canvas, expected 0 or more and less than 0.5")
    seen = [
        points[points[:, 2] > threshold, :2]
        for people in sequence.frames
        for person in people
        for points in person.groups().values()
    ]
    joints = np.concatenate([np.zeros((0, 2)), *seen]).astype(np.float64)
    if not len(joints):
        return sequence.fitted(height, width)
    low, high = joints.min(0), joints.max(0)
    room, size = np.array([width, height]) * (1 - 2 * margin), high - low
    scale = float((room / np.maximum(size, _POINT)).min()) if size.max() > _POINT else 1.0
    offset = (width / 2 - scale * (low[0] + high[0]) / 2, height * (1 - margin) - scale * high[1])
    frames = [[person.mapped((scale, scale), offset) for person in people] for people in sequence.frames]
    return PoseSequence(frames, height, width, sequence.tracked)


FITS = ("canvas", "people", "crop")
"""Ways to bring poses onto a canvas."""


def placed(sequence: PoseSequence, height: int, width: int, fit: str, threshold: float = 0.3) -> PoseSequence:
    """The sequence on a canvas of `height` x `width` pixels as Pose Draw places it.

    Args:
        fit: "canvas", its own canvas letterboxed; "people", zoomed onto the box around everybody, see `normalise`; or "crop",
            its own canvas centred and cropped. Raises ValueError for another one.
        threshold: Joints not above this confidence are not drawn, and do not count for the box.
    """
    if fit == "canvas":
        return sequence.fitted(height, width)
    if fit == "people":
        return normalise(sequence, height, width, threshold=threshold)
    if fit == "crop":
        return sequence.cropped(height, width)
    raise ValueError(f"fit is {fit!r}, expected one of {', '.join(FITS)}")

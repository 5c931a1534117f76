"""The skeleton video of a pose sample: augmented, so that it tells motion and not shape (the paper's pose variant)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from dreamactor_core.augment import normalise, scale_bones
from dreamactor_core.poses import Person, PoseFormatError, PoseSequence
from dreamactor_core.retarget import retarget
from dreamactor_core.skeleton import draw_skeleton
from training.config import Augment

LIMBS = {
    "arms": ((3, 4, 6, 7), ("left_hand", "right_hand")),
    "legs": ((9, 10, 12, 13), ()),
}
"""Body joints of both arms and of both legs, without shoulders and hips, and the groups that go with them."""

_HIPS, _ANKLES = (8, 11), (10, 13)


def without(sequence: PoseSequence, limbs: str) -> PoseSequence:
    """The sequence with both arms or both legs of everybody not seen."""
    joints, groups = LIMBS[limbs]

    def hidden(person: Person) -> Person:
        body = person.body.copy()
        body[list(joints)] = 0
        return replace(person, body=body, **{group: np.zeros_like(getattr(person, group)) for group in groups})

    return replace(sequence, frames=[[hidden(person) for person in people] for people in sequence.frames])


def _stand(sequence: PoseSequence) -> np.ndarray:
    """Where the first person stands in the first frame that shows it: (x of the hips, y of the lower foot), nan if unseen."""
    for people in sequence.frames:
        if people and people[0].seen:
            body = people[0].body
            hips, feet = (body[list(joints)][body[list(joints), 2] > 0] for joints in (_HIPS, _ANKLES))
            return np.array([hips[:, 0].mean() if len(hips) else np.nan, feet[:, 1].max() if len(feet) else np.nan])
    return np.full(2, np.nan)


def with_body_of(sequence: PoseSequence, other: PoseSequence) -> PoseSequence:
    """The motion with another body's proportions, standing where it stood: size and shape change, the place does not.

    The sequence itself when the two have no limb in common.
    """
    try:
        changed = retarget(sequence, other.fitted(sequence.height, sequence.width))
    except (PoseFormatError, ValueError):
        return sequence
    offset = np.nan_to_num(_stand(sequence) - _stand(changed))
    frames = [[person.mapped((1, 1), tuple(offset)) for person in people] for people in changed.frames]
    return PoseSequence(frames, sequence.height, sequence.width, sequence.tracked)


def augmented(
    sequence: PoseSequence, settings: Augment, rng: np.random.Generator, others: Sequence[PoseSequence] = ()
) -> PoseSequence:
    """A sequence without its lead-in, augmented as `settings` say: each share is drawn by itself.

    A body of `others` takes the place of the factors where both are drawn: it changes the same bones by more.
    """
    chances = rng.random(3)
    if others and chances[0] < settings.other_bodies:
        sequence = with_body_of(sequence, others[int(rng.integers(len(others)))])
    else:
        sequence = scale_bones(sequence, rng, settings.low, settings.high, settings.bones)
    if chances[1] < settings.hidden_limbs:
        sequence = without(sequence, str(rng.choice(list(LIMBS))))
    if chances[2] < settings.normalise:
        sequence = normalise(sequence, sequence.height, sequence.width)
    return sequence


def drawn(sequence: PoseSequence) -> np.ndarray:
    """The skeleton video, RGB uint8 (T, H, W, 3)."""
    return draw_skeleton(sequence, sequence.height, sequence.width)


def convention(sequences: Iterable[PoseSequence]) -> str:
    """What the LoRA's contract says of skeletons like these: the most that one of them shows. No more are read than it takes."""
    people = (person for sequence in sequences for frame in sequence.frames for person in frame)
    more = any((points[:, 2] > 0).any() for p in people for points in (p.face, p.left_hand, p.right_hand))
    return "openpose18+face+hands" if more else "openpose18"


def to_array(sequence: PoseSequence) -> np.ndarray:
    """All joints as float32 (T, people, 130, 3), people who are missing in a frame all zero."""
    most = max((len(people) for people in sequence.frames), default=0)
    empty = np.concatenate(list(Person().groups().values()))
    rows = [
        [np.concatenate(list(people[k].groups().values())) if k < len(people) else empty for k in range(most)]
        for people in sequence.frames
    ]
    return np.array(rows, np.float32).reshape(len(rows), most, len(empty), 3)


def from_array(joints: np.ndarray, height: int, width: int) -> PoseSequence:
    """The inverse of `to_array`; its people were followed when it was made."""
    names, counts = zip(*((name, len(points)) for name, points in Person().groups().items()), strict=True)
    ends = np.cumsum(counts)[:-1]
    frames = [
        [Person(**dict(zip(names, np.split(person.astype(np.float32), ends), strict=True))) for person in people]
        for people in joints
    ]
    return PoseSequence(frames, height, width, tracked=True)

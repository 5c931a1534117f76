"""Clips of people, at random and out of the drawn world, and how two of them are compared."""

from __future__ import annotations

import numpy as np

from dreamactor_core.poses import BODY, FACE, HAND, Person, PoseSequence, from_body_joints
from training.marionette.world import HEIGHT, WIDTH, rng_for, sample_scene


def random_people(seed: int, frames: int = 5, people: int = 1) -> PoseSequence:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(frames):
        made.append([])
        for _ in range(people):
            groups = {}
            for name, count in (("body", BODY), ("face", FACE), ("left_hand", HAND), ("right_hand", HAND)):
                points = np.concatenate([rng.uniform(0, 400, (count, 2)), np.ones((count, 1))], 1)
                groups[name] = points.astype(np.float32)
            made[-1].append(Person(**groups))
    return PoseSequence(made, 400, 400)


def marionette(seed: int, size: tuple[int, int] = (480, 320)) -> PoseSequence:
    """A scene of the drawn world, at a size at which bones are long enough to have a direction."""
    scene = sample_scene(rng_for("test", 0, seed), "cartoon" if seed % 2 else "human")
    return from_body_joints(scene.keypoints(), HEIGHT, WIDTH).fitted(*size)


def pairs(one: PoseSequence, other: PoseSequence) -> list[tuple[Person, Person]]:
    assert [len(people) for people in one.frames] == [len(people) for people in other.frames]
    both = zip(one.frames, other.frames, strict=True)
    return [pair for people, twins in both for pair in zip(people, twins, strict=True)]

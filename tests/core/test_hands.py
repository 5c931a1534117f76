"""Hands that a writer calls by the wrong side are told by the wrist that they are at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dreamactor_core.augment import RIDERS, scale_bones
from dreamactor_core.hands import with_own_hands
from dreamactor_core.poses import Person, PoseSequence, from_pose_keypoint
from dreamactor_core.retarget import retarget

DRIVES = Path(__file__).resolve().parents[1] / "data" / "drives"
NAMES = ("dancer", "man_upper_body", "toon_dancer")


def drive(name: str) -> PoseSequence:
    return from_pose_keypoint(json.loads((DRIVES / f"{name}.json").read_text("utf-8"))["frames"])


def misnamed(sequence: PoseSequence, *who: int) -> PoseSequence:
    frames = [
        [replace(p, left_hand=p.right_hand, right_hand=p.left_hand) if k in who else p for k, p in enumerate(people)]
        for people in sequence.frames
    ]
    return PoseSequence(frames, sequence.height, sequence.width)


def assert_same(one: PoseSequence, other: PoseSequence) -> None:
    for people, twins in zip(one.frames, other.frames, strict=True):
        for person, twin in zip(people, twins, strict=True):
            for name, points in person.groups().items():
                np.testing.assert_array_equal(points, getattr(twin, name), err_msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_hands_of_real_people(name: str) -> None:
    sequence = drive(name)
    assert with_own_hands(sequence) is sequence
    assert_same(with_own_hands(misnamed(sequence, 0)), sequence)


def test_it_is_decided_for_each_person_and_once_for_the_clip() -> None:
    one, two = drive("dancer"), drive("toon_dancer")
    frames = [[*a, *b] for a, b in zip(one.frames, two.frames, strict=False) if a and b]
    sequence = PoseSequence(frames, 400, 800)
    assert_same(with_own_hands(misnamed(sequence, 1)), sequence)
    for t in (3, 4, 9):  # an estimator's mistake, or a hand that is held across the body
        sequence.frames[t] = misnamed(sequence[[t]], 0).frames[0]
    assert with_own_hands(sequence) is sequence


def test_a_single_hand() -> None:
    person = drive("man_upper_body").frames[0][0]
    for lost in ("left_hand", "right_hand"):
        alone = PoseSequence([[replace(person, **{lost: np.zeros((21, 3), np.float32)})]], 400, 400)
        assert with_own_hands(alone) is alone
        assert_same(with_own_hands(misnamed(alone, 0)), alone)


def test_without_wrists_nothing_is_known() -> None:
    person = drive("man_upper_body").frames[0][0]
    body = person.body.copy()
    body[[4, 7]] = 0
    unknown = misnamed(PoseSequence([[replace(person, body=body)], [], [Person()]], 400, 400), 0)
    assert with_own_hands(unknown) is unknown


@pytest.mark.parametrize("edit", ["retarget", "augment"])
def test_a_misnamed_hand_stays_at_its_wrist_on_another_body(edit: str) -> None:
    """Scaled about the wrong wrist, it would fly off."""
    sequence = drive("toon_dancer")
    small = PoseSequence([[p.mapped((0.5, 0.5), (40, 60)) for p in sequence.frames[0]]], 400, 400)
    given = with_own_hands(misnamed(sequence, 0))
    after = retarget(given, small) if edit == "retarget" else scale_bones(given, np.random.default_rng(2), 0.5, 0.6, 1.0)
    checked = 0
    for (person,), (twin,) in zip(sequence.frames, after.frames, strict=True):
        for hand in ("left_hand", "right_hand"):
            wrist = RIDERS[hand]
            if getattr(person, hand)[0, 2] > 0 and person.body[wrist, 2] > 0:
                before, now = (np.linalg.norm(getattr(p, hand)[0, :2] - p.body[wrist, :2]) for p in (person, twin))
                assert now <= 0.7 * before + 0.5
                checked += 1
    assert checked > 40

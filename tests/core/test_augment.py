"""Bone scaling: other lengths, the same angles."""

from __future__ import annotations

import numpy as np
import pytest
from sequences import marionette, pairs, random_people

from dreamactor_core.augment import (
    PARENTS,
    RIDERS,
    SEGMENTS,
    SHARE,
    BodyScale,
    scale_bones,
    scale_people,
    scale_person,
)
from dreamactor_core.poses import (
    BODY,
    Person,
    PoseSequence,
    from_pose_keypoint,
    to_pose_keypoint,
)

SEGMENT_OF = {joint: name for name, joints in SEGMENTS.items() for joint in joints}
MIRROR = {2: 5, 3: 6, 4: 7, 8: 11, 9: 12, 10: 13, 14: 15, 16: 17}


def bones(body: np.ndarray, least: float = 0.2) -> dict[int, np.ndarray]:
    """Vector from the parent to each joint whose bone is seen, and is long enough (pixels) to have a direction in float32."""
    seen = {
        joint: (body[joint, :2] - body[parent, :2]).astype(np.float64)
        for joint, parent in PARENTS.items()
        if body[joint, 2] > 0 and body[parent, 2] > 0
    }
    return {joint: bone for joint, bone in seen.items() if np.hypot(*bone) > least}


def ratios(one: PoseSequence, other: PoseSequence, who: int = 0) -> dict[int, list[float]]:
    """Length after over length before of every bone in every frame."""
    found: dict[int, list[float]] = {}
    for people, twins in zip(one.frames, other.frames, strict=True):
        if len(people) > who:
            after = bones(twins[who].body, 0)
            for joint, bone in bones(people[who].body).items():
                found.setdefault(joint, []).append(float(np.hypot(*after[joint]) / np.hypot(*bone)))
    return found


def drawn(seed: int, people: int = 1, low: float = 0.8, high: float = 1.2) -> list[dict[str, float]]:
    """The factors that the generator of a seed yields: one a segment, then the hands', person after person."""
    rng = np.random.default_rng(seed)
    rng.random()  # whether this clip has a share in it
    return [{name: rng.uniform(low, high) for name in (*SEGMENTS, "hands")} for _ in range(people)]


def scaled(sequence: PoseSequence, seed: int = 0, low: float = 0.8, high: float = 1.2) -> PoseSequence:
    return scale_bones(sequence, np.random.default_rng(seed), low, high, share=1)


def test_the_tree_spans_the_body_and_the_segments_cover_it() -> None:
    assert set(PARENTS) == set(range(BODY)) - {1}
    placed = {1}
    for joint, parent in PARENTS.items():
        assert parent in placed, f"the parent of {joint} comes after it"
        placed.add(joint)
    listed = [joint for joints in SEGMENTS.values() for joint in joints]
    assert sorted(listed) == sorted(PARENTS)
    for right, left in MIRROR.items():
        assert SEGMENT_OF[right] == SEGMENT_OF[left]
        assert MIRROR.get(PARENTS[right], PARENTS[right]) == PARENTS[left]


@pytest.mark.parametrize("seed", range(8))
def test_angles_stay_on_random_people(seed: int) -> None:
    check_angles(random_people(seed), seed)


@pytest.mark.parametrize("seed", range(4))
def test_angles_stay_on_real_people(real_people: PoseSequence, seed: int) -> None:
    check_angles(real_people, seed)


@pytest.mark.parametrize("seed", range(6))
def test_angles_and_factors_in_the_drawn_world(seed: int) -> None:
    sequence = marionette(seed)
    check_angles(sequence, seed)
    (factors,) = drawn(seed)
    for joint, values in ratios(sequence, scaled(sequence, seed)).items():
        assert values == pytest.approx([factors[SEGMENT_OF[joint]]] * len(values), abs=1e-3)


def check_angles(sequence: PoseSequence, seed: int) -> None:
    for person, twin in pairs(sequence, scaled(sequence, seed)):
        after = bones(twin.body, 0)
        for joint, before in bones(person.body).items():
            bone = after[joint]
            cross = before[0] * bone[1] - before[1] * bone[0]
            assert abs(np.degrees(np.arctan2(cross, before @ bone))) < 0.1, f"bone to joint {joint} has turned"


@pytest.mark.parametrize("seed", range(8))
def test_lengths_follow_the_drawn_factors(seed: int) -> None:
    sequence = random_people(seed, people=3)
    after = scaled(sequence, seed)
    for who, factors in enumerate(drawn(seed, 3)):
        for joint, values in ratios(sequence, after, who).items():
            assert values == pytest.approx([factors[SEGMENT_OF[joint]]] * len(values), abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_lengths_follow_the_drawn_factors_on_real_people(real_people: PoseSequence, seed: int) -> None:
    (factors,) = drawn(seed)
    for joint, values in ratios(real_people, scaled(real_people, seed)).items():
        assert values == pytest.approx([factors[SEGMENT_OF[joint]]] * len(values), abs=1e-3)


def test_left_and_right_go_together_and_segments_apart() -> None:
    sequence = random_people(0)
    mean = {joint: np.mean(values) for joint, values in ratios(sequence, scaled(sequence, 1)).items()}
    for right, left in MIRROR.items():
        assert mean[right] == pytest.approx(mean[left], abs=1e-3)
    by_segment = sorted(mean[joints[0]] for joints in SEGMENTS.values())
    assert (np.diff(by_segment) > 1e-4).all(), "two segments share a factor"


@pytest.mark.parametrize(("low", "high"), [(0.8, 1.2), (0.5, 0.6), (1.5, 2.0)])
def test_factors_stay_within_bounds_and_use_them(low: float, high: float) -> None:
    sequence = random_people(0, frames=1)
    found = [v for seed in range(60) for v in ratios(sequence, scaled(sequence, seed, low, high))[4]]
    assert low - 1e-3 <= min(found) < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < max(found) <= high + 1e-3


def test_factors_of_1_change_nothing(real_people: PoseSequence) -> None:
    for person, twin in pairs(real_people, scaled(real_people, low=1.0, high=1.0)):
        for name, points in person.groups().items():
            np.testing.assert_allclose(getattr(twin, name), points, atol=1e-3)


@pytest.mark.parametrize("factor", [0.8, 1.3])
def test_one_factor_for_all_is_a_zoom_about_the_neck(factor: float) -> None:
    sequence = random_people(2)
    for person, twin in pairs(sequence, scaled(sequence, low=factor, high=factor)):
        root = person.body[1, :2]
        np.testing.assert_allclose(twin.body[:, :2], root + (person.body[:, :2] - root) * factor, atol=1e-2)


@pytest.mark.parametrize("seed", range(3))
def test_the_neck_does_not_move(real_people: PoseSequence, seed: int) -> None:
    for person, twin in pairs(real_people, scaled(real_people, seed)):
        np.testing.assert_array_equal(twin.body[1], person.body[1])


@pytest.mark.parametrize("seed", range(3))
def test_missing_joints_stay_missing_and_confidences_stay(real_people: PoseSequence, seed: int) -> None:
    for person, twin in pairs(real_people, scaled(real_people, seed)):
        for name, points in person.groups().items():
            after = getattr(twin, name)
            np.testing.assert_array_equal(after[:, 2], points[:, 2])
            assert not after[points[:, 2] <= 0].any()


@pytest.mark.parametrize("missing", range(BODY))
def test_the_rest_of_a_broken_chain_is_sound(missing: int) -> None:
    sequence = random_people(3)
    for people in sequence.frames:
        people[0].body[missing] = 0
    check_angles(sequence, 5)
    (factors,) = drawn(5)
    after = scaled(sequence, 5)
    for joint, values in ratios(sequence, after).items():
        assert values == pytest.approx([factors[SEGMENT_OF[joint]]] * len(values), abs=1e-3)
    for people in after.frames:
        assert not people[0].body[missing].any()


@pytest.mark.parametrize("group", RIDERS)
def test_hands_and_face_are_scaled_about_the_joint_they_ride_on(group: str) -> None:
    sequence = random_people(4)
    for people in sequence.frames:
        getattr(people[0], group)[3] = 0
    (factors,) = drawn(2)
    factor = factors["head" if group == "face" else "hands"]
    for person, twin in pairs(sequence, scaled(sequence, 2)):
        old, new = person.body[RIDERS[group], :2], twin.body[RIDERS[group], :2]
        assert np.hypot(*(new - old)) > 0.1
        before, after = getattr(person, group), getattr(twin, group)
        seen = before[:, 2] > 0
        np.testing.assert_allclose(after[seen, :2], new + (before[seen, :2] - old) * factor, atol=1e-3)
        assert not after[3].any()


@pytest.mark.parametrize("seed", range(3))
def test_the_eyes_of_the_face_stay_those_of_the_body(seed: int) -> None:
    sequence = random_people(seed)
    for people in sequence.frames:
        people[0].face[68:] = people[0].body[14:16]
    for _, twin in pairs(sequence, scaled(sequence, seed)):
        np.testing.assert_allclose(twin.face[68:], twin.body[14:16], atol=1e-3)


@pytest.mark.parametrize("group", RIDERS)
def test_a_group_without_its_joint_keeps_its_shape(group: str) -> None:
    """It is scaled as a rigid whole, and its own wrist (for a face: its middle) goes where the joint would have gone."""
    sequence = random_people(5)
    joint = RIDERS[group]
    for people in sequence.frames:
        points = getattr(people[0], group)
        points[0, :2] = people[0].body[joint, :2]
        if group == "face":
            points[:, :2] += people[0].body[joint, :2] - points[:, :2].mean(0)
    whole = scaled(sequence, 3)
    for people in sequence.frames:
        people[0].body[joint] = 0
    for one, other in pairs(whole, scaled(sequence, 3)):
        np.testing.assert_allclose(getattr(other, group), getattr(one, group), atol=2e-3)


def test_a_chain_with_a_hole_keeps_its_direction_and_has_the_mean_of_its_factors() -> None:
    body = np.zeros((BODY, 3), np.float32)
    body[1], body[2], body[4], body[10] = (100, 100, 1), (80, 100, 1), (40, 180, 1), (90, 300, 1)
    bones = dict.fromkeys(PARENTS, 1.0) | {2: 1.5, 3: 0.8, 4: 1.0, 8: 2.0, 9: 1.0, 10: 1.5}
    after = scale_person(Person(body=body), BodyScale(bones, face=1, hands=1)).body
    np.testing.assert_allclose(after[2, :2], (70, 100), atol=1e-4)
    np.testing.assert_allclose(after[4, :2], np.array([70, 100]) + np.array([-40, 80]) * 0.9, atol=1e-4)
    np.testing.assert_allclose(after[10, :2], np.array([100, 100]) + np.array([-10, 200]) * 1.5, atol=1e-4)


HALF = BodyScale(dict.fromkeys(PARENTS, 0.5), face=0.5, hands=0.5)
# limbs as their roots: what hangs on a lost shoulder or hip has the mean of the factors in between
_BY_LIMB = {"torso": 0.7, "upper_legs": 0.7, "lower_legs": 0.7, "head": 1.6}
UNEVEN = BodyScale({joint: _BY_LIMB.get(SEGMENT_OF[joint], 1.2) for joint in PARENTS}, face=1.6, hands=1.0)


@pytest.mark.parametrize("lost", [[1], [1, 2], [1, 5], [1, 2, 5], [1, 2, 5, 0], [1, 2, 5, 0, 8, 11], list(range(BODY))])
@pytest.mark.parametrize("scale", [HALF, UNEVEN], ids=["half", "uneven"])
def test_a_neck_that_is_lost_for_some_frames_changes_nothing(lost: list[int], scale: BodyScale) -> None:
    """What is still seen stays where it would have been, up to what the body moved in between."""
    people = [frame[0] for frame in marionette(2).frames]
    whole = scale_people(people, scale)
    for t in (0, 7, 12, 13):
        people[t] = Person(**{**people[t].groups(), "body": people[t].body.copy()})
        people[t].body[lost] = 0
    for t, (person, after) in enumerate(zip(whole, scale_people(people, scale), strict=True)):
        seen = after.body[:, 2] > 0
        assert not seen[lost].any() or t not in (0, 7, 12, 13)
        np.testing.assert_allclose(after.body[seen, :2], person.body[seen, :2], atol=6.0)


@pytest.mark.parametrize("lost", [[1], [1, 2], [1, 5], [1, 2, 5], [1, 2, 3, 5, 6], [1, 2, 5, 0, 14, 15, 16, 17]])
def test_a_clip_without_a_neck_is_scaled_as_a_whole(lost: list[int]) -> None:
    sequence = random_people(3)
    for people in sequence.frames:
        people[0].body[lost] = 0
    for (person,) in sequence.frames:
        after = scale_person(person, HALF).body
        seen = person.body[:, 2] > 0
        old, new = (points[seen, :2] - points[seen, :2].mean(0) for points in (person.body, after))
        np.testing.assert_allclose(new, old * 0.5, atol=1e-3)
    check_angles(sequence, 5)


def test_a_hand_alone_stays_where_nothing_is_known_of_its_body_and_goes_along_where_something_is() -> None:
    (person,) = random_people(0, frames=1).frames[0]
    alone = Person(left_hand=person.left_hand)
    wrist = person.left_hand[0, :2]
    np.testing.assert_allclose(scale_person(alone, HALF).left_hand[0, :2], wrist, atol=1e-4)
    after = scale_people([person, alone, person], HALF)[1]
    neck = person.body[1, :2]
    np.testing.assert_allclose(after.left_hand[0, :2], neck + (wrist - neck) * 0.5, atol=1e-3)


def test_a_share_of_clips_is_changed() -> None:
    sequence = random_people(0, frames=1)
    rng = np.random.default_rng(0)
    changed = sum(scale_bones(sequence, rng) is not sequence for _ in range(2000)) / 2000
    assert changed == pytest.approx(SHARE, abs=0.04)
    assert SHARE == 0.3
    assert scale_bones(sequence, rng, share=0) is sequence


@pytest.mark.parametrize(("low", "high", "share"), [(0, 1, 1), (-1, 1, 1), (1.2, 0.8, 1), (0.8, np.inf, 1), (1, 1, 1.5)])
def test_factors_that_make_no_sense_are_refused(low: float, high: float, share: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        scale_bones(random_people(0), np.random.default_rng(0), low, high, share)
    with pytest.raises(ValueError, match="expected"):
        scale_bones(random_people(0), np.random.default_rng(0), np.nan, 1)


@pytest.mark.parametrize("seed", range(3))
def test_what_was_scaled_goes_through_pose_keypoint_unharmed(real_people: PoseSequence, seed: int) -> None:
    after = scaled(real_people, seed)
    for person, twin in pairs(after, from_pose_keypoint(to_pose_keypoint(after))):
        for name, points in person.groups().items():
            np.testing.assert_array_equal(getattr(twin, name), points)


def test_the_same_seed_gives_the_same_and_another_another(real_people: PoseSequence) -> None:
    once, again, other = scaled(real_people, 7), scaled(real_people, 7), scaled(real_people, 8)
    for person, twin in pairs(once, again):
        np.testing.assert_array_equal(person.body, twin.body)
    assert any(not np.array_equal(person.body, twin.body) for person, twin in pairs(once, other))


def test_people_get_factors_of_their_own() -> None:
    sequence = random_people(0, people=2)
    after = scaled(sequence, 3)
    first, second = (np.mean(ratios(sequence, after, who)[3]) for who in (0, 1))
    assert abs(first - second) > 1e-3


def test_people_who_come_and_go_keep_their_factors() -> None:
    sequence = random_people(1, frames=4, people=2)
    sequence.frames[1] = []
    sequence.frames[2] = sequence.frames[2][:1]
    after = scaled(sequence, 9)
    for who, factors in enumerate(drawn(9, 2)):
        for joint, values in ratios(sequence, after, who).items():
            assert values == pytest.approx([factors[SEGMENT_OF[joint]]] * len(values), abs=1e-3)


def test_nobody_is_nobody() -> None:
    after = scaled(PoseSequence([[], []], 30, 40))
    assert (after.frames, after.height, after.width) == ([[], []], 30, 40)


def test_the_original_is_left_alone() -> None:
    sequence, twin = random_people(6), random_people(6)
    scaled(sequence, 1)
    for person, same in pairs(sequence, twin):
        for name, points in person.groups().items():
            np.testing.assert_array_equal(getattr(same, name), points)

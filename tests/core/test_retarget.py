"""Retargeting, against the drawn world, in which the same motion can be had on any body, and on real drives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bodies import approach, broader, joints, marionette, nearer

from dreamactor_core.augment import PARENTS, BodyScale, scale_person
from dreamactor_core.poses import (
    BODY,
    Person,
    PoseFormatError,
    PoseSequence,
    from_pose_keypoint,
    to_pose_keypoint,
)
from dreamactor_core.proportions import measure
from dreamactor_core.retarget import retarget
from training.marionette.motions import MOTIONS

DRIVES = Path(__file__).resolve().parents[1] / "data" / "drives"
NAMES = ("dancer", "man_upper_body", "toon_dancer")
ANKLES = [10, 13]


def drive(name: str) -> PoseSequence:
    return from_pose_keypoint(json.loads((DRIVES / f"{name}.json").read_text("utf-8"))["frames"])


def height_of(sequence: PoseSequence) -> float:
    points = joints(sequence)[0, :BODY]
    return float(np.ptp(points[points[:, 2] > 0, 1]))


@pytest.mark.parametrize("own", [0, 5])
@pytest.mark.parametrize("name", NAMES)
def test_its_own_pose_gives_the_drive_back(name: str, own: int) -> None:
    sequence = drive(name)
    after = retarget(sequence, sequence[[own]])
    assert (after.height, after.width) == (sequence.height, sequence.width)
    assert [len(people) for people in after.frames] == [len(people) for people in sequence.frames]
    np.testing.assert_allclose(joints(after), joints(sequence), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("motion", MOTIONS["biped"])
def test_its_own_pose_gives_the_scene_back(motion: str) -> None:
    sequence, _, _ = marionette(1, motion)
    np.testing.assert_allclose(joints(retarget(sequence, sequence[:1])), joints(sequence), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(("scale", "offset"), [(0.4, (30, 20)), (2.5, (-100, 300))])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_body_elsewhere_is_the_drive_there(name: str, scale: float, offset: tuple[float, float]) -> None:
    """Children and giants: a reference of another size is followed exactly."""
    sequence = drive(name)
    frames = [[p.mapped((scale, scale), offset) for p in people] for people in sequence.frames]
    there = PoseSequence(frames, 1000, 1500)
    np.testing.assert_allclose(joints(retarget(sequence, there[:1])), joints(there), rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("motion", [name for name in MOTIONS["biped"] if name != "dances"])
def test_the_motion_is_what_that_body_does(motion: str, seed: int) -> None:
    """Against the ground truth: the reference's own body doing the motion (from a pose of other foreshortening)."""
    driver, truth, reference = marionette(seed, motion)
    error = np.linalg.norm(joints(retarget(driver, reference))[:, :BODY, :2] - joints(truth)[:, :BODY, :2], axis=-1)
    unaided = np.linalg.norm(joints(driver)[:, :BODY, :2] - joints(truth)[:, :BODY, :2], axis=-1)
    assert error.mean() < 0.03 * height_of(truth)
    assert error.mean() < 0.4 * unaided.mean()


def apart(sequence: PoseSequence, one: tuple[int, ...], other: tuple[int, ...]) -> np.ndarray:
    """Distance in each frame between the middles of some joints and of others, (T,)."""
    points = joints(sequence)[..., :2]
    return np.linalg.norm(points[:, list(one)].mean(1) - points[:, list(other)].mean(1), axis=-1)


@pytest.mark.parametrize("breadth", [0.6, 1.8])
@pytest.mark.parametrize("motion", ["waves", "kicks", "marches"])
def test_the_torso_is_as_broad_and_as_long_as_the_references(motion: str, breadth: float) -> None:
    driver, truth, reference = marionette(0, motion)
    broader([people[0] for people in driver.frames], breadth)
    after = retarget(driver, reference)
    for one, other in (((8,), (11,)), ((1,), (8, 11)), ((2,), (5,))):
        np.testing.assert_allclose(apart(after, one, other), apart(truth, one, other), rtol=0.07)


def test_a_hip_that_is_lost_does_not_make_the_other_leg_jump() -> None:
    driver, _, reference = marionette(1, "waves")
    whole = joints(retarget(driver, reference))
    for people in driver.frames[10:20]:
        people[0].body[11, 2] = 0
    lost = joints(retarget(driver, reference))
    assert not lost[10:20, 11].any()
    np.testing.assert_allclose(lost[:, [8, 9, 10], 0], whole[:, [8, 9, 10], 0], atol=0.02 * np.ptp(whole[0, :BODY, 1]))


@pytest.mark.parametrize("view", [0.0, 0.05])
def test_a_body_seen_from_the_side_does_not_tear_the_hips_apart(view: float) -> None:
    driver, _, reference = marionette(0, "waves")
    for people in driver.frames:  # a profile: one hip behind the other
        middle = people[0].body[[8, 11], 0].mean()
        people[0].body[[8, 11], 0] = middle + view * (people[0].body[[8, 11], 0] - middle)
    after = retarget(driver, reference)
    assert np.isfinite(joints(after)).all()
    assert (apart(after, (8,), (11,)) < apart(reference, (8,), (11,))).all()


@pytest.mark.parametrize("frontal", [2, 4])
def test_a_driver_that_turns_to_the_front_at_last_has_hips_of_the_torsos_size(frontal: int) -> None:
    driver, truth, reference = marionette(0, "waves")
    for people in driver.frames[:-frontal]:
        middle = people[0].body[[8, 11], 0].mean()
        people[0].body[[8, 11], 0] = middle + 0.05 * (people[0].body[[8, 11], 0] - middle)
    found = apart(retarget(driver, reference), (8,), (11,))
    np.testing.assert_allclose(found[-frontal:], apart(truth, (8,), (11,))[-frontal:], rtol=0.07)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("motion", ["waves", "claps", "sways", "kicks", "marches", "squats"])
def test_feet_that_rest_stay_at_rest_and_stand_on_the_floor(motion: str, seed: int) -> None:
    driver, _, reference = marionette(seed, motion)
    after = retarget(driver, reference)

    def speed(sequence: PoseSequence) -> np.ndarray:
        return np.linalg.norm(np.diff(joints(sequence)[:, ANKLES, :2], axis=0), axis=-1)

    rests = speed(driver) < 0.001 * height_of(driver)
    assert rests.any()
    assert speed(after)[rests].max() < 0.0025 * height_of(after)
    floor = joints(reference)[0, ANKLES, 1].max()
    lowest = joints(after)[:, ANKLES, 1].max(1)
    np.testing.assert_allclose(lowest, floor, atol=0.01 * height_of(after))


@pytest.mark.parametrize(("legs", "torso", "head"), [(0.5, 1.0, 1.0), (1.8, 0.8, 1.0), (0.6, 0.7, 2.5), (1.0, 1.0, 1.7)])
@pytest.mark.parametrize("name", ["dancer", "toon_dancer"])
def test_other_proportions_without_sliding(name: str, legs: float, torso: float, head: float) -> None:
    """A driver's own first pose with other legs, torso and head (a chibi's): every bone gets its factor."""
    sequence = drive(name)
    bones = dict.fromkeys(PARENTS, 1.0) | dict.fromkeys((9, 10, 12, 13), legs) | dict.fromkeys((8, 11), torso)
    bones |= dict.fromkeys((0, 14, 15, 16, 17), head)
    other = scale_person(sequence.frames[0][0], BodyScale(bones, face=head, hands=1.0))
    reference = PoseSequence([[other]], sequence.height, sequence.width)
    found = measure([people[0] if people else Person() for people in sequence.frames], other)
    for joint, factor in bones.items():
        # a bone that is foreshortened away in this one frame has no length to compare
        assert found.scale.bones[joint] == pytest.approx(factor, rel=0.15), f"bone to {joint}"
    before, after = joints(sequence), joints(retarget(sequence, reference))
    assert np.isfinite(after).all()
    for joint, parent in PARENTS.items():
        seen = (before[:, joint, 2] > 0) & (before[:, parent, 2] > 0)
        old, new = (points[seen, joint, :2] - points[seen, parent, :2] for points in (before, after))
        long = np.linalg.norm(old, axis=1) > 8
        ratio = np.linalg.norm(new[long], axis=1) / np.linalg.norm(old[long], axis=1)
        if joint not in (9, 10, 12, 13):  # legs give way a little for feet that rest
            np.testing.assert_allclose(ratio, found.scale.bones[joint], rtol=2e-3)
            cross = old[long, 0] * new[long, 1] - old[long, 1] * new[long, 0]
            turned = np.degrees(np.arctan2(cross, (old[long] * new[long]).sum(1)))
            assert np.abs(turned).max(initial=0) < 0.1, f"bone to {joint} has turned"
    feet = before[1:, ANKLES, 2] * before[:-1, ANKLES, 2] > 0
    speed = [np.linalg.norm(np.diff(points[:, ANKLES, :2], axis=0), axis=-1) for points in (before, after)]
    rests = feet & (speed[0] < 0.01 * height_of(sequence))
    assert rests.sum() >= 5
    assert np.percentile(speed[1][rests], 95) < 0.03 * height_of(reference)


def test_a_jump_is_as_high_as_the_legs_are_long() -> None:
    driver, _, reference = marionette(2, "waves")
    for t, (person,) in enumerate(driver.frames):
        person.body[:, 1] -= 100 * max(0, 1 - abs(t - 20) / 5)
    size = measure([people[0] for people in driver.frames], reference.frames[0][0]).size
    lowest = joints(retarget(driver, reference))[:, ANKLES, 1].max(1)
    assert lowest[0] - lowest[20] == pytest.approx(100 * size, rel=0.02)
    assert lowest[-1] == pytest.approx(lowest[0], abs=0.5)


def test_travel_is_scaled_by_the_legs() -> None:
    """Sliding along the floor, as on a conveyor: the reference goes as far in its own leg lengths."""
    driver, _, reference = marionette(3, "waves")
    for t, (person,) in enumerate(driver.frames):
        person.body[:, 0] += 4 * t
    size = measure([people[0] for people in driver.frames], reference.frames[0][0]).size
    x = joints(retarget(driver, reference))[:, [8, 11], 0].mean(1)
    assert x[-1] - x[0] == pytest.approx(4 * 39 * size, rel=0.02)
    assert x[0] == pytest.approx(joints(reference)[0, [8, 11], 0].mean(), abs=0.5)


def lowest(sequence: PoseSequence) -> np.ndarray:
    """The lower ankle of each frame, (T,)."""
    return joints(sequence)[:, ANKLES, 1].max(1)


def heights(sequence: PoseSequence) -> np.ndarray:
    return np.ptp(joints(sequence)[:, :BODY, 1], axis=1)


@pytest.mark.parametrize("factor", [2.0, 0.5, 1.4])
@pytest.mark.parametrize("motion", [name for name in MOTIONS["biped"] if name != "does a jumping jack"])
def test_who_comes_nearer_starts_in_the_references_size_on_its_floor(motion: str, factor: float) -> None:
    driver, _, reference = marionette(0, motion)
    sizes = approach(len(driver), factor)
    walk = nearer(driver, sizes, (300, 280))
    after, still = retarget(walk, reference), retarget(driver, reference)
    size = measure([people[0] for people in driver.frames], reference.frames[0][0]).size
    tall = heights(still)[0]
    assert lowest(after)[0] == pytest.approx(joints(reference)[0, ANKLES, 1].max(), abs=0.01 * tall)
    np.testing.assert_allclose(heights(after), heights(still) * sizes, rtol=0.02)
    down = size * (lowest(walk) - lowest(driver))
    np.testing.assert_allclose(lowest(after) - lowest(still), down, atol=0.01 * tall)
    x = [joints(sequence)[:, [8, 11], 0].mean(1) for sequence in (after, still, walk, driver)]
    np.testing.assert_allclose(x[0] - x[1], size * (x[2] - x[3]), atol=0.02 * tall)


def test_a_jump_at_the_start_of_a_walk_is_a_jump() -> None:
    driver, _, reference = marionette(2, "waves")
    for t, (person,) in enumerate(driver.frames):
        person.body[:, 1] -= 100 * max(0, 1 - t / 5)
    walk = nearer(driver, approach(len(driver), 2), (300, 280))
    size = measure([people[0] for people in driver.frames], reference.frames[0][0]).size
    floor = joints(reference)[0, ANKLES, 1].max()
    assert floor - lowest(retarget(walk, reference))[0] == pytest.approx(100 * size, rel=0.05)


@pytest.mark.parametrize("factor", [2.0, 0.5])
@pytest.mark.parametrize("name", NAMES)
def test_a_zoom_on_a_real_drive_grows_from_the_references_size(name: str, factor: float) -> None:
    driver, reference = drive(name), drive("toon_dancer")[[40]]
    sizes = approach(len(driver), factor)
    after, still = retarget(nearer(driver, sizes, (175, 100)), reference), retarget(driver, reference)
    ratios = [
        np.ptp(a[a[:, 2] > 0, 1]) / np.ptp(b[b[:, 2] > 0, 1]) / size
        for a, b, size in zip(joints(after)[:, :BODY], joints(still)[:, :BODY], sizes, strict=True)
        if (b[:, 2] > 0).any()
    ]
    np.testing.assert_allclose(ratios, 1, atol=0.08)


@pytest.mark.parametrize("own", [0, 25])
@pytest.mark.parametrize("name", [*NAMES, "somebody who stands"])
def test_a_frame_of_a_driver_who_comes_nearer_gives_the_clip_back(name: str, own: int) -> None:
    """Also where the pose is the same throughout and only the size tells which frame it is."""
    still = drive(name) if name in NAMES else marionette(0, "waves")[2][[0] * 40]
    walk = nearer(still, approach(len(still), 2), (175, 100))
    np.testing.assert_allclose(joints(retarget(walk, walk[[own]])), joints(walk), rtol=1e-5, atol=1e-2)


def test_the_size_of_who_stands_and_comes_nearer_is_the_references_at_first() -> None:
    """The reference has the driver's own shape and pose, in a size in which the driver is shown later."""
    still = marionette(0, "waves")[2]
    walk = nearer(still[[0] * 40], approach(40, 2), (300, 280))
    reference = nearer(still, np.array([1.5]), (100, 300))
    after = joints(retarget(walk, reference))
    np.testing.assert_allclose(after[0, :BODY, :2], joints(reference)[0, :BODY, :2], atol=0.02 * heights(reference)[0])


def turned(body: np.ndarray, share: float) -> None:
    """Narrower about the neck, as from the side."""
    body[:, 0] = np.where(body[:, 2] > 0, body[1, 0] + share * (body[:, 0] - body[1, 0]), 0)


def folded(body: np.ndarray, torso: float, thighs: float, shins: float) -> None:
    """Torso and legs foreshortened; the feet stay where they are."""
    feet = body[ANKLES, 1].copy()
    for hip, knee, ankle in ((8, 9, 10), (11, 12, 13)):
        shin, thigh, trunk = body[ankle] - body[knee], body[knee] - body[hip], body[hip] - body[1]
        body[hip, :2] = body[1, :2] + torso * trunk[:2]
        body[knee, :2] = body[hip, :2] + thighs * thigh[:2]
        body[ankle, :2] = body[knee, :2] + shins * shin[:2]
    body[body[:, 2] > 0, 1] += (feet - body[ANKLES, 1]).max()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("motion", ["turns", "sits down", "stands up", "squats", "jumps", *MOTIONS["biped"]])
def test_what_foreshortens_is_no_motion_in_depth(motion: str, seed: int) -> None:
    """So that it comes out as it would without a look at depth at all: with one size for all frames."""
    driver, _, reference = marionette(seed, motion if motion in MOTIONS["biped"] else "waves")
    for t, (person,) in enumerate(driver.frames):
        share = (1 - np.cos(np.pi * min(max(t - 8, 0) / 16, 1))) / 2
        if motion == "turns":
            turned(person.body, 1 - 0.9 * share)
        elif motion in ("sits down", "stands up"):
            share = share if motion == "sits down" else 1 - share
            folded(person.body, 1 - 0.1 * share, 1 - 0.8 * share, 1 - 0.05 * share)
        elif motion == "squats":
            down = np.sin(np.pi * share)
            folded(person.body, 1 - 0.3 * down, 1 - 0.7 * down, 1 - 0.2 * down)
        elif motion == "jumps":
            person.body[:, 1] -= 150 * np.sin(np.pi * share)
    assert (measure([people[0] for people in driver.frames], reference.frames[0][0]).near == 1).all()


@pytest.mark.parametrize("other", NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_real_drives_without_motion_in_depth_have_one_size(name: str, other: str) -> None:
    """One of them is of a man who turns: his shoulders and arms get half as long."""
    driver = [people[0] if people else Person() for people in drive(name).frames]
    assert (measure(driver, drive(other)[20:].frames[0][0]).near == 1).all()


@pytest.mark.parametrize("other", ["dancer", "toon_dancer"])
def test_a_half_body_drives_a_full_body(other: str) -> None:
    """No leg is made up, and the upper body is where the reference's is."""
    driver, reference = drive("man_upper_body"), drive(other)[:1]
    after = retarget(driver, reference)
    np.testing.assert_array_equal(joints(after)[..., 2] > 0, joints(driver)[..., 2] > 0)
    neck = joints(reference)[0, 1, :2]
    assert np.linalg.norm(joints(after)[0, 1, :2] - neck) < 0.25 * height_of(reference)


@pytest.mark.parametrize("other", ["dancer", "toon_dancer"])
def test_a_full_body_drives_a_half_body(other: str) -> None:
    """The legs that the reference's picture cuts off are not drawn into it."""
    driver, reference = drive(other), drive("man_upper_body")[:1]
    after = joints(retarget(driver, reference))[:, :BODY]
    assert not after[:, [9, 10, 12, 13]].any()
    kept = [j for j in range(BODY) if j not in (9, 10, 12, 13)]
    np.testing.assert_array_equal(after[:, kept, 2], joints(driver)[:, kept, 2])
    assert np.linalg.norm(after[0, 1, :2] - joints(reference)[0, 1, :2]) < 0.35 * height_of(reference)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_missing_joints_stay_missing_and_numbers_are_sound(name: str, other: str) -> None:
    driver = drive(name)
    after = retarget(driver, drive(other)[20:])
    assert (after.height, after.width) == (drive(other).height, drive(other).width)
    points = joints(after)
    assert np.isfinite(points).all()
    assert not points[joints(driver)[..., 2] == 0].any()
    np.testing.assert_array_equal(joints(from_pose_keypoint(to_pose_keypoint(after))), points)
    size = height_of(drive(other)[20:])
    steps = np.linalg.norm(np.diff(points[:, :BODY, :2], axis=0), axis=-1)
    seen = (points[1:, :BODY, 2] > 0) & (points[:-1, :BODY, 2] > 0)
    assert np.median(steps[seen]) < 0.1 * size


def test_ankles_that_flicker_do_not_make_the_body_jump() -> None:
    driver, _, reference = marionette(4, "waves")
    whole = joints(retarget(driver, reference))
    for t in (5, 6, 17, 30):
        driver.frames[t][0].body[ANKLES] = 0
    flickering = joints(retarget(driver, reference))
    rest = [j for j in range(BODY) if j not in ANKLES]
    assert np.abs(flickering[:, rest] - whole[:, rest]).max() < 0.01 * height_of(reference)


@pytest.mark.parametrize("lost", [[1], [1, 2], [1, 5], [1, 2, 5]])
def test_a_frame_without_a_neck_has_the_size_of_its_neighbours(lost: list[int]) -> None:
    """Estimators lose the neck with one unsure shoulder; what is left must not go back to the driver's size."""
    driver = drive("dancer")
    small = [p.mapped((0.5, 0.5), (0, 0)) for p in driver.frames[0]]
    reference = PoseSequence([small], driver.height, driver.width)
    whole = joints(retarget(driver, reference))[20]
    driver.frames[20][0].body[lost] = 0
    after = joints(retarget(driver, reference))[20]
    seen = after[:, 2] > 0
    assert seen[:BODY].sum() == (whole[:BODY, 2] > 0).sum() - len(lost)
    np.testing.assert_allclose(after[seen, :2], whole[seen, :2], atol=2.0)


def crowd(*people: PoseSequence) -> PoseSequence:
    frames = [[q for one in people for q in one.frames[t]] for t in range(len(people[0]))]
    return PoseSequence(frames, people[0].height, people[0].width)


def moved(sequence: PoseSequence, x: float) -> PoseSequence:
    frames = [[p.mapped((1, 1), (x, 0)) for p in people] for people in sequence.frames]
    return PoseSequence(frames, sequence.height, sequence.width)


def test_the_kth_from_the_left_follows_the_kth_from_the_left() -> None:
    one, two = marionette(0, "waves")[0], marionette(1, "claps")[0]
    driver = crowd(moved(one, 500), two)  # the second in the list stands on the left
    left, right = marionette(2, "waves")[2], moved(marionette(3, "waves")[2], 400)
    after = retarget(driver, crowd(left, right))
    alone = [joints(retarget(two, left)), joints(retarget(moved(one, 500), right))]
    for who in (0, 1):
        np.testing.assert_allclose(joints(after, who), alone[who], atol=1e-3)
    swapped = retarget(driver, crowd(right, left))
    np.testing.assert_allclose(joints(swapped, 0), alone[1], atol=1e-3)
    np.testing.assert_allclose(joints(retarget(driver, driver[:1]), 1), joints(driver, 1), atol=1e-3)


def test_one_driver_moves_everybody_and_the_largest_of_many_moves_one() -> None:
    one, two = marionette(0, "waves")[0], marionette(1, "claps")[0]
    reference = crowd(marionette(2, "waves")[2], moved(marionette(3, "waves")[2], 400))
    assert [len(people) for people in retarget(one, reference).frames] == [2] * len(one)
    small = PoseSequence([[p.mapped((0.3, 0.3), (0, 0)) for p in f] for f in two.frames], 960, 640)
    after = retarget(crowd(small, moved(one, 300)), marionette(2, "waves")[2])
    np.testing.assert_allclose(joints(after), joints(retarget(moved(one, 300), marionette(2, "waves")[2])), atol=1e-3)


def test_people_who_come_and_go_keep_their_numbers() -> None:
    driver = crowd(marionette(0, "waves")[0], moved(marionette(1, "claps")[0], 400))
    whole = retarget(driver, driver[:1])
    driver.frames[10] = driver.frames[10][:1]
    driver.frames[20] = []
    after = retarget(driver, driver[:1])
    assert [len(after.frames[t]) for t in (9, 10, 11, 20)] == [2, 1, 2, 0]
    np.testing.assert_allclose(joints(after, 1)[11], joints(whole, 1)[11], atol=1e-3)


@pytest.mark.parametrize("part", ["hand", "face", "one joint", "unsure"])
def test_who_has_no_bones_drives_nobody(part: str) -> None:
    """Extractors take a hand, or a face on a shirt, for one person more."""
    driver = marionette(0, "waves")[0]
    for t, people in enumerate(driver.frames):
        stray = Person()
        points = {"hand": stray.left_hand, "face": stray.face, "one joint": stray.body[:1], "unsure": stray.body}[part]
        points[:, :2] = np.random.default_rng(t).uniform(0, 900, (len(points), 2))  # larger than the driver
        points[:, 2] = 0.3 if part == "unsure" else 1
        people.insert(0, stray)
    reference = crowd(marionette(2, "waves")[2], moved(marionette(3, "waves")[2], 400))
    after = retarget(driver, reference)
    alone = retarget(marionette(0, "waves")[0], reference)
    for who in (0, 1):
        np.testing.assert_array_equal(joints(after, who), joints(alone, who))


def test_a_stray_joint_beside_the_reference_is_nobody() -> None:
    driver, _, reference = marionette(0, "waves")
    stray = Person()
    stray.body[4] = (10, 10, 1)
    both = PoseSequence([[stray, *reference.frames[0]]], reference.height, reference.width)
    np.testing.assert_array_equal(joints(retarget(driver, both)), joints(retarget(driver, reference)))


def test_a_face_alone_drives_a_face() -> None:
    driver, reference = drive("man_upper_body"), drive("man_upper_body")[:1]
    faces = PoseSequence([[Person(face=p.face) for p in people] for people in driver.frames], 350, 350)
    after = joints(retarget(faces, reference))
    assert (after[:, BODY : BODY + 68, 2] > 0).any()
    assert np.isfinite(after).all()


@pytest.mark.parametrize("travel", [1, 8])
def test_frames_in_front_travel_from_the_references_pose(travel: int) -> None:
    driver, _, reference = marionette(5, "raises both arms")
    after, plain = retarget(driver, reference, travel), retarget(driver, reference)
    points = joints(after)
    assert len(after) == len(driver) + travel
    np.testing.assert_allclose(points[travel:], joints(plain), atol=1e-4)
    np.testing.assert_allclose(points[0, :BODY], joints(reference)[0, :BODY], atol=1e-3)
    if travel > 1:
        steps = np.linalg.norm(np.diff(points[: travel + 1, 4, :2], axis=0), axis=1)
        assert steps[0] < steps.max()
        assert steps[-1] < steps.max()
        arm = np.linalg.norm(points[: travel + 1, 4, :2] - points[: travel + 1, 3, :2], axis=1)
        assert arm.min() > 0.9 * min(arm[0], arm[-1]), "an arm that turns does not shrink on the way"


def test_travel_shows_only_what_both_ends_show() -> None:
    after = joints(retarget(drive("man_upper_body"), drive("dancer")[:1], 5))[:5]
    both = (joints(drive("man_upper_body"))[0, :, 2] > 0) & (joints(drive("dancer"))[0, :, 2] > 0)
    for frame in after:
        np.testing.assert_array_equal(frame[:BODY, 2] > 0, both[:BODY])
    assert np.isfinite(after).all()


def test_what_cannot_be_retargeted_is_refused() -> None:
    driver = drive("dancer")
    nobody = PoseSequence([[], [Person()]], 100, 100)
    with pytest.raises(PoseFormatError, match="nobody in the reference"):
        retarget(driver, nobody)
    with pytest.raises(PoseFormatError, match="nobody in any of the driver's 2 frames"):
        retarget(nobody, driver)
    with pytest.raises(ValueError, match="expected 0 or more"):
        retarget(driver, driver, -1)
    arm, leg = np.zeros((2, BODY, 3), np.float32)
    arm[[3, 4]], leg[[9, 10]] = (10, 10, 1), (20, 20, 1)
    arm[4, 0], leg[10, 1] = 50, 90
    with pytest.raises(ValueError, match="no bone in common"):
        retarget(PoseSequence([[Person(body=arm)]], 99, 99), PoseSequence([[Person(body=leg)]], 99, 99))
    with pytest.raises(ValueError, match=r"^person 2 of the reference, whom person 1 of the driver is.* above 0\.3"):
        far = leg + np.float32([50, 0, 0]) * (leg[:, 2:] > 0)
        retarget(PoseSequence([[Person(body=arm)]], 99, 99), PoseSequence([[Person(body=arm), Person(body=far)]], 99, 99))
    for people in driver.frames:
        for person in people:
            for points in person.groups().values():
                points[:, 2] = np.minimum(points[:, 2], 0.3)
    with pytest.raises(PoseFormatError, match=r"nobody in any of the driver's 45 frames has .* above 0\.3"):
        retarget(driver, drive("dancer"))

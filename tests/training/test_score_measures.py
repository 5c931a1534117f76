"""What the measures tell apart on clips whose truth is known: the right character from others, the right motion, flicker."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from synthetic_pairs import PLANS, scenes, with_flicker

from dreamactor_core.poses import PoseSequence, from_body_joints
from training.marionette.world import HEIGHT, LEAD_IN, WIDTH
from training.score.measures import MEASURES, Pair
from training.score.measures.clip import limb_masks
from training.score.measures.motion import agreement

COUNT, FIRST = 8, 40  # from there on no two of one kind of body do the same


def worn(frames: np.ndarray, index: int) -> np.ndarray:
    """As a generated clip is: softer and with a little noise."""
    noise = np.random.default_rng(index).normal(0, 3, frames.shape)
    soft = (frames.astype(np.float32) + np.roll(frames, 1, 2) + np.roll(frames, 1, 1)) / 3
    return (soft + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    made = []
    for index in range(COUNT):
        source, other = scenes(FIRST + index, PLANS[index % 4])
        target, driving = source.draw()[0], other.draw()[0]
        poses = from_body_joints(source.keypoints(), HEIGHT, WIDTH)
        made.append(Pair(worn(driving[LEAD_IN:], index), target[LEAD_IN:], poses[LEAD_IN:], driving[0]))
    return made


def changed(pair: Pair, **parts: object) -> Pair:
    return replace(pair, **parts)


def elsewhere(pair: Pair, scale: float, x: float) -> Pair:
    """The pair with a result that is smaller and to the side by a share of its width, as retargeted poses place it."""
    height, width = pair.result.shape[1:3]
    matrix = np.array([[scale, 0, x * width], [0, scale, (1 - scale) * height]])
    moved = [cv2.warpAffine(one, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE) for one in pair.result]
    frames = [[one.mapped((scale, scale), tuple(matrix[:, 2])) for one in people] for people in pair.poses.frames]
    return changed(pair, result=np.stack(moved), result_poses=PoseSequence(frames, HEIGHT, WIDTH))


def another(pairs: list[Pair], index: int) -> Pair:
    """Of the same kind of body."""
    return pairs[(index + 4) % COUNT]


@pytest.mark.parametrize("with_poses", [True, False])
def test_identity_is_that_of_the_reference(pairs: list[Pair], with_poses: bool) -> None:
    measure, gaps = MEASURES["identity"], []
    for index, pair in enumerate(pairs[:4]):
        pair = pair if with_poses else changed(pair, poses=None)
        right = measure(pair)
        wrong = measure(changed(pair, reference=another(pairs, index).reference))
        driver = measure(changed(pair, reference=pair.source[0]))
        assert right is not None and wrong is not None and driver is not None
        assert 1 >= right > max(wrong, driver) >= 0
        gaps.append(right - max(wrong, driver))
    assert np.mean(gaps) > 0.25


def test_identity_of_a_clip_with_itself_is_nearly_one(pairs: list[Pair]) -> None:
    for pair in pairs[:4]:
        still = changed(pair, result=np.repeat(pair.reference[None], 5, 0), poses=None)
        assert MEASURES["identity"](still) == pytest.approx(1, abs=1e-3)


def test_identity_needs_a_reference(pairs: list[Pair]) -> None:
    assert MEASURES["identity"](changed(pairs[0], reference=None)) is None


@pytest.mark.parametrize("with_poses", [True, False])
def test_motion_flow_is_that_of_the_driver(pairs: list[Pair], with_poses: bool) -> None:
    measure, gaps = MEASURES["motion_flow"], []
    for index, pair in enumerate(pairs[:4]):
        pair = pair if with_poses else changed(pair, poses=None)
        right = measure(pair)
        wrong = measure(changed(pair, result=another(pairs, index).result))
        still = measure(changed(pair, result=np.repeat(pair.result[:1], len(pair.result), 0)))
        assert right is not None and wrong is not None and still is not None
        assert 1 >= right > still >= 0
        assert still < 0.01
        gaps.append(right - wrong)
    assert np.mean(gaps) > 0.25
    assert not with_poses or min(gaps) > 0  # where poses say where the limbs are, of each; else of most


@pytest.mark.parametrize(("scale", "x"), [(1.0, -0.25), (0.7, 0.2)])
def test_motion_flow_of_a_retargeted_result_is_that_of_one_in_its_drivers_place(pairs: list[Pair], scale: float, x: float) -> None:
    measure, kept = MEASURES["motion_flow"], []
    for pair in pairs[:4]:
        true = changed(pair, result=pair.source)  # the same motion
        there = elsewhere(true, scale, x)
        kept.append(measure(there))
        assert kept[-1] > measure(changed(there, result_poses=None)), "looked for in the driver's place"
        assert measure(changed(true, result_poses=pair.poses)) == measure(true) == 1
    assert min(kept) > 0.9


def test_flicker_leaves_out_the_limbs_where_they_are(pairs: list[Pair]) -> None:
    """A character that flickers is no background that does."""
    for pair in pairs[:4]:
        there = elsewhere(pair, 0.3, 0.0)
        masks = limb_masks(there.result_poses, HEIGHT, WIDTH)
        bright = np.where(np.arange(len(masks)) % 2, 40, -40)[:, None, None, None] * masks[..., None]
        there = changed(there, result=(there.result + bright).clip(0, 255).astype(np.uint8))
        assert MEASURES["flicker"](there) < MEASURES["flicker"](changed(there, result_poses=None))


def test_identity_looks_where_a_retargeted_result_is(pairs: list[Pair]) -> None:
    measure, gains = MEASURES["identity"], []
    for pair in pairs[:4]:
        there = elsewhere(pair, 0.6, 0.35)
        gains.append(measure(there) - measure(changed(there, result_poses=None)))
    assert np.mean(gains) > 0.05


def test_identity_crops_a_reference_of_another_shape(pairs: list[Pair]) -> None:
    """The character in the middle of a wide picture, of which the teacher is shown the middle."""
    for pair in pairs[:4]:
        margin = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        wide = np.concatenate([margin, pair.reference, margin], 1)
        assert MEASURES["identity"](changed(pair, reference=wide)) == MEASURES["identity"](pair)


def test_motion_flow_knows_time(pairs: list[Pair]) -> None:
    """The right motion backwards is not the right motion."""
    for pair in pairs[:4]:
        assert MEASURES["motion_flow"](changed(pair, result=pair.result[::-1])) < MEASURES["motion_flow"](pair)


def test_a_source_that_stands_still_is_followed_by_a_result_that_does(pairs: list[Pair]) -> None:
    pair = pairs[0]
    count = len(pair.result)
    still = Pair(np.repeat(pair.result[:1], count, 0), np.repeat(pair.source[:1], count, 0), pair.poses)
    assert MEASURES["motion_flow"](still) == 1
    assert MEASURES["motion_flow"](changed(still, result=pair.result)) < 0.1


def test_flicker_is_seen_and_movement_is_none(pairs: list[Pair]) -> None:
    measure = MEASURES["flicker"]
    for pair in pairs[:4]:
        clean = measure(pair)
        values = [measure(changed(pair, result=with_flicker(pair.result, strength))) for strength in (0.01, 0.03, 0.06)]
        assert clean is not None and clean < values[0] < values[1] < values[2]
        assert values[2] > 3 * clean
        # the true clip, without the noise of `worn`: a body that moves does not count as flicker
        assert measure(changed(pair, result=pair.source)) < 0.002


def test_measures_give_the_same_number_each_time(pairs: list[Pair]) -> None:
    for name in ("identity", "motion_flow", "flicker"):
        assert MEASURES[name](pairs[1]) == MEASURES[name](pairs[1])


def test_measures_do_not_hang_on_the_resolution(pairs: list[Pair]) -> None:
    pair = pairs[0]
    large = changed(pair, **{name: getattr(pair, name).repeat(3, -3).repeat(3, -2) for name in ("result", "source", "reference")})
    for name in ("identity", "motion_flow", "flicker"):
        assert MEASURES[name](large) == pytest.approx(MEASURES[name](pair), abs=0.12)


@pytest.mark.parametrize("shape", [(17, 8, 8), (17, 480, 64), (17, 24, 300), (3, 96, 64), (2, 96, 64), (1, 96, 64)])
def test_measures_are_finite_on_any_size(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    noise, blank = rng.integers(0, 256, (*shape, 3), np.uint8), np.zeros((*shape, 3), np.uint8)
    for result in (noise, blank):
        for name in ("identity", "motion_flow", "flicker"):
            value = MEASURES[name](Pair(result, noise[:, ::-1], None, blank[0]))
            assert value is None or (np.isfinite(value) and 0 <= value <= 1)


def poses_of(index: int, other: bool) -> PoseSequence:
    scene = scenes(index, "human")[other]
    return from_body_joints(scene.keypoints()[LEAD_IN:], HEIGHT, WIDTH)


def test_bones_of_another_body_in_the_same_motion_are_right() -> None:
    for index in range(6):
        source, same = poses_of(index, False), poses_of(index, True)
        wrong = poses_of(index + 1, True)
        still = same[[0] * len(same)]
        assert agreement(source, source) == 1
        right = agreement(source, same)
        assert right is not None and right > 0.9
        assert right > agreement(source, wrong) and right > agreement(source, still)


def test_bones_by_hand() -> None:
    """One arm turned by 60 degrees: two of the bones that are seen are wrong, in every frame."""
    joints = np.zeros((4, 18, 3))
    for k, place in {1: (50, 20), 2: (40, 20), 3: (40, 40), 4: (40, 60), 5: (60, 20), 6: (60, 40), 7: (60, 60)}.items():
        joints[:, k] = (*place, 1)
    turned = joints.copy()
    angle = np.pi / 3
    for k, length in ((3, 20), (4, 40)):
        turned[:, k, :2] = (40 - length * np.sin(angle), 20 + length * np.cos(angle))
    source, result = from_body_joints(joints, 100, 100), from_body_joints(turned, 100, 100)
    assert agreement(source, result) == pytest.approx(5 / 7)  # six bones and the neck's way
    missing = joints.copy()
    missing[:, 4] = 0
    assert agreement(source, from_body_joints(missing, 100, 100)) == pytest.approx(6 / 7)
    assert agreement(from_body_joints(missing, 100, 100), source) == 1  # what the source does not show is not judged
    larger = joints * (2, 2, 1)
    assert agreement(source, from_body_joints(larger, 200, 200)) == 1
    nobody = from_body_joints(np.zeros((4, 18, 3)), 100, 100)
    assert agreement(source, nobody) == 0 and agreement(nobody, source) is None


def test_a_body_that_does_not_go_along_is_found_out() -> None:
    joints = scenes(0, "human")[0].keypoints()[:1].repeat(5, 0)
    walking = joints.copy()
    walking[:, :, 0] += np.arange(5)[:, None] * 8 * (joints[:, :, 2] > 0)
    source, result = from_body_joints(walking, HEIGHT, WIDTH), from_body_joints(joints, HEIGHT, WIDTH)
    assert 0.9 < agreement(source, result) < 1
    with pytest.raises(ValueError, match="expected as many"):
        agreement(source, result[:3])

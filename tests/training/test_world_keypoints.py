"""The drawn world's keypoints: where the parts are that they name, at every size, under every camera."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_clips import scene_of

from training.marionette.bodies import BODY18, joints_at
from training.marionette.characters import PARTS, Plan, sample_character
from training.marionette.motions import PARAMETERS, Motion, sample_pose
from training.marionette.scenery import sample_background, sample_camera
from training.marionette.world import Scene, rng_for

PAINTED = ("right_leg", "left_leg", "torso", "head", "right_arm", "left_arm")
"""Parts from the back to the front."""


def part_of(joint: str) -> str:
    side, _, kind = joint.rpartition("_")
    if kind in ("shoulder", "elbow", "wrist"):
        return f"{side}_arm"
    return f"{side}_leg" if kind in ("hip", "knee", "ankle") else "head"


@pytest.mark.parametrize("plan", ["human", "cartoon"])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [(96, 64), (192, 200)])
def test_keypoints_lie_on_the_parts_they_name(plan: Plan, seed: int, size: tuple[int, int]) -> None:
    """Or on a part that is painted over it."""
    scene = scene_of(plan, seed)
    _, labels = scene.draw(*size)
    keypoints = scene.keypoints(*size)
    assert keypoints.shape == (len(scene.motion), 18, 3)
    assert (keypoints[..., 2] == 1).all()
    names = ("background", *PARTS[plan])
    own, checked = 0, 0
    for label, points in zip(labels, keypoints, strict=True):
        for joint, (x, y, _) in zip(BODY18, points, strict=True):
            if not (0 <= x < size[1] and 0 <= y < size[0]):
                continue
            if joint == "neck" and scene.character.boxy:
                continue  # a robot's head floats above its body
            named = part_of(joint)
            value = label[int(y), int(x)]
            part = "head" if value == 255 else names[value]  # eyes and hair are on the head
            checked += 1
            assert part in PAINTED[PAINTED.index(named) :], f"{joint} lies on the {part}"
            own += part == named
    assert own > 0.7 * checked


@pytest.mark.parametrize("plan", ["human", "cartoon"])
def test_keypoints_scale_with_the_picture(plan: Plan) -> None:
    scene = scene_of(plan, 2)
    small, large = scene.keypoints(96, 64), scene.keypoints(384, 256)
    np.testing.assert_allclose(large[..., :2], small[..., :2] * 4, atol=1e-9)
    np.testing.assert_allclose(scene.keypoints(96, 164)[..., 0], small[..., 0] + 50, atol=1e-9)


@pytest.mark.parametrize(
    ("plan", "joint", "part", "unseen"),
    [
        ("quadruped", "right_wrist", "near_front", {"right_ear", "left_ear", "left_eye"}),
        ("bird", "right_wrist", "near_wing", {"right_ear", "left_ear", "left_eye"}),
    ],
)
@pytest.mark.parametrize("seed", range(6))
def test_an_animals_forelegs_or_wings_are_its_arms(plan: Plan, joint: str, part: str, unseen: set[str], seed: int) -> None:
    scene = scene_of(plan, seed)
    labels, keypoints = scene.draw(384, 256)[1], scene.keypoints(384, 256)
    seen = keypoints[..., 2] > 0
    assert {name for name, row in zip(BODY18, seen.T, strict=True) if not row.any()} == unseen
    assert (seen == seen[0]).all() and (keypoints[~seen] == 0).all()
    checked = 0
    for label, points in zip(labels, keypoints, strict=True):
        x, y = points[BODY18.index(joint), :2]
        if 0 <= x < 256 and 0 <= y < 384:
            checked += 1
            assert label[int(y), int(x)] in (PARTS[plan].index(part) + 1, 255)
    assert checked


def test_left_is_left() -> None:
    """Somebody who faces us has their right on our left; the motion's parameters say whose arm it is."""
    body = sample_character(rng_for("test", 1), "human")
    pose = np.zeros(len(PARAMETERS["biped"]))
    pose[PARAMETERS["biped"].index("left_shoulder")] = np.pi / 2
    joints = joints_at(body, pose)
    assert joints["left_wrist"][0] > joints["left_shoulder"][0] > 0 > joints["right_shoulder"][0]
    assert joints["left_wrist"][1] == pytest.approx(joints["left_shoulder"][1])
    assert joints["right_wrist"][1] > joints["right_elbow"][1] > joints["right_shoulder"][1]
    for pair in ("shoulder", "hip", "knee", "ankle", "eye", "ear"):
        assert joints[f"right_{pair}"][0] < 0 < joints[f"left_{pair}"][0]


def test_a_camera_moves_pixels_and_keypoints_alike() -> None:
    rng = rng_for("test", 13)
    body, background, camera = (
        sample_character(rng, "human"),
        sample_background(rng),
        sample_camera(rng, 9, moving=True),
    )
    still = np.tile(sample_pose(rng, "biped"), (9, 1))
    scene = Scene(body, Motion("stands", "biped", still), background, camera)
    assert np.ptp(camera.zoom) > 0 or np.ptp(camera.pan) > 0
    _, labels = scene.draw(384, 256)
    points = scene.keypoints(384, 256)
    head = PARTS["human"].index("head") + 1
    for t in range(9):
        y, x = np.nonzero((labels[t] == head) | (labels[t] == 255))
        centre = joints_at(body, still[t])["head"]
        seen = ((centre - camera.pan[t] - [0, 0.5]) * camera.zoom[t] + [0, 0.5]) * 384 + [128, 0]
        assert (x.mean() + 0.5, y.mean() + 0.5) == pytest.approx(tuple(seen), abs=4)
        neck = points[t, BODY18.index("neck"), :2]
        assert np.linalg.norm(neck - seen) == pytest.approx(
            0.9 * body.proportions["head"] * camera.zoom[t] * 384, rel=1e-6
        )

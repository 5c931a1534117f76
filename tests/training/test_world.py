"""The drawn world: it is its seed, its labels are true, and a motion is a motion on every body."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from drawn_clips import scene_of

from training.marionette.bodies import Joints, joints_at
from training.marionette.characters import PARTS, PLANS, Character, Plan, sample_character
from training.marionette.drawing import draw_frame
from training.marionette.motions import MOTIONS, PARAMETERS, family_of, lead_in, sample_motion, sample_pose
from training.marionette.scenery import FLOOR, sample_camera
from training.marionette.world import (
    FRAMES,
    HEIGHT,
    LEAD_IN,
    WIDTH,
    Split,
    rng_for,
    sample_scene,
)

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FAMILIES = tuple(MOTIONS)
PLANS_OF = {"biped": ("human", "cartoon"), "quadruped": ("quadruped",), "bird": ("bird",)}

LIMBS: dict[str, tuple[tuple[str, str], ...]] = {
    "biped": tuple(
        (f"{side}_{a}", f"{side}_{b}")
        for side in ("right", "left")
        for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
    )
    + (
        ("neck", "head"),
        ("head", "nose"),
        ("right_eye", "left_eye"),
        ("right_shoulder", "left_shoulder"),
        ("right_hip", "left_hip"),
    ),
    "quadruped": tuple(
        (f"{leg}{a}", f"{leg}{b}")
        for leg in ("near_front", "far_front", "near_hind", "far_hind")
        for a, b in (("", "_knee"), ("_knee", "_foot"))
    )
    + (("rump", "chest"), ("chest", "head"), ("head", "snout"), ("tail", "tail_tip")),
    "bird": tuple(
        (f"{leg}{a}", f"{leg}{b}") for leg in ("near_leg", "far_leg") for a, b in (("", "_knee"), ("_knee", "_foot"))
    )
    + (
        ("near_wing", "near_wing_tip"),
        ("far_wing", "far_wing_tip"),
        ("chest", "head"),
        ("head", "beak"),
        ("tail", "tail_tip"),
    ),
}
"""Pairs of joints whose direction is the motion's and not the body's."""


def direction(joints: Joints, limb: tuple[str, str]) -> float:
    x, y = joints[limb[1]] - joints[limb[0]]
    return float(np.degrees(np.arctan2(y, x)))


def difference(a: float, b: float) -> float:
    return abs((a - b + 180) % 360 - 180)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("split", SPLITS)
def test_the_same_seed_draws_the_same_pixels(plan: Plan, split: Split) -> None:
    one, again, other = (sample_scene(rng_for(split, 1, index), plan, 4, 2).draw() for index in (5, 5, 6))
    assert np.array_equal(one[0], again[0])
    assert np.array_equal(one[1], again[1])
    assert not np.array_equal(one[0], other[0])


def test_splits_share_no_scene() -> None:
    seen: dict[tuple, str] = {}
    for split in SPLITS:
        for index in range(60):
            scene = sample_scene(rng_for(split, 0, index), PLANS[index % 4], 4, 2)
            for kind, key in (
                ("who", tuple(scene.character.proportions.values())),
                ("colours", tuple(scene.character.colours.values())),
                ("motion", tuple(scene.motion.values[3])),
            ):
                assert (kind, key) not in seen, f"{split} shares a {kind} with {seen[kind, key]}"
                seen[kind, key] = split


def test_an_index_of_one_split_is_none_of_another() -> None:
    indices = [(), (0,), (1,), (2,), (1, 0), (2, 2), *itertools.product(range(4), range(50))]
    drawn = [{rng_for(split, *index).integers(2**63) for index in indices} for split in SPLITS]
    assert len(drawn[0]) >= 200
    for one, other in itertools.combinations(drawn, 2):
        assert not one & other


@pytest.mark.parametrize("plan", PLANS)
def test_a_clip_has_the_announced_shape(plan: Plan) -> None:
    scene = sample_scene(rng_for("train", 1), plan)
    frames, labels = scene.draw()
    assert (len(scene.motion), frames.shape, labels.shape) == (
        FRAMES,
        (FRAMES, HEIGHT, WIDTH, 3),
        (FRAMES, HEIGHT, WIDTH),
    )
    assert frames.dtype == labels.dtype == np.uint8


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(4))
def test_a_motion_has_the_same_angles_on_every_body(family: str, seed: int) -> None:
    rng = rng_for("test", 3, seed)
    motion = sample_motion(rng, family, 12)
    bodies = [sample_character(rng, plan) for plan in PLANS_OF[family] * 2]
    for values in motion.values:
        first, *others = (joints_at(body, values) for body in bodies)
        for joints, limb in itertools.product(others, LIMBS[family]):
            assert difference(direction(first, limb), direction(joints, limb)) < 0.1, limb


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_another_motion_has_other_angles(family: str, seed: int) -> None:
    rng = rng_for("test", 4, seed)
    body = sample_character(rng, PLANS_OF[family][0])
    one, other = (joints_at(body, sample_motion(rng, family, 8, "dances").values[5]) for _ in range(2))
    moved = [difference(direction(one, limb), direction(other, limb)) for limb in LIMBS[family]]
    assert max(moved) > 5


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("seed", range(3))
def test_bones_keep_their_length_but_for_raised_legs(plan: Plan, seed: int) -> None:
    rng = rng_for("test", 5, seed)
    body, motion = sample_character(rng, plan), sample_motion(rng, family_of(plan), 16, "dances")
    poses = [joints_at(body, values) for values in motion.values]
    for a, b in LIMBS[family_of(plan)]:
        if plan in ("human", "cartoon") and b.endswith(("knee", "ankle")):
            continue  # foreshortened
        lengths = [np.linalg.norm(joints[a] - joints[b]) for joints in poses]
        assert np.ptp(lengths) < 1e-9, (a, b)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("seed", range(3))
def test_someone_stands_on_the_floor_unless_they_jump(plan: Plan, seed: int) -> None:
    rng = rng_for("test", 6, seed)
    body, family = sample_character(rng, plan), family_of(plan)
    jump = PARAMETERS[family].index("jump")
    for values in sample_motion(rng, family, 8).values:
        for height in (0.0, 0.3):
            values[jump] = height
            feet = [p[1] for name, p in joints_at(body, values).items() if name.endswith(("ankle", "foot"))]
            gap = FLOOR - (max(feet) + body.proportions["leg_thickness"] / 2)
            assert gap == pytest.approx(height * body.proportions["leg"], abs=1e-9)


def eroded(labels: np.ndarray, value: int) -> np.ndarray:
    """Pixels of a label with only that label within two pixels, and that far from the border."""
    inside = np.ones_like(labels, bool)
    padded = np.pad(labels == value, 2)
    for dy, dx in itertools.product(range(5), range(5)):
        inside &= padded[dy : dy + labels.shape[0], dx : dx + labels.shape[1]]
    return inside


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(96, 64), (192, 128), (120, 200)])
def test_labels_agree_with_colours(plan: Plan, seed: int, size: tuple[int, int]) -> None:
    scene = scene_of(plan, seed)
    frames, labels = scene.draw(*size)
    places = (scene.background.wall, scene.background.ground, scene.background.bar)
    found = set()
    for frame, label in zip(frames, labels, strict=True):
        for k, part in enumerate(PARTS[plan], 1):
            inside = eroded(label, k)
            assert (frame[inside] == scene.character.colours[part]).all(), part
            found |= {part} if inside.any() else set()
        outside = frame[eroded(label, 0)].astype(int)
        off = np.min([np.abs(outside - place).max(-1) for place in places], axis=0)
        assert (off > 0).mean() < 0.1, "colours outside the character that are none of the background's"
    assert {"head", "torso"} <= found
    assert set(np.unique(labels)) <= {*range(len(PARTS[plan]) + 1), 255}


@pytest.mark.parametrize("plan", PLANS)
def test_every_part_shows_in_some_scene_and_has_a_colour_of_its_own(plan: Plan) -> None:
    seen: set[int] = set()
    for seed in range(6):
        scene = scene_of(plan, seed)
        seen |= set(np.unique(scene.draw()[1]))
        colours = np.array([scene.character.colours[part] for part in PARTS[plan]], int)
        for a, b in itertools.combinations(colours, 2):
            assert np.abs(a - b).max() > 25
        for place in (scene.background.wall, scene.background.ground, scene.background.bar):
            assert np.abs(colours - place).max(1).min() > 25, "a part is lost against the background"
    assert seen >= set(range(len(PARTS[plan]) + 1))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frames", [1, 4, 8, 16])
def test_the_lead_in_starts_at_the_own_pose_and_joins_smoothly(family: str, frames: int) -> None:
    rng = rng_for("test", 8)
    motion, pose = sample_motion(rng, family, 25), sample_pose(rng, family)
    led = lead_in(pose, motion, frames)
    assert (led.name, led.family, len(led)) == (motion.name, motion.family, 25)
    np.testing.assert_array_equal(led.values[0], pose)
    np.testing.assert_array_equal(led.values[frames:], motion.values[frames:])
    travel = np.abs(motion.values[frames] - pose)
    steps = np.abs(np.diff(led.values[: frames + 1], axis=0))
    # a cosine: no step is larger than half a turn's share of the way, and the first and the last are the smallest
    assert (steps <= travel * np.pi / (2 * frames) + 1e-12).all() or frames == 1
    if frames >= 4:
        assert (steps[0] <= steps[frames // 2] + 1e-12).all()
        assert (steps[-1] <= travel * (np.pi / (2 * frames)) ** 2 + 1e-12).all()
        np.testing.assert_allclose(steps, steps[::-1], atol=1e-12)
    np.testing.assert_allclose(steps.sum(0), travel, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lead_in_leaves_the_motion_alone(family: str) -> None:
    rng = rng_for("test", 9)
    motion = sample_motion(rng, family, 25)
    before = motion.values.copy()
    lead_in(sample_pose(rng, family), motion, 8)
    assert np.array_equal(motion.values, before)


@pytest.mark.parametrize("plan", PLANS)
def test_a_scene_starts_with_a_pose_of_its_own(plan: Plan) -> None:
    travels = []
    for seed in range(8):
        led = sample_scene(rng_for("test", 10, seed), plan)
        bare = sample_scene(rng_for("test", 10, seed), plan, lead=None)
        assert np.array_equal(led.motion.values[LEAD_IN:], bare.motion.values[LEAD_IN:])
        travels.append(float(np.abs(led.motion.values[0] - bare.motion.values[0]).max()))
    assert np.median(travels) > 0.2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frames", [1, 25, 81])
def test_every_motion_is_smooth_and_moves(family: str, frames: int) -> None:
    for k, name in enumerate(MOTIONS[family]):
        motion = sample_motion(rng_for("test", 11, k), family, frames, name)
        assert motion.name == name
        assert motion.values.shape == (frames, len(PARAMETERS[family]))
        assert np.isfinite(motion.values).all()
        if frames > 1:
            assert np.abs(np.diff(motion.values, axis=0)).max() < 0.5
            assert np.ptp(motion.values, axis=0).max() > 0.1


@pytest.mark.parametrize("plan", PLANS)
def test_another_character_does_the_same(plan: Plan) -> None:
    rng = rng_for("test", 12)
    scene = sample_scene(rng, plan, 4, 2)
    other = scene.with_character(rng, plan)
    assert other.motion is scene.motion
    assert other.camera is scene.camera
    assert other.character.colours != scene.character.colours
    assert other.character.proportions != scene.character.proportions
    assert (scene.describe(), other.describe()) == (f"a {plan} {scene.motion.name}",) * 2


def test_a_still_camera_stands_still() -> None:
    camera = sample_camera(rng_for("test", 14), 9, moving=False)
    assert (camera.zoom == 1).all()
    assert not camera.pan.any()


def test_unknown_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown body plan 'fish'; expected one of human, cartoon, quadruped, bird"):
        sample_character(rng_for("test"), "fish")  # type: ignore[arg-type]


def test_a_frame_is_a_clips_frame() -> None:
    scene = scene_of("cartoon", 1)
    frames, labels = scene.draw()
    for t in (0, 5):
        frame, label = draw_frame(
            scene.character,
            scene.motion.values[t],
            scene.background,
            scene.camera.zoom[t],
            scene.camera.pan[t],
            HEIGHT,
            WIDTH,
        )
        assert np.array_equal(frame, frames[t])
        assert np.array_equal(label, labels[t])


def test_characters_are_of_many_proportions() -> None:
    people: list[Character] = [sample_character(rng_for("train", 15, k), "human") for k in range(20)]
    for name in people[0].proportions:
        assert len({p.proportions[name] for p in people}) == 20

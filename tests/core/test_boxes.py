"""Poses on a canvas: normalised by their box, the same clip wherever and however large it was; fitted; cropped."""

from __future__ import annotations

import numpy as np
import pytest
from sequences import marionette, pairs, random_people

from dreamactor_core.augment import (
    FITS,
    normalise,
    placed,
)
from dreamactor_core.poses import (
    BODY,
    Person,
    PoseSequence,
    from_body_joints,
)


def all_points(sequence: PoseSequence, threshold: float = 0.3) -> np.ndarray:
    groups = [points for people in sequence.frames for p in people for points in p.groups().values()]
    return np.concatenate([points[points[:, 2] > threshold, :2] for points in groups]).astype(np.float64)


def assert_near(one: PoseSequence, other: PoseSequence, atol: float) -> None:
    assert (one.height, one.width) == (other.height, other.width)
    for person, twin in pairs(one, other):
        for name, points in person.groups().items():
            np.testing.assert_allclose(getattr(twin, name), points, atol=atol, err_msg=name)


@pytest.mark.parametrize("size", [(480, 832), (96, 64), (600, 600)])
@pytest.mark.parametrize("margin", [0.0, 0.07, 0.2])
def test_people_fill_the_canvas(real_people: PoseSequence, size: tuple[int, int], margin: float) -> None:
    height, width = size
    points = all_points(normalise(real_people, height, width, margin))
    low, high = points.min(0), points.max(0)
    assert high[1] == pytest.approx(height * (1 - margin), abs=1e-3)
    assert (low[0] + high[0]) / 2 == pytest.approx(width / 2, abs=1e-3)
    room = (high - low) / (np.array([width, height]) * (1 - 2 * margin))
    assert room.max() == pytest.approx(1, abs=1e-4)
    before = all_points(real_people)
    ratio = (points - points.mean(0)) / (before - before.mean(0))
    assert np.nanstd(ratio[np.abs(before - before.mean(0)) > 5]) < 1e-3, "the two axes were scaled differently"


@pytest.mark.parametrize("size", [(480, 832), (96, 64)])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_normalising_twice_is_normalising_once(
    real_people: PoseSequence, size: tuple[int, int], seed: int | None
) -> None:
    once = normalise(real_people if seed is None else marionette(seed), *size)
    assert_near(normalise(once, *size), once, 1e-3)


@pytest.mark.parametrize(("scale", "offset"), [(0.5, (0, 0)), (1.0, (40, -70)), (3.0, (-200, 90)), (40.0, (5000, 1e4))])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_normalising_forgets_where_and_how_large_people_were(
    real_people: PoseSequence, scale: float, offset: tuple[float, float], seed: int | None
) -> None:
    sequence = real_people if seed is None else marionette(seed)
    frames = [[p.mapped((scale, scale), offset) for p in people] for people in sequence.frames]
    moved = PoseSequence(frames, 123, 45)
    assert_near(normalise(moved, 96, 64), normalise(sequence, 96, 64), 0.01)


def test_guessed_joints_do_not_change_the_box() -> None:
    rng = np.random.default_rng(0)
    joints = np.concatenate([rng.uniform(200, 300, (4, BODY, 2)), np.ones((4, BODY, 1))], 2)
    sure = joints.copy()
    sure[:, 10:] = 0
    guessed = joints.copy()
    guessed[:, 10:] = (5, 5, 0.1)
    expected = normalise(from_body_joints(sure, 480, 832), 96, 64)
    got = normalise(from_body_joints(guessed, 480, 832), 96, 64)
    for people, others in zip(expected.frames, got.frames, strict=True):
        np.testing.assert_allclose(others[0].body[:10], people[0].body[:10], atol=1e-4)


def test_hands_and_face_are_in_the_box() -> None:
    (person,) = random_people(0, frames=1).frames[0]
    person.left_hand[5, :2] = (-300, 50)
    person.face[7, :2] = (100, -500)
    points = all_points(normalise(PoseSequence([[person]], 400, 400), 300, 300))
    assert points.min() >= 0.07 * 300 - 1e-3


@pytest.mark.parametrize("fit", FITS)
def test_poses_are_placed_as_pose_draw_says(fit: str) -> None:
    (person,) = random_people(0, frames=1).frames[0]
    person.body[4] = (-900, 20, 0.4)
    sequence = PoseSequence([[person]], 300, 400)
    expected = {
        "canvas": sequence.fitted(128, 96),
        "people": normalise(sequence, 128, 96, threshold=0.5),
        "crop": sequence.cropped(128, 96),
    }[fit]
    after = placed(sequence, 128, 96, fit, 0.5)
    assert (after.height, after.width) == (128, 96)
    np.testing.assert_array_equal(all_points(after), all_points(expected))


def test_only_what_is_drawn_counts_for_the_box() -> None:
    """Pose Draw leaves out face and hands before it places anybody."""
    (person,) = random_people(0, frames=1).frames[0]
    person.face[7, :2] = (100, -500)
    sequence = PoseSequence([[person]], 400, 400)
    bare = placed(sequence.without("face"), 100, 100, "people")
    assert np.ptp(bare.frames[0][0].body[:, 1]) > 1.5 * np.ptp(placed(sequence, 100, 100, "people").frames[0][0].body[:, 1])


def test_an_unknown_way_to_place_poses_is_refused() -> None:
    with pytest.raises(ValueError, match="fit is 'zoom', expected one of canvas, people, crop"):
        placed(random_people(0), 64, 64, "zoom")


def test_nobody_fits_the_canvas() -> None:
    after = normalise(PoseSequence([[], [Person()]], 480, 832), 96, 64)
    assert (after.height, after.width, len(after)) == (96, 64, 2)
    assert not after.frames[1][0].seen


def test_a_single_point_is_put_on_the_ground_line_and_not_blown_up() -> None:
    body = np.zeros((BODY, 3), np.float32)
    body[4] = (1e5, 3, 1)
    (after,) = normalise(PoseSequence([[Person(body=body)]], 480, 832), 100, 200).frames[0]
    np.testing.assert_allclose(after.body[4], (100, 93, 1), atol=1e-3)


@pytest.mark.parametrize("margin", [-0.1, 0.5, np.nan])
def test_a_margin_without_room_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        normalise(random_people(0), 96, 64, margin)

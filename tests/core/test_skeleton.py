"""Skeleton drawing: what is where, in which colour, and nothing anywhere else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dreamactor_core.poses import BODY, FACE, HAND, Person, PoseSequence, from_body_joints
from dreamactor_core.skeleton import (
    BODY_LIMBS,
    COLOURS,
    HAND_BONES,
    STYLES,
    draw_people,
    draw_skeleton,
    stick_width,
)
from training.marionette.world import HEIGHT, WIDTH, rng_for, sample_scene

# Nobody's anatomy: no joint or limb's middle lies on another limb. In fractions of the canvas.
SPREAD = np.array([
    (0.50, 0.16), (0.50, 0.36), (0.36, 0.34), (0.24, 0.46), (0.12, 0.58), (0.64, 0.34), (0.76, 0.46), (0.88, 0.58),
    (0.42, 0.60), (0.36, 0.76), (0.30, 0.94), (0.58, 0.60), (0.64, 0.76), (0.70, 0.94),
    (0.42, 0.09), (0.58, 0.09), (0.28, 0.14), (0.72, 0.14),
])  # fmt: skip

SIZES = [(512, 512), (480, 832), (256, 256), (96, 64), (128, 200), (63, 97)]


def spread_person(height: int, width: int, confidence: float = 1.0) -> Person:
    """Somebody upright in the middle square of the canvas."""
    side = min(height, width)
    xy = SPREAD * side + [(width - side) / 2, (height - side) / 2]
    return Person(body=np.concatenate([xy, np.full((BODY, 1), confidence)], 1).astype(np.float32))


def distance_to_limbs(person: Person, height: int, width: int) -> np.ndarray:
    """Distance of every pixel's centre from the nearest limb or joint."""
    y, x = np.mgrid[:height, :width] + 0.5
    nearest = np.full((height, width), np.inf)
    for a, b in [*BODY_LIMBS, *((i, i) for i in range(BODY))]:
        (xa, ya, ca), (xb, yb, cb) = person.body[a], person.body[b]
        if min(ca, cb) <= 0.3:
            continue
        dx, dy = xb - xa, yb - ya
        along = np.clip(((x - xa) * dx + (y - ya) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - xa - along * dx, y - ya - along * dy))
    return nearest


def at(picture: np.ndarray, point: np.ndarray) -> tuple[int, ...]:
    return tuple(int(c) for c in picture[int(point[1]), int(point[0])])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_joint_has_its_colour(height: int, width: int) -> None:
    person = spread_person(height, width)
    picture = draw_people([person], height, width)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    for i in range(BODY):
        assert at(picture, person.body[i]) == COLOURS[i], f"joint {i}"


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_limb_has_its_colour_in_the_middle(height: int, width: int) -> None:
    person = spread_person(height, width)
    picture = draw_people([person], height, width)
    for (a, b), colour in zip(BODY_LIMBS, COLOURS, strict=False):
        middle = (person.body[a] + person.body[b]) / 2
        shade = [int(0.6 * c) for c in colour]
        # on the smallest canvas the middle of a head's limb touches a joint
        assert at(picture, middle) == pytest.approx(shade, abs=0 if min(height, width) > 64 else 10), f"limb {a}-{b}"


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_limb_reaches_from_joint_to_joint(height: int, width: int) -> None:
    person = spread_person(height, width)
    lit = draw_people([person], height, width).any(-1)
    for a, b in BODY_LIMBS:
        for share in np.linspace(0.05, 0.95, 19):
            x, y = (person.body[a] * (1 - share) + person.body[b] * share)[:2]
            assert lit[int(y), int(x)], f"limb {a}-{b} has a gap at {share:.2f}"


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_all_else_is_black(height: int, width: int) -> None:
    person = spread_person(height, width)
    lit = draw_people([person], height, width).any(-1)
    distance = distance_to_limbs(person, height, width)
    assert not lit[distance > round(stick_width(height, width)) + 2].any()
    assert lit.any()


def test_the_palette_and_the_limbs_are_openposes() -> None:
    """A network that knows OpenPose skeletons must know these."""
    assert len(set(COLOURS)) == BODY
    assert COLOURS[0] == (255, 0, 0)
    assert COLOURS[6] == (0, 255, 0)
    assert COLOURS[12] == (0, 0, 255)
    from_one = [(2, 3), (2, 6), (3, 4), (4, 5), (6, 7), (7, 8), (2, 9), (9, 10), (10, 11), (2, 12), (12, 13), (13, 14)]
    from_one += [(2, 1), (1, 15), (15, 17), (1, 16), (16, 18)]  # the head
    assert tuple((a - 1, b - 1) for a, b in from_one) == BODY_LIMBS


@pytest.mark.parametrize("missing", [0, 1, 3, 4, 10, 17])
@pytest.mark.parametrize(("height", "width"), [(512, 512), (96, 64)])
def test_unseen_joints_and_their_limbs_are_not_drawn(missing: int, height: int, width: int) -> None:
    person = spread_person(height, width)
    place = person.body[missing].copy()
    person.body[missing] = 0
    picture = draw_people([person], height, width)
    assert at(picture, place) == (0, 0, 0)
    assert at(picture, np.zeros(2)) == (0, 0, 0), "drawn at the corner instead"
    for (a, b), colour in zip(BODY_LIMBS, COLOURS, strict=False):
        if missing in (a, b):
            shade = np.array([int(0.6 * c) for c in colour])
            assert not (picture == shade).all(-1).any(), f"limb {a}-{b} is drawn"


@pytest.mark.parametrize(("confidence", "threshold", "drawn"), [(0.31, 0.3, True), (0.3, 0.3, False), (0.2, 0.1, True)])
def test_the_threshold_decides(confidence: float, threshold: float, drawn: bool) -> None:
    person = spread_person(128, 128, confidence)
    person.body[:, 2] = np.float32(confidence)
    assert draw_people([person], 128, 128, threshold=float(np.float32(threshold))).any() == drawn


@pytest.mark.parametrize(("height", "width"), [(512, 512), (96, 64), (200, 400)])
def test_several_people_are_all_drawn(height: int, width: int) -> None:
    person = spread_person(height, width)
    left = person.mapped((0.45, 0.9), (0, 0))
    right = person.mapped((0.45, 0.9), (width / 2, height * 0.05))
    together = draw_people([left, right], height, width)
    apart = np.maximum(draw_people([left], height, width), draw_people([right], height, width))
    assert np.array_equal(together, apart)
    for one in (left, right):
        assert [at(together, one.body[i]) for i in (4, 7, 10, 13)] == [COLOURS[i] for i in (4, 7, 10, 13)]


def test_later_people_are_drawn_over_earlier_ones() -> None:
    one, two = spread_person(300, 300), spread_person(300, 300)
    two.body[:, :2] = one.body[::-1, :2]
    picture = draw_people([one, two], 300, 300)
    assert [at(picture, two.body[i]) for i in range(BODY)] == list(COLOURS)


def centroids(picture: np.ndarray) -> np.ndarray:
    """Middle of the pixels of every joint's pure colour."""
    out = []
    for colour in COLOURS:
        y, x = np.nonzero((picture == colour).all(-1))
        out.append((x.mean() + 0.5, y.mean() + 0.5))
    return np.array(out)


@pytest.mark.parametrize(("height", "width"), [(512, 512), (480, 832), (832, 480), (256, 400), (128, 128), (96, 160)])
def test_drawing_is_letterboxed_onto_every_size(height: int, width: int) -> None:
    person = spread_person(400, 400)
    (picture,) = draw_skeleton(PoseSequence([[person]], 400, 400), height, width)
    scale = min(height, width) / 400
    expected = (person.body[:, :2] - 200) * scale + [width / 2, height / 2]
    assert np.abs(centroids(picture) - expected).max() < 1


@pytest.mark.parametrize(("small", "large"), [(128, 512), (96, 384), (256, 1024)])
def test_one_picture_at_every_size(small: int, large: int) -> None:
    person = spread_person(400, 400)
    sequence = PoseSequence([[person]], 400, 400)
    stick = 4 * small / 256  # as thick in relation
    one = draw_skeleton(sequence, small, small, stick=stick)[0].astype(float)
    two = draw_skeleton(sequence, large, large, stick=stick * large / small)[0].astype(float)
    factor = large // small
    reduced = two.reshape(small, factor, small, factor, 3).mean((1, 3))
    assert np.abs(one - reduced).mean() < 2.5
    assert np.corrcoef(one.ravel(), reduced.ravel())[0, 1] > 0.93


@pytest.mark.parametrize(("size", "width"), [((512, 512), 4), ((512, 900), 4), ((1024, 1024), 8), ((96, 64), 2)])
def test_stick_width(size: tuple[int, int], width: float) -> None:
    assert stick_width(*size) == width


@pytest.mark.parametrize("stick", [3.0, 6.0, 10.0])
def test_the_stick_is_half_a_limbs_thickness(stick: float) -> None:
    body = np.zeros((BODY, 3), np.float32)
    body[1], body[2] = (100, 300, 1), (500, 300, 1)
    picture = draw_people([Person(body=body)], 600, 600, stick=stick)
    rows = np.flatnonzero(picture[:, 300].any(-1))
    assert len(rows) == pytest.approx(2 * stick + 1, abs=1)
    assert rows.mean() == pytest.approx(300, abs=0.5)


def test_joints_outside_are_clipped_and_not_moved() -> None:
    person = spread_person(300, 300)
    person.body[4, :2] = (-80, 290)
    picture = draw_people([person], 300, 300)
    wide = draw_people([person.mapped((1, 1), (100, 0))], 300, 500, stick=stick_width(300, 300))
    assert np.array_equal(picture, wide[:, 100:400])


@pytest.mark.parametrize("distance", [1e3, 1e6])
def test_joints_far_outside_do_no_harm(distance: float) -> None:
    person = spread_person(300, 300)
    person.body[4, :2] = distance
    picture = draw_people([person], 300, 300)
    assert at(picture, person.body[7]) == COLOURS[7]


def hand(at: tuple[float, float], size: float) -> np.ndarray:
    """Five straight fingers like a fan."""
    points = [(*at, 1.0)]
    for finger in range(5):
        angle = np.pi * (0.1 + 0.2 * finger)
        points += [(at[0] - size * k * np.cos(angle), at[1] - size * k * np.sin(angle), 1.0) for k in (1, 2, 3, 4)]
    return np.array(points, np.float32)


def test_hand_bones_are_five_fingers_of_four() -> None:
    assert (
        tuple(pair for f in range(5) for pair in ((0, 4 * f + 1), *((4 * f + k, 4 * f + k + 1) for k in (1, 2, 3))))
        == HAND_BONES
    )


@pytest.mark.parametrize(("height", "width"), [(512, 512), (128, 128)])
@pytest.mark.parametrize("side", ["left_hand", "right_hand"])
def test_hands_are_drawn(height: int, width: int, side: str) -> None:
    points = hand((width / 2, height * 0.9), height * 0.11)
    picture = draw_people([Person(**{side: points})], height, width)
    for point in points:
        assert at(picture, point) == (0, 0, 255)
    middles = [(points[a] + points[b]) / 2 for a, b in HAND_BONES]
    around = [picture[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2] for x, y, _ in middles]
    assert all(pixels.max() > 100 for pixels in around), "a bone is missing"
    if height == 512:
        assert len({at(picture, point) for point in middles}) == len(HAND_BONES), "two bones have one colour"


def test_half_a_hand_is_drawn_as_far_as_seen() -> None:
    points = hand((256, 460), 60)
    points[9:] = 0
    picture = draw_people([Person(left_hand=points)], 512, 512)
    gone = hand((256, 460), 60)[9:]
    assert all(at(picture, point) == (0, 0, 0) for point in gone)
    assert all(at(picture, point) == (0, 0, 255) for point in points[:9])
    assert at(picture, np.zeros(2)) == (0, 0, 0)


@pytest.mark.parametrize(("height", "width"), [(512, 512), (128, 128)])
def test_face_points_are_white(height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    face = np.concatenate([rng.uniform(0.1, 0.9, (FACE, 2)) * (width, height), np.ones((FACE, 1))], 1)
    face[5:10, 2] = 0.1
    picture = draw_people([Person(face=face.astype(np.float32))], height, width)
    kept = np.delete(face, range(5, 10), 0)
    assert all(min(at(picture, point)) > 180 for point in kept)
    nearest = np.hypot(*(face[5:10, None, :2] - kept[None, :, :2]).transpose(2, 0, 1)).min(1)
    lonely = face[5:10][nearest > 2.5 * stick_width(height, width)]
    assert len(lonely) > 0
    assert all(at(picture, point) == (0, 0, 0) for point in lonely)
    assert (picture[..., 0] == picture[..., 1]).all()
    assert (picture[..., 1] == picture[..., 2]).all()


def test_people_of_hands_and_face_only() -> None:
    person = Person(left_hand=hand((60, 200), 30), face=np.full((FACE, 3), 200, np.float32))
    assert person.left_hand.shape == (HAND, 3)
    assert draw_people([person], 300, 300).any()


def test_frames_are_drawn_one_by_one(real_people: PoseSequence) -> None:
    video = draw_skeleton(real_people, 96, 64)
    assert video.shape == (len(real_people), 96, 64, 3)
    for t, people in enumerate(real_people.frames):
        assert np.array_equal(video[t], draw_skeleton(real_people[t : t + 1], 96, 64)[0])
        assert video[t].any() == bool(people)


def test_progress_is_reported_frame_by_frame() -> None:
    sequence = from_body_joints(np.ones((4, BODY, 3)), 64, 64)
    calls: list[tuple[int, int]] = []
    draw_skeleton(sequence, 32, 32, progress=lambda done, of: calls.append((done, of)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_drawing_leaves_the_poses_alone(real_people: PoseSequence) -> None:
    before = [p.body.copy() for people in real_people.frames for p in people]
    draw_skeleton(real_people, 96, 64)
    after = [p.body for people in real_people.frames for p in people]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def plain_drawing(people: list[Person], height: int, width: int) -> np.ndarray:
    """The default look joint by joint, as the small backbone was trained with it. Written to be read, not to be fast."""
    factor = 4 if min(height, width) < 256 else 1
    stick = max(2.0, 4.0 * min(height, width) / 512) * factor
    canvas = np.zeros((height * factor, width * factor, 3), np.uint8)
    for person in people:
        groups = {name: (points[:, :2] * factor, points[:, 2] > 0.3) for name, points in person.groups().items()}
        xy, seen = groups["body"]
        for (a, b), colour in zip(BODY_LIMBS, COLOURS, strict=False):
            if seen[a] and seen[b]:
                (xa, ya), (xb, yb) = xy[a], xy[b]
                middle = round(float(xa + xb) / 2), round(float(ya + yb) / 2)
                axes = round(np.hypot(xa - xb, ya - yb) / 2), round(stick)
                outline = cv2.ellipse2Poly(middle, axes, round(np.degrees(np.arctan2(ya - yb, xa - xb))), 0, 360, 4)
                cv2.fillConvexPoly(canvas, outline, tuple(int(0.6 * c) for c in colour))
        for i in np.flatnonzero(seen):
            cv2.circle(canvas, (round(float(xy[i, 0])), round(float(xy[i, 1]))), round(stick), COLOURS[i], -1)
        for name in ("left_hand", "right_hand"):
            xy, seen = groups[name]
            at = [(round(float(x)), round(float(y))) for x, y in xy]
            for k, (a, b) in enumerate(HAND_BONES):
                if seen[a] and seen[b]:
                    hue = np.uint8([[[int(k / 20 * 180), 255, 255]]])
                    colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
                    cv2.line(canvas, at[a], at[b], colour, max(1, round(stick / 2)))
            for i in np.flatnonzero(seen):
                cv2.circle(canvas, at[i], round(stick), (0, 0, 255), -1)
        xy, seen = groups["face"]
        for i in np.flatnonzero(seen):
            cv2.circle(canvas, (round(float(xy[i, 0])), round(float(xy[i, 1]))), max(1, round(stick * 0.75)), (255,) * 3, -1)
    return canvas if factor == 1 else cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("seed", range(12))
def test_what_training_was_shown_is_drawn_bit_for_bit(seed: int) -> None:
    """The shipped LoRA knows these very pixels; whoever changes them has to train it again."""
    scene = sample_scene(rng_for("train", 2, seed), "cartoon" if seed % 2 else "human")
    poses = from_body_joints(scene.keypoints(), HEIGHT, WIDTH)
    assert (HEIGHT, WIDTH) == (96, 64)
    for picture, people in zip(draw_skeleton(poses, HEIGHT, WIDTH), poses.frames, strict=True):
        np.testing.assert_array_equal(picture, plain_drawing(people, HEIGHT, WIDTH))


@pytest.mark.parametrize("size", [(480, 832), (96, 64), (720, 1280), (333, 500)])
def test_whole_bodies_of_real_people_too(real_people: PoseSequence, size: tuple[int, int]) -> None:
    fitted = real_people.fitted(*size)
    for picture, people in zip(draw_skeleton(fitted, *size), fitted.frames, strict=True):
        np.testing.assert_array_equal(picture, plain_drawing(people, *size))


@pytest.mark.parametrize("size", [(512, 512), (480, 832), (1080, 1920), (96, 64)])
@pytest.mark.parametrize(("style", "shade"), [("controlnet_aux", 0.6), ("sdpose", 1.0)])
def test_the_other_looks_have_one_width_at_every_size(style: str, shade: float, size: tuple[int, int]) -> None:
    height, width = size
    body = np.zeros((BODY, 3), np.float32)
    body[1], body[2] = (width * 0.1, height // 2, 1), (width * 0.9, height // 2, 1)
    picture = draw_people([Person(body=body)], height, width, style=style)
    assert picture[:, width // 2].any(-1).sum() == 2 * 4 + 1
    assert tuple(picture[height // 2, width // 2]) == tuple(int(shade * c) for c in COLOURS[0])
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 4, "black, a limb and two joints, nothing blurred"


def test_the_looks_differ_in_the_eyes_of_the_face() -> None:
    face = np.zeros((FACE, 3), np.float32)
    face[68:] = (40, 40, 1)
    lit = {style: bool(draw_people([Person(face=face)], 300, 300, style=style).any()) for style in STYLES}
    assert lit == {"dwpose": True, "controlnet_aux": True, "sdpose": False}


def test_an_unknown_look_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'openpose', expected one of dwpose, controlnet_aux, sdpose"):
        draw_people([], 64, 64, style="openpose")
    with pytest.raises(ValueError, match="expected one of"):
        draw_skeleton(PoseSequence([[]], 64, 64), 64, 64, style="")


@pytest.mark.parametrize("style", list(STYLES))
@pytest.mark.parametrize("place", [1e6, -1e6])
def test_a_tiny_canvas_blown_up_takes_no_joint_out_of_bounds(style: str, place: float) -> None:
    person = spread_person(2, 2)
    person.body[[4, 10], :2] = place
    drawn = draw_skeleton(PoseSequence([[person]], 2, 2), 4096, 4096, style=style)
    assert drawn.any()


@pytest.mark.parametrize("size", [32, 2048])
def test_progress_can_stop_the_drawing(size: int) -> None:
    def stop(done: int, of: int) -> None:
        raise InterruptedError(f"{done} of {of}")

    with pytest.raises(InterruptedError, match="1 of 4"):
        draw_skeleton(from_body_joints(np.ones((4, BODY, 3)), 64, 64), size, size, progress=stop)


def test_large_clips_are_drawn_in_order(real_people: PoseSequence) -> None:
    calls: list[tuple[int, int]] = []
    many = real_people[[t % len(real_people) for t in range(24)]]
    video = draw_skeleton(many, 480, 832, progress=lambda *step: calls.append(step))
    assert calls == [(t + 1, 24) for t in range(24)]
    for t in range(24):
        np.testing.assert_array_equal(video[t], draw_skeleton(many[t : t + 1], 480, 832)[0])

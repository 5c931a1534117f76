"""The describer says what was done, on figures whose motion is known by construction."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dreamactor_core.poses import Person, PoseFormatError, PoseSequence, from_body_joints, from_pose_keypoint
from dreamactor_core.text.checks import check_motion
from dreamactor_core.text.describe import describe_motion
from dreamactor_core.text.prompts import LANGUAGES
from training.marionette.motions import MOTIONS, PARAMETERS, Motion, sample_motion
from training.marionette.world import FPS, HEIGHT, WIDTH, Scene, rng_for, sample_scene

DRIVES = Path(__file__).resolve().parents[1] / "data" / "drives"
SIDE, T, RATE = 512, 41, 10.0
MIRROR = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]
"""Index of each body joint's counterpart on the other side."""


def ramp(*values: float) -> np.ndarray:
    """A curve through the values, straight in between, evenly spaced over the clip."""
    return np.interp(np.linspace(0, len(values) - 1, T), np.arange(len(values)), values)


def stick(x: float = 256, **degrees: np.ndarray) -> PoseSequence:
    """Somebody of 300 pixels who faces us. Angles: arms and legs outwards from hanging, trunk and head to the own right."""
    zero = np.zeros(T)

    def angle(name: str) -> np.ndarray:
        return np.radians(degrees.get(name, zero))

    joints = np.ones((T, 18, 3))

    def put(joint: int, origin: np.ndarray, along: np.ndarray, length: float, side: float) -> np.ndarray:
        joints[:, joint, :2] = origin + length * np.stack([side * np.sin(along), np.cos(along)], 1)
        return joints[:, joint, :2]

    drop, shift, jump = (degrees.get(name, zero) for name in ("sink", "shift", "jump"))
    hips = np.stack([x + shift, 300 + drop - jump], 1)
    trunk, head = angle("lean"), angle("lean") + angle("head")
    up = np.stack([-np.sin(trunk), -np.cos(trunk)], 1)
    across = np.stack([-up[:, 1], up[:, 0]], 1)  # towards the own left
    neck = hips + 100 * up
    joints[:, 1, :2] = neck
    for joint, ahead, side in ((0, 45, 0), (14, 52, -10), (15, 52, 10), (16, 48, -18), (17, 48, 18)):
        direction = np.stack([-np.sin(head), -np.cos(head)], 1)
        joints[:, joint, :2] = neck + ahead * direction + side * np.stack([-direction[:, 1], direction[:, 0]], 1)
    for name, side, first, leg in (("right", -1.0, 2, 8), ("left", 1.0, 5, 11)):
        joints[:, first, :2] = neck + side * 38 * across
        elbow = put(first + 1, joints[:, first, :2], angle(f"{name}_arm"), 55, side)
        put(first + 2, elbow, angle(f"{name}_arm") + angle(f"{name}_elbow"), 55, side)
        joints[:, leg, :2] = hips + [side * 20, 0]
        lifted = degrees.get(f"{name}_foot", zero)[:, None] * [0, -1]
        foot = joints[:, leg, :2] + 140 * np.stack([side * np.sin(angle(f"{name}_leg")), np.cos(angle(f"{name}_leg"))], 1)
        foot = foot + lifted - np.stack([zero, drop], 1)
        joints[:, leg + 1, :2], joints[:, leg + 2, :2] = (joints[:, leg, :2] + foot) / 2, foot
    return from_body_joints(joints, SIDE, SIDE)


def resized(sequence: PoseSequence, sizes: np.ndarray, centre: tuple[float, float] = (256, 300)) -> PoseSequence:
    """The same zoomed frame by frame about a point of the picture."""
    frames = [
        [person.mapped((size, size), ((1 - size) * centre[0], (1 - size) * centre[1])) for person in people]
        for people, size in zip(sequence.frames, sizes.tolist(), strict=True)
    ]
    return PoseSequence(frames, sequence.height, sequence.width)


def told(sequence: PoseSequence) -> str:
    text = describe_motion(sequence, RATE)
    assert check_motion(text) == []
    return text


def mirrored(sequence: PoseSequence) -> PoseSequence:
    """The same seen in a mirror: everything flipped, and right joints named left."""
    frames = []
    for people in sequence.frames:
        flipped = [person.mapped((-1, 1), (sequence.width, 0)) for person in people]
        frames.append([replace(p, body=p.body[MIRROR], left_hand=p.right_hand, right_hand=p.left_hand) for p in flipped])
    return PoseSequence(frames, sequence.height, sequence.width)


def swapped(text: str) -> str:
    """Right for left and left for right."""
    return re.sub(r"\b(right|left)\b", lambda m: "left" if m[0] == "right" else "right", text)


def clauses(text: str) -> list[str]:
    """All clauses, sorted: two limbs that do the same at once are told right first, in a mirror as well."""
    return sorted(re.split(r"(?:, and |, with |, |\. )", text.rstrip(".")))


STILL = "the pose is held"
START = "In the video, the character's initial pose is upright, with both arms hanging beside the body, and both legs straight. "


def steps(first: str = STILL, second: str = STILL, third: str = STILL, fourth: str = STILL) -> str:
    return f"Subsequently, {first}. Then, {second}. After that, {third}. Finally, {fourth}."


def test_nothing_moves() -> None:
    assert told(stick()) == START + steps()


def test_the_right_arm_is_raised() -> None:
    arm = ramp(0, 45, 90, 135, 175)
    expected = START + steps(
        "the right arm swings outwards until the hand is at waist height out to the side",
        "the right arm rises until the hand is at shoulder height out to the side",
        "the right arm rises until the hand is at head height out to the side",
        "the right arm swings inwards until the hand is above the head",
    )
    assert told(stick(right_arm=arm)) == expected
    assert told(stick(left_arm=arm)) == swapped(expected)
    assert told(mirrored(stick(right_arm=arm))) == swapped(expected)


def test_both_arms_at_once_are_one_sentence() -> None:
    arm = ramp(0, 0, 120, 120, 0)
    text = told(stick(right_arm=arm, left_arm=arm))
    assert "Then, both arms rise until the hands are at head height out to the side." in text
    assert "Finally, both arms come down until the hands are at hip height beside the body." in text
    assert not re.search(r"\b(right|left)\b", text)


def test_what_begins_first_is_told_first() -> None:
    early, late = ramp(0, 0, 0, 0, 0, 90, 90, 90, 90), ramp(0, 0, 0, 0, 0, 0, 90, 90, 90)
    for a, b in (("right", "left"), ("left", "right")):
        text = told(stick(**{f"{a}_arm": early, f"{b}_arm": late}))
        third = re.search(r"After that, (.*?)\. Finally", text)
        assert third is not None and third[1].index(f"the {a} arm") < third[1].index(f"the {b} arm")


def test_a_wave_swings_and_a_single_return_comes_back() -> None:
    wave = told(stick(right_arm=np.full(T, 90.0), right_elbow=ramp(60, 60, 60, 120, 60, 120, 60, 120, 60)))
    assert "the right hand at head height out to the side" in wave
    assert "Subsequently, the pose is held." in wave and "the right arm swings" in wave
    assert wave.count("left") == 1, "the other arm hangs, and that is all"
    back = told(stick(left_arm=ramp(30, 30, 30, 30, 30, 110, 30, 30, 30)))
    assert "After that, the left arm rises and comes down again, ending with the hand at" in back


def test_a_slow_movement_is_told_when_it_has_become_large() -> None:
    text = told(stick(lean=ramp(0, 20)))
    assert text.count("the upper body moves towards its right side") == 1, text
    assert text.startswith(START)


def test_trunk_and_head() -> None:
    assert "Then, the upper body moves towards its left side." in told(stick(lean=ramp(0, 0, -25, -25, -25)))
    assert "Then, the head moves towards its right side." in told(stick(head=ramp(0, 0, 25, 25, 25)))
    assert "initial pose is leaning towards its right side" in told(stick(lean=ramp(15, 15)))
    assert "the head tilted towards its left side" in told(stick(head=ramp(-20, -20)))


def test_legs_and_feet() -> None:
    assert "Subsequently, the left foot rises." in told(stick(left_foot=ramp(0, 60, 60, 60, 60)))
    for high in (80, 110):
        kick = told(stick(left_foot=ramp(0, high, 0, 0, 0)))
        assert "Subsequently, the left foot rises. Then, the left foot comes down. After that, the pose is held." in kick, high
    assert "and the right foot lifted" in told(stick(right_foot=ramp(60, 60)))
    assert "After that, the right leg swings outwards." in told(stick(right_leg=ramp(0, 0, 0, 40, 40)))
    spread = ramp(0, 35, 0, 0, 0)
    assert "Subsequently, both legs swing outwards. Then, both legs swing inwards." in told(
        stick(right_leg=spread, left_leg=spread)
    )
    bent = told(stick(sink=ramp(0, 0, 60, 60, 0)))
    assert "Then, both knees bend and the body sinks. After that, the pose is held. Finally, both knees straighten" in bent


def test_the_whole_body() -> None:
    assert "Then, the whole body moves towards the right edge of the picture." in told(stick(shift=ramp(0, 0, 90, 90, 90)))
    assert "After that, the character jumps." in told(stick(jump=ramp(0, 0, 0, 0, 0, 60, 0, 0, 0)))


def test_elbows() -> None:
    text = told(stick(right_arm=np.full(T, 10.0), right_elbow=np.full(T, 130.0)))
    assert "the right hand at shoulder height beside the body, the elbow bent" in text


@pytest.mark.parametrize(("side", "thumb"), [("right", -1), ("left", 1)])
def test_the_back_of_the_hand(side: str, thumb: int) -> None:
    """Fingers up, seen from the back: the thumb of a right hand is on the left of the picture."""
    sequence = stick()
    x, y = sequence.frames[0][0].body[4 if side == "right" else 7, :2]
    hand = np.ones((21, 3), np.float32)
    for finger in range(5):
        for k in range(4):
            hand[4 * finger + k + 1, :2] = x + thumb * (20 - 10 * finger), y - 20 - 6 * k
    hand[0, :2] = x, y
    for people in sequence.frames:
        people[0] = replace(people[0], **{f"{side}_hand": hand})
    assert f"the back of the {side} hand facing the viewer" in told(sequence)
    misnamed = [[replace(p, left_hand=p.right_hand, right_hand=p.left_hand) for p in people] for people in sequence.frames]
    assert told(PoseSequence(misnamed, SIDE, SIDE)) == told(sequence), "the host's SDPose names hands the other way round"
    flat = hand.copy()
    flat[:, 0] = 2 * x - hand[:, 0]
    for people in sequence.frames:
        people[0] = replace(people[0], **{f"{side}_hand": flat})
    assert f"the palm of the {side} hand facing the viewer" in told(sequence)
    edge = hand.copy()
    edge[:, 0] = x
    for people in sequence.frames:
        people[0] = replace(people[0], **{f"{side}_hand": edge})
    assert "facing the viewer" not in told(sequence)


def test_somebody_who_is_seen_from_behind_keeps_the_own_sides() -> None:
    """From behind, the right arm is on the right of the picture."""
    behind = mirrored(stick(right_arm=ramp(0, 0, 90, 90, 90)))
    frames = [[replace(p, body=p.body[MIRROR]) for p in people] for people in behind.frames]
    text = told(PoseSequence(frames, SIDE, SIDE))
    assert "Then, the right arm rises until the hand is at shoulder height out to the side." in text


def test_half_a_body_has_no_legs() -> None:
    sequence = stick(left_arm=ramp(0, 0, 90, 90, 90))
    for people in sequence.frames:
        people[0].body[8:14] = 0
    text = told(sequence)
    assert "partly in view" in text and "the left arm rises" in text
    assert not re.search(r"leg|knee|f[oe]{2}t", text)


def test_a_short_loss_is_bridged_and_a_hidden_limb_is_not_told() -> None:
    arm = ramp(0, 45, 90, 135, 175)
    gaps = stick(right_arm=arm)
    for t in (7, 8, 20, 21, 22):
        gaps.frames[t] = []
    assert told(gaps) == told(stick(right_arm=arm))
    hidden = stick(right_arm=arm)
    for people in hidden.frames:
        people[0].body[4] = 0
    assert "right arm" not in told(hidden) and "right hand" not in told(hidden)
    guessed = stick(right_arm=arm)
    for people in guessed.frames:
        people[0].body[4, 2] = 0.1
    assert told(guessed) == told(hidden)


def test_somebody_who_leaves() -> None:
    sequence = stick()
    sequence.frames[21:] = [[] for _ in range(T - 21)]
    assert told(sequence).endswith("After that, the character is not in view. Finally, the character is not in view.")


def test_several_people_are_told_from_left_to_right() -> None:
    arm = ramp(0, 0, 90, 90, 90)
    left, right = stick(130, right_arm=arm), stick(380, left_arm=arm)
    rng = np.random.default_rng(0)
    frames = [[*a, *b] if rng.random() < 0.5 else [*b, *a] for a, b in zip(left.frames, right.frames, strict=True)]
    text = told(PoseSequence(frames, SIDE, SIDE))
    assert text.startswith(
        "In the video, the character's initial pose is as follows: the first character from the left: upright, with both arms "
    )
    hand = "until the hand is at shoulder height out to the side"
    assert (
        f"Then, the first character from the left: the right arm rises {hand}; the second character from the left: the left arm "
        f"rises {hand}. After that" in text
    )


@pytest.mark.parametrize("flipped", [False, True], ids=["listed in order", "listed in any order"])
def test_two_who_cross_keep_their_own_motion(flipped: bool) -> None:
    """Each raises an arm at last, on the side of the picture on which they end."""
    arm = ramp(0, 0, 0, 0, 90)
    one, other = stick(140, right_arm=arm, shift=ramp(0, 230)), stick(370, left_arm=arm, shift=ramp(0, -230))
    rng = np.random.default_rng(1)
    frames = [
        [*b, *a] if flipped and rng.random() < 0.5 else [*a, *b] for a, b in zip(one.frames, other.frames, strict=True)
    ]
    last = told(PoseSequence(frames, SIDE, SIDE)).split("Finally, ")[1]
    first, second = last.split("; the second character from the left: ")
    assert "the right arm rises" in first and "towards the right edge" in first
    assert "the left arm rises" in second and "towards the left edge" in second


def test_only_the_first_five_seconds_count() -> None:
    once = stick(right_arm=ramp(0, 90))
    longer = PoseSequence([*once.frames, *stick(left_arm=np.full(T, 170.0)).frames], SIDE, SIDE)
    assert describe_motion(longer, T / 5) == describe_motion(once, T / 5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_short_clips(count: int) -> None:
    assert told(stick()[:count]) == START + steps()


def test_nobody_is_an_error() -> None:
    with pytest.raises(PoseFormatError, match=r"nobody can be seen in the first 2 frames.*check the pose extractor"):
        describe_motion(PoseSequence([[], []], 64, 64), 12.0)
    with pytest.raises(ValueError, match="the poses' fps is 0"):
        describe_motion(stick(), 0.0)


@pytest.mark.parametrize(("scale", "offset"), [(0.25, (0, 0)), (3.0, (100, -50))])
def test_size_and_place_do_not_matter(scale: float, offset: tuple[float, float]) -> None:
    sequence = stick(right_arm=ramp(0, 45, 90, 135, 175), left_leg=ramp(0, 0, 30, 30, 0), lean=ramp(0, 0, 0, 20, 0))
    moved = PoseSequence([[p.mapped((scale, scale), offset) for p in people] for people in sequence.frames], SIDE, SIDE)
    assert told(moved) == told(sequence)


NEARER, AWAY = "the whole body comes nearer", "the whole body goes away"


@pytest.mark.parametrize("centre", [(256, 440), (256, 20)], ids=["feet", "horizon"])
@pytest.mark.parametrize("last", [0.4, 0.65, 0.9, 1.12, 1.6, 2.5])
def test_a_figure_that_only_grows_or_shrinks_moves_no_limb(last: float, centre: tuple[float, float]) -> None:
    """Walking up to the camera, or a zoom."""
    for pose in ({}, {"right_arm": np.full(T, 100.0), "left_elbow": np.full(T, 90.0)}, {"lean": np.full(T, 15.0)}):
        for sizes in (ramp(1, last), ramp(1, 1, last, last, last)):
            text = told(resized(stick(**pose), sizes, centre))
            expected = told(stick(**pose)).split("Subsequently")[0]
            said = [step.rstrip(".") for step in re.split(r"\. (?:Then|After that|Finally), |Subsequently, ", text)[1:]]
            assert text.startswith(expected), text
            assert {*said} <= {STILL, NEARER if last > 1 else AWAY}, text
            assert ({*said} == {STILL}) == (0.85 < last < 1.2), text


def test_coming_nearer_is_told_in_its_place() -> None:
    grows = ramp(1, 1, 1.7, 1.7, 1.7)
    assert told(resized(stick(), grows)) == START + steps(second=NEARER)
    assert told(resized(stick(), grows[::-1])) == START + steps(third=AWAY)
    text = describe_motion(resized(stick(), grows), RATE, "zh")
    assert "接着\uff0c整个身体靠近。" in text and "膝" not in text.split("随后")[1] and check_motion(text, "zh") == []
    there_and_back = told(resized(stick(), ramp(1, 1, 1, 1, 1, 1.8, 1, 1, 1)))
    assert there_and_back == START + steps(third="the whole body comes nearer and goes away again")


@pytest.mark.parametrize("sizes", [ramp(0.7, 1.4), ramp(1.4, 0.7), ramp(0.9, 1.1)], ids=["nearer", "away", "a little"])
def test_what_is_moved_while_the_size_changes_is_told_as_without(sizes: np.ndarray) -> None:
    for moved in (
        {"right_arm": ramp(0, 0, 120, 120, 120)},
        {"left_foot": ramp(0, 60, 60, 60, 60)},
        {"sink": ramp(0, 0, 60, 60, 0)},
        {"jump": ramp(0, 0, 0, 0, 0, 60, 0, 0, 0)},
        {"right_leg": ramp(0, 35, 0, 0, 0), "left_leg": ramp(0, 35, 0, 0, 0)},
    ):
        text = told(resized(stick(**moved), sizes))
        for event in (NEARER, AWAY):
            text = text.replace(f", and {event}", "").replace(f"{event}, and ", "").replace(event, STILL)
        assert text == told(stick(**moved))


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_limbs_that_look_shorter_change_no_size(share: float) -> None:
    """Arms and legs towards the viewer, a bow, a turn to the side: each shortens some parts alone."""
    for name in ("limbs", "trunk", "width"):
        sequence = stick()
        for people, by in zip(sequence.frames, ramp(1, 1, share, share, share), strict=True):
            body = people[0].body
            if name == "limbs":
                for root, *rest in ((2, 3, 4), (5, 6, 7), (8, 9, 10), (11, 12, 13)):
                    body[rest, :2] = body[root, :2] + by * (body[rest, :2] - body[root, :2])
            elif name == "trunk":
                body[[0, 1, 2, 3, 4, 5, 6, 7, 14, 15, 16, 17], 1] += (1 - by) * 100
            else:
                body[:, 0] = 256 + by * (body[:, 0] - 256)
        text = told(sequence)
        assert NEARER not in text and AWAY not in text, (name, text)


def test_marionette_s_zoom_moves_no_limb() -> None:
    for index in range(4):
        still = scene("human", only(), index)
        zoomed = resized(still, np.linspace(0.7, 1.3, len(still)), (WIDTH / 2, HEIGHT * 0.3))
        assert describe_motion(zoomed, FPS).replace(NEARER, STILL) == describe_motion(still, FPS)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_seen_gives_a_text_or_the_documented_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen = rng.choice([0.1, 0.5, 0.9])
    frames = []
    for _ in range(int(rng.integers(1, 30))):
        people = []
        for _ in range(int(rng.integers(0, 4))):
            points = {name: np.zeros((n, 3), np.float32) for name, n in (("body", 18), ("left_hand", 21), ("right_hand", 21))}
            for array in points.values():
                array[:] = rng.normal(200, rng.choice([0.0, 1.0, 100.0, 1e5]), array.shape)
                array[:, 2] = rng.random(len(array)) * (rng.random(len(array)) < seen)
            people.append(Person(**points))
        frames.append(people)
    for language in LANGUAGES:
        try:
            text = describe_motion(PoseSequence(frames, 400, 400), float(rng.choice([0.5, 8, 60])), language)
        except PoseFormatError as error:
            assert "nobody can be seen" in str(error)
        else:
            assert check_motion(text, language) == [] and "nan" not in text


# real people


@pytest.fixture(params=["dancer", "man_upper_body", "toon_dancer"])
def real(request: pytest.FixtureRequest) -> tuple[PoseSequence, float]:
    data = json.loads((DRIVES / f"{request.param}.json").read_text("utf-8"))
    return from_pose_keypoint(data["frames"]), 1000 / data["frame_ms"]


def test_real_people_keep_to_the_form(real: tuple[PoseSequence, float]) -> None:
    for language in LANGUAGES:
        assert check_motion(describe_motion(*real, language), language) == []
    assert describe_motion(*real) == describe_motion(*real)
    assert NEARER not in describe_motion(*real) and AWAY not in describe_motion(*real), "they stay where they are"


def test_real_people_in_a_mirror(real: tuple[PoseSequence, float]) -> None:
    sequence, fps = real
    assert clauses(describe_motion(mirrored(sequence), fps)) == clauses(swapped(describe_motion(sequence, fps)))


# Marionette


def scene(plan: str, motion: Motion, index: int) -> PoseSequence:
    made: Scene = sample_scene(rng_for("test", 77, index), plan, len(motion))  # type: ignore[arg-type]
    still = replace(made.camera, pan=np.zeros_like(made.camera.pan), zoom=np.ones_like(made.camera.zoom))
    return from_body_joints(replace(made, motion=motion, camera=still).keypoints(), HEIGHT, WIDTH)


def only(frames: int = 25, **curves: tuple[float, float]) -> Motion:
    """A motion of a few parameters from one value to another, the rest at rest."""
    rest = sample_motion(rng_for("test", 1), "biped", frames, "waves")
    values = np.zeros_like(rest.values)
    names = PARAMETERS["biped"]
    for name in names:
        low, high = curves.get(name, (0.15, 0.15) if "shoulder" in name else (0.0, 0.0))
        values[:, names.index(name)] = np.linspace(low, high, frames)
    return Motion("test", "biped", values)


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("plan", ["human", "cartoon"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_marionette_raises_an_arm(plan: str, side: str, index: int) -> None:
    text = describe_motion(scene(plan, only(**{f"{side}_shoulder": (0.15, 2.9)}), index), FPS)
    other = "left" if side == "right" else "right"
    assert check_motion(text) == []
    assert f"the {side} arm rises until the hand is" in text
    assert f"{other} arm rises" not in text and f"{other} arm swings" not in text and "leg swings" not in text
    order = [text.index(height) for height in ("at shoulder height", "at head height") if height in text]
    assert order and order == sorted(order)


@pytest.mark.parametrize("plan", ["human", "cartoon"])
def test_marionette_s_other_parts(plan: str) -> None:
    def parts(**curves: tuple[float, float]) -> str:
        return describe_motion(scene(plan, only(**curves), 3), FPS)

    assert "both arms rise" in parts(right_shoulder=(0.15, 2.0), left_shoulder=(0.15, 2.0))
    assert "the upper body moves towards its left side" in parts(lean=(0.0, 0.5)), "clockwise for us is to its left"
    assert "the head moves towards its right side" in parts(head=(0.0, -0.6))
    assert "the right leg swings outwards" in parts(right_hip=(0.0, 0.9))


@pytest.mark.parametrize("name", sorted(MOTIONS["biped"]))
def test_every_motion_of_marionette_keeps_to_the_form_and_mirrors(name: str) -> None:
    for index in range(4):
        motion = sample_motion(rng_for("test", 5, index), "biped", 49, name)
        sequence = scene("human", motion, index)
        text = describe_motion(sequence, FPS)
        assert check_motion(text) == [] and check_motion(describe_motion(sequence, FPS, "zh"), "zh") == []
        assert clauses(describe_motion(mirrored(sequence), FPS)) == clauses(swapped(text))

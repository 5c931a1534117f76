"""POSE_KEYPOINT: what two real writers produce is read, what is malformed is refused by name, and nothing is lost."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamactor_core.poses import (
    BODY,
    FACE,
    FARTHEST,
    HAND,
    Person,
    PoseFormatError,
    PoseSequence,
    from_body_joints,
    from_pose_keypoint,
    read_pose_file,
    to_pose_keypoint,
)

COUNTS = {"body": BODY, "face": FACE, "left_hand": HAND, "right_hand": HAND}
KEYS = {
    "body": "pose_keypoints_2d",
    "face": "face_keypoints_2d",
    "left_hand": "hand_left_keypoints_2d",
    "right_hand": "hand_right_keypoints_2d",
}


def random_person(rng: np.random.Generator, height: int = 480, width: int = 832) -> Person:
    """Somebody of whom about a third is not seen."""
    groups = {}
    for name, count in COUNTS.items():
        points = rng.uniform((0, 0, 0.1), (width, height, 1), (count, 3)).astype(np.float32)
        points[rng.random(count) < 0.3] = 0
        groups[name] = points
    return Person(**groups)


def random_sequence(seed: int, people: tuple[int, ...] = (1, 2, 0, 3)) -> PoseSequence:
    rng = np.random.default_rng(seed)
    return PoseSequence([[random_person(rng) for _ in range(n)] for n in people], 480, 832)


def assert_same(one: PoseSequence, other: PoseSequence, atol: float = 0.0) -> None:
    assert (one.height, one.width) == (other.height, other.width)
    assert [len(people) for people in one.frames] == [len(people) for people in other.frames]
    for people, others in zip(one.frames, other.frames, strict=True):
        for person, twin in zip(people, others, strict=True):
            for name, points in person.groups().items():
                np.testing.assert_allclose(getattr(twin, name), points, rtol=0, atol=atol, err_msg=name)


def frame(*people: Any, width: Any = 832, height: Any = 480) -> dict[str, Any]:
    return {"people": list(people), "canvas_width": width, "canvas_height": height}


def flat(count: int, x: float = 10.0, y: float = 20.0, confidence: float = 1.0) -> list[Any]:
    return [value for k in range(count) for value in (x + k, y + k, confidence)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("people", [(1,), (1, 2, 0, 3), (0, 0)])
def test_round_trip_is_exact(seed: int, people: tuple[int, ...]) -> None:
    sequence = random_sequence(seed, people)
    assert_same(from_pose_keypoint(json.loads(json.dumps(to_pose_keypoint(sequence)))), sequence)


def test_real_people_round_trip(real_people: PoseSequence, real_frames: list[dict[str, Any]]) -> None:
    assert len(real_people) == len(real_frames)
    assert [len(people) for people in real_people.frames] == [len(f["people"]) for f in real_frames]
    assert_same(from_pose_keypoint(to_pose_keypoint(real_people)), real_people)


def test_real_people_are_read_joint_for_joint(real_people: PoseSequence, real_frames: list[dict[str, Any]]) -> None:
    for people, raw in zip(real_people.frames, real_frames, strict=True):
        for person, written in zip(people, raw["people"], strict=True):
            for name, key in KEYS.items():
                values = np.float32(written[key] or [0] * 3 * COUNTS[name]).reshape(-1, 3)
                np.testing.assert_array_equal(getattr(person, name), values * (values[:, 2:] > 0))


def test_groups_land_in_their_own_place() -> None:
    raw = {key: flat(COUNTS[name], x=100.0 * k) for k, (name, key) in enumerate(KEYS.items(), 1)}
    (person,) = from_pose_keypoint([frame(raw)]).frames[0]
    for k, name in enumerate(KEYS, 1):
        points = getattr(person, name)
        assert points.dtype == np.float32
        np.testing.assert_array_equal(points[:, 0], 100 * k + np.arange(COUNTS[name]))
        np.testing.assert_array_equal(points[:, 1], 20 + np.arange(COUNTS[name]))


def test_the_dwpose_writer() -> None:
    """Confidence is 1 or the joint is three zeros; parts that were not found are null; other keys stand beside."""
    body = flat(BODY)
    body[3 * 4 : 3 * 5] = [0.0, 0.0, 0.0]
    raw = {
        "pose_keypoints_2d": body,
        "face_keypoints_2d": None,
        "hand_left_keypoints_2d": None,
        "hand_right_keypoints_2d": flat(HAND, 300, 300),
    }
    data = [{"people": [raw, copy.deepcopy(raw)], "canvas_height": 480, "canvas_width": 832, "version": "1.0"}]
    data.append({"people": [], "canvas_height": 480, "canvas_width": 832})
    sequence = from_pose_keypoint(data)
    assert [len(people) for people in sequence.frames] == [2, 0]
    person = sequence.frames[0][1]
    assert not person.body[4].any()
    assert (np.delete(person.body, 4, 0)[:, 2] == 1).all()
    assert not person.face.any()
    assert not person.left_hand.any()
    np.testing.assert_array_equal(person.right_hand[0], (300, 300, 1))
    assert (sequence.height, sequence.width) == (480, 832)


def sdpose_frame(keypoints: np.ndarray, scores: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """One person as ComfyUI's SDPose extractor lays it out: 134 points in OpenPose's order, cut into five lists."""

    def cut(index: Any) -> list[float]:
        return np.concatenate([keypoints[index], scores[index, None]], 1).flatten().tolist()

    face = [*range(24, 92), 14, 15]  # 68 landmarks and the body's two eyes
    person = {
        "pose_keypoints_2d": cut(np.arange(18)),
        "foot_keypoints_2d": cut(np.arange(18, 24)),
        "face_keypoints_2d": cut(np.array(face)),
        "hand_right_keypoints_2d": cut(np.arange(92, 113)),
        "hand_left_keypoints_2d": cut(np.arange(113, 134)),
    }
    return {"canvas_width": width, "canvas_height": height, "people": [person]}


def test_the_sdpose_writer() -> None:
    """Every joint has a place and a score; what was not found at all is at -1 with a score of 0; feet come extra."""
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(20, 400, (134, 2)).astype(np.float32)
    scores = rng.uniform(0.05, 0.95, 134).astype(np.float32)
    keypoints[[3, 100]], scores[[3, 100]] = -1, 0
    scores[1] = 0  # the neck, between shoulders of too low a score
    sequence = from_pose_keypoint([sdpose_frame(keypoints, scores, 480, 832)])
    (person,) = sequence.frames[0]
    expected = np.concatenate([keypoints, scores[:, None]], 1) * (scores[:, None] > 0)
    np.testing.assert_array_equal(person.body, expected[:18])
    np.testing.assert_array_equal(person.face[:68], expected[24:92])
    np.testing.assert_array_equal(person.face[68:], expected[14:16])
    np.testing.assert_array_equal(person.right_hand, expected[92:113])
    np.testing.assert_array_equal(person.left_hand, expected[113:])
    assert not person.body[[1, 3]].any()
    assert not person.right_hand[8].any()
    assert_same(from_pose_keypoint(to_pose_keypoint(sequence)), sequence)


@pytest.mark.parametrize("hole", [None, math.nan, math.inf, -math.inf, 2 * FARTHEST, -1e300])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_holes_are_joints_not_seen(hole: float | None, place: int) -> None:
    body = flat(BODY)
    body[3 * 7 + place] = hole
    (person,) = from_pose_keypoint([frame({"pose_keypoints_2d": body})]).frames[0]
    assert not person.body[7].any()
    assert (np.delete(person.body, 7, 0) == np.delete(np.float32(flat(BODY)).reshape(-1, 3), 7, 0)).all()


@pytest.mark.parametrize("confidence", [0, 0.0, -1.0])
def test_joints_without_confidence_are_not_seen(confidence: float) -> None:
    (person,) = from_pose_keypoint([frame({"pose_keypoints_2d": flat(BODY, confidence=confidence)})]).frames[0]
    assert not person.seen
    assert not person.body.any()


def test_numbers_may_be_of_any_kind() -> None:
    body = flat(BODY)
    expected = from_pose_keypoint([frame({"pose_keypoints_2d": body})])
    for kind in (tuple, np.array, np.float32, np.float64, lambda values: [int(v) for v in values]):
        assert_same(from_pose_keypoint([frame({"pose_keypoints_2d": kind(body)})]), expected)


def test_absent_and_empty_parts_are_not_seen() -> None:
    for raw in ({}, dict.fromkeys(KEYS.values()), {key: [] for key in KEYS.values()}):
        (person,) = from_pose_keypoint([frame(raw)]).frames[0]
        assert not person.seen
        assert {name: len(points) for name, points in person.groups().items()} == COUNTS


def test_a_frame_without_people_may_be_null_or_empty() -> None:
    assert from_pose_keypoint([frame(), {**frame(), "people": None}]).frames == [[], []]


def test_a_single_frame_needs_no_list() -> None:
    assert_same(from_pose_keypoint(frame({})), from_pose_keypoint([frame({})]))


@pytest.mark.parametrize("size", [(480, 832), (1, 350), (96, 64)])
def test_fractions_of_the_canvas_become_pixels(size: tuple[int, int]) -> None:
    height, width = size
    rng = np.random.default_rng(1)
    fractions = rng.uniform(0, 1, (BODY, 3)).astype(np.float32)
    fractions[5] = 0
    raw = {"pose_keypoints_2d": fractions.reshape(-1).tolist()}
    sequence = from_pose_keypoint([frame(raw, width=width, height=height)])
    scale = (width, height, 1) if min(size) > 4 else (1, 1, 1)
    np.testing.assert_allclose(sequence.frames[0][0].body, fractions * np.float32(scale), rtol=1e-6)


def test_fractions_may_lie_outside_the_canvas() -> None:
    body = flat(BODY, 0.1, 0.1)
    body[0::3] = np.linspace(-0.5, 1.9, BODY).tolist()
    body[1::3] = np.linspace(1.5, -0.2, BODY).tolist()
    sequence = from_pose_keypoint([frame({"pose_keypoints_2d": body}, width=400, height=300)])
    np.testing.assert_allclose(sequence.frames[0][0].body[:, :2], np.float32(body).reshape(-1, 3)[:, :2] * (400, 300), rtol=1e-6)


def fractions(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform((0, 0, 0.5), (1, 1, 1), (BODY, 3)).astype(np.float32)


@pytest.mark.parametrize(("joint", "at"), [(10, (0.4, 2.05)), (13, (-3, 0.5)), (0, (300, 200)), (4, (9e5, -9e5))])
def test_a_stray_joint_does_not_make_pixels_of_fractions(joint: int, at: tuple[float, float]) -> None:
    points = fractions()
    points[joint, :2] = at
    (person,) = from_pose_keypoint([frame({"pose_keypoints_2d": points.reshape(-1).tolist()})]).frames[0]
    expected = points * np.float32((832, 480, 1))
    if np.abs(expected).max() > FARTHEST:
        expected[joint] = 0
    np.testing.assert_allclose(person.body, expected, rtol=1e-6)


@pytest.mark.parametrize("corner", [(0, 0, 1), (1.2, 0.4, 0.1)])
def test_joints_in_the_corner_do_not_make_fractions_of_pixels(corner: tuple[float, float, float]) -> None:
    """Most of them, as what was not found is written by some: what is at 0 tells nothing, and what is unsure little."""
    points = np.float32(flat(BODY, 60, 80)).reshape(-1, 3)
    points[5:] = corner
    (person,) = from_pose_keypoint([frame({"pose_keypoints_2d": points.reshape(-1).tolist()})]).frames[0]
    np.testing.assert_array_equal(person.body, points)


@pytest.mark.parametrize("size", [(480, 832), (5, 5), (1, 350)])
def test_what_we_wrote_is_never_taken_for_fractions(size: tuple[int, int]) -> None:
    """Somebody tiny in the corner, alone and beside a frame of another writer's in fractions."""
    tiny = PoseSequence([[Person(body=fractions(seed) * 1.9) for seed in (1, 2)], []], *size)
    ours = json.loads(json.dumps(to_pose_keypoint(tiny)))
    assert_same(from_pose_keypoint(ours), tiny)
    theirs = frame({"pose_keypoints_2d": fractions(3).reshape(-1).tolist()}, height=size[0], width=size[1])
    mixed = from_pose_keypoint([*ours, theirs])
    assert_same(mixed[:2], tiny)
    scale = size[::-1] if min(size) > 4 else (1, 1)
    np.testing.assert_allclose(mixed.frames[2][0].body[:, :2], fractions(3)[:, :2] * scale, rtol=1e-6)


@pytest.mark.parametrize("unit", [None, "", "fractions", 1, ["pixels"], np.array(["pixels", "x"]), {"a": 1}])
def test_another_word_about_the_unit_is_none(unit: Any) -> None:
    said = {**frame({"pose_keypoints_2d": fractions().reshape(-1).tolist()}), "coordinates": unit}
    (person,) = from_pose_keypoint([said]).frames[0]
    np.testing.assert_allclose(person.body, fractions() * np.float32((832, 480, 1)), rtol=1e-6)


MALFORMED: list[tuple[str, Any, tuple[str, ...]]] = [
    ("not a list", 5, ("int", "list with one dict per frame")),
    ("text", "poses", ("str", "list with one dict per frame")),
    ("nothing", None, ("NoneType",)),
    ("a dict of something else", {"frames": []}, ("dict", "list with one dict per frame")),
    ("zero frames", [], ("zero frames",)),
    ("a frame that is a list", [frame(), []], ("frame 1", "people, canvas_width, canvas_height")),
    ("no people", [{"canvas_width": 4, "canvas_height": 4}], ("frame 0", "people")),
    ("no canvas", [frame(), {"people": []}], ("frame 1", "canvas_width", "whole numbers")),
    ("a canvas of text", [frame(width="wide")], ("frame 0", "canvas_width", "whole numbers")),
    ("a canvas of null", [frame(height=None)], ("frame 0", "canvas_height", "whole numbers")),
    ("a canvas of NaN", [frame(height=math.nan)], ("frame 0", "canvas_height", "whole numbers")),
    ("an infinite canvas", [frame(height=math.inf)], ("frame 0", "canvas_height", "whole numbers")),
    ("an empty canvas", [frame(height=0)], ("frame 0", "832x0", "positive")),
    ("a negative canvas", [frame(width=-5)], ("frame 0", "-5x480", "positive")),
    ("a vast canvas", [frame(width=10**400)], ("frame 0", "beyond 1000000 pixels", "expected the picture's size")),
    ("canvases that differ", [frame(), frame(width=640)], ("2 different canvas sizes", "640", "832")),
    ("people that are a number", [{**frame(), "people": 3}], ("frame 0", "people", "int")),
    ("people that are a dict", [{**frame(), "people": {"a": {}}}], ("frame 0", "people", "dict")),
    ("a person that is a list", [frame(), frame({}, [])], ("frame 1, person 1", "list", "expected a dict")),
]
for name, key in KEYS.items():
    n = 3 * COUNTS[name]
    where = ("frame 1, person 1", key)
    for case, value, said in [
        ("too long", [1.0] * (n + 3), (f"got {n + 3} numbers", f"expected {n}")),
        ("too short", [1.0] * (n - 1), (f"got {n - 1} numbers", f"expected {n}")),
        ("a number", 7, ("int", "flat list")),
        ("text", "1 2 3", ("str", "flat list")),
        ("a dict", {"0": 1}, ("dict", "flat list")),
        ("of text", ["1"] * n, ("not a number",)),
        ("of lists", [[1, 2, 3]] * n, ("not a number",)),
        ("of vast numbers", [10**400] * n, ("hundreds of digits", "expected pixels")),
    ]:
        MALFORMED.append((f"{key}: {case}", [frame(), frame({}, {key: value})], where + said))


@pytest.mark.parametrize(("data", "said"), [m[1:] for m in MALFORMED], ids=[m[0] for m in MALFORMED])
def test_malformed_data_is_refused_by_name(data: Any, said: tuple[str, ...]) -> None:
    with pytest.raises(PoseFormatError) as caught:
        from_pose_keypoint(data)
    for text in said:
        assert text in str(caught.value)


def test_other_skeletons_are_named_in_the_error() -> None:
    with pytest.raises(
        PoseFormatError, match=re.escape("OpenPose-25 and other layouts must be converted to OpenPose-18")
    ):
        from_pose_keypoint([frame({"pose_keypoints_2d": [1.0] * 75})])


def test_absent_face_and_hands_are_written_as_zeros() -> None:
    sequence = PoseSequence([[Person(body=np.ones((BODY, 3), np.float32) * 9)]], 100, 100)
    (written,) = to_pose_keypoint(sequence)[0]["people"]
    assert written[KEYS["body"]] == [9.0] * 54
    for name in ("face", "left_hand", "right_hand"):
        assert written[KEYS[name]] == [0.0] * 3 * COUNTS[name]


def test_a_torn_pose_file_is_called_what_the_help_page_calls_it(tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text("[{")
    page = (Path(__file__).resolve().parents[2] / "web" / "docs" / "DreamActorLoadPoses.md").read_text("utf-8")
    with pytest.raises(PoseFormatError, match=r"torn\.json cannot be read as JSON"):
        read_pose_file(tmp_path / "torn.json")
    assert "- **cannot be read as JSON**" in page


def test_what_is_not_seen_takes_little_memory() -> None:
    """Clips of thousands of frames: the numbers of a group are one, as an object."""
    points = np.ones((BODY, 3), np.float32)
    points[:, 2] = 0
    (written,) = to_pose_keypoint(PoseSequence([[Person(body=points)]], 100, 100))[0]["people"]
    assert all(len({id(value) for value in values}) == 1 for values in written.values())
    assert all(type(value) is float and value == 0 for values in written.values() for value in values)


def with_ids(*rows: list[Any]) -> list[dict[str, Any]]:
    """A frame for each row, in it somebody with each id; "none" is without the key."""
    person = {"pose_keypoints_2d": flat(BODY)}
    return [frame(*[person if who == "none" else {"person_id": who, **person} for who in row]) for row in rows]


@pytest.mark.parametrize(
    ("rows", "tracked"),
    [
        ([[[0], [1]], [[0], [1]]], True),
        ([[0, 1], [0], [], [0, 1]], True),
        ([[[7], [3]], [[7], [3]]], True),
        ([["none", "none"]], False),
        ([[[0], "none"]], False),
        ([[[-1], [-1]]], False),
        ([[-1]], False),
        ([[[0], [1]], [[1], [0]]], False),
        ([[[0], [0]]], False),
        ([[[0]], [[1]]], False),
        ([[[True]]], False),
        ([[[]]], False),
        ([["x"]], False),
        ([[None]], False),
        ([[{"a": 1}]], False),
        ([[], []], False),
    ],
)
def test_ids_of_people_say_whether_they_were_followed(rows: list[list[Any]], tracked: bool) -> None:
    """Only where each has one place, which is nobody else's; what no id is, is no error."""
    sequence = from_pose_keypoint(with_ids(*rows))
    assert sequence.tracked == tracked
    for same in (sequence[:1], sequence[[0]], sequence.fitted(50, 50), sequence.cropped(50, 50), sequence.without("face")):
        assert same.tracked == tracked
    written = [person.get("person_id") for one in to_pose_keypoint(sequence) for person in one["people"]]
    assert written == [[k] if tracked else None for row in rows for k in range(len(row))]


SIZES = [(960, 1664), (480, 832), (96, 64), (832, 480), (333, 777)]


def scaled_about_the_middle(
    sequence: PoseSequence, moved: PoseSequence, scale: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of every group of points: where the seen ones belong, where they are, and the unseen ones."""
    middle = np.array([sequence.width, sequence.height]) / 2, np.array([moved.width, moved.height]) / 2
    for people, twins in zip(sequence.frames, moved.frames, strict=True):
        for person, twin in zip(people, twins, strict=True):
            for name, points in person.groups().items():
                seen, found = points[:, 2] > 0, getattr(twin, name)
                yield (points[seen, :2] - middle[0]) * scale + middle[1], found[seen, :2], found[~seen]


@pytest.mark.parametrize("size", SIZES)
def test_cropping_covers_the_canvas_evenly(size: tuple[int, int]) -> None:
    sequence = random_sequence(3)
    cropped = sequence.cropped(*size)
    assert (cropped.height, cropped.width) == size
    scale = max(size[0] / 480, size[1] / 832)
    for expected, found, unseen in scaled_about_the_middle(sequence, cropped, scale):
        shown = ((expected >= 0) & (expected <= size[::-1])).all(1)
        # whole pixels of the source are cut off on both sides
        np.testing.assert_allclose(found[shown], expected[shown], atol=0.51 * scale)
        assert not unseen.any()


@pytest.mark.parametrize("size", [(480, 832), (832, 480), (16, 8192), (8192, 16)])
def test_something_is_left_of_the_thinnest_canvas(size: tuple[int, int]) -> None:
    for height, width in itertools.product(range(1, 10), repeat=2):
        body = np.zeros((BODY, 3))
        body[:2] = [[width / 2, height / 2, 1], [width / 2 + 0.5, height / 2 + 0.5, 1]]
        ((person,),) = from_body_joints(body[None], height, width).cropped(*size).frames
        np.testing.assert_allclose(person.body[0, :2] * 2, size[::-1], rtol=1e-5, err_msg="the middle is another one")
        assert (person.body[1, :2] <= np.array(size[::-1]) * (1 + 1e-5)).all(), f"less than a pixel of {width}x{height} is left"


@pytest.mark.parametrize("size", SIZES)
def test_fitting_is_a_centred_similarity(size: tuple[int, int]) -> None:
    sequence = random_sequence(3)
    fitted = sequence.fitted(*size)
    assert (fitted.height, fitted.width) == size
    for expected, found, unseen in scaled_about_the_middle(sequence, fitted, min(size[0] / 480, size[1] / 832)):
        np.testing.assert_allclose(found, expected, atol=2e-3)
        assert not unseen.any()
        assert ((found >= -1e-3) & (found <= max(size) + 1e-3)).all()


@pytest.mark.parametrize("factor", [0.125, 0.5, 3])
def test_fitting_there_and_back(factor: float) -> None:
    sequence = random_sequence(4)
    there = sequence.fitted(int(480 * factor), int(832 * factor))
    assert_same(there.fitted(480, 832), sequence, atol=1e-3)


def test_indexing_keeps_the_canvas_and_the_frames() -> None:
    sequence = random_sequence(5)
    assert sequence[1:3].frames == sequence.frames[1:3]
    assert sequence[[3, 0, 0]].frames == [sequence.frames[3], sequence.frames[0], sequence.frames[0]]
    assert (sequence[:1].height, sequence[:1].width) == (480, 832)


@pytest.mark.parametrize("left_out", [("face",), ("left_hand", "right_hand"), ("face", "left_hand", "right_hand"), ()])
def test_groups_can_be_left_out(left_out: tuple[str, ...]) -> None:
    sequence = random_sequence(6, (2,))
    for person, bare in zip(sequence.frames[0], sequence.without(*left_out).frames[0], strict=True):
        for name, points in person.groups().items():
            np.testing.assert_array_equal(getattr(bare, name), points * (name not in left_out))


def test_body_joints_become_one_person_a_frame() -> None:
    joints = np.random.default_rng(0).uniform(1, 60, (5, BODY, 3))
    sequence = from_body_joints(joints, 96, 64)
    assert (len(sequence), sequence.height, sequence.width) == (5, 96, 64)
    for t, (person,) in enumerate(sequence.frames):
        np.testing.assert_array_equal(person.body, joints[t].astype(np.float32))
        assert not person.face.any()


@pytest.mark.parametrize("seed", range(3))
def test_in_a_mirror_the_left_is_the_right(seed: int) -> None:
    sequence = random_sequence(seed)
    mirrored = sequence.mirrored()
    for people, others in zip(sequence.frames, mirrored.frames, strict=True):
        for person, other in zip(people, others, strict=True):
            seen = person.left_hand[:, 2] > 0
            np.testing.assert_allclose(other.right_hand[seen, 0], 832 - person.left_hand[seen, 0], atol=1e-3)
            assert np.array_equal(other.right_hand[:, 1:], person.left_hand[:, 1:]) and not other.right_hand[~seen].any()
            assert np.array_equal(other.body[[2, 3, 4, 14], 1:], person.body[[5, 6, 7, 15], 1:])
    assert_same(mirrored.mirrored(), sequence, atol=1e-3)


def test_who_faces_us_looks_the_same_in_a_mirror() -> None:
    """Of the most frontal of real faces, each of the 70 points comes to lie where it was: within a 20th of the eyes' distance."""
    data = json.loads((Path(__file__).parents[1] / "data" / "drives" / "toon_dancer.json").read_text("utf-8"))
    sequence = from_pose_keypoint(data["frames"])
    off = []
    for people, others in zip(sequence.frames, sequence.mirrored().frames, strict=True):
        for face, other in zip((p.face for p in people), (p.face for p in others), strict=True):
            if (face[:, 2] > 0).all() and (eyes := np.linalg.norm(face[36, :2] - face[45, :2])) > 5:
                nose = slice(27, 31)
                off.append(np.linalg.norm((face - face[nose].mean(0) - other + other[nose].mean(0))[:, :2], axis=1) / eyes)
    assert min(off, key=np.mean).max() < 0.05

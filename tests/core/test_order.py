"""Person k stays person k, in lists that extractors write anew for every frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dreamactor_core.augment import scale_bones
from dreamactor_core.order import in_steady_order
from dreamactor_core.poses import Person, PoseSequence, from_pose_keypoint, to_pose_keypoint
from dreamactor_core.retarget import retarget
from dreamactor_core.smoothing import smooth

DRIVES = Path(__file__).resolve().parents[1] / "data" / "drives"


def drive(name: str) -> list[Person]:
    frames = from_pose_keypoint(json.loads((DRIVES / f"{name}.json").read_text("utf-8"))["frames"]).frames
    return [people[0] for people in frames if people]


def standing(x: float, mark: float, height: float = 160.0) -> Person:
    """Somebody whose neck is at x, and who is known by the confidence of the nose."""
    rng = np.random.default_rng(7)
    body = np.ones((18, 3), np.float32)
    body[:, 0], body[:, 1] = x + rng.uniform(-25, 25, 18), 200 + np.linspace(-height / 2, height / 2, 18)
    body[1, 0], body[0, 2] = x, mark
    return Person(body=body)


def clip(*rows: Sequence[Person | None]) -> PoseSequence:
    """Rows of one person each, None where unseen; who is unseen is not in the list."""
    return PoseSequence([[p for p in people if p is not None] for people in zip(*rows, strict=True)], 400, 800)


def shuffled(sequence: PoseSequence, seed: int) -> PoseSequence:
    rng = np.random.default_rng(seed)
    frames = [[people[i] for i in rng.permutation(len(people))] for people in sequence.frames]
    frames[0] = sequence.frames[0]
    return PoseSequence(frames, sequence.height, sequence.width)


def marks(sequence: PoseSequence, who: int) -> set[float]:
    return {round(float(people[who].body[0, 2]), 2) for people in sequence.frames if who < len(people) and people[who].seen}


def crossing(speed: float, hidden: int = 0) -> list[list[Person | None]]:
    """Two who cross, known as 0.5 and 0.9; for some frames the second is hidden by the first."""
    half = round(250 / speed)
    one = [standing(400 + speed * (t - half), 0.5) for t in range(2 * half)]
    other = [None if abs(t - half) < hidden / 2 else standing(400 - speed * (t - half), 0.9, 150) for t in range(2 * half)]
    return [list(one), other]


@pytest.mark.parametrize("speed", [3, 8, 20])
@pytest.mark.parametrize("hidden", [0, 1, 4])
@pytest.mark.parametrize("seed", range(3))
def test_two_who_cross_in_a_list_of_any_order(speed: float, hidden: int, seed: int) -> None:
    after = in_steady_order(shuffled(clip(*crossing(speed, hidden)), seed))
    assert max(map(len, after.frames)) == 2
    assert marks(after, 0) == {0.5}
    assert marks(after, 1) == {0.9}


def test_who_is_lost_leaves_a_place_free() -> None:
    left, right = [standing(200, 0.5)] * 20, [standing(500, 0.9)] * 20
    gone: list[Person | None] = [None if 5 <= t < 9 else person for t, person in enumerate(left)]
    after = in_steady_order(clip(gone, right))
    assert (marks(after, 0), marks(after, 1)) == ({0.5}, {0.9})
    assert [people[0].seen for people in after.frames] == [not 5 <= t < 9 for t in range(20)]


def test_who_comes_in_first_in_the_list_takes_no_place() -> None:
    new: list[Person | None] = [None if t < 6 else standing(650, 0.7) for t in range(20)]
    after = in_steady_order(clip(new, [standing(200, 0.5)] * 20, [standing(400, 0.9)] * 20))
    assert [marks(after, who) for who in range(3)] == [{0.5}, {0.9}, {0.7}]
    assert [len(people) for people in after.frames] == [2] * 6 + [3] * 14


@pytest.mark.parametrize("speed", [3, 8, 20, 50])
def test_a_list_that_is_in_order_is_left_alone(speed: float) -> None:
    """As Pose Extract writes it, the unseen with zeros: also where two meet and turn back, as only their looks tell."""
    one, other = crossing(speed, 5)
    half = len(one) // 2
    turned = [*one[:half], *one[half:0:-1]], [*other[:half], *other[half:0:-1]]
    for rows in ([one, other], [list(row) for row in turned], [one, [None] * 5 + other[5:]]):
        sequence = PoseSequence([[p or Person() for p in people] for people in zip(*rows, strict=True)], 400, 800)
        assert in_steady_order(sequence) is sequence


def test_one_at_a_time_is_one_person() -> None:
    first: list[Person | None] = [standing(100, 0.5) if t < 10 else None for t in range(20)]
    then: list[Person | None] = [None if t < 12 else standing(600, 0.9) for t in range(20)]
    rows = zip(first, then, strict=True)
    after = in_steady_order(PoseSequence([[p or Person() for p in people] for people in rows], 400, 800))
    assert [len(people) for people in after.frames] == [1] * 10 + [0] * 2 + [1] * 8
    single = clip(first)
    assert in_steady_order(single) is single


def test_after_a_cut_the_nearest_ones_go_on() -> None:
    before = [standing(120, 0.5)] * 10, [standing(300, 0.9)] * 10
    after = in_steady_order(shuffled(clip([*before[0], *[standing(500, 0.6)] * 10], [*before[1], *[standing(690, 0.8)] * 10]), 2))
    assert [len(people) for people in after.frames] == [2] * 20
    assert [len(marks(after, who)) for who in (0, 1)] == [2, 2]


@pytest.mark.parametrize("edit", ["smooth", "augment", "retarget"])
def test_whoever_takes_the_place_for_the_person_does_the_same_for_a_list_of_any_order(edit: str) -> None:
    one, two = drive("dancer")[:30], drive("toon_dancer")[:30]
    rows = [[p.mapped((1, 1), (x, 0)) for p in row] for row, x in ((one, 0), (two, 260))]
    sequence = clip(*rows)
    mixed = in_steady_order(shuffled(sequence, 4))
    done = {
        "smooth": smooth,
        "augment": lambda s: scale_bones(s, np.random.default_rng(1), share=1),
        "retarget": lambda s: retarget(s, sequence[:1]),
    }[edit]
    for people, twins in zip(done(sequence).frames, done(mixed).frames, strict=True):
        for person, twin in zip(people, twins, strict=True):
            np.testing.assert_array_equal(person.body, twin.body)


def test_faces_and_hands_without_a_body_are_kept() -> None:
    hand = Person(left_hand=np.full((21, 3), 50, np.float32))
    sequence = PoseSequence([[standing(300, 0.5), hand], [hand, standing(302, 0.5)], [Person()], []], 400, 800)
    after = in_steady_order(sequence)
    assert [len(people) for people in after.frames] == [2, 2, 0, 0]
    assert all(people[1] is hand for people in after.frames[:2])


ONE, TWO, THREE = 0.5, 0.7, 0.9


def rows_of(sequence: PoseSequence) -> list[list[float]]:
    """Who is at which place, frame by frame."""
    return [[round(float(person.body[0, 2]), 2) for person in people] for people in sequence.frames]


def test_who_was_followed_across_a_cut_is_not_put_in_another_order() -> None:
    """By place alone, whoever is nearest after the cut is the same; Pose Extract has seen their looks."""
    frames = [[standing(100, ONE), standing(600, TWO)]] * 3 + [[standing(600, ONE), standing(100, TWO)]] * 3
    followed = PoseSequence(frames, 400, 800, tracked=True)
    assert in_steady_order(followed) is followed
    again = from_pose_keypoint(json.loads(json.dumps(to_pose_keypoint(followed))))
    assert rows_of(in_steady_order(again)) == [[ONE, TWO]] * 6
    for edited in (smooth(again), retarget(again, again[:1]), scale_bones(again, np.random.default_rng(1), share=1)):
        (left, _), (right, _) = (edited.frames[t] for t in (0, 5))
        assert right.body[1, 0] - left.body[1, 0] > 400
        assert edited.tracked, "the next node must not undo it either"
    unknown = PoseSequence(frames, 400, 800)
    assert rows_of(in_steady_order(unknown)) == [[ONE, TWO]] * 3 + [[TWO, ONE]] * 3
    assert "person_id" not in to_pose_keypoint(unknown)[0]["people"][0]


@pytest.mark.parametrize("gap", [1, 4, 20])
def test_a_frame_that_loses_people_does_not_change_their_places(gap: int) -> None:
    one, two, three = standing(100, ONE), standing(350, TWO), standing(600, THREE)
    lost = PoseSequence([*[[one, two]] * 3, *[[]] * gap, *[[two, one]] * 3], 400, 800)
    assert [marks(in_steady_order(lost), who) for who in range(2)] == [{ONE}, {TWO}]
    fewer = PoseSequence([*[[one, two, three]] * 3, *[[one]] * gap, *[[one, three, two]] * 3], 400, 800)
    assert [marks(in_steady_order(fewer), who) for who in range(3)] == [{ONE}, {TWO}, {THREE}]


@pytest.mark.parametrize("blink", [1, 2])
@pytest.mark.parametrize("at", [3, 30, 36])
def test_a_mistake_of_the_detector_is_nobody_after_a_cut(at: int, blink: int) -> None:
    """A ghost for a frame or two, where somebody stands after the cut."""
    before, after = [standing(120, ONE), standing(300, THREE)], [standing(500, ONE), standing(690, THREE)]
    frames = [list(before) for _ in range(40)] + [list(after) for _ in range(10)]
    frames[1].reverse()
    for t in range(at, at + blink):
        frames[t].append(standing(505, TWO))
    order = in_steady_order(PoseSequence(frames, 400, 800))
    assert [marks(order, who) for who in range(3)] == [{ONE}, {THREE}, {TWO}]
    assert [sum(people[who].seen for people in order.frames) for who in range(2)] == [50, 50]


@pytest.mark.parametrize("edit", ["smooth", "augment", "retarget"])
def test_an_edit_can_be_stopped_between_people(edit: str) -> None:
    sequence = PoseSequence([[standing(100, ONE), standing(350, TWO), standing(600, THREE)]] * 4, 400, 800)
    done: list[tuple[int, int]] = []

    def stop(count: int, of: int) -> None:
        done.append((count, of))
        if count == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        {
            "smooth": lambda: smooth(sequence, 3, stop),
            "augment": lambda: scale_bones(sequence, np.random.default_rng(1), share=1, progress=stop),
            "retarget": lambda: retarget(sequence, sequence[:1], 0, stop),
        }[edit]()
    assert done == [(0, 3), (1, 3)]


def test_who_just_came_in_stays_when_another_leaves() -> None:
    """Two sightings are few, and no cut."""
    frames = [[standing(120, ONE), standing(300, TWO)] for _ in range(20)]
    frames[1].reverse()
    frames += [[standing(120, ONE), standing(600, THREE)]] + [[standing(600, THREE)] for _ in range(10)]
    order = in_steady_order(PoseSequence(frames, 400, 800))
    assert [marks(order, who) for who in range(3)] == [{ONE}, {TWO}, {THREE}]

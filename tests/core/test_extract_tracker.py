"""Person k stays person k: crossings, losses, entries, and what is not a person at all."""

from __future__ import annotations

import numpy as np
import pytest

from dreamactor_core.extract.tracker import Detection, Tracker, looks, unlikeness

RED, BLUE, GREEN = 0, 1, 2
W, H = 60.0, 160.0


def seen(x: float, colour: int, y: float = 200.0, height: float = H, noise: float = 0.0) -> Detection:
    """Somebody whose middle is at x, y; their name is in the joints."""
    box = np.array([x - W / 2, y - height / 2, x + W / 2, y + height / 2])
    colours = np.full(64, noise / 64)
    colours[[colour * 7, colour * 7 + 1]] += (1 - noise) / 2
    return Detection(box, np.full((1, 3), float(colour)), colours)


def names(tracker: Tracker, most: int = 10) -> list[list[int | None]]:
    """For each person of the list, who they are in each frame."""
    return [
        [int(track.seen[t].joints[0, 0]) if t in track.seen else None for t in range(tracker.frames)]
        for track in tracker.people(most)
    ]


def follow(frames: list[list[Detection]], patience: int = 30) -> Tracker:
    tracker = Tracker(patience)
    for detections in frames:
        tracker.add(detections)
    return tracker


def is_one(row: list[int | None], colour: int) -> bool:
    return {name for name in row if name is not None} == {colour}


@pytest.mark.parametrize("speed", [4, 9, 15])
@pytest.mark.parametrize("hidden", [0, 3, 8])
def test_two_who_cross(speed: int, hidden: int) -> None:
    """For some frames the one behind is not found; detections come in any order."""
    rng = np.random.default_rng(speed + hidden)
    half = 300 // speed
    frames = []
    for t in range(2 * half):
        away = speed * (t - half)
        people = [seen(320 + away, RED), seen(320 - away, BLUE)]
        if abs(t - half) <= hidden / 2 and hidden:
            people = people[:1]
        frames.append([people[i] for i in rng.permutation(len(people))])
    rows = names(follow(frames))
    assert len(rows) == 2
    assert is_one(rows[0], RED), "who is further left at first comes first"
    assert is_one(rows[1], BLUE)


def test_two_in_the_same_clothes_cross_by_their_motion() -> None:
    frames = [[seen(100 + 10 * t, RED), seen(500 - 10 * t, RED)] for t in range(41)]
    for t in (19, 20, 21):
        frames[t] = frames[t][:1]
    tracker = follow(frames)
    first, second = tracker.people(4)
    assert [first.seen[t].box[0] + W / 2 for t in (0, 40)] == [100, 500]
    assert [second.seen[t].box[0] + W / 2 for t in (0, 40)] == [500, 100]


def test_two_who_meet_and_turn_back_are_told_by_their_looks() -> None:
    frames = []
    for t in range(60):
        near = 20 + 8 * abs(t - 30)
        frames.append([seen(320 - near, RED), seen(320 + near, BLUE)] if abs(t - 30) > 3 else [seen(320, RED)])
    rows = names(follow(frames))
    assert [is_one(row, colour) for row, colour in zip(rows, (RED, BLUE), strict=True)] == [True, True]


def test_three_who_cross_at_once() -> None:
    frames = []
    for t in range(61):
        people = [seen(100 + 7 * t, RED), seen(520 - 7 * t, BLUE), seen(310, GREEN, y=200 + 0.5 * t)]
        frames.append(people[:2] if abs(t - 30) < 4 else people)
    rows = names(follow(frames))
    assert [is_one(row, colour) for row, colour in zip(rows, (RED, GREEN, BLUE), strict=True)] == [True] * 3


@pytest.mark.parametrize("gap", [1, 5, 12, 29])
def test_a_short_loss(gap: int) -> None:
    frames = [[seen(100 + 3 * t, RED), seen(500, BLUE)] for t in range(80)]
    for t in range(20, 20 + gap):
        frames[t] = frames[t][1:]
    red, blue = names(follow(frames))
    assert is_one(red, RED)
    assert red.count(None) == gap
    assert all(name is None for name in red[20 : 20 + gap])
    assert blue == [BLUE] * 80


def test_the_only_one_is_one_person_whatever_happens() -> None:
    """Unseen for long, in another place after a cut, dressed otherwise: there is nobody else whose motion it could be."""
    assert len(names(follow([[seen(100, RED)] if not 20 <= t < 40 else [] for t in range(60)], patience=19))) == 1
    (row,) = names(follow([[seen(100 if t < 20 else 260, RED)] for t in range(40)]))
    assert row == [RED] * 40
    (row,) = names(follow([[seen(100, RED)] if t < 20 else [] if t < 30 else [seen(100, BLUE)] for t in range(60)]))
    assert row == [RED] * 20 + [None] * 10 + [BLUE] * 30
    blink = [[seen(100 if t < 20 else 260, RED), *([seen(500, GREEN)] if t in (4, 5) else [])] for t in range(40)]
    assert names(follow(blink)) == [[RED] * 40], "a mistake of the detector is nobody else"


@pytest.mark.parametrize("gap", [0, 40])
def test_who_comes_back_among_others_is_told_by_looks(gap: int) -> None:
    """After a cut, or an absence beyond patience; whoever looks like nobody is new."""
    first = [[seen(100, RED), seen(300, BLUE), seen(500, RED)] for _ in range(20)]
    then = [[seen(620, RED), seen(200, BLUE), seen(400, RED), seen(800, GREEN)] for _ in range(20)]
    tracker = follow([*first, *[[]] * gap, *then])
    rows = names(tracker)
    assert [sum(name is not None for name in row) for row in rows] == [40, 40, 40, 20]
    assert [is_one(row, colour) for row, colour in zip(rows, (RED, BLUE, RED, GREEN), strict=True)] == [True] * 4
    left, _, right, _ = tracker.people(10)
    last = tracker.frames - 1
    assert left.seen[last].box[0] < right.seen[last].box[0], "of those who look the same, the nearest"
    assert [track.appearances for track in tracker.people(10)] == [2, 2, 2, 1]


def test_who_looks_different_afterwards_is_a_new_person() -> None:
    frames = [[seen(500, GREEN)] for _ in range(60)]
    for t in range(60):
        frames[t] += [seen(100, RED)] if t < 20 else [] if t < 30 else [seen(100, BLUE)]
    red, green, blue = names(follow(frames))
    assert is_one(red, RED)
    assert is_one(blue, BLUE)
    assert green == [GREEN] * 60


FAST = [100, 900, 300, 1100, 500, 1300, 700, 1500]  # more than a body from frame to frame: nobody can be followed by places


@pytest.mark.parametrize("colours", [[RED] * 8, [RED, BLUE, GREEN, BLUE, RED, GREEN, BLUE, GREEN]])
def test_the_only_one_in_every_frame_is_there_however_far_apart(colours: list[int]) -> None:
    """Fast motion at a low rate, or stills, also of several people."""
    frames = [[seen(x, colour)] for x, colour in zip(FAST, colours, strict=True)]
    assert names(follow(frames)) == [colours]
    for stray in (3, 5):
        (row,) = names(follow([[*one, *([seen(2000, 6)] if t == stray else [])] for t, one in enumerate(frames)]))
        known = [None if t == stray and colours != [RED] * 8 else colour for t, colour in enumerate(colours)]
        assert row == known, "where two are seen, and neither looks like anybody, nothing tells who is no mistake"


def test_who_moves_fast_among_others_is_told_by_looks() -> None:
    frames = [[seen(x, RED), seen(1600 - x, BLUE, y=1000), seen(400, GREEN, y=600)] for x in FAST]
    assert names(follow([people[::-1] for people in frames])) == [[RED] * 8, [GREEN] * 8, [BLUE] * 8]
    walks = [[seen(100 + 4 * t, RED), seen(400, GREEN, y=600)] for t in range(20)]
    for t, x in ((8, 900), (9, 1500)):
        walks[t][0] = seen(x, RED)
    assert names(follow(walks, patience=0)) == [[RED] * 20, [GREEN] * 20], "two frames between two tracks of the same person"


def test_mistakes_here_and_there_are_nobody_though_they_look_the_same() -> None:
    frames = [[seen(300, RED)] for _ in range(60)]
    for t, x in ((5, 900), (20, 1500), (21, 600), (34, 2000), (50, 1200)):
        frames[t].append(seen(x, BLUE))
    assert names(follow(frames, patience=5)) == [[RED] * 60]
    assert names(follow([[seen(100, RED)], *[[]] * 6, [seen(100, RED)]])) == [], "two frames of many"


def test_who_comes_in_later_comes_later_in_the_list_and_who_leaves_stays() -> None:
    frames = [[seen(300, RED)] for _ in range(40)]
    for t in range(10, 25):
        frames[t].insert(0, seen(60, BLUE))  # further left, and first in its frames
    red, blue = names(follow(frames))
    assert red == [RED] * 40
    assert blue == [None] * 10 + [BLUE] * 15 + [None] * 15


def test_the_longest_seen_of_a_size_are_kept_and_blinks_are_no_people() -> None:
    frames = [[seen(300, RED)] for _ in range(40)]
    for t in range(5, 25):
        frames[t].append(seen(60, BLUE))
    for t in range(30, 33):
        frames[t].append(seen(560, GREEN))
    for t in (8, 9):
        frames[t].append(seen(560, GREEN))
    tracker = follow(frames, patience=5)
    assert [sum(name is not None for name in row) for row in names(tracker)] == [40, 20, 3]
    assert [is_one(row, colour) for row, colour in zip(names(tracker, 2), (RED, BLUE), strict=True)] == [True, True]
    single = follow([[seen(300, RED), seen(60, BLUE)]])
    assert names(single) == [[BLUE], [RED]], "of a single picture everybody is kept, from the left"


@pytest.mark.parametrize("missed", [0, 3])
def test_the_most_prominent_is_kept_before_who_stands_small_behind(missed: int) -> None:
    """The small one is found in every frame, and first: a detector is surer of whom it sees whole."""
    frames = [[seen(60, BLUE, height=H / 4), seen(300, RED)] for _ in range(20)]
    for t in range(5, 5 + missed):
        frames[t].pop()
    (kept,) = names(follow(frames), 1)
    assert is_one(kept, RED)


def test_who_passes_close_by_is_not_the_most_prominent() -> None:
    frames = [[seen(300, RED)] for _ in range(40)]
    for t in range(10, 16):
        frames[t].append(seen(60, BLUE, height=3 * H))
    (kept,) = names(follow(frames), 1)
    assert is_one(kept, RED)


def test_what_covers_somebody_is_not_taken_for_their_looks() -> None:
    """One stands half behind the other for long, and shows the other's colours; then is hidden, and comes out elsewhere."""
    frames = [[seen(200, RED), seen(400, BLUE)] for _ in range(5)]
    covered = Detection(seen(225, BLUE).box, seen(225, BLUE).joints, seen(200, RED).looks)
    frames += [[seen(200, RED), seen(400 - 175 * t / 40, BLUE)] for t in range(40)]
    frames += [[seen(200, RED), covered] for _ in range(60)]
    frames += [[seen(200, RED)] for _ in range(10)]
    frames += [[seen(200, RED), seen(290, BLUE)] for _ in range(10)]
    red, blue = names(follow(frames))
    assert is_one(red, RED)
    assert is_one(blue, BLUE)


def test_jitter_and_a_changing_size() -> None:
    rng = np.random.default_rng(3)
    frames = [
        [
            seen(200 + rng.normal(0, 6), RED, height=H * rng.uniform(0.8, 1.2), noise=0.3),
            seen(275 + rng.normal(0, 6), BLUE, height=H * rng.uniform(0.8, 1.2), noise=0.3),
        ]
        for _ in range(100)
    ]
    red, blue = names(follow(frames))
    assert red == [RED] * 100
    assert blue == [BLUE] * 100


def test_looks_are_the_colours_of_the_middle() -> None:
    frame = np.zeros((100, 100, 3), np.uint8)
    frame[:, :50] = (255, 0, 0)
    frame[:, 50:] = (0, 0, 255)
    left, right = looks(frame, np.array([0, 0, 40, 100.0])), looks(frame, np.array([60, 0, 100, 100.0]))
    assert left.sum() == pytest.approx(1)
    assert unlikeness(left, left) == pytest.approx(0)
    assert unlikeness(left, right) == 1
    assert unlikeness(looks(frame, np.array([0, 0, 100, 100.0])), left) == pytest.approx(1 - 0.5**0.5)
    outside = looks(frame, np.array([200, 200, 240, 300.0]))
    assert outside.sum() == pytest.approx(1)


def test_frames_without_anybody() -> None:
    tracker = follow([[], [], []])
    assert (tracker.frames, tracker.people(4)) == (3, [])


def test_of_two_who_look_much_the_same_each_is_told_by_looks_after_a_cut() -> None:
    """They change sides: the other one is nearer, and alike enough to be somebody who was away."""

    def dressed(x: float, who: int) -> Detection:
        box, joints = seen(x, who).box, seen(x, who).joints
        colours = np.zeros(64)
        colours[[0, 10 + who]] = 0.81, 0.19
        return Detection(box, joints, colours)

    assert unlikeness(dressed(0, RED).looks, dressed(0, BLUE).looks) == pytest.approx(0.19)
    before, after = [dressed(100, RED), dressed(600, BLUE)], [dressed(250, BLUE), dressed(750, RED)]
    rows = names(follow([before] * 20 + [after] * 20))
    assert rows == [[RED] * 40, [BLUE] * 40]

"""Whole clips through networks whose answer is known: frames in, people with their places in the list out."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from marker_networks import DOG, Drawn, dot_network, draw, person, rectangle_detector

from dreamactor_core.extract.catalogue import MODELS, PoseModel
from dreamactor_core.extract.errors import ExtractError, NobodyError
from dreamactor_core.extract.extractor import PREVIEW_SIDE, PREVIEWS, Extracted, Extractor
from dreamactor_core.extract.joints import JOINTS, from_coco_wholebody
from dreamactor_core.extract.session import load
from dreamactor_core.poses import Person

Make = Callable[..., Extractor]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """An extractor of small networks, of the layout of a model of the catalogue."""
    folder, number = tmp_path_factory.mktemp("networks"), itertools.count()

    def build(
        name: str, side: int = 320, size: tuple[int, int] = (256, 192), threshold: float = 0.5, least: float = 0.3, most: int = 8
    ) -> Extractor:
        model: PoseModel = MODELS[name]
        made = next(number)
        kinds = [DOG] * 6 if name == "animal" else None
        peak = 0.9 * 10 / model.beta
        boxes = rectangle_detector(folder / f"boxes_{made}.onnx", side, kinds=kinds, packed=name == "rtmw")
        dots = dot_network(folder / f"dots_{made}.onnx", JOINTS[model.layout], size, (peak, peak))
        return Extractor(model, load(boxes, "cpu"), load(dots, "cpu"), threshold, least, most)

    return build


def moved(one: Drawn, x: int, y: int = 0) -> Drawn:
    x0, y0, x1, y1 = one.box
    return Drawn((x0 + x, y0 + y, x1 + x, y1 + y), one.dots + (x, y), one.colour, one.radius)


def run(extractor: Extractor, clip: list[list[Drawn]], height: int = 320, width: int = 640) -> Extracted:
    return extractor((draw(height, width, people) for people in clip), len(clip), 24.0)


def middle(one: Person) -> np.ndarray:
    seen = one.body[one.body[:, 2] > 0]
    return seen[:, :2].mean(0)


@pytest.mark.parametrize(("name", "size"), [("dwpose", (384, 288)), ("dwpose", (256, 192)), ("rtmw", (384, 288))])
def test_whole_bodies_at_their_places(make: Make, name: str, size: tuple[int, int]) -> None:
    left, right = person((40, 20, 260, 300), colour=1, seed=1), person((370, 10, 600, 310), colour=3, seed=2)
    result = run(make(name, 640, size), [[right, left]])
    assert (result.poses.height, result.poses.width) == (320, 640)
    found = result.poses.frames[0]
    assert len(found) == 2
    for got, drawn in zip(found, (left, right), strict=True):
        truth = np.concatenate([drawn.dots, np.full((133, 1), 0.9)], 1)
        for name_, points in from_coco_wholebody(truth).groups().items():
            assert np.abs(got.groups()[name_][:, :2] - points[:, :2]).max() <= 1, name_
            np.testing.assert_allclose(got.groups()[name_][:, 2], 0.9, atol=1e-3)


def test_animals(make: Make) -> None:
    dog = person((100, 60, 400, 260), 17, radius=8)
    (found,) = run(make("animal", size=(256, 256)), [[dog]]).poses.frames[0]
    np.testing.assert_allclose(found.body[0, :2], dog.dots[2], atol=1)  # the nose
    np.testing.assert_allclose(found.body[4, :2], dog.dots[10], atol=1)  # the right fore paw, as a wrist
    assert not found.body[16:].any()
    assert not found.face.any()


def test_people_are_no_animals_and_animals_no_people(make: Make) -> None:
    clip = [[person((100, 60, 400, 260), 17, radius=8)]]
    extractor = make("animal", size=(256, 256))
    extractor._detect._classes = MODELS["dwpose"].classes
    with pytest.raises(ExtractError, match="nobody was found in any of the 1 frames"):
        run(extractor, clip)


@pytest.mark.parametrize("swapped", [False, True])
def test_two_cross_one_behind_the_other(make: Make, swapped: bool) -> None:
    """The one behind is hidden in part, then wholly, then in part again."""
    one, two = person((20, 80, 120, 280), 17, 0, 6, 1), person((520, 80, 620, 280), 17, 1, 6, 2)
    clip = [[moved(one, 12 * t), moved(two, -12 * t)][:: -1 if swapped else 1] for t in range(42)]
    result = run(make("animal", size=(256, 256)), clip)
    assert len(result.seen) == 2
    assert all(len(people) == 2 for people in result.poses.frames)
    first, last = result.poses.frames[0], result.poses.frames[-1]
    assert [round(float(middle(p)[0])) < 320 for p in first] == [True, False]
    assert [round(float(middle(p)[0])) < 320 for p in last] == [False, True]
    hidden = result.seen[0 if not swapped else 1]
    assert 30 <= hidden < 42, "the one behind is lost for some frames"
    assert result.seen[1 if not swapped else 0] == 42


def test_lost_entering_and_leaving(make: Make) -> None:
    stays, comes = person((40, 60, 240, 300), 17, 0, 7, 1), person((400, 60, 600, 300), 17, 2, 7, 2)
    clip = [[stays] * (not 10 <= t < 14) + [comes] * (6 <= t < 20) for t in range(24)]
    result = run(make("animal", size=(256, 256)), clip)
    assert result.seen == [20, 14]
    assert result.poses.tracked
    for t, people in enumerate(result.poses.frames):
        assert [p.seen for p in people] == [not 10 <= t < 14, 6 <= t < 20], t
        for got, drawn in zip(people, (stays, comes), strict=True):
            if got.seen:
                np.testing.assert_allclose(got.body[0, :2], drawn.dots[2], atol=1)


def test_at_most_so_many_people(make: Make) -> None:
    crowd = [person((10 + 160 * k, 60, 150 + 160 * k, 180 + 30 * k), 17, k, 5, k) for k in range(4)]
    result = run(make("animal", size=(256, 256), most=2), [crowd] * 8)
    assert [int(middle(p)[0] // 160) for p in result.poses.frames[3]] == [2, 3], "the largest"


def test_one_person_who_is_gone_for_long_or_cut_to_is_one_person(make: Make) -> None:
    """26 unseen frames at 24 a second, then a jump of more than a body."""
    one = person((40, 60, 240, 260), 17, 0, 7, 1)
    clip = [[one]] * 10 + [[]] * 26 + [[one]] * 10 + [[moved(one, 330)]] * 10
    result = run(make("animal", size=(256, 256)), clip)
    assert (result.seen, result.joined, result.left_out, result.at_once) == ([30], 2, 0, 1)
    assert [people[0].seen for people in result.poses.frames] == [bool(row) for row in clip]


@pytest.mark.parametrize("colours", [[1] * 8, [0, 1, 2, 3, 4, 1, 0, 3]])
def test_the_only_one_is_found_in_every_frame_however_far_they_jump(make: Make, colours: list[int]) -> None:
    """Fast motion at a low rate, and stills of one person each: nobody is in one place for two frames."""
    places = [(20, 30), (440, 180), (220, 30), (20, 180), (440, 30), (220, 180), (440, 30), (20, 180)]
    clip = [[person((x, y, x + 120, y + 130), 17, colour, 5, 1)] for (x, y), colour in zip(places, colours, strict=True)]
    result = run(make("animal", size=(256, 256)), clip)
    assert (result.seen, result.left_out) == ([8], 0)
    for people, (drawn,) in zip(result.poses.frames, clip, strict=True):
        np.testing.assert_allclose(people[0].body[0, :2], drawn.dots[2], atol=1)


def test_who_is_left_out_as_a_mistake_is_not_called_unsure(make: Make) -> None:
    pair = [person((x, 60, x + 140, 240), 17, k, 6, k) for k, x in enumerate((20, 400))]
    apart = [[], pair, [], [], [], pair, [], []]
    with pytest.raises(NobodyError) as caught:
        run(make("animal", size=(256, 256)), apart)
    assert "boxes in 2, but none that goes on for 3 frames: they are taken for mistakes of the detector" in str(caught.value)
    assert "min_confidence" not in str(caught.value)
    assert run(make("animal", size=(256, 256)), apart[:6]).seen == [2, 2], "of so few nothing is left out"


def test_two_in_turn_are_not_one_who_jumps(make: Make) -> None:
    """With room for one in the list: now the one, now the other is the larger."""
    far, near = (10, 60, 150, 200), (400, 60, 560, 220)
    small = [person(box, 17, colour, 5, colour) for colour, box in enumerate((far, near))]
    large = [person((*box[:2], box[2] + 40, box[3] + 40), 17, colour, 5, colour) for colour, box in enumerate((far, near))]
    clip = [[large[0], small[1]] if t % 8 < 5 else [small[0], large[1]] for t in range(16)]
    result = run(make("animal", size=(256, 256), most=1), clip)
    assert (result.seen, result.left_out) == ([16], 1)
    assert {middle(people[0])[0] > 320 for people in result.poses.frames} == {True}, "the larger over all frames"


def test_joints_that_are_not_sure_enough_are_not_seen(make: Make) -> None:
    clip = [[person((100, 60, 400, 260), 17, radius=8)]]
    assert run(make("animal", size=(256, 256), least=0.85), clip).poses.frames[0][0].seen
    with pytest.raises(ExtractError, match=r"there are boxes, but no joint in them has a confidence of 0\.95.*lower min_conf"):
        run(make("animal", size=(256, 256), least=0.95), clip)


def test_nobody_is_an_error_that_says_what_to_do(make: Make) -> None:
    with pytest.raises(ExtractError, match=r"nobody .* any of the 3 frames \(no box has a score above 0\.5\).*lower detection_t"):
        run(make("animal"), [[]] * 3)


def test_some_frames_may_be_empty(make: Make) -> None:
    one = person((100, 60, 400, 260), 17, radius=8)
    result = run(make("animal", size=(256, 256)), [[], [one], [one], [], [one]])
    assert [people[0].seen for people in result.poses.frames] == [False, True, True, False, True]


def test_zero_frames_and_frames_of_two_sizes(make: Make) -> None:
    extractor = make("animal")
    with pytest.raises(ExtractError, match="got zero frames, expected at least one"):
        extractor(iter(()), 0)
    with pytest.raises(ExtractError, match=r"frame 1 is 64x32, expected 32x32 as the first; re-encode"):
        extractor(iter([draw(32, 32, []), draw(32, 64, [])]), 2)


def test_the_preview_is_small_and_shows_the_skeleton_on_the_frame(make: Make) -> None:
    one = person((200, 100, 1000, 900), 17, radius=20)
    frame = draw(1000, 2000, [one])
    result = make("animal", size=(256, 256))((frame for _ in range(100)), 100)
    assert result.preview.shape == (PREVIEWS, PREVIEW_SIDE // 2, PREVIEW_SIDE, 3)
    assert result.preview.dtype == np.uint8
    picture = result.preview[0]
    box = [round(side * PREVIEW_SIDE / 2000) for side in one.box]
    inside = picture[box[1] + 2 : box[3] - 2, box[0] + 2 : box[2] - 2].reshape(-1, 3)
    dimmed = np.array([120, 30, 60]) // 2
    assert (np.abs(inside.astype(int) - dimmed).max(1) <= 2).mean() > 0.3, "the frame is there, darker"
    nose = (one.dots[2] * PREVIEW_SIDE / 2000).astype(int)
    assert tuple(picture[nose[1], nose[0]]) == (255, 0, 0), "OpenPose's colour of the nose"
    assert result.poses.frames[0][0].seen


def test_a_frame_shown_twice_is_looked_at_once(make: Make) -> None:
    frame = draw(320, 640, [person((100, 60, 400, 260), 17, radius=8)])
    extractor = make("animal", size=(256, 256))
    calls = []
    looked = extractor.detections
    extractor.detections = lambda given: calls.append(1) or looked(given)
    result = extractor(iter([frame] * 5 + [frame.copy()]), 6)
    assert len(calls) == 2
    assert len(result.poses) == 6


def test_progress_is_told_and_may_stop_it(make: Make) -> None:
    told: list[tuple[int, int]] = []

    def stop(done: int, of: int) -> None:
        told.append((done, of))
        if done == 3:
            raise KeyboardInterrupt

    frame = draw(320, 640, [person((100, 60, 400, 260), 17, radius=8)])
    with pytest.raises(KeyboardInterrupt):
        make("animal", size=(256, 256))((frame.copy() for _ in range(10)), 10, None, stop)
    assert told == [(1, 10), (2, 10), (3, 10)]


def test_3000_frames_are_never_in_memory_together(make: Make) -> None:
    extractor = make("animal", 32, (32, 32))
    base = draw(128, 128, [person((20, 20, 110, 110), 17, radius=6)])
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal most
        for _ in range(3000):
            frame = base.copy()
            alive.append(weakref.ref(frame))
            alive[:] = [one for one in alive if one() is not None]
            most = max(most, len(alive))
            yield frame

    result = extractor(frames(), 3000, 30.0)
    assert result.seen == [3000]
    assert most <= 3
    assert result.preview.nbytes <= PREVIEWS * base.nbytes

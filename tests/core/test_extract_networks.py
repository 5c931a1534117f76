"""From a picture to boxes and joints, through networks whose answer is known: feeding, cropping and reading, to a pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from marker_networks import DOG, PEOPLE, Drawn, dot_network, draw, person, rectangle_detector

from dreamactor_core.extract.catalogue import ANIMALS, PERSON
from dreamactor_core.extract.detector import Boxes, Detector, intersection_over_union, keep_best, letterbox
from dreamactor_core.extract.errors import ExtractError
from dreamactor_core.extract.pose_network import Crop, PoseNetwork, decode
from dreamactor_core.extract.session import load

SIZES = [(640, 640), (480, 832), (832, 480), (360, 640), (1080, 1920), (1080, 607), (97, 211), (300, 300)]
"""Heights and widths of frames: the input's own size, wide, tall, large, odd, small."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(scope="module")
def detector(folder: Path) -> Detector:
    return Detector(load(rectangle_detector(folder / "raw.onnx"), "cpu"), PERSON, 640)


@pytest.fixture(scope="module")
def packed(folder: Path) -> Detector:
    return Detector(load(rectangle_detector(folder / "packed.onnx", packed=True), "cpu"), PERSON, 640)


@pytest.fixture(scope="module")
def estimator(folder: Path) -> Callable[..., PoseNetwork]:
    made: dict[tuple, PoseNetwork] = {}

    def get(joints: int, size: tuple[int, int], beta: float = 10.0, **options: object) -> PoseNetwork:
        key = (joints, size, beta, *options.items())
        if key not in made:
            path = dot_network(folder / f"dots_{len(made)}.onnx", joints, size, **options)
            made[key] = PoseNetwork(load(path, "cpu"), joints, size, beta)
        return made[key]

    return get


def in_shares(size: tuple[int, int], *shares: float) -> tuple[int, int, int, int]:
    """A box given in shares of the frame's sides."""
    height, width = size
    return tuple(round(share * side) for share, side in zip(shares, (width, height, width, height), strict=True))


@pytest.mark.parametrize("which", ["detector", "packed"])
@pytest.mark.parametrize("size", SIZES)
def test_boxes_lie_where_the_rectangles_are(size: tuple[int, int], which: str, request: pytest.FixtureRequest) -> None:
    detect: Detector = request.getfixturevalue(which)
    boxes = [in_shares(size, 0.05, 0.1, 0.3, 0.9), in_shares(size, 0.4, 0.3, 0.55, 0.95), in_shares(size, 0.7, 0, 1, 0.5)]
    frame = draw(*size, [Drawn(box, np.zeros((0, 2)), k) for k, box in enumerate(boxes)])
    found = detect(frame, 0.5, 10)
    assert len(found) == 3
    corners = found.corners[np.argsort(found.corners[:, 0])]
    # a pixel of the input is this many of the frame, and an edge may fall anywhere in one
    pixel = max(1.0, max(size) / 640)
    assert np.abs(corners - boxes).max() <= pixel, corners
    np.testing.assert_allclose(found.scores, 0.9, rtol=1e-5)


@pytest.mark.parametrize("scale", [1, 2])
def test_boxes_are_exact_where_edges_are(detector: Detector, scale: int) -> None:
    box = (100 * scale, 60 * scale, 222 * scale, 318 * scale)
    found = detector(draw(360 * scale, 640 * scale, [Drawn(box, np.zeros((0, 2)))]), 0.5, 10)
    np.testing.assert_allclose(found.corners, [box], atol=1e-3)


def test_the_letterbox_is_grey_and_at_the_top_left() -> None:
    frame = np.full((30, 60, 3), 7, np.uint8)
    canvas, scale = letterbox(frame, 64, 64)
    assert scale == (64 / 60, 32 / 30)
    assert (canvas[:32] == 7).all()
    assert (canvas[32:] == 114).all()


def test_only_the_wanted_classes_are_found(folder: Path) -> None:
    path = rectangle_detector(folder / "zoo.onnx", kinds=[0, DOG, 15, 0, 2, 14], scores=[0.9, 0.8, 0.7, 0.6, 0.9, 0.4])
    network = load(path, "cpu")
    spots = [Drawn((20 + 100 * k, 50, 90 + 100 * k, 300), np.zeros((0, 2)), k) for k in range(6)]
    frame = draw(640, 640, spots)
    found = Detector(network, PERSON, 640)(frame, 0.5, 10)
    assert found.corners[:, 0].round().tolist() == [20, 320]
    found = Detector(network, ANIMALS, 640)(frame, 0.5, 10)
    assert found.corners[:, 0].round().tolist() == [120, 220], "cat and dog; the bird is not sure enough, the car no animal"
    assert len(Detector(network, ANIMALS, 640)(frame, 0.3, 10)) == 3


def test_the_largest_are_taken(detector: Detector) -> None:
    spots = [Drawn((20 + 100 * k, 50, 90 + 100 * k, 100 + 60 * k), np.zeros((0, 2)), k) for k in range(4)]
    found = detector(draw(640, 640, spots), 0.5, 2)
    assert sorted(found.corners[:, 0].round().tolist()) == [220, 320]


def test_one_box_for_what_two_cover() -> None:
    corners = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, np.nan, 10], [5, 5, 5, 9]], float)
    kept = keep_best(Boxes(corners, np.array([0.6, 0.8, 0.7, 0.9, 0.9])), 0.5)
    assert kept.corners[:, 0].tolist() == [1, 20]
    assert intersection_over_union(corners[0], corners[1]) == pytest.approx(9 / 11)
    assert len(keep_best(Boxes(np.zeros((0, 4)), np.zeros(0)), 0.5)) == 0


@pytest.mark.parametrize("seed", range(3))
def test_of_any_crowd_the_surest_boxes_stay(seed: int) -> None:
    """By its definition: a box stays unless one that stays, and is surer, covers it."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 300, (200, 2))
    boxes = Boxes(np.concatenate([corners, corners + rng.uniform(20, 120, (200, 2))], 1), rng.permutation(200) / 200)
    stay: list[int] = []
    for i in np.argsort(-boxes.scores):
        if boxes.scores[i] > 0.1 and all(intersection_over_union(boxes.corners[i], boxes.corners[k]) <= 0.45 for k in stay):
            stay.append(int(i))
    kept = keep_best(boxes, 0.1)
    np.testing.assert_array_equal(kept.corners, boxes.corners[stay])
    np.testing.assert_array_equal(kept.scores, boxes.scores[stay])


def test_thousands_of_boxes_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a threshold of nothing: 8,400 cells, no two of which cover each other. Comparisons are counted, not seconds."""
    compared: list[int] = []

    def counted(some: np.ndarray, other: np.ndarray) -> np.ndarray:
        compared.append(len(some))
        return intersection_over_union(some, other)

    monkeypatch.setattr("dreamactor_core.extract.detector.intersection_over_union", counted)
    y, x = np.mgrid[:84, :100].reshape(2, -1) * 10.0
    boxes = Boxes(np.stack([x, y, x + 9, y + 9], 1), np.linspace(1, 0.1, 8400))
    kept = keep_best(boxes, 0.0)
    assert len(compared) <= 1000 and sum(compared) <= 1000**2 / 2, "of 8,400 each with each it would be 35 millions"
    np.testing.assert_array_equal(kept.scores, boxes.scores[:1000])


@pytest.mark.parametrize(("joints", "size"), [(133, (384, 288)), (133, (256, 192)), (17, (256, 256))])
@pytest.mark.parametrize("shape", [(100, 60, 400, 470), (10, 20, 560, 330), (3, 0, 300, 400)])
def test_joints_lie_where_the_dots_are(
    estimator: Callable[..., PoseNetwork], joints: int, size: tuple[int, int], shape: tuple[int, int, int, int]
) -> None:
    """DWPose's and RTMW's large input, their small one, and AP-10K's; tall, wide and at the edge of the frame."""
    drawn = person(shape, joints, radius=5, seed=joints)
    frame = draw(480, 600, [drawn])
    found = estimator(joints, size)(frame, np.array(shape, float))
    pixel = Crop.around(np.array(shape, float), *size).scale
    np.testing.assert_allclose(found[:, :2], drawn.dots, atol=max(0.5, 0.6 * pixel))
    np.testing.assert_allclose(found[:, 2], 0.9, atol=1e-3)


@pytest.mark.parametrize("frame_size", SIZES)
def test_joints_are_found_at_any_size_of_frame(estimator: Callable[..., PoseNetwork], frame_size: tuple[int, int]) -> None:
    box = in_shares(frame_size, 0.2, 0.05, 0.85, 0.95)
    radius = max(2, min(box[2] - box[0], box[3] - box[1]) // 18)
    drawn = person(box, 17, radius=radius)
    found = estimator(17, (256, 256))(draw(*frame_size, [drawn]), np.array(box, float))
    pixel = Crop.around(np.array(box, float), 256, 256).scale
    np.testing.assert_allclose(found[:, :2], drawn.dots, atol=max(0.5, 0.6 * pixel))


def test_a_box_that_leaves_the_frame(estimator: Callable[..., PoseNetwork]) -> None:
    """The crop is black outside; joints in the frame are found, those outside are not."""
    drawn = person((-120, 20, 180, 380), 17, radius=6)
    found = estimator(17, (256, 256))(draw(400, 300, [drawn]), np.array([-120, 20, 180, 380], float))
    inside = (drawn.dots > 8).all(1)
    assert 3 < inside.sum() < 17
    np.testing.assert_allclose(found[inside, :2], drawn.dots[inside], atol=0.9)
    assert not found[(drawn.dots < -8).any(1)].any()


def test_a_hidden_joint_is_not_found(estimator: Callable[..., PoseNetwork]) -> None:
    drawn = person((40, 40, 300, 360), 17, radius=6)
    drawn.dots[[2, 11]] = np.nan
    found = estimator(17, (256, 256))(draw(400, 400, [drawn]), np.array(drawn.box, float))
    assert np.flatnonzero(found[:, 2] == 0).tolist() == [2, 11]
    assert not found[[2, 11]].any()


def test_confidence_is_that_of_the_less_sure_axis_on_one_scale(estimator: Callable[..., PoseNetwork]) -> None:
    drawn = person((40, 40, 300, 360), 17, radius=6)
    frame, box = draw(400, 400, [drawn]), np.array(drawn.box, float)
    for beta, peaks, expected in ((10.0, (0.8, 0.5), 0.5), (1.0, (6.0, 4.0), 0.4), (10.0, (1.1, 1.2), 1.0), (10.0, (-0.1, 0.5), 0)):
        found = estimator(17, (256, 256), beta, peaks=peaks)(frame, box)
        np.testing.assert_allclose(found[:, 2], expected, atol=1e-3)


def test_nan_in_an_answer_is_a_joint_not_found(estimator: Callable[..., PoseNetwork]) -> None:
    drawn = person((40, 40, 300, 360), 17, radius=6)
    found = estimator(17, (256, 256), poison=True)(draw(400, 400, [drawn]), np.array(drawn.box, float))
    assert not found[0].any()
    assert np.isfinite(found).all()
    assert (found[1:, 2] > 0.8).all()


def test_bins_are_shares_of_the_input() -> None:
    by_x, by_y = np.zeros((2, 40)), np.zeros((2, 60))
    by_x[0, 10], by_x[1, 39], by_y[0, 30], by_y[1, 0] = 1, 1, 0.5, 0.7
    points, peaks = decode(by_x, by_y, height=30, width=20)
    assert points.tolist() == [[5, 15], [19.5, 0]]
    assert peaks.tolist() == [0.5, 0.7]


def test_a_file_that_leaves_its_size_open_is_fed_as_the_catalogue_says(folder: Path) -> None:
    network = load(dot_network(folder / "open.onnx", 17, (256, 256), open_size=True), "cpu")
    assert network.size is None
    drawn = person((40, 40, 300, 360), 17, radius=6)
    found = PoseNetwork(network, 17, (256, 256), 10.0)(draw(400, 400, [drawn]), np.array(drawn.box, float))
    np.testing.assert_allclose(found[:, :2], drawn.dots, atol=0.9)


def test_another_network_than_expected(folder: Path, detector: Detector) -> None:
    frame = draw(64, 64, [])
    dots = load(dot_network(folder / "small_dots.onnx", 17, (64, 64)), "cpu")
    with pytest.raises(ExtractError, match=r"small_dots\.onnx gave .*expected a YOLOX detector.*get it again"):
        Detector(dots, PERSON, 64)(frame, 0.5, 4)
    with pytest.raises(ExtractError, match=r"small_dots\.onnx gave .*of 133 joints.*get it again"):
        PoseNetwork(dots, 133, (64, 64), 10.0)(frame, np.array([0, 0, 64, 64.0]))
    boxes = load(rectangle_detector(folder / "small_boxes.onnx", 64), "cpu")
    with pytest.raises(ExtractError, match=r"small_boxes\.onnx gave .*expected scores along x and along y of 17 joints"):
        PoseNetwork(boxes, 17, (64, 64), 10.0)(frame, np.array([0, 0, 64, 64.0]))
    assert len(PEOPLE) == len(set(PEOPLE))


@dataclass
class Listener:
    """A network that notes what it is fed and finds nothing."""

    size: tuple[int, int]
    joints: int = 17
    path: Path = Path("listener.onnx")
    fed: list[np.ndarray] = field(default_factory=list)

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        self.fed.append(image)
        return [np.zeros((1, self.joints, 2 * side), np.float32) for side in self.size[::-1]]


def test_the_pose_network_is_fed_rgb_less_mean_by_deviation() -> None:
    listener = Listener((64, 48))
    frame = np.full((200, 100, 3), (250, 100, 10), np.uint8)
    PoseNetwork(listener, 17, (64, 48), 10.0)(frame, np.array([30, 60, 60, 100.0]))
    (fed,) = listener.fed
    assert fed.shape == (64, 48, 3)
    expected = [(250 - 123.675) / 58.395, (100 - 116.28) / 57.12, (10 - 103.53) / 57.375]
    np.testing.assert_allclose(fed.reshape(-1, 3), np.tile(expected, (64 * 48, 1)), atol=1e-5)


@pytest.mark.parametrize("box", [(40, 20, 80, 140), (20, 60, 140, 90), (30, 30, 90, 110)])
def test_a_crop_is_the_box_and_a_quarter_around_its_middle(box: tuple[float, ...]) -> None:
    corners = np.array(box, float)
    crop = Crop.around(corners, 64, 48)
    ends = crop.to_frame(np.array([[0, 0], [48, 64.0]]))
    np.testing.assert_allclose(ends.mean(0), (corners[:2] + corners[2:]) / 2)
    larger = (ends[1] - ends[0]) / (corners[2:] - corners[:2])
    assert larger.min() == pytest.approx(1.25), "the tighter side has the margin and no more"
    assert crop.scale == pytest.approx((ends[1] - ends[0])[0] / 48)
    frame = np.random.default_rng(0).integers(0, 255, (160, 160, 3), np.uint8)
    cut = crop.cut(frame, 64, 48)
    for p in ((10, 20), (24, 32), (40, 50)):
        x, y = crop.to_frame(np.array([p], float))[0]
        if 0 <= x < 159 and 0 <= y < 159:
            i, j, a, b = int(y), int(x), y % 1, x % 1
            near = frame[i : i + 2, j : j + 2].astype(float)
            mixed = near[0, 0] * (1 - a) * (1 - b) + near[0, 1] * (1 - a) * b + near[1, 0] * a * (1 - b) + near[1, 1] * a * b
            np.testing.assert_allclose(cut[p[1], p[0]], mixed, atol=6)  # OpenCV rounds positions to 1/32 pixel

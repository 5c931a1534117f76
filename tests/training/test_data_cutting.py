"""Clips are cut so that nothing is stretched or lost, and poses lie on the pictures that they belong to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import data_videos as videos

from dreamactor_core.poses import from_body_joints
from training import backbones
from training.config import MULTIPLE, Backbone, BackboneName, Config, from_values, validated
from training.data.cutting import Window, choose_size, cut, lengths
from training.data.dropping import Drop
from training.errors import UserError
from training.video import ClipEncoder

SIZES = ((832, 480), (480, 832), (624, 624))


def config(least: int, most: int, frames: int = 121, lead_in: float = 1.0) -> Config:
    clip = {"fps": 16, "frames": frames, "lead_in": lead_in, "sizes": SIZES}
    data = {"min_frames": least, "max_frames": most}
    return validated({"out": Path("x"), "clip": clip, "backbone": {"name": "marionette"}, "data": data}, "the test")


@pytest.mark.parametrize(
    ("least", "most", "frames", "expected"),
    [
        (49, 121, 121, [121, 113, 97, 81, 65, 49]),
        (49, 121, 81, [81, 65, 49]),
        (50, 80, 121, [77, 69, 53]),
        (25, 25, 25, [25]),
    ],
)
def test_lengths_are_few_and_4n_1(least: int, most: int, frames: int, expected: list[int]) -> None:
    assert lengths(config(least, most, frames)) == expected


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (config(49, 121, 33), "min_frames is 49, and the longest clip has 33 frames .* lower data.min_frames to 33"),
        (config(50, 52), "expected|lower"),
        (config(13, 121, lead_in=1.0), "lead-in of 16 frames"),
    ],
)
def test_lengths_that_cannot_be(made: Config, message: str) -> None:
    with pytest.raises(UserError, match=message):
        lengths(made)


def test_every_frame_is_in_one_piece_and_no_clip_crosses_a_cut() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        count = int(rng.integers(1, 900))
        starts = sorted({0, *rng.integers(0, count, rng.integers(0, 6)).tolist()})
        pieces = list(cut(starts, count, [121, 113, 97, 81, 65, 49]))
        assert [begin for begin, *_ in pieces] == [0, *(stop for _, stop, _ in pieces[:-1])] and pieces[-1][1] == count
        for begin, stop, whole in pieces:
            assert not any(begin < start < stop for start in starts)
            assert (stop - begin in (121, 113, 97, 81, 65, 49)) if whole else stop - begin < 49


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(1080, 1920, (480, 832)), (1920, 1080, (832, 480)), (720, 720, (624, 624)), (900, 1000, (624, 624)), (480, 832, (480, 832))],
)
def test_a_source_goes_to_the_size_of_the_nearest_shape(height: int, width: int, expected: tuple[int, int]) -> None:
    window = choose_size(height, width, SIZES, 1.25)
    assert (window.height, window.width) == expected


def test_small_sources_are_dropped_or_go_to_a_smaller_size_of_their_shape() -> None:
    with pytest.raises(Drop, match=r"640x360, for 832x480 they would be enlarged 1.33 times, expected at most 1.25"):
        choose_size(360, 640, SIZES, 1.25)
    assert choose_size(360, 640, SIZES, 1.4).width == 832
    assert choose_size(360, 640, (*SIZES, (416, 240)), 1.25).width == 416
    assert choose_size(720, 1280, (*SIZES, (416, 240)), 1.25).width == 832


@pytest.mark.parametrize("source", [(300, 200), (200, 300), (123, 457), (96, 64)])
def test_poses_lie_on_the_cropped_picture_and_circles_stay_round(source: tuple[int, int]) -> None:
    height, width = source
    window = Window(source, 96, 64)
    middle = np.array([width * 0.52, height * 0.47])
    y, x = np.mgrid[:height, :width]
    radius = 0.15 * min(source)
    disc = np.hypot(x + 0.5 - middle[0], y + 0.5 - middle[1]) < radius
    picture = np.repeat((disc * 255).astype(np.uint8)[..., None], 3, 2)
    seen = window.picture(picture)
    assert seen.shape == (96, 64, 3)
    weight = seen[..., 0] / 255
    rows, columns = np.mgrid[:96, :64] + 0.5
    centre = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
    # on a canvas of the source's shape, twice as large
    poses = from_body_joints(np.tile([*(2 * middle), 1.0], (1, 18, 1)), 2 * height, 2 * width)
    placed = window.poses(poses)
    assert (placed.height, placed.width) == (96, 64)
    np.testing.assert_allclose(placed.frames[0][0].body[0, :2], centre, atol=0.35)
    assert weight.sum() == pytest.approx(np.pi * (radius * window.scale) ** 2, rel=0.1)
    spread = [np.sqrt(((axis - c) ** 2 * weight).sum() / weight.sum()) for axis, c in ((columns, centre[0]), (rows, centre[1]))]
    assert spread[0] == pytest.approx(spread[1], rel=0.08)


def test_poses_of_another_shape_are_refused() -> None:
    poses = from_body_joints(np.ones((1, 18, 3)), 100, 100)
    with pytest.raises(Drop, match="canvas is 100x100, expected the shape of the video, 64x96"):
        Window((96, 64), 96, 64).poses(poses)


def test_a_clip_file_is_the_same_each_time() -> None:
    """Or a run that is gone on with would not end as an unbroken one."""
    for height, width in ((120, 80), (96, 64), (32, 48)):
        files = set()
        for _ in range(12):
            encoder = ClipEncoder(height, width, 8)
            for frame in videos.moving(17, height, width):
                encoder.add(frame)
            files.add(encoder.finish())
        assert len(files) == 1, (height, width)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip": {"sizes": [[832, 480], [840, 480]]}}, r"clip: .*sizes has 840x480, .* the nearest are 832 and 848"),
        ({"clip": {"sizes": [[480, 0]]}}, "height is 0, the nearest are 16"),
        ({"train": {"timesteps": {"low": 0.9, "high": 0.9}}}, r"train\.timesteps: .*low is 0\.9 and high is 0\.9, expected low"),
        ({"cache": {"augment": {"low": 1.2, "high": 0.8}}}, r"cache\.augment: .*low is 1\.2 and high is 0\.8, expected low"),
    ],
)
def test_what_can_be_known_to_be_wrong_is_said_when_the_file_is_read(change: dict[str, Any], message: str) -> None:
    given = {"preset": "wan2.1_i2v_14b", "out": "x"}
    with pytest.raises(UserError, match=message):
        from_values(given | change, "the test")
    allowed = {"cache": {"augment": {"low": 1.0, "high": 1.0}}, "train": {"timesteps": {"low": 0.9}}}
    assert from_values(given | allowed, "the test").cache.augment.low == 1


@pytest.mark.parametrize("name", get_args(BackboneName))
def test_sizes_are_whole_tokens_of_every_backbone(name: str) -> None:
    settings = Backbone(name=name, expert="low_noise" if name == "wan2.2-i2v-a14b" else "both")
    backbone = backbones.get(settings)
    assert backbone.stride * backbone.patch == MULTIPLE

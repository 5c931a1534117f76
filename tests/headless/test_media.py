"""Pictures, videos, figures and sheets."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from headless.atomic import atomic
from headless.media import MediaError, read_image, read_video, sample_video, write_mp4
from headless.metrics import against_truth, psnr
from headless.sheet import Block, cell_size, contact_sheet, film, fit_picture


def shades(count: int, height: int = 16, width: int = 24) -> np.ndarray:
    """Frames that are told apart by their grey: 10, 20, 30 ..."""
    values = np.arange(1, count + 1, dtype=np.uint8) * 10
    return np.broadcast_to(values[:, None, None, None], (count, height, width, 3)).copy()


def grey(frame: np.ndarray) -> int:
    return round(float(frame.mean()) / 10) * 10


def test_a_video_comes_back(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", shades(7), 12)
    video = read_video(tmp_path / "a.mp4")
    assert video.fps == 12
    assert video.frames.shape == (7, 16, 24, 3)
    assert [grey(frame) for frame in video.frames] == [10, 20, 30, 40, 50, 60, 70]
    assert video.times[3] == 0.25


def test_an_odd_size_can_be_written(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", shades(2, 15, 23), 10)
    assert read_video(tmp_path / "a.mp4").frames.shape == (2, 16, 24, 3)


def test_frames_are_sampled_by_time(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", shades(10), 10)  # frame k is on screen from k/10 to (k+1)/10
    times = [0, 0.05, 0.1, 0.11, 0.35, 0.899, 0.9, 5.0]
    found = [grey(frame) for frame in sample_video(tmp_path / "a.mp4", times)]
    assert found == [10, 10, 20, 20, 40, 90, 100, 100]


def test_large_frames_are_made_smaller(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", shades(2, 64, 128), 10)
    assert sample_video(tmp_path / "a.mp4", [0.0], side=32)[0].shape == (16, 32, 3)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic(target) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_two_at_once_do_not_write_into_each_others_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic(target) as one:
        one.write_text("one")
        with atomic(target) as other:
            other.write_text("other")
        assert target.read_text() == "other" and one.read_text() == "one"
    assert target.read_text() == "one" and [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_no_frames_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(MediaError):
        write_mp4(tmp_path / "a.mp4", [], 10)
    assert not list(tmp_path.iterdir())


def test_a_picture_without_alpha_and_upright(tmp_path: Path) -> None:
    from PIL import Image

    image = Image.new("RGB", (4, 2), (255, 0, 0))
    exif = image.getexif()
    exif[0x0112] = 6  # taken with the camera on its side
    image.save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png").shape == (4, 2, 3)
    Image.new("RGBA", (4, 2), (0, 255, 0, 10)).save(tmp_path / "b.png")
    assert (read_image(tmp_path / "b.png") == (0, 255, 0)).all()


def test_psnr_is_its_formula() -> None:
    assert psnr(np.full((2, 2, 3), 0.5), np.full((2, 2, 3), 0.4)) == pytest.approx(20.0)
    assert psnr(np.ones((2, 2, 3)), np.ones((2, 2, 3))) == math.inf
    assert math.isnan(psnr(np.ones((2, 2, 3)), np.ones((2, 2, 3)), np.zeros((2, 2), bool)))


def test_only_what_moves_counts() -> None:
    reference = np.zeros((4, 4, 3), np.uint8)
    truth = np.zeros((2, 4, 4, 3), np.uint8)
    truth[1, 0, 0] = 255  # one pixel of 32 moves
    good, still = truth.copy(), np.zeros_like(truth)
    good[:, 3, 3] = 10  # an error where nothing moves
    figures = against_truth(good, truth, reference)
    assert figures["moving_fraction"] == 1 / 32
    assert figures["psnr"] == math.inf
    assert math.isfinite(figures["psnr_all"])
    assert figures["psnr_still"] == pytest.approx(0.0)
    figures = against_truth(still, truth, reference)
    assert figures["psnr"] == figures["psnr_still"]
    with pytest.raises(ValueError, match="expected the same"):
        against_truth(good[:1], truth, reference)


def test_small_pictures_grow_in_whole_pixels() -> None:
    checker = np.indices((6, 4)).sum(0)[..., None].repeat(3, -1) % 2 * 255
    height, width = cell_size(checker, 50)
    assert (height, width) == (48, 32)
    grown = fit_picture(checker.astype(np.uint8), height, width)
    assert (grown[::8, ::8] == checker).all()
    assert set(np.unique(grown)) == {0, 255}


def test_pictures_are_letterboxed_never_stretched() -> None:
    fitted = fit_picture(np.full((10, 40, 3), 255, np.uint8), 40, 40)
    rows = np.nonzero(fitted.any(-1).all(1))[0]
    assert (rows[0], rows[-1]) == (15, 24)


def test_sheet_and_film_show_every_row() -> None:
    frames = list(shades(6, 16, 12))
    rows = [("driver", [np.full((9, 9, 3), (250, 0, 0), np.uint8)] * 6), ("result", frames)]
    block = Block("title", np.full((16, 12, 3), (0, 250, 0), np.uint8), rows, [t / 6 for t in range(6)])
    sheet = contact_sheet([block, block], columns=3, cell=32)
    for colour in ((250, 0, 0), (0, 250, 0), (10, 10, 10), (60, 60, 60)):
        assert (sheet == colour).all(-1).sum() >= 2 * 32 * 24 * 0.7, colour
    shown = list(film([block], 12, cell=32, rounds=1))
    assert len(shown) == 12  # six frames a second, shown at twelve
    present = [max(k for k in range(1, 7) if (frame == k * 10).all(-1).sum() >= 32 * 24) for frame in shown]
    assert present == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]

"""Clips in and out of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.errors import UserError
from training.video import read_clip, write_clip


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


@pytest.mark.parametrize("shape", [(7, 96, 64), (1, 33, 17), (3, 8, 8)])
def test_lossless_gives_the_same_pixels_and_bytes(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    frames = noise(*shape)
    for name in ("a.mkv", "b.mkv"):
        write_clip(tmp_path / name, frames, 12)
    assert (read_clip(tmp_path / "a.mkv") == frames).all()
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


def test_lossy_keeps_colours_and_makes_sizes_even(tmp_path: Path) -> None:
    frames = np.full((4, 33, 47, 3), (200, 20, 40), np.uint8)
    write_clip(tmp_path / "a.mp4", frames, 23.976, lossless=False)
    found = read_clip(tmp_path / "a.mp4")
    assert found.shape == (4, 34, 48, 3) and np.abs(found.astype(int) - (200, 20, 40)).max() <= 4


@pytest.mark.parametrize("frames", [noise(0, 8, 8), noise(8, 8), noise(2, 8, 8).astype(np.float32)])
def test_what_is_no_clip_is_refused(tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected RGB uint8"):
        write_clip(tmp_path / "a.mkv", frames, 12)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", [b"", b"no video", None])
def test_a_broken_file_is_told(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "a.mkv").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.mkv"):
        read_clip(tmp_path / "a.mkv")

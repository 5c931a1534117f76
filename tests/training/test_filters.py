"""Filtered copies: other colours, the same shapes at the same places."""

from __future__ import annotations

import numpy as np
import pytest

from training.marionette.filters import FILTERS, filtered
from training.marionette.world import rng_for, sample_scene


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return sample_scene(rng_for("validation", 0, 0), "human").draw()[0]


def copies(frames: np.ndarray) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for seed in range(30):
        copy, name = filtered(frames, np.random.default_rng(seed))
        found.setdefault(name, copy)
    return found


def test_every_filter_is_used_and_keeps_the_clip_s_form(frames: np.ndarray) -> None:
    found = copies(frames)
    assert set(found) == set(FILTERS)
    for copy in found.values():
        assert copy.shape == frames.shape and copy.dtype == np.uint8
        assert np.abs(copy.astype(int) - frames).mean() > 10


def test_the_same_seed_makes_the_same_copy(frames: np.ndarray) -> None:
    one, other = (filtered(frames, np.random.default_rng(5))[0] for _ in range(2))
    assert np.array_equal(one, other)


def test_a_recoloured_copy_keeps_brightness(frames: np.ndarray) -> None:
    copy = copies(frames)["recoloured copy"]
    assert np.abs(copy.max(-1).astype(int) - frames.max(-1)).max() <= 2  # HSV's value, up to rounding


def test_outlines_are_where_colours_change(frames: np.ndarray) -> None:
    copy = copies(frames)["outlines"]
    step = np.abs(np.diff(frames.astype(int), axis=2)).max(-1) > 100
    lit = copy.max(-1) > 30
    beside = lit[:, :, 1:] | lit[:, :, :-1]
    assert beside[step].mean() > 0.95
    assert lit.mean() < 0.4

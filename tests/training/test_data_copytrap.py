"""A driver that is the target in disguise is found out; another character who does the same is not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import data_videos as videos

from training.data import copytrap
from training.data.dropping import Drop
from training.marionette.world import FPS, Scene, rng_for, sample_scene

PLANS = ("human", "cartoon", "quadruped", "bird")
SEEDS = (0, 9)


def scene_of(plan: str, seed: int) -> tuple[Scene, np.random.Generator]:
    rng = rng_for("validation", 11, PLANS.index(plan), seed)
    return sample_scene(rng, plan), rng


def checked(target: np.ndarray, driver: np.ndarray) -> None:
    copytrap.check([copytrap.small(one) for one in target], [copytrap.small(one) for one in driver], FPS)


def encoded(clip: np.ndarray, folder: Path) -> np.ndarray:
    return videos.read(videos.write(folder / "a.mp4", list(clip), FPS, crf="32"))[1]


def cropped(clip: np.ndarray, share: float) -> np.ndarray:
    height, width = (round(side * share) for side in clip.shape[1:3])
    top, left = clip.shape[1] - height, (clip.shape[2] - width) // 3
    return np.ascontiguousarray(clip[:, top : top + height, left : left + width])


def scaled(clip: np.ndarray, factor: float) -> np.ndarray:
    return np.stack([cv2.resize(one, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) for one in clip])


DISGUISES: dict[str, Callable[[np.ndarray, Path], np.ndarray]] = {
    "encoded again": encoded,
    "half the size": lambda clip, _: scaled(clip, 0.5),
    "larger": lambda clip, _: scaled(clip, 2.5),
    "cropped": lambda clip, _: cropped(clip, 0.93),
    "late": lambda clip, _: np.concatenate([clip[:1].repeat(5, 0), clip[:-5]]),
    "early": lambda clip, _: clip[7:],
    "darker": lambda clip, _: (clip * 0.8).astype(np.uint8),
    "all of it": lambda clip, folder: encoded(scaled(cropped(clip, 0.93), 2)[3:], folder),
}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("disguise", DISGUISES)
def test_copies_are_refused(plan: str, disguise: str, tmp_path: Path) -> None:
    for seed in SEEDS:
        clip = scene_of(plan, seed)[0].draw()[0]
        with pytest.raises(Drop, match="shows the target itself") as error:
            checked(clip, DISGUISES[disguise](clip, tmp_path))
        assert error.value.reason == "copy"


@pytest.mark.parametrize("plan", PLANS)
def test_another_character_who_does_the_same_passes(plan: str) -> None:
    for seed in (0, 1, 5):
        scene, rng = scene_of(plan, seed)
        other = scene.with_character(rng, "human" if plan in ("human", "cartoon") else plan)
        target = scene.draw()[0]
        checked(target, other.draw()[0])
        checked(target, other.draw()[0][8:])
        # before the same background it is no copy either
        checked(target, replace(other, background=scene.background).draw()[0])


STILL = [name for name in DISGUISES if name not in ("late", "early")]


@pytest.mark.parametrize("plan", PLANS)
def test_clips_that_hardly_move_are_told_apart_too(plan: str, tmp_path: Path) -> None:
    """All that differs before one background is the character, a small part of a large picture."""
    around = ((0, 0), (48, 48), (48, 48), (0, 0))
    scene, rng = scene_of(plan, 0)
    other = replace(scene.with_character(rng, plan), background=scene.background)
    target, driver = (one.draw()[0][:1].repeat(12, 0) for one in (scene, other))
    checked(target, driver)
    checked(np.pad(target, around, "edge"), np.pad(driver, around, "edge"))
    for disguise in STILL:
        for clip in (target, np.pad(target, around, "edge")):
            with pytest.raises(Drop, match="shows the target itself"):
                checked(clip, DISGUISES[disguise](clip, tmp_path))


def test_how_late_a_copy_is_stands_in_the_reason() -> None:
    clip = scene_of("human", 0)[0].draw()[0]
    with pytest.raises(Drop, match=r"0\.50 s early"):
        checked(clip, clip[6:])
    with pytest.raises(Drop, match=r"0\.50 s late"):
        checked(clip[6:], clip)

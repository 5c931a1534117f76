"""Drawn samples are those that their indices mean, lossless, and go on where they were."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import data_videos as videos

from dreamactor_core.poses import from_pose_keypoint, read_pose_file
from training import manifest
from training.config import Config, load, validated
from training.data import build
from training.data.video import look_through, read, readers
from training.data.world import Shape, scenes
from training.errors import UserError
from training.marionette.world import FRAMES, HEIGHT, LEAD_IN, WIDTH


def config(out: Path, clip: dict[str, object] | None = None, workers: int = 1, **world: object) -> Config:
    (out / "run.yaml").parent.mkdir(parents=True, exist_ok=True)
    (out / "run.yaml").write_text(f"preset: marionette\nout: {(out / 'made').as_posix()}\n", "utf-8")
    given = load(out / "run.yaml").model_dump(mode="json")
    given["data"]["workers"] = workers
    given["data"]["world"] |= world
    given["clip"] |= clip or {}
    return validated(given, "the test")


PLANS = ("human", "cartoon", "quadruped", "bird")
SHAPE = Shape(HEIGHT, WIDTH, FRAMES, LEAD_IN)


@pytest.mark.parametrize("reader", readers())
def test_indices_mean_their_scenes_and_files_are_lossless(reader: str, tmp_path: Path) -> None:
    settings = config(tmp_path, count=5, first=14)
    samples = build.build(settings)
    assert samples == manifest.read(tmp_path / "made" / "clips" / "manifest.jsonl")
    assert [sample.id for sample in samples] == [f"train-pose-{index:06d}" for index in range(14, 19)]
    for index, sample in zip(range(14, 19), samples, strict=True):
        scene, nobody = scenes(settings.data.world, index, SHAPE)
        info = look_through(sample.target_video)
        assert nobody is None and np.array_equal(np.stack(list(read(info, range(FRAMES), reader))), scene.draw()[0])
        assert (sample.width, sample.height, sample.frames, sample.fps) == (WIDTH, HEIGHT, FRAMES, 12)
        assert info.fps == pytest.approx(12, rel=2e-3) and not info.note
        assert sample.caption == scene.describe() == f"{sample.appearance} {sample.motion}"
        frames, rate = read_pose_file(sample.poses)
        assert rate == pytest.approx(12)
        found = np.stack([people[0].body for people in from_pose_keypoint(frames).frames])
        np.testing.assert_allclose(found, scene.keypoints(), atol=1e-3)


def test_pairs_are_the_same_motion_of_another_character(tmp_path: Path) -> None:
    settings = config(tmp_path, count=4, pairs=True, split="validation", plans=dict.fromkeys(PLANS, 0.25))
    for index, sample in enumerate(build.build(settings)):
        scene, driver = scenes(settings.data.world, index, SHAPE)
        assert (sample.kind, sample.driving_start, sample.caption) == ("e2e", LEAD_IN, scene.describe())
        assert driver.motion == scene.motion and driver.character != scene.character
        assert np.array_equal(videos.read(sample.target_video)[1], scene.draw()[0])
        assert np.array_equal(videos.read(sample.driving_video)[1], driver.draw()[0][LEAD_IN:])


def test_shares_of_plans_and_splits(tmp_path: Path) -> None:
    birds = build.build(config(tmp_path / "a", count=6, plans={"bird": 1.0, "human": 0, "cartoon": 0, "quadruped": 0}))
    assert {sample.appearance for sample in birds} == {"a bird"}
    others = build.build(config(tmp_path / "b", count=6, split="test"))
    assert not {sample.source_sha256 for sample in birds} & {sample.source_sha256 for sample in others}


def test_more_samples_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    few = build.build(config(tmp_path, count=16))
    written = {sample.id: sample.target_video.stat().st_mtime_ns for sample in few}
    more = build.build(config(tmp_path, count=20, workers=2))
    assert [sample.id for sample in more][:16] == [sample.id for sample in few] and len(more) == 20
    assert {sample.id: sample.target_video.stat().st_mtime_ns for sample in more[:16]} == written
    fresh = build.build(config(tmp_path / "fresh", count=20))
    assert [sample.source_sha256 for sample in more] == [sample.source_sha256 for sample in fresh]
    # other shares are other samples, though their names are the same
    other = build.build(config(tmp_path, count=16, plans={"bird": 1.0}))
    assert other[0].source_sha256 != few[0].source_sha256


@pytest.mark.parametrize(
    ("clip", "world", "message"),
    [
        ({"fps": 16}, {}, "clip.fps is 16, expected 12"),
        ({}, {"plans": {"human": 0, "cartoon": 0, "quadruped": 0, "bird": 0}}, "expected shares of human, cartoon"),
    ],
)
def test_what_the_world_has_not(clip: dict[str, object], world: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        build.build(config(tmp_path, clip, **world))
    assert not (tmp_path / "made" / "clips" / "manifest.jsonl").exists()

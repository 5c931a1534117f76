"""Pairs of the drawn world as the synthesize verb leaves them: a source clip, and another character that does the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml

from dreamactor_core.poses import from_body_joints, to_pose_keypoint
from headless.media import write_image
from training import manifest
from training.manifest import Sample
from training.marionette.characters import Plan
from training.marionette.world import FPS, HEIGHT, LEAD_IN, WIDTH, Scene, rng_for, sample_scene
from training.video import write_clip

PLANS: tuple[Plan, ...] = ("human", "cartoon", "quadruped", "bird")


def scenes(index: int, plan: Plan) -> tuple[Scene, Scene]:
    """A source, and another character of its family with the same motion."""
    rng = rng_for("validation", 41, index)
    source = sample_scene(rng, plan)
    return source, source.with_character(rng, {"human": "cartoon", "cartoon": "human"}.get(plan, plan))


def write_pair(folder: Path, index: int, plan: Plan, with_reference: bool = True) -> Sample:
    """Files of one pair, and the sample that names them."""
    source, other = scenes(index, plan)
    target, driving = source.draw()[0], other.draw()[0]
    name = f"pair{index:03}"
    write_clip(folder / f"{name}_target.mkv", target, FPS)
    write_clip(folder / f"{name}_driving.mkv", driving[LEAD_IN:], FPS)
    write_image(folder / f"{name}_reference.png", driving[0])
    frames = to_pose_keypoint(from_body_joints(source.keypoints(), HEIGHT, WIDTH))
    (folder / f"{name}_poses.json").write_text(json.dumps({"frames": frames, "frame_ms": 1000 / FPS}), "utf-8")
    return Sample(
        id=name, kind="e2e", target_video=folder / f"{name}_target.mkv", driving_video=folder / f"{name}_driving.mkv",
        driving_start=LEAD_IN, driving_reference=folder / f"{name}_reference.png" if with_reference else None,
        poses=folder / f"{name}_poses.json", caption=source.describe(), appearance=other.character.plan, fps=FPS,
        frames=len(target), width=WIDTH, height=HEIGHT,
    )  # fmt: skip


def write_pairs(folder: Path, count: int, plans: tuple[Plan, ...] = PLANS) -> list[Sample]:
    """Pairs in a folder and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = [write_pair(folder, index, plans[index % len(plans)]) for index in range(count)]
    manifest.write(folder / "manifest.jsonl", samples)
    return samples


def write_config(folder: Path, **sections: object) -> Path:
    """A run's file on the small backbone, whose `out` is `folder / "run"`."""
    path = folder / "run.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"preset": "marionette", "out": str(folder / "run"), **sections}), "utf-8")
    return path


def with_flicker(frames: np.ndarray, strength: float) -> np.ndarray:
    """The whole picture brighter and darker in turn, by a share of its brightness."""
    factors = 1 + strength * np.where(np.arange(len(frames)) % 2, 1, -1)
    return (frames * factors[:, None, None, None]).clip(0, 255).astype(np.uint8)

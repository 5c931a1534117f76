"""A few clips of the drawn world as files with a manifest, for the tests of the training tool."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from dreamactor_core.poses import from_body_joints, to_pose_keypoint
from training import manifest
from training.hashing import sha256
from training.manifest import Sample
from training.marionette.characters import Plan
from training.marionette.world import FPS, FRAMES, HEIGHT, LEAD_IN, WIDTH, Scene, rng_for, sample_scene
from training.video import write_clip

PLAIN = {"normalise": 0.0, "other_bodies": 0.0, "hidden_limbs": 0.0, "bones": 0.0}
"""`cache.augment` of skeletons as they are."""
PLANS = ("human", "cartoon", "quadruped", "human")


def scene_of(plan: Plan, seed: int, frames: int = 6, **changes: object) -> Scene:
    """A held-out scene with a short lead-in."""
    return sample_scene(rng_for("test", 77, seed), plan, frames, **{"lead": 3} | changes)


def write_clips(folder: Path, count: int, pairs: bool = False) -> list[Sample]:
    """Clips with their poses, or with another character's video beside them; the manifest is `manifest.jsonl`."""
    folder.mkdir(parents=True)
    samples = []
    for index in range(count):
        rng = rng_for("train", 99, index)
        plan = PLANS[index % len(PLANS)]
        scene = sample_scene(rng, plan)
        target, poses = folder / f"c{index}.mkv", folder / f"c{index}.json"
        write_clip(target, scene.draw()[0], FPS, lossless=True)
        frames = to_pose_keypoint(from_body_joints(scene.keypoints(), HEIGHT, WIDTH))
        poses.write_text(json.dumps({"frames": frames, "frame_ms": 1000 / FPS}), "utf-8")
        more = {}
        if pairs:
            driver = folder / f"d{index}.mkv"
            write_clip(driver, scene.with_character(rng, plan).draw()[0][LEAD_IN:], FPS, lossless=True)
            more = {"driving_video": driver, "driving_start": LEAD_IN, "pairs": "ground_truth"}
        samples.append(
            Sample(
                id=f"c{index}", kind="e2e" if pairs else "pose", target_video=target, poses=poses, caption=scene.describe(),
                appearance=f"a {plan}", motion=scene.motion.name, fps=FPS, frames=FRAMES, width=WIDTH, height=HEIGHT, **more,
            )
        )  # fmt: skip
    manifest.write(folder / "manifest.jsonl", samples)
    return manifest.read(folder / "manifest.jsonl")


def write_run(path: Path, out: Path, **sections: dict) -> Path:
    """A run's file for the small backbone: `out` and any sections over the preset."""
    path.write_text(yaml.safe_dump({"preset": "marionette", "out": str(out), **sections}), "utf-8")
    return path


def hashes(folder: Path) -> dict[str, str]:
    """Of all weights and shards below a folder, by name."""
    return {path.name: sha256(path) for path in sorted(folder.rglob("*.safetensors"))}

"""Small clips of the drawn world and configs over them, for the tests of `synthesize`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dreamactor_core.poses import from_body_joints, to_pose_keypoint
from training.config import PRESETS, Config, _read, merged, validated
from training.manifest import Sample, write
from training.marionette.world import rng_for, sample_scene
from training.video import write_clip

ROOT = Path(__file__).resolve().parents[2]
POSE_LORA, RGB_LORA = (ROOT / "models" / "loras" / f"marionette_{variant}.safetensors" for variant in ("pose", "rgb"))
HEIGHT, WIDTH, FRAMES, LEAD_IN, FPS = 48, 32, 13, 8, 12.0


def sample(folder: Path, name: str, plan: str = "human", **values: Any) -> Sample:
    """A sample of the manifest without its files."""
    given = {
        "id": name, "kind": "pose", "target_video": folder / f"{name}.mkv", "poses": folder / f"{name}.json",
        "caption": f"a {plan} waves", "motion": "waves", "appearance": f"a {plan}", "fps": FPS, "frames": FRAMES, "width": WIDTH,
        "height": HEIGHT,
    }  # fmt: skip
    return Sample(**(given | values))


def draw(folder: Path, plans: tuple[str, ...] = ("human", "human", "cartoon")) -> list[Sample]:
    """Clips with poses, and `manifest.jsonl`."""
    samples = []
    for index, plan in enumerate(plans):
        scene = sample_scene(rng_for("train", 77, index), plan, FRAMES, LEAD_IN)
        one = sample(folder, f"clip{index}", plan, caption=scene.describe(), motion=scene.motion.name)
        write_clip(one.target_video, scene.draw(HEIGHT, WIDTH)[0], FPS, lossless=True)
        poses = to_pose_keypoint(from_body_joints(scene.keypoints(HEIGHT, WIDTH), HEIGHT, WIDTH))
        one.poses.write_text(json.dumps({"frames": poses, "frame_ms": 1000 / FPS}), "utf-8")
        samples.append(one)
    write(folder / "manifest.jsonl", samples)
    return samples


def values(out: Path, **synthesize: Any) -> dict[str, Any]:
    """A run on the small backbone, as a YAML file would hold it."""
    return {"preset": "marionette", "out": str(out), "synthesize": {"lora": str(POSE_LORA), "steps": 1, "batch": 2} | synthesize}


def config(out: Path, over: dict[str, Any] | None = None, **synthesize: Any) -> Config:
    """The same, resolved."""
    given = merged(values(out, **synthesize), over or {})
    return validated(merged(_read(PRESETS / "marionette.yaml"), given), "test")

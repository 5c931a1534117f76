"""Scenes drawn from seeds. Training, validation and test never share an identity or a motion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .bodies import openpose_joints
from .characters import Character, Plan, sample_character
from .drawing import draw_clip
from .motions import Motion, family_of, lead_in, sample_motion, sample_pose
from .scenery import Background, Camera, sample_background, sample_camera

Split = Literal["train", "validation", "test"]
_SPLITS: dict[str, int] = {"train": 0, "validation": 1, "test": 2}

HEIGHT, WIDTH, FRAMES, FPS = 96, 64, 25, 12
"""Size of one panel in pixels, and the length and rate of a clip."""
LEAD_IN = 8
"""Frames before the driver starts to move: the character travels from its own pose to the first driven one."""


def rng_for(split: Split, *index: int) -> np.random.Generator:
    """Generator of a scene. The split is part of the seed, so no index of one split can meet another's."""
    return np.random.default_rng(np.random.SeedSequence([_SPLITS[split], *index]))


@dataclass(frozen=True)
class Scene:
    """One character in one place doing one thing under one camera."""

    character: Character
    motion: Motion
    background: Background
    camera: Camera

    def draw(self, height: int = HEIGHT, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
        """RGB uint8 (T, H, W, 3) and part labels uint8 (T, H, W)."""
        return draw_clip(self.character, self.motion, self.background, self.camera, height, width)

    def keypoints(self, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
        """OpenPose body joints in pixels, float (T, 18, 3); confidence 0 and no place for what an animal has not."""
        out = np.stack([openpose_joints(self.character, values) for values in self.motion.values])
        for t, points in enumerate(out):
            placed = (points[:, :2] - self.camera.pan[t] - [0, 0.5]) * self.camera.zoom[t] + [0, 0.5]
            points[:, :2] = np.where(points[:, 2:] > 0, placed * height + [width / 2, 0], 0)
        return out

    def with_character(self, rng: np.random.Generator, plan: Plan) -> Scene:
        """The same motion and camera with another identity at another place."""
        return replace(self, character=sample_character(rng, plan), background=sample_background(rng))

    def describe(self) -> str:
        """A caption: who does what."""
        return f"a {self.character.plan} {self.motion.name}"


def sample_scene(rng: np.random.Generator, plan: Plan, frames: int = FRAMES, lead: int | None = LEAD_IN) -> Scene:
    """Draw a scene. With `lead`, the first frames travel from a pose of the character's own to the motion."""
    family = family_of(plan)
    motion = sample_motion(rng, family, frames)
    if lead:
        motion = lead_in(sample_pose(rng, family), motion, lead)
    return Scene(sample_character(rng, plan), motion, sample_background(rng), sample_camera(rng, frames))

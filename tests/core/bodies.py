"""Bodies of the drawn world, of which the same motion can be had on any, for the tests of retargeting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dreamactor_core.poses import Person, PoseSequence, from_body_joints
from training.marionette.motions import Motion, sample_motion, sample_pose
from training.marionette.world import HEIGHT, WIDTH, Scene, rng_for, sample_scene


def joints(sequence: PoseSequence, who: int = 0) -> np.ndarray:
    """Float64 (T, joints, 3), the body's 18 first; zero where nobody is."""
    chosen = [people[who] if who < len(people) else Person() for people in sequence.frames]
    return np.array([np.concatenate(list(p.groups().values())) for p in chosen], np.float64)


def poses_of(scene: Scene) -> PoseSequence:
    return from_body_joints(scene.keypoints(), HEIGHT, WIDTH).fitted(960, 640)


def marionette(seed: int, motion: str, plan: str = "cartoon") -> tuple[PoseSequence, PoseSequence, PoseSequence]:
    """A driver under a still camera, the same motion on another body, and that body standing in a pose of its own."""
    rng = rng_for("test", 5, seed)
    scene = sample_scene(rng, "human", frames=40, lead=None)
    still = replace(scene.camera, pan=scene.camera.pan * 0, zoom=scene.camera.zoom * 0 + 1)
    scene = replace(scene, motion=sample_motion(rng, "biped", 40, motion), camera=still)
    truth = scene.with_character(rng, plan)
    stand = Motion("stands", "biped", 0.3 * sample_pose(rng, "biped")[None])
    stand.values[:, 1:3] = 0  # neither jumping nor crouching
    short = replace(still, pan=still.pan[:1], zoom=still.zoom[:1])
    return poses_of(scene), poses_of(truth), poses_of(replace(truth, motion=stand, camera=short))


def broader(people: list[Person], breadth: float) -> None:
    for body in (person.body for person in people):
        outwards = (breadth - 1) / 2 * (body[8, :2] - body[11, :2])
        body[[8, 9, 10], :2] += outwards
        body[[11, 12, 13], :2] -= outwards


def nearer(sequence: PoseSequence, factors: np.ndarray, centre: tuple[float, float]) -> PoseSequence:
    """The sequence as a camera shows it whose picture grows by `factors` (T,) about a point: a zoom, or a walk towards the camera
    whose horizon goes through that point."""
    frames = [
        [person.mapped((z, z), (centre[0] * (1 - z), centre[1] * (1 - z))) for person in people]
        for people, z in zip(sequence.frames, factors, strict=True)
    ]
    return PoseSequence(frames, sequence.height, sequence.width)


def approach(frames: int, factor: float) -> np.ndarray:
    """Sizes (T,) of somebody who walks towards the camera at one speed until they are `factor` as large."""
    return 1 / np.linspace(1, 1 / factor, frames)

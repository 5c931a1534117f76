"""Source `world`: clips of Marionette's drawn world, lossless, with poses that are known and not found.

A sample is drawn from its split and its index alone, so identities are never shared over splits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamactor_core.poses import from_body_joints
from training.config import Config, World
from training.data.unit import Job, Outcome, Source, Unit
from training.data.writing import write_bytes, write_poses
from training.errors import UserError
from training.manifest import Sample
from training.marionette.world import FPS, Scene, rng_for, sample_scene
from training.video import ClipEncoder

CHUNK = 16
"""Samples of a unit."""
_STREAMS = {"pose": 2, "e2e": 3}  # of random numbers
_PLANS = ("human", "cartoon", "quadruped", "bird")
_BIPEDS = ("human", "cartoon")
_WITNESSES = 4


@dataclass(frozen=True)
class Shape:
    """Of clips: pixels and frames."""

    height: int
    width: int
    frames: int
    lead_in: int


def shape_of(config: Config) -> Shape:
    """The first of clip.sizes. Raises UserError for a frame rate that is not the world's."""
    clip = config.clip
    if clip.fps != FPS:
        raise UserError(f"clip.fps is {clip.fps:g}, expected {FPS}, at which the drawn world moves; set it, or another data.source")
    width, height = clip.sizes[0]
    return Shape(height, width, clip.frames, clip.spec().lead_in)


def scenes(world: World, index: int, shape: Shape) -> tuple[Scene, Scene | None]:
    """The scene of an index, and, where pairs are asked for, that of another character who does the same."""
    kind = "e2e" if world.pairs else "pose"
    rng = rng_for(world.split, _STREAMS[kind], index)
    shares = np.array([world.plans.get(plan, 0.0) for plan in _PLANS])
    plan = str(rng.choice(_PLANS, p=shares / shares.sum()))
    scene = sample_scene(rng, plan, shape.frames, shape.lead_in or None)
    return scene, scene.with_character(rng, "human" if plan in _BIPEDS else plan) if world.pairs else None


@dataclass(frozen=True)
class WorldUnit(Unit):
    """Some samples of the world, from `first` on. `drawn`: digest of what this version of the code draws."""

    name: str
    first: int
    count: int
    drawn: str

    def make(self, job: Job) -> Outcome:
        shape = shape_of(job.config)
        return Outcome([_sample(job, index, shape) for index in range(self.first, self.first + self.count)])


def find(config: Config) -> Source:
    """Units of consecutive indices. Raises UserError when the shares of body plans are none."""
    world, shape = config.data.world, shape_of(config)
    if not world.plans or min(world.plans.values()) < 0 or sum(world.plans.values()) <= 0:
        raise UserError(f"data.world.plans is {world.plans}, expected shares of {', '.join(_PLANS)}, of which one is above 0")
    drawn = _drawn(world, shape)
    last, units = world.first + world.count, list[Unit]()
    begin = world.first
    while begin < last:  # a larger count finds the units of a smaller one again
        stop = min((begin // CHUNK + 1) * CHUNK, last)
        name = f"{world.split}, {'pairs' if world.pairs else 'clips'} {begin} to {stop - 1}"
        units.append(WorldUnit(name, begin, stop - begin, drawn))
        begin = stop
    return Source(units)


def _drawn(world: World, shape: Shape) -> str:
    """A few samples are drawn to see whether clips of an earlier call are of this version of the code, and of these shares."""
    digest = hashlib.sha256(repr((world.split, world.pairs, sorted(world.plans.items()), shape)).encode())
    for index in range(_WITNESSES):
        for scene in scenes(world, index, shape):
            if scene is not None:
                digest.update(scene.describe().encode() + scene.draw(shape.height, shape.width)[0].tobytes())
    return digest.hexdigest()


def _sample(job: Job, index: int, shape: Shape) -> Sample:
    world = job.config.data.world
    scene, driver = scenes(world, index, shape)
    kind = "pose" if driver is None else "e2e"
    name = f"{world.split}-{kind}-{index:06d}"
    target, poses = job.folder / f"{name}.mkv", job.folder / f"{name}.poses.json"
    digest = _write(target, scene.draw(shape.height, shape.width)[0])
    write_poses(poses, from_body_joints(scene.keypoints(shape.height, shape.width), shape.height, shape.width), FPS)
    pair = {}
    if driver is not None:
        driving = job.folder / f"{name}.driving.mkv"
        moving = driver.draw(shape.height, shape.width)[0][shape.lead_in :]
        pair = {"driving_video": driving, "driving_start": shape.lead_in, "driving_sha256": _write(driving, moving)}
        pair |= {"pairs": "ground_truth"}
    return Sample(
        id=name, kind=kind, target_video=target, poses=poses, caption=scene.describe(), motion=scene.motion.name,
        appearance=f"a {scene.character.plan}", fps=FPS, frames=shape.frames, width=shape.width, height=shape.height,
        source_sha256=digest, **pair,
    )  # fmt: skip


def _write(path: Path, frames: np.ndarray) -> str:
    encoder = ClipEncoder(*frames.shape[1:3], FPS, "ffv1")
    for frame in frames:
        encoder.add(frame)
    data = encoder.finish()
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()

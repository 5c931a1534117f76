"""The demo's jobs: which workflow runs on which files, checked before any server starts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bootstrap import ROOT
from dreamactor_core.augment import placed
from dreamactor_core.poses import PoseFormatError, PoseSequence, from_pose_keypoint, read_pose_file
from dreamactor_core.skeleton import draw_skeleton

from .media import MediaError, animation_to_mp4, check_video, read_image

VIDEO_SUFFIXES = (".mp4", ".webm", ".mov")
ANIMATION_SUFFIXES = (".gif", ".webp")
DRIVERS = {"pose": "Driving poses", "rgb": "Driving video"}
"""Title of the node that loads the driver, by variant."""
LIST_FPS = 24.0
"""Assumed for a plain list of POSE_KEYPOINT frames, which does not say how fast they follow each other."""


class InputError(Exception):
    """A file that the user gave cannot be used. The message says what was got, what is expected, what to do."""


@dataclass(frozen=True)
class Job:
    """One animation.

    Attributes:
        variant: "pose" or "rgb".
        workflow: API-format workflow with nodes titled Reference, Driving poses or Driving video, and Result.
        truth: What the result should look like, where that is known.
        reference_poses: Pose of the reference, for a workflow that retargets: its node is titled Reference poses.
    """

    variant: str
    workflow: Path
    reference: Path
    drive: Path
    truth: Path | None = None
    reference_poses: Path | None = None

    @property
    def title(self) -> str:
        """One line that says what drives whom."""
        return f"{self.variant}: {self.drive.name} drives {self.reference.name}"


def poses_beside(reference: Path) -> Path:
    """Where the pose of a reference is looked for: character_poses.json beside character.png."""
    return reference.with_name(f"{reference.stem}_poses.json")


def plan(reference: Path | None, drive: Path | None, root: Path = ROOT) -> list[Job]:
    """The jobs to run: both bundled ones, or the one that the driver's kind asks for; any reference goes into each.

    Keypoints are retargeted onto a reference whose pose lies beside it; onto any other they are only fitted into the frame.

    Raises:
        InputError: the driver's suffix is not one that is known.
    """
    assets, workflows = root / "assets", root / "workflows" / "api"

    def pose_job(keypoints: Path) -> Job:
        character = reference or assets / "reference_human.png"
        poses = poses_beside(character)
        if poses.is_file():
            return Job("pose", workflows / "marionette_pose_retarget.json", character, keypoints, reference_poses=poses)
        return Job("pose", workflows / "marionette_pose.json", character, keypoints)

    def rgb_job(video: Path) -> Job:
        return Job("rgb", workflows / "marionette_rgb.json", reference or assets / "reference_cartoon.png", video)

    if drive is not None:
        suffix = drive.suffix.lower()
        if suffix != ".json" and suffix not in VIDEO_SUFFIXES + ANIMATION_SUFFIXES:
            raise InputError(
                f"--drive: got {drive.name}, expected keypoints (.json) or a video "
                f"({', '.join(VIDEO_SUFFIXES + ANIMATION_SUFFIXES)}); convert it, or correct the name"
            )
        return [pose_job(drive) if suffix == ".json" else rgb_job(drive)]
    jobs = [pose_job(assets / "drive_person.json"), rgb_job(assets / "drive_video.mp4")]
    truth = assets / "drive_video_truth.mp4"
    if reference is None and truth.is_file():
        jobs[1] = replace(jobs[1], truth=truth)
    return jobs


def read_poses(path: Path) -> tuple[PoseSequence, float | None]:
    """Poses and their frame rate, None when the file does not say. Raises InputError."""
    try:
        frames, fps = read_pose_file(path)
    except PoseFormatError as error:
        raise InputError(str(error)) from error
    poses = from_pose_keypoint(frames)
    if not any(person.seen for people in poses.frames for person in people):
        raise InputError(f"{path}: there is nobody in any of its {len(poses)} frames; check the pose extractor")
    return poses, fps


def read_workflow(path: Path) -> dict[str, dict[str, Any]]:
    """A workflow in API format. Raises InputError."""
    try:
        prompt = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read as a workflow ({error}); restore it from the repository") from error
    if not isinstance(prompt, dict) or not all(isinstance(n, dict) and "class_type" in n for n in prompt.values()):
        raise InputError(f"{path} is not a workflow in API format; in ComfyUI: Workflow, Export (API)")
    return prompt


def check(job: Job) -> None:
    """Raises InputError when one of a job's files is missing or cannot be read."""
    for name, path in (("workflow", job.workflow), ("reference", job.reference), ("drive", job.drive)):
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise InputError(f"{name}: {path} {what}, expected a file; check the path")
    prompt = read_workflow(job.workflow)
    titles = [node.get("_meta", {}).get("title") for node in prompt.values()]
    wanted = ["Reference", DRIVERS[job.variant], "Result"] + ["Reference poses"] * (job.reference_poses is not None)
    for title in wanted:
        if titles.count(title) != 1:
            raise InputError(
                f"{job.workflow}: {titles.count(title)} nodes are titled {title!r}, expected one; rename it"
            )
    try:
        read_image(job.reference)
        if job.variant == "pose":
            read_poses(job.drive)
            if job.reference_poses is not None:
                read_poses(job.reference_poses)
        elif job.drive.suffix.lower() in VIDEO_SUFFIXES:
            check_video(job.drive)
    except MediaError as error:
        raise InputError(str(error)) from error


def as_video(job: Job, folder: Path) -> Job:
    """The job with an animated GIF or WebP turned into an mp4 in `folder`, as LoadVideo wants it. Raises InputError."""
    if job.drive.suffix.lower() not in ANIMATION_SUFFIXES:
        return job
    target = folder / f"{job.drive.stem}.mp4"
    try:
        animation_to_mp4(job.drive, target)
    except MediaError as error:
        raise InputError(str(error)) from error
    return replace(job, drive=target)


def draw_poses(
    path: Path, times: Sequence[float], height: int, width: int, options: Mapping[str, Any] | None = None
) -> list[np.ndarray]:
    """The skeletons on screen at `times` (growing, seconds), past the end the last one.

    Args:
        options: Inputs as the Pose Draw node takes them: what is shown is what it would draw from the file's poses, only larger.
            That is what the network is shown, unless the workflow retargets them before they are drawn.
    """
    poses, fps = read_poses(path)
    chosen: dict[str, Any] = {"fit": "canvas", "face": True, "hands": True, "threshold": 0.3, "style": "dwpose"}
    chosen |= options or {}
    left_out = ([] if chosen["face"] else ["face"]) + ([] if chosen["hands"] else ["left_hand", "right_hand"])
    poses = placed(poses.without(*left_out), height, width, chosen["fit"], chosen["threshold"])
    rate = fps or LIST_FPS
    picks = [min(len(poses) - 1, math.floor(t * rate + 1e-6)) for t in times]
    return list(draw_skeleton(poses[picks], height, width, threshold=chosen["threshold"], style=chosen["style"]))

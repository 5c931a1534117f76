"""Poses of clips: from files beside the videos, or by the pose estimator of the nodes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from dreamactor_core.clips import resample_rate
from dreamactor_core.extract import session, weights
from dreamactor_core.extract.catalogue import MODELS, WeightFile
from dreamactor_core.extract.errors import ExtractError, NobodyError
from dreamactor_core.extract.extractor import Extractor
from dreamactor_core.poses import PoseFormatError, PoseSequence, from_pose_keypoint, read_pose_file
from training.config import Data
from training.data.dropping import Drop
from training.errors import UserError

LEAST_SEEN = 0.5
"""Share of a clip's frames in which somebody must be seen."""
_THRESHOLD, _CONFIDENCE, _PEOPLE = 0.5, 0.3, 4  # of the detector, of a joint, in a clip: what Pose Extract begins with
_SLACK = 0.5  # seconds by which poses may be shorter or longer than their video


def weight_files(data: Data) -> dict[WeightFile, Path]:
    """The estimator's files, detector first. Raises UserError that names those that are missing."""
    model, folder = MODELS[data.pose_model], data.pose_weights
    wanted = (model.detector, model.network)
    listed = "".join(f"\n  {file.name} ({file.size / 1e6:.0f} MB) from {file.sources[0].url}" for file in wanted)
    if folder is None:
        raise UserError(f"data.poses is extract, and data.pose_weights is not given; expected the folder that holds{listed}")
    found = {file: weights.find(file, [folder]) for file in wanted}
    absent = [file.name for file, path in found.items() if path is None]
    if absent:
        raise UserError(
            f"data.pose_weights is {folder}, which lacks {' and '.join(absent)}; expected{listed}\nput them there, or set "
            f"data.poses to file or none"
        )
    return {file: path for file, path in found.items() if path is not None}


@functools.cache
def _extractor(model: str, wanted: str, detector: Path, network: Path) -> Extractor:
    try:
        device = session.choose_device(wanted, torch.cuda.is_available())
        loaded = [session.load(path, device) for path in (detector, network)]
    except ExtractError as error:
        raise UserError(f"data.poses is extract: {error}") from error
    return Extractor(MODELS[model], *loaded, _THRESHOLD, _CONFIDENCE, _PEOPLE)


def extractor(data: Data) -> Extractor:
    """The estimator, loaded once a process. Raises UserError when a file is missing or does not load."""
    return _extractor(data.pose_model, data.device, *weight_files(data).values())


def unload() -> None:
    """Let go of the estimator that this process has loaded, and of its memory."""
    _extractor.cache_clear()


def extract(data: Data, frames: Iterable[np.ndarray], count: int, fps: float | None) -> PoseSequence:
    """Poses of frames RGB uint8 (H, W, 3), which are taken one by one.

    Raises:
        Drop: nobody is found.
        UserError: the networks do not run.
    """
    find = extractor(data)
    try:
        return find(frames, count, fps).poses
    except NobodyError as error:
        raise Drop("nobody", str(error)) from error
    except ExtractError as error:
        raise UserError(f"data.poses is extract: {error}") from error


def read_poses(path: Path, times: np.ndarray, end: float) -> Callable[[np.ndarray], PoseSequence]:
    """Poses of a video out of a file.

    As many frames as the video has belong to them one by one; another number is laid over the video by the file's `frame_ms`.

    Args:
        times: Seconds of the video's frames, from 0 on. `end`: at which the last one ends.

    Returns:
        Poses, on the file's own canvas, of the video's frames of any numbers.

    Raises:
        Drop: there is no such file, it is not as it should be, or it is of another length than the video.
    """
    if not path.is_file():
        raise Drop("no_poses", f"there is no {path.name}, expected POSE_KEYPOINT frames; or set data.poses to extract or none")
    try:
        frames, fps = read_pose_file(path)
        poses = from_pose_keypoint(frames)
    except PoseFormatError as error:
        raise Drop("bad_poses", str(error)) from error
    if len(poses) == len(times):
        return lambda wanted: poses[wanted.tolist()]
    if fps is None or abs(len(poses) / fps - end) > _SLACK:
        lasts = "states no frame_ms" if fps is None else f"lasts {len(poses) / fps:.2f} s"
        raise Drop(
            "bad_poses", f"{path.name} has {len(poses)} frames and {lasts}, the video has {len(times)} and lasts {end:.2f} s; "
            f"expected one of them to be the same"
        )  # fmt: skip
    # a fine clock: which pose is on when each frame of the video appears
    clock = resample_rate(len(poses), fps, 240.0)
    shown = clock[np.minimum((times * 240.0).round().astype(int), len(clock) - 1)]
    return lambda wanted: poses[shown[wanted].tolist()]


def check_seen(poses: PoseSequence) -> None:
    """Raises Drop when nobody is seen in most frames."""
    seen = sum(any(person.seen for person in people) for people in poses.frames)
    if seen < LEAST_SEEN * len(poses):
        raise Drop("nobody", f"somebody is seen in {seen} of {len(poses)} frames, expected at least half of them")

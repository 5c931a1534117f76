"""From the files of a unit to pixels and poses, the same for every teacher and as the nodes read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dreamactor_core.clips import ClipSpec, fit_frames
from dreamactor_core.order import steady_people
from dreamactor_core.poses import PoseSequence, from_pose_keypoint, read_pose_file
from dreamactor_core.retarget import retarget
from headless.media import read_image
from training.errors import UserError
from training.manifest import Sample
from training.synthesize.plan import character_poses
from training.synthesize.video import first_frame
from training.video import read_clip


def character(reference: Sample, height: int, width: int) -> np.ndarray:
    """The reference's picture cropped to a size, as the nodes crop it: RGB uint8 (H, W, 3). Raises MediaError."""
    picture = read_image(reference.reference_image) if reference.reference_image else first_frame(reference.target_video)
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    fitted = fit_frames(pixels, height, width, "crop")[0]
    return ((fitted + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def source_frames(source: Sample) -> np.ndarray:
    """V_src, RGB uint8 (T, H, W, 3). Raises MediaError, and UserError for a clip that is not as its manifest says."""
    frames = read_clip(source.target_video)
    expected = (source.frames, source.height, source.width)
    if frames.shape[:3] != expected:
        got, wanted = ("{0} frames of {2}x{1}".format(*shape) for shape in (frames.shape[:3], expected))
        raise UserError(f"{source.target_video} has {got}, expected {wanted}: it is not whole, make it again with `data`")
    return frames


def _read_poses(path: Path) -> PoseSequence:
    frames, _ = read_pose_file(path)
    return from_pose_keypoint(frames)


def own_poses(source: Sample, spec: ClipSpec) -> PoseSequence:
    """The source's poses from the lead-in on: neither bones nor box may know of the travel. Raises PoseFormatError."""
    if source.poses is None:
        raise UserError(f"source {source.id} has no poses")
    poses = _read_poses(source.poses)
    if len(poses) != source.frames:
        raise UserError(f"{source.poses} has {len(poses)} frames of poses, expected the {source.frames} of its clip")
    driven = poses[spec.lead_in :]
    if not any(person.seen for people in driven.frames for person in people):
        raise UserError(f"{source.poses} shows nobody after its lead-in; the pose extractor failed on this clip")
    return steady_people(driven)


def _own_pose(reference: Sample) -> PoseSequence:
    path = character_poses(reference)
    if path is None:
        raise UserError(f"reference {reference.id} has no poses, expected reference_poses or poses in its manifest")
    return steady_people(_read_poses(path)[:1])


def reference_poses(reference: Sample, height: int, width: int) -> PoseSequence:
    """The reference's own pose on its picture as `character` crops it, one frame. Raises PoseFormatError."""
    return _own_pose(reference).cropped(height, width)


def driving_poses(source: Sample, reference: Sample, spec: ClipSpec, retargeted: bool) -> PoseSequence:
    """P_src of Eq. 3 on a canvas of the target's size, one frame for each driven one: retargeted to the reference's own pose,
    or letterboxed as it is. Raises PoseFormatError, or ValueError for two bodies without a limb in common."""
    poses = own_poses(source, spec)
    if not retargeted:
        return poses.fitted(source.height, source.width)
    # cropped after it has been put on the reference's whole canvas, as the nodes do it
    return retarget(poses, _own_pose(reference)).cropped(source.height, source.width)

"""The files of a sample as the measures and the questions see them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np

from dreamactor_core.clips import ClipSpec
from dreamactor_core.poses import PoseFormatError, PoseSequence, from_pose_keypoint, read_pose_file
from dreamactor_core.text.cache import fingerprint
from headless.media import MediaError, read_image
from training.errors import UserError
from training.hashing import sha256
from training.manifest import Sample
from training.score.measures import Pair
from training.synthesize.inputs import driving_poses
from training.video import read_clip


def file_hash(path: Path) -> str:
    """sha256. Raises UserError for a file that is not there or empty."""
    try:
        if not path.stat().st_size:
            raise UserError(f"{path} is empty, expected a file with something in it; make it again")
        return sha256(path)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror or error})") from error


class Material:
    """A sample's clips, read when they are asked for, once.

    Raises:
        UserError: from every property: a file is missing, damaged, or does not fit the others.
    """

    def __init__(self, sample: Sample, extract: Callable[[np.ndarray], PoseSequence] | None = None) -> None:
        self.sample, self.extract = sample, extract
        if sample.kind != "e2e" or sample.driving_video is None:
            raise UserError(f"{sample.id} is of kind {sample.kind}, expected e2e: only synthesized clips are graded")
        self._driving = sample.driving_video

    @cached_property
    def content(self) -> str:
        """Name of all that a score hangs on: hashes of the files, and how they stand to each other."""
        sample = self.sample
        files = (
            sample.driving_video, sample.target_video, sample.driving_reference, sample.poses, sample.driving_reference_poses,
        )  # fmt: skip
        hashes = [file_hash(path) if path else "" for path in files]
        if sample.driving_sha256 and sample.driving_sha256 != hashes[0]:
            raise UserError(
                f"{sample.driving_video} has sha256 {hashes[0][:12]}..., expected {sample.driving_sha256[:12]}... by the manifest: "
                f"it was changed or cut short; make it again"
            )
        return fingerprint([*hashes, str(sample.driving_start), repr(sample.fps)])

    @cached_property
    def graded(self) -> str:
        """Name of what a model is shown: the clip, its rate and the character."""
        sample = self.sample
        files = (sample.driving_video, sample.driving_reference)
        return fingerprint([*(file_hash(path) if path else "" for path in files), repr(sample.fps)])

    @cached_property
    def reference(self) -> np.ndarray | None:
        """RGB uint8 (H, W, 3)."""
        try:
            return None if self.sample.driving_reference is None else read_image(self.sample.driving_reference)
        except MediaError as error:
            raise UserError(str(error)) from error

    @cached_property
    def result(self) -> np.ndarray:
        """The synthesized clip, RGB uint8 (T, H, W, 3)."""
        return read_clip(self._driving)

    def shown(self) -> tuple[np.ndarray, float, np.ndarray | None]:
        """The clip, its frames per second and the character, for the questions."""
        return self.result, self.sample.fps, self.reference

    @cached_property
    def pair(self) -> Pair:
        """Both clips over the frames that they share."""
        sample, result, target = self.sample, self.result, read_clip(self.sample.target_video)
        left = len(target) - sample.driving_start
        if left != len(result):
            raise UserError(
                f"{sample.driving_video} has {len(result)} frames, expected {left}: those of {sample.target_video} "
                f"({len(target)}) from frame {sample.driving_start} on"
            )
        source, poses = target[sample.driving_start :], self._poses(len(target))
        return Pair(result, source, poses, self.reference, self.extract, self._result_poses())

    def _poses(self, frames: int) -> PoseSequence | None:
        if self.sample.poses is None:
            return None
        try:
            poses = from_pose_keypoint(read_pose_file(self.sample.poses)[0])
        except PoseFormatError as error:
            raise UserError(str(error)) from error
        if len(poses) != frames:
            raise UserError(f"{self.sample.poses} has {len(poses)} frames, expected the {frames} of {self.sample.target_video}")
        return poses[self.sample.driving_start :]

    def _result_poses(self) -> PoseSequence | None:
        """What drove the result, where that was retargeted; None where the source's own poses did."""
        sample = self.sample
        if sample.poses is None or sample.driving_reference_poses is None:
            return None
        reference = sample.model_copy(update={"reference_poses": sample.driving_reference_poses})
        try:
            return driving_poses(sample, reference, ClipSpec(sample.frames, sample.driving_start, sample.fps), retargeted=True)
        except ValueError as error:
            names = f"{sample.poses} on {sample.driving_reference_poses}"
            raise UserError(f"the poses of {names} can't be made again ({error}); run `synthesize` anew") from error

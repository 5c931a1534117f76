"""Files beside clips, and clips that are encoded already: whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

from dreamactor_core.poses import PoseSequence, to_pose_keypoint
from headless.atomic import atomic
from training.errors import UserError


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises UserError when the disk is full or may not be written to."""
    try:
        with atomic(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror or error}); make room, or see that {path.parent} may be written to, and "
            f"give the same command again: what is finished is kept"
        ) from error


def write_poses(path: Path, poses: PoseSequence, fps: float) -> None:
    """POSE_KEYPOINT frames with their rate. Raises UserError as `write_bytes`."""
    frames = to_pose_keypoint(poses)
    rounded = json.loads(json.dumps(frames), parse_float=lambda text: round(float(text), 3))  # a thousandth of a pixel
    write_bytes(path, json.dumps({"frames": rounded, "frame_ms": 1000 / fps}, separators=(",", ":")).encode())

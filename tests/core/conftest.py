"""Pose files of real people, estimated by a detector: gaps, low confidences and an empty frame included."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dreamactor_core.poses import PoseSequence, from_pose_keypoint

DRIVES = Path(__file__).resolve().parents[1] / "data" / "drives"
sys.path += [str(Path(__file__).resolve().parents[1] / "networks"), str(Path(__file__).parent)]  # `marker_networks`, `sequences`


@pytest.fixture(params=["dancer", "man_upper_body", "toon_dancer"])
def real_frames(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Every seventh frame of a drive, the empty one among them."""
    return json.loads((DRIVES / f"{request.param}.json").read_text("utf-8"))["frames"][1::7]


@pytest.fixture
def real_people(real_frames: list[dict[str, Any]]) -> PoseSequence:
    return from_pose_keypoint(real_frames)

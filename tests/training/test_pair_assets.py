"""The bundled material of the workflows with text and with two characters: what the commands say they make."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from dreamactor_core.poses import PoseSequence, from_pose_keypoint, read_pose_file
from training.marionette import pair_assets
from training.marionette.assets import ASSETS

DRIVES = Path(__file__).resolve().parents[1] / "data" / "drives"


def poses_of(name: str, folder: Path = ASSETS) -> PoseSequence:
    frames, _ = read_pose_file(folder / name)
    return from_pose_keypoint(frames)


def test_the_command_makes_the_shipped_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["--left", str(DRIVES / "toon_dancer.json"), "--right", str(DRIVES / "dancer.json"), "--first", "35", "0"]
    monkeypatch.setattr(sys, "argv", ["pair_assets", *command])
    monkeypatch.setattr(pair_assets, "ASSETS", tmp_path)
    pair_assets.main()
    assert len(list(tmp_path.iterdir())) == 3
    for made in tmp_path.iterdir():
        if made.suffix == ".png":
            difference = np.abs(cv2.imread(str(made)).astype(int) - cv2.imread(str(ASSETS / made.name)))
            assert difference.mean() < 0.1, "another OpenCV may draw an edge otherwise, no more"
            continue
        for new, shipped in zip(poses_of(made.name, tmp_path).frames, poses_of(made.name).frames, strict=True):
            for one, other in zip(new, shipped, strict=True):
                np.testing.assert_allclose(one.body, other.body, atol=0.02)


def test_two_people_stand_where_the_two_characters_stand() -> None:
    reference, driver = poses_of("reference_pair_poses.json"), poses_of("drive_pair.json")
    picture = cv2.imread(str(ASSETS / "reference_pair.png"))
    for clip in (reference, driver):
        assert (clip.height, clip.width) == picture.shape[:2] and all(len(people) == 2 for people in clip.frames)
        for people in clip.frames:
            middles = [person.body[person.body[:, 2] > 0.3, 0].mean() for person in people]
            assert middles[0] < clip.width / 2 < middles[1]
    wall = picture[4, 4]
    for person in reference.frames[0]:
        for x, y, _ in person.body[:14]:  # without eyes and ears
            assert np.abs(picture[int(y), int(x)].astype(int) - wall).max() > 20, "a joint lies on the wall"


def test_the_poses_of_the_driving_video_are_its_own() -> None:
    poses, rate = poses_of("drive_video_poses.json"), read_pose_file(ASSETS / "drive_video_poses.json")[1]
    with av.open(str(ASSETS / "drive_video.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert rate == pytest.approx(float(container.streams.video[0].average_rate))
    assert len(frames) == len(poses) and frames[0].shape[:2] == (poses.height, poses.width)
    for frame, (person,) in zip(frames, poses.frames, strict=True):
        for x, y, _ in person.body[2:14]:  # the limbs
            if 0 <= x < poses.width and 0 <= y < poses.height:
                assert np.ptp(frame[int(y), int(x)].astype(int)) > 40, "a joint lies on the muted background"

"""Make the pictures and clips of the demo: characters and motions of the test split, four times the training size.

    python -m training.marionette.assets --poses tests/data/drives/toon_dancer.json --first 25

`--poses` is a file of a real person's keypoints; from `--first` on, its body joints become assets/drive_person.json.
assets/drive_video_poses.json are those of the character in assets/drive_video.mp4, and assets/reference_human_poses.json of
the one in assets/reference_human.png, which the world knows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dreamactor_core.poses import PoseSequence, from_body_joints, from_pose_keypoint, to_pose_keypoint
from headless.atomic import atomic
from headless.media import write_image, write_mp4
from training.marionette.backbone import ROOT
from training.marionette.world import FPS, HEIGHT, LEAD_IN, WIDTH, rng_for, sample_scene

ASSETS = ROOT / "assets"
SCALE = 4


def write_poses(path: Path, poses: PoseSequence, frame_ms: float) -> None:
    """Body joints as POSE_KEYPOINT, to a hundredth of a pixel. Face and hands are null, which is short."""
    frames = to_pose_keypoint(poses)
    for frame in frames:
        for person in frame["people"]:
            rounded = [round(value, 2) for value in person["pose_keypoints_2d"]]
            person.update(dict.fromkeys(person), pose_keypoints_2d=rounded)
    with atomic(path) as partial:
        partial.write_text(json.dumps({"frames": frames, "frame_ms": frame_ms}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--poses", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=25)
    parser.add_argument("--seeds", type=int, nargs=2, default=(1, 2), help="test scenes: of the human, and of the cartoon")
    args = parser.parse_args()
    size = HEIGHT * SCALE, WIDTH * SCALE
    human = sample_scene(rng_for("test", 9, args.seeds[0]), "human")
    write_image(ASSETS / "reference_human.png", human.draw(*size)[0][0])
    write_poses(ASSETS / "reference_human_poses.json", from_body_joints(human.keypoints(*size)[:1], *size), 1000 / FPS)
    rng = rng_for("test", 9, args.seeds[1])
    cartoon = sample_scene(rng, "cartoon")
    truth = cartoon.draw(*size)[0]
    write_image(ASSETS / "reference_cartoon.png", truth[0])
    write_mp4(ASSETS / "drive_video_truth.mp4", truth[LEAD_IN:], FPS, crf=8)
    driver = cartoon.with_character(rng, "human")
    write_mp4(ASSETS / "drive_video.mp4", driver.draw(*size)[0][LEAD_IN:], FPS, crf=8)
    write_poses(ASSETS / "drive_video_poses.json", from_body_joints(driver.keypoints(*size)[LEAD_IN:], *size), 1000 / FPS)
    if args.poses:
        data = json.loads(args.poses.read_text())
        poses = from_pose_keypoint(data["frames"])[args.first : args.first + args.count]
        write_poses(ASSETS / "drive_person.json", poses, data["frame_ms"])


if __name__ == "__main__":
    main()

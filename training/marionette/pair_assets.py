"""Make the material of the workflow with two characters: a picture of both, its keypoints, and those of two people.

    cd tests/data/drives
    PYTHONPATH=../../.. python -m training.marionette.pair_assets --left toon_dancer.json --right dancer.json --first 35 0

assets/reference_pair.png and reference_pair_poses.json come from the world. `--left` and `--right` are files of real
people's keypoints; the body joints of both, each at its place on one canvas, become assets/drive_pair.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from dreamactor_core.augment import normalise
from dreamactor_core.poses import PoseSequence, from_body_joints, from_pose_keypoint
from headless.media import write_image
from training.marionette.assets import ASSETS, SCALE, write_poses
from training.marionette.scenery import Background, Camera
from training.marionette.world import FPS, FRAMES, HEIGHT, Scene, rng_for, sample_scene

SIZE = HEIGHT * SCALE, 96 * SCALE
"""Of the picture. Two characters share 96 of the world's pixels of width; one alone has 64."""
ZOOM, APART = 0.75, 0.5
"""Size of a character, of that in a panel of its own, and between the two, in picture heights."""
_PLACE = Background("floor", (186, 196, 200), (132, 124, 116), (0, 0, 0), 0.2)


def stand_beside(scenes: tuple[Scene, Scene]) -> tuple[Scene, Scene]:
    """The same characters and motions in one place, left and right of each other, seen from farther away."""
    moved = []
    for scene, side in zip(scenes, (-1, 1), strict=True):
        frames = len(scene.motion)
        camera = Camera(np.full(frames, ZOOM), np.tile([-side * APART / 2 / ZOOM, 0.0], (frames, 1)))
        moved.append(replace(scene, background=_PLACE, camera=camera))
    return moved[0], moved[1]


def draw_pair(scenes: tuple[Scene, Scene]) -> np.ndarray:
    """First frames of two scenes that `stand_beside` placed, as one picture: RGB uint8 SIZE + (3,)."""
    (left, _), (right, labels) = ([made[0] for made in scene.draw(*SIZE)] for scene in scenes)
    # a pixel more: the edge of a figure is blended with the wall, which is the same in both
    figure = cv2.dilate((labels > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return np.where(figure[..., None], right, left)


def together(left: PoseSequence, right: PoseSequence) -> PoseSequence:
    """Two clips on one canvas, as long as the shorter one."""
    frames = [a + b for a, b in zip(left.frames, right.frames, strict=False)]
    return PoseSequence(frames, left.height, left.width)


def placed(clip: PoseSequence, side: int) -> PoseSequence:
    """A clip of one person where a character of `draw_pair` stands, about as large."""
    fitted = normalise(clip, *SIZE, margin=(1 - ZOOM * 0.86) / 2)
    offset = (side * APART / 2 * SIZE[0], 0.0)
    return PoseSequence([[person.mapped((1, 1), offset) for person in frame] for frame in fitted.frames], *SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--left", type=Path, required=True)
    parser.add_argument("--right", type=Path, required=True)
    parser.add_argument("--first", type=int, nargs=2, default=(0, 0), help="first frame of each")
    parser.add_argument("--seeds", type=int, nargs=2, default=(1, 2), help="test scenes: of the human, and of the cartoon")
    args = parser.parse_args()
    plans = ("human", "cartoon")
    left, right = (sample_scene(rng_for("test", 10, seed), plan) for seed, plan in zip(args.seeds, plans, strict=True))
    scenes = stand_beside((left, right))
    write_image(ASSETS / "reference_pair.png", draw_pair(scenes))
    own = [from_body_joints(scene.keypoints(*SIZE)[:1], *SIZE) for scene in scenes]
    write_poses(ASSETS / "reference_pair_poses.json", together(*own), 1000 / FPS)
    files = [json.loads(path.read_text()) for path in (args.left, args.right)]
    clips = [
        placed(from_pose_keypoint(data["frames"])[first : first + FRAMES], side)
        for data, first, side in zip(files, args.first, (-1, 1), strict=True)
    ]
    write_poses(ASSETS / "drive_pair.json", together(*clips), max(data["frame_ms"] for data in files))


if __name__ == "__main__":
    main()

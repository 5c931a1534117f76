"""What a measure is given and what it is; the regions of a clip in which there is somebody."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from dreamactor_core.poses import Person, PoseSequence

SIDE = 160
"""Pixels of the longer side at which measures look at a clip: what they find does not hang on its resolution."""
_LEAST = 48  # pixels of the shorter side, for optical flow
BONES = ((1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0))
"""OpenPose joints at the ends of a body's bones: arms, legs, trunk and neck."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A synthesized clip and the source clip whose motion it should have, frame by frame.

    Attributes:
        result: RGB uint8 (T, H, W, 3), the synthesized clip.
        source: RGB uint8 (T, H', W', 3), of the same moments.
        poses: Of the source, T frames; None where there are none.
        reference: RGB uint8 (h, w, 3), the character that the result was made from; None where it is not known.
        extract: Poses of a clip (T, H, W, 3), where there is an estimator.
        result_poses: Those that the result was made by, T frames, where they are not the source's: retargeted ones have another
            place, size and proportions. None: the result stands as the source does.
    """

    result: np.ndarray
    source: np.ndarray
    poses: PoseSequence | None = None
    reference: np.ndarray | None = None
    extract: Callable[[np.ndarray], PoseSequence] | None = None
    result_poses: PoseSequence | None = None

    @property
    def driven_by(self) -> PoseSequence | None:
        """Where the result's limbs are to be, T frames."""
        return self.poses if self.result_poses is None else self.result_poses


class Measure(Protocol):
    """One number about a pair.

    Attributes:
        name: In `score.measures` and in a sample's scores.
        version: Raised when the same clip would get another number: kept scores of another version are not used.
        higher_is_better: Which end is the good one, for `filter.keep_best`.
    """

    name: str
    version: int
    higher_is_better: bool

    def __call__(self, pair: Pair) -> float | None:
        """A finite number; None where the pair lacks what the measure needs."""


def resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Frames (T, H, W, 3) or one (H, W, 3) in another size: in one manner, so that two of the same picture stay the same."""
    if frames.shape[-3:-1] == (height, width):
        return frames
    how = cv2.INTER_AREA if height * width < frames.shape[-3] * frames.shape[-2] else cv2.INTER_CUBIC
    stack = frames if frames.ndim == 4 else frames[None]
    made = np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in stack])
    return made if frames.ndim == 4 else made[0]


def small(frames: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Frames (T, H, W, 3) or one (H, W, 3), with a longer side of `side` pixels."""
    height, width = frames.shape[-3:-1]
    factor = side / max(height, width)
    return resized(frames, max(8, round(height * factor)), max(8, round(width * factor)))


def cropped(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of a picture (H, W, 3) in another size and aspect ratio, cut as the nodes cut a reference: see
    `PoseSequence.cropped`."""
    own, wanted, x, y = picture.shape[1] / picture.shape[0], width / height, 0, 0
    if own > wanted:
        x = round((picture.shape[1] - picture.shape[1] * (wanted / own)) / 2)
    else:
        y = round((picture.shape[0] - picture.shape[0] * (own / wanted)) / 2)
    return resized(picture[y : picture.shape[0] - y, x : picture.shape[1] - x], height, width)


def body_size(people: list[Person], height: int) -> float:
    """Pixels from the highest to the lowest joint, at most the picture's height; 0 where nobody is seen."""
    rows = [person.body[person.body[:, 2] > 0, 1] for person in people]
    seen = np.concatenate(rows) if rows else np.zeros(0)
    return float(min(np.ptp(seen), height)) if len(seen) > 1 else 0.0


def limb_masks(poses: PoseSequence, height: int, width: int, thick: float = 0.14) -> np.ndarray:
    """Where the limbs are: bool (T, height, width). Bones are drawn `thick` body heights wide, a head around the nose."""
    masks = np.zeros((len(poses), height, width), np.uint8)
    fitted = poses.fitted(height, width)
    size = float(np.median([body_size(people, height) for people in fitted.frames]))
    line = max(2, round(thick * size))
    for mask, people in zip(masks, fitted.frames, strict=True):
        for person in people:
            for a, b in BONES:
                if person.body[a, 2] > 0 and person.body[b, 2] > 0:
                    ends = [tuple(int(v) for v in person.body[end, :2].round()) for end in (a, b)]
                    cv2.line(mask, ends[0], ends[1], 1, line)
            if person.body[0, 2] > 0:
                centre = tuple(int(v) for v in person.body[0, :2].round())
                cv2.circle(mask, centre, max(2, round(0.11 * size)), 1, -1)
    return masks.astype(bool)


def flows(frames: np.ndarray) -> np.ndarray:
    """Dense optical flow from each frame to the next, in pixels: float32 (T - 1, H, W, 2)."""
    height, width = frames.shape[1:3]
    engine = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    more = (0, max(0, _LEAST - height), 0, max(0, _LEAST - width))  # it crashes on pictures that its patches do not fit into
    grey = [cv2.copyMakeBorder(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), *more, cv2.BORDER_REPLICATE) for frame in frames]
    return np.stack([engine.calc(a, b, None)[:height, :width] for a, b in itertools.pairwise(grey)])


def camera_of(flow: np.ndarray) -> np.ndarray:
    """The part of a flow (H, W, 2) that the camera makes: that of the similarity that most of the picture follows."""
    height, width = flow.shape[:2]
    rows, columns = np.mgrid[2:height:6, 2:width:6]
    points = np.stack([columns.ravel(), rows.ravel()], 1).astype(np.float32)
    cv2.setRNGSeed(0)  # of this thread: the same clip gets the same number
    matrix, inliers = cv2.estimateAffinePartial2D(points, points + flow[rows.ravel(), columns.ravel()], ransacReprojThreshold=0.5)
    if matrix is None or inliers is None or inliers.mean() < 0.3:
        return np.zeros_like(flow)
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    return (grid @ matrix[:, :2].T + matrix[:, 2] - grid).astype(np.float32)


def moving_masks(moves: np.ndarray, least: float = 0.5) -> np.ndarray:
    """Where something moves against the camera: bool (T, H, W) for flows (T - 1, H, W, 2); the last frame as the one before."""
    speed = np.stack([np.linalg.norm(cv2.blur(flow - camera_of(flow), (5, 5)), axis=-1) for flow in moves])
    found = speed > least
    return np.concatenate([found, found[-1:]])


def somebody(pair: Pair, poses: PoseSequence | None, height: int, width: int) -> np.ndarray:
    """Where the limbs of `poses` are; without any, all that moves in the source's clip. Bool (T, height, width)."""
    if poses is not None and any(person.seen for people in poses.frames for person in people):
        return limb_masks(poses, height, width)
    whole = moving_masks(flows(resized(pair.source, height, width))).any(0)
    return np.broadcast_to(whole, (len(pair.source), height, width))

"""Frames to poses: detect, estimate, follow; nothing of a frame is kept but its joints and a few small pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np

from ..poses import Person, PoseSequence
from ..skeleton import draw_people
from .catalogue import PoseModel
from .detector import Detector
from .errors import ExtractError, NobodyError
from .joints import JOINTS, READERS
from .pose_network import PoseNetwork
from .session import Network
from .tracker import MIN_SEEN, Detection, Tracker, looks

PREVIEWS = 16
"""Pictures in a preview, at most."""
PREVIEW_SIDE = 512
"""Pixels of a preview's longer side, at most."""
PATIENCE = 30
"""Frames that somebody may be unseen and still be the same person, where the frame rate is not known; else it is one second."""


@dataclass
class Extracted:
    """What was found in a clip.

    Attributes:
        poses: Every frame lists the same people in the same order; whoever is not seen in it is there without joints.
        preview: RGB (n, h, w, 3), uint8: frames spread over the clip, darkened, with the skeletons on them.
        seconds: From the first frame to the last, getting the frames included, loading the networks not.
        seen: In how many frames each person is.
        left_out: People who are seen shorter than those in the list.
        at_once: How many of those in the list are seen in one frame, at most.
        joined: How many times somebody in the list came back after a cut or a long absence.
    """

    poses: PoseSequence
    preview: np.ndarray
    seconds: float
    seen: list[int] = field(default_factory=list)
    left_out: int = 0
    at_once: int = 0
    joined: int = 0

    @property
    def frames_per_second(self) -> float:
        """How fast it went."""
        return len(self.poses) / max(self.seconds, 1e-9)


class Extractor:
    """A detector and a pose network at work.

    Args:
        model: What they are.
        detector, network: The loaded files.
        threshold: A detection's score must be above it.
        min_confidence: Joints below it are not seen.
        max_people: In the result, and in a frame (the largest).
    """

    def __init__(
        self, model: PoseModel, detector: Network, network: Network, threshold: float, min_confidence: float, max_people: int
    ) -> None:
        self._detect = Detector(detector, model.classes, model.detector_side)
        self._estimate = PoseNetwork(network, JOINTS[model.layout], model.input_size, model.beta)
        self._read = READERS[model.layout]
        self._threshold, self._least, self._most = threshold, min_confidence, max_people

    def detections(self, frame: np.ndarray) -> list[Detection]:
        """Everybody in an RGB frame (H, W, 3), uint8."""
        # of two in turn, one alone would be taken for one person who jumps
        boxes = self._detect(frame, self._threshold, max(self._most, 2))
        return [Detection(box, self._estimate(frame, box), looks(frame, box)) for box in boxes.corners]

    def __call__(
        self,
        frames: Iterable[np.ndarray],
        count: int,
        rate: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Extracted:
        """Poses of a clip.

        Args:
            frames: RGB (H, W, 3), uint8, all of one size. They are looked at one by one and not kept. A frame that comes twice
                in a row (the same object) is looked at once.
            count: How many there are.
            rate: Frames per second, if known.
            progress: Called after each frame; raises to stop.

        Raises:
            ExtractError: no frames, or frames of several sizes. NobodyError: nobody in any of them.
        """
        tracker = Tracker(PATIENCE if not rate else max(1, round(rate)))
        shown = set(np.linspace(0, count - 1, min(count, PREVIEWS)).round().astype(int).tolist()) if count else set()
        pictures: dict[int, np.ndarray] = {}
        size: tuple[int, int] | None = None
        before: np.ndarray | None = None
        found: list[Detection] = []
        began = time.perf_counter()
        for t, frame in enumerate(frames):
            size = size or frame.shape[:2]
            if frame.shape[:2] != size:
                raise ExtractError(
                    f"frame {t} is {frame.shape[1]}x{frame.shape[0]}, expected {size[1]}x{size[0]} as the first; re-encode the "
                    f"video at one size"
                )
            if frame is not before:
                found, before = self.detections(frame), frame
            tracker.add(found)
            if t in shown:
                pictures[t] = _small(frame)
            if progress is not None:
                progress(t + 1, count)
        if size is None:
            raise ExtractError("got zero frames, expected at least one")
        return self._assemble(tracker, size, pictures, time.perf_counter() - began)

    def _assemble(self, tracker: Tracker, size: tuple[int, int], pictures: dict[int, np.ndarray], seconds: float) -> Extracted:
        people = tracker.people(self._most)
        frames = [
            [self._read(track.seen[t].joints, self._least) if t in track.seen else Person() for track in people]
            for t in range(tracker.frames)
        ]
        poses = PoseSequence(frames, *size, tracked=True)
        if not any(person.seen for row in frames for person in row):
            why, lower = self._why_nobody(tracker, bool(people))
            raise NobodyError(
                f"nobody was found in any of the {tracker.frames} frames ({why}), expected somebody in some; lower {lower}, or "
                f"choose the model for what is to be seen"
            )
        preview = np.stack([_overlay(pictures[t], poses, t) for t in sorted(pictures)])
        appearances = sum(track.appearances for track in people)
        return Extracted(
            poses,
            preview,
            seconds,
            seen=[len(track.seen) for track in people],
            left_out=len(tracker.tracks) - appearances,
            at_once=max(sum(t in track.seen for track in people) for t in range(tracker.frames)),
            joined=appearances - len(people),
        )

    def _why_nobody(self, tracker: Tracker, listed: bool) -> tuple[str, str]:
        """The reason, and what to lower."""
        boxes = {t for track in tracker.tracks for t in track.seen}
        if listed:
            return f"there are boxes, but no joint in them has a confidence of {self._least:g}", "min_confidence"
        if boxes:
            return (
                f"there are boxes in {len(boxes)}, but none that goes on for {MIN_SEEN} frames: they are taken for mistakes of the "
                f"detector",
                f"detection_threshold, give stills of several people up to {2 * MIN_SEEN} at a time",
            )
        return f"no box has a score above {self._threshold:g}", "detection_threshold"


def _small(frame: np.ndarray) -> np.ndarray:
    scale = min(1.0, PREVIEW_SIDE / max(frame.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in frame.shape[:2])
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else frame.copy()


def _overlay(picture: np.ndarray, poses: PoseSequence, t: int) -> np.ndarray:
    height, width = picture.shape[:2]
    drawn = draw_people(poses[t : t + 1].fitted(height, width).frames[0], height, width, threshold=0.0)
    return np.where(drawn.any(-1, keepdims=True), drawn, picture // 2)

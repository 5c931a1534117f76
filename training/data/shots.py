"""Changes of shot, by PySceneDetect's adaptive detector: a frame that differs from the one before by far more than its neighbours
do. Slow dissolves are not found."""

from __future__ import annotations

import numpy as np
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

_WINDOW = 2  # frames before and after that a change is compared with
_RATE = 25.0  # frames are counted, not timed


class ShotFinder:
    """Sees the frames of a video one after the other, and knows where shots begin."""

    def __init__(self) -> None:
        self._detector = AdaptiveDetector(min_scene_len=1, window_width=_WINDOW)
        self._count, self._last = 0, np.zeros(0)
        self._starts: list[int] = []

    def __call__(self, index: int, picture: np.ndarray) -> None:
        """Frame `index`, RGB uint8 (H, W, 3); all of one size, small."""
        # an edge of the video has no neighbours: standing pictures take their place, or cuts there would not be seen
        for _ in range(1 + _WINDOW * (index == 0)):
            self._feed(picture)
        self._last = picture

    def _feed(self, picture: np.ndarray) -> None:
        bgr = np.ascontiguousarray(picture[..., ::-1])
        found = self._detector.process_frame(FrameTimecode(self._count, _RATE), bgr)
        self._starts += [code.frame_num - _WINDOW for code in found]
        self._count += 1

    def starts(self) -> list[int]:
        """Frames at which a shot begins, the first of the video included. To be called once, at the end."""
        for _ in range(_WINDOW):
            self._feed(self._last)
        return [0, *sorted({start for start in self._starts if start > 0})]

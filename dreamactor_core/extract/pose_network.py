"""RTMPose, DWPose and RTMW: the crop around a box to joints, by one classification for x and one for y (SimCC)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .errors import ExtractError
from .session import Network

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
"""RGB: what the networks were trained with."""
MARGIN = 1.25
"""A crop is this many times as large as the box in it."""


@dataclass(frozen=True)
class Crop:
    """Where a network's input lies in the frame: its pixel p shows the frame at `corner + p * scale`."""

    corner: np.ndarray
    scale: float

    @classmethod
    def around(cls, box: np.ndarray, height: int, width: int) -> Crop:
        """The crop of the input's aspect ratio around a box (x0, y0, x1, y1), with its margin."""
        sides = (box[2:] - box[:2]) * MARGIN
        scale = max(float(sides[0]) / width, float(sides[1]) / height)
        centre = (box[:2] + box[2:]) / 2
        return cls(centre - np.array([width, height]) * scale / 2, scale)

    def cut(self, frame: np.ndarray, height: int, width: int) -> np.ndarray:
        """The input: black where the crop leaves the frame."""
        back = np.float64([[self.scale, 0, self.corner[0]], [0, self.scale, self.corner[1]]])
        return cv2.warpAffine(frame, back, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)

    def to_frame(self, points: np.ndarray) -> np.ndarray:
        """Pixels of the input (n, 2) to pixels of the frame."""
        return self.corner + points * self.scale


def decode(by_x: np.ndarray, by_y: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Joints (n, 2) in pixels of the input, and their peaks (n,), from scores (n, bins) along x and along y.

    There are several bins to a pixel; a joint is where they peak. It is as sure as the less sure of its two coordinates, and
    not found where a score is NaN or not above 0.
    """
    points = np.stack([by_x.argmax(1) * (width / by_x.shape[1]), by_y.argmax(1) * (height / by_y.shape[1])], 1)
    peaks = np.minimum(by_x.max(1), by_y.max(1))
    return points, np.where(np.isfinite(peaks) & (peaks > 0), peaks, 0)


class PoseNetwork:
    """A pose network and how it is used.

    Args:
        network: With two outputs (1, joints, bins), x and y.
        joints: How many it must have.
        size: Height and width of its input, where the file leaves it open.
        beta: See PoseModel.
    """

    def __init__(self, network: Network, joints: int, size: tuple[int, int], beta: float) -> None:
        self._network, self._joints, self._beta = network, joints, beta
        self._size = network.size or size

    def __call__(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Joints (n, 3) in an RGB frame: x and y in its pixels and a confidence in [0, 1]; 0 is not found."""
        height, width = self._size
        crop = Crop.around(box, height, width)
        outputs = self._network((crop.cut(frame, height, width) - MEAN) / STD)
        self._check([output.shape for output in outputs])
        points, peaks = decode(outputs[0][0], outputs[1][0], height, width)
        confidence = np.clip(peaks * (self._beta / 10), 0, 1)
        joints = np.concatenate([crop.to_frame(points), confidence[:, None]], 1)
        return np.where(confidence[:, None] > 0, joints, 0).astype(np.float32)

    def _check(self, shapes: list[tuple[int, ...]]) -> None:
        height, width = self._size
        whole = len(shapes) == 2 and all(len(shape) == 3 and shape[:2] == (1, self._joints) for shape in shapes)
        if not whole or shapes[0][2] * height != shapes[1][2] * width or shapes[0][2] < width:
            raise ExtractError(
                f"{self._network.path.name} gave {shapes} for an input of {width}x{height}, expected scores along x and along y of "
                f"{self._joints} joints; it is another network than its name says, get it again"
            )

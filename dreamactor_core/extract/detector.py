"""YOLOX: a frame to boxes around whoever is wanted."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass

import cv2
import numpy as np

from .errors import ExtractError
from .session import Network

STRIDES = (8, 16, 32)
PADDING = 114
"""Grey around a letterboxed frame, as in YOLOX's training."""
OVERLAP = 0.45
"""Boxes that share more than this (intersection over union) are one and the same."""
_MOST = 1000
"""Boxes that are compared with each other: at a low threshold a detector gives thousands, of which the last are noise."""


@dataclass(frozen=True)
class Boxes:
    """Found boxes, the surest first: corners (n, 4) as x0, y0, x1, y1 in pixels of the frame, and scores (n,)."""

    corners: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: np.ndarray | slice) -> Boxes:
        return Boxes(self.corners[index], self.scores[index])


def letterbox(frame: np.ndarray, height: int, width: int) -> tuple[np.ndarray, tuple[float, float]]:
    """A frame (H, W, 3) at the top left of a grey canvas, as large as it fits; and its scale in x and y."""
    scale = min(height / frame.shape[0], width / frame.shape[1])
    inner_height, inner_width = max(1, int(frame.shape[0] * scale)), max(1, int(frame.shape[1] * scale))
    canvas = np.full((height, width, 3), PADDING, np.uint8)
    canvas[:inner_height, :inner_width] = cv2.resize(frame, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
    # whole pixels: the two scales are not quite the same
    return canvas, (inner_width / frame.shape[1], inner_height / frame.shape[0])


@functools.lru_cache(maxsize=4)
def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Cell (rows, 2) as x, y, and stride (rows, 1) of every row of the bare output."""
    cells, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], 1))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(cells), np.concatenate(strides)


def decode(raw: np.ndarray, height: int, width: int, classes: Collection[int]) -> Boxes:
    """Boxes of YOLOX's bare output (rows, 5 + classes), in pixels of its input; a row is a cell of a grid.

    A row is the offset of the centre from the cell and the logarithm of the size, both in strides, the certainty that there
    is something, and the share of each class in it.
    """
    cell, stride = _grid(height, width)
    if len(raw) != len(cell):
        raise ExtractError(f"the detector gave {len(raw)} rows, expected {len(cell)} for an input of {width}x{height}")
    shares = raw[:, [5 + k for k in sorted(classes) if 5 + k < raw.shape[1]]]
    if not shares.size:
        raise ExtractError(f"the detector knows {raw.shape[1] - 5} classes and none of {sorted(classes)}; it is another network")
    centre = (raw[:, :2].astype(np.float64) + cell) * stride
    half = np.exp(np.clip(raw[:, 2:4], -20, 20)) * stride / 2
    return Boxes(np.concatenate([centre - half, centre + half], 1), raw[:, 4] * shares.max(1))


def unpack(found: np.ndarray, labels: np.ndarray, classes: Collection[int]) -> Boxes:
    """Boxes of an output that is decoded already: rows (n, 5) of corners and score, and their classes (n,)."""
    wanted = np.isin(labels, sorted(classes))
    return Boxes(found[wanted, :4].astype(np.float64), found[wanted, 4].astype(np.float64))


def keep_best(boxes: Boxes, threshold: float, overlap: float = OVERLAP) -> Boxes:
    """Boxes whose score is above the threshold, without those that a surer one covers. NaN is no box."""
    usable = np.isfinite(boxes.corners).all(1) & (boxes.scores > threshold)
    usable &= (boxes.corners[:, 2:] > boxes.corners[:, :2]).all(1)
    boxes = boxes[usable]
    boxes = boxes[np.argsort(-boxes.scores, kind="stable")[:_MOST]]
    kept: list[int] = []
    left = np.arange(len(boxes))
    while len(left):
        kept.append(int(left[0]))
        left = left[1:]
        left = left[intersection_over_union(boxes.corners[left], boxes.corners[kept[-1]]) <= overlap]
    return boxes[np.array(kept, np.int64)]


def intersection_over_union(some: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Shared area of each of some boxes (..., 4) and another one (4,) over the area of both together."""
    sides = np.minimum(some[..., 2:], other[2:]) - np.maximum(some[..., :2], other[:2])
    shared = np.prod(np.maximum(sides, 0), -1)
    return shared / (np.prod(some[..., 2:] - some[..., :2], -1) + np.prod(other[2:] - other[:2]) - shared)


class Detector:
    """A YOLOX network and how it is used.

    Args:
        network: With one output (1, rows, 5 + classes), or with `dets` (1, n, 5) and `labels` (1, n).
        classes: Whom to find.
        side: Of the square input, where the file leaves it open.
    """

    def __init__(self, network: Network, classes: Collection[int], side: int) -> None:
        self._network, self._classes = network, classes
        self._size = network.size or (side, side)

    def __call__(self, frame: np.ndarray, threshold: float, most: int) -> Boxes:
        """The `most` largest boxes in an RGB frame, inside it, the surest first."""
        height, width = self._size
        canvas, scale = letterbox(frame, height, width)
        boxes = keep_best(self._read(self._network(canvas[:, :, ::-1].astype(np.float32))), threshold)
        corners = boxes.corners / np.array([*scale, *scale])
        corners = np.clip(corners, 0, np.array([frame.shape[1], frame.shape[0]] * 2))
        inside = (corners[:, 2:] - corners[:, :2] >= 1).all(1)
        boxes = Boxes(corners[inside], boxes.scores[inside])
        sizes = np.prod(boxes.corners[:, 2:] - boxes.corners[:, :2], 1)
        return boxes[np.sort(np.argsort(-sizes, kind="stable")[:most])]

    def _read(self, outputs: list[np.ndarray]) -> Boxes:
        shapes = [output.shape for output in outputs]
        if len(outputs) == 1 and len(shapes[0]) == 3 and shapes[0][0] == 1 and shapes[0][2] > 5:
            return decode(outputs[0][0], *self._size, self._classes)
        if len(outputs) == 2 and len(shapes[0]) == 3 and shapes[0][0] == 1 and shapes[0][2] == 5 and shapes[1] == shapes[0][:2]:
            return unpack(outputs[0][0], outputs[1][0], self._classes)
        raise ExtractError(
            f"{self._network.path.name} gave {shapes}, expected a YOLOX detector's (1, rows, 5 + classes), or boxes (1, n, 5) with "
            f"labels (1, n); it is another network than its name says, get it again"
        )

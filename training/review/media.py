"""What the page plays: both clips of a sample side by side in one H.264 file, so that they cannot get out of step."""

from __future__ import annotations

import hashlib
import io
import threading
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from headless.media import MediaError, read_image
from training.errors import UserError
from training.manifest import Sample
from training.video import frames_of, read_clip, write_clip

SIDE = 512
"""Pixels of the longer side of a panel."""
GAP = 12
BACK = 24  # grey level, near that of the page
VERSION = "1"


class Media:
    """Makes and keeps the files of the samples. May be asked from several threads.

    Raises:
        UserError: from all: the sample's files are missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def video(self, sample: Sample) -> Path:
        """MP4 of the clip, the synthesized one on the left half where there is one, and of the moments that both have."""
        files = [path for path in (sample.driving_video, sample.target_video) if path is not None]
        name = _name([*files], str(sample.driving_start))
        target = self._folder / f"{name}.mp4"
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            if not target.is_file():
                write_clip(target, _side_by_side(sample), sample.fps, lossless=False)
        return target

    def reference(self, sample: Sample) -> bytes:
        """PNG of the character that the clip was made from, or is to show: the sample's `driving_reference`, its
        `reference_image`, the first frame of its target."""
        path = sample.driving_reference or sample.reference_image
        try:
            picture = next(frames_of(sample.target_video)) if path is None else read_image(path)
        except MediaError as error:
            raise UserError(str(error)) from error
        buffer = io.BytesIO()
        Image.fromarray(_fitted(picture, *_size(picture))).save(buffer, "PNG")
        return buffer.getvalue()


def _name(paths: list[Path], about: str) -> str:
    digest = hashlib.sha256(f"{VERSION} {SIDE} {about}".encode())
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise UserError(f"{path} can't be read ({error.strerror or error})") from error
        digest.update(f"\0{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]


def _size(picture: np.ndarray) -> tuple[int, int]:
    """Height and width of a panel: even numbers, the longer side SIDE."""
    height, width = picture.shape[:2]
    factor = SIDE / max(height, width)
    return max(2, round(height * factor / 2) * 2), max(2, round(width * factor / 2) * 2)


def _fitted(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Letterboxed; small pictures stay as crisp as they are."""
    factor = min(height / picture.shape[0], width / picture.shape[1])
    size = (min(width, max(1, round(picture.shape[1] * factor))), min(height, max(1, round(picture.shape[0] * factor))))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST if factor >= 3 else cv2.INTER_CUBIC
    out = np.full((height, width, 3), BACK, np.uint8)
    y, x = (height - size[1]) // 2, (width - size[0]) // 2
    out[y : y + size[1], x : x + size[0]] = cv2.resize(picture, size, interpolation=how)
    return out


def _side_by_side(sample: Sample) -> np.ndarray:
    target = read_clip(sample.target_video)[sample.driving_start :]
    if not len(target):
        raise UserError(f"{sample.target_video} has no frame {sample.driving_start}, expected at least one from there on")
    height, width = _size(target[0])
    right = [_fitted(frame, height, width) for frame in target]
    if sample.driving_video is None:
        return np.stack(right)
    left = [_fitted(frame, height, width) for frame in read_clip(sample.driving_video)]
    gap = np.full((height, GAP, 3), BACK, np.uint8)
    return np.stack([np.concatenate([a, gap, b], 1) for a, b in zip(left, right, strict=False)])

"""The copy trap: where the driver is the target itself, a model learns to copy it while its loss looks fine.

Perceptual hashes of the frames over time (ImageHash) say where two clips could be the same, also with some frames' shift. There
they are laid over each other (ECC finds scale and place) and compared where something moves: a copy, however it was encoded,
scaled or cut, is the same there; another character is not, not even before the same background.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import imagehash
import numpy as np
from PIL import Image

from training.data.dropping import Drop

SHIFT = 1.0
"""Seconds by which a copy may be late or early."""
ALIKE = 0.35
"""Share of differing hash bits up to which frames may be of one picture. Copies on Marionette: 0 to 0.30, pairs: 0.13 to 0.5."""
DIFFERENT = 0.18
"""Share of moving pixels that differ from which on it is no copy. Copies on Marionette: 0 to 0.06, pairs: 0.29 to 1; of
clips that stand still: 0 to 0.2, and 0.21 to 1."""

_SIDE = 96  # pixels at which clips are compared
_LEVELS = 32  # of 255: a pixel that differs
_MOVES = 40  # levels by which a pixel changes where something moves
_STILL = 0.01  # share of pixels that move, under which all are compared
_ALL_COUNT = 3  # times so much then: before the same background, another character may be a tenth of the picture
_FRAMES, _PLACES, _ROUNDS = 8, 3, 3  # frames that are compared; shifts to begin with; times that each is bettered


def small(picture: np.ndarray) -> np.ndarray:
    """A picture RGB uint8 (H, W, 3) as it is kept for the comparison."""
    scale = _SIDE / max(picture.shape[:2])
    size = tuple(max(8, round(side * scale)) for side in picture.shape[1::-1])
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def check(target: Sequence[np.ndarray], driver: Sequence[np.ndarray], fps: float) -> None:
    """Raises Drop when the driver is a copy of the target. Both as `small` frames, which stand at the same times."""
    share, shift = unlikeness(target, driver, round(SHIFT * fps))
    if share < DIFFERENT:
        late = f", {abs(shift) / fps:.2f} s {'early' if shift > 0 else 'late'}" if shift else ""
        raise Drop(
            "copy",
            f"the driver shows the target itself{late} ({share:.0%} of what is compared differs); expected "
            "another character",
        )


def unlikeness(target: Sequence[np.ndarray], driver: Sequence[np.ndarray], most: int) -> tuple[float, int]:
    """Least share of moving pixels that differ, and by how many frames the driver is early there.

    Args:
        target, driver: RGB uint8 (h, w, 3). most: Frames of shift that are tried.
    """
    shifts = _shifts(target, driver, most)
    best = (1.0, 0)
    for start in [shift for alike, shift in shifts if alike <= ALIKE][:_PLACES]:
        shift = start
        for _ in range(_ROUNDS):  # the place is found at a shift, then the shift at that place: motions repeat themselves
            picks = range(max(0, shift), min(len(target), len(driver) + shift))
            place = _laid_over(target[picks[len(picks) // 2]], driver[picks[len(picks) // 2] - shift])
            if place is None:
                break
            pair = _Pair(target, driver, place)
            found = min((pair.difference(other), abs(other), other) for _, other in shifts)
            best = min(best, (found[0], found[2]))
            if best[0] < DIFFERENT:
                return best
            if found[2] == shift:
                break
            shift = found[2]
    return best


def _hashes(clip: Sequence[np.ndarray]) -> np.ndarray:
    """phash and dhash of each frame, bool (T, 128)."""
    pictures = [Image.fromarray(picture) for picture in clip]
    return np.stack([np.r_[imagehash.phash(one).hash.ravel(), imagehash.dhash(one).hash.ravel()] for one in pictures])


def _shifts(target: Sequence[np.ndarray], driver: Sequence[np.ndarray], most: int) -> list[tuple[float, int]]:
    """How unlike the hashes are at each shift, the likest first; frame t of the target stands at t - shift of the driver."""
    first, second = _hashes(target), _hashes(driver)
    found = []
    for shift in sorted(range(-most, most + 1), key=abs):
        low, high = max(0, shift), min(len(first), len(second) + shift)
        if high - low >= max(3, len(first) // 3):
            bits = first[low:high] != second[low - shift : high - shift]
            found.append((float(np.median(bits.mean(1))), shift))
    return sorted(found, key=lambda one: one[0])


def _grey(picture: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (0, 0), 1.0).astype(np.float32)


def _laid_over(target: np.ndarray, driver: np.ndarray) -> np.ndarray | None:
    """The affine map (2, 3) from places of the target to those of the driver, None where there is none."""
    start = np.diag(np.array(driver.shape[1::-1]) / target.shape[1::-1])
    start = np.concatenate([start, np.zeros((2, 1))], 1).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-5)
    try:
        return cv2.findTransformECC(_grey(target), _grey(driver), start, cv2.MOTION_AFFINE, stop, None, 5)[1]
    except cv2.error:  # no correlation, as of another picture
        return None


class _Pair:
    """Two clips, the second laid over the first, a little blurred, of like brightness and contrast."""

    def __init__(self, target: Sequence[np.ndarray], driver: Sequence[np.ndarray], place: np.ndarray) -> None:
        size = target[0].shape[1::-1]

        def over(picture: np.ndarray) -> np.ndarray:
            return cv2.warpAffine(picture, place, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)

        inside = over(np.ones(driver[0].shape[:2], np.float32)) > 0.99
        self._apart = inside.mean() < 0.5
        if not self._apart:
            self._first, self._second = (
                np.stack([cv2.GaussianBlur(one, (0, 0), 1.5)[inside] for one in clip]).astype(np.float32)
                for clip in (target, map(over, driver))
            )
            scale = self._first.std((0, 1)) / np.maximum(self._second.std((0, 1)), 1)
            self._second = (self._second - self._second.mean((0, 1))) * scale + self._first.mean((0, 1))

    def difference(self, shift: int) -> float:
        """Share of the moving pixels that differ where frame t of the target stands at t - shift of the driver. Where hardly
        anything moves, three times the share of all pixels."""
        if self._apart:
            return 1.0
        low, high = max(0, shift), min(len(self._first), len(self._second) + shift)
        picks = np.unique(np.linspace(low, high - 1, min(_FRAMES, high - low)).round().astype(int))
        first, second = self._first[picks], self._second[picks - shift]
        moves = (_largest(np.ptp(first, 0)) > _MOVES) | (_largest(np.ptp(second, 0)) > _MOVES)
        unlike = _largest(np.abs(first - second)) > _LEVELS
        if moves.mean() < _STILL:
            return min(1.0, _ALL_COUNT * float(unlike.mean()))
        return float(unlike[:, moves].mean())


def _largest(colours: np.ndarray) -> np.ndarray:
    """(..., 3) -> (...); NumPy's own takes several times as long for an axis so short."""
    return np.maximum(np.maximum(colours[..., 0], colours[..., 1]), colours[..., 2])

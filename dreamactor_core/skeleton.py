"""Skeleton video: poses drawn in the OpenPose manner (coloured limbs on black), in one of the looks that models know."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from .poses import FACE, Person, PoseSequence

BODY_LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
"""Pairs of joints that a limb joins, in drawing order."""

COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0),
    (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255),
    (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
"""RGB by limb and by joint."""

HAND_BONES = tuple((0 if k == 0 else 4 * finger + k, 4 * finger + k + 1) for finger in range(5) for k in range(4))

_SMALL_CANVAS = 256  # below this short side, drawing is supersampled: a stick would be one ragged pixel
_SUPERSAMPLING = 4
_FAR = 1e7  # pixels; OpenCV's coordinates are 32 bits wide, and a letterbox can take a guessed joint beyond that


@dataclass(frozen=True)
class Style:
    """A look.

    Attributes:
        limb_shade: Brightness of a limb against the joints that are drawn over it.
        stick: Half the thickness of a limb in pixels at every size; None grows with the picture, and smooths small ones.
        step: Degrees between the corners of a limb's outline.
        face_points: How many of the 70 points of a face are drawn.
        whole: How coordinates become whole pixels.
    """

    limb_shade: float
    stick: float | None
    step: int
    face_points: int
    whole: Callable[[np.ndarray], np.ndarray]


STYLES = {
    "dwpose": Style(0.6, None, 4, FACE, np.rint),
    "controlnet_aux": Style(0.6, 4.0, 1, FACE, np.trunc),
    # the host's SDPose Draw Keypoints: limbs as bright as joints, and no second pair of eyes in the face
    "sdpose": Style(1.0, 4.0, 1, FACE - 2, np.trunc),
}
"""Looks by name. All have OpenPose's colours; the last two are 4 pixels wide at every size, as their originals are."""


def stick_width(height: int, width: int) -> float:
    """Half the thickness of a limb in pixels: 4 at a short side of 512, never under 2."""
    return max(2.0, 4.0 * min(height, width) / 512)


def _hsv(fraction: float) -> tuple[int, int, int]:
    colour = cv2.cvtColor(np.uint8([[[int(fraction * 180), 255, 255]]]), cv2.COLOR_HSV2RGB)[0, 0]
    return int(colour[0]), int(colour[1]), int(colour[2])


_HAND_COLOURS = tuple(_hsv(i / len(HAND_BONES)) for i in range(len(HAND_BONES)))
_LIMB_ENDS, _HAND_ENDS = np.array(BODY_LIMBS).T, np.array(HAND_BONES).T


def _pixels(points: np.ndarray, style: Style) -> list[list[int]]:
    return style.whole(points[:, :2]).astype(np.int64).tolist()


def _draw_body(canvas: np.ndarray, points: np.ndarray, style: Style, stick: float, threshold: float) -> None:
    seen = points[:, 2] > threshold
    limbs = np.flatnonzero(seen[_LIMB_ENDS].all(0))
    one, other = points[_LIMB_ENDS[:, limbs], :2]
    along = one - other
    middles = style.whole((one + other).astype(np.float64) / 2).astype(np.int64).tolist()
    lengths = style.whole(np.hypot(along[:, 0], along[:, 1]) / 2).astype(np.int64).tolist()
    angles = style.whole(np.degrees(np.arctan2(along[:, 1], along[:, 0]))).astype(np.int64).tolist()
    thick = max(1, round(stick))
    for limb, middle, length, angle in zip(limbs.tolist(), middles, lengths, angles, strict=True):
        outline = cv2.ellipse2Poly(middle, (length, thick), angle, 0, 360, style.step)
        cv2.fillConvexPoly(canvas, outline, [int(c * style.limb_shade) for c in COLOURS[limb]])
    at = _pixels(points, style)
    for i in np.flatnonzero(seen).tolist():
        cv2.circle(canvas, at[i], thick, COLOURS[i], -1)


def _draw_hand(canvas: np.ndarray, points: np.ndarray, style: Style, stick: float, threshold: float) -> None:
    seen = points[:, 2] > threshold
    at = _pixels(points, style)
    thin = max(1, round(stick / 2))
    for bone in np.flatnonzero(seen[_HAND_ENDS].all(0)).tolist():
        a, b = HAND_BONES[bone]
        cv2.line(canvas, at[a], at[b], _HAND_COLOURS[bone], thin)
    thick = max(1, round(stick))
    for i in np.flatnonzero(seen).tolist():
        cv2.circle(canvas, at[i], thick, (0, 0, 255), -1)


def _draw_face(canvas: np.ndarray, points: np.ndarray, style: Style, stick: float, threshold: float) -> None:
    at = _pixels(points, style)
    radius = max(1, round(stick * 0.75))
    for i in np.flatnonzero(points[: style.face_points, 2] > threshold).tolist():
        cv2.circle(canvas, at[i], radius, (255, 255, 255), -1)


def _draw_onto(canvas: np.ndarray, people: list[Person], style: Style, stick: float, threshold: float, scale: int) -> None:
    size = np.float32([scale, scale, 1])
    for person in people:
        for draw, group in (
            (_draw_body, person.body),
            (_draw_hand, person.left_hand),
            (_draw_hand, person.right_hand),
            (_draw_face, person.face),
        ):
            if (group[:, 2] > threshold).any():
                draw(canvas, np.clip(group * size, -_FAR, _FAR), style, stick, threshold)


def _style(name: str) -> Style:
    if name not in STYLES:
        raise ValueError(f"the style is {name!r}, expected one of {', '.join(STYLES)}")
    return STYLES[name]


def _draw_frame(out: np.ndarray, people: list[Person], style: Style, stick: float | None, threshold: float) -> None:
    """Draw onto `out` (H, W, 3), uint8 and black. Only the pixels under a limb or joint are touched."""
    height, width = out.shape[:2]
    smooth = style.stick is None and min(height, width) < _SMALL_CANVAS
    if stick is None:
        stick = stick_width(height, width) if style.stick is None else style.stick
    if not smooth:
        _draw_onto(out, people, style, stick, threshold, 1)
    elif people:
        canvas = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING, 3), np.uint8)
        _draw_onto(canvas, people, style, stick * _SUPERSAMPLING, threshold, _SUPERSAMPLING)
        cv2.resize(canvas, (width, height), dst=out, interpolation=cv2.INTER_AREA)


def draw_people(
    people: list[Person], height: int, width: int, *, threshold: float = 0.3, stick: float | None = None, style: str = "dwpose"
) -> np.ndarray:
    """Draw one frame.

    Args:
        people: Joints in pixels of a `height` x `width` canvas. Joints outside it are clipped, not moved.
        threshold: A joint is drawn when its confidence is above this.
        stick: Half the thickness of a limb in pixels; as the style has it when None.
        style: A name of STYLES.

    Returns:
        RGB, uint8, shape (height, width, 3), black where nothing is drawn.
    """
    out = np.zeros((height, width, 3), np.uint8)
    _draw_frame(out, people, _style(style), stick, threshold)
    return out


def draw_skeleton(
    sequence: PoseSequence,
    height: int,
    width: int,
    *,
    threshold: float = 0.3,
    stick: float | None = None,
    style: str = "dwpose",
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Draw a whole sequence, letterboxed from its own canvas onto `height` x `width`.

    Two threads blacken frames while this one draws: the first touch of fresh memory can cost more than the drawing. The
    drawing itself is left to one, since threads would only pass Python's lock to and fro between its many short calls.

    Returns:
        RGB, uint8, shape (T, height, width, 3). Frames without people are black.
    """
    look = _style(style)
    fitted = sequence.fitted(height, width)
    out = np.empty((len(fitted), height, width, 3), np.uint8)
    with ThreadPoolExecutor(2) as pool:
        try:
            for t, _ in enumerate(pool.map(lambda frame: frame.fill(0), out)):
                _draw_frame(out[t], fitted.frames[t], look, stick, threshold)
                if progress is not None:
                    progress(t + 1, len(fitted))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return out

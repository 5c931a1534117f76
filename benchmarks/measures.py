"""Measures of one result against its truth, next to a reference that is held still.

Frames are RGB uint8 (T, H, W, 3), labels uint8 (T, H, W) as the drawn world makes them (0 background, i + 1 part i,
255 ink).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from kornia.metrics import ssim

from headless.metrics import psnr

STILL_IOU = 0.8
"""A part moves when the held-still reference covers it, on average over the frames, with less than this IoU."""
_FEW = 6  # pixels under which a part is not judged


def psnr_on(result: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> float:
    """PSNR in dB over chosen pixels (T, H, W), or all."""
    return psnr(result.astype(np.float32) / 255, truth.astype(np.float32) / 255, where)


def structural_similarity(result: np.ndarray, truth: np.ndarray) -> float:
    """Mean SSIM over frames, 11-pixel window."""
    a, b = (torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255 for x in (result, truth))
    return float(ssim(a, b, 11).mean())


def segment(frames: np.ndarray, palette: dict[int, list[tuple[int, int, int]]]) -> np.ndarray:
    """Label every pixel with the label whose colour is nearest: uint8 (T, H, W)."""
    labels = np.array([label for label, colours in palette.items() for _ in colours], np.uint8)
    colours = np.array([colour for of_label in palette.values() for colour in of_label], np.float32)
    distance = np.square(frames[..., None, :].astype(np.float32) - colours).sum(-1)
    return labels[distance.argmin(-1)]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks; nan when both are empty."""
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else float("nan")


def moving_parts(labels: np.ndarray, still: np.ndarray, parts: int) -> list[int]:
    """Labels of parts that move in the truth (T, H, W) against the reference's labels (H, W)."""
    moving = []
    for part in range(1, parts + 1):
        if (labels == part).sum(axis=(1, 2)).mean() < _FEW:
            continue
        values = [iou(frame == part, still == part) for frame in labels]
        if np.nanmean(values) < STILL_IOU:
            moving.append(part)
    return moving


def part_iou(found: np.ndarray, labels: np.ndarray, parts: list[int]) -> float:
    """Mean IoU of the given parts over frames; nan when there are none."""
    values = [iou(f == part, t == part) for part in parts for f, t in zip(found, labels, strict=True)]
    return float(np.nanmean(values)) if values else float("nan")


def _centres(labels: np.ndarray, part: int) -> np.ndarray:
    """Middle of a part in each frame, (T, 2) of x and y; nan where there are too few pixels of it."""
    centres = np.full((len(labels), 2), np.nan)
    for t, frame in enumerate(labels):
        y, x = np.nonzero(frame == part)
        if len(x) >= _FEW:
            centres[t] = x.mean(), y.mean()
    return centres


def motion_agreement(found: np.ndarray, labels: np.ndarray, parts: list[int]) -> float:
    """How well the given parts move as in the truth: correlation of their middles' ways, from -1 to 1, 0 for parts held still.

    Ways are taken from each part's mean place, so that a limb that is of another length may still move right. A part that is not
    found in a frame stands at its mean place there. nan when there are no parts.
    """
    ways = [[], []]
    for part in parts:
        true, made = _centres(labels, part), _centres(found, part)
        seen = np.isfinite(true[:, 0])
        if not seen.any():
            continue
        rest = np.nanmean(made, 0) if np.isfinite(made).any() else np.zeros(2)
        ways[0].append(true[seen] - true[seen].mean(0))
        ways[1].append(np.nan_to_num(made[seen] - rest))
    if not ways[0]:
        return float("nan")
    a, b = (np.concatenate(way).ravel() for way in ways)
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else 0.0


def over_parts(errors: np.ndarray) -> float:
    """Mean of `size_errors` or `length_errors` over the parts that were judged; nan when there are none."""
    return float(np.nanmean(errors)) if np.isfinite(errors).any() else float("nan")


def size_error(found: np.ndarray, labels: np.ndarray, parts: int, judged: np.ndarray | None = None) -> float:
    """Mean of `size_errors`; nan when no part can be judged."""
    return over_parts(size_errors(found, labels, parts, judged))


def size_errors(found: np.ndarray, labels: np.ndarray, parts: int, judged: np.ndarray | None = None) -> np.ndarray:
    """How far each part's area over the clip is from that of `labels`: |log ratio|, about 0.1 for a tenth too large, (parts,).

    Nothing of a part counts as a single pixel of it; nan for a part that can't be judged.

    Args:
        judged: Labels (T, H, W) that say which parts are large enough to be judged; None: `labels`.
    """
    maps = (found, labels, labels if judged is None else judged)
    areas = [[int((one == part).sum()) for one in maps] for part in range(1, parts + 1)]
    enough = _FEW * len(labels)
    return np.array([abs(np.log(max(made, 1) / max(true, 1))) if large >= enough else np.nan for made, true, large in areas])


def _lengths(labels: np.ndarray, part: int) -> np.ndarray:
    """How long a part is in each frame, in pixels (T,): of a bar of that length the second moment along it, of the largest piece
    that is seen; nan where there are too few pixels of it."""
    lengths = np.full(len(labels), np.nan)
    for t, frame in enumerate(labels):
        _, pieces, about, _ = cv2.connectedComponentsWithStats((frame == part).astype(np.uint8), connectivity=8)
        areas = about[1:, cv2.CC_STAT_AREA]
        if len(areas) and areas.max() >= _FEW:
            along = np.linalg.eigvalsh(np.cov(np.nonzero(pieces == 1 + areas.argmax()), bias=True))[-1]
            lengths[t] = np.sqrt(12 * along + 1)
    return lengths


def length_error(found: np.ndarray, labels: np.ndarray, parts: int, judged: np.ndarray | None = None) -> float:
    """Mean of `length_errors`; nan when no part can be judged."""
    return over_parts(length_errors(found, labels, parts, judged))


def length_errors(found: np.ndarray, labels: np.ndarray, parts: int, judged: np.ndarray | None = None) -> np.ndarray:
    """How far each part's length over the clip is from that of `labels`, as proportions are ratios of lengths: |log ratio|, about
    0.1 for a tenth too long, (parts,).

    Lengths are those that are seen: limbs begin under another part, have round ends and may leave the picture, so that some six
    tenths of an arm's error show, and eight of a leg's. They are means over the frames, so flicker is not seen. A part that is
    found by less than a third in a frame has no length there, and one found nowhere counts as a pixel; nan for a part that
    can't be judged.

    Args:
        judged: Labels (T, H, W) that say which parts are judged, and in which frames; None: `labels`.
    """
    values = np.full(parts, np.nan)
    for part in range(1, parts + 1):
        true, made = _lengths(labels, part), _lengths(found, part)
        areas = [(one == part).sum(axis=(1, 2)) for one in (labels, found)]
        made = np.where(areas[1] * 3 >= areas[0], np.nan_to_num(made), 0)  # a fringe of something else is no part
        seen = np.isfinite(true if judged is None else _lengths(judged, part))
        if seen.sum() * 2 >= len(labels):
            values[part - 1] = abs(np.log(max(made[seen].mean(), 1) / max(np.nan_to_num(true)[seen].mean(), 1)))
    return values


def colour_error(frames: np.ndarray, labels: np.ndarray, colours: dict[int, tuple[int, int, int]]) -> float:
    """How far the parts' colours are from their own, in [0, 1]; nan when no part can be judged.

    A part's colour is the median, by channel, of all pixels of the clip that the truth (T, H, W) gives to it, less its
    edge of one pixel. So a part may be out of place in less than half of its pixels, and a part that wears another
    colour, be it the driver's or another part's, is found out.
    """
    errors = []
    for part, colour in colours.items():
        inside = np.stack([cv2.erode((frame == part).astype(np.uint8), np.ones((3, 3))) for frame in labels]) > 0
        pixels = frames[inside]
        if len(pixels) >= _FEW:
            errors.append(np.abs(np.median(pixels, 0) - np.float32(colour)).mean() / 255)
    return float(np.mean(errors)) if errors else float("nan")

"""The networks' joints as OpenPose's: 18 of the body, 70 of the face, 21 of each hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..poses import BODY, Person

JOINTS = {"coco_wholebody": 133, "ap10k": 17}
"""How many there are in each layout."""

_BODY_OF_COCO = (0, -1, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""OpenPose's joint from COCO's, by index; -1 is the neck, which COCO has not."""
_NECK, _SHOULDERS = 1, (5, 6)
_FACE, _LEFT_HAND, _RIGHT_HAND = slice(23, 91), slice(91, 112), slice(112, 133)  # 17 to 22 are the feet
_EYES = (2, 1)  # right and left, as OpenPose's 69th and 70th point of a face

_BODY_OF_AP10K = (2, 3, 8, 9, 10, 5, 6, 7, 14, 15, 16, 11, 12, 13, 1, 0, -1, -1)
"""OpenPose's joint from AP-10K's, by index: forelegs are arms, hind legs are legs. -1: AP-10K has no ears. The root of the tail,
its index 4, has no counterpart."""


def _sure(points: np.ndarray, least: float) -> np.ndarray:
    """Points (n, 3) with those below the least confidence set to not seen."""
    return np.where(points[:, 2:] >= max(least, np.finfo(np.float32).tiny), points, 0).astype(np.float32)


def from_coco_wholebody(points: np.ndarray, least: float = 0.0) -> Person:
    """A person from COCO-WholeBody's 133 joints (x, y, confidence); joints below the least confidence are not seen.

    The neck is between the shoulders and as sure as the less sure of them.
    """
    points = _sure(points, least)
    shoulders = points[list(_SHOULDERS)]
    neck = np.append(shoulders[:, :2].mean(0), shoulders[:, 2].min()) if shoulders[:, 2].all() else np.zeros(3)
    body = points[list(_BODY_OF_COCO)]
    body[_NECK] = neck
    face = np.concatenate([points[_FACE], points[list(_EYES)]])
    if not points[_FACE, 2].any():
        face[:] = 0  # the body's eyes alone are no face
    return Person(body=body, face=face, left_hand=points[_LEFT_HAND], right_hand=points[_RIGHT_HAND])


def from_ap10k(points: np.ndarray, least: float = 0.0) -> Person:
    """An animal from AP-10K's 17 joints, as a person whose arms are its forelegs; it has neither ears, face nor hands."""
    points = _sure(points, least)
    body = np.zeros((BODY, 3), np.float32)
    known = np.array(_BODY_OF_AP10K) >= 0
    body[known] = points[np.array(_BODY_OF_AP10K)[known]]
    return Person(body=body)


READERS: dict[str, Callable[[np.ndarray, float], Person]] = {"coco_wholebody": from_coco_wholebody, "ap10k": from_ap10k}
"""By layout."""

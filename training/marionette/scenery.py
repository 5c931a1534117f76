"""Where it happens: backgrounds of muted colours, and cameras that stand still or drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

FLOOR = 0.93
"""Height of the floor line, in fractions of the panel height from the top."""


@dataclass(frozen=True)
class Background:
    """A wall, a floor and vertical bars on the wall. Colours are muted RGB in [0, 255], unlike any part's."""

    kind: Literal["plain", "floor", "bars"]
    wall: tuple[int, int, int]
    ground: tuple[int, int, int]
    bar: tuple[int, int, int]
    bar_width: float


@dataclass(frozen=True)
class Camera:
    """Per frame zoom and pan: a world point p is seen at (p - pan[t]) * zoom[t]. Panel heights."""

    zoom: np.ndarray
    pan: np.ndarray


def _muted(rng: np.random.Generator) -> tuple[int, int, int]:
    value = rng.uniform(90, 235)
    return tuple(int(c) for c in np.clip(value + rng.uniform(-14, 14, 3), 0, 255))


def sample_background(rng: np.random.Generator) -> Background:
    kind = rng.choice(["plain", "floor", "bars"], p=[0.4, 0.4, 0.2])
    wall = _muted(rng)
    bar = tuple(int(np.clip(c + rng.uniform(-30, 30), 60, 245)) for c in wall)
    return Background(str(kind), wall, _muted(rng), bar, float(rng.uniform(0.12, 0.25)))


def sample_camera(rng: np.random.Generator, frames: int, moving: bool | None = None) -> Camera:
    """A still camera, or (one time in five, or as told) one that slowly pans and zooms."""
    zoom, pan = np.ones(frames), np.zeros((frames, 2))
    if rng.random() < 0.2 if moving is None else moving:
        ramp = np.linspace(-0.5, 0.5, frames)
        zoom = np.exp(ramp * rng.uniform(-0.12, 0.12) - 0.02)
        pan[:, 0] = ramp * rng.uniform(-0.1, 0.1)
    return Camera(zoom, pan)

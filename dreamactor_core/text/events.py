"""Movements read off the curves of a body: which limb goes where, when, how far. The sentences are made in `phrases`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .limbs import SIDES, Figure

Kind = Literal["plus", "minus", "plus_back", "minus_back", "swings"]

LEAST = 0.3
"""Body lengths of the smallest movement that is told."""
_TOGETHER = 0.12  # share of a step within which two limbs begin at once

_KINDS: dict[tuple[int, ...], Kind] = {(1,): "plus", (-1,): "minus", (1, -1): "plus_back", (-1, 1): "minus_back"}


@dataclass(frozen=True)
class Event:
    """A movement of one part in one step.

    Attributes:
        part: "right_arm", "legs", "trunk" ...
        axis: "up", "out", "lift" ...
        size: Body lengths.
        onset: Share of the step after which it begins.
        place: Where a hand is in the end, see `place_of`.
    """

    part: str
    axis: str
    kind: Kind
    size: float
    onset: float
    place: tuple[str, str] | None = None


def place_of(figure: Figure, side: str, t: int) -> tuple[str, str] | None:
    """Height and side of a hand, relative to the body; None where it is not seen."""
    out, up = figure.arms[side][t]
    past = figure.past_middle[side][t]
    if not np.isfinite([out, up]).all():
        return None
    steps = (("above_head", 1.8 * figure.head), ("head", 0.55 * figure.head), ("shoulder", -0.3), ("chest", -0.6), ("waist", -0.85))
    height = next((name for name, least in steps if up > least), "hip")
    if np.isfinite(past) and past < -0.12:
        return height, "past_middle"
    return height, "out" if out > 0.45 else "middle" if out < -0.15 else "beside"


def _stretches(values: np.ndarray, least: float) -> list[int]:
    """Signs of the successive stretches of a curve, each of at least `least`."""
    signs: list[int] = []
    low = high = values[0]
    for value in values[1:]:
        low, high = min(low, value), max(high, value)
        sign = signs[-1] if signs else 0
        if sign <= 0 and value - low >= least:
            signs.append(1)
            low = high = value
        elif sign >= 0 and high - value >= least:
            signs.append(-1)
            low = high = value
    return signs


def _kind(values: np.ndarray) -> tuple[Kind, float] | None:
    size = float(values.max() - values.min())
    if size < LEAST:
        return None
    signs = _stretches(values, max(0.6 * LEAST, 0.3 * size))
    return _KINDS.get(tuple(signs), "swings"), size


class _Curve:
    """One coordinate of one part, read step after step: a slow movement is told when it has become large enough."""

    def __init__(self, part: str, axis: str, values: np.ndarray) -> None:
        self.part, self.axis, self._values = part, axis, values
        self._told: float | None = None

    def read(self, first: int, last: int) -> Event | None:
        """The movement from frame `first` to `last`, if there is one."""
        seen = self._values[first : last + 1]
        seen = seen[np.isfinite(seen)]
        if len(seen) * 2 <= last - first:
            return None  # hidden for most of the step
        told = seen[0] if self._told is None else self._told
        self._told = float(told)
        found = _kind(np.concatenate([[told], seen]))
        if found is None:
            return None
        self._told = float(seen[-1])
        moved = np.flatnonzero(np.abs(seen - seen[0]) > 0.25 * found[1])
        return Event(self.part, self.axis, found[0], found[1], float(moved[0]) / len(seen) if len(moved) else 0.0)


def _curves(figure: Figure) -> list[list[_Curve]]:
    """All curves, those of one part together: of these only the larger movement is told."""
    feet = (np.maximum(figure.lift, 0), np.maximum(-figure.lift, 0))
    parts = [[_Curve("trunk", "lean", figure.lean)], [_Curve("head", "tilt", figure.tilt)], [_Curve("knees", "bend", figure.knees)]]
    parts += [[_Curve("body", "across", figure.across)], [_Curve("body", "jump", figure.off_ground)]]
    parts += [[_Curve("figure", "size", figure.nearer)]]
    for side, foot in zip(SIDES, feet, strict=True):
        parts.append([_Curve(f"{side}_arm", "up", figure.arms[side][:, 1]), _Curve(f"{side}_arm", "out", figure.arms[side][:, 0])])
        parts.append([_Curve(f"{side}_leg", "lift", foot), _Curve(f"{side}_leg", "out", figure.legs[side])])
    return parts


def _joined(events: list[Event]) -> list[Event]:
    """Both arms, or both legs, that do the same at once are one event."""
    left = {event.part: event for event in events}
    for limb in ("arm", "leg"):
        a, b = left.get(f"right_{limb}"), left.get(f"left_{limb}")
        if a is None or b is None or abs(a.onset - b.onset) > _TOGETHER:
            continue
        if (a.axis, a.kind, a.place) == (b.axis, b.kind, b.place):
            del left[f"left_{limb}"], left[f"right_{limb}"]
            left[f"{limb}s"] = replace(a, part=f"{limb}s", size=max(a.size, b.size), onset=min(a.onset, b.onset))
    return sorted(left.values(), key=lambda event: (round(event.onset, 3), -event.size, event.part))


def events_of(figure: Figure, steps: Sequence[tuple[int, int]]) -> list[list[Event]]:
    """The movements of each step (first and last frame), in the order in which they begin."""
    parts = _curves(figure)
    told = []
    for first, last in steps:
        largest: dict[str, Event] = {}
        for part in parts:
            for event in filter(None, (curve.read(first, last) for curve in part)):
                # up and down comes first in a part, and says more than outwards and inwards of the same size
                if event.part not in largest or event.size > 1.1 * largest[event.part].size:
                    largest[event.part] = event
        placed = []
        for event in largest.values():
            side = event.part.partition("_")[0]
            seen = np.flatnonzero(np.isfinite(figure.arms[side][first : last + 1]).all(1)) if event.part.endswith("_arm") else []
            placed.append(replace(event, place=place_of(figure, side, first + int(seen[-1]))) if len(seen) else event)
        told.append(_joined(placed))
    return told

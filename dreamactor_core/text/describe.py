"""Motion text from keypoints alone: which limb goes where, in order. No model, no guess, and nothing about looks."""

from __future__ import annotations

import numpy as np

from ..clips import check_fps
from ..poses import PoseFormatError, PoseSequence
from .budget import SECONDS
from .events import LEAST, events_of, place_of
from .limbs import SIDES, Figure, figure_of, follow
from .phrases import PHRASES, Phrases
from .prompts import Language


def _first(values: np.ndarray, reach: int) -> float:
    """The first value that is seen within `reach` frames, else NaN."""
    seen = values[: reach + 1][np.isfinite(values[: reach + 1])]
    return float(seen[0]) if len(seen) else float("nan")


def _initial(figure: Figure, reach: int, words: Phrases) -> str:
    """The pose in the first frame."""
    lean = _first(figure.lean, reach)
    posture = "unknown" if not np.isfinite(lean) else "upright" if abs(lean) < 0.25 else "right" if lean > 0 else "left"
    arms = {}
    for side in SIDES:
        seen = np.flatnonzero(np.isfinite(figure.arms[side][: reach + 1]).all(1))
        place = place_of(figure, side, int(seen[0])) if len(seen) else None
        if place is None:
            continue
        elbow = figure.elbows[side][int(seen[0])]
        hangs = place in (("hip", "beside"), ("waist", "beside")) and not elbow < 120
        arms[side] = "hangs" if hangs else (place, bool(elbow < 120))
    clauses = []
    if len(arms) == 2 and arms["right"] == arms["left"]:
        clauses.append(words.arm("both", arms["right"]))
    else:
        clauses += [words.arm(side, state) for side, state in arms.items()]
    for side in SIDES:
        facing = figure.backs[side][: reach + 1]
        if facing.any():
            clauses.append(words.palm(side, bool(facing[facing != 0][0] > 0)))
    lift, knees = _first(figure.lift, reach), _first(figure.knees, reach)
    if np.isfinite(lift) and abs(lift) >= LEAST:
        clauses.append(words.foot("right" if lift > 0 else "left"))
    elif np.isfinite(knees):
        clauses.append(words.knees_bent if knees >= LEAST else words.legs_straight)
    tilt = _first(figure.tilt, reach)
    if np.isfinite(tilt) and abs(tilt) >= LEAST:
        clauses.append(words.head("right" if tilt > 0 else "left"))
    return words.pose(posture, clauses)


def describe_motion(sequence: PoseSequence, fps: float, language: Language = "en") -> str:
    """The motion text of the first five seconds of poses, in the frame that a motion text must have.

    The time after the first frame is told in four steps of equal length.

    Raises:
        PoseFormatError: nobody is seen in those seconds.
    """
    check_fps(fps, "the poses' fps")
    window = sequence[: max(1, round(SECONDS * fps))]
    tracks = follow(window)
    if not tracks:
        raise PoseFormatError(
            f"nobody can be seen in the first {len(window)} frames of the poses, expected a person; check the pose extractor"
        )
    words = PHRASES[language]
    figures = [figure_of(track, fps) for track in tracks]
    edges = np.linspace(0, len(window) - 1, 5).round().astype(int)
    steps = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    reach = min(len(window) - 1, round(0.25 * fps))
    poses = [_initial(figure, reach, words) for figure in figures]
    moves = [[words.movement(event) for event in step] for figure in figures for step in events_of(figure, steps)]
    absent = [not np.isfinite(track.body[min(a + 1, b) : b + 1]).any() for track in tracks for a, b in steps]
    clauses = [words.unseen if gone else words.joined(told) for gone, told in zip(absent, moves, strict=True)]
    by_person = [clauses[4 * k : 4 * k + 4] for k in range(len(figures))]
    return words.paragraph(poses, by_person)

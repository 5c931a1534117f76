"""What characters do: a motion is a smooth curve of joint parameters over time, free of any body's lengths.

The same motion can be drawn on every character of its body family (`biped`, `quadruped`, `bird`), which gives every
cross-identity pair its ground truth. Angles are radians; displacements are in leg lengths; time is in frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Family = Literal["biped", "quadruped", "bird"]

PARAMETERS: dict[Family, tuple[str, ...]] = {
    # shoulder: 0 hangs down, pi/2 points outwards, pi points up; elbow: 0 straight, positive bends towards the head;
    # lift: 0 leg straight, 1 knee raised towards the viewer (drawn by foreshortening)
    "biped": (
        "shift", "jump", "crouch", "lean", "head",
        "right_shoulder", "right_elbow", "left_shoulder", "left_elbow",
        "right_hip", "right_lift", "left_hip", "left_lift",
    ),
    # hip angles: 0 hangs down, positive swings forward
    "quadruped": (
        "shift", "jump", "pitch", "neck", "tail",
        "near_front", "near_front_bend", "far_front", "far_front_bend",
        "near_hind", "near_hind_bend", "far_hind", "far_hind_bend",
    ),
    # wings: 0 folded back along the body, positive raised
    "bird": ("shift", "jump", "pitch", "neck", "tail", "near_wing", "far_wing", "near_leg", "far_leg"),
}  # fmt: skip

_REST: dict[Family, dict[str, float]] = {
    "biped": {"right_shoulder": 0.25, "left_shoulder": 0.25, "right_elbow": 0.1, "left_elbow": 0.1,
              "right_hip": 0.08, "left_hip": 0.08},
    "quadruped": {"neck": 0.7, "tail": 0.5},
    "bird": {"neck": 0.9, "tail": 0.2, "near_wing": 0.1, "far_wing": 0.1},
}  # fmt: skip

_RANGE: dict[Family, dict[str, tuple[float, float]]] = {
    "biped": {
        "shift": (-0.12, 0.12), "crouch": (0.0, 0.35), "lean": (-0.22, 0.22), "head": (-0.3, 0.3),
        "right_shoulder": (0.1, 2.9), "right_elbow": (-0.9, 1.8), "left_shoulder": (0.1, 2.9), "left_elbow": (-0.9, 1.8),
        "right_hip": (0.0, 0.7), "right_lift": (0.0, 0.4), "left_hip": (0.0, 0.7), "left_lift": (0.0, 0.4),
    },
    "quadruped": {
        "shift": (-0.12, 0.12), "pitch": (-0.3, 0.3), "neck": (-0.3, 1.4), "tail": (-0.6, 1.4),
        "near_front": (-0.7, 0.9), "near_front_bend": (-0.9, 0.1), "far_front": (-0.7, 0.9), "far_front_bend": (-0.9, 0.1),
        "near_hind": (-0.9, 0.7), "near_hind_bend": (-0.1, 0.9), "far_hind": (-0.9, 0.7), "far_hind_bend": (-0.1, 0.9),
    },
    "bird": {
        "shift": (-0.15, 0.15), "pitch": (-0.3, 0.4), "neck": (-0.5, 1.5), "tail": (-0.5, 0.8),
        "near_wing": (-0.4, 2.4), "far_wing": (-0.4, 2.4), "near_leg": (-0.7, 0.7), "far_leg": (-0.7, 0.7),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Motion:
    """A named curve: `values[t, p]` holds parameter p (order of PARAMETERS) at frame t."""

    name: str
    family: Family
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)


Curve = dict[str, np.ndarray]


def _swing(t: np.ndarray, rng: np.random.Generator, low: float, high: float, period: tuple[float, float]) -> np.ndarray:
    """A cosine between two values with a random phase and a random share of the full amplitude."""
    middle, half = (low + high) / 2, (high - low) / 2 * rng.uniform(0.7, 1.0)
    return middle + half * np.cos(2 * np.pi * (t / rng.uniform(*period) + rng.random()))


def _wave(t: np.ndarray, rng: np.random.Generator) -> Curve:
    side = rng.choice(["right", "left"])
    return {
        f"{side}_shoulder": np.full_like(t, rng.uniform(1.3, 2.3)),
        f"{side}_elbow": _swing(t, rng, -0.3, 1.5, (22, 34)),
        "head": _swing(t, rng, -0.15, 0.15, (30, 50)),
    }


def _raise_arms(t: np.ndarray, rng: np.random.Generator) -> Curve:
    lift = _swing(t, rng, 0.2, 2.8, (34, 56))
    return {"right_shoulder": lift, "left_shoulder": lift.copy()}


def _alternate_arms(t: np.ndarray, rng: np.random.Generator) -> Curve:
    lift = _swing(t, rng, -1.0, 1.0, (34, 56))
    return {"right_shoulder": 1.4 + 1.2 * lift, "left_shoulder": 1.4 - 1.2 * lift}


def _clap(t: np.ndarray, rng: np.random.Generator) -> Curve:
    upper = rng.uniform(0.7, 1.0)
    elbow = _swing(t, rng, -1.3, 0.6, (24, 36)) - upper
    arm = np.full_like(t, upper)
    return {"right_shoulder": arm, "left_shoulder": arm.copy(), "right_elbow": elbow, "left_elbow": elbow.copy()}


def _squat(t: np.ndarray, rng: np.random.Generator) -> Curve:
    crouch = _swing(t, rng, 0.0, 0.42, (30, 48))
    arms = 0.3 + crouch * rng.uniform(1.5, 3.2)
    return {"crouch": crouch, "right_shoulder": arms, "left_shoulder": arms.copy(),
            "right_hip": 0.1 + 0.6 * crouch, "left_hip": 0.1 + 0.6 * crouch}  # fmt: skip


def _jumping_jack(t: np.ndarray, rng: np.random.Generator) -> Curve:
    swing = _swing(t, rng, 0.0, 1.0, (32, 48))
    hips = 0.05 + 0.4 * swing
    return {"right_shoulder": 0.3 + 2.3 * swing, "left_shoulder": 0.3 + 2.3 * swing, "right_hip": hips,
            "left_hip": hips.copy(), "jump": 0.12 * np.sin(np.pi * swing)}  # fmt: skip


def _kick(t: np.ndarray, rng: np.random.Generator) -> Curve:
    side, other = rng.permutation(["right", "left"])
    return {f"{side}_hip": _swing(t, rng, 0.05, 1.0, (28, 44)), f"{other}_shoulder": _swing(t, rng, 0.4, 1.6, (28, 44)),
            "lean": _swing(t, rng, -0.12, 0.12, (30, 50))}  # fmt: skip


def _march(t: np.ndarray, rng: np.random.Generator) -> Curve:
    step = _swing(t, rng, -1.0, 1.0, (24, 36))
    return {
        "right_lift": 0.5 * np.clip(step, 0, 1), "left_lift": 0.5 * np.clip(-step, 0, 1),
        "right_shoulder": 0.5 + 0.35 * step, "left_shoulder": 0.5 - 0.35 * step,
        "right_elbow": np.full_like(t, 0.6), "left_elbow": np.full_like(t, 0.6), "shift": 0.04 * step,
    }  # fmt: skip


def _sway(t: np.ndarray, rng: np.random.Generator) -> Curve:
    sway = _swing(t, rng, -1.0, 1.0, (30, 50))
    return {"lean": 0.25 * sway, "head": -0.2 * sway, "shift": 0.08 * sway,
            "right_shoulder": 0.8 + 0.6 * sway, "left_shoulder": 0.8 - 0.6 * sway}  # fmt: skip


def _random_curve(t: np.ndarray, rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Smooth passage through random values, one every 16 to 28 frames."""
    gap = rng.uniform(16, 28)
    knots = rng.uniform(low, high, int(len(t) / gap) + 4)
    place = t / gap + rng.random()
    left = place.astype(int)
    blend = (1 - np.cos(np.pi * (place - left))) / 2
    return knots[left] * (1 - blend) + knots[left + 1] * blend


def _dance(family: Family) -> Callable[[np.ndarray, np.random.Generator], Curve]:
    def curve(t: np.ndarray, rng: np.random.Generator) -> Curve:
        return {name: _random_curve(t, rng, low, high) for name, (low, high) in _RANGE[family].items()}

    return curve


def _walk(t: np.ndarray, rng: np.random.Generator) -> Curve:
    phase = 2 * np.pi * (t / rng.uniform(26, 40) + rng.random())
    size, offset = rng.uniform(0.45, 0.7), rng.choice([0.5, 1.0]) * np.pi
    curve: Curve = {}
    for leg, shift in (("near_front", 0.0), ("far_front", np.pi), ("near_hind", offset), ("far_hind", offset + np.pi)):
        curve[leg] = size * np.sin(phase + shift)
        bend = 0.7 * np.clip(np.cos(phase + shift), 0, 1)
        curve[f"{leg}_bend"] = -bend if "front" in leg else bend
    curve["neck"] = 0.7 + 0.15 * np.sin(2 * phase)
    return curve


def _nod(t: np.ndarray, rng: np.random.Generator) -> Curve:
    return {"neck": _swing(t, rng, -0.4, 1.3, (28, 44)), "tail": _swing(t, rng, -0.5, 1.4, (22, 36))}


def _rear(t: np.ndarray, rng: np.random.Generator) -> Curve:
    pitch = _swing(t, rng, 0.0, 0.5, (32, 48))
    return {"pitch": pitch, "near_front": 1.2 * pitch, "far_front": 0.8 * pitch, "near_front_bend": -1.6 * pitch,
            "far_front_bend": -1.2 * pitch, "tail": 0.5 - pitch}  # fmt: skip


def _paw(t: np.ndarray, rng: np.random.Generator) -> Curve:
    leg = rng.choice(["near_front", "far_front"])
    return {leg: _swing(t, rng, 0.0, 1.2, (24, 36)), f"{leg}_bend": _swing(t, rng, -1.0, 0.0, (24, 36)),
            "tail": _swing(t, rng, -0.3, 1.2, (24, 36))}  # fmt: skip


def _flap(t: np.ndarray, rng: np.random.Generator) -> Curve:
    wing = _swing(t, rng, 0.0, 2.3, (26, 40))
    return {"near_wing": wing, "far_wing": wing.copy(), "jump": 0.12 * (wing - wing.min()) / 2.3}


def _peck(t: np.ndarray, rng: np.random.Generator) -> Curve:
    peck = _swing(t, rng, 0.0, 1.0, (28, 44))
    return {"neck": 1.2 - 1.7 * peck, "pitch": -0.3 * peck, "tail": 0.2 + 0.5 * peck}


def _strut(t: np.ndarray, rng: np.random.Generator) -> Curve:
    step = _swing(t, rng, -1.0, 1.0, (24, 36))
    return {"near_leg": 0.6 * step, "far_leg": -0.6 * step, "neck": 0.9 + 0.3 * step, "near_wing": 0.4 + 0.4 * step}


MOTIONS: dict[Family, dict[str, Callable[[np.ndarray, np.random.Generator], Curve]]] = {
    "biped": {
        "waves": _wave, "raises both arms": _raise_arms, "swings the arms": _alternate_arms, "claps": _clap,
        "squats": _squat, "does a jumping jack": _jumping_jack, "kicks": _kick, "marches": _march, "sways": _sway,
        "dances": _dance("biped"),
    },
    "quadruped": {"walks": _walk, "nods": _nod, "rears": _rear, "lifts a paw": _paw, "dances": _dance("quadruped")},
    "bird": {"flaps": _flap, "pecks": _peck, "struts": _strut, "dances": _dance("bird")},
}  # fmt: skip
"""Named motions by body family. `dances` passes through random poses and is drawn most often."""

_DANCE_SHARE = 0.4


def family_of(plan: str) -> Family:
    """Body family of a plan: humans and cartoon bodies share their motions."""
    return "biped" if plan in ("human", "cartoon") else plan  # type: ignore[return-value]


def _rest(family: Family, frames: int) -> np.ndarray:
    return np.tile([_REST[family].get(name, 0.0) for name in PARAMETERS[family]], (frames, 1))


def sample_motion(rng: np.random.Generator, family: Family, frames: int, name: str | None = None) -> Motion:
    """Draw a motion of `frames` frames, of the given name or a random one."""
    names = list(MOTIONS[family])
    if name is None:
        others = (1 - _DANCE_SHARE) / (len(names) - 1)
        name = str(rng.choice(names, p=[_DANCE_SHARE if n == "dances" else others for n in names]))
    t = np.arange(frames, dtype=np.float64)
    values = _rest(family, frames)
    for parameter, curve in MOTIONS[family][name](t, rng).items():
        values[:, PARAMETERS[family].index(parameter)] = curve
    return Motion(name, family, values)


def sample_pose(rng: np.random.Generator, family: Family) -> np.ndarray:
    """A standing pose near rest, or (three times in ten) a pose out of a random motion. Shape (parameters,)."""
    if rng.random() < 0.3:
        return sample_motion(rng, family, 1).values[0]
    pose = _rest(family, 1)[0]
    for name, (low, high) in _RANGE[family].items():
        pose[PARAMETERS[family].index(name)] += rng.normal(0, 0.06) * (high - low)
    return pose


def lead_in(pose: np.ndarray, motion: Motion, frames: int) -> Motion:
    """Replace the first `frames` frames by an eased travel from `pose` to the motion at `frames` (the lead-in)."""
    values = motion.values.copy()
    blend = (1 - np.cos(np.pi * np.arange(frames) / frames)) / 2
    values[:frames] = pose + (values[frames] - pose) * blend[:, None]
    return Motion(motion.name, motion.family, values)

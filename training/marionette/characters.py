"""Who can appear in the world: body plans, proportions and colours.

Lengths are fractions of the panel height. Every part of a character has its own flat colour, so that a
picture of the character can be segmented by colour alone and compared with the truth.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Literal

import numpy as np

Plan = Literal["human", "cartoon", "quadruped", "bird"]
PLANS: tuple[Plan, ...] = ("human", "cartoon", "quadruped", "bird")

PARTS: dict[Plan, tuple[str, ...]] = {
    "human": ("head", "torso", "right_arm", "left_arm", "right_leg", "left_leg"),
    "cartoon": ("head", "torso", "right_arm", "left_arm", "right_leg", "left_leg"),
    "quadruped": ("head", "torso", "near_front", "far_front", "near_hind", "far_hind", "tail"),
    "bird": ("head", "torso", "near_wing", "far_wing", "near_leg", "far_leg", "tail"),
}
"""Part names by body plan; a part's label in a label map is its index here plus one (0 is background)."""

# Hues far enough apart that the VAE's error never moves a pixel from one part to another. (hue, saturation, value)
_PALETTE = (
    (0.00, 0.85, 0.90), (0.07, 0.90, 0.98), (0.15, 0.85, 0.98), (0.30, 0.80, 0.75), (0.40, 0.75, 0.45),
    (0.50, 0.75, 0.90), (0.58, 0.85, 0.95), (0.66, 0.80, 0.65), (0.77, 0.65, 0.85), (0.90, 0.60, 0.98),
)  # fmt: skip


@dataclass(frozen=True)
class Character:
    """One identity.

    Attributes:
        plan: Body plan; decides which parameters a motion has and which parts exist.
        proportions: Named lengths and thicknesses, in fractions of the panel height.
        colours: RGB in [0, 255] by part name.
        boxy: Limbs and torso drawn with square ends (robots) instead of round ones.
        hair: RGB of the cap of hair or crest, None for a bald head.
    """

    plan: Plan
    proportions: dict[str, float]
    colours: dict[str, tuple[int, int, int]]
    boxy: bool
    hair: tuple[int, int, int] | None


def _colours(rng: np.random.Generator, plan: Plan) -> dict[str, tuple[int, int, int]]:
    picks = rng.permutation(len(_PALETTE))[: len(PARTS[plan])]
    colours = {}
    for part, pick in zip(PARTS[plan], picks, strict=True):
        hue, saturation, value = np.array(_PALETTE[pick]) + rng.uniform(-1, 1, 3) * (0.012, 0.06, 0.05)
        rgb = colorsys.hsv_to_rgb(hue % 1.0, float(np.clip(saturation, 0, 1)), float(np.clip(value, 0, 1)))
        colours[part] = tuple(round(c * 255) for c in rgb)
    return colours


def _biped(rng: np.random.Generator, plan: Plan) -> dict[str, float]:
    if plan == "human":
        height, head = rng.uniform(0.70, 0.80), rng.uniform(0.19, 0.23)
        legs, width = rng.uniform(0.46, 0.54), rng.uniform(0.16, 0.21)
        arm, limb = rng.uniform(0.32, 0.37), rng.uniform(0.075, 0.095)
    else:
        height, head = rng.uniform(0.62, 0.74), rng.uniform(0.34, 0.44)
        legs, width = rng.uniform(0.36, 0.48), rng.uniform(0.17, 0.25)
        arm, limb = rng.uniform(0.28, 0.33), rng.uniform(0.085, 0.115)
    head_size = head * height
    body = height - head_size * 0.9
    return {
        "head": head_size / 2,  # radius
        "torso": body * (1 - legs),
        "leg": body * legs,
        "shoulders": width * 0.5,  # half the distance between the shoulders
        "hips": width * rng.uniform(0.26, 0.34),
        "waist": width * rng.uniform(0.80, 1.0) * 0.5,
        "arm": arm * height,
        "arm_thickness": limb,
        "leg_thickness": limb * rng.uniform(1.05, 1.25),
    }


def _quadruped(rng: np.random.Generator) -> dict[str, float]:
    return {
        "body": rng.uniform(0.22, 0.27),  # half of it lies on either side of the root
        "body_thickness": rng.uniform(0.16, 0.21),
        "leg": rng.uniform(0.26, 0.36),
        "leg_thickness": rng.uniform(0.070, 0.090),
        "neck": rng.uniform(0.08, 0.14),
        "head": rng.uniform(0.075, 0.095),
        "snout": rng.uniform(0.03, 0.06),
        "tail": rng.uniform(0.10, 0.14),
        "tail_thickness": rng.uniform(0.045, 0.065),
    }


def _bird(rng: np.random.Generator) -> dict[str, float]:
    return {
        "body": rng.uniform(0.17, 0.21),
        "body_thickness": rng.uniform(0.19, 0.25),
        "leg": rng.uniform(0.20, 0.30),
        "leg_thickness": rng.uniform(0.055, 0.070),
        "neck": rng.uniform(0.07, 0.13),
        "head": rng.uniform(0.075, 0.095),
        "beak": rng.uniform(0.02, 0.05),
        "tail": rng.uniform(0.08, 0.12),
        "tail_thickness": rng.uniform(0.06, 0.09),
        "wing": rng.uniform(0.22, 0.28),
        "wing_thickness": rng.uniform(0.09, 0.12),
    }


def sample_character(rng: np.random.Generator, plan: Plan) -> Character:
    """Draw an identity of the given body plan. Raises ValueError for an unknown plan."""
    if plan not in PARTS:
        raise ValueError(f"unknown body plan {plan!r}; expected one of {', '.join(PLANS)}")
    if plan in ("human", "cartoon"):
        proportions = _biped(rng, plan)
    else:
        proportions = _quadruped(rng) if plan == "quadruped" else _bird(rng)
    dark = tuple(int(c) for c in rng.integers(20, 70, 3))
    return Character(
        plan=plan,
        proportions=proportions,
        colours=_colours(rng, plan),
        boxy=bool(rng.random() < (0.35 if plan == "cartoon" else 0.0)),
        hair=dark if rng.random() < 0.7 else None,
    )

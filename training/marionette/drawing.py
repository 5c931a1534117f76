"""Pictures of the world: frames, and label maps that say which part of the character every pixel shows."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from .bodies import Joints, joints_at
from .characters import PARTS, Character
from .motions import Motion
from .scenery import FLOOR, Background, Camera

_SUPERSAMPLING = 4


@dataclass(frozen=True)
class _Shape:
    """A capsule (two points, or one for a disc) or a filled polygon, of one colour and one part."""

    points: np.ndarray
    thickness: float  # panel heights; for a polygon, of its outline
    colour: tuple[int, int, int]
    part: str
    polygon: bool = False


def _limb(joints: Joints, names: tuple[str, ...], thickness: float, colour: tuple, part: str, boxy: bool) -> list[_Shape]:
    shapes = []
    for start, end in itertools.pairwise(names):
        a, b = joints[start], joints[end]
        if boxy:
            along = (b - a) / (np.linalg.norm(b - a) + 1e-6)
            across = np.array([-along[1], along[0]]) * thickness / 2
            a, b = a - along * thickness * 0.3, b + along * thickness * 0.3
            shapes.append(_Shape(np.array([a + across, b + across, b - across, a - across]), 0, colour, part, True))
        else:
            shapes.append(_Shape(np.array([a, b]), thickness, colour, part))
    return shapes


def _disc(centre: np.ndarray, radius: float, colour: tuple, part: str) -> _Shape:
    return _Shape(np.array([centre, centre]), 2 * radius, colour, part)


_INK = (25, 25, 30)


def _biped(character: Character, joints: Joints) -> list[_Shape]:
    p, colour = character.proportions, character.colours
    shapes = []
    for side in ("right", "left"):
        chain = (f"{side}_hip", f"{side}_knee", f"{side}_ankle")
        part = f"{side}_leg"
        shapes += _limb(joints, chain, p["leg_thickness"], colour[part], part, character.boxy)
    across = joints["left_shoulder"] - joints["right_shoulder"]
    across = across / np.linalg.norm(across)
    waist = (joints["right_hip"] + joints["left_hip"]) / 2
    round_off = 0.0 if character.boxy else p["arm_thickness"] * 0.6
    inner = round_off / 2
    torso = np.array([
        joints["right_shoulder"] + across * inner, joints["left_shoulder"] - across * inner,
        waist + across * (p["waist"] - inner), waist - across * (p["waist"] - inner),
    ])  # fmt: skip
    shapes.append(_Shape(torso, round_off, colour["torso"], "torso", True))
    r, head = p["head"], joints["head"]
    up = (joints["head"] - joints["neck"]) / np.linalg.norm(joints["head"] - joints["neck"])
    side = np.array([-up[1], up[0]])
    if character.boxy:
        corners = np.array([head + up * r * a + side * r * b for a, b in ((1, 1), (1, -1), (-0.9, -1), (-0.9, 1))])
        shapes.append(_Shape(corners, 0, colour["head"], "head", True))
    else:
        shapes.append(_disc(head, r, colour["head"], "head"))
    if character.hair is not None:
        cap = np.array([head + up * r * a + side * r * b for a, b in ((0.55, 0.78), (0.55, -0.78), (0.95, -0.3), (0.95, 0.3))])
        shapes.append(_Shape(cap, r * 0.12, character.hair, "hair", True))
    for eye in ("right_eye", "left_eye"):
        shapes.append(_disc(joints[eye], max(r * 0.13, 0.012), _INK, "eyes"))
    for side_name in ("right", "left"):
        chain = (f"{side_name}_shoulder", f"{side_name}_elbow", f"{side_name}_wrist")
        part = f"{side_name}_arm"
        shapes += _limb(joints, chain, p["arm_thickness"], colour[part], part, character.boxy)
    return shapes


def _quadruped(character: Character, joints: Joints) -> list[_Shape]:
    p, colour = character.proportions, character.colours

    def leg(name: str) -> list[_Shape]:
        return _limb(joints, (name, f"{name}_knee", f"{name}_foot"), p["leg_thickness"], colour[name], name, False)

    shapes = leg("far_front") + leg("far_hind")
    shapes += _limb(joints, ("tail", "tail_tip"), p["tail_thickness"], colour["tail"], "tail", False)
    shapes += _limb(joints, ("chest", "head"), p["body_thickness"] * 0.55, colour["torso"], "torso", False)
    shapes += _limb(joints, ("rump", "chest"), p["body_thickness"], colour["torso"], "torso", False)
    shapes += leg("near_front") + leg("near_hind")
    shapes.append(_disc(joints["head"], p["head"], colour["head"], "head"))
    shapes += _limb(joints, ("head", "snout"), p["head"] * 1.1, colour["head"], "head", False)
    shapes.append(_disc(joints["head"] + [p["head"] * 0.3, -p["head"] * 0.3], 0.015, _INK, "eyes"))
    return shapes


def _bird(character: Character, joints: Joints) -> list[_Shape]:
    p, colour = character.proportions, character.colours

    def wing(name: str) -> list[_Shape]:
        return _limb(joints, (name, f"{name}_tip"), p["wing_thickness"], colour[name], name, False)

    def leg(name: str) -> list[_Shape]:
        return _limb(joints, (name, f"{name}_knee", f"{name}_foot"), p["leg_thickness"], colour[name], name, False)

    shapes = wing("far_wing") + leg("far_leg") + leg("near_leg")
    shapes += _limb(joints, ("tail", "tail_tip"), p["tail_thickness"], colour["tail"], "tail", False)
    shapes += _limb(joints, ("chest", "head"), p["body_thickness"] * 0.5, colour["torso"], "torso", False)
    shapes += _limb(joints, ("rump", "chest"), p["body_thickness"], colour["torso"], "torso", False)
    shapes += _limb(joints, ("head", "beak"), p["head"] * 0.6, _INK, "beak", False)
    shapes.append(_disc(joints["head"], p["head"], colour["head"], "head"))
    shapes.append(_disc(joints["head"] + [p["head"] * 0.3, -p["head"] * 0.2], 0.015, _INK, "eyes"))
    return shapes + wing("near_wing")


_PLANS = {"human": _biped, "cartoon": _biped, "quadruped": _quadruped, "bird": _bird}


def _paint(
    canvas: np.ndarray,
    shape: _Shape,
    to_pixels: Callable[[np.ndarray], np.ndarray],
    scale: float,
    value: tuple[int, int, int] | int,
) -> None:
    points = to_pixels(shape.points)
    thickness = max(1, round(shape.thickness * scale))
    if shape.polygon:
        cv2.fillPoly(canvas, [points], value)
        if shape.thickness:
            cv2.polylines(canvas, [points], True, value, thickness)
    else:
        cv2.line(canvas, points[0], points[1], value, thickness)


def draw_frame(
    character: Character, values: np.ndarray, background: Background, zoom: float, pan: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """One frame.

    Returns:
        RGB, uint8, shape (height, width, 3), and labels, uint8, shape (height, width): 0 is background, i + 1 is
        part i of `PARTS[plan]`, 255 is ink (eyes, hair, beak).
    """
    h, w = height * _SUPERSAMPLING, width * _SUPERSAMPLING
    scale = h * zoom

    def to_pixels(points: np.ndarray) -> np.ndarray:
        centred = (points - pan - [0, 0.5]) * zoom + [0, 0.5]
        return np.round(centred * h + [w / 2, 0]).astype(np.int32)

    canvas = np.full((h, w, 3), background.wall, np.uint8)
    if background.kind == "bars":
        for k in range(-8, 9, 2):
            box = to_pixels(np.array([[k * background.bar_width, -1.0], [(k + 1) * background.bar_width, FLOOR - 0.04]]))
            cv2.rectangle(canvas, box[0], box[1], background.bar, -1)
    if background.kind != "plain":
        box = to_pixels(np.array([[-2.0, FLOOR - 0.04], [2.0, 3.0]]))
        cv2.rectangle(canvas, box[0], box[1], background.ground, -1)
    labels = np.zeros((h, w), np.uint8)
    names = PARTS[character.plan]
    for shape in _PLANS[character.plan](character, joints_at(character, values)):
        _paint(canvas, shape, to_pixels, scale, shape.colour)
        _paint(labels, shape, to_pixels, scale, names.index(shape.part) + 1 if shape.part in names else 255)
    frame = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return frame, labels[_SUPERSAMPLING // 2 :: _SUPERSAMPLING, _SUPERSAMPLING // 2 :: _SUPERSAMPLING].copy()


def draw_clip(
    character: Character, motion: Motion, background: Background, camera: Camera, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """All frames of a motion: RGB uint8 (T, height, width, 3) and labels uint8 (T, height, width)."""
    pairs = [
        draw_frame(character, motion.values[t], background, camera.zoom[t], camera.pan[t], height, width)
        for t in range(len(motion))
    ]
    frames, labels = zip(*pairs, strict=True)
    return np.stack(frames), np.stack(labels)

"""Forward kinematics: a character and one frame of a motion become joints in panel coordinates.

Panel coordinates: the unit is the panel height, x is 0 at the middle and grows to the right, y is 0 at the top.
"""

from __future__ import annotations

import numpy as np

from .characters import Character
from .motions import PARAMETERS
from .scenery import FLOOR

BODY18 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip
"""Order of the OpenPose body joints."""

Joints = dict[str, np.ndarray]


def _rotate(point: np.ndarray, centre: np.ndarray, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return centre + np.array([[c, -s], [s, c]]) @ (point - centre)


def _down(angle: float, side: float = 1.0) -> np.ndarray:
    """Unit vector that hangs down at 0 and swings towards `side` as the angle grows."""
    return np.array([side * np.sin(angle), np.cos(angle)])


def _biped(character: Character, v: dict[str, float]) -> Joints:
    p = character.proportions
    half = p["leg"] / 2
    knee_out = np.arccos(np.clip(1 - v["crouch"], 0.2, 1.0))
    joints: Joints = {}
    for name, side in (("right", -1.0), ("left", 1.0)):  # the character faces us: its right is on our left
        hip = np.array([side * p["hips"], 0.0])
        length = half * (1 - v[f"{name}_lift"])
        knee = hip + length * _down(v[f"{name}_hip"] + knee_out, side)
        joints |= {f"{name}_hip": hip, f"{name}_knee": knee,
                   f"{name}_ankle": knee + length * _down(v[f"{name}_hip"] - knee_out, side)}  # fmt: skip
    pelvis = np.zeros(2)
    neck = np.array([0.0, -p["torso"]])
    for name, side in (("right", -1.0), ("left", 1.0)):
        shoulder = neck + np.array([side * p["shoulders"], p["arm_thickness"] * 0.4])
        upper = v[f"{name}_shoulder"]
        elbow = shoulder + p["arm"] / 2 * _down(upper, side)
        wrist = elbow + p["arm"] / 2 * _down(upper + v[f"{name}_elbow"], side)
        joints |= {f"{name}_shoulder": shoulder, f"{name}_elbow": elbow, f"{name}_wrist": wrist}
    r = p["head"]
    head = neck + np.array([0.0, -r * 0.9])
    face = {"head": head, "nose": head + [0, r * 0.15]}
    for name, side in (("right", -1.0), ("left", 1.0)):
        face[f"{name}_eye"] = head + [side * r * 0.38, -r * 0.12]
        face[f"{name}_ear"] = head + [side * r * 0.85, 0.0]
    face = {name: _rotate(point, neck, v["head"]) for name, point in face.items()}
    upper_body = {n: q for n, q in joints.items() if n.split("_")[1] in ("shoulder", "elbow", "wrist")} | face
    upper_body["neck"] = neck
    joints |= {name: _rotate(point, pelvis, v["lean"]) for name, point in upper_body.items()}
    lowest = max(joints["right_ankle"][1], joints["left_ankle"][1])
    root = np.array([v["shift"] * p["leg"], FLOOR - p["leg_thickness"] / 2 - lowest - v["jump"] * p["leg"]])
    return {name: point + root for name, point in joints.items()}


def _legs(joints: Joints, v: dict[str, float], legs: tuple[str, ...], length: float) -> None:
    for leg in legs:
        bend = v.get(f"{leg}_bend", 0.0)
        joints[f"{leg}_knee"] = joints[leg] + length / 2 * _down(v[leg])
        joints[f"{leg}_foot"] = joints[f"{leg}_knee"] + length / 2 * _down(v[leg] - bend)


def _quadruped(character: Character, v: dict[str, float]) -> Joints:
    p = character.proportions
    half = p["body"] / 2
    joints: Joints = {"chest": np.array([half, 0.0]), "rump": np.array([-half, 0.0])}
    joints = {name: _rotate(point, joints["rump"], -v["pitch"]) for name, point in joints.items()}
    for leg, end, nudge in (("near_front", "chest", -0.01), ("far_front", "chest", 0.035),
                            ("near_hind", "rump", 0.01), ("far_hind", "rump", 0.055)):  # fmt: skip
        joints[leg] = joints[end] + np.array([nudge, p["body_thickness"] * 0.2])
    _legs(joints, v, ("near_front", "far_front", "near_hind", "far_hind"), p["leg"])
    neck = v["neck"] + v["pitch"]
    joints["head"] = joints["chest"] + (p["neck"] + p["body_thickness"] * 0.4) * np.array([np.cos(neck), -np.sin(neck)])
    muzzle = v["neck"] * 0.5 - 0.35
    joints["snout"] = joints["head"] + (p["head"] * 0.8 + p["snout"]) * np.array([np.cos(muzzle), -np.sin(muzzle)])
    joints["tail"] = joints["rump"] + np.array([-p["body_thickness"] * 0.3, -p["body_thickness"] * 0.15])
    joints["tail_tip"] = joints["tail"] + p["tail"] * np.array([-np.cos(v["tail"]), -np.sin(v["tail"])])
    feet = max(joints[f"{leg}_foot"][1] for leg in ("near_front", "far_front", "near_hind", "far_hind"))
    root = np.array([v["shift"] * p["leg"] - 0.03, FLOOR - p["leg_thickness"] / 2 - feet - v["jump"] * p["leg"]])
    return {name: point + root for name, point in joints.items()}


def _bird(character: Character, v: dict[str, float]) -> Joints:
    p = character.proportions
    half = p["body"] / 2
    joints: Joints = {"chest": np.array([half, 0.0]), "rump": np.array([-half, 0.03])}
    joints = {name: _rotate(point, np.zeros(2), -v["pitch"]) for name, point in joints.items()}
    joints["near_leg"] = np.array([0.0, p["body_thickness"] * 0.35])
    joints["far_leg"] = joints["near_leg"] + [0.05, 0.0]
    _legs(joints, v, ("near_leg", "far_leg"), p["leg"])
    neck = v["neck"] + v["pitch"]
    joints["head"] = joints["chest"] + (p["neck"] + p["body_thickness"] * 0.4) * np.array([np.cos(neck), -np.sin(neck)])
    dip = v["neck"] * 0.5 - 0.5
    joints["beak"] = joints["head"] + (p["head"] + p["beak"]) * np.array([np.cos(dip), -np.sin(dip)])
    joints["tail"] = joints["rump"]
    joints["tail_tip"] = joints["tail"] + p["tail"] * np.array([-np.cos(v["tail"]), -np.sin(v["tail"])])
    for wing, nudge in (("near_wing", 0.0), ("far_wing", 0.04)):
        joints[wing] = joints["chest"] * 0.4 + joints["rump"] * 0.6 + [0.05 + nudge, -p["body_thickness"] * 0.15]
        angle = v[wing]
        joints[f"{wing}_tip"] = joints[wing] + p["wing"] * np.array([-np.cos(angle), -np.sin(angle)])
    feet = max(joints["near_leg_foot"][1], joints["far_leg_foot"][1])
    root = np.array([v["shift"] * p["leg"], FLOOR - p["leg_thickness"] / 2 - feet - v["jump"] * p["leg"]])
    return {name: point + root for name, point in joints.items()}


_PLANS = {"human": _biped, "cartoon": _biped, "quadruped": _quadruped, "bird": _bird}


def joints_at(character: Character, values: np.ndarray) -> Joints:
    """Joints of `character` in the pose `values`, shape (parameters,). Panel coordinates, shape (2,) each."""
    family = "biped" if character.plan in ("human", "cartoon") else character.plan
    return _PLANS[character.plan](character, dict(zip(PARAMETERS[family], values, strict=True)))


_QUADRUPED18 = {
    "nose": "snout", "right_shoulder": "near_front", "right_elbow": "near_front_knee", "right_wrist": "near_front_foot",
    "left_shoulder": "far_front", "left_elbow": "far_front_knee", "left_wrist": "far_front_foot", "right_hip": "near_hind",
    "right_knee": "near_hind_knee", "right_ankle": "near_hind_foot", "left_hip": "far_hind", "left_knee": "far_hind_knee",
    "left_ankle": "far_hind_foot",
}  # fmt: skip
_BIRD18 = {
    "nose": "beak", "right_shoulder": "near_wing", "right_wrist": "near_wing_tip", "left_shoulder": "far_wing",
    "left_wrist": "far_wing_tip", "right_hip": "near_leg", "right_knee": "near_leg_knee", "right_ankle": "near_leg_foot",
    "left_hip": "far_leg", "left_knee": "far_leg_knee", "left_ankle": "far_leg_foot",
}  # fmt: skip


def openpose_joints(character: Character, values: np.ndarray) -> np.ndarray:
    """OpenPose's body joints, (18, 3) in panel coordinates with confidence 1, or 0 for those that the body has not.

    Animals are read as `dreamactor_core.extract.joints.from_ap10k` reads them: forelegs, or wings, are arms. They look to the
    right, so what is near is their right side; they have no ears, show one eye, and nothing tells of their tail.
    """
    joints = joints_at(character, values)
    if character.plan in ("quadruped", "bird"):
        names = _QUADRUPED18 if character.plan == "quadruped" else _BIRD18
        head = joints["head"]
        joints = {name: joints[own] for name, own in names.items()} | {"neck": (joints["chest"] + head) / 2}
        joints["right_eye"] = head + character.proportions["head"] * np.array([0.3, -0.25])
        if character.plan == "bird":  # a wing is one bone
            for side in ("right", "left"):
                joints[f"{side}_elbow"] = (joints[f"{side}_shoulder"] + joints[f"{side}_wrist"]) / 2
    return np.array([[*joints[name], 1.0] if name in joints else [0.0, 0.0, 0.0] for name in BODY18])

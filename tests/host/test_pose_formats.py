"""POSE_KEYPOINT of DWPose (comfyui_controlnet_aux) and SDPose (the host): files in both formats go in unchanged, ours go out."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from comfy_extras import nodes_sdpose
from toys import run_saved, save

from headless.client import Client, Prompt
from headless.server import HostServer

WIDTH, HEIGHT = 320, 256
DRAWING = {"width": WIDTH, "height": HEIGHT, "fit": "canvas", "face": True, "hands": True, "threshold": 0.3}


def joints(t: int, x: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """COCO-WholeBody's 133 points of somebody who walks to the right, and how sure each is."""
    rng = np.random.default_rng(5)
    body = np.array(
        [
            (80, 40), (84, 36), (76, 36), (90, 40), (70, 40), (100, 70), (60, 70), (110, 110), (50, 110), (112, 150), (48, 150),
            (92, 140), (68, 140), (94, 190), (66, 190), (95, 235), (65, 235),
        ],
        float,
    )  # fmt: skip
    feet = np.repeat(body[[15, 16]], 3, 0) + rng.uniform(-6, 6, (6, 2))
    face = (80, 42) + rng.uniform(-12, 12, (68, 2))
    hands = [wrist + rng.uniform(-8, 8, (21, 2)) for wrist in (body[9], body[10])]
    return np.concatenate([body, feet, face, *hands]) + (x + 2 * t, 0), rng.uniform(0.5, 1.0, 133)


def of_sdpose(frames: int) -> list[dict[str, Any]]:
    """As the host's own extractor writes it: two people, one of whom has a hidden hand."""
    keypoints, scores = [], []
    for t in range(frames):
        one, other = joints(t), joints(-t, 150)
        other[1][91:112] = 0.05
        keypoints.append([one[0], other[0]])
        scores.append([one[1], other[1]])
    return nodes_sdpose._to_openpose_frames(keypoints, scores, HEIGHT, WIDTH)


def of_dwpose(frames: int) -> list[dict[str, Any]]:
    """Built here in the layout that comfyui_controlnet_aux writes, not by it: confidence 1 or three zeros, null for no part."""
    written = []
    for frame in of_sdpose(frames):
        people = []
        for person in frame["people"]:
            raw: dict[str, Any] = {}
            for key in ("pose_keypoints_2d", "face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d"):
                points = np.array(person[key]).reshape(-1, 3)
                sure = points[:, 2:] > 0.3
                raw[key] = np.where(sure, np.concatenate([points[:, :2], np.ones_like(sure)], 1), 0).flatten().tolist()
                raw[key] = raw[key] if sure.any() or key == "pose_keypoints_2d" else None
            people.append(raw)
        written.append({"people": people, "canvas_height": HEIGHT, "canvas_width": WIDTH})
    written[1]["people"] = []
    return written


WRITERS = {"sdpose": of_sdpose, "dwpose": of_dwpose}


def lit(images: torch.Tensor) -> np.ndarray:
    return (images > 0.02).any(-1).numpy()


def overlap(one: torch.Tensor, other: torch.Tensor) -> float:
    """Shared lit pixels over all lit pixels."""
    first, second = lit(one), lit(other)
    return float((first & second).sum() / (first | second).sum())


def drawn_by_the_host(frames: Any) -> torch.Tensor:
    return nodes_sdpose.SDPoseDrawKeypoints.execute(frames, True, True, True, False, 4, 3, 0.3, True).result[0]


@pytest.mark.parametrize("name", WRITERS)
def test_files_of_both_go_through_every_node(client: Client, server: HostServer, tmp_path: Path, name: str) -> None:
    frames = WRITERS[name](6)
    (server.input_dir / f"{name}.json").write_text(json.dumps(frames))
    prompt: Prompt = {"read": {"class_type": "DreamActorLoadPoses", "inputs": {"poses": f"{name}.json", "fps": 12.0}}}
    poses = {"pose_keypoint": ["read", 0]}
    prompt["placed"] = {
        "class_type": "DreamActorPoseRetarget", "inputs": {**poses, "reference_pose": ["read", 0], "travel_frames": 0},
    }  # fmt: skip
    prompt["smooth"] = {"class_type": "DreamActorPoseSmooth", "inputs": {**poses, "reach": 3}}
    shape = {"seed": 1, "share": 1.0, "low": 0.8, "high": 1.2, "normalize": True, "margin": 0.07}
    prompt["augmented"] = {"class_type": "DreamActorPoseAugment", "inputs": {**poses, **shape}}
    for source in ("read", "placed", "smooth", "augmented"):
        drawing = {**DRAWING, "pose_keypoint": [source, 0], "style": "sdpose"}
        prompt[f"draw {source}"] = {"class_type": "DreamActorPoseDraw", "inputs": drawing}
        save(prompt, **{source: [f"draw {source}", 0]})
    found = run_saved(client, prompt, tmp_path)
    for skeleton in found.values():
        assert skeleton.shape == (6, HEIGHT, WIDTH, 3)
        assert lit(skeleton).any((1, 2)).tolist() == [name == "sdpose" or t != 1 for t in range(6)]
    theirs = drawn_by_the_host(of_sdpose(6))
    shown = [0, 2, 3, 4, 5]
    assert overlap(found["read"][shown], theirs[shown]) > 0.97


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_read_is_what_was_written(pack: ModuleType, name: str) -> None:
    frames = json.loads(json.dumps(WRITERS[name](3)))
    poses = pack.dreamactor_core.poses
    again = poses.to_pose_keypoint(poses.from_pose_keypoint(frames))
    for frame, copy in zip(frames, again, strict=True):
        assert len(frame["people"]) == len(copy["people"])
        for person, twin in zip(frame["people"], copy["people"], strict=True):
            for key, values in twin.items():
                given = np.zeros(len(values)) if person[key] is None else np.float32(person[key])
                given = given.reshape(-1, 3) * (given.reshape(-1, 3)[:, 2:] > 0)
                np.testing.assert_array_equal(np.float32(values).reshape(-1, 3), given)


def test_the_host_draws_what_we_extract(pack: ModuleType) -> None:
    """Its drawing node takes a list of numbers for every part of everybody, also for those who are not seen."""
    poses = pack.dreamactor_core.poses
    sequence = poses.from_pose_keypoint(of_dwpose(4))
    sequence.frames[1] = [poses.Person(), poses.Person()]
    ours = poses.to_pose_keypoint(sequence)
    theirs = drawn_by_the_host(ours)
    assert not theirs[1].any()
    mine = pack.nodes.pose.PoseDraw.execute(ours, **DRAWING, style="sdpose").result[0]
    assert overlap(mine, theirs) > 0.97


@pytest.mark.parametrize("name", WRITERS)
def test_the_host_draws_what_our_nodes_change(pack: ModuleType, name: str) -> None:
    """Also of people without face and hands, which DWPose writes as null."""
    frames = WRITERS[name](4)
    for frame in frames:
        for person in frame["people"][:1]:
            person |= dict.fromkeys(("face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d"))
    edit = pack.nodes.pose_edit
    for changed in (
        edit.PoseSmooth.execute(frames, 3).result[0],
        edit.PoseRetarget.execute(frames, frames[:1], 2).result[0],
        edit.PoseAugment.execute(frames, 1, 1.0, 0.8, 1.2, True, 0.07).result[0],
    ):
        assert lit(drawn_by_the_host(changed)).any((1, 2)).sum() >= 3
        assert len(nodes_sdpose.SDPoseFaceBBoxes.execute(changed, 1.5, True).result[0]) == len(changed)


def test_sdpose_s_hands_stay_at_their_wrists_on_another_body(pack: ModuleType) -> None:
    """It names them the other way round; on a body of half the size each would hang on the wrong wrist."""
    frames = of_sdpose(4)
    poses = pack.dreamactor_core.poses
    (small,) = poses.from_pose_keypoint(frames[:1])[:1].frames
    reference = poses.PoseSequence([[person.mapped((0.5, 0.5), (0, 0)) for person in small]], HEIGHT, WIDTH)
    after = pack.nodes.pose_edit.PoseRetarget.execute(frames, poses.to_pose_keypoint(reference), 0).result[0]
    for people in poses.from_pose_keypoint(after).frames:
        for person in people:
            for hand, wrist in ((person.left_hand, 7), (person.right_hand, 4)):
                away = np.linalg.norm(hand[:, :2] - person.body[wrist, :2], axis=1)
                assert away.max() < 0.5 * 8 * 2**0.5 + 1

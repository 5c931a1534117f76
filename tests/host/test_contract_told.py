"""What the graph is told of a LoRA's training, and files that are written anew under their name."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from toys import SIZE, contract, lora, person, pose_frame, small_feed_forward

from dreamactor_core.poses import from_pose_keypoint
from dreamactor_core.skeleton import draw_skeleton
from headless.client import Client, Prompt
from headless.server import HostServer

POSE = {"variant": "pose", "skeleton": "openpose18", "normalised": 0.9, "sizes": "64x96,96x64"}


@pytest.mark.parametrize(
    ("changes", "size", "words"),
    [
        ({}, (64, 96), ["fit = people", "no face and no hands in training: turn face and hands off"]),
        ({"skeleton": "openpose18+hands"}, (96, 96), ["fit = people", "no face in training: turn face off"]),
        ({"skeleton": "openpose18+face+hands", "normalised": 0.2}, (64, 96), []),
        ({"skeleton": "openpose18+face+hands", "normalised": 0.2}, (48, 32), ["trained at 64x96, 96x64, which is far from 48x32"]),
        ({"variant": "rgb", "skeleton": "", "normalised": -1.0, "sizes": ""}, (480, 832), []),
    ],
)
def test_what_its_training_asks_of_the_graph(
    pack: ModuleType, changes: dict[str, str | float], size: tuple[int, int], words: list[str]
) -> None:
    made = pack.nodes.conditioning.Contract(**{"backbone": "marionette", **POSE, **changes})
    told = pack.nodes.conditioning.trained_with(made, *size)
    assert len(told) == len(words) and all(word in line for word, line in zip(words, told, strict=True)), told


def test_a_crowd_in_a_small_picture_is_a_skeleton(pack: ModuleType) -> None:
    joints = person(4.0)["pose_keypoints_2d"]
    crowd = [{"pose_keypoints_2d": [v + 7 * k if i % 3 == 0 else v for i, v in enumerate(joints)]} for k in range(4)]
    drawn = draw_skeleton(from_pose_keypoint([pose_frame(*crowd)]), SIZE, SIZE)
    lit = torch.from_numpy(drawn).float().div(255).amax(-1).gt(0.05).float().mean((1, 2))
    assert float(lit) > 0.3, "there is little of a crowd to be seen"
    pack.nodes.conditioning.check_skeleton(lit, 0.1)
    with pytest.raises(ValueError, match="wants a skeleton on black"):
        pack.nodes.conditioning.check_skeleton(torch.tensor([0.9]), 0.1)


def test_a_lora_that_is_trained_on_is_loaded_again(client: Client, server: HostServer, shelf: Path) -> None:
    """Under one name, as `export` writes it, while the graph stays as it is."""
    path = shelf / "loras" / "again.safetensors"
    prompt: Prompt = {
        "1": {"class_type": "DreamActorSmallBackboneLoader", "inputs": {}},
        "2": {
            "class_type": "DreamActorLoraLoader",
            "inputs": {"model": ["1", 0], "lora_name": path.name, "strength": 1.0, "low_noise_lora_name": "none"},
        },
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 2]}},
    }
    for fps in (12.0, 9.0, 9.0):
        save_file(lora(small_feed_forward()), path, contract("marionette", fps=fps))
        assert client.run(prompt)["3"]["text"] == [str(fps)]

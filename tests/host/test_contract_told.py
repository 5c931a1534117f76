"""What the graph is told of a LoRA's training, and files that are written anew under their name."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from safetensors.torch import save_file
from toys import contract, lora, small_feed_forward

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

"""What workflows that find poses themselves are given: a picture and two videos of drawn markers, and networks that find those."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from marker_networks import dot_network, draw, person, rectangle_detector
from services import stand_ins
from toys import node, run_saved, saved_by, write_video

from headless.client import Client, Prompt
from headless.media import write_image

LENGTH, SIDE, FPS = 5, 384, 16
"""Frames of the videos, pixels of a side of theirs and of the picture's, and frames per second."""


def filmed(left: int, step: int, seed: int) -> list[np.ndarray]:
    """Frames of somebody who walks."""
    boxes = ((left + step * t, 20, left + step * t + 280, 360) for t in range(LENGTH))
    return [draw(SIDE, SIDE, [person(box, radius=5, seed=seed)]) for box in boxes]


def provide(client: Client, shelf: Path, folder: Path) -> None:
    """Picture, driving video and networks under the names in the workflows, and another video, `other_video.mp4`."""
    # smaller than the driver and away from the middle: places can be told apart
    write_image(folder / "character.png", draw(SIDE, SIDE, [person((30, 10, 254, 282), radius=4)]))
    write_video(folder / "driving_video.mp4", filmed(10, 8, 1), FPS, tone=True)
    write_video(folder / "other_video.mp4", filmed(90, -8, 2), FPS)
    for path in folder.iterdir():
        client.upload(path)
    rectangle_detector(shelf / "detection" / "yolox_l.onnx")
    dot_network(shelf / "detection" / "dw-ll_ucoco_384.onnx")


def driven_by_both(
    client: Client, prompt: Prompt, model: str, folder: Path
) -> tuple[Mapping[str, Any], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Run a workflow with the driving video, and with the other one: the first run's outputs, and what both saved.

    The service that writes the text is a stand-in, named by `model`. The text stays that of the first video.
    """
    with stand_ins.StandIn("gemini") as service:
        node(prompt, "Text fusion").update(base_url=service.url, model=model)
        outputs = client.run(prompt)
        first = saved_by(client, prompt, outputs, folder)
        assert len(service.requests) == 3
        prompt["other"] = {"class_type": "LoadVideo", "inputs": {"file": "other_video.mp4"}}
        node(prompt, "Driving poses")["images"] = ["other", 0]
        second = run_saved(client, prompt, folder)
        assert len(service.requests) == 3, "the text is of the first video still"
    return outputs, first, second

"""The workflows on pose-driven models of ComfyUI's own, run on networks of those architectures with toy sizes.

The graphs are the shipped ones: pictures, poses and models lie under the names in them. Only the text encoder and CLIP
vision, which the host knows in one size, are stood in.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from services import stand_ins
from toys import (
    ROOT,
    WAN_INNER,
    WAN_TEXT,
    WAN_WIDTH,
    feed_forward,
    link,
    lora,
    node,
    person,
    pose_frame,
    random_state,
    run_saved,
    save,
)

from headless.client import Client, Prompt
from headless.media import write_image, write_mp4

SIDE, LENGTH, LAYERS = 64, 5, 5
"""Pixels, frames, and layers: Wan-Animate sees the face in every fifth."""
NAMES = ["wan2.1_vace_14b_pose", "wan2.1_fun_control_1.3b_pose", "wan2.2_fun_control_14b_pose", "wan2.2_animate_14b_pose"]


def network(name: str) -> torch.nn.Module:
    """What the workflow of that name runs on, small."""
    import comfy.ldm.wan.model as wan
    import comfy.ldm.wan.model_animate as animate
    import comfy.ops

    made: Callable[..., torch.nn.Module] = wan.WanModel
    if "vace" in name:
        made, more = wan.VaceWanModel, {"vace_layers": 1, "vace_in_dim": 96}
    elif "animate" in name:
        made, more = animate.AnimateWanModel, {"in_dim": 36}
    elif "2.1" in name:
        more = {"model_type": "i2v", "in_dim": 48}
    else:
        more = {"model_type": "t2v", "in_dim": 52, "in_dim_ref_conv": 16}
    return made(
        dim=WAN_WIDTH, ffn_dim=WAN_INNER, text_dim=WAN_TEXT, num_heads=1, num_layers=LAYERS,
        operations=comfy.ops.disable_weight_init, **more,
    )  # fmt: skip


def walker(x: float, step: float) -> list[dict[str, Any]]:
    """Somebody with a face who walks."""
    frames = []
    for left in (x + step * t for t in range(LENGTH)):
        body = [16 + value if k % 3 < 2 else value for k, value in enumerate(person(left)["pose_keypoints_2d"])]
        face = [value for k in range(70) for value in (left + 16 + k % 9, 18.0 + k // 9, 1.0)]
        frames.append(pose_frame({"pose_keypoints_2d": body, "face_keypoints_2d": face}, width=SIDE, height=SIDE))
    return frames


@pytest.fixture(scope="module", autouse=True)
def material(client: Client, shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Pictures and poses under the names in the workflows, and the small VAE under that of the real one."""
    folder, rng = tmp_path_factory.mktemp("material"), np.random.default_rng(0)
    write_image(folder / "character.png", rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8))
    write_mp4(folder / "driving_video.mp4", rng.integers(0, 255, (LENGTH, SIDE, SIDE, 3), np.uint8), 8.0)
    for name, poses in {"character": walker(16, 0)[:1], "driving": walker(8, 2), "other": walker(24, -3)}.items():
        (folder / f"{name}_poses.json").write_text(json.dumps({"frames": poses, "frame_ms": 125}))
    for path in folder.iterdir():
        client.upload(path)
    shutil.copyfile(ROOT / "models" / "vae" / "marionette_vae.safetensors", shelf / "vae" / "wan_2.1_vae.safetensors")


def toy(name: str, shelf: Path) -> Prompt:
    """The workflow at toy size, its models written."""
    prompt: Prompt = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text("utf-8"))
    wanted = {"length": LENGTH, "steps": 2, "width": SIDE, "height": SIDE, "weight_dtype": "default"}
    for key, made in prompt.items():
        kind, inputs = made["class_type"], made["inputs"]
        inputs |= {field: value for field, value in wanted.items() if field in inputs}
        inputs |= {field: 1 for field in ("start_at_step", "end_at_step") if inputs.get(field) == 10}  # half of the steps
        if kind == "UNETLoader":
            save_file(random_state(network(name)), shelf / "diffusion_models" / inputs["unet_name"])
        elif kind == "LoraLoaderModelOnly":
            save_file(lora(feed_forward(LAYERS, WAN_WIDTH, WAN_INNER)), shelf / "loras" / inputs["lora_name"])
        elif kind == "CLIPTextEncode":
            stood_in = {"tokens": 5, "dim": WAN_TEXT, "seed": int(key)}
            prompt[key] = {"class_type": "ToyConditioning", "inputs": stood_in, "_meta": made["_meta"]}
        elif kind == "CLIPVisionEncode":
            prompt[key] = {"class_type": "ToyClipVision", "inputs": {"tokens": 257, "dim": 1280}, "_meta": made["_meta"]}
    return {key: made for key, made in prompt.items() if made["class_type"] not in ("CLIPLoader", "CLIPVisionLoader")}


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_follows_the_poses(name: str, client: Client, shelf: Path, tmp_path: Path) -> None:
    prompt = toy(name, shelf)
    watched = save(prompt, frames=link(prompt, "Decode"), skeleton=link(prompt, "Skeleton"))
    with stand_ins.StandIn("gemini") as service:
        node(prompt, "Text fusion").update(base_url=service.url, model=name)
        first = run_saved(client, watched, tmp_path)
        assert len(service.requests) == 3
        node(prompt, "Driving poses")["poses"] = "other_poses.json"
        second = run_saved(client, watched, tmp_path)
        assert len(service.requests) == 3, "the text is of the video, which is the same"
    for found in (first, second):
        assert found["frames"].shape == found["skeleton"].shape == (LENGTH, SIDE, SIDE, 3)
        assert found["frames"].isfinite().all() and found["frames"].std() > 0
    assert not torch.equal(first["skeleton"], second["skeleton"])
    assert (first["frames"] - second["frames"]).abs().mean() > 1e-4, "the model does not see the poses"

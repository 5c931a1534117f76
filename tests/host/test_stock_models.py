"""The workflows on pose-driven models of ComfyUI's own, run on networks of those architectures with toy sizes.

The graphs are the shipped ones: the picture, the video and all models lie under the names in them, those of Pose Extract too,
which find drawn markers. Only the text encoder and CLIP vision, which the host knows in one size, are stood in.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filmed import LENGTH, driven_by_both, provide
from safetensors.torch import save_file
from toys import (
    ROOT,
    WAN_INNER,
    WAN_TEXT,
    WAN_WIDTH,
    feed_forward,
    link,
    lora,
    node,
    random_state,
    save,
)

from headless.client import Client, Prompt, files, id_by_title

SIDE, LAYERS = 64, 5
"""Pixels, and layers: Wan-Animate has something for the face in every fifth."""
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


@pytest.fixture(scope="module", autouse=True)
def material(client: Client, shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Picture, video and networks under the names in the workflows, and the small VAE under that of the real one."""
    provide(client, shelf, tmp_path_factory.mktemp("material"))
    shutil.copyfile(ROOT / "models" / "vae" / "marionette_vae.safetensors", shelf / "vae" / "wan_2.1_vae.safetensors")


def toy(name: str, shelf: Path) -> Prompt:
    """The workflow at toy size, its models written."""
    prompt: Prompt = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text("utf-8"))
    wanted = {"length": LENGTH, "steps": 2, "width": SIDE, "height": SIDE, "weight_dtype": "default", "device": "cpu"}
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
    _, first, second = driven_by_both(client, watched, name, tmp_path)
    for found in (first, second):
        assert found["frames"].shape == found["skeleton"].shape == (LENGTH, SIDE, SIDE, 3)
        assert found["frames"].isfinite().all() and found["frames"].std() > 0
        assert all(frame.any() for frame in found["skeleton"]), "nobody is drawn"
    assert not torch.equal(first["skeleton"], second["skeleton"])
    assert (first["frames"] - second["frames"]).abs().mean() > 1e-4, "the model does not see the poses"


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_can_be_typed_without_a_key(name: str, client: Client, shelf: Path) -> None:
    """As the notes say it; the text is disconnected from Prompt in the toy."""
    prompt = toy(name, shelf)
    node(prompt, "Text fusion")["mode"] = "none"
    outputs = client.run(prompt)
    assert outputs[id_by_title(prompt, "Fused prompt")]["text"] == [""] and files(outputs[id_by_title(prompt, "Result")])

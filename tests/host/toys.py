"""Workflows, pictures and model files of toy size, for the tests in here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dreamactor_core.contract import Contract
from headless.client import Client, Prompt, by_title, files, id_by_title

ROOT = Path(__file__).resolve().parents[2]
SIZE, LENGTH, LEAD_IN = 32, 5, 2
"""Pixels of a side of one half, frames of a clip, and how many of them are lead-in."""
FPS = 12.0


def images(
    frames: int, height: int = SIZE, width: int = SIZE, channels: int = 3, seed: int = 0, nan: bool = False
) -> dict[str, Any]:
    """A node that makes an IMAGE."""
    inputs = {"frames": frames, "height": height, "width": width, "channels": channels, "seed": seed, "nan": nan}
    return {"class_type": "ToyImages", "inputs": inputs}


def workflow(variant: str) -> Prompt:
    """The shipped API workflow, `pose` or `rgb`."""
    return json.loads((ROOT / "workflows" / "api" / f"marionette_{variant}.json").read_text("utf-8"))


def node(prompt: Prompt, title: str) -> dict[str, Any]:
    """The inputs of the node of that title."""
    return by_title(prompt, title)["inputs"]


def link(prompt: Prompt, title: str, output: int = 0) -> list[Any]:
    """A connection from the node of that title."""
    return [id_by_title(prompt, title), output]


def shrunk(prompt: Prompt, frames: int = LENGTH, steps: int = 2) -> Prompt:
    """The workflow with a clip of toy size and a short lead-in, result and frames saved as they are."""
    node(prompt, "In-context conditioning").update(width=SIZE, height=SIZE, length=frames, fps=FPS, lead_in=LEAD_IN / FPS)
    node(prompt, "Sampler")["steps"] = steps
    return prompt


def toy_rgb(frames: int = LENGTH, steps: int = 2) -> Prompt:
    """The shipped rgb workflow at toy size, with pictures and driver made on the fly, as IMAGE."""
    prompt = shrunk(workflow("rgb"), frames, steps)
    prompt[id_by_title(prompt, "Reference")] = images(1, seed=1) | {"_meta": {"title": "Reference"}}
    prompt[id_by_title(prompt, "Driving video")] = images(frames, seed=2) | {"_meta": {"title": "Driving video"}}
    return prompt


def person(x: float = 16.0, confidence: float = 1.0) -> dict[str, Any]:
    """Somebody at x on a canvas of SIZE x SIZE."""
    points = [value for k in range(18) for value in (x + k % 3, 4.0 + 1.3 * k, confidence)]
    return {"pose_keypoints_2d": points}


def pose_frame(*people: dict[str, Any], width: Any = SIZE, height: Any = SIZE) -> dict[str, Any]:
    """A POSE_KEYPOINT frame."""
    return {"people": list(people), "canvas_width": width, "canvas_height": height}


def poses(data: Any) -> dict[str, Any]:
    """A node that hands on any POSE_KEYPOINT."""
    return {"class_type": "ToyPoses", "inputs": {"text": json.dumps(data)}, "_meta": {"title": "Driving poses"}}


def toy_pose(frames: int = LENGTH) -> Prompt:
    """The shipped pose workflow at toy size, driven by somebody who walks through the canvas."""
    prompt = shrunk(workflow("pose"), frames)
    prompt[id_by_title(prompt, "Reference")] = images(1, seed=1) | {"_meta": {"title": "Reference"}}
    prompt[id_by_title(prompt, "Driving poses")] = poses([pose_frame(person(8.0 + t)) for t in range(frames)])
    node(prompt, "Skeleton").update(width=SIZE, height=SIZE, fit="canvas")
    node(prompt, "In-context conditioning")["driving_fps"] = FPS
    return prompt


def replace_links(prompt: Prompt, instead: Mapping[tuple[str, int], list[Any]]) -> Prompt:
    """The workflow with every connection from one of the given outputs led from another one."""
    for inputs in (made["inputs"] for made in prompt.values()):
        for name, value in inputs.items():
            inputs[name] = instead.get(tuple(value), value) if isinstance(value, list) else value
    return prompt


def save(prompt: Prompt, **values: list[Any]) -> Prompt:
    """The workflow with the tensors at the given connections saved under the given names."""
    for name, connection in values.items():
        prompt[f"save {name}"] = {"class_type": "ToySave", "inputs": {"value": connection, "name": name}}
    return prompt


def run_saved(client: Client, prompt: Prompt, folder: Path) -> dict[str, torch.Tensor]:
    """Run a workflow and return what its `save`s saved."""
    return saved_by(client, prompt, client.run(prompt), folder)


def saved_by(client: Client, prompt: Prompt, outputs: Mapping[str, Any], folder: Path) -> dict[str, torch.Tensor]:
    """What the `save`s of a workflow saved, of the outputs of its run."""
    found = {}
    for key in prompt:
        if key.startswith("save "):
            path = client.download(files(outputs[key])[0], folder / f"{key.removeprefix('save ')}.safetensors")
            found[key.removeprefix("save ")] = load_file(path)["value"]
    return found


RATE = 48000
"""Samples of sound a second."""


def write_video(
    path: Path, frames: Sequence[np.ndarray], fps: int = 24, moments: Sequence[int] | None = None, tone: bool = False
) -> Path:
    """An mp4 without loss, so that colours are what they were; `moments` are the milliseconds at which frames appear, `tone`
    gives it a second of sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=fps, options={"qp": "0", "preset": "ultrafast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "rgb24"
        if moments is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        heard = container.add_stream("aac", rate=RATE, layout="mono") if tone else None
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if moments is not None:
                frame.pts, frame.time_base = moments[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if heard is not None:
            wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
            block = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
            block.sample_rate = RATE
            container.mux(heard.encode(block))
            container.mux(heard.encode())
    return path


def feed_forward(depth: int, width: int, inner: int) -> dict[str, tuple[int, int]]:
    """Wan's feed-forward layers and their shapes by native name."""
    return {f"blocks.{i}.ffn.{k}": ((inner, width) if k == 0 else (width, inner)) for i in range(depth) for k in (0, 2)}


def small_feed_forward() -> dict[str, tuple[int, int]]:
    """Those of the small backbone, read off its file."""
    with safe_open(ROOT / "models" / "diffusion_models" / "marionette_i2v.safetensors", "pt") as file:
        names = [key for key in file.keys() if ".ffn." in key and key.endswith(".weight")]  # noqa: SIM118 - not a dict
        return {name.removesuffix(".weight"): tuple(file.get_slice(name).get_shape()) for name in names}


def lora(modules: Mapping[str, tuple[int, int]], rank: int = 4, scale: float = 0.5, seed: int = 0) -> dict[str, torch.Tensor]:
    """A LoRA's tensors under native names, random in both halves."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (rows, columns) in modules.items():
        key = f"diffusion_model.{name}"
        tensors[f"{key}.lora_A.weight"] = torch.randn(rank, columns, generator=generator) / columns**0.5
        tensors[f"{key}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) * 0.1
        tensors[f"{key}.alpha"] = torch.tensor(rank * scale)
    return tensors


def contract(backbone: str, **changes: Any) -> dict[str, str]:
    """A LoRA file's metadata, with any field set to anything."""
    valid = Contract("rgb", backbone, fps=FPS, lead_in=LEAD_IN / FPS, frames=LENGTH).to_metadata()
    return valid | {f"dreamactor_m2.{name}": str(value) for name, value in changes.items()}


def random_state(network: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights that keep activations near unit variance."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in network.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim == 1:
            state[key] = 0.1 * noise + (0 if key.endswith("bias") else 1)
        else:
            state[key] = noise * (value.shape[0] / value.numel()) ** 0.5
    return state


WAN_WIDTH, WAN_INNER, WAN_DEPTH, WAN_TEXT = 128, 256, 2, 4096
HUNYUAN_WIDTH, HUNYUAN_DEPTH, HUNYUAN_TEXT = 128, 2, 64
WAN_FEED_FORWARD = feed_forward(WAN_DEPTH, WAN_WIDTH, WAN_INNER)
HUNYUAN_FEED_FORWARD = {
    f"double_blocks.{i}.img_mlp.{k}": (HUNYUAN_WIDTH * (4 if k == 0 else 1), HUNYUAN_WIDTH * (1 if k == 0 else 4))
    for i in range(HUNYUAN_DEPTH)
    for k in (0, 2)
}


def write_wan(path: Path, in_channels: int = 36, image_embedding: bool = False, seed: int = 0) -> None:
    """A Wan of toy size in the native names of the real ones: 36 channels image-to-video, 16 text-to-video."""
    import comfy.ldm.wan.model
    import comfy.ops

    network = comfy.ldm.wan.model.WanModel(
        model_type="i2v" if image_embedding else "t2v", in_dim=in_channels, dim=WAN_WIDTH, ffn_dim=WAN_INNER,
        text_dim=WAN_TEXT, out_dim=16, num_heads=1, num_layers=WAN_DEPTH, operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    save_file(random_state(network, seed), path)


def write_hunyuan(path: Path) -> None:
    """A HunyuanVideo 1.5 image-to-video of toy size in the native names of the real one."""
    import comfy.ldm.hunyuan_video.model
    import comfy.ops

    network = comfy.ldm.hunyuan_video.model.HunyuanVideo(
        in_channels=65, out_channels=32, vec_in_dim=None, context_in_dim=HUNYUAN_TEXT, hidden_size=HUNYUAN_WIDTH,
        mlp_ratio=4.0, num_heads=1, depth=HUNYUAN_DEPTH, depth_single_blocks=0, axes_dim=[16, 56, 56], theta=256,
        patch_size=[1, 1, 1], qkv_bias=True, guidance_embed=False, byt5=False, meanflow=False,
        use_cond_type_embedding=True, vision_in_dim=1152, meanflow_sum=True, operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    save_file(random_state(network), path)


def write_hunyuan_vae(path: Path, widths: Iterable[int] = (32, 32, 64, 64, 64)) -> None:
    """A HunyuanVideo 1.5 VAE (32 channels, 16x) in its native names, narrow."""
    import comfy.ldm.hunyuan_video.vae_refiner as vae

    config = {
        "block_out_channels": list(widths), "in_channels": 3, "out_channels": 3, "num_res_blocks": 2, "z_channels": 32,
        "ffactor_spatial": 16, "ffactor_temporal": 4, "downsample_match_channel": True, "upsample_match_channel": True,
    }  # fmt: skip
    state = {f"encoder.{k}": v for k, v in random_state(vae.Encoder(**config)).items()}
    save_file(state | {f"decoder.{k}": v for k, v in random_state(vae.Decoder(**config)).items()}, path)

"""The workflows that are timed: the shipped one with each motion context, and plain image-to-video."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dreamactor_core.motion_context import CONTEXTS
from dreamactor_core.poses import from_body_joints, to_pose_keypoint
from headless.client import Prompt, by_title, id_by_title
from headless.media import write_image
from training.marionette.world import FPS, HEIGHT, WIDTH, rng_for, sample_scene

ROOT = Path(__file__).resolve().parents[2]
LORA = ROOT / "models" / "loras" / "marionette_pose.safetensors"
PLAIN = "plain"
HOST_NODES, WAITS, QUICK_VAE = Path(__file__).with_name("host_nodes"), "WaitForSteps", "QuickVAE"
"""A folder of nodes for the host, and those in it."""
DISTINCT = tuple(name for name, context in CONTEXTS.items() if context.near is None)
"""Contexts whose VAE work differs: a neighbourhood changes attention alone."""


def write_loras(folder: Path) -> None:
    """The shipped LoRA once for each motion context: what it was trained for is nothing to its speed."""
    with safe_open(LORA, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(LORA)
    folder.mkdir(parents=True, exist_ok=True)
    for name in CONTEXTS:
        save_file(tensors, folder / f"{name}.safetensors", metadata | {"dreamactor_m2.motion_context": name})


def write_material(folder: Path, seed: int, number: int) -> None:
    """A reference and a driver that is long enough for every size."""
    scene = sample_scene(rng_for("test", 0, seed, number), "human", frames=81, lead=None)
    write_image(folder / f"reference{number}.png", scene.draw()[0][0])
    poses = to_pose_keypoint(from_body_joints(scene.keypoints(), HEIGHT, WIDTH))
    (folder / f"poses{number}.json").write_text(json.dumps({"frames": poses, "frame_ms": 1000 / FPS}))


def whole_graphs(size: tuple[int, int, int], seed: int, number: int = 0) -> dict[str, Prompt]:
    """The shipped workflow with each motion context, and the plain one, up to the video.

    Args:
        size: Width, height and frames. number: Of the material.
    """
    width, height, frames = size
    base = json.loads((ROOT / "workflows/api/marionette_pose.json").read_text("utf-8"))
    by_title(base, "Reference")["inputs"]["image"] = f"reference{number}.png"
    by_title(base, "Driving poses")["inputs"]["poses"] = f"poses{number}.json"
    by_title(base, "Skeleton")["inputs"] |= {"width": width, "height": height}
    by_title(base, "In-context conditioning")["inputs"] |= {"width": width, "height": height, "length": frames}
    sampler = by_title(base, "Sampler")["inputs"]
    base["wait"] = {"class_type": WAITS, "inputs": {"model": sampler["model"]}}
    sampler |= {"seed": seed, "model": ["wait", 0]}
    del base[id_by_title(base, "Composite preview")]
    made = {}
    for name in CONTEXTS:
        made[name] = copy.deepcopy(base)
        by_title(made[name], "Motion LoRA")["inputs"]["lora_name"] = f"{name}.safetensors"
    plain = copy.deepcopy(made["joint"])  # with a LoRA of the same size
    conditioning = by_title(plain, "In-context conditioning")
    kept = ("positive", "negative", "vae", "width", "height", "length")
    conditioning["class_type"] = "WanImageToVideo"
    conditioning["inputs"] = {key: conditioning["inputs"][key] for key in kept} | {"batch_size": 1}
    conditioning["inputs"]["start_image"] = [id_by_title(plain, "Reference"), 0]
    decode = by_title(plain, "Decode")
    decode["class_type"] = "VAEDecode"
    saved = by_title(plain, "Result")
    plain["video"] = {"class_type": "CreateVideo", "inputs": {"images": [id_by_title(plain, "Decode"), 0], "fps": FPS}}
    saved["inputs"]["video"] = ["video", 0]
    for title in ("Driving poses", "Skeleton"):
        del plain[id_by_title(plain, title)]
    return {PLAIN: plain} | made


def step_graphs(size: tuple[int, int, int], seed: int, steps: int) -> dict[str, Prompt]:
    """The same up to the sampler."""
    made = whole_graphs(size, seed)
    for graph in made.values():
        by_title(graph, "Sampler")["inputs"]["steps"] = steps
        latent = [id_by_title(graph, "Sampler"), 0]
        _without_video(graph)
        graph["save"] = {"class_type": "SaveLatent", "inputs": {"samples": latent, "filename_prefix": "speed"}}
    return made


def vae_graphs(size: tuple[int, int, int], round_: int) -> dict[str, Prompt]:
    """The same without sampling, for the DISTINCT contexts: what goes in is encoded, and decoded as if it were the result. Each
    graph of each round has pictures of its own, as what was encoded before is not encoded again."""
    made = {}
    for number, name in enumerate((PLAIN, *DISTINCT), round_ * (1 + len(DISTINCT))):
        graph = whole_graphs(size, 0, number)[name]
        conditioning, kind = id_by_title(graph, "In-context conditioning"), by_title(graph, "Decode")["class_type"]
        _without_video(graph)
        decode = {"samples": [conditioning, 2], "vae": graph[conditioning]["inputs"]["vae"]}
        graph["decode"] = {"class_type": kind, "inputs": decode, "_meta": {"title": "Decode"}}
        graph["save"] = {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}}
        made[name] = graph
    return made


def _without_video(graph: Prompt) -> None:
    graph.pop("video", None)
    for title in ("Result", "Decode"):
        del graph[id_by_title(graph, title)]


def count(rounds: int) -> int:
    """How many references and drivers so many rounds of `vae_graphs` take."""
    return rounds * (1 + len(DISTINCT))


"""Networks of a large one's shape with random weights: what they compute is nothing, what it costs is real."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from benchmarks.speed.graphs import QUICK_VAE, step_graphs
from dreamactor_core.contract import Contract
from dreamactor_core.motion_context import CONTEXTS
from dreamactor_core.words import DIM
from headless.client import Prompt, by_title
from training.marionette.backbone import MODEL_CONFIG
from training.marionette.world import FPS, FRAMES, LEAD_IN
from training.native import to_native, wan_transformer_key

FOLDERS = ("diffusion_models", "loras")
_NAME, _FILE, _RANK, _HEAD = "large", "large.safetensors", 16, 128


@dataclass(frozen=True)
class Shape:
    """A Wan network and what it is given: tokens' width, the feed-forward layers' inner width, blocks; width, height and frames of
    the video. Its text is the small backbone's."""

    width: int
    inner: int
    layers: int
    size: tuple[int, int, int]


LARGE = Shape(5120, 13824, 2, (832, 480, 81))
"""Two blocks of Wan's 14B networks at 480p. Their keys and values stay on the GPU, where all 40 blocks' may find no room: 27 GB."""
HALF = Shape(2560, 6912, 1, (480, 416, 81))
"""One block of half their width, with half as many tokens: so as large a share of a step is attention."""


def _random(shapes: Mapping[str, Sequence[int]], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Weights that keep values near one."""
    generator, made = torch.Generator().manual_seed(0), {}
    for name, size in shapes.items():  # one by one: of a whole network there is no room for all in single precision
        made[name] = (torch.randn(tuple(size), generator=generator) * math.prod(size[1:]) ** -0.5).to(dtype)
    return made


def write(folder: Path, shape: Shape, dtype: torch.dtype) -> None:
    """The network's file in `diffusion_models`, and in `loras` a LoRA for each motion context."""
    heads = shape.width // _HEAD
    more = dict(num_attention_heads=heads, attention_head_dim=_HEAD, ffn_dim=shape.inner, num_layers=shape.layers)
    with torch.device("meta"):
        state = WanTransformer3DModel(**MODEL_CONFIG | more).state_dict()
    shapes = {name: tuple(value.shape) for name, value in to_native(state, wan_transformer_key).items()}
    config = {"transformer": {"num_heads": heads, "text_dim": DIM, "freq_dim": MODEL_CONFIG["freq_dim"]}}
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    save_file(_random(shapes, dtype), folder / "diffusion_models" / _FILE, {"config": json.dumps(config)})
    layers = {name.removesuffix(".weight"): size for name, size in shapes.items() if ".ffn." in name and len(size) == 2}
    lora = _random({f"diffusion_model.{name}.lora_A.weight": (_RANK, size[1]) for name, size in layers.items()}, dtype)
    lora |= _random({f"diffusion_model.{name}.lora_B.weight": (size[0], _RANK) for name, size in layers.items()}, dtype)
    lora |= {f"diffusion_model.{name}.alpha": torch.tensor(float(_RANK)) for name in layers}
    for context in CONTEXTS:
        contract = Contract("pose", "marionette", motion_context=context, fps=FPS, lead_in=LEAD_IN / FPS, frames=FRAMES)
        save_file(lora, folder / "loras" / f"{_NAME}_{context}.safetensors", contract.to_metadata())


def large_graphs(shape: Shape, seed: int, steps: int) -> dict[str, Prompt]:
    """`step_graphs` on that network."""
    made = step_graphs(shape.size, seed, steps)
    for graph in made.values():
        graph["network"] = {"class_type": "UNETLoader", "inputs": {"unet_name": _FILE, "weight_dtype": "default"}}
        graph["vae"] = {"class_type": QUICK_VAE, "inputs": {}}
        lora = by_title(graph, "Motion LoRA")["inputs"]
        lora |= {"model": ["network", 0], "lora_name": f"{_NAME}_{lora['lora_name']}"}
        by_title(graph, "In-context conditioning")["inputs"]["vae"] = ["vae", 0]
    return made

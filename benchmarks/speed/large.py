"""Networks of a large one's shape with random weights: what they compute is nothing, what it costs is real."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from benchmarks.speed.graphs import step_graphs
from dreamactor_core.contract import Contract
from dreamactor_core.motion_context import CONTEXTS
from dreamactor_core.words import DIM
from headless.client import Prompt, by_title
from training.marionette.backbone import MODEL_CONFIG
from training.marionette.world import FPS, FRAMES, LEAD_IN
from training.native import to_native, wan_transformer_key

_NAME, _RANK, _HEAD = "large", 16, 128


@dataclass(frozen=True)
class Shape:
    """A Wan network and what it is given: tokens' width, the feed-forward layers' inner width, blocks; width, height and frames of
    the video. It reads the small backbone's text and latents."""

    width: int
    inner: int
    layers: int
    size: tuple[int, int, int]


LARGE = Shape(5120, 13824, 2, (832, 480, 81))
"""Two blocks of Wan's 14B networks at 480p."""
HALF = Shape(2560, 6912, 1, (480, 416, 81))
"""One block of half their width, with half as many tokens: so as large a share of a step is attention."""


def write(folder: Path, shape: Shape, dtype: torch.dtype) -> None:
    """The network's file in `diffusion_models`, and in `loras` a LoRA for each motion context."""
    heads = shape.width // _HEAD
    more = dict(num_attention_heads=heads, attention_head_dim=_HEAD, ffn_dim=shape.inner, num_layers=shape.layers)
    with torch.device("meta"):
        state = WanTransformer3DModel(**MODEL_CONFIG | more).state_dict()
    shapes = {name: value.shape for name, value in to_native(state, wan_transformer_key).items()}
    generator = torch.Generator().manual_seed(0)

    def values(size: torch.Size) -> torch.Tensor:
        fan_in = size[1:].numel() if len(size) > 1 else 1
        return (torch.randn(size, generator=generator) * fan_in**-0.5).to(dtype)

    config = {"transformer": {"num_heads": heads, "text_dim": DIM, "freq_dim": MODEL_CONFIG["freq_dim"]}}
    for name in ("diffusion_models", "loras"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    path = folder / "diffusion_models" / f"{_NAME}.safetensors"
    save_file({key: values(size) for key, size in shapes.items()}, path, {"config": json.dumps(config)})
    lora = {}
    for key, (rows, columns) in ((k.removesuffix(".weight"), s) for k, s in shapes.items() if ".ffn." in k and len(s) == 2):
        lora[f"diffusion_model.{key}.lora_A.weight"] = values(torch.Size((_RANK, columns)))
        lora[f"diffusion_model.{key}.lora_B.weight"] = values(torch.Size((rows, _RANK)))
    for context in CONTEXTS:
        contract = Contract("pose", "marionette", motion_context=context, fps=FPS, lead_in=LEAD_IN / FPS, frames=FRAMES)
        save_file(lora, folder / "loras" / f"{_NAME}_{context}.safetensors", contract.to_metadata())


def large_graphs(shape: Shape, seed: int, steps: int) -> dict[str, Prompt]:
    """`step_graphs` on that network."""
    made = step_graphs(shape.size, seed, steps)
    for graph in made.values():
        graph[_NAME] = {"class_type": "UNETLoader", "inputs": {"unet_name": f"{_NAME}.safetensors", "weight_dtype": "default"}}
        lora = by_title(graph, "Motion LoRA")["inputs"]
        lora |= {"model": [_NAME, 0], "lora_name": f"{_NAME}_{lora['lora_name']}"}
    return made

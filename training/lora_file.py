"""LoRA files: from a peft-adapted diffusers model to the native file that the nodes load, and back for a warm start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import ModelMixin
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from safetensors.torch import load_file

from dreamactor_core.contract import Contract
from training.checkpoint import save_atomic

FEED_FORWARD = {
    "wan": r"blocks\.\d+\.ffn\.net\.(0\.proj|2)",
    # anchored: the token refiner and the text branch have feed-forward layers too
    "hunyuan-video-1.5": r"transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)",
}
"""diffusers names of the video branch's feed-forward layers, the only ones that the method trains."""


def add_lora(model: ModelMixin, rank: int, family: str = "wan") -> None:
    """Freeze a diffusers transformer and give its feed-forward layers a LoRA of scale 1, in float32 whatever the network is in:
    steps of training are smaller than what half precision can add. Over a network in half precision, run it under autocast."""
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=FEED_FORWARD[family], init_lora_weights=True))
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False  # a float32 copy of all activations, which autocast would make half again
    for parameter in lora_state(model).values():
        parameter.data = parameter.data.float()


def rank_of(path: Path) -> int:
    """The rank of a native file's layers. Raises ValueError for layers of several ranks."""
    with safe_open(path, "pt") as file:
        ranks = {file.get_slice(key).get_shape()[0] for key in file.keys() if key.endswith(".lora_A.weight")}  # noqa: SIM118
    if len(ranks) != 1:
        raise ValueError(f"{path.name} has layers of {len(ranks)} ranks {sorted(ranks)}, expected one")
    return ranks.pop()


def lora_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The adapter's tensors under diffusers module names: `<module>.lora_A.weight`, `<module>.lora_B.weight`."""
    return {
        name.replace(".default.", "."): parameter
        for name, parameter in model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }


def save_lora(
    state: dict[str, torch.Tensor],
    path: Path,
    contract: Contract,
    rename: Callable[[str], str],
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write the native file: `diffusion_model.<module>.lora_A.weight`, `.lora_B.weight`, `.alpha` and the contract."""
    tensors = {f"diffusion_model.{rename(key)}": value.to(dtype) for key, value in state.items()}
    for key in [k for k in tensors if k.endswith(".lora_A.weight")]:
        tensors[key.replace("lora_A.weight", "alpha")] = torch.tensor(float(tensors[key].shape[0]))
    save_atomic(tensors, path, contract.to_metadata())


def load_lora(model: torch.nn.Module, path: Path, rename: Callable[[str], str]) -> None:
    """Fill an adapter of `add_lora` from a native file (warm start).

    `lora_B` takes up the file's alpha / rank, since the adapter's own scale is 1.

    Raises:
        ValueError: a layer is missing or of another shape.
    """
    found = load_file(path)
    with torch.no_grad():
        for key, parameter in lora_state(model).items():
            native = f"diffusion_model.{rename(key)}"
            got, expected = tuple(found[native].shape) if native in found else "nothing", tuple(parameter.shape)
            if got != expected:
                raise ValueError(f"{path}: {native} is {got}, expected {expected}: a LoRA of this network and of this --rank")
            scale = 1.0
            if native.endswith(".lora_B.weight"):
                alpha = found.get(native.replace("lora_B.weight", "alpha"))
                scale = 1.0 if alpha is None else float(alpha) / parameter.shape[1]
            parameter.copy_(found[native].float() * scale)

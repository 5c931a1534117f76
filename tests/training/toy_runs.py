"""Folders of runs as `train` leaves them, with a random LoRA of the run's network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dreamactor_core.contract import Contract
from training import config
from training.checkpoint import TrainState, save_atomic
from training.config import Config
from training.files.lora import expected_shapes
from training.plan.network import config_of


def settings(out: Path, name: str = "marionette", **more: Any) -> Config:
    """A short run of a rank of 4."""
    backbone = {"name": name} | more.pop("backbone", {})
    clip = {"fps": 12, "frames": 25, "lead_in": 0.6667, "sizes": [[64, 96]]}
    return Config.model_validate({"out": out, "clip": clip, "backbone": backbone, "train": {"rank": 4, "steps": 20}, **more})


def tensors(run: Config, seed: int = 0) -> dict[str, torch.Tensor]:
    """Of a LoRA of the run's network under native names, float32."""
    generator, found, rank = torch.Generator().manual_seed(seed), {}, run.train.rank
    for key, (rows, columns) in expected_shapes(run.backbone.name, config_of(run.backbone)[0]).items():
        if "img_emb" in key:
            continue
        module = f"diffusion_model.{key.removesuffix('.weight')}"
        found[f"{module}.lora_A.weight"] = torch.randn(rank, columns, generator=generator) / columns**0.5
        found[f"{module}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) * 0.1
        found[f"{module}.alpha"] = torch.tensor(float(rank))
    return found


def contract(run: Config, **changes: Any) -> Contract:
    """What the run's LoRA says of itself."""
    said = {"variant": run.variant, "backbone": run.backbone.name, "layout": run.layout, "expert": run.backbone.expert}
    return Contract(**said | {"fps": 12.0, "lead_in": 8 / 12, "frames": 25, "sizes": "64x96"} | changes)


def write_run(run: Config, step: int = 20, **changes: Any) -> Path:
    """The folder, after that many steps. Returns the run's `out`."""
    folder = run.out / "train"
    config.save(run, folder)
    save_atomic(tensors(run), folder / "lora.safetensors", contract(run, **changes).to_metadata())
    TrainState({"lora": torch.nn.Linear(1, 1)}, {}).save(folder / "state.safetensors", step)
    return run.out

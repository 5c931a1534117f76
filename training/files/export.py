"""The verb `export`: the LoRA of a run as the file that the nodes load.

    python -m training export runs/pose --dtype fp16

The run's LoRA is the average of its weights when it keeps one (train.ema), else the weights themselves.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training.errors import UserError

DTYPES = ("fp16", "bf16", "fp32")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run's folder, or its YAML file")
    parser.add_argument("--out", type=Path, help="file to write; else one in the run's folder, named after what it is")
    parser.add_argument("--dtype", choices=DTYPES, default="fp16", help="of the weights (default fp16)")
    parser.add_argument("--unfinished", action="store_true", help="also of a run that has steps to go")


def folder_of(run: Path) -> Path:
    """Where `train` wrote to. Raises UserError when there is nothing."""
    from training import config

    if run.is_file():
        folder = config.load(run).out / "train"
    else:
        folder = run if (run / "lora.safetensors").is_file() else run / "train"
    if not (folder / "lora.safetensors").is_file() or not (folder / "config.yaml").is_file():
        raise UserError(
            f"{folder} holds no lora.safetensors with its config.yaml, expected those that `train` writes at checkpoints; train "
            f"first, or name another run"
        )
    return folder


def check_finished(folder: Path, steps: int) -> None:
    """Raises UserError when the run has steps to go."""
    from safetensors import SafetensorError

    from training.checkpoint import step_of

    path = folder / "state.safetensors"
    try:
        step = step_of(path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} can't be read ({error}), so how far the run is can't be told; --unfinished exports it as it is"
        ) from error
    if step < steps:
        raise UserError(
            f"{folder} has trained {step} of {steps} steps; go on with `train`, or give --unfinished to export it as it is"
        )


def export(run: Path, out: Path | None = None, dtype: str = "fp16", unfinished: bool = False) -> Path:
    """Write the file, whole or not at all, and return its path. Raises UserError for a run or file that is not as it must be."""
    import torch
    from safetensors.torch import load_file

    from training import config
    from training.checkpoint import save_atomic
    from training.files.lora import check, expected_shapes, read
    from training.plan.network import config_of

    folder = folder_of(run)
    settings, file = config.load(folder / "config.yaml"), read(folder / "lora.safetensors")
    contract, backbone = file.contract(), settings.backbone
    said = {"variant": settings.variant, "layout": settings.layout, "backbone": backbone.name, "expert": backbone.expert}
    for name, expected in said.items():
        if getattr(contract, name) != expected:
            raise UserError(
                f"{file.path} is of {name} {getattr(contract, name)}, expected {expected} as in the config.yaml beside it: it is "
                f"another run's"
            )
    check(file, contract, expected_shapes(backbone.name, config_of(backbone)[0]))
    if not unfinished:
        check_finished(folder, settings.train.steps)
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    tensors = load_file(file.path)
    for key, value in tensors.items():
        tensors[key] = value.float() if key.endswith(".alpha") else value.to(kind)
        if not tensors[key].isfinite().all():
            why = "training went wrong" if not value.isfinite().all() else f"{dtype} can't hold it, take bf16 or fp32"
            raise UserError(f"{file.path}: {key} has values that are not numbers as {dtype}: {why}")
    expert = "" if backbone.expert == "both" else f"_{backbone.expert}"
    name = backbone.name.replace("-", "_")  # the shipped workflows name it like that
    target = out or folder.parent / f"dreamactor_m2_{name}_{settings.variant}{expert}.safetensors"
    if target.suffix != ".safetensors":
        raise UserError(f"--out is {target}, expected a name that ends with .safetensors")
    if target.resolve() == file.path.resolve():
        raise UserError(f"--out is the run's own {file.path}, which training goes on with; give another name")
    more = {"modelspec.resolution": contract.sizes.split(",")[0], "modelspec.precision": dtype} if contract.sizes else {}
    save_atomic(tensors, target, contract.to_metadata() | more)
    return target


def main(options: argparse.Namespace) -> int:
    target = export(options.run, options.out, options.dtype, options.unfinished)
    print(f"wrote {target} ({target.stat().st_size / 1e6:.4g} MB, {options.dtype}); put it into ComfyUI's models/loras")
    return 0

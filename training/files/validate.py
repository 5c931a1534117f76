"""The verb `validate`: loads a LoRA through ComfyUI's own code and reports what became of every key.

    python -m training validate lora.safetensors --model wan2.1_i2v_480p_14B_fp16.safetensors

The exit status is 1 when a key was not loaded, a feed-forward layer got nothing, or the contract does not fit.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from training.errors import UserError

SCRIPT = Path(__file__).parent / "host" / "keys.py"
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a LoRA as .safetensors")
    parser.add_argument("--model", type=Path, help="a diffusion model as .safetensors; else the small backbone that ships")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def model_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Weight shapes of a diffusion model by native name. Raises UserError when it can't be read."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"there is no diffusion model {path}, expected one as safetensors")
    try:
        with safe_open(path, "pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} can't be read as safetensors ({error}): get it again") from error
    prefix = next(prefix for prefix in _PREFIXES if any(key.startswith(prefix) for key in shapes) or not prefix)
    return {key.removeprefix(prefix): shape for key, shape in shapes.items()}


def in_host(lora: Path, model: Path) -> dict[str, Any]:
    """What ComfyUI does with the file (`host/keys.py`). Raises UserError when there is no host, or it fails."""
    from bootstrap import SetupError
    from bootstrap.host import find_host

    try:
        host = find_host()
    except SetupError as error:
        raise UserError(str(error)) from error
    # our own packages must not be found there: `nodes` is the name of one of ComfyUI's modules too
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, str(SCRIPT), str(host), str(lora.resolve()), str(model.resolve())]
    done = subprocess.run(command, cwd=host, env=environment, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        end = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise UserError(f"ComfyUI at {host} could not load {lora.name} onto {model.name}:\n{end}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(path: Path, model: Path) -> dict[str, Any]:
    """What became of each key, and whether the contract fits, as plain values."""
    from dreamactor_core.contract import BACKBONES
    from training.files.lora import check, read

    file, shapes = read(path), model_shapes(model)
    problem, feed_forward = "", None
    try:
        contract = file.contract()
        feed_forward = re.compile(BACKBONES[contract.backbone].feed_forward)
        check(file, contract, shapes)
    except UserError as error:
        problem = str(error)
    if feed_forward is None:  # without a contract: the layers of any backbone
        feed_forward = re.compile("|".join(f"(?:{backbone.feed_forward})" for backbone in BACKBONES.values()))
    found = in_host(path, model)
    unmatched = set(found["unmatched"])
    patched = {key.removesuffix(".weight") for key in found["patched"]}
    layers = [key.removesuffix(".weight") for key in found["weights"] if key.endswith(".weight")]
    bare = [layer for layer in layers if feed_forward.fullmatch(layer) and layer not in patched]
    return {
        "file": str(path),
        "model": str(model),
        "architecture": found["architecture"],
        "keys": {key: "unmatched" if key in unmatched else "matched" for key in sorted(file.shapes)},
        "unmatched": len(unmatched),
        "patched": sorted(patched),
        "not_applied": found["not_applied"],
        "without_patch": bare,
        "contract": problem or "fits",
        "ok": not (unmatched or bare or problem or found["not_applied"]),
    }


def main(options: argparse.Namespace) -> int:
    from training.marionette.backbone import MODEL_FILE

    found = report(options.file, options.model or MODEL_FILE)
    if options.json:
        print(json.dumps(found, indent=1))
        return 0 if found["ok"] else 1
    for key, state in found["keys"].items():
        print(f"{state:<11}{key}")
    for layer in found["without_patch"]:
        print(f"no patch   {layer}")
    for line in found["not_applied"]:
        print(line)
    print(
        f"{options.file.name} on {Path(found['model']).name} ({found['architecture']}): {len(found['keys'])} keys, "
        f"{found['unmatched']} unmatched; {len(found['patched'])} layers patched, {len(found['without_patch'])} without; contract: "
        f"{found['contract']}"
    )
    return 0 if found["ok"] else 1

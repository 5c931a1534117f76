"""The verb `inspect`: what a LoRA file says of itself, what it holds, and which backbone it fits.

python -m training inspect lora.safetensors
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a LoRA as .safetensors")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def summary(path: Path) -> dict[str, Any]:
    """Everything about a file as plain values; `contract` is None without one. Raises UserError when it is no LoRA."""
    from dreamactor_core.contract import has_contract
    from training.files.lora import fitting, read
    from training.hashing import sha256

    file = read(path)
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "layers": len(file.layers),
        "first_layer": file.layers[0],
        "ranks": {str(rank): count for rank, count in sorted(file.ranks.items())},
        "scales": file.scales,
        "types": dict(Counter(file.types.values())),
        "fits": fitting(file),
        "contract": asdict(file.contract()) if has_contract(file.metadata) else None,
        "modelspec": {key: value for key, value in sorted(file.metadata.items()) if key.startswith("modelspec.")},
    }


def main(options: argparse.Namespace) -> int:
    from training.errors import UserError

    found = summary(options.file)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        ranks = ", ".join(f"{rank} ({count} layers)" for rank, count in found["ranks"].items())
        print(f"{options.file}: {found['bytes'] / 1e6:.4g} MB, sha256 {found['sha256']}")
        print(f"layers    {found['layers']}, from {found['first_layer']}; rank {ranks}")
        print(f"scale     {', '.join(f'{scale:g}' for scale in found['scales'])} (alpha / rank)")
        print(f"tensors   {', '.join(f'{count} of {kind}' for kind, count in found['types'].items())}")
        print(f"fits      {', '.join(found['fits']) or 'no backbone at its released size'}")
        for key, value in {**(found["contract"] or {}), **found["modelspec"]}.items():
            print(f"{key:<28}{value}")
    if found["contract"] is None:
        raise UserError(
            f"{options.file} carries no dreamactor_m2.* metadata: it was not trained for this method, or a tool dropped it when "
            f"the file was saved again; get the original, or `python -m training export` it from its run"
        )
    return 0

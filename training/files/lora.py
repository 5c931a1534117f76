"""A LoRA file as it lies on disk: what it holds and says, without reading its weights."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from dreamactor_core.contract import Contract, ContractError, check_lora
from training.config import BackboneName
from training.errors import UserError
from training.plan.network import RELEASED, network

_HALF = re.compile(r"^(?P<layer>.+)\.lora_(?:A|B|down|up)\.weight$")


@dataclass(frozen=True)
class LoraFile:
    """Shapes and types by key, alphas by layer, and the metadata."""

    path: Path
    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, str]
    alphas: dict[str, float]

    @property
    def layers(self) -> list[str]:
        """Names of the layers, as the keys have them."""
        return sorted({found["layer"] for key in self.shapes if (found := _HALF.match(key))})

    @property
    def ranks(self) -> dict[int, int]:
        """Rank to how many layers have it."""
        return dict(Counter(shape[0] for key, shape in self.shapes.items() if key.endswith(("lora_A.weight", "lora_down.weight"))))

    @property
    def scales(self) -> list[float]:
        """alpha / rank of the layers, each once; 1 where there is no alpha, as loaders have it."""
        found = set()
        for layer in self.layers:
            rank = self.shapes.get(f"{layer}.lora_A.weight", self.shapes.get(f"{layer}.lora_down.weight", (1,)))[0]
            found.add(round(self.alphas.get(layer, float(rank)) / rank, 6))
        return sorted(found)

    def contract(self) -> Contract:
        """What the file says of itself. Raises UserError."""
        try:
            return Contract.from_metadata(self.metadata, self.path.name)
        except ContractError as error:
            raise UserError(str(error)) from error


def read(path: Path) -> LoraFile:
    """Look at a file. Raises UserError when it is not there, not safetensors, damaged, or no LoRA."""
    if not path.is_file():
        raise UserError(f"there is no file {path}, expected a LoRA as safetensors")
    if path.suffix != ".safetensors":
        raise UserError(f"{path} is a {path.suffix or 'nameless'} file, expected .safetensors: other kinds can hold code")
    try:
        with safe_open(path, "pt") as file:
            keys = list(file.keys())
            slices = {key: file.get_slice(key) for key in keys}
            shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
            types = {key: str(part.get_dtype()) for key, part in slices.items()}
            alphas = {
                key.removesuffix(".alpha"): float(file.get_tensor(key))
                for key in keys
                if key.endswith(".alpha") and shapes[key] in ((), (1,))
            }
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} can't be read as safetensors ({error}): damaged or unfinished; make or get it again") from error
    found = LoraFile(path, metadata, shapes, types, alphas)
    if not found.layers:
        example = f", for instance {keys[0]!r}" if keys else ""
        raise UserError(f"{path} is no LoRA: none of its {len(keys)} keys ends with lora_A.weight or lora_B.weight{example}")
    return found


def expected_shapes(name: BackboneName, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Weight shapes by native name that `check_lora` looks at, from diffusers' config of a network."""
    net = network(name, config)
    block, first, second = ("double_blocks", "img_mlp.0", "img_mlp.2") if net.joint else ("blocks", "ffn.0", "ffn.2")
    shapes: dict[str, tuple[int, ...]] = {}
    for k in range(net.layers):
        shapes[f"{block}.{k}.{first}.weight"] = (net.inner, net.width)
        shapes[f"{block}.{k}.{second}.weight"] = (net.width, net.inner)
    if net.image_width and not net.joint:
        shapes["img_emb.proj.1.weight"] = (net.image_width, net.image_width)
    return shapes


def check(file: LoraFile, contract: Contract, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises UserError unless the file's layers are those of a network with these weights."""
    try:
        check_lora(file.shapes, contract, shapes, file.path.name)
    except ContractError as error:
        raise UserError(str(error)) from error


def fitting(file: LoraFile) -> list[str]:
    """Released backbones whose video feed-forward layers are the file's, by name and size; several may be alike."""
    names = []
    for name, config in RELEASED.items():
        try:
            check_lora(file.shapes, Contract("rgb", name), expected_shapes(name, config), file.path.name)
        except ContractError:
            continue
        names.append(name)
    return names

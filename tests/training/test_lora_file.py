"""LoRA files: what learns, the scale that is written, and warm starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file

from dreamactor_core.contract import Contract
from training.checkpoint import save_atomic
from training.hashing import sha256
from training.lora_file import add_lora, load_lora, lora_state, save_lora
from training.marionette.backbone import MODEL_CONFIG
from training.native import wan_transformer_key

TINY = MODEL_CONFIG | {"attention_head_dim": 16, "ffn_dim": 48, "freq_dim": 16, "num_layers": 2}
CONTRACT = Contract("pose", "marionette")


def adapted(seed: int, rank: int = 4) -> WanTransformer3DModel:
    """A tiny network with a LoRA of random weights."""
    torch.manual_seed(seed)
    model = WanTransformer3DModel(**TINY)
    add_lora(model, rank)
    with torch.no_grad():
        for parameter in lora_state(model).values():
            parameter.normal_()
    return model


def test_both_feed_forward_layers_of_every_block_learn_and_nothing_else() -> None:
    learning = {name for name, p in adapted(0).named_parameters() if p.requires_grad}
    assert learning == {
        f"blocks.{k}.ffn.net.{layer}.lora_{half}.default.weight"
        for k in range(TINY["num_layers"])
        for layer in ("0.proj", "2")
        for half in "AB"
    }


@pytest.mark.parametrize("rank", [1, 4, 32])
def test_alpha_equals_the_rank(tmp_path: Path, rank: int) -> None:
    """So a loader, which scales by alpha / rank, scales by 1, as training does."""
    model = adapted(0, rank)
    save_lora(lora_state(model), tmp_path / "lora.safetensors", CONTRACT, wan_transformer_key)
    tensors = load_file(tmp_path / "lora.safetensors")
    assert {float(v) for k, v in tensors.items() if k.endswith(".alpha")} == {float(rank)}
    assert len(tensors) == 3 * 2 * TINY["num_layers"]
    assert set(model.blocks[0].ffn.net[2].scaling.values()) == {1.0}


def test_a_warm_start_takes_the_files_weights(tmp_path: Path) -> None:
    model, other = adapted(0), adapted(1)
    save_lora(lora_state(model), tmp_path / "lora.safetensors", CONTRACT, wan_transformer_key)
    load_lora(other, tmp_path / "lora.safetensors", wan_transformer_key)
    for key, value in lora_state(model).items():
        assert torch.equal(lora_state(other)[key], value.half().float()), key


@pytest.mark.parametrize("alpha", [1.0, 8.0, None])
def test_a_warm_start_takes_the_files_scale(tmp_path: Path, alpha: float | None) -> None:
    """The adapter's own scale stays 1. A file without alpha is of scale 1, as loaders have it."""
    model, other, path = adapted(0), adapted(1), tmp_path / "lora.safetensors"
    save_lora(lora_state(model), path, CONTRACT, wan_transformer_key)
    tensors = {k: v for k, v in load_file(path).items() if not k.endswith(".alpha")}
    if alpha is not None:
        tensors |= {k.replace("lora_A.weight", "alpha"): torch.tensor(alpha) for k in tensors if k.endswith("lora_A.weight")}
    save_atomic(tensors, path)
    load_lora(other, path, wan_transformer_key)
    for key, value in lora_state(model).items():
        scale = (1 if alpha is None else alpha / 4) if "lora_B" in key else 1
        torch.testing.assert_close(lora_state(other)[key], value.half().float() * scale)


def test_a_warm_start_lacking_a_layer_is_refused(tmp_path: Path) -> None:
    kept = {k: v for k, v in lora_state(adapted(0)).items() if "blocks.1." not in k}
    save_lora(kept, tmp_path / "half.safetensors", CONTRACT, wan_transformer_key)
    with pytest.raises(ValueError, match=r"half\.safetensors: .*blocks\.1\.ffn\.0\.lora_A\.weight is nothing, expected"):
        load_lora(adapted(1), tmp_path / "half.safetensors", wan_transformer_key)


def test_a_warm_start_of_another_rank_is_refused(tmp_path: Path) -> None:
    save_lora(lora_state(adapted(0, 1)), tmp_path / "thin.safetensors", CONTRACT, wan_transformer_key)
    with pytest.raises(ValueError, match=r"is \(1, \d+\), expected \(4, \d+\): .*--rank"):
        load_lora(adapted(1, 4), tmp_path / "thin.safetensors", wan_transformer_key)


def test_sha256_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    with pytest.raises(FileNotFoundError):
        sha256(tmp_path / "none")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

"""From drawn pairs to a LoRA file: the real small network, a few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors import safe_open
from safetensors.torch import load_file

from dreamactor_core.contract import Contract, check_lora
from dreamactor_core.words import WordTable
from training.lora_file import add_lora, load_lora, lora_state, save_lora
from training.marionette import cache
from training.marionette.backbone import MODEL_CONFIG
from training.marionette.train_lora import Composites, contract_for, generated_loss, sample
from training.native import to_native, wan_transformer_key


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cached pose samples."""
    out, usual = tmp_path_factory.mktemp("cache"), cache.SHARD
    cache.SHARD = 2
    try:
        cache.build("pose", out, 2, "train")
    finally:
        cache.SHARD = usual
    return out


@pytest.fixture
def data(folder: Path) -> Composites:
    return Composites(folder, "pose", "train", WordTable.random())


@pytest.fixture
def model() -> WanTransformer3DModel:
    torch.manual_seed(0)
    network = WanTransformer3DModel(**(MODEL_CONFIG | {"num_layers": 2}))
    add_lora(network, 8)
    return network


def test_cached_shapes_and_a_second_build_does_nothing(folder: Path, data: Composites) -> None:
    assert data.condition.shape == (2, 16, 7, 12, 16) and data.target.shape == (2, 16, 7, 12, 8)
    shard = next((folder / "pose_train").glob("*.safetensors"))
    before = shard.stat().st_mtime_ns
    cache.build("pose", folder, 1, "train")
    assert shard.stat().st_mtime_ns == before


def test_missing_cache_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"training\.marionette\.cache pose"):
        Composites(tmp_path, "pose", "train", WordTable.random())


def test_only_feed_forward_layers_learn_and_the_loss_falls(model: WanTransformer3DModel, data: Composites) -> None:
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and all(".ffn.net." in name and "lora_" in name for name in trained)
    batch, sigma = data.batch(np.arange(2)), torch.tensor([0.9, 0.9])
    noise = torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    losses = []
    for _ in range(8):
        loss = generated_loss(model, batch, sigma, noise).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]


def test_loss_looks_at_the_generated_half_only(model: WanTransformer3DModel, data: Composites) -> None:
    batch = data.batch(np.arange(2))
    noise = torch.zeros_like(batch.clean)
    base = generated_loss(model, batch, torch.ones(2), noise)
    batch.clean[..., 8:] += 5  # at sigma 1 nothing of it is shown, so only the loss could notice
    assert torch.equal(base, generated_loss(model, batch, torch.ones(2), noise))


def test_another_driver_changes_the_right_half_only(data: Composites) -> None:
    own, other = data.batch(np.arange(2)), data.batch(np.arange(2), np.array([1, 0]))
    assert torch.equal(own.given[..., :8], other.given[..., :8])
    assert torch.equal(own.given[[1, 0]][..., 8:], other.given[..., 8:])


def test_sampling_pins_the_driver(model: WanTransformer3DModel, data: Composites) -> None:
    batch = data.batch(np.arange(1))
    result = sample(model, batch, 2, 3.0, 0)
    assert torch.equal(result[..., 8:], batch.given[..., 8:])
    assert not torch.equal(result[..., :8], batch.given[..., :8])


def test_exported_file_keeps_the_contract_and_fits(model: WanTransformer3DModel, tmp_path: Path) -> None:
    contract, path = contract_for("pose"), tmp_path / "lora.safetensors"
    with torch.no_grad():
        for value in lora_state(model).values():
            value.normal_()
    save_lora(lora_state(model), path, contract, wan_transformer_key, torch.float32)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        assert Contract.from_metadata(file.metadata()) == contract
    plain = {k: v for k, v in model.state_dict().items() if "lora_" not in k}
    native = to_native({k.replace(".base_layer.", "."): v for k, v in plain.items()}, wan_transformer_key)
    check_lora({k: tuple(v.shape) for k, v in tensors.items()}, contract, {k: tuple(v.shape) for k, v in native.items()})
    assert all(float(v) == 8 for k, v in tensors.items() if k.endswith(".alpha"))
    before = {k: v.detach().clone() for k, v in lora_state(model).items()}
    with torch.no_grad():
        for value in lora_state(model).values():
            value.zero_()
    load_lora(model, path, wan_transformer_key)
    assert all(torch.equal(before[k], v) for k, v in lora_state(model).items())

"""From a batch to a LoRA file: the small backbone's shape with two blocks, a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors import safe_open
from safetensors.torch import load_file

from dreamactor_core.contract import Contract, check_lora
from dreamactor_core.layout import SpatialLayout
from dreamactor_core.words import WordTable, encode_text
from training import backbones, config
from training.flow import Sampler
from training.lora_file import add_lora, load_lora, lora_state, save_lora
from training.marionette.backbone import MODEL_CONFIG
from training.native import to_native, wan_transformer_key
from training.sampling import sample
from training.train.data import with_drivers_of
from training.train.objective import Batch, losses

BACKBONE = backbones.get(config.Backbone(name="marionette", dtype="auto"))
LAYOUT = SpatialLayout()


@pytest.fixture
def batch() -> Batch:
    """Two samples of noise in the place of latents, in the small backbone's shape."""
    generator = torch.Generator().manual_seed(1)
    clean, given = (torch.randn(2, 16, 7, 12, 16, generator=generator) for _ in range(2))
    text = WordTable.random()
    context = {"text": encode_text(text, ["a human waves", "a bird flies"])}
    return Batch(clean, given, LAYOUT.known_mask(7, 12, 8), LAYOUT.generated_mask(7, 12, 8), context)


@pytest.fixture
def model() -> WanTransformer3DModel:
    torch.manual_seed(0)
    network = WanTransformer3DModel(**(MODEL_CONFIG | {"num_layers": 2}))
    add_lora(network, 8)
    return network


def test_only_feed_forward_layers_learn_and_the_loss_falls(model: WanTransformer3DModel, batch: Batch) -> None:
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and all(".ffn.net." in name and "lora_" in name for name in trained)
    sigma, noise = torch.tensor([0.9, 0.9]), torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    found = []
    for _ in range(8):
        loss = losses(BACKBONE, model, LAYOUT, batch, sigma, noise).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.95 * found[0]


def test_loss_looks_at_the_generated_half_only_unless_asked(model: WanTransformer3DModel, batch: Batch) -> None:
    noise = torch.zeros_like(batch.clean)

    def both() -> list[torch.Tensor]:
        return [losses(BACKBONE, model, LAYOUT, batch, torch.ones(2), noise, over) for over in ("generated", "full")]

    half, full = both()
    batch.clean[..., 8:] += 5  # at sigma 1 nothing of it is shown, so only the loss could notice
    half_after, full_after = both()
    assert torch.equal(half, half_after) and (full_after > full + 1).all()


def test_min_snr_weighs_the_error_of_the_clip_not_of_the_velocity(model: WanTransformer3DModel, batch: Batch) -> None:
    noise = torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(0))
    for sigma in (torch.tensor([0.1, 0.4]), torch.tensor([0.6, 0.9])):
        plain, weighed = (losses(BACKBONE, model, LAYOUT, batch, sigma, noise, weighting=kind) for kind in ("none", "min_snr"))
        expected = torch.tensor([min(((1 - float(s)) / float(s)) ** 2, 5.0) * float(s) ** 2 for s in sigma])
        torch.testing.assert_close(weighed / plain, expected)


def test_another_driver_changes_the_right_half_only(batch: Batch) -> None:
    other = with_drivers_of(batch, [1, 0])
    assert torch.equal(batch.given[..., :8], other.given[..., :8]) and torch.equal(batch.clean[..., :8], other.clean[..., :8])
    assert torch.equal(batch.given[[1, 0]][..., 8:], other.given[..., 8:])


@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_sampling_pins_the_driver_and_each_sample_has_its_own_noise(
    model: WanTransformer3DModel, batch: Batch, sampler: Sampler
) -> None:
    context = {"text": batch.context["text"][[0, 0]]}
    given = batch.given[[0, 0]]
    one, other = sample(BACKBONE, model, LAYOUT, given, context, 3, 3.0, [4, 5], sampler=sampler)
    assert torch.equal(one[..., 8:], given[0, ..., 8:]) and torch.equal(other[..., 8:], given[0, ..., 8:])
    assert not torch.equal(one[..., :8], other[..., :8])
    first = {"text": context["text"][:1]}
    again = sample(BACKBONE, model, LAYOUT, given[:1], first, 3, 3.0, [5], sampler=sampler)[0]
    assert (again - other).abs().max() < 0.05, "whatever else is in its batch"


def test_exported_file_keeps_the_contract_and_fits(model: WanTransformer3DModel, tmp_path: Path) -> None:
    about = {"fps": 12.0, "lead_in": 8 / 12, "frames": 25, "sizes": "64x96", "skeleton": "openpose18", "pairs": "self"}
    contract, path = Contract(variant="pose", backbone="marionette", **about), tmp_path / "lora.safetensors"
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

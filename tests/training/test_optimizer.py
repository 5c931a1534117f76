"""Muon for matrices, AdamW for the rest: who gets what, and schedules at the points that are known."""

from __future__ import annotations

import pytest
import torch

from training import optimizer as optimizers
from training.optimizer import Muon, MuonAdamW, cosine_lr, flat_steps, trapezoid_lr


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv3d(3, 6, 3, padding=1), torch.nn.GroupNorm(2, 6), torch.nn.Flatten(2), torch.nn.Linear(8, 5)
    )


def count(part: torch.optim.Optimizer) -> list[torch.Size]:
    return [p.shape for group in part.param_groups for p in group["params"]]


def test_every_parameter_has_one_optimizer() -> None:
    parts = MuonAdamW(network(), 0.01).parts
    assert count(parts["muon"]) == [(6, 81), (5, 8)]
    assert count(parts["adamw"]) == [(6,), (6,), (6,), (5,)]


def test_named_matrices_go_to_adamw() -> None:
    parts = MuonAdamW(network(), 0.01, adamw_only=("3.",)).parts
    assert count(parts["muon"]) == [(6, 81)]
    assert (5, 8) in count(parts["adamw"])


def test_frozen_parameters_are_left_out() -> None:
    module = network()
    module[0].requires_grad_(False)
    parts = MuonAdamW(module, 0.01).parts
    assert count(parts["muon"]) == [(5, 8)]
    assert len(count(parts["adamw"])) == 3


def test_a_step_moves_every_parameter_of_the_module() -> None:
    module = network()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    optimizer = MuonAdamW(module, 0.01)
    module(torch.randn(2, 3, 2, 2, 2)).square().sum().backward()
    optimizer.step()
    assert [k for k, v in module.state_dict().items() if torch.equal(v, before[k])] == []


def test_a_matrix_without_a_gradient_stays() -> None:
    module = network()
    optimizer = MuonAdamW(module, 0.01, weight_decay=0.1)
    module(torch.randn(2, 3, 2, 2, 2)).square().sum().backward()
    module[3].weight.grad = None
    before = module[3].weight.detach().clone()
    optimizer.step()
    assert torch.equal(module[3].weight, before)


def test_gradients_are_cleared() -> None:
    module = network()
    optimizer = MuonAdamW(module, 0.01)
    module(torch.randn(2, 3, 2, 2, 2)).square().sum().backward()
    optimizer.zero_grad()
    assert all(p.grad is None for p in module.parameters())


def test_adamw_gets_half_the_rate() -> None:
    optimizer = MuonAdamW(network(), 0.01)
    for rate in (0.01, 0.3):
        optimizer.set_lr(rate)
        rates = {name: part.param_groups[0]["lr"] for name, part in optimizer.parts.items()}
        assert rates == {"muon": rate, "adamw": rate / 2}


def test_it_learns_a_linear_map() -> None:
    torch.manual_seed(0)
    truth, module = torch.randn(6, 10), torch.nn.Linear(10, 6)
    optimizer = MuonAdamW(module, 0.05)
    losses = []
    for step in range(60):
        optimizer.set_lr(cosine_lr(step, 60, 0.4, warmup=5, floor=0.0))
        x = torch.randn(32, 10)
        loss = (module(x) - x @ truth.T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("steps", [200, 4000])
@pytest.mark.parametrize("peak", [1e-3, 2.0])
def test_cosine(steps: int, peak: float) -> None:
    assert cosine_lr(0, steps, peak) == pytest.approx(peak / 50, rel=1e-3)
    assert cosine_lr(steps // 2, steps, peak, floor=0.2) == pytest.approx(peak * 0.6)
    assert cosine_lr(steps, steps, peak, floor=0.03) == pytest.approx(0.03 * peak)
    assert cosine_lr(2 * steps, steps, peak) == cosine_lr(steps, steps, peak)


@pytest.mark.parametrize("steps", [400, 4000])
def test_trapezoid(steps: int) -> None:
    assert trapezoid_lr(0, steps, 1.0) == pytest.approx(1 / 50)
    flat = [trapezoid_lr(step, steps, 1.0) for step in range(50, flat_steps(steps) + 1)]
    assert flat == [1.0] * (steps * 3 // 4 - 49)
    assert trapezoid_lr(flat_steps(steps) + 1, steps, 1.0) < 1
    assert trapezoid_lr(steps - steps // 8, steps, 1.0) == pytest.approx(0.5)
    assert trapezoid_lr(steps, steps, 1.0) == 0


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("native", [True, False])
def test_muon_is_torchs_in_the_precision_that_the_machine_computes_in(
    native: bool, nesterov: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers, "bfloat16_is_native", lambda device: native)
    ours, torchs = (torch.nn.Parameter(torch.zeros(8, 24)) for _ in range(2))
    options = {"lr": 0.01, "weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw", "nesterov": nesterov}
    for seed in range(3):
        gradient = torch.randn(8, 24, generator=torch.Generator().manual_seed(seed))
        if seed == 0:
            made = Muon([ours], **options), torch.optim.Muon([torchs], **options)
        for parameter, one in zip((ours, torchs), made, strict=True):
            parameter.grad = gradient.clone()
            one.step()
    assert torch.equal(ours, torchs) == native
    torch.testing.assert_close(ours, torchs, atol=2e-4, rtol=0)  # a step moves an element by 0.002 or so
    buffers = [one.state[parameter]["momentum_buffer"] for parameter, one in zip((ours, torchs), made, strict=True)]
    assert torch.equal(*buffers), "the momentum is left as it is"


def test_muon_in_float32_has_the_singular_values_that_its_iteration_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "bfloat16_is_native", lambda device: False)
    parameter = torch.nn.Parameter(torch.zeros(6, 6))
    left, right = (torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)))[0] for seed in (0, 1))
    values = torch.tensor([1.0, 0.8, 0.6, 0.4, 0.3, 0.2])
    parameter.grad = left @ values.diag() @ right.T
    Muon([parameter], lr=1.0, momentum=0.0, weight_decay=0.0, adjust_lr_fn="original").step()
    expected = values / values.norm()
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    torch.testing.assert_close(-parameter.detach(), left @ expected.diag() @ right.T, atol=1e-5, rtol=0)

"""Flow matching: samplers on fields whose paths are known, and the noise levels' formula."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch

from training.flow import euler, lcm, sample_sigmas, shifted_sigmas

SHAPES = [(1, 4), (3, 2, 5), (2, 16, 3, 4, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 2, 7, 30])
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_a_straight_path_is_exact_in_any_number_of_steps(shape: tuple[int, ...], steps: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
    result = euler(lambda x, sigma: noise - data, noise, shifted_sigmas(steps, shift).double())
    torch.testing.assert_close(result, data)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 4, 9])
def test_a_velocity_told_from_where_it_is_finds_the_data(shape: tuple[int, ...], steps: int) -> None:
    """What a network that knows the one true x predicts: (x_s - x) / s."""
    data, noise = torch.randn((2, *shape), generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return (x - data) / sigma.view(-1, *[1] * (x.ndim - 1))

    torch.testing.assert_close(euler(velocity, noise, shifted_sigmas(steps, 3.0).double()), data)


@pytest.mark.parametrize("rate", [0.5, -1.0])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_curved_path_converges_with_first_order(rate: float, shift: float) -> None:
    """dx/ds = a x has the answer x(0) = x(1) exp(-a)."""
    noise = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    errors = []
    for steps in (50, 100, 200):
        sigmas = shifted_sigmas(steps, shift).double()
        result = euler(lambda x, sigma: rate * x, noise, sigmas)
        product = math.prod(1 + rate * float(b - a) for a, b in itertools.pairwise(sigmas))
        torch.testing.assert_close(result, noise * product)
        errors.append(float((result - noise * math.exp(-rate)).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.05)
    assert errors[2] < 0.02


@pytest.mark.parametrize("batch", [1, 3])
def test_the_network_is_told_each_level_once_for_every_sample(batch: int) -> None:
    told = []

    def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        told.append(sigma)
        return torch.zeros_like(x)

    sigmas = shifted_sigmas(5, 2.0)
    euler(velocity, torch.zeros(batch, 3, dtype=torch.float16), sigmas)
    assert [t.shape for t in told] == [(batch,)] * 5
    assert all(t.dtype == torch.float16 for t in told)
    torch.testing.assert_close(torch.stack(told)[:, 0].float(), sigmas[:-1], atol=1e-3, rtol=0)


@pytest.mark.parametrize("sampler", [euler, partial(lcm, fresh=lambda: torch.ones(2, 6))])
@pytest.mark.parametrize("steps", [1, 6])
def test_what_is_pinned_is_shown_at_its_noise_level_and_ends_clean(steps: int, sampler: Callable[..., torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(2)
    given, noise = torch.randn(2, 2, 6, generator=generator)
    free = torch.arange(6) < 3
    sigmas = shifted_sigmas(steps, 5.0)
    shown = []

    def pin(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.where(free, x, (1 - sigma) * given + sigma * noise)

    def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        shown.append(x)
        return torch.full_like(x, 7.0)

    result = sampler(velocity, noise, sigmas, pin)
    for x, sigma in zip(shown, sigmas[:-1], strict=True):
        torch.testing.assert_close(x[:, ~free], ((1 - sigma) * given + sigma * noise)[:, ~free])
    assert torch.equal(result[:, ~free], given[:, ~free])
    if sampler is euler or steps == 1:
        torch.testing.assert_close(result[:, free], noise[:, free] - 7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 4, 9])
def test_lcm_gives_what_is_predicted_new_noise_of_each_level(shape: tuple[int, ...], steps: int) -> None:
    """With a network that knows the one true x: what it is shown after the first step is x with the new noise, nothing else."""
    generator = torch.Generator().manual_seed(3)
    data, noise, *later = torch.randn((2 + steps, *shape), generator=generator, dtype=torch.float64)
    made, shown = iter(later), []

    def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        shown.append(x)
        return (x - data) / sigma.view(-1, *[1] * (x.ndim - 1))

    sigmas = shifted_sigmas(steps, 3.0).double()
    torch.testing.assert_close(lcm(velocity, noise, sigmas, fresh=lambda: next(made)), data)
    for x, sigma, fresh in zip(shown, sigmas, [noise, *later], strict=False):
        torch.testing.assert_close(x, (1 - sigma) * data + sigma * fresh)
    assert len(list(made)) == 1, "none is made for the end"


def test_lcm_is_euler_in_one_step() -> None:
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    both = [sampler(lambda x, sigma: x**2, noise, shifted_sigmas(1, 1.0)) for sampler in (euler, partial(lcm, fresh=lambda: noise))]
    torch.testing.assert_close(*both)


def test_sampling_keeps_the_noise_and_no_gradient() -> None:
    noise = torch.randn(1, 3, requires_grad=True)
    before = noise.detach().clone()
    result = euler(lambda x, sigma: x, noise, shifted_sigmas(3, 1.0))
    assert torch.equal(noise, before)
    assert not result.requires_grad


@pytest.mark.parametrize("steps", [1, 2, 12, 50])
@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 8.0])
def test_shifted_sigmas(steps: int, shift: float) -> None:
    sigmas = shifted_sigmas(steps, shift)
    assert sigmas.shape == (steps + 1,)
    assert (float(sigmas[0]), float(sigmas[-1])) == (1.0, 0.0)
    assert (sigmas.diff() < 0).all()
    plain = [1 - k / steps for k in range(steps + 1)]
    expected = [shift * s / (1 + (shift - 1) * s) for s in plain]
    assert sigmas.tolist() == pytest.approx(expected, abs=1e-6)


def test_shifts_multiply() -> None:
    """The odds of a level, s / (1 - s), are multiplied by the shift."""
    inner = slice(1, -1)
    odds = [(s / (1 - s))[inner] for s in (shifted_sigmas(10, shift) for shift in (1.0, 2.0, 3.0, 6.0))]
    torch.testing.assert_close(odds[1], 2 * odds[0], rtol=1e-4, atol=0)
    torch.testing.assert_close(odds[3] * odds[0], odds[1] * odds[2], rtol=1e-4, atol=0)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.8, 1.2), (-1.0, 0.5), (1.5, 0.0)])
def test_noise_levels_are_logit_normal(mean: float, std: float) -> None:
    sigmas = sample_sigmas(20000, torch.Generator().manual_seed(0), mean, std)
    assert ((sigmas > 0) & (sigmas < 1)).all()
    logits = torch.logit(sigmas.double())
    assert float(logits.mean()) == pytest.approx(mean, abs=0.03)
    assert float(logits.std()) == pytest.approx(std, abs=0.02)
    again = sample_sigmas(20000, torch.Generator().manual_seed(0), mean, std)
    assert torch.equal(sigmas, again)

"""Which samples, noise and noise levels a step gets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.config import Timesteps
from training.errors import UserError
from training.latents.read import Cache
from training.train.data import Chance, Order
from training.train.objective import draw_sigma


def test_each_epoch_shows_every_sample(world: Path) -> None:
    cache = Cache(world / "encoded" / "cache", "train")
    for batch in (1, 2, 3, 4, 5):
        order = Order(cache, batch, 0)
        assert order.steps == -(-len(cache) // batch)
        seen = [number for step in range(order.steps) for number in order.numbers(step)]
        assert set(seen) == set(range(len(cache))) and len(seen) == order.steps * batch
        again = Order(cache, batch, 0)
        assert [again.numbers(step) for step in (3 * order.steps, 0)] == [order.numbers(step) for step in (3 * order.steps, 0)]
    orders = [[Order(cache, 1, seed).numbers(step)[0] for step in range(4 * len(cache))] for seed in (0, 1)]
    assert orders[0] != orders[1]


def test_choices_depend_on_seed_step_and_place_alone() -> None:
    drawn = {(s, t, p): torch.randn(4, generator=Chance(s, t, p).torch()) for s in range(3) for t in range(3) for p in range(3)}
    values = torch.stack(list(drawn.values()))
    assert len(torch.unique(values[:, 0])) == len(drawn)
    assert torch.equal(torch.randn(4, generator=Chance(1, 2, 0).torch()), drawn[1, 2, 0])


def test_noise_levels_are_those_of_the_backbone() -> None:
    def levels(**settings: object) -> torch.Tensor:
        chosen = Timesteps(**settings)
        return torch.tensor([draw_sigma(chosen, Chance(0, step, 0).torch()) for step in range(2000)])

    even = levels(kind="uniform")
    torch.testing.assert_close(even.quantile(torch.tensor([0.25, 0.5, 0.75])), torch.tensor([0.25, 0.5, 0.75]), atol=0.04, rtol=0)
    shifted = levels(kind="uniform", shift=5.0)  # 5u / (1 + 4u): half of the levels are above 5/6
    torch.testing.assert_close(shifted.median(), torch.tensor(5 / 6), atol=0.03, rtol=0)
    high, low = levels(kind="uniform", shift=5.0, low=0.9), levels(kind="uniform", shift=5.0, high=0.9)
    assert high.min() >= 0.9 and low.max() <= 0.9
    share = float((shifted >= 0.9).float().mean())  # an expert's levels are those that it would get of the whole
    expected = shifted[shifted >= 0.9].mean() * share + shifted[shifted < 0.9].mean() * (1 - share)
    torch.testing.assert_close(high.mean() * share + low.mean() * (1 - share), expected, atol=0.02, rtol=0)
    normal = levels(kind="logit_normal", mean=1.5, std=1.0)
    torch.testing.assert_close(normal.median(), torch.sigmoid(torch.tensor(1.5)), atol=0.02, rtol=0)
    with pytest.raises(UserError, match=r"none of .* noise levels"):
        levels(kind="logit_normal", mean=9.0, std=0.01, high=0.1)

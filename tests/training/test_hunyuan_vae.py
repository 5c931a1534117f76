"""HunyuanVideo-1.5's VAE in parts: the same result as at once, in memory that does not grow with the length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo15
from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import HunyuanVideo15AttnBlock
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from training.backbones.hunyuan_vae import work_in_parts

HEIGHT, WIDTH = 32, 48
WIDTHS = (16, 16, 32, 64, 64)
Pair = tuple[AutoencoderKLHunyuanVideo15, AutoencoderKLHunyuanVideo15]


def narrow() -> AutoencoderKLHunyuanVideo15:
    torch.manual_seed(0)
    return AutoencoderKLHunyuanVideo15(block_out_channels=WIDTHS, layers_per_block=1).eval().requires_grad_(False)


def video(frames: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(1, 3, frames, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def latents(frames: int) -> torch.Tensor:
    return torch.randn(1, 32, frames, HEIGHT // 16, WIDTH // 16, generator=torch.Generator().manual_seed(2))


def encoded(vae: AutoencoderKLHunyuanVideo15, pixels: torch.Tensor) -> torch.Tensor:
    return vae.encode(pixels).latent_dist.mode()


@pytest.fixture(scope="module")
def pair() -> Pair:
    """The VAE in parts and diffusers' own with the same weights."""
    ours, theirs = narrow(), narrow()
    work_in_parts(ours)
    return ours, theirs


@pytest.fixture
def unmasked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """diffusers' own attention lets each frame see all, as ComfyUI's does."""

    def mask(frames: int, size: int, dtype: torch.dtype, device: torch.device, batch_size: int) -> torch.Tensor:
        return torch.zeros(batch_size, frames * size, frames * size, dtype=dtype, device=device)

    monkeypatch.setattr(HunyuanVideo15AttnBlock, "prepare_causal_attention_mask", staticmethod(mask))
    yield


@pytest.mark.parametrize("frames", [1, 5, 13])
def test_in_parts_is_at_once(pair: Pair, unmasked: None, frames: int) -> None:
    ours, theirs = pair
    torch.testing.assert_close(encoded(ours, video(frames)), encoded(theirs, video(frames)), atol=1e-4, rtol=0)
    given = latents(1 + frames // 4)
    torch.testing.assert_close(ours.decode(given).sample, theirs.decode(given).sample, atol=1e-4, rtol=0)


def test_a_picture_is_diffusers_own(pair: Pair) -> None:
    ours, theirs = pair
    torch.testing.assert_close(encoded(ours, video(1)), encoded(theirs, video(1)), atol=1e-4, rtol=0)


def test_a_video_that_fails_leaves_nothing_to_the_next(pair: Pair) -> None:
    before = encoded(pair[0], video(5))
    with pytest.raises(RuntimeError):
        encoded(pair[0], video(7, seed=3))  # the last two frames make no latent
    assert torch.equal(encoded(pair[0], video(5)), before)


class Largest(TorchDispatchMode):
    """The most numbers in a tensor that anything has made."""

    numbers = 0

    def __torch_dispatch__(self, called: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = called(*args, **(kwargs or {}))
        owned = (one for one in tree_leaves(out) if isinstance(one, torch.Tensor) and one._base is None)
        self.numbers = max([self.numbers, *(one.numel() for one in owned)])
        return out


@pytest.mark.parametrize(
    "work",
    [lambda vae, count: vae.encode(video(4 * count + 1)), lambda vae, count: vae.decode(latents(count + 1))],
    ids=["encode", "decode"],
)
def test_no_layer_grows_with_the_length(pair: Pair, work: Callable[[AutoencoderKLHunyuanVideo15, int], Any]) -> None:
    found = []
    for count in (2, 6):
        with Largest() as seen:
            work(pair[0], count)
        found.append(seen.numbers)
    assert found[0] == found[1] > WIDTHS[0] * 4 * HEIGHT * WIDTH

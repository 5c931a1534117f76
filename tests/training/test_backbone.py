"""The small backbone's networks: folding a rescaling into the VAE, and the way to the host's files and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors import safe_open

from training.marionette import backbone
from training.marionette.attention import plain_attention
from training.marionette.backbone import (
    VAE_CONFIG,
    encode,
    load_model,
    load_vae,
    load_words,
    match_wan_statistics,
    normalise,
    save_model,
    save_vae,
    save_words,
    wan_statistics,
)

TINY = backbone.MODEL_CONFIG | {"attention_head_dim": 16, "ffn_dim": 48, "freq_dim": 16, "num_layers": 2}


def random_vae(seed: int) -> AutoencoderKLWan:
    """A VAE of the shipped kind with weights that make every channel of the latent vary by another amount."""
    torch.manual_seed(seed)
    vae = AutoencoderKLWan(**VAE_CONFIG).eval().requires_grad_(False)
    channels = len(vae.config.latents_mean)
    vae.quant_conv.weight[:channels] *= torch.linspace(0.3, 4, channels).view(-1, 1, 1, 1, 1)
    vae.quant_conv.bias[:channels] += torch.randn(channels)
    vae.post_quant_conv.bias += 0.3 * torch.randn(channels)
    return vae


def clips(seed: int, count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 5, 24, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def statistics(latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))


@pytest.mark.parametrize("seed", [0, 1])
def test_matching_statistics_changes_the_latents_and_not_the_pictures(seed: int) -> None:
    vae, pixels = random_vae(seed), clips(seed)
    before = vae.encode(pixels).latent_dist
    latents, spread = before.mode(), before.std
    pictures = vae.decode(latents).sample
    mean, std = statistics(latents)
    match_wan_statistics(vae, mean, std)

    after = vae.encode(pixels).latent_dist
    wan_mean, wan_std = wan_statistics(vae)
    assert not torch.allclose(after.mode(), latents, atol=0.1)
    assert pictures.std() > 1e-3, "the pictures are all alike: the test would see nothing"
    torch.testing.assert_close(vae.decode(after.mode()).sample, pictures, atol=1e-3, rtol=0)
    found = statistics(after.mode())
    torch.testing.assert_close(found[0], wan_mean.flatten(), atol=1e-3, rtol=0)
    torch.testing.assert_close(found[1], wan_std.flatten(), atol=1e-3, rtol=0)
    # the noise of the posterior is scaled as the latents are
    gain = (wan_std.flatten() / std).view(1, -1, 1, 1, 1)
    torch.testing.assert_close(after.std, spread * gain, rtol=1e-3, atol=1e-5)


def test_matching_twice_changes_nothing_more() -> None:
    vae, pixels = random_vae(2), clips(2)
    for _ in range(2):
        match_wan_statistics(vae, *statistics(encode(vae, pixels)))
        found = {k: v.clone() for k, v in vae.state_dict().items()}
    match_wan_statistics(vae, *(value.flatten() for value in wan_statistics(vae)))
    for key, value in vae.state_dict().items():
        torch.testing.assert_close(value, found[key], atol=1e-5, rtol=1e-5)


def test_normalised_latents_have_mean_0_and_deviation_1() -> None:
    vae, pixels = random_vae(3), clips(3)
    match_wan_statistics(vae, *statistics(encode(vae, pixels)))
    mean, std = statistics(normalise(vae, encode(vae, pixels)))
    torch.testing.assert_close(mean, torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(std, torch.ones(16), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (5, 2), (9, 3)])
def test_latents_are_4_times_8_times_8_smaller(frames: int, latents: int) -> None:
    encoded = encode(random_vae(0), torch.zeros(1, 3, frames, 16, 32))
    assert encoded.shape == (1, 16, latents, 2, 4)


def test_the_first_latent_frame_sees_the_first_frame_only() -> None:
    """What the layout's masks rest on: latent frame i is made of no frame after 4i."""
    vae, pixels = random_vae(0), clips(4, 1)
    changed = pixels.clone()
    changed[:, :, 1:] *= -1
    one, other = encode(vae, pixels), encode(vae, changed)
    assert torch.equal(one[:, :, 0], other[:, :, 0])
    assert not torch.allclose(one[:, :, 1], other[:, :, 1])


def test_a_vae_survives_its_file(tmp_path: Path) -> None:
    vae = random_vae(5)
    save_vae(vae, tmp_path / "vae.safetensors")
    read = load_vae(tmp_path / "vae.safetensors")
    assert not any(p.requires_grad for p in read.parameters())
    state = read.state_dict()
    assert state.keys() == vae.state_dict().keys()
    for key, value in vae.state_dict().items():
        assert torch.equal(state[key], value.half().float()), key


def test_a_transformer_survives_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "MODEL_CONFIG", TINY)
    model = WanTransformer3DModel(**TINY)
    save_model(model.state_dict(), tmp_path / "model.safetensors")
    state = load_model(tmp_path / "model.safetensors").state_dict()
    assert state.keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(state[key], value.half().float()), key


def test_the_file_tells_the_host_what_the_weights_do_not(tmp_path: Path) -> None:
    save_model(WanTransformer3DModel(**TINY).state_dict(), tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        told = json.loads(file.metadata()["config"])["transformer"]
    names = {"num_heads": "num_attention_heads", "text_dim": "text_dim", "freq_dim": "freq_dim"}
    assert told == {native: backbone.MODEL_CONFIG[name] for native, name in names.items()}


def test_words_survive_their_file(tmp_path: Path) -> None:
    save_words(tmp_path / "words.safetensors")
    once, again = (load_words(tmp_path / "words.safetensors").vectors for _ in range(2))
    assert torch.equal(once, again)
    assert once.dtype == torch.float32
    assert not once[0].any()
    assert float(once[1:].std()) == pytest.approx(1, abs=0.01)


def test_plain_attention_is_attention() -> None:
    q, k, v = (torch.randn(2, tokens, 3, 8, generator=torch.Generator().manual_seed(n)) for n, tokens in enumerate((5, 7, 7)))
    expected = torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    torch.testing.assert_close(plain_attention(q, k, v), expected)

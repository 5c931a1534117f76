"""The small backbone's three networks: how they are made, written for the host, and read back."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers, convert_wan_vae_to_diffusers
from safetensors.torch import load_file

from dreamactor_core.words import DIM, WordTable
from training.checkpoint import save_atomic
from training.native import to_native, wan_transformer_key, wan_vae_key

ROOT = Path(__file__).resolve().parents[2]
VAE_FILE = ROOT / "models/vae/marionette_vae.safetensors"
MODEL_FILE = ROOT / "models/diffusion_models/marionette_i2v.safetensors"
WORDS_FILE = ROOT / "models/text_encoders/marionette_words.safetensors"
LORA_FOLDER = ROOT / "models/loras"

VAE_CONFIG = dict(
    base_dim=16, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[], temperal_downsample=[False, True, True]
)
MODEL_CONFIG = dict(
    patch_size=(1, 2, 2), num_attention_heads=4, attention_head_dim=64, in_channels=36, out_channels=16, text_dim=DIM,
    freq_dim=256, ffn_dim=1024, num_layers=8, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
)  # fmt: skip
NATIVE_CONFIG = {"transformer": {"num_heads": 4, "text_dim": DIM, "freq_dim": 256}}
"""What the stock loader cannot read off the weights; it takes it from the file's metadata."""


def wan_statistics(vae: AutoencoderKLWan) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of Wan 2.1's latents, (1, 16, 1, 1, 1) each: the host normalises by them."""
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    return mean, torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)


@torch.no_grad()
def match_wan_statistics(vae: AutoencoderKLWan, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Rescale the latents, whose mean and deviation by channel are given, to those of Wan 2.1, without changing pictures.

    The change is folded into the 1x1 convolutions at both ends of the latent.
    """
    wan_mean, wan_std = (value.flatten() for value in wan_statistics(vae))
    gain = wan_std / std
    count = len(gain)
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += torch.einsum("oi,i->o", post.weight[:, :, 0, 0, 0], mean - wan_mean / gain)
    post.weight /= gain.view(1, -1, 1, 1, 1)
    quant.weight[:count] *= gain.view(-1, 1, 1, 1, 1)
    quant.bias[:count] = (quant.bias[:count] - mean) * gain + wan_mean
    quant.bias[count:] += 2 * gain.log()


def save_vae(vae: AutoencoderKLWan, path: Path) -> None:
    """Write a VAE that the stock VAELoader reads, in half precision."""
    state = {k: v.half() for k, v in to_native(vae.state_dict(), wan_vae_key).items()}
    save_atomic(state, path, {"modelspec.title": "Marionette VAE", "modelspec.architecture": "wan2.1-vae"})


def load_vae(path: Path = VAE_FILE) -> AutoencoderKLWan:
    """The VAE as a diffusers module in float32, frozen."""
    vae = AutoencoderKLWan(**VAE_CONFIG)
    vae.load_state_dict({k: v.float() for k, v in convert_wan_vae_to_diffusers(load_file(path)).items()})
    for module in vae.modules():  # this order of the weights alone makes half-precision encoding on the CPU twice as fast
        if isinstance(module, torch.nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(module, torch.nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return vae.eval().requires_grad_(False)


def save_model(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write a transformer that the stock UNETLoader reads, in half precision."""
    native = {k: v.half() for k, v in to_native(state, wan_transformer_key).items()}
    title = {"modelspec.title": "Marionette image-to-video", "modelspec.architecture": "wan2.1-i2v"}
    save_atomic(native, path, {"config": json.dumps(NATIVE_CONFIG), **title})


def load_model(path: Path = MODEL_FILE) -> WanTransformer3DModel:
    """The transformer as a diffusers module in float32."""
    model = WanTransformer3DModel(**MODEL_CONFIG)
    model.load_state_dict({k: v.float() for k, v in convert_wan_transformer_to_diffusers(load_file(path)).items()})
    return model


def save_words(path: Path = WORDS_FILE) -> None:
    """Write the text encoder: it is not trained, only fixed."""
    save_atomic({"vectors": WordTable.random().vectors.half()}, path, {"modelspec.title": "Marionette words"})


def load_words(path: Path = WORDS_FILE) -> WordTable:
    """The text encoder in float32."""
    table = WordTable()
    table.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return table


@torch.no_grad()
def encode(vae: AutoencoderKLWan, pixels: torch.Tensor) -> torch.Tensor:
    """Pixels (B, 3, T, H, W) in [-1, 1] to latents as the host's VAE makes them (not normalised)."""
    return vae.encode(pixels.to(vae.device)).latent_dist.mode()


def normalise(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """Latents as the network takes them."""
    mean, std = (value.to(latents) for value in wan_statistics(vae))
    return (latents - mean) / std

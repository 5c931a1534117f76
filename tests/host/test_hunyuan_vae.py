"""What training makes of a video with HunyuanVideo-1.5's VAE is what the host makes of it."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo15
from safetensors.torch import save_file
from toys import SIZE

from training.backbones import get
from training.config import Backbone

NATIVE = (
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", r"up.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.upsamplers\.0", r"up.\1.upsample"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.(?:to_)?", "mid.attn_1."),
)
FRAMES = 13


def native(key: str) -> str:
    for pattern, replacement in NATIVE:
        key = re.sub(pattern, replacement, key)
    return key


@pytest.mark.parametrize("frames", [1, FRAMES])
def test_the_vae_of_hunyuan_is_the_hosts(tmp_path: Path, toy_nodes: ModuleType, frames: int) -> None:
    import comfy.latent_formats

    torch.manual_seed(0)
    vae = AutoencoderKLHunyuanVideo15(block_out_channels=(32, 32, 64, 64, 64), layers_per_block=2)
    vae.save_pretrained(tmp_path / "vae")
    save_file({native(key): value for key, value in vae.state_dict().items()}, tmp_path / "native.safetensors")
    theirs = toy_nodes.load_hunyuan_vae(str(tmp_path / "native.safetensors"))
    ours = get(Backbone(name="hunyuanvideo-1.5-i2v", path=tmp_path)).load_encoders(torch.device("cpu"), only_vae=True)
    pixels = torch.rand(frames, SIZE, 2 * SIZE, 3)
    with torch.inference_mode():
        expected = theirs.encode(pixels)
    scaled = comfy.latent_formats.HunyuanVideo15().process_in(expected)
    got = ours.encode(pixels.movedim(-1, 0)[None] * 2 - 1)
    torch.testing.assert_close(got, scaled.clone(), atol=1e-4, rtol=0)
    with torch.inference_mode():
        shown = theirs.decode(expected)
    decoded = (ours.decode(got)[0].movedim(0, -1) + 1) / 2
    torch.testing.assert_close(decoded, shown[0].clone(), atol=1e-4, rtol=0)

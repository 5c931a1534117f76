"""HunyuanVideo-1.5's VAE a few frames at a time: what ComfyUI's own makes of a video, in memory that hardly grows with its length.

diffusers' own holds what a layer makes of all frames, 49 GB at 121 frames of 480x1664 in single precision and several of them at a
time, and an attention mask of another 37 GB.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLHunyuanVideo15
from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import (
    HunyuanVideo15AttnBlock,
    HunyuanVideo15CausalConv3d,
    HunyuanVideo15Downsample,
    HunyuanVideo15Upsample,
)
from torch import nn


class _Convolution(nn.Module):
    """A causal convolution that goes on after the frames that it was given last."""

    def __init__(self, made: HunyuanVideo15CausalConv3d) -> None:
        super().__init__()
        self.conv, self._mode = made.conv, made.pad_mode
        *self._sides, self._earlier, _ = made.time_causal_padding
        self.before: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.before is None:
            x = F.pad(x, (*self._sides, self._earlier, 0), mode=self._mode)
        else:
            x = torch.cat([self.before, F.pad(x, (*self._sides, 0, 0), mode=self._mode)], 2)
        self.before = x[:, :, -self._earlier :].clone()  # a view would keep all of x
        return self.conv(x)


class _Resampling(nn.Module):
    """Down or up, where the first frame of a video, and only that, has no second one to make a pair with."""

    def __init__(self, made: HunyuanVideo15Downsample | HunyuanVideo15Upsample) -> None:
        super().__init__()
        made.conv = _Convolution(made.conv)
        self.made = made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made, down = self.made, isinstance(self.made, HunyuanVideo15Downsample)
        in_time = made.add_temporal_downsample if down else made.add_temporal_upsample
        if not in_time or made.conv.before is None:
            return made(x)
        if down:
            new, old = (made._dcae_downsample_rearrange(one, 2, 2, 2) for one in (made.conv(x), x))
            return new + old.unflatten(1, (-1, made.group_size)).mean(2)
        new, old = (made._dcae_upsample_rearrange(one, 2, 2, 2) for one in (made.conv(x), x))
        return new + old.repeat_interleave(made.repeats, 1)


class _Attention(nn.Module):
    """Attention of the tokens of each frame to those of all frames.

    The network's authors, and diffusers, let a frame see no later ones. ComfyUI does, and its latents are those that the network
    is shown in the end. Of a picture both make the same.
    """

    def __init__(self, made: HunyuanVideo15AttnBlock) -> None:
        super().__init__()
        self.made = made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made, shape = self.made, x.shape[2:]
        normed = made.norm(x)
        query, key, value = (
            layer(normed).flatten(2).transpose(1, 2)[:, None].contiguous() for layer in (made.to_q, made.to_k, made.to_v)
        )
        # frame by frame, as heads of 1,024 channels are too wide for some kernels, and others hold the whole matrix
        found = [F.scaled_dot_product_attention(part, key, value) for part in query.split(shape[1] * shape[2], 2)]
        return x + made.proj_out(torch.cat(found, 2)[:, 0].transpose(1, 2).unflatten(2, shape))


class _InParts(nn.Sequential):
    """Layers that a video (B, C, T, H, W) goes through in parts: its first frame, then so many frames each time."""

    def __init__(self, frames: int, *layers: nn.Module) -> None:
        super().__init__(*map(_carrying, layers))
        self._frames = frames

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        found = []
        try:
            for part in (video[:, :, :1], *(video[:, :, k : k + self._frames] for k in range(1, video.shape[2], self._frames))):
                found.append(super().forward(part))
            return torch.cat(found, 2)
        finally:
            for module in self.modules():
                if isinstance(module, _Convolution):
                    module.before = None


def _carrying(layer: nn.Module) -> nn.Module:
    """A layer whose convolutions go on where they were."""
    if isinstance(layer, HunyuanVideo15CausalConv3d):
        return _Convolution(layer)
    if isinstance(layer, HunyuanVideo15Downsample | HunyuanVideo15Upsample):
        return _Resampling(layer)
    for name, inner in layer.named_children():
        setattr(layer, name, _carrying(inner))
    return layer


def work_in_parts(vae: AutoencoderKLHunyuanVideo15) -> None:
    """Let a VAE encode and decode from now on as ComfyUI's does, one latent frame at a time. Its layers are replaced for that."""
    encoder, decoder = vae.encoder, vae.decoder
    for coder in (encoder, decoder):
        coder.mid_block.attentions = nn.ModuleList(_Attention(one) for one in coder.mid_block.attentions)
    # the layers at the latents' own size take all frames at once
    down = _InParts(vae.config.temporal_compression_ratio, encoder.conv_in, *encoder.down_blocks)
    encoder.conv_in, encoder.down_blocks = nn.Identity(), nn.ModuleList([down])
    last = (decoder.norm_out, decoder.conv_act, decoder.conv_out)
    decoder.up_blocks = nn.ModuleList([_InParts(1, *decoder.up_blocks, *last)])
    decoder.norm_out, decoder.conv_act, decoder.conv_out = (nn.Identity() for _ in last)

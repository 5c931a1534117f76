"""Names: from diffusers' modules to the native ones that ComfyUI and the original releases use.

The other direction is diffusers' own (`convert_wan_transformer_to_diffusers`, `convert_wan_vae_to_diffusers`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch

_WAN_TRANSFORMER = (
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    # the image embedding of Wan2.1, before the rules for what is in blocks: a norm2 of its own would be renamed by them
    (r"^condition_embedder\.image_embedder\.norm1\.", "img_emb.proj.0."),
    (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj\b", "img_emb.proj.1"),
    (r"^condition_embedder\.image_embedder\.ff\.net\.2\b", "img_emb.proj.3"),
    (r"^condition_embedder\.image_embedder\.norm2\.", "img_emb.proj.4."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^proj_out\.", "head.head."),
    (r"\.scale_shift_table$", ".modulation"),
    (r"\.norm2\.", ".norm3."),  # the two affine norms are numbered differently; ours has no other norm with weights
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_q\.", ".q."),
    (r"\.to_k\.", ".k."),
    (r"\.to_v\.", ".v."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.add_k_proj\.", ".k_img."),
    (r"\.add_v_proj\.", ".v_img."),
    (r"\.norm_added_k\.", ".norm_k_img."),
    (r"\.ffn\.net\.0\.proj\b", ".ffn.0"),
    (r"\.ffn\.net\.2\b", ".ffn.2"),
)

_HUNYUAN_VIDEO_15 = (
    (r"^transformer_blocks\.", "double_blocks."),
    (r"\.ff\.net\.0\.proj\b", ".img_mlp.0"),
    (r"\.ff\.net\.2\b", ".img_mlp.2"),
)

_WAN_VAE = (
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"^encoder\.down_blocks\.", "encoder.downsamples."),
    (r"\.conv_shortcut\.", ".shortcut."),
)
_WAN_VAE_RESIDUAL = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}


def _renamed(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def wan_transformer_key(key: str) -> str:
    """Native name of a parameter or module of diffusers' WanTransformer3DModel."""
    return _renamed(key, _WAN_TRANSFORMER)


def hunyuan_video_15_key(key: str) -> str:
    """Native name of a video feed-forward layer of diffusers' HunyuanVideo15Transformer3DModel."""
    return _renamed(key, _HUNYUAN_VIDEO_15)


def wan_vae_key(key: str) -> str:
    """Native name of a parameter of diffusers' AutoencoderKLWan (Wan 2.1)."""
    inside = re.match(r"^(.*(?:resnets|down_blocks)\.\d+)\.(norm1|conv1|norm2|conv2)\.(.+)$", key)
    if inside:
        key = f"{inside[1]}.{_WAN_VAE_RESIDUAL[inside[2]]}.{inside[3]}"
    up = re.match(r"^decoder\.up_blocks\.(\d)\.(resnets|upsamplers)\.(\d)\.(.+)$", key)
    if up:
        # natively one flat list: three residual blocks and an upsampler for each level
        key = f"decoder.upsamples.{int(up[1]) * 4 + (int(up[3]) if up[2] == 'resnets' else 3)}.{up[4]}"
    return _renamed(key, _WAN_VAE)


def to_native(state: Mapping[str, torch.Tensor], rename: Callable[[str], str]) -> dict[str, torch.Tensor]:
    """A state dict under other names. Raises ValueError when two keys would meet."""
    renamed = {rename(key): value for key, value in state.items()}
    if len(renamed) != len(state):
        raise ValueError("two parameters would get one native name")
    return renamed

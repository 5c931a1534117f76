"""A network's dimensions, from its config.json where its folder is there, else as it was released."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from training.config import Backbone, BackboneName
from training.errors import UserError

WAN: dict[str, Any] = dict(
    patch_size=[1, 2, 2], num_attention_heads=40, attention_head_dim=128, in_channels=36, out_channels=16, text_dim=4096,
    freq_dim=256, ffn_dim=13824, num_layers=40, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
)  # fmt: skip
RELEASED: dict[BackboneName, dict[str, Any]] = {
    "wan2.1-i2v-14b": WAN | {"image_dim": 1280, "added_kv_proj_dim": 5120},
    "wan2.2-i2v-a14b": WAN,
    "hunyuanvideo-1.5-i2v": dict(
        in_channels=65, out_channels=32, num_attention_heads=16, attention_head_dim=128, num_layers=54, num_refiner_layers=2,
        mlp_ratio=4.0, patch_size=1, patch_size_t=1, text_embed_dim=3584, text_embed_2_dim=1472, image_embed_dim=1152,
        task_type="i2v",
    ),
    "marionette": WAN | dict(num_attention_heads=4, attention_head_dim=64, text_dim=32, ffn_dim=1024, num_layers=8),
}  # fmt: skip
"""diffusers' configs of the released networks."""

_TEXT = {"wan2.1-i2v-14b": 512, "wan2.2-i2v-a14b": 512, "hunyuanvideo-1.5-i2v": 300, "marionette": 16}
_IMAGE = {"wan2.1-i2v-14b": 257, "hunyuanvideo-1.5-i2v": 729}
_PROMPT = 200


@dataclass(frozen=True)
class Network:
    """Dimensions of a video transformer.

    Attributes:
        joint: Whether text and video go through the same attention (HunyuanVideo); else text is attended to apart (Wan).
        width: D, of a token. inner: F, of its feed-forward layers. heads, layers: of attention, and blocks.
        channels: Of the latents. inputs: of latents, mask and Z together.
        stride, patch: Pixels of a latent's side, latents of a token's side.
        text, image: Tokens of a prompt as the network sees them (Wan pads to 512; of HunyuanVideo assumed), and of the picture.
        stored_text: Tokens of a prompt that a cache keeps, assumed. text_width, image_width: of them before they are projected.
    """

    joint: bool
    width: int
    inner: int
    heads: int
    layers: int
    channels: int
    inputs: int
    stride: int
    patch: int
    text: int
    image: int
    stored_text: int
    text_width: int
    image_width: int


def config_of(settings: Backbone) -> tuple[dict[str, Any], str]:
    """diffusers' config of a run's network, and where it is from. Raises UserError for a file that is not one."""
    released = RELEASED[settings.name]
    if settings.name == "marionette" or settings.path is None:
        return released, "as released"
    path = settings.path / ("transformer_2" if settings.expert == "low_noise" else "transformer") / "config.json"
    if not path.is_file():
        return released, f"as released: there is no {path} yet"
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"{type(found).__name__} instead of an object")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}), expected diffusers' config of {settings.name}: get it again") from error
    return released | found, str(path)


def network(name: BackboneName, config: dict[str, Any]) -> Network:
    """Dimensions out of diffusers' config. Raises UserError when one is missing or not a number."""
    try:
        heads, joint = int(config["num_attention_heads"]), name == "hunyuanvideo-1.5-i2v"
        width = heads * int(config["attention_head_dim"])
        image = int(config.get("image_embed_dim" if joint else "image_dim") or 0)
        return Network(
            joint=joint,
            width=width,
            inner=int(width * config["mlp_ratio"]) if joint else int(config["ffn_dim"]),
            heads=heads,
            layers=int(config["num_layers"]),
            channels=int(config["out_channels"]),
            inputs=int(config["in_channels"]),
            stride=16 if joint else 8,
            patch=int(config["patch_size"] if joint else config["patch_size"][-1]),
            text=_TEXT[name],
            image=_IMAGE.get(name, 0) if image else 0,
            stored_text=min(_PROMPT, _TEXT[name]),
            text_width=int(config["text_embed_dim" if joint else "text_dim"]),
            image_width=image,
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"the config of {name} lacks or mistakes {error}, expected diffusers' own: get it again") from error


def empty(name: BackboneName, config: dict[str, Any]) -> Any:
    """The network without memory for its weights, to count them."""
    import torch
    from diffusers import HunyuanVideo15Transformer3DModel, WanTransformer3DModel

    kind = HunyuanVideo15Transformer3DModel if name == "hunyuanvideo-1.5-i2v" else WanTransformer3DModel
    with torch.device("meta"):
        return kind.from_config(config)

"""What training knows of the large networks, held against the host's code: Wan2.1's names, and what CLIP vision is shown."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from toys import WAN_DEPTH, WAN_INNER, WAN_TEXT, WAN_WIDTH

from tests.training.toy_backbones import write_hunyuan, write_wan
from training.backbones import get
from training.config import Backbone
from training.native import to_native, wan_transformer_key

LEVEL = 1 / 255
"""Of a picture's 256: the two resize in other arithmetic, and both round to these."""


def test_wan21_in_diffusers_names_is_the_hosts_network() -> None:
    import comfy.ldm.wan.model
    import comfy.ops

    torch.manual_seed(0)
    heads, tokens, vision = 2, 7, 1280  # the host knows CLIP vision of this width
    ours = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=heads, attention_head_dim=WAN_WIDTH // heads, in_channels=36, out_channels=16,
        text_dim=WAN_TEXT, freq_dim=256, ffn_dim=WAN_INNER, num_layers=WAN_DEPTH, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads", image_dim=vision, added_kv_proj_dim=WAN_WIDTH,
    ).eval()  # fmt: skip
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    theirs = comfy.ldm.wan.model.WanModel(
        model_type="i2v", in_dim=36, dim=WAN_WIDTH, ffn_dim=WAN_INNER, text_dim=WAN_TEXT, out_dim=16, num_heads=heads,
        num_layers=WAN_DEPTH, operations=comfy.ops.disable_weight_init,
    ).eval()  # fmt: skip
    theirs.load_state_dict(to_native(ours.state_dict(), wan_transformer_key))  # strict: no name more and none less
    x, time = torch.randn(1, 36, 2, 4, 8), torch.tensor([500.0])
    text, image = torch.randn(1, 512, WAN_TEXT), torch.randn(1, tokens, vision)
    with torch.no_grad():
        expected = theirs(x, time, text, clip_fea=image)
        got = ours(x, time, text, encoder_hidden_states_image=image, return_dict=False)[0]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)


@pytest.fixture(scope="module", params=["wan2.1-i2v-14b", "hunyuanvideo-1.5-i2v"])
def encoders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Training's encoders of a toy folder."""
    write = write_wan if request.param.startswith("wan") else write_hunyuan
    folder: Path = write(tmp_path_factory.mktemp("toy"))
    return get(Backbone(name=request.param, path=folder, dtype="float32")).load_encoders(torch.device("cpu"))


@pytest.mark.parametrize("size", [(48, 96), (96, 48), (64, 64)], ids=str)
def test_clip_vision_is_shown_what_the_graphs_show_it(encoders: Any, size: tuple[int, int]) -> None:
    """Clip Vision Encode with crop: none, by what reaches the encoder."""
    import comfy.clip_vision

    pipe, seen = encoders.pipeline, []
    processor = getattr(pipe, "image_processor", None) or pipe.feature_extractor
    # without black and white: what a cubic overshoots there is cut off between two steps by the one, after both by the other
    pixels = np.random.default_rng(0).integers(64, 192, (*size, 3), dtype=np.uint8)
    note = pipe.image_encoder.register_forward_pre_hook(
        lambda _module, given, more: seen.append((given or [more["pixel_values"]])[0]), with_kwargs=True
    )
    try:
        encoders.image(torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1)
    finally:
        note.remove()
    told = SimpleNamespace(mean=processor.image_mean, std=processor.image_std)
    expected = comfy.clip_vision.clip_preprocess(
        torch.from_numpy(pixels)[None].float() / 255, pipe.image_encoder.config.image_size, told.mean, told.std, crop=False
    )
    torch.testing.assert_close(seen[0], expected, atol=1.01 * LEVEL / min(told.std), rtol=0)

"""Names: ours and diffusers' own converters are each other's inverse, and the native ones are those of the releases."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers, convert_wan_vae_to_diffusers

from training.lora_file import FEED_FORWARD
from training.marionette.backbone import MODEL_CONFIG, VAE_CONFIG
from training.native import hunyuan_video_15_key, to_native, wan_transformer_key, wan_vae_key

TINY = MODEL_CONFIG | {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "ffn_dim": 48,
    "freq_dim": 16,
    "num_layers": 3,
}


def numbered(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The module's state with values of its own for each tensor, so that no two can be mistaken."""
    state = module.state_dict()
    return {key: torch.full_like(value, float(i + 1)) for i, (key, value) in enumerate(state.items())}


@pytest.fixture(scope="module")
def transformer() -> dict[str, torch.Tensor]:
    return numbered(WanTransformer3DModel(**TINY))


@pytest.fixture(scope="module")
def with_image() -> dict[str, torch.Tensor]:
    """As Wan2.1's image-to-video network, which is shown CLIP vision."""
    return numbered(WanTransformer3DModel(**TINY, image_dim=24, added_kv_proj_dim=32))


@pytest.fixture(scope="module")
def vae() -> dict[str, torch.Tensor]:
    return numbered(AutoencoderKLWan(**VAE_CONFIG))


def assert_inverse(state: dict[str, torch.Tensor], rename: Callable[[str], str], back: Callable[[dict], dict]) -> None:
    native = to_native(state, rename)
    assert len(native) == len(state)
    returned = back(dict(native))
    assert returned.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(returned[key], value), key


def test_diffusers_undoes_the_transformers_names(transformer: dict[str, torch.Tensor]) -> None:
    assert_inverse(transformer, wan_transformer_key, convert_wan_transformer_to_diffusers)


def test_diffusers_undoes_the_names_of_the_image_embedding(with_image: dict[str, torch.Tensor]) -> None:
    assert_inverse(with_image, wan_transformer_key, convert_wan_transformer_to_diffusers)


def test_diffusers_undoes_the_vaes_names(vae: dict[str, torch.Tensor]) -> None:
    assert_inverse(vae, wan_vae_key, convert_wan_vae_to_diffusers)


def both(name: str) -> set[str]:
    return {f"{name}.weight", f"{name}.bias"}


def test_the_transformers_names_are_the_original_releases(transformer: dict[str, torch.Tensor]) -> None:
    expected = {"head.modulation"} | both("head.head") | both("patch_embedding") | both("time_projection.1")
    for name in ("time_embedding", "text_embedding"):
        expected |= both(f"{name}.0") | both(f"{name}.2")
    for k in range(TINY["num_layers"]):
        block = f"blocks.{k}"
        expected |= {f"{block}.modulation"} | both(f"{block}.norm3") | both(f"{block}.ffn.0") | both(f"{block}.ffn.2")
        for attention in ("self_attn", "cross_attn"):
            expected |= {f"{block}.{attention}.norm_q.weight", f"{block}.{attention}.norm_k.weight"}
            for part in "qkvo":
                expected |= both(f"{block}.{attention}.{part}")
    assert {wan_transformer_key(key) for key in transformer} == expected


def test_the_image_embeddings_names_are_the_original_releases(
    transformer: dict[str, torch.Tensor], with_image: dict[str, torch.Tensor]
) -> None:
    expected = both("img_emb.proj.0") | both("img_emb.proj.1") | both("img_emb.proj.3") | both("img_emb.proj.4")
    for k in range(TINY["num_layers"]):
        attention = f"blocks.{k}.cross_attn"
        expected |= both(f"{attention}.k_img") | both(f"{attention}.v_img") | {f"{attention}.norm_k_img.weight"}
    more = {wan_transformer_key(key) for key in with_image.keys() - transformer.keys()}
    assert more == expected


def test_the_vaes_names_are_the_original_releases(vae: dict[str, torch.Tensor]) -> None:
    def residual(name: str) -> set[str]:
        gammas = {f"{name}.residual.0.gamma", f"{name}.residual.3.gamma"}
        return gammas | both(f"{name}.residual.2") | both(f"{name}.residual.6")

    expected = both("conv1") | both("conv2")
    for part in ("encoder", "decoder"):
        expected |= both(f"{part}.conv1") | both(f"{part}.head.2") | {f"{part}.head.0.gamma"}
        expected |= residual(f"{part}.middle.0") | residual(f"{part}.middle.2")
        expected |= {f"{part}.middle.1.norm.gamma"} | both(f"{part}.middle.1.to_qkv") | both(f"{part}.middle.1.proj")
    # two residual blocks a level going down, three going up, with a resampling between levels
    for layout, resamples, times, shortcuts, count in (
        ("encoder.downsamples", (2, 5, 8), (5, 8), (3, 6), 11),
        ("decoder.upsamples", (3, 7, 11), (3, 7), (4,), 15),
    ):
        for k in range(count):
            expected |= both(f"{layout}.{k}.resample.1") if k in resamples else residual(f"{layout}.{k}")
            expected |= both(f"{layout}.{k}.time_conv") if k in times else set()
            expected |= both(f"{layout}.{k}.shortcut") if k in shortcuts else set()
    assert {wan_vae_key(key) for key in vae} == expected


def test_modules_are_renamed_as_their_parameters_are(transformer: dict[str, torch.Tensor]) -> None:
    for key in transformer:
        module, dot, leaf = key.rpartition(".")
        if leaf in ("weight", "bias"):
            assert wan_transformer_key(key) == wan_transformer_key(module + dot) + leaf


def test_the_layers_that_learn_are_the_native_feed_forward_ones(transformer: dict[str, torch.Tensor]) -> None:
    chosen = {
        key.removesuffix(".weight") for key in transformer if re.fullmatch(FEED_FORWARD["wan"] + r"\.weight", key)
    }
    native = {wan_transformer_key(name) for name in chosen}
    assert native == {f"blocks.{k}.ffn.{n}" for k in range(TINY["num_layers"]) for n in (0, 2)}


@pytest.mark.parametrize(
    ("key", "native"),
    [
        ("transformer_blocks.0.ff.net.0.proj", "double_blocks.0.img_mlp.0"),
        ("transformer_blocks.53.ff.net.2.lora_A.weight", "double_blocks.53.img_mlp.2.lora_A.weight"),
    ],
)
def test_hunyuans_video_feed_forward_names(key: str, native: str) -> None:
    assert re.match(FEED_FORWARD["hunyuan-video-1.5"], key)
    assert hunyuan_video_15_key(key) == native


@pytest.mark.parametrize("key", ["transformer_blocks.0.ff_context.net.2", "context_embedder.token_refiner.ff.net.2"])
def test_hunyuans_text_layers_do_not_learn(key: str) -> None:
    assert not re.fullmatch(FEED_FORWARD["hunyuan-video-1.5"], key)


def test_two_parameters_of_one_name_are_refused() -> None:
    state = {"a.weight": torch.zeros(1), "b.weight": torch.ones(1)}
    with pytest.raises(ValueError, match="one native name"):
        to_native(state, lambda key: key[2:])

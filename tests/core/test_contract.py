"""What a LoRA file says of itself survives the file, and what does not fit is refused with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from dreamactor_core.contract import (
    BACKBONES,
    PREFIX,
    Contract,
    ContractError,
    check_lora,
    native_modules,
)

CONTRACTS = [
    Contract("pose", "marionette"),
    Contract("rgb", "wan2.1-i2v-14b", layout="temporal", fps=24, lead_in=0.0, frames=121),
    Contract("pose", "wan2.2-i2v-a14b", expert="high_noise", fps=24000 / 1001, lead_in=8 / 12, frames=5),
    Contract("pose", "hunyuanvideo-1.5-i2v", fps=12.5, lead_in=1 / 3, sizes="832x480,480x832", skeleton="openpose18"),
    Contract(
        "rgb", "marionette", pairs="synthetic", prompt_language="zh", backbone_sha256="ab" * 32, parent_sha256="0"
    ),
]

Shapes = dict[str, tuple[int, ...]]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: f"{c.variant}-{c.backbone}")
def test_metadata_round_trip(contract: Contract) -> None:
    metadata = contract.to_metadata()
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in metadata.items())
    assert {k for k in metadata if k.startswith(PREFIX)} == {PREFIX + name for name in asdict(contract)}
    assert Contract.from_metadata(metadata) == contract


@pytest.mark.parametrize("backbone", BACKBONES)
def test_model_managers_are_told_what_it_is(backbone: str) -> None:
    metadata = Contract("rgb", backbone).to_metadata()
    assert metadata["modelspec.architecture"] == f"{backbone}/lora"
    assert metadata["modelspec.title"] == f"DreamActor-M2 rgb for {BACKBONES[backbone].title}"


def test_other_peoples_metadata_is_passed_over() -> None:
    metadata = CONTRACTS[0].to_metadata() | {"ss_network_dim": "32", "dreamactor_m2.from_a_later_version": "x"}
    assert Contract.from_metadata(metadata) == CONTRACTS[0]


def test_what_may_be_left_out_has_the_papers_default() -> None:
    names = ("schema", "variant", "backbone", "fps", "lead_in", "frames")
    metadata = {k: v for k, v in CONTRACTS[1].to_metadata().items() if k.removeprefix(PREFIX) in names}
    assert Contract.from_metadata(metadata) == replace(CONTRACTS[1], layout="spatial")


@pytest.mark.parametrize("metadata", [None, {}, {"modelspec.title": "a style"}])
def test_no_contract_is_refused_with_the_way_out(metadata: dict[str, str] | None) -> None:
    with pytest.raises(
        ContractError, match=r"x\.safetensors carries no dreamactor_m2\.\* metadata.*allow_missing_contract"
    ):
        Contract.from_metadata(metadata, "x.safetensors")


@pytest.mark.parametrize("name", ["schema", "variant", "backbone", "fps", "lead_in", "frames"])
def test_a_missing_field_is_named(name: str) -> None:
    metadata = CONTRACTS[0].to_metadata()
    del metadata[PREFIX + name]
    with pytest.raises(ContractError, match=f"x.safetensors lacks the metadata {PREFIX}{name};"):
        Contract.from_metadata(metadata, "x.safetensors")


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [("fps", "fast", "float"), ("lead_in", "", "float"), ("frames", "25.5", "int"), ("frames", "many", "int")],
)
def test_what_is_not_a_number_is_refused(name: str, value: str, kind: str) -> None:
    metadata = CONTRACTS[0].to_metadata() | {PREFIX + name: value}
    with pytest.raises(ContractError, match=f"x.safetensors: {PREFIX}{name} is {value!r}, expected {kind}"):
        Contract.from_metadata(metadata, "x.safetensors")


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("schema", "1"),
        ("variant", "pose, rgb"),
        ("layout", "spatial, temporal"),
        ("motion_context", "joint, cached, cached_near, cached_half, cached_near_half"),
        ("expert", "both, high_noise, low_noise"),
        ("backbone", ", ".join(BACKBONES)),
    ],
)
def test_unknown_choices_are_refused_with_the_known_ones(name: str, known: str) -> None:
    metadata = CONTRACTS[0].to_metadata() | {PREFIX + name: "novel"}
    with pytest.raises(ContractError, match=re.escape(f"{PREFIX}{name} is 'novel', expected one of {known}; ")):
        Contract.from_metadata(metadata)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fps", 0.0), ("fps", -1.0), ("fps", 241.0), ("fps", float("nan")),
        ("lead_in", -0.1), ("lead_in", 61.0), ("lead_in", float("nan")),
        ("frames", 1), ("frames", 80), ("frames", -3),
    ],
)  # fmt: skip
def test_impossible_clips_are_refused(name: str, value: float) -> None:
    with pytest.raises(ContractError, match="the LoRA's contract is impossible"):
        replace(CONTRACTS[0], **{name: value})
    with pytest.raises(ContractError, match="impossible"):
        Contract.from_metadata(CONTRACTS[0].to_metadata() | {PREFIX + name: str(value)})


def test_native_modules() -> None:
    keys = [f"diffusion_model.blocks.{k}.ffn.{n}.{part}" for k in (0, 11) for n in (0, 2)
            for part in ("lora_A.weight", "lora_B.weight", "alpha")]  # fmt: skip
    assert native_modules(keys) == {f"blocks.{k}.ffn.{n}" for k in (0, 11) for n in (0, 2)}
    assert native_modules([]) == set()


@pytest.mark.parametrize(
    "key",
    [
        "transformer.blocks.0.ffn.net.2.lora_A.weight",
        "base_model.model.blocks.0.ffn.0.lora_A.default.weight",
        "diffusion_model.blocks.0.ffn.0.lora_down.weight",
        "diffusion_model.blocks.0.ffn.0.lora_A.weight.extra",
        "diffusion_model.lora_A.weight",
        "lora_unet_blocks_0_ffn_0.alpha",
    ],
)
def test_other_names_are_refused(key: str) -> None:
    with pytest.raises(
        ContractError,
        match=re.escape(f"1 keys are not named diffusion_model.<module>.lora_A/lora_B/alpha, for instance {key!r}"),
    ):
        native_modules(["diffusion_model.blocks.0.ffn.0.alpha", key])


def wan_shapes(blocks: int = 2, width: int = 8, inner: int = 20) -> Shapes:
    """Weights of a Wan network of this size, those that a LoRA must not touch included."""
    shapes: Shapes = {"patch_embedding.weight": (width, 36, 1, 2, 2), "head.head.weight": (64, width)}
    for k in range(blocks):
        shapes |= {
            f"blocks.{k}.self_attn.q.weight": (width, width),
            f"blocks.{k}.ffn.0.weight": (inner, width),
            f"blocks.{k}.ffn.0.bias": (inner,),
            f"blocks.{k}.ffn.2.weight": (width, inner),
            f"vace_blocks.{k}.ffn.0.weight": (inner, width),
        }
    return shapes


def hunyuan_shapes() -> Shapes:
    shapes: Shapes = {}
    for k in range(2):
        for branch in ("img", "txt"):
            shapes |= {
                f"double_blocks.{k}.{branch}_mlp.0.weight": (20, 8),
                f"double_blocks.{k}.{branch}_mlp.2.weight": (8, 20),
            }
        shapes[f"txt_in.individual_token_refiner.blocks.{k}.mlp.0.weight"] = (20, 8)
    return shapes


def lora_shapes(model: Shapes, pattern: str, rank: int = 4) -> Shapes:
    shapes: Shapes = {}
    for name, shape in model.items():
        if re.fullmatch(pattern + r"\.weight", name):
            key = f"diffusion_model.{name.removesuffix('.weight')}"
            shapes |= {
                f"{key}.lora_A.weight": (rank, shape[1]),
                f"{key}.lora_B.weight": (shape[0], rank),
                f"{key}.alpha": (),
            }
    return shapes


WAN = r"blocks\.\d+\.ffn\.[02]"
HUNYUAN = r"double_blocks\.\d+\.img_mlp\.[02]"
FIRST = "diffusion_model.blocks.0.ffn.0"


@pytest.mark.parametrize("rank", [1, 4, 256])
@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name != "hunyuanvideo-1.5-i2v"])
@pytest.mark.parametrize("blocks", [1, 2, 12])
def test_a_lora_on_every_feed_forward_layer_fits(rank: int, backbone: str, blocks: int) -> None:
    embedding = {"img_emb.proj.1.weight": (8, 8)} if BACKBONES[backbone].image_embedding else {}
    model = wan_shapes(blocks) | embedding
    check_lora(lora_shapes(model, WAN, rank), Contract("pose", backbone), model)


def test_a_lora_on_the_video_branch_of_hunyuan_fits() -> None:
    check_lora(lora_shapes(hunyuan_shapes(), HUNYUAN), Contract("pose", "hunyuanvideo-1.5-i2v"), hunyuan_shapes())


def without(*keys: str) -> Callable[[Shapes], Shapes]:
    return lambda shapes: {k: v for k, v in shapes.items() if k not in keys}


def with_(**changed: Any) -> Callable[[Shapes], Shapes]:
    """Other shapes for keys of the first layer, by the part of their name before the dot."""
    full = {"A": "lora_A.weight", "B": "lora_B.weight"}
    return lambda shapes: shapes | {f"{FIRST}.{full[k]}": v for k, v in changed.items()}


ATTENTION = {
    f"diffusion_model.blocks.0.self_attn.q.{part}": (4, 8) for part in ("lora_A.weight", "lora_B.weight", "alpha")
}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: {}, "covers 0 feed-forward layers and the model has 4"),
        (without(f"{FIRST}.alpha", f"{FIRST}.lora_A.weight", f"{FIRST}.lora_B.weight"), "covers 3 .* the model has 4"),
        (without(f"{FIRST}.lora_A.weight"), f"{FIRST}.lora_A.weight is missing"),
        (without(f"{FIRST}.lora_B.weight"), f"{FIRST}.lora_B.weight is missing"),
        (without(f"{FIRST}.alpha"), f"{FIRST}.alpha is missing"),
        (lambda s: s | ATTENTION, "touches 'blocks.0.self_attn.q', outside the video branch's feed-forward layers"),
        (lambda s: s | {"diffusion_model.head.head.alpha": ()}, "touches 'head.head'"),
        (lambda s: s | {"diffusion_model.vace_blocks.0.ffn.0.alpha": ()}, "touches 'vace_blocks.0.ffn.0'"),
        (lambda s: s | {"diffusion_model.blocks.0.ffn.0.net.alpha": ()}, "touches 'blocks.0.ffn.0.net'"),
        (lambda s: s | {"unet.alpha": ()}, "not named diffusion_model"),
        (with_(A=(4, 9)), r"\(20, 4\) x \(4, 9\), expected \(20, rank\) x \(rank, 8\)"),
        (with_(B=(21, 4)), r"\(21, 4\) x \(4, 8\), expected \(20, rank\) x \(rank, 8\)"),
        (with_(A=(5, 8)), r"its two halves differ in rank"),
        (with_(A=(8, 4), B=(4, 20)), "of another width"),
        (with_(A=(4, 8, 1)), "of another width"),
        (with_(B=(20,)), "of another width"),
    ],
)
def test_what_does_not_fit_is_refused(change: Callable[[Shapes], Shapes], text: str) -> None:
    model = wan_shapes()
    with pytest.raises(ContractError, match=text):
        check_lora(change(lora_shapes(model, WAN)), CONTRACTS[0], model, "x.safetensors")


@pytest.mark.parametrize("blocks", [1, 3, 40])
def test_a_network_of_another_depth_is_refused(blocks: int) -> None:
    with pytest.raises(
        ContractError, match=f"x covers 4 feed-forward layers and the model has {2 * blocks}; .*another depth"
    ):
        check_lora(lora_shapes(wan_shapes(), WAN), CONTRACTS[0], wan_shapes(blocks), "x")


@pytest.mark.parametrize(("width", "inner"), [(8, 24), (16, 20), (20, 8)])
def test_a_network_of_another_width_is_refused(width: int, inner: int) -> None:
    with pytest.raises(ContractError, match=r"blocks\.0\.ffn\.0 is .*of another width"):
        check_lora(lora_shapes(wan_shapes(), WAN), CONTRACTS[0], wan_shapes(width=width, inner=inner))


def test_wan_2_1_and_2_2_are_told_apart() -> None:
    without_embedding = wan_shapes()
    with_embedding = without_embedding | {"img_emb.proj.1.weight": (8, 8)}
    lora = lora_shapes(without_embedding, WAN)
    old = Contract(variant="pose", backbone="wan2.1-i2v-14b")
    new = Contract(variant="pose", backbone="wan2.2-i2v-a14b", expert="low_noise")
    check_lora(lora, old, with_embedding)
    check_lora(lora, new, without_embedding)
    with pytest.raises(ContractError, match=r"is for Wan2.2-I2V-A14B, which has no image embedding .*looks like Wan2.1"):
        check_lora(lora, new, with_embedding, "x.safetensors")
    with pytest.raises(ContractError, match=r"is for Wan2.1-I2V-14B, which has an image embedding .*looks like Wan2.2"):
        check_lora(lora, old, without_embedding, "x.safetensors")


def test_another_architecture_is_refused_by_name() -> None:
    wan, hunyuan = lora_shapes(wan_shapes(), WAN), lora_shapes(hunyuan_shapes(), HUNYUAN)
    with pytest.raises(
        ContractError, match=r"is for HunyuanVideo-1\.5 I2V, but the model has none of its feed-forward layers"
    ):
        check_lora(hunyuan, Contract("pose", "hunyuanvideo-1.5-i2v"), wan_shapes())
    with pytest.raises(ContractError, match=r"is for Wan2\.1-I2V-14B, but the model has none"):
        check_lora(wan, Contract("pose", "wan2.1-i2v-14b"), hunyuan_shapes())


@pytest.mark.parametrize("module", ["double_blocks.0.txt_mlp.0", "txt_in.individual_token_refiner.blocks.0.mlp.0"])
def test_the_text_branch_must_not_be_touched(module: str) -> None:
    shapes = lora_shapes(hunyuan_shapes(), HUNYUAN) | {f"diffusion_model.{module}.alpha": ()}
    with pytest.raises(ContractError, match=f"touches {module!r}"):
        check_lora(shapes, Contract("pose", "hunyuanvideo-1.5-i2v"), hunyuan_shapes())

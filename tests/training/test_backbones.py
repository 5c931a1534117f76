"""The backbones on toy folders: what they encode, decode and predict is what diffusers' own pipelines make of the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from tests.training.toy_backbones import HUNYUAN, IMAGE, LAYERS, TEXT, WAN, write_hunyuan, write_wan
from training.backbones import get
from training.backbones.base import Encoders, VideoBackbone, quantized, to_picture
from training.backbones.trimmed_attention import TrimmedAttention
from training.config import Backbone as Settings
from training.errors import UserError
from training.lora_file import add_lora, lora_state

CPU = torch.device("cpu")
FRAMES, HEIGHT, WIDTH = 5, 32, 64
PROMPTS = ["a dog walks", 'in the video a cat shows a sign that says "STOP" and runs away from it']
CASES = {
    "wan2.1": ("wan2.1-i2v-14b", "both"),
    "wan2.2_high": ("wan2.2-i2v-a14b", "high_noise"),
    "wan2.2_low": ("wan2.2-i2v-a14b", "low_noise"),
    "hunyuan": ("hunyuanvideo-1.5-i2v", "both"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each backbone."""
    root = tmp_path_factory.mktemp("toys")
    return {
        "wan2.1-i2v-14b": write_wan(root / "wan21"),
        "wan2.2-i2v-a14b": write_wan(root / "wan22", image=False, experts=2),
        "hunyuanvideo-1.5-i2v": write_hunyuan(root / "hunyuan"),
    }


def settings(folders: dict[str, Path], case: str, **more: Any) -> Settings:
    name, expert = CASES[case]
    return Settings(name=name, path=folders[name], expert=expert, **{"dtype": "float32"} | more)


@pytest.fixture(scope="module", params=CASES)
def made(request: pytest.FixtureRequest, folders: dict[str, Path]) -> SimpleNamespace:
    """One of them in float32 and the pipeline of the same folder."""
    backbone = get(settings(folders, request.param))
    pipe = DiffusionPipeline.from_pretrained(backbone.folder(), dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    hunyuan = request.param == "hunyuan"
    return SimpleNamespace(case=request.param, backbone=backbone, encoders=backbone.load_encoders(CPU), pipe=pipe, hunyuan=hunyuan)


def video(count: int = 1, seed: int = 0) -> torch.Tensor:
    """Pixels (count, 3, T, H, W) in [-1, 1] at values that a picture can hold."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, FRAMES, HEIGHT, WIDTH), generator=generator) / 127.5 - 1


def contexts(encoders: Encoders) -> list[dict[str, torch.Tensor]]:
    pictures = video(2)
    return [text | encoders.image(picture[:, 0]) for text, picture in zip(encoders.text(PROMPTS), pictures, strict=True)]


def test_shapes(made: SimpleNamespace) -> None:
    backbone, encoders = made.backbone, made.encoders
    latents = encoders.encode(video(2))
    assert latents.shape == (2, backbone.channels, 2, HEIGHT // backbone.stride, WIDTH // backbone.stride)
    assert latents.dtype == torch.float32
    assert encoders.decode(latents).shape == video(2).shape
    told = contexts(encoders)
    assert [context["text"].shape[1] for context in told] == [TEXT, TEXT]
    assert len(told[0]["text"]) < len(told[1]["text"]), "texts are kept without padding"
    shape = (2, 5, IMAGE) if made.case == "wan2.1" else (2, 4, IMAGE)
    collated = backbone.collate(told)
    if made.case.startswith("wan2.2"):
        assert "image" not in collated
    else:
        assert collated["image"].shape == shape
    assert set(backbone.weights()) == {"transformer", "vae", "text"} and all(backbone.weights().values())


def test_encode_and_decode_are_the_pipelines(made: SimpleNamespace) -> None:
    pipe, pixels = made.pipe, video()
    if made.hunyuan:
        expected = pipe._get_image_latents(pipe.vae, pipe.video_processor, to_picture(pixels[0, :, 0]), HEIGHT, WIDTH, CPU)
    else:
        still = torch.cat([pixels[:, :, :1], torch.zeros_like(pixels[:, :, 1:])], 2)
        condition = pipe.prepare_latents(pixels[:, :, 0], 1, 16, HEIGHT, WIDTH, FRAMES, torch.float32, CPU)[1]
        expected, pixels = condition[:, 4:], still
    latents = made.encoders.encode(pixels[:, :, :1] if made.hunyuan else pixels)
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-4)
    # the pipelines end with: latents to the VAE's own scale, decode
    config = pipe.vae.config
    if made.hunyuan:
        raw = latents / config.scaling_factor
    else:
        mean, std = (torch.tensor(value).view(1, -1, 1, 1, 1) for value in (config.latents_mean, config.latents_std))
        raw = latents * std + mean
    with torch.no_grad():
        shown = pipe.vae.decode(raw, return_dict=False)[0].clamp(-1, 1)
    torch.testing.assert_close(made.encoders.decode(latents), shown, atol=1e-5, rtol=1e-4)


def test_text_is_the_pipelines(made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wan's pipeline mends texts with a package that may not be there; these need no mending."""
    monkeypatch.setattr("diffusers.pipelines.wan.pipeline_wan_i2v.ftfy", SimpleNamespace(fix_text=str), raising=False)
    collated = made.backbone.collate(made.encoders.text(PROMPTS) if not made.hunyuan else contexts(made.encoders))
    if not made.hunyuan:
        expected = made.pipe.encode_prompt(PROMPTS, do_classifier_free_guidance=False, max_sequence_length=512, device=CPU)[0]
        torch.testing.assert_close(collated["text"], expected, atol=1e-5, rtol=1e-4)
        return
    text, mask, glyph, glyph_mask = made.pipe.encode_prompt(PROMPTS, device=CPU, batch_size=2)
    assert int(glyph_mask[0].sum()) == 0 < int(glyph_mask[1].sum()), "only the second prompt has words in quotation marks"
    for name, values, seen in (("text", text, mask), ("glyph", glyph, glyph_mask)):
        assert collated[f"{name}_mask"].sum(1).tolist() == seen.sum(1).tolist()
        torch.testing.assert_close(collated[name][collated[f"{name}_mask"]], values[seen.bool()], atol=1e-5, rtol=1e-4)


def run_pipeline(made: SimpleNamespace, told: dict[str, torch.Tensor]) -> list[tuple[dict[str, Any], torch.Tensor]]:
    """The keyword arguments and the output of each call that the pipeline makes of the case's network."""
    pipe, calls = made.pipe, []
    network = pipe.transformer_2 if made.case == "wan2.2_low" else pipe.transformer

    def note(module: torch.nn.Module, args: tuple, kwargs: dict[str, Any], out: Any) -> None:
        calls.append((kwargs, out[0]))

    handle = network.register_forward_hook(note, with_kwargs=True)
    picture = to_picture(video()[0, :, 0])
    common = {"image": picture, "num_frames": FRAMES, "num_inference_steps": 4, "output_type": "latent"}
    common["generator"] = torch.Generator().manual_seed(0)
    try:
        if made.hunyuan:
            pipe(prompt=PROMPTS[1], **common)
        else:
            pipe(height=HEIGHT, width=WIDTH, guidance_scale=1.0, prompt_embeds=told["text"], **common)
    finally:
        handle.remove()
    return calls


def test_predict_is_what_the_pipeline_calls(made: SimpleNamespace) -> None:
    """At its noise levels, with its latents, mask, text and picture; the pipeline knows frame 0 only, as a stock sampler."""
    backbone = made.backbone
    # Hunyuan's pipeline crops the picture to one of its sizes before it is seen, Wan's to its middle
    shown = made.encoders.image(video()[0, :, 0])
    told = backbone.collate([made.encoders.text(PROMPTS[1:])[0] | shown])
    calls = run_pipeline(made, told)
    assert calls
    model = backbone.load_transformer()
    for kwargs, expected in calls:
        inputs, channels = kwargs["hidden_states"], backbone.channels
        if made.case == "wan2.1":
            told = told | {"image": kwargs["encoder_hidden_states_image"]}
        if made.hunyuan:
            x, given, known = inputs[:, :channels], inputs[:, channels : 2 * channels], inputs[:, -1:]
            told = told | {"image": kwargs["image_embeds"]}
        else:
            x, known, given = inputs[:, :channels], inputs[:, channels : channels + 1], inputs[:, channels + 4 :]
        assert (known[:, :, 0] == 1).all() and (known[:, :, 1:] == 0).all()
        with torch.no_grad():
            velocity = backbone.predict(model, x, kwargs["timestep"].float() / 1000, given, known, told)
        assert velocity.shape == x.shape and velocity.dtype == torch.float32
        torch.testing.assert_close(velocity, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_what_is_shown_in_unknown_places(folders: dict[str, Path], case: str) -> None:
    """Hunyuan is shown zeros there, as its pipeline does and its training did; Wan the latents of a grey picture."""
    backbone = get(settings(folders, case))
    model, whole = backbone.load_transformer(), inputs(backbone)
    blanked = whole | {"given": whole["given"] * whole["known"]}
    with torch.no_grad():
        got, expected = (backbone.predict(model, **arguments) for arguments in (whole, blanked))
    assert torch.equal(got, expected) == (case == "hunyuan")


def test_wans_clip_vision_sees_the_whole_picture(folders: dict[str, Path]) -> None:
    """Whatever the folder's image processor cuts off: what is beside the middle counts."""
    backbone = get(settings(folders, "wan2.1"))
    encoders, picture = backbone.load_encoders(CPU), video()[0, :, 0]
    assert encoders.pipeline.image_processor.do_center_crop and picture.shape[1:] == (HEIGHT, WIDTH)
    changed = picture.clone()
    changed[..., : (WIDTH - HEIGHT) // 2 - 2] = 1
    before, after = (encoders.image(one)["image"] for one in (picture, changed))
    assert (before - after).abs().max() > 1e-2


def test_caches_with_the_middle_of_the_picture_are_refused(folders: dict[str, Path]) -> None:
    found = {case: get(settings(folders, case)).encoding for case in CASES}
    assert found == {"wan2.1": "whole pictures", "wan2.2_high": "", "wan2.2_low": "", "hunyuan": "all frames attended"}
    assert get(Settings(name="marionette")).encoding == "", "its caches have no CLIP vision in them and stay good"


def test_the_pictures_of_hunyuan_are_the_pipelines(folders: dict[str, Path]) -> None:
    encoders = get(settings(folders, "hunyuan")).load_encoders(CPU)
    pipe = DiffusionPipeline.from_pretrained(folders["hunyuanvideo-1.5-i2v"], dtype=torch.float32)
    reference = video()[0, :, 0]
    expected = pipe.encode_image(to_picture(reference), 1, CPU, torch.float32)[0]
    torch.testing.assert_close(encoders.image(reference)["image"], expected)


def inputs(backbone: VideoBackbone, batch: int = 1) -> dict[str, Any]:
    """Random arguments of `predict`."""
    generator = torch.Generator().manual_seed(3)
    shape = (batch, backbone.channels, 2, HEIGHT // backbone.stride, WIDTH // backbone.stride)
    x, given = (torch.randn(shape, generator=generator) for _ in range(2))
    known = torch.zeros(1, 1, *shape[2:])
    known[..., shape[-1] // 2 :] = 1
    words = [torch.randn(length, TEXT, generator=generator) for length in (9, 14)[:batch]]
    made: list[dict[str, torch.Tensor]] = [{"text": word} for word in words]
    for context in made:
        context["glyph"] = torch.zeros(0, HUNYUAN["text_embed_2_dim"])
        context["image"] = torch.randn(4, IMAGE, generator=generator)
    if backbone.family == "wan":
        names = ("text", "image") if backbone.settings.name == "wan2.1-i2v-14b" else ("text",)
        made = [{name: context[name] for name in names} for context in made]
    sigma = torch.tensor([0.7, 0.2])[:batch]
    return {"x": x, "sigma": sigma, "given": given, "known": known, "context": backbone.collate(made)}


@pytest.mark.parametrize("case", ["wan2.1", "wan2.2_low", "hunyuan"])
def test_half_precision_is_near_the_full_one(folders: dict[str, Path], case: str) -> None:
    full, half = (get(settings(folders, case, dtype=dtype)) for dtype in ("float32", "bfloat16"))
    with torch.no_grad():
        expected, got = (one.predict(one.load_transformer(), **inputs(one)) for one in (full, half))
    assert got.dtype == torch.float32
    assert float((got - expected).norm() / expected.norm()) < 0.03


def test_wans_timesteps_stay_in_full_precision(folders: dict[str, Path]) -> None:
    """To half precision 0.9 and 0.901 are one timestep."""
    backbone = get(settings(folders, "wan2.1", dtype="bfloat16"))
    model, seen = backbone.load_transformer(), []
    model.condition_embedder.time_embedder.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    with torch.no_grad():
        for sigma in (0.9, 0.901):
            backbone.predict(model, **inputs(backbone) | {"sigma": torch.tensor([sigma])})
    assert {value.dtype for pair in seen for value in pair} == {torch.float32}
    assert not torch.equal(seen[0][1], seen[1][1])


def test_samples_of_a_batch_do_not_see_each_other(folders: dict[str, Path]) -> None:
    """With texts of different lengths, whose padding must not be attended to by Hunyuan."""
    backbone = get(settings(folders, "hunyuan"))
    model, both = backbone.load_transformer(), inputs(backbone, 2)
    context = both["context"]
    length = int(context["text_mask"][0].sum())
    alone = {k: v[:1, :length] if k.startswith("text") else v[:1] for k, v in context.items()}
    with torch.no_grad():
        together = backbone.predict(model, **both)
        single = backbone.predict(
            model, both["x"][:1], both["sigma"][:1], both["given"][:1], both["known"], alone
        )
    torch.testing.assert_close(together[:1], single, atol=1e-5, rtol=1e-4)


def test_attention_without_a_mask_is_attention_with_it(folders: dict[str, Path]) -> None:
    backbone = get(settings(folders, "hunyuan"))
    ours = backbone.load_transformer()
    theirs = backbone.load_transformer()
    from diffusers.models.transformers.transformer_hunyuan_video15 import HunyuanVideo15AttnProcessor2_0

    for block in theirs.transformer_blocks:
        assert isinstance(block.attn.processor, TrimmedAttention)
        block.attn.set_processor(HunyuanVideo15AttnProcessor2_0())
    for model in (ours, theirs):
        model.requires_grad_(True)
    given = inputs(backbone, 2)
    got, expected = (backbone.predict(model, **given) for model in (ours, theirs))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    for result in (got, expected):
        result.square().mean().backward()
    for name in ("ff.net.0.proj.weight", "attn.to_q.weight"):
        gradients = [model.transformer_blocks[0].get_parameter(name).grad for model in (ours, theirs)]
        torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("base", ["int8", "fp8"])
@pytest.mark.parametrize("case", ["wan2.1", "hunyuan"])
def test_eight_bit_weights(folders: dict[str, Path], case: str, base: str) -> None:
    """Near the full network, 8 bits in memory, and the LoRA learns what it learns on the full one."""
    outputs, gradients, sizes = [], [], []
    for kept in ("full", base):
        backbone = get(settings(folders, case, base=kept, dtype="bfloat16"))
        model = backbone.load_transformer()
        torch.manual_seed(0)
        add_lora(model, 4, backbone.family)
        for parameter in lora_state(model).values():
            torch.nn.init.normal_(parameter, std=0.1)
            assert parameter.dtype == torch.float32
        assert len(lora_state(model)) == 2 * 2 * LAYERS
        velocity = backbone.predict(model, **inputs(backbone))
        velocity.square().mean().backward()
        outputs.append(velocity.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in lora_state(model).values()]))
        blocks = model.blocks if case == "wan2.1" else model.transformer_blocks
        sizes.append(sum(stored_bytes(p) for name, p in blocks.named_parameters() if "lora" not in name and p.ndim == 2))
    assert float((outputs[1] - outputs[0]).norm() / outputs[0].norm()) < 0.05
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 0.15
    assert float(gradients[0].norm()) > 0
    assert 0.5 <= sizes[1] / sizes[0] < 0.58, "8 bits instead of 16, and the scales"


def stored_bytes(weight: torch.Tensor) -> int:
    """What a weight takes in memory: of a quantised one its parts."""
    if not hasattr(weight, "__tensor_flatten__"):
        return weight.numel() * weight.element_size()
    return sum(stored_bytes(getattr(weight, name)) for name in weight.__tensor_flatten__()[0])


@pytest.mark.parametrize("base", ["int8", "fp8"])
def test_eight_bit_layers_answer_in_autocasts_precision(base: str) -> None:
    """Norms on a GPU give float32 there. A layer that answered in it would have all that follows kept in it."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 64, dtype=torch.bfloat16))
    quantized(model, base)
    given = torch.randn(2, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        made = model(given)
    assert made.dtype == torch.bfloat16
    made.sum().backward()
    assert given.grad is not None and given.grad.dtype == torch.float32


def test_only_the_blocks_are_quantised() -> None:
    model = torch.nn.ModuleDict({"blocks": torch.nn.Linear(64, 64), "head": torch.nn.Linear(64, 64)})
    quantized(model["blocks"], "int8")
    assert stored_bytes(model["blocks"].weight) < 64 * 64 * 4 / 3 and stored_bytes(model["head"].weight) == 64 * 64 * 4


def damaged(change: Callable[[Path], None], folder: Path, target: Path) -> Path:
    """A copy of a folder, changed."""
    shutil.copytree(folder, target)
    change(target)
    return target


def cut(name: str) -> Callable[[Path], None]:
    """Ends a file half-way."""

    def change(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return change


def without(name: str) -> Callable[[Path], None]:
    """Removes a file or a folder."""

    def change(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def without_a_weight(folder: Path) -> None:
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if k != "blocks.1.ffn.net.2.weight"}, path, {"format": "pt"})


WEIGHTS = "diffusion_pytorch_model.safetensors"
WRONG = [
    (without("transformer"), "has no folder transformer"),
    (without(f"transformer/{WEIGHTS}"), "holds no .safetensors file"),
    (cut(f"transformer/{WEIGHTS}"), "transformer can't be read"),
    (cut("transformer/config.json"), "transformer can't be read"),
    (without_a_weight, r"lacks 1 weights .*blocks\.1\.ffn\.net\.2\.weight"),
    (without("vae"), "has no folder vae"),
    (cut(f"vae/{WEIGHTS}"), "vae can't be read"),
    (without("text_encoder"), "has no folder text_encoder"),
    (cut("text_encoder/model.safetensors"), "can't be read"),
    (without("model_index.json"), "can't be read"),
    (without("image_encoder"), "has no folder image_encoder"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_damaged_folder_is_refused(
    folders: dict[str, Path], tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    folder = damaged(change, folders["wan2.1-i2v-14b"], tmp_path / "copy")
    backbone = get(Settings(name="wan2.1-i2v-14b", path=folder, dtype="bfloat16"))
    with pytest.raises(UserError, match=message) as caught:
        backbone.load_transformer()
        backbone.load_encoders(CPU)
    assert str(folder) in str(caught.value)
    assert torch.get_default_dtype() == torch.float32, "what is made later must not be in half precision"


@pytest.mark.parametrize("path", [None, Path("nowhere")])
def test_a_folder_that_is_not_there_is_refused(path: Path | None) -> None:
    with pytest.raises(UserError, match=r"backbone\.path is (not given|nowhere), expected a folder"):
        get(Settings(name="hunyuanvideo-1.5-i2v", path=path)).load_transformer()


def test_another_network_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    from tests.training.toy_backbones import hunyuan_transformer, wan_transformer

    wan21, wan22 = folders["wan2.1-i2v-14b"], folders["wan2.2-i2v-a14b"]
    with pytest.raises(UserError, match=r"no image embedding, so it is a Wan2\.2"):
        get(Settings(name="wan2.1-i2v-14b", path=wan22)).load_transformer()
    with pytest.raises(UserError, match=r"an image embedding, so it is a Wan2\.1"):
        get(Settings(name="wan2.2-i2v-a14b", expert="high_noise", path=wan21)).load_transformer()
    with pytest.raises(UserError, match="has no folder transformer_2"):
        get(Settings(name="wan2.2-i2v-a14b", expert="low_noise", path=wan21)).load_transformer()
    wan_transformer(image=False, in_channels=16).save_pretrained(tmp_path / "text_to_video" / "transformer")
    with pytest.raises(UserError, match="takes 16 channels, expected the 36"):
        get(Settings(name="wan2.1-i2v-14b", path=tmp_path / "text_to_video")).load_transformer()
    hunyuan_transformer(task_type="t2v").save_pretrained(tmp_path / "t2v" / "transformer")
    with pytest.raises(UserError, match="is a t2v network of 65 channels, expected an i2v one"):
        get(Settings(name="hunyuanvideo-1.5-i2v", path=tmp_path / "t2v")).load_transformer()
    with pytest.raises(UserError, match=r"can't be read|lacks"):
        get(Settings(name="hunyuanvideo-1.5-i2v", path=wan21)).load_transformer()


def test_to_picture_takes_the_nearest_value() -> None:
    pixels = torch.tensor([-1.0, -0.999, 0.0, 0.999, 1.0]).view(1, 1, 5).expand(3, 1, 5)
    assert np.asarray(to_picture(pixels))[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_toys_keep_the_conventions_of_the_real_ones() -> None:
    assert WAN["in_channels"] == 36 and HUNYUAN["in_channels"] == 65

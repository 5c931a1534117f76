"""The real backbones at toy dimensions: the shipped graphs run on them, the LoRA and the masks land where they must.

The pose graphs are those of their own names: the picture, the video and all models lie under the names in them, those of Pose
Extract too, which find drawn markers. Only the text encoders, CLIP vision and HunyuanVideo's VAE, which the host knows in one
size, are stood in.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import pytest
import torch
from filmed import driven_by_both, provide
from inside import noise_of, sample, spied, weights
from safetensors.torch import save_file
from toys import (
    FPS,
    HUNYUAN_FEED_FORWARD,
    HUNYUAN_TEXT,
    LEAD_IN,
    LENGTH,
    RATE,
    ROOT,
    SIZE,
    WAN_FEED_FORWARD,
    WAN_TEXT,
    contract,
    link,
    lora,
    node,
    replace_links,
    run_saved,
    save,
    toy_rgb,
    write_hunyuan,
    write_hunyuan_vae,
    write_wan,
)

from dreamactor_core.augment import MARGIN
from headless.client import Client, Prompt, files, id_by_title
from headless.media import read_video

HUNYUAN_VAE = "hunyuan_vae.safetensors"


@dataclass(frozen=True)
class Backbone:
    """A real backbone at toy size.

    Attributes:
        label: Its files are named after it.
        name: Key of the contract.
        write: Writes one network; takes the path and a seed.
        modules: Its video feed-forward layers and their shapes.
        experts: Names of its networks, as in file names; one unnamed network if empty.
        clip_vision: Tokens and width of the CLIP vision output that it is conditioned on, if it is.
        workflow: Name of the shipped pose graph that is for it, if there is one.
    """

    label: str
    name: str
    write: Callable[[Path, int], None]
    modules: dict[str, tuple[int, int]]
    text_dim: int
    stride: int = 8
    experts: tuple[str, ...] = ("",)
    clip_vision: tuple[int, int] | None = None
    workflow: str = ""

    @property
    def hunyuan(self) -> bool:
        return self.stride == 16

    def file(self, expert: str = "") -> str:
        """Name of a network's file, and of its LoRA's."""
        return f"{self.label}{'_' * bool(expert)}{expert}.safetensors"


def _wan21(path: Path, seed: int) -> None:
    write_wan(path, image_embedding=True, seed=seed)


def _wan22(path: Path, seed: int) -> None:
    write_wan(path, seed=seed)


def _hunyuan(path: Path, seed: int) -> None:
    write_hunyuan(path)


_HUNYUAN = ("hunyuanvideo-1.5-i2v", _hunyuan, HUNYUAN_FEED_FORWARD, HUNYUAN_TEXT, 16)
BACKBONES = [
    Backbone("wan21", "wan2.1-i2v-14b", _wan21, WAN_FEED_FORWARD, WAN_TEXT, clip_vision=(257, 1280),
             workflow="wan2.1_i2v_14b_pose"),
    Backbone("wan22", "wan2.2-i2v-a14b", _wan22, WAN_FEED_FORWARD, WAN_TEXT, experts=("high_noise", "low_noise"),
             workflow="wan2.2_i2v_a14b_pose"),
    Backbone("hunyuan15", *_HUNYUAN, clip_vision=(9, 1152), workflow="hunyuanvideo1.5_i2v_pose"),
]  # fmt: skip
SIDE = 64
"""Pixels of a side of one half where a skeleton is looked at."""


@pytest.fixture(scope="module", params=BACKBONES, ids=lambda made: made.label)
def backbone(request: pytest.FixtureRequest, shelf: Path) -> Backbone:
    """One of them, its files written."""
    made: Backbone = request.param
    for seed, expert in enumerate(made.experts):
        made.write(shelf / "diffusion_models" / made.file(expert), seed)
        tensors = lora(made.modules, seed=10 + seed)
        save_file(tensors, shelf / "loras" / made.file(expert), contract(made.name, expert=expert or "both"))
    if made.hunyuan:
        write_hunyuan_vae(shelf / "vae" / HUNYUAN_VAE)
    return made


def graph(backbone: Backbone) -> Prompt:
    """The shipped rgb workflow at toy size on this backbone."""
    prompt = toy_rgb()
    low = backbone.experts[1:]
    for key, expert in zip(("model", "low model"), backbone.experts, strict=False):
        inputs = {"unet_name": backbone.file(expert), "weight_dtype": "default"}
        prompt[key] = {"class_type": "UNETLoader", "inputs": inputs}
    node(prompt, "Motion LoRA").update(model=["model", 0], lora_name=backbone.file(backbone.experts[0]))
    for seed, title in enumerate(("Prompt", "Negative prompt")):
        inputs = {"tokens": 5, "dim": backbone.text_dim, "seed": seed}
        key = link(prompt, title)[0]
        prompt[key] = {"class_type": "ToyConditioning", "inputs": inputs, "_meta": {"title": title}}
    if backbone.hunyuan:
        prompt["vae"] = {"class_type": "ToyHunyuanVAELoader", "inputs": {"vae_name": HUNYUAN_VAE}}
        replace_links(prompt, {tuple(link(prompt, "Small backbone", 2)): ["vae", 0]})
    if backbone.clip_vision:
        tokens, dim = backbone.clip_vision
        prompt["vision"] = {"class_type": "ToyClipVision", "inputs": {"tokens": tokens, "dim": dim}}
        node(prompt, "In-context conditioning")["clip_vision_output"] = ["vision", 0]
    node(prompt, "Sampler")["sampler_name"] = "euler"  # as in the graphs of large networks; the small one's have another
    if low:
        node(prompt, "Motion LoRA").update(low_noise_model=["low model", 0], low_noise_lora_name=backbone.file(low[0]))
        shift = {"model": link(prompt, "Motion LoRA", 1), "shift": 5.0}
        prompt["low shift"] = {"class_type": "ModelSamplingSD3", "inputs": shift}
        common = {k: v for k, v in node(prompt, "Sampler").items() if k not in ("seed", "steps", "denoise")}
        common |= {"noise_seed": 0, "steps": 4, "cfg": 2.0}
        noise, leftover = "add_noise", "return_with_leftover_noise"
        first = {noise: "enable", leftover: "enable", "start_at_step": 0, "end_at_step": 2}
        rest = {noise: "disable", leftover: "disable", "start_at_step": 2, "end_at_step": 10000}
        last = {"model": ["low shift", 0], "latent_image": ["high", 0]}
        prompt["high"] = {"class_type": "KSamplerAdvanced", "inputs": common | first}
        sampler = {"class_type": "KSamplerAdvanced", "inputs": common | rest | last, "_meta": {"title": "Sampler"}}
        prompt[link(prompt, "Sampler")[0]] = sampler
    return prompt


def test_the_graph_runs_on_it(client: Client, backbone: Backbone, tmp_path: Path) -> None:
    prompt = graph(backbone)
    found = run_saved(
        client,
        save(
            prompt,
            frames=link(prompt, "Decode"),
            sampled=link(prompt, "Sampler"),
            given=link(prompt, "In-context conditioning", 2),
            composite=link(prompt, "In-context conditioning", 3),
        ),
        tmp_path,
    )
    frames, sampled, given = found["frames"], found["sampled"], found["given"]
    assert frames.shape == (LENGTH - LEAD_IN, SIZE, SIZE, 3)
    assert found["composite"].shape == (LENGTH, SIZE, 2 * SIZE, 3)
    assert frames.isfinite().all() and sampled.isfinite().all()
    assert frames.std() > 0
    side = SIZE // backbone.stride
    assert sampled.shape == (1, 32 if backbone.hunyuan else 16, 2, side, 2 * side)
    assert (sampled[..., :side] - given[..., :side]).abs().mean() > 0.1, "nothing was sampled"
    assert (sampled[..., side:] - given[..., side:]).abs().max() < 1e-4, "the driver's half was changed"


def pose_graph(backbone: Backbone, shelf: Path) -> Prompt:
    """The shipped pose workflow at toy size, its models written."""
    prompt: Prompt = json.loads((ROOT / "workflows" / "api" / f"{backbone.workflow}.json").read_text("utf-8"))
    wanted = {"length": LENGTH, "steps": 2, "width": SIDE, "height": SIDE, "weight_dtype": "default", "device": "cpu"}
    networks = []
    for key, made in prompt.items():
        kind, inputs = made["class_type"], made["inputs"]
        inputs |= {field: value for field, value in wanted.items() if field in inputs}
        inputs |= {field: 1 for field in ("start_at_step", "end_at_step") if inputs.get(field) == 8}
        stood_in = None
        if kind == "UNETLoader":
            backbone.write(shelf / "diffusion_models" / inputs["unet_name"], len(networks))
            networks.append(inputs["unet_name"])
        elif kind == "DreamActorLoraLoader":
            names = [inputs["lora_name"], inputs["low_noise_lora_name"]]
            for seed, (name, expert) in enumerate(zip(names, backbone.experts, strict=False)):
                told = contract(backbone.name, variant="pose", normalised=1.0, expert=expert or "both")
                save_file(lora(backbone.modules, seed=10 + seed), shelf / "loras" / name, told)
        elif kind == "VAELoader" and backbone.hunyuan:
            stood_in = ("ToyHunyuanVAELoader", {"vae_name": HUNYUAN_VAE})
        elif kind == "VAELoader":
            shutil.copyfile(ROOT / "models" / "vae" / "marionette_vae.safetensors", shelf / "vae" / inputs["vae_name"])
        elif kind == "CLIPTextEncode":
            stood_in = ("ToyConditioning", {"tokens": 5, "dim": backbone.text_dim, "seed": int(key)})
        elif kind == "CLIPVisionEncode":
            assert backbone.clip_vision is not None
            stood_in = ("ToyClipVision", dict(zip(("tokens", "dim"), backbone.clip_vision, strict=True)))
        if stood_in is not None:
            made["class_type"], made["inputs"] = stood_in
    assert len(networks) == len(backbone.experts)
    unused = ("CLIPLoader", "DualCLIPLoader", "CLIPVisionLoader")
    return {key: made for key, made in prompt.items() if made["class_type"] not in unused}


@pytest.mark.parametrize("backbone", [made for made in BACKBONES if made.workflow], indirect=True, ids=lambda made: made.label)
def test_its_pose_graph_runs_and_follows_the_poses(
    client: Client, backbone: Backbone, shelf: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    provide(client, shelf, tmp_path_factory.mktemp("material"))
    prompt = pose_graph(backbone, shelf)
    watched = save(prompt, frames=link(prompt, "Decode"), skeleton=link(prompt, "Skeleton"))
    outputs, first, second = driven_by_both(client, watched, backbone.label, tmp_path)
    for found in (first, second):
        assert found["frames"].shape == (LENGTH - LEAD_IN, SIDE, SIDE, 3)
        assert found["frames"].isfinite().all() and found["frames"].std() > 0
        drawn = found["skeleton"].amax(-1) > 0
        assert drawn.shape[1:] == (SIDE, SIDE) and drawn.any(2).any(1).all(), "nobody is drawn"
        rows, columns = (drawn.any(0).any(axis).nonzero() for axis in (1, 0))
        # as the LoRA was trained: on the lower margin, in the middle
        assert abs(int(rows.max()) - SIDE * (1 - MARGIN)) <= 2 and abs(int(columns.min() + columns.max()) - SIDE) <= 4
    assert not torch.equal(first["skeleton"], second["skeleton"])
    assert (first["frames"] - second["frames"]).abs().mean() > 1e-4, "the model does not see the poses"
    result = client.download(files(outputs[id_by_title(prompt, "Result")])[0], tmp_path / "result.mp4")
    video = read_video(result)
    assert (len(video.frames), video.fps) == (LENGTH - LEAD_IN, FPS)
    with av.open(str(result)) as container:
        heard = [frame.to_ndarray() for frame in container.decode(audio=0)]
    assert max(abs(block).max() for block in heard) > 0.1, "the driver's sound is lost"
    samples = sum(block.shape[-1] for block in heard)
    assert samples / RATE == pytest.approx((LENGTH - LEAD_IN) / FPS, abs=2048 / RATE)  # encoded in blocks


@pytest.fixture(scope="module")
def loaded(backbone: Backbone, pack: ModuleType, toy_nodes: ModuleType, shelf: Path) -> SimpleNamespace:
    """In this process: the MODELs without and with their LoRAs, and what In-Context Conditioning makes for them."""
    import nodes

    with torch.inference_mode():
        base = [nodes.UNETLoader().load_unet(backbone.file(expert), "default")[0] for expert in backbone.experts]
        files = [backbone.file(expert) for expert in backbone.experts]
        low = (base[1], files[1]) if base[1:] else ()
        patched = pack.nodes.loaders.LoraLoader.execute(base[0], files[0], 1.0, *low).args[: len(base)]
        if backbone.hunyuan:
            vae = toy_nodes.load_hunyuan_vae(str(shelf / "vae" / HUNYUAN_VAE))
        else:
            vae = pack.nodes.loaders.SmallBackboneLoader.execute().args[2]
        text = toy_nodes.ToyConditioning().make(5, backbone.text_dim, 0)[0]
        pictures = [toy_nodes.moving_pattern(n, SIZE, SIZE, 3, n) for n in (1, LENGTH)]
        vision = toy_nodes.ToyClipVision().make(*backbone.clip_vision)[0] if backbone.clip_vision else None
        positive, negative, latent, *_ = pack.nodes.conditioning.InContextConditioning.execute(
            text, text, patched[0], vae, *pictures, SIZE, SIZE, LENGTH, 0.0, -1.0, "letterbox", 0.0, vision
        ).args
    return SimpleNamespace(
        base=base, patched=patched, positive=positive, negative=negative, latent=latent, vae=vae, text=text, vision=vision
    )


def test_the_lora_is_on_every_video_feed_forward_layer_and_nowhere_else(backbone: Backbone, loaded: SimpleNamespace) -> None:
    expected = {f"{name}.weight" for name in backbone.modules}
    for base, patched in zip(loaded.base, loaded.patched, strict=True):
        assert set(patched.patches) == {f"diffusion_model.{key}" for key in expected}
        with torch.inference_mode():
            before, after = weights(base), weights(patched)
        assert {key for key in before if not torch.equal(before[key], after[key])} == expected


def test_the_mask_says_what_is_known(backbone: Backbone, loaded: SimpleNamespace) -> None:
    given, samples = loaded.positive[0][1], loaded.latent["samples"]
    model = loaded.patched[0].model
    concat = model.concat_cond(
        noise=samples, device=samples.device, **{k: given[k].clone() for k in ("concat_latent_image", "concat_mask")}
    )
    channels, side = samples.shape[1], SIZE // backbone.stride
    masks, latents = (1, concat[:, :channels]) if backbone.hunyuan else (4, concat[:, 4:])
    mask = concat[:, channels:] if backbone.hunyuan else concat[:, :4]
    assert mask.shape == (1, masks, 2, side, 2 * side)
    assert (mask[:, :, 0] == 1).all(), "the first latent frame is known: reference and driver"
    assert (mask[..., side:] == 1).all(), "the driver is known"
    assert (mask[:, :, 1:, :, :side] == 0).all(), "the rest is generated"
    assert torch.equal(latents, model.process_latent_in(given["concat_latent_image"]))
    unknown = latents[:, :, 1:, :, :side]
    assert (unknown == 0).all() == backbone.hunyuan, "in unknown places Hunyuan was trained with zeros, Wan with a grey picture"
    assert latents[..., side:].any() and latents[:, :, 0].any()


@pytest.mark.parametrize("width", [SIZE, 2 * SIZE])
def test_a_reference_cropped_after_clip_vision_is_told_of(
    backbone: Backbone, loaded: SimpleNamespace, pack: ModuleType, toy_nodes: ModuleType, width: int
) -> None:
    reference, driver = toy_nodes.moving_pattern(1, SIZE, width, 3, 1), toy_nodes.moving_pattern(LENGTH, SIZE, SIZE, 3, 2)
    with torch.inference_mode():
        info = pack.nodes.conditioning.InContextConditioning.execute(
            loaded.text, loaded.text, loaded.patched[0], loaded.vae, reference, driver, SIZE, SIZE, LENGTH, 0.0, -1.0, "letterbox",
            0.0, loaded.vision,
        ).args[5]  # fmt: skip
    assert ("crop it to this shape before both" in info) == (width != SIZE and backbone.clip_vision is not None)


def test_a_network_that_was_trained_with_clip_vision_gets_it(
    backbone: Backbone, loaded: SimpleNamespace, pack: ModuleType, toy_nodes: ModuleType
) -> None:
    """Without, the host adds up the text's attention twice (Wan2.1), or leaves the reference's tokens out, and says nothing."""
    check = pack.nodes.backbone.check_clip_vision
    other = toy_nodes.ToyClipVision().make(9, 1024)[0]
    if backbone.clip_vision is None:
        return check(loaded.patched[0], None)
    check(loaded.patched[0], loaded.vision)
    with pytest.raises(ValueError, match=r"clip_vision_output is not connected.*connect 'CLIP Vision Encode' of the reference"):
        check(loaded.patched[0], None)
    width = backbone.clip_vision[1]
    with pytest.raises(ValueError, match=rf"clip_vision_output is 1024 wide, the model \(\w+\) takes {width}: .*load the one"):
        check(loaded.patched[0], other)
    reference, driver = toy_nodes.moving_pattern(1, SIZE, SIZE, 3, 1), toy_nodes.moving_pattern(LENGTH, SIZE, SIZE, 3, 2)
    with torch.inference_mode(), pytest.raises(ValueError, match="clip_vision_output is not connected"):
        pack.nodes.conditioning.InContextConditioning.execute(
            loaded.text, loaded.text, loaded.patched[0], loaded.vae, reference, driver, SIZE, SIZE, LENGTH, 0.0, -1.0, "letterbox"
        )
    return None


@pytest.mark.parametrize("backbone", [made for made in BACKBONES if not made.hunyuan], indirect=True, ids=lambda made: made.label)
def test_a_sampler_whose_network_has_no_lora_is_stopped(backbone: Backbone, loaded: SimpleNamespace) -> None:
    """A first or second stage that the loader was left out of would sample what no driver drives."""
    for models in ([loaded.base[0], loaded.patched[-1]], [loaded.patched[0], loaded.base[-1]]):
        with pytest.raises(ValueError, match=r"sampler's model has none by 'DreamActor LoRA Loader'.*give the sampler the model"):
            stages(loaded, models)


@pytest.mark.parametrize("backbone", [made for made in BACKBONES if not made.hunyuan], indirect=True, ids=lambda made: made.label)
def test_a_network_of_another_kind_with_as_many_channels_is_refused(
    backbone: Backbone, loaded: SimpleNamespace, pack: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.model_base

    monkeypatch.setattr(loaded.base[0].model, "__class__", comfy.model_base.WAN22_Animate)
    with pytest.raises(ValueError, match="the model is a WAN22_Animate, expected"):
        pack.nodes.backbone.check_image_to_video(loaded.base[0])


def stages(loaded: SimpleNamespace, models: list[Any]) -> dict[str, Any]:
    """Four steps, the first two by the first of the MODELs, the others by the second."""
    given = (loaded.positive, loaded.negative)
    first = {"start_step": 0, "last_step": 2, "force_full_denoise": False}
    rest = {"disable_noise": True, "start_step": 2, "last_step": 10000, "force_full_denoise": True}
    middle = sample(models[0], *given, loaded.latent, steps=4, **first)
    return sample(models[1], *given, middle, steps=4, **rest)


def test_the_driver_stays_in_sight_at_the_sampler_s_noise_level(backbone: Backbone, loaded: SimpleNamespace) -> None:
    (first, calls), (second, more) = (spied(loaded.patched[k]) for k in (0, -1))
    result = stages(loaded, [first, second])
    assert len(calls) == len(more) == 2
    samples = loaded.latent["samples"]
    channels, side = samples.shape[1], SIZE // backbone.stride
    driver = loaded.base[0].model.process_latent_in(samples)[..., side:]
    noise = noise_of(loaded.latent)[..., side:]
    for call in (*calls, *more):
        sigma = call.timestep / 1000
        shown = call.x[:, :channels, ..., side:]
        error = float((shown - (1 - sigma) * driver - sigma * noise).abs().max())
        assert error < 1e-4, f"at noise level {float(sigma):.2f} the driver is off by {error:.3f}"
    assert (result["samples"] - samples)[..., side:].abs().max() < 1e-4


def test_two_stages_of_one_network_are_one(backbone: Backbone, loaded: SimpleNamespace) -> None:
    model = loaded.patched[0]
    whole = sample(model, loaded.positive, loaded.negative, loaded.latent, steps=4)
    assert (whole["samples"] - stages(loaded, [model, model])["samples"]).abs().max() < 1e-3


def test_fps_and_length_come_from_the_file(backbone: Backbone, loaded: SimpleNamespace, pack: ModuleType) -> None:
    contracts = [pack.nodes.backbone.contract_of(model) for model in loaded.patched]
    assert {(found.backbone, found.fps, found.frames) for found in contracts} == {(backbone.name, FPS, LENGTH)}
    assert [found.expert for found in contracts] == [expert or "both" for expert in backbone.experts]

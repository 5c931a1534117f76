"""What the nodes hand the network is what training hands it, and what the host makes of it is what diffusers makes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from inside import noise_of, sample, spied, weights
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toys import (
    FPS,
    LEAD_IN,
    LENGTH,
    SIZE,
    contract,
    link,
    lora,
    node,
    replace_links,
    run_saved,
    save,
    small_feed_forward,
    toy_pose,
)

from dreamactor_core.clips import ClipSpec, trim_lead_in
from dreamactor_core.conditions import Condition, build_condition
from dreamactor_core.contract import Contract
from dreamactor_core.layout import SpatialLayout, get_layout
from dreamactor_core.motion_context import get_context
from dreamactor_core.poses import from_body_joints, to_pose_keypoint
from dreamactor_core.words import encode_text
from headless.client import Client, Prompt
from training import backbones, config
from training.backbones.marionette import MarionetteEncoders
from training.data.build import build
from training.flow import Sampler
from training.latents import skeletons
from training.latents.encode import Maker, conditions_of, to_pixels
from training.lora_file import add_lora, load_lora, rank_of
from training.marionette import backbone
from training.marionette.train_base import Batch, predict
from training.marionette.world import HEIGHT, WIDTH, rng_for, sample_scene
from training.marionette.world import LEAD_IN as WORLD_LEAD_IN
from training.native import wan_transformer_key
from training.sampling import sample as training_sample
from training.video import read_clip

CACHED_LORAS = ["marionette_pose_cached.safetensors", "marionette_pose_retarget.safetensors", "marionette_rgb.safetensors"]
SHIPPED_LORA, TOY_LORA = "marionette_pose.safetensors", "parity.safetensors"  # the shipped one that stock loaders will do for
TEXT = "a human waves"
LAYOUT = SpatialLayout()
SPEC = ClipSpec(LENGTH, LEAD_IN, FPS)


@pytest.fixture(scope="module")
def toy_lora(shelf: Path) -> Path:
    """A LoRA for the small backbone that changes its output for certain, whatever the shipped ones are."""
    path = shelf / "loras" / TOY_LORA
    save_file(lora(small_feed_forward(), scale=1.0), path, contract("marionette"))
    return path


@pytest.fixture(scope="module")
def small(pack: ModuleType, toy_lora: Path) -> SimpleNamespace:
    """The small backbone, with that LoRA on it, as the nodes hand it on."""
    with torch.inference_mode():
        model, clip, vae = pack.nodes.loaders.SmallBackboneLoader.execute().args
        patched = pack.nodes.loaders.LoraLoader.execute(model, toy_lora.name, 1.0).args[0]
    return SimpleNamespace(base=model, model=patched, clip=clip, vae=vae)


@pytest.fixture(scope="module")
def clip_frames(toy_nodes: ModuleType) -> tuple[np.ndarray, np.ndarray]:
    """Reference (H, W, 3) and driver (T, H, W, 3), uint8; the driver mostly black, as pose LoRAs want it."""
    made = [toy_nodes.moving_pattern(n, SIZE, SIZE, 3, seed) for n, seed in ((1, 1), (LENGTH, 2))]
    reference, driver = ((frames * 255).round().byte().numpy() for frames in made)
    driver[:, :, SIZE // 3 :] = 0
    return reference[0], driver


@pytest.fixture(scope="module")
def from_nodes(small: SimpleNamespace, pack: ModuleType, clip_frames: tuple[np.ndarray, np.ndarray]) -> SimpleNamespace:
    """What In-Context Conditioning makes of them."""
    return conditioned(pack, small, small.model, clip_frames)


def conditioned(
    pack: ModuleType, small: SimpleNamespace, model: Any, clip_frames: tuple[np.ndarray, np.ndarray]
) -> SimpleNamespace:
    """What In-Context Conditioning makes of them for a model with a LoRA."""
    import nodes

    reference, driver = (torch.from_numpy(frames).float() / 255 for frames in clip_frames)
    with torch.inference_mode():
        text = [nodes.CLIPTextEncode().encode(small.clip, words)[0] for words in (TEXT, "")]
        made = pack.nodes.conditioning.InContextConditioning.execute(
            *text, model, small.vae, reference[None], driver, SIZE, SIZE, LENGTH, FPS, LEAD_IN / FPS, "letterbox"
        ).args
    return SimpleNamespace(**dict(zip(("positive", "negative", "latent", "composite", "mask", "info"), made, strict=True)))


@pytest.fixture(scope="module")
def from_training(clip_frames: tuple[np.ndarray, np.ndarray]) -> Condition:
    """What training makes of them, the latents normalised."""
    vae = backbone.load_vae()
    reference, driver = to_pixels(clip_frames[0][None])[:, :, 0], to_pixels(clip_frames[1])
    made = build_condition(LAYOUT, reference, driver, SPEC, lambda pixels: backbone.encode(vae, pixels), torch.float32)
    return Condition(made.composite, backbone.normalise(vae, made.latents), made.known, made.generate)


def assert_close(got: torch.Tensor, expected: torch.Tensor, tolerance: float, what: str) -> None:
    assert got.shape == expected.shape, what
    difference = float((got - expected).abs().max())
    assert difference <= tolerance, f"{what}: the largest difference is {difference:.2e}"


def test_the_network_is_given_what_training_gives_it(
    small: SimpleNamespace, from_nodes: SimpleNamespace, from_training: Condition
) -> None:
    model, calls = spied(small.model)
    sample(model, from_nodes.positive, from_nodes.negative, from_nodes.latent)
    assert len(calls) == 3
    noise = noise_of(from_nodes.latent)
    width = from_training.latents.shape[-1] // 2
    for call in calls:
        sigma = call.timestep / 1000
        # training's own function, recording instead of predicting; of the generated half it shows what the sampler has
        batch = Batch(from_training.latents, from_training.latents, from_training.known, call.context)
        seen = []

        def record(inputs: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
            seen.append((inputs, timestep, text))  # noqa: B023 - called before the loop goes on
            return (inputs[:, :16],)

        s = sigma.view(-1, 1, 1, 1, 1)
        predict(record, (1 - s) * from_training.latents + s * noise, sigma, batch)
        inputs, timestep, _ = seen[0]
        assert_close(call.timestep, timestep, 1e-3, "timestep")
        assert_close(call.x[:, 16:20], inputs[:, 16:20], 0, "mask")
        assert_close(call.x[:, 20:], inputs[:, 20:], 1e-5, "conditioning latents")
        assert_close(call.x[:, :16, ..., width:], inputs[:, :16, ..., width:], 1e-5, "the driver's half of the noise")
    assert_close(calls[0].x[:, :16, ..., :width], noise[..., :width], 0, "the generated half of the noise")
    assert_close(calls[0].context, encode_text(backbone.load_words(), [TEXT]), 0, "text")


def test_a_whole_clip_out_of_the_cache_is_what_the_nodes_make(small: SimpleNamespace, pack: ModuleType, tmp_path: Path) -> None:
    """The way that training goes at the shipped size, files and encoders included; only not rounded, as a cache is."""
    import nodes

    data = {"workers": 1, "world": {"count": 1, "pairs": True}}
    settings = config.from_values({"preset": "marionette", "out": str(tmp_path), "variant": "rgb", "data": data}, "test")
    (one,) = build(settings)
    backbone_, spec = backbones.get(settings.backbone), settings.clip.spec(one.frames)
    encoders = MarionetteEncoders(torch.device("cpu"), torch.float32)
    ((tensors, context),) = Maker(encoders, LAYOUT, settings.clip.spec, None, 1, lambda *_: None)([one], [0])
    given, known = tensors["condition"], LAYOUT.known_mask(*tensors["target"].shape[1:])

    target, driver = read_clip(one.target_video), read_clip(one.driving_video)
    reference, driven = (torch.from_numpy(frames).float() / 255 for frames in (target[:1], driver))
    with torch.inference_mode():
        texts = [nodes.CLIPTextEncode().encode(small.clip, words)[0] for words in (one.caption, "")]
        positive, negative, latent = pack.nodes.conditioning.InContextConditioning.execute(
            *texts, small.model, small.vae, reference, driven, WIDTH, HEIGHT, one.frames, one.fps, spec.lead_in / one.fps,
            "letterbox",
        ).args[:3]  # fmt: skip
    model, calls = spied(small.model)
    sample(model, positive, negative, latent)
    assert given.shape == (1, 16, 7, HEIGHT // 8, 2 * WIDTH // 8)
    assert_close(calls[0].x[:, 16:20], known.expand(1, 4, -1, -1, -1), 0, "mask")
    assert_close(calls[0].x[:, 20:], given, 1e-5, "conditioning latents")
    assert_close(calls[0].context, backbone_.collate([context])["text"], 0, "text")


def test_the_composite_is_training_s(from_nodes: SimpleNamespace, from_training: Condition) -> None:
    shown = from_training.composite[0].permute(1, 2, 3, 0)
    assert_close(from_nodes.composite * 2 - 1, shown, 1e-6, "composite")
    known = from_training.known[0, 0].repeat_interleave(8, -1).repeat_interleave(8, -2)
    # the first latent frame holds one frame, the others four
    frames = torch.cat([known[:1], known[1:].repeat_interleave(4, 0)])
    assert_close(from_nodes.mask, 1 - frames, 0, "mask")


def test_pose_draw_draws_training_s_skeletons(pack: ModuleType) -> None:
    scene = sample_scene(rng_for("test", 0, 3), "human")
    poses = from_body_joints(scene.keypoints()[WORLD_LEAD_IN:], HEIGHT, WIDTH)
    keypoints = to_pose_keypoint(poses)
    for face_and_hands in (False, True):  # there are none
        drawn = pack.nodes.pose.PoseDraw.execute(keypoints, WIDTH, HEIGHT, "canvas", *[face_and_hands] * 2, 0.3).args[0]
        trained = to_pixels(skeletons.drawn(poses))[0].permute(1, 2, 3, 0)
        assert_close(drawn * 2 - 1, trained, 1e-6, "skeleton")
        assert (drawn > 0.5).any()


@pytest.mark.parametrize("with_lora", [False, True])
def test_diffusers_and_the_host_agree_on_the_output(
    small: SimpleNamespace, from_nodes: SimpleNamespace, toy_lora: Path, with_lora: bool
) -> None:
    model, calls = spied(small.model if with_lora else small.base)
    given = [from_nodes.positive, from_nodes.negative]
    if not with_lora:  # what stops a network that has none
        given = [[(text, {k: v for k, v in more.items() if k != "model_conds"}) for text, more in one] for one in given]
    sample(model, *given, from_nodes.latent)
    network = backbone.load_model().eval()
    if with_lora:
        add_lora(network, int(load_file(toy_lora)["diffusion_model.blocks.0.ffn.0.alpha"]))
        load_lora(network, toy_lora, wan_transformer_key)
    with torch.no_grad():
        for call in calls:
            out = network(call.x, call.timestep, call.context, return_dict=False)[0]
            assert_close(call.out, out, 1e-4, f"output at timestep {float(call.timestep):.0f}")


@pytest.mark.parametrize("sampler", get_args(Sampler))
@pytest.mark.parametrize("name", [SHIPPED_LORA, *CACHED_LORAS])
def test_a_shipped_lora_samples_in_the_host_as_in_training(
    pack: ModuleType, small: SimpleNamespace, clip_frames: tuple[np.ndarray, np.ndarray], name: str, sampler: Sampler
) -> None:
    """The exported file through loader and KSampler, and through training's own sampler, in the context that the file names."""
    steps = 4  # the host's levels are thousandths, of which 4 steps take exact quarters
    with torch.inference_mode():
        patched = pack.nodes.loaders.LoraLoader.execute(small.base, name, 1.0).args[0]
    given = conditioned(pack, small, patched, clip_frames)
    got = sample(patched, given.positive, given.negative, given.latent, steps, sampler=sampler)["samples"]
    trainer, path = backbones.get(config.Backbone(name="marionette", dtype="float32")), backbone.LORA_FOLDER / name
    with safe_open(path, "pt") as file:
        context = Contract.from_metadata(file.metadata(), name).motion_context
    network, layout = trainer.load_transformer(), get_layout("spatial", context)
    trainer.use_context(network, get_context(context))
    add_lora(network, rank_of(path))
    load_lora(network, path, trainer.rename)
    reference, driver = clip_frames
    (made,) = conditions_of(MarionetteEncoders(torch.device("cpu"), torch.float32), layout, [reference], [driver], SPEC)
    latents = made.pop("condition")[None]
    told = trainer.collate([{"text": encode_text(backbone.load_words(), [TEXT])[0]} | made])
    shift = patched.get_model_object("model_sampling").shift
    expected = training_sample(trainer, network, layout, latents, told, steps, shift, [7], sampler=sampler)
    assert_close(patched.model.process_latent_in(got), expected, 1e-3, "the sampled latents")
    network.disable_lora()
    plain = training_sample(trainer, network, layout, latents, told, steps, shift, [7], sampler=sampler)
    assert (expected - plain).abs().max() > 0.1, "the LoRA makes a difference"


def test_decode_is_the_crop_of_a_full_decode(pack: ModuleType, small: SimpleNamespace, from_nodes: SimpleNamespace) -> None:
    latent = sample(small.model, from_nodes.positive, from_nodes.negative, from_nodes.latent)
    with torch.inference_mode():
        images, video, fps = pack.nodes.decode.Decode.execute(latent, small.vae).args
        full = small.vae.decode(latent["samples"])
    assert full.shape == (1, LENGTH, SIZE, 2 * SIZE, 3)
    expected = trim_lead_in(LAYOUT.crop(full.permute(0, 4, 1, 2, 3)), SPEC)[0].permute(1, 2, 3, 0)
    assert_close(images, expected, 1e-5, "frames")  # the driver's half is left out after the decoder's middle
    assert_close(video.get_components().images, expected, 1e-5, "frames of the video")
    assert float(video.get_components().frame_rate) == fps == FPS


def test_what_is_cut_before_decoding_is_what_the_result_does_not_hang_on(pack: ModuleType, small: SimpleNamespace) -> None:
    decode, half = pack.nodes.decode, 24
    decoder = small.vae.first_stage_model.decoder
    latents = torch.randn(1, 16, 2, 4, 2 * half, generator=torch.Generator().manual_seed(0))

    def reaches(column: int) -> bool:
        """Whether what is in that column after the decoder's middle comes to the result."""

        def spoil(_module: Any, _given: Any, out: torch.Tensor) -> torch.Tensor:
            out = out.clone()
            out[..., column] = torch.nan
            return out

        hook = decoder.middle[-1].register_forward_hook(spoil)
        try:
            return not torch.isfinite(LAYOUT.crop(small.vae.decode(latents).permute(0, 4, 1, 2, 3))).all()
        finally:
            hook.remove()

    widths = []
    with torch.inference_mode():
        assert reaches(half + decode._MARGIN - 1) and not reaches(half + decode._MARGIN)
        expected = LAYOUT.crop(small.vae.decode(latents).permute(0, 4, 1, 2, 3))
        hook = decoder.head[-1].register_forward_hook(lambda _module, _given, out: widths.append(out.shape[-1]))
        try:
            got = decode._decoded(small.vae, latents, LAYOUT)
        finally:
            hook.remove()
    assert set(widths) == {8 * (half + decode._MARGIN)}
    assert_close(got, expected, 1e-5, "pixels")


@pytest.mark.parametrize("strength", [1.0, -0.7])
@pytest.mark.parametrize("file", [SHIPPED_LORA, TOY_LORA])
def test_our_lora_loader_is_the_stock_one(pack: ModuleType, small: SimpleNamespace, file: str, strength: float) -> None:
    import nodes

    with torch.inference_mode():
        ours = pack.nodes.loaders.LoraLoader.execute(small.base, file, strength).args[0]
        stock = nodes.LoraLoaderModelOnly().load_lora_model_only(small.base, file, strength)[0]
        plain, by_us, by_stock = weights(small.base), weights(ours), weights(stock)
    assert by_us.keys() == by_stock.keys()
    assert all(torch.equal(by_us[key], by_stock[key]) for key in by_us)
    layers = {f"{layer}.weight" for layer in small_feed_forward()}
    assert set(ours.patches) == set(stock.patches) == {f"diffusion_model.{layer}" for layer in layers}
    changed = {key for key in plain if not torch.equal(plain[key], by_us[key])}
    assert changed == layers


def test_our_backbone_loader_is_the_stock_loaders(small: SimpleNamespace) -> None:
    import nodes

    with torch.inference_mode():
        model = nodes.UNETLoader().load_unet(backbone.MODEL_FILE.name, "default")[0]
        vae = nodes.VAELoader().load_vae(backbone.VAE_FILE.name)[0]
    for ours, stock in ((weights(small.base), weights(model)), (small.vae.get_sd(), vae.get_sd())):
        assert ours.keys() == stock.keys()
        assert all(torch.equal(ours[key], stock[key]) for key in ours)
    assert type(model.model) is type(small.base.model)
    assert (vae.latent_channels, vae.downscale_ratio[1:]) == (small.vae.latent_channels, small.vae.downscale_ratio[1:])


def test_stock_text_encode_is_training_s(small: SimpleNamespace) -> None:
    import nodes

    words = backbone.load_words()
    for text in (TEXT, "", "A bird, a BIRD; flaps! " * 20):
        with torch.inference_mode():
            encoded = nodes.CLIPTextEncode().encode(small.clip, text)[0][0][0]
        assert_close(encoded, encode_text(words, [text]), 0, text)


def test_the_small_files_are_in_the_stock_lists(client: Client) -> None:
    for loader, widget, file in (
        ("UNETLoader", "unet_name", backbone.MODEL_FILE.name),
        ("VAELoader", "vae_name", backbone.VAE_FILE.name),
        ("LoraLoaderModelOnly", "lora_name", SHIPPED_LORA),
        ("LoraLoaderModelOnly", "lora_name", "marionette_rgb.safetensors"),
    ):
        kind, *more = client.object_info(loader)[loader]["input"]["required"][widget]
        assert file in (more[0]["options"] if kind == "COMBO" else kind), loader


def toy_joint(steps: int = 2) -> Prompt:
    """The shipped pose workflow with a LoRA of the paper's context."""
    prompt = toy_pose()
    node(prompt, "Motion LoRA")["lora_name"] = SHIPPED_LORA
    node(prompt, "Sampler")["steps"] = steps
    return prompt


def with_stock_loaders(prompt: Prompt) -> Prompt:
    """The workflow with stock loaders in the place of ours; only the text encoder has no stock loader."""
    stock = {
        "stock model": ("UNETLoader", {"unet_name": backbone.MODEL_FILE.name, "weight_dtype": "default"}),
        "stock lora": (
            "LoraLoaderModelOnly", {"model": ["stock model", 0], "lora_name": SHIPPED_LORA, "strength_model": 1.0}
        ),
        "stock vae": ("VAELoader", {"vae_name": backbone.VAE_FILE.name}),
    }  # fmt: skip
    instead = {
        tuple(link(prompt, "Motion LoRA")): ["stock lora", 0],
        tuple(link(prompt, "Small backbone", 2)): ["stock vae", 0],
    }
    return replace_links(prompt, instead) | {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in stock.items()}


def test_stock_loaders_give_the_same_frames(client: Client, tmp_path: Path) -> None:
    ours = toy_joint()
    by_us = run_saved(client, save(ours, frames=link(ours, "Decode")), tmp_path)
    stock = with_stock_loaders(toy_joint())
    by_stock = run_saved(client, save(stock, frames=link(stock, "Decode")), tmp_path)
    assert by_us["frames"].shape == (LENGTH - LEAD_IN, SIZE, SIZE, 3)
    assert_close(by_us["frames"], by_stock["frames"], 0, "frames")


def with_custom_sampler(prompt: Prompt, guider: str) -> Prompt:
    """The workflow with SamplerCustomAdvanced in the place of KSampler."""
    given = node(prompt, "Sampler")
    inputs: dict[str, dict[str, Any]] = {
        "RandomNoise": {"noise_seed": given["seed"]},
        "KSamplerSelect": {"sampler_name": given["sampler_name"]},
        "BasicScheduler": {name: given[name] for name in ("model", "scheduler", "steps", "denoise")},
        "BasicGuider": {"model": given["model"], "conditioning": given["positive"]},
        "CFGGuider": {name: given[name] for name in ("model", "positive", "negative", "cfg")},
    }
    parts = {"noise": "RandomNoise", "guider": guider, "sampler": "KSamplerSelect", "sigmas": "BasicScheduler"}
    made = {kind: {"class_type": kind, "inputs": inputs[kind]} for kind in parts.values()}
    custom = {"latent_image": given["latent_image"], **{name: [kind, 0] for name, kind in parts.items()}}
    key = link(prompt, "Sampler")[0]
    sampler = {"class_type": "SamplerCustomAdvanced", "inputs": custom, "_meta": {"title": "Sampler"}}
    return prompt | made | {key: sampler}


@pytest.mark.parametrize(("guider", "cfg"), [("BasicGuider", 1.0), ("CFGGuider", 1.0), ("CFGGuider", 3.0)])
def test_samplers_agree_and_leave_the_driver_alone(client: Client, tmp_path: Path, guider: str, cfg: float) -> None:
    found = []
    for change in (lambda prompt: prompt, lambda prompt: with_custom_sampler(prompt, guider)):
        prompt = toy_joint(steps=3)
        node(prompt, "Sampler").update(cfg=cfg, seed=11)
        prompt = change(prompt)
        given, sampled = link(prompt, "In-context conditioning", 2), link(prompt, "Sampler")
        found.append(run_saved(client, save(prompt, given=given, sampled=sampled, frames=link(prompt, "Decode")), tmp_path))
    stock, custom = found
    assert_close(stock["sampled"], custom["sampled"], 0, "latent")
    assert_close(stock["frames"], custom["frames"], 0, "frames")
    width = stock["given"].shape[-1] // 2
    assert_close(stock["sampled"][..., width:], stock["given"][..., width:], 1e-5, "the driver's half")
    assert (stock["sampled"][..., :width] - stock["given"][..., :width]).abs().mean() > 0.1, "nothing was sampled"

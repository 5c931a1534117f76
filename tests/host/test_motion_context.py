"""Cached motion contexts: the host computes what training computes, once a clip, and nothing goes with the wrong LoRA."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from inside import sample
from safetensors.torch import save_file
from toys import FPS, LEAD_IN, ROOT, contract, link, lora, node, save, small_feed_forward

from dreamactor_core.layout import get_layout
from dreamactor_core.motion_context import CONTEXTS
from headless.client import Client
from training import backbones, config
from training.lora_file import add_lora, load_lora, rank_of
from training.sampling import sample as training_sample

CACHED = [name for name, context in CONTEXTS.items() if context.cached]
LENGTH, WIDTH, HEIGHT = 17, 32, 64  # 5 latent frames: more than a neighbourhood
TEXT = "a human waves"


@pytest.fixture(scope="module")
def base(pack: ModuleType) -> SimpleNamespace:
    """The small backbone without a LoRA."""
    with torch.inference_mode():
        model, clip, vae = pack.nodes.loaders.SmallBackboneLoader.execute().args
    return SimpleNamespace(model=model, clip=clip, vae=vae)


def lora_of(shelf: Path, context: str, scale: float = 1.0, seed: int = 0) -> Path:
    path = shelf / "loras" / f"{context}_{scale}_{seed}.safetensors"
    if not path.exists():
        about = contract("marionette") | {"dreamactor_m2.motion_context": context}
        save_file(lora(small_feed_forward(), scale=scale, seed=seed), path, about)
    return path


def loaded(pack: ModuleType, base: SimpleNamespace, path: Path) -> Any:
    with torch.inference_mode():
        return pack.nodes.loaders.LoraLoader.execute(base.model, path.name, 1.0).args[0]


def conditioned(
    pack: ModuleType, base: SimpleNamespace, toys: ModuleType, model: Any, seed: int = 2, length: int = LENGTH, reference: int = 1,
    **more: Any,
) -> SimpleNamespace:  # fmt: skip
    import nodes

    picture, driver = toys.moving_pattern(1, HEIGHT, WIDTH, 3, reference), toys.moving_pattern(length, HEIGHT, WIDTH, 3, seed)
    with torch.inference_mode():
        texts = [nodes.CLIPTextEncode().encode(base.clip, words)[0] for words in (TEXT, "")]
        made = pack.nodes.conditioning.InContextConditioning.execute(
            *texts, model, base.vae, torch.as_tensor(picture), torch.as_tensor(driver), WIDTH, HEIGHT, length, FPS,
            LEAD_IN / FPS, "letterbox", **more,
        ).args  # fmt: skip
    names = ("positive", "negative", "latent", "composite", "mask", "info")
    return SimpleNamespace(**dict(zip(names, made, strict=True)))


@pytest.mark.parametrize("context", CACHED)
def test_the_host_samples_what_training_samples(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path, context: str
) -> None:
    path = lora_of(shelf, context)
    model = loaded(pack, base, path)
    given = conditioned(pack, base, toy_nodes, model)
    got = sample(model, given.positive, given.negative, given.latent, 4)["samples"]
    assert got.shape == (1, 16, 5, HEIGHT // 8, WIDTH // 8), "as wide as the result"

    trainer = backbones.get(config.Backbone(name="marionette", dtype="float32"))
    network = trainer.load_transformer()
    layout = get_layout("spatial", context)
    trainer.use_context(network, layout.context)
    add_lora(network, rank_of(path))
    load_lora(network, path, trainer.rename)
    values = given.positive[0][1]
    motion = values["model_conds"][pack.nodes.motion_context.KEPT].cond.motion[0]
    text = trainer.collate([{"text": given.positive[0][0][0], "motion": motion}])
    latents = model.model.process_latent_in(values["concat_latent_image"])
    shift = model.get_model_object("model_sampling").shift
    expected = training_sample(trainer, network, layout, latents, text, 4, shift, [7])
    difference = (model.model.process_latent_in(got) - expected).abs().max()
    assert difference <= 1e-3, f"the largest difference is {float(difference):.1e}"
    other = text | {"motion": -text["motion"]}
    assert (training_sample(trainer, network, layout, latents, other, 4, shift, [7]) - expected).abs().max() > 0.05, "it is seen"


def passes(model: Any) -> tuple[Any, list[int]]:
    """A clone of a MODEL, and a list that gets the number of keys of every attention: with one for text and one for the video in
    each block, a pass of the driver is told by its few keys."""
    seen: list[int] = []

    def note(attention: Any, q: torch.Tensor, k: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        seen.append(k.shape[1])
        return attention(q, k, *rest, **more)

    clone = model.clone()
    clone.model_options["transformer_options"]["optimized_attention_override"] = note
    return clone, seen


def run(model: Any, given: SimpleNamespace, seed: int = 7, cfg: float = 1.0, latent: dict | None = None) -> torch.Tensor:
    import nodes

    latent, steps = given.latent if latent is None else latent, 3
    with torch.inference_mode():
        made = nodes.common_ksampler(model, seed, steps, cfg, "euler", "simple", given.positive, given.negative, latent)
    return made[0]["samples"]


VIDEO = 5 * (HEIGHT // 16) * (WIDTH // 16)
"""Tokens of the result; as many are the driver's at its full size."""


def blocks_of(model: Any) -> int:
    return len(model.model.diffusion_model.blocks)


def test_the_driver_goes_through_the_network_once(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path
) -> None:
    model, seen = passes(loaded(pack, base, lora_of(shelf, "cached")))
    given = conditioned(pack, base, toy_nodes, model)
    blocks = blocks_of(model)
    first = run(model, given, cfg=3.0)
    assert seen.count(VIDEO) == blocks, "the driver's own attention, for all steps and both halves of guidance"
    assert seen.count(2 * VIDEO) == 3 * blocks
    seen.clear()
    second = run(model, given, seed=8, cfg=3.0)
    assert seen.count(VIDEO) == 0, "another seed finds the keys there"
    assert (first - second).abs().max() > 0.1
    assert torch.equal(run(model, given, cfg=3.0), first)

    stronger = loaded(pack, base, lora_of(shelf, "cached", seed=1))
    clone, again = passes(stronger)
    other = run(clone, given, cfg=3.0)
    assert again.count(VIDEO) == blocks, "other weights make other keys"
    assert (other - first).abs().max() > 0.05
    assert torch.equal(run(model, given, cfg=3.0), first), "and back"


def test_a_neighbourhood_has_fewer_keys(pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path) -> None:
    for name, expected in (("cached_near", VIDEO + VIDEO * 3 // 5), ("cached_half", VIDEO + VIDEO // 4)):
        model, seen = passes(loaded(pack, base, lora_of(shelf, name)))
        given = conditioned(pack, base, toy_nodes, model)
        run(model, given)
        assert seen.count(expected) == 3 * blocks_of(model) * (5 if "near" in name else 1), name


def test_the_memory_that_is_asked_for_counts_the_driver(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[float]] = []
    network, known = base.model.model, base.model.model.memory_required

    def note(shape: list[float], **more: Any) -> float:
        asked.append(shape)
        return known(shape, **more)

    monkeypatch.setattr(network, "memory_required", note)
    wide = WIDTH // 8
    for name, expected in (("joint", 2), ("cached", 2), ("cached_near", 2), ("cached_half", 1 + 1 / 4)):
        model = loaded(pack, base, lora_of(shelf, name))
        asked.clear()
        run(model, conditioned(pack, base, toy_nodes, model))
        # for both halves of guidance and for one, when room is made; then at each step, to see whether both fit at once
        assert [shape[-1] for shape in asked[:2]] == pytest.approx([expected * wide] * 2), name


def test_fp8_takes_half_and_changes_little(pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path) -> None:
    model = loaded(pack, base, lora_of(shelf, "cached"))
    full, small = (conditioned(pack, base, toy_nodes, model, motion_cache=kind) for kind in ("full", "fp8"))
    other = conditioned(pack, base, toy_nodes, model, seed=3)
    plain, rounded, driven = run(model, full), run(model, small), run(model, other)
    size = 2 * blocks_of(model) * VIDEO * model.model.diffusion_model.dim
    assert full.info == f"motion context cached: {4 * size / 1e6:.1f} MB of keys and values in float32, RAM"
    assert small.info == f"motion context cached: {size / 1e6:.1f} MB of keys and values in float8_e4m3fn, RAM"
    assert 0 < (rounded - plain).abs().mean() < 0.2 * (driven - plain).abs().mean()


def test_a_batch_shares_its_driver(pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path) -> None:
    model = loaded(pack, base, lora_of(shelf, "cached_near_half"))
    given = conditioned(pack, base, toy_nodes, model)
    double = given.latent | {"samples": given.latent["samples"].repeat(2, 1, 1, 1, 1)}
    both = run(model, given, latent=double)
    assert both.shape[0] == 2
    torch.testing.assert_close(both[:1], run(model, given), atol=1e-3, rtol=0)
    assert (both[0] - both[1]).abs().max() > 0.1, "of other noise"


def test_context_windows(pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path) -> None:
    import comfy.context_windows as windows

    model, seen = passes(loaded(pack, base, lora_of(shelf, "cached")))
    made = windows.IndexListContextHandler(
        windows.get_matching_context_schedule("standard_static"), windows.get_matching_fuse_method("pyramid"),
        context_length=6, context_overlap=2, dim=2, cond_retain_index_list="0",
    )  # fmt: skip
    model.model_options["context_handler"] = made
    given = conditioned(pack, base, toy_nodes, model, length=41)  # 11 latent frames
    assert given.info == "motion context cached: keys and values of each context window in float32, RAM"
    got = run(model, given)
    assert got.shape[2] == 11 and torch.isfinite(got).all()
    # windows of 6 frames, all but the first with one more in front
    frame, blocks = VIDEO // 5, blocks_of(model)
    own = [count for count in seen if count in (6 * frame, 7 * frame)]
    assert len(own) >= 2 * blocks and len(own) % blocks == 0
    beside = [count for count in seen if count in (12 * frame, 14 * frame)]
    assert len(beside) == 3 * len(own), "each window's keys are made once for the three steps"
    kept = given.positive[0][1]["model_conds"][pack.nodes.motion_context.KEPT].cond
    assert len(kept.windows) == len(own) // blocks
    for frames, keys in kept.windows.items():  # those of a clip that is the window, whatever the host retains of conditionings
        alone = pack.nodes.motion_keys.reserve(base.model, kept.motion[:, :, list(frames)], "full", "cached")
        part = conditioned(pack, base, toy_nodes, model, length=4 * len(frames) - 3)
        del model.model_options["context_handler"]
        replaced = pack.nodes.motion_context.motion_values(alone)
        part.positive[0][1].update(replaced), part.negative[0][1].update(replaced)
        run(model, part)
        model.model_options["context_handler"] = made
        for slot, expected in zip(keys.slots, alone.keys.slots, strict=True):
            torch.testing.assert_close(slot.k, expected.k, atol=1e-4, rtol=1e-4)
    seen.clear()
    run(model, given, seed=9)
    assert not [count for count in seen if count in (6 * frame, 7 * frame)]
    assert (run(model, conditioned(pack, base, toy_nodes, model, seed=5, length=41)) - got).abs().max() > 0.02


def with_windows(model: Any, length: int, overlap: int) -> Any:
    """A clone that is shown windows of so many latent frames, which stand still."""
    import comfy.context_windows as windows

    clone = model.clone()
    clone.model_options["context_handler"] = windows.IndexListContextHandler(
        windows.get_matching_context_schedule("standard_static"), windows.get_matching_fuse_method("pyramid"),
        context_length=length, context_overlap=overlap, dim=2,
    )  # fmt: skip
    return clone


def free_memory(monkeypatch: pytest.MonkeyPatch, kept: Callable[[], int], size: float) -> None:
    """RAM of that size in bytes, of which nothing is taken but what `kept` returns."""
    import comfy.model_management as manager

    of_devices = manager.get_free_memory

    def free(device: torch.device | None = None, torch_free_too: bool = False) -> Any:
        asked_for_ram = device == torch.device("cpu") and not torch_free_too
        return size - kept() if asked_for_ram else of_devices(device, torch_free_too)

    monkeypatch.setattr(manager, "get_free_memory", free)


def test_windows_whose_keys_find_no_room_are_computed_again(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    model, seen = passes(with_windows(loaded(pack, base, lora_of(shelf, "cached")), 4, 1))
    own = (4 * VIDEO // 5, 5 * VIDEO // 5)  # tokens of the first window, and of the others, to which the host adds a frame
    one = 2 * blocks_of(model) * own[1] * model.model.diffusion_model.dim * 4  # bytes of a window's keys in float32
    given = conditioned(pack, base, toy_nodes, model, length=37, motion_cache="full")  # 10 latent frames: three windows
    plain = run(model, given)
    assert len([count for count in seen if count in own]) == 3 * blocks_of(model), "each once"
    kept = given.positive[0][1]["model_conds"][pack.nodes.motion_context.KEPT].cond
    assert len(kept.windows) == 3
    kept.windows.clear(), seen.clear(), caplog.clear()
    free_memory(monkeypatch, lambda: kept.nbytes, 4.5 * one)  # half of it holds two
    assert torch.equal(run(model, given), plain)
    assert len(kept.windows) == 2
    made = len([count for count in seen if count in own]) // blocks_of(model)
    assert made == 3 + 1 + 2, "the first step makes all three, the others what no room was found for"
    said = [record.message for record in caplog.records if "context windows fill half of the free RAM" in record.message]
    assert len(said) == 1 and "of 2 context windows" in said[0] and "set motion_cache to fp8" in said[0]
    kept.windows.clear()
    free_memory(monkeypatch, lambda: kept.nbytes, 0.5 * one)
    with pytest.raises(MemoryError, match=r"GB of RAM are free; set motion_cache to fp8"):
        run(model, given)


@pytest.mark.parametrize("windows", [False, True])
def test_auto_takes_fp8_when_more_than_half_of_the_memory_would_be_filled(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path, monkeypatch: pytest.MonkeyPatch, windows: bool
) -> None:
    model = loaded(pack, base, lora_of(shelf, "cached"))
    whole = 2 * blocks_of(model) * 10 * (VIDEO // 5) * model.model.diffusion_model.dim * 4
    if windows:
        model, whole = with_windows(model, 4, 1), whole * 14 / 10  # three windows of 4, 5 and 5 frames
    for seed, (share, kind) in enumerate(((2.1, "float32"), (1.9, "float8_e4m3fn"))):
        free_memory(monkeypatch, lambda: 0, share * whole)
        assert f" in {kind}, RAM" in conditioned(pack, base, toy_nodes, model, seed=40 + seed, length=37).info
        monkeypatch.undo()


def test_keys_of_windows_go_with_their_conditioning(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The host can't evict them."""
    import gc

    plain = loaded(pack, base, lora_of(shelf, "cached"))
    shown_windows = with_windows(plain, 4, 1)
    for model, warnings in ((shown_windows, 0), (plain, 1)):  # the second is conditioned before there are windows
        given = conditioned(pack, base, toy_nodes, model, length=37, seed=44)
        run(shown_windows, given)
        window = next(iter(given.positive[0][1]["model_conds"][pack.nodes.motion_context.KEPT].cond.windows.values()))
        gone = weakref.ref(window)
        del given, window
        gc.collect()
        assert gone() is None
        assert len([record for record in caplog.records if "in front of In-Context Conditioning" in record.message]) == warnings


def test_the_last_dreamactor_lora_counts(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path
) -> None:
    cached, joint = (loaded(pack, base, lora_of(shelf, name)) for name in ("cached", "joint"))
    for under, name in ((cached, "joint"), (joint, "cached")):
        with torch.inference_mode():
            both = pack.nodes.loaders.LoraLoader.execute(under, lora_of(shelf, name, scale=0.5).name, 1.0).args[0]
        given = conditioned(pack, base, toy_nodes, both)
        assert given.info.startswith(f"motion context {name}: ")
        assert torch.isfinite(run(both, given)).all()
        expected = 2 * WIDTH // 8 if name == "joint" else WIDTH // 8
        assert given.latent["samples"].shape[-1] == expected
        wrappers = [key for kind in both.wrappers.values() for key, found in kind.items() if found]
        alone = [key for kind in (joint if name == "joint" else cached).wrappers.values() for key, found in kind.items() if found]
        assert sorted(wrappers) == sorted(alone)


def test_a_conditioning_from_somewhere_else_is_refused(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path
) -> None:
    import nodes

    model = loaded(pack, base, lora_of(shelf, "cached"))
    given = conditioned(pack, base, toy_nodes, model)
    with torch.inference_mode():
        given.negative = nodes.CLIPTextEncode().encode(base.clip, "")[0]
    with pytest.raises(ValueError, match=r"made for joint, or is not from In-Context Conditioning; .*both of its conditionings"):
        run(model, given, cfg=3.0)


def test_what_others_hang_on_the_network_stays(pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path) -> None:
    model = loaded(pack, base, lora_of(shelf, "cached"))
    given = conditioned(pack, base, toy_nodes, model)
    plain, seen = run(model, given), []

    def same(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, torch.Tensor]:
        seen.append(args["img"].shape[1])
        return extra["original_block"](args)

    def half(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, torch.Tensor]:
        out = extra["original_block"](args)
        return {"img": (args["img"] + out["img"]) / 2}

    clone = model.clone()  # as a node of the host does, with a string
    clone.add_object_patch("diffusion_model.default_ref_method", "index")
    assert torch.equal(run(clone, given), plain)
    clone = model.clone()
    clone.add_object_patch("diffusion_model.blocks.1.ffn", torch.nn.Identity())
    without = run(clone, given)
    assert not torch.equal(without, plain) and torch.equal(run(model, given), plain)
    other = model.clone()  # keys that were made with the network as it is are not those of a changed one
    other.add_object_patch("diffusion_model.blocks.1.ffn", torch.nn.Identity())
    assert torch.equal(run(other, conditioned(pack, base, toy_nodes, other)), without)
    for patch, changed in ((same, False), (half, True)):
        clone = model.clone()
        clone.set_model_patch_replace(patch, "dit", "double_block", 1)
        assert torch.equal(run(clone, given), plain) != changed
    assert seen == [VIDEO] * 3, "at each step, and not in the driver's pass"


def test_a_driver_of_another_context_is_refused(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path
) -> None:
    import nodes

    cached, joint, near = (loaded(pack, base, lora_of(shelf, name)) for name in ("cached", "joint", "cached_near"))
    of_cached, of_joint = (conditioned(pack, base, toy_nodes, model) for model in (cached, joint))
    assert of_joint.latent["samples"].shape[-1] == 2 * of_cached.latent["samples"].shape[-1]
    assert of_joint.info.startswith("motion context joint: ")
    with torch.inference_mode():
        by_stock = nodes.LoraLoaderModelOnly().load_lora_model_only(base.model, lora_of(shelf, "joint").name, 1.0)[0]
    for other in (joint, by_stock, base.model):
        with pytest.raises(ValueError, match="made for a LoRA with a cached motion context, and the sampler's model has none"):
            run(other, of_cached)
    of_near = conditioned(pack, base, toy_nodes, near)
    for other, said in ((of_joint, "joint, or is not from In-Context Conditioning"), (of_near, "cached_near")):
        with pytest.raises(ValueError, match=f"motion context cached, and this conditioning was made for {said};"):
            run(cached, other)
    larger = of_cached.latent | {"samples": torch.zeros(1, 16, 5, HEIGHT // 4, WIDTH // 4)}  # the host resizes the reference
    with pytest.raises(ValueError, match=r"latents are \(5, 8, 4\) frames, height, width, expected \(5, 16, 8\)"):
        run(cached, of_cached, latent=larger)
    with torch.inference_mode():
        again = pack.nodes.loaders.LoraLoader.execute(cached, lora_of(shelf, "cached", seed=3).name, 1.0).args[0]
    assert torch.isfinite(run(again, conditioned(pack, base, toy_nodes, again))).all(), "one LoRA over another"
    with torch.inference_mode():
        stock = nodes.LoraLoaderModelOnly().load_lora_model_only(base.model, lora_of(shelf, "cached").name, 1.0)[0]
        with pytest.raises(pack.dreamactor_core.contract.ContractError, match="expected 'DreamActor LoRA Loader'"):
            conditioned(pack, base, toy_nodes, stock)


def test_a_size_that_half_does_not_fit(pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path) -> None:
    model = loaded(pack, base, lora_of(shelf, "cached_half"))
    import nodes

    with torch.inference_mode():
        texts = [nodes.CLIPTextEncode().encode(base.clip, words)[0] for words in (TEXT, "")]
        with pytest.raises(ValueError, match="divisible by 32: width is 48, the nearest are 32 and 64"):
            pack.nodes.conditioning.InContextConditioning.execute(
                *texts, model, base.vae, torch.zeros(1, 64, 48, 3), torch.zeros(9, 64, 48, 3), 48, 64, 9, FPS, 0.0, "letterbox"
            )


@pytest.mark.parametrize("out_of_memory", [False, True])
def test_a_run_that_is_stopped_leaves_no_half_made_keys(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path, out_of_memory: bool
) -> None:
    import comfy.model_management as manager

    model = loaded(pack, base, lora_of(shelf, "cached"))
    given, again = (conditioned(pack, base, toy_nodes, model, motion_cache=kind) for kind in ("full", "auto"))
    plain = run(model, again)
    clone, seen = passes(model)

    def stop(attention: Any, q: torch.Tensor, k: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        seen.append(k.shape[1])
        if len(seen) == 3:
            if out_of_memory:
                raise torch.OutOfMemoryError("as a GPU that is full")
            manager.interrupt_current_processing()
        return attention(q, k, *rest, **more)

    clone.model_options["transformer_options"]["optimized_attention_override"] = stop
    with pytest.raises(torch.OutOfMemoryError if out_of_memory else manager.InterruptProcessingException):
        run(clone, given)
    assert len(seen) < 2 * blocks_of(model), "at once"
    assert torch.equal(run(model, given), plain)


def test_another_reference_finds_the_driver_encoded(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path
) -> None:
    model, seen = passes(loaded(pack, base, lora_of(shelf, "cached")))
    encoder, frames = base.vae.first_stage_model.encoder, []
    hook = encoder.register_forward_hook(lambda module, given, out: frames.append(given[0].shape[2]))
    try:
        first = conditioned(pack, base, toy_nodes, model, seed=21, reference=8)
        run(model, first)
        assert sum(frames) == 2 * LENGTH and seen.count(VIDEO) == blocks_of(model)
        frames.clear(), seen.clear()
        second = conditioned(pack, base, toy_nodes, model, seed=21, reference=9)
        made = run(model, second)
        assert sum(frames) == LENGTH, "the reference alone"
        assert seen.count(VIDEO) == 0, "and its keys are there"
        frames.clear()
        assert (made - run(model, first)).abs().max() > 0.02
        third = conditioned(pack, base, toy_nodes, model, seed=22, reference=9)
        run(model, third)
        assert sum(frames) == LENGTH and seen.count(VIDEO) == blocks_of(model), "another driver"
        assert torch.equal(run(model, second), made), "whose keys are not those of the one before"
    finally:
        hook.remove()


def test_a_second_run_of_the_workflow_does_what_changed_only(client: Client, shelf: Path) -> None:
    """By the server's own account of which nodes it executes."""
    assets = ROOT / "assets"
    for name in ("reference_human.png", "reference_cartoon.png", "drive_person.json"):
        client.upload(assets / name)
    prompt = json.loads((ROOT / "workflows" / "api" / "marionette_pose.json").read_text("utf-8"))
    for key in [key for key, made in prompt.items() if made["_meta"]["title"] in ("Composite preview", "Decode", "Result")]:
        del prompt[key]
    node(prompt, "Motion LoRA")["lora_name"] = lora_of(shelf, "cached", seed=5).name
    node(prompt, "In-context conditioning")["length"] = 13
    node(prompt, "Sampler").update(steps=2, seed=1)

    def executed() -> set[str]:
        ran = set()
        client.run(save(prompt, latent=link(prompt, "Sampler")), lambda progress: ran.add(progress.title))
        return {title for title in ran if any(made.get("_meta", {}).get("title") == title for made in prompt.values())}

    assert {"Reference", "Skeleton", "In-context conditioning", "Sampler"} <= executed()
    node(prompt, "Sampler")["seed"] = 2
    assert executed() == {"Sampler"}
    node(prompt, "Reference")["image"] = "reference_cartoon.png"
    assert executed() == {"Reference", "In-context conditioning", "Sampler"}


def test_what_is_handed_out_again_is_not_what_others_changed(pack: ModuleType, base: SimpleNamespace) -> None:
    pixels = torch.rand(1, 3, 5, 16, 16, generator=torch.Generator().manual_seed(4))
    made = [pack.nodes.reuse.encoded(base.vae, pixels, lambda new: new.mean(1, keepdim=True)) for _ in range(2)]
    made[0].zero_()
    assert torch.equal(pack.nodes.reuse.encoded(base.vae, pixels, lambda new: new * 0), pixels.mean(1, keepdim=True))
    assert torch.equal(made[1], pixels.mean(1, keepdim=True))


def test_many_runs_of_two_graphs_are_right_and_take_no_more_memory(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path
) -> None:
    """In turn, with all models unloaded in between as ComfyUI's button does it, and each graph's driver encoded anew."""
    import gc

    import comfy.model_management as manager
    import psutil

    models = [loaded(pack, base, lora_of(shelf, name)) for name in ("cached", "cached_near_half")]
    expected = [run(model, conditioned(pack, base, toy_nodes, model, seed=31 + k)) for k, model in enumerate(models)]
    process, sizes = psutil.Process(), []
    for count in range(50):
        k = count % 2
        made = run(models[k], conditioned(pack, base, toy_nodes, models[k], seed=31 + k))
        assert torch.equal(made, expected[k]), count
        manager.unload_all_models()
        gc.collect()
        sizes.append(process.memory_info().rss)
    before, after = (sum(part) / len(part) for part in (sizes[10:20], sizes[40:]))
    assert after < 1.02 * before, f"{before / 1e6:.1f} MB became {after / 1e6:.1f} MB"

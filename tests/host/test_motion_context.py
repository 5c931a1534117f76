"""Cached motion contexts: the host computes what training computes, once a clip, and nothing goes with the wrong LoRA."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from inside import sample
from motion import HEIGHT, TEXT, VIDEO, WIDTH, blocks_of, conditioned, loaded, lora_of, passes, run
from safetensors.torch import load_file
from toys import FPS

from dreamactor_core.layout import get_layout
from dreamactor_core.motion_context import CONTEXTS
from training import backbones, config
from training.lora_file import add_lora, load_lora, rank_of
from training.sampling import sample as training_sample

CACHED = [name for name, context in CONTEXTS.items() if context.cached]


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


def test_loras_of_two_contexts_are_not_on_one_network(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path
) -> None:
    import nodes

    refused, stock = pack.dreamactor_core.contract.ContractError, nodes.LoraLoaderModelOnly()
    cached, joint = (loaded(pack, base, lora_of(shelf, name)) for name in ("cached", "joint"))
    for under, there, name in ((cached, "cached", "joint"), (joint, "joint", "cached")):
        said = rf"motion context {name}, and the model has a .* LoRA of .* motion context {there} already"
        file = lora_of(shelf, name).name
        given = conditioned(pack, base, toy_nodes, under)
        with torch.inference_mode():
            with pytest.raises(refused, match=said):
                pack.nodes.loaders.LoraLoader.execute(under, file, 1.0)
            over = stock.load_lora_model_only(under, file, 1.0)[0]
        with pytest.raises(refused, match=said):
            conditioned(pack, base, toy_nodes, over)
        with pytest.raises(refused, match=said):
            run(over, given)
    with torch.inference_mode():
        by_stock = stock.load_lora_model_only(base.model, lora_of(shelf, "joint").name, 1.0)[0]
        with pytest.raises(refused, match="motion context cached, and the model has"):
            pack.nodes.loaders.LoraLoader.execute(by_stock, lora_of(shelf, "cached").name, 1.0)
        both = pack.nodes.loaders.LoraLoader.execute(cached, lora_of(shelf, "cached", seed=1).name, 1.0).args[0]
        twice = pack.nodes.loaders.LoraLoader.execute(joint, lora_of(shelf, "joint", seed=1).name, 1.0).args[0]
    for alone, stacked in ((cached, both), (joint, twice)):
        counts = [
            {(kind, key): len(wrappers) for kind, found in model.wrappers.items() for key, wrappers in found.items()}
            for model in (alone, stacked)
        ]
        assert counts[0] == counts[1] and set(counts[0].values()) == {1}
        given = conditioned(pack, base, toy_nodes, alone)
        assert not torch.equal(run(stacked, given), run(alone, given))


def test_keys_that_are_of_no_use_are_told_of(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a LoRA hook on one of two conditionings the network's weights change twice a step."""
    import comfy.hooks

    model, seen = passes(loaded(pack, base, lora_of(shelf, "cached")))
    given = conditioned(pack, base, toy_nodes, model)
    plain = run(model, given, cfg=3.0)
    assert not caplog.records
    hook = comfy.hooks.create_hook_lora(load_file(lora_of(shelf, "cached", seed=5)), 1.0, 0.0)
    given.positive = comfy.hooks.set_hooks_for_conditioning(given.positive, hook)
    seen.clear()
    assert not caplog.records
    hooked = run(model, given, cfg=3.0)
    assert not torch.equal(hooked, plain)
    assert seen.count(VIDEO) == 6 * blocks_of(model), "each call has keys of its own weights"
    assert [record.message for record in caplog.records if "give both conditionings the same LoRA hooks" in record.message]


def test_keys_that_found_room_for_a_part_find_it_for_all_later(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path
) -> None:
    model = loaded(pack, base, lora_of(shelf, "cached"))
    given, device = conditioned(pack, base, toy_nodes, model, seed=11), torch.device("cpu")
    patcher = given.positive[0][1]["model_conds"][pack.nodes.motion_context.KEPT].cond.patcher
    size = patcher.model_size()
    patcher.load(device, lowvram_model_memory=0.7 * size)
    part = patcher.loaded_size()
    assert 0 < part < size
    for _ in range(3):
        patcher.partially_load(device, 1)
        assert patcher.loaded_size() == part, "what is there stays counted"
    patcher.partially_load(device, 2 * size)
    assert patcher.loaded_size() == size


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
    def twice(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, torch.Tensor]:
        extra["original_block"](args)
        return extra["original_block"](args)

    def bare(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, torch.Tensor]:
        return extra["original_block"](args | {"transformer_options": {}})

    for patch, changed in ((same, False), (half, True), (twice, False)):
        clone = model.clone()
        clone.set_model_patch_replace(patch, "dit", "double_block", 1)
        assert torch.equal(run(clone, given), plain) != changed
    clone.set_model_patch_replace(bare, "dit", "double_block", 1)
    with pytest.raises(RuntimeError, match="did not go through the host's attention function"):
        run(clone, given)
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


def test_keys_that_nobody_is_going_to_ask_for_are_let_go(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path
) -> None:
    cached, joint = (loaded(pack, base, lora_of(shelf, name)) for name in ("cached", "joint"))
    there = pack.nodes.reuse._kept
    conditioned(pack, base, toy_nodes, cached)
    assert base.model.model in there
    conditioned(pack, base, toy_nodes, joint)
    assert base.model.model not in there


def test_a_size_that_half_does_not_fit(pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path) -> None:
    model = loaded(pack, base, lora_of(shelf, "cached_half"))
    import nodes

    with torch.inference_mode():
        texts = [nodes.CLIPTextEncode().encode(base.clip, words)[0] for words in (TEXT, "")]
        with pytest.raises(ValueError, match="divisible by 32: width is 48, the nearest are 32 and 64"):
            pack.nodes.conditioning.InContextConditioning.execute(
                *texts, model, base.vae, torch.zeros(1, 64, 48, 3), torch.zeros(9, 64, 48, 3), 48, 64, 9, FPS, 0.0, "letterbox"
            )

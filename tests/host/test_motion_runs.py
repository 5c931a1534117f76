"""Run after run with cached motion contexts: what is kept, what is made anew, and what a run that was stopped leaves."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from motion import LENGTH, VIDEO, blocks_of, conditioned, loaded, lora_of, passes, run
from toys import ROOT, link, node, save

from headless.client import Client


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

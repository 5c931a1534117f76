"""Cached motion contexts in the host's context windows: each has keys of its own, as long as there is room for them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from motion import VIDEO, blocks_of, conditioned, loaded, lora_of, passes, run


def test_context_windows(pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path) -> None:
    import comfy.context_windows as windows

    model, seen = passes(loaded(pack, base, lora_of(shelf, "cached")))
    made = windows.IndexListContextHandler(
        windows.get_matching_context_schedule("standard_static"), windows.get_matching_fuse_method("pyramid"),
        context_length=6, context_overlap=2, dim=2, cond_retain_index_list="0",
    )  # fmt: skip
    model.model_options["context_handler"] = made
    given = conditioned(pack, base, toy_nodes, model, length=41)  # 11 latent frames
    size = 2 * blocks_of(model) * 7 * (VIDEO // 5) * model.model.diffusion_model.dim * 4  # of seven latent frames
    assert given.info == (
        f"motion context cached: up to {size / 1e6:.1f} MB of keys and values of each context window in float32, RAM, computed "
        f"again for another reference"
    )
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


def test_keys_that_an_earlier_run_has_left_make_room(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host would let go of them after this node, and they are as large as those that are wanted."""
    import comfy.memory_management as memory

    model = loaded(pack, base, lora_of(shelf, "cached"))
    whole = 2 * blocks_of(model) * 10 * (VIDEO // 5) * model.model.diffusion_model.dim * 4
    there, asked = [], []

    def let_go(target: int, free_active: bool = False) -> None:
        asked.append((target, free_active))
        there.clear()

    def made(seed: int, kind: str = "auto", ram: float = 2.1) -> str:
        """With those of another driver in RAM, which the cached outputs of a node hold."""
        there[:] = [conditioned(pack, base, toy_nodes, model, seed=49, length=37, motion_cache="full")]
        free_memory(monkeypatch, lambda: whole * len(there), ram * whole)
        info = conditioned(pack, base, toy_nodes, model, seed=seed, length=37, motion_cache=kind).info
        monkeypatch.undo()
        return info

    assert " in float8_e4m3fn, RAM" in made(50), "nobody lets go"
    memory.set_ram_cache_release_state(let_go, 0)
    try:
        assert " in float32, RAM" in made(51)
        assert asked == [(2 * whole, False)], "no more than what is needed, and nothing of this run"
        asked.clear()
        assert " in float32, RAM" in made(52, "full") and not asked, "there is room"
        assert " in float8_e4m3fn, RAM" in made(53, ram=1.5) and not asked, "in vain nothing is let go of"
    finally:
        memory.set_ram_cache_release_state(None, 0)


def test_a_clip_that_fits_one_window_has_keys_that_the_host_sees(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path
) -> None:
    plain, seen = passes(loaded(pack, base, lora_of(shelf, "cached")))
    given = conditioned(pack, base, toy_nodes, with_windows(plain, 10, 2), length=37, seed=45)
    kept = given.positive[0][1]["model_conds"][pack.nodes.motion_context.KEPT].cond
    assert kept.patcher is not None and "MB of keys and values in float32, RAM" in given.info
    got = run(with_windows(plain, 10, 2), given)
    assert not kept.windows and seen.count(2 * VIDEO) == blocks_of(plain), "once, of all ten latent frames"
    assert torch.equal(run(plain, given), got)


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

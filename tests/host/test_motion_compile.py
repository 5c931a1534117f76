"""Cached motion contexts in a network that the host has compiled, as its TorchCompileModel does it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from motion import conditioned, loaded, lora_of, run


def compiled(model: Any) -> tuple[Any, list[Any]]:
    """A clone that is traced as for any backend, and a list that gets what was traced: what the host's own backends make of that
    takes a compiler for C, and minutes."""
    import comfy_extras.nodes_torch_compile as stock

    torch.compiler.reset()  # what other tests have had traced
    clone, traced = model.clone(disable_dynamic=True), []

    def backend(graph: Any, _inputs: Any, **_options: Any) -> Any:
        traced.append(graph)
        return graph.forward

    options = {"guard_filter_fn": stock.skip_torch_compile_dict}
    stock.set_torch_compile_wrapper(model=clone, backend=backend, options=options)
    return clone, traced


def test_a_compiled_network_sees_the_same_driver(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path
) -> None:
    model = loaded(pack, base, lora_of(shelf, "cached_near"))
    fast, traced = compiled(model)
    given = [conditioned(pack, base, toy_nodes, model, seed=seed) for seed in (50, 51)]
    got = [run(fast, one, cfg=3.0) for one in given]  # the driver's pass is traced, too
    for one, of_fast in zip(given, got, strict=True):
        one.positive[0][1]["model_conds"][pack.nodes.motion_context.KEPT].cond.keys.made_by = None
        torch.testing.assert_close(of_fast, run(model, one, cfg=3.0), atol=1e-4, rtol=0)
    assert (got[0] - got[1]).abs().max() > 0.05
    assert torch.equal(run(fast, given[0], cfg=3.0), got[0]), "what was traced last is not what is seen"
    nodes = sum(len(graph.graph.nodes) for graph in traced)
    assert nodes > 100, "blocks share it"
    other = loaded(pack, base, lora_of(shelf, "cached_near", seed=1))
    by_other = run(compiled(other)[0], given[0], cfg=3.0)
    assert (by_other - got[0]).abs().max() > 0.05
    torch.testing.assert_close(by_other, run(other, given[0], cfg=3.0), atol=1e-4, rtol=0)


def test_a_compiled_network_of_a_joint_lora_is_the_same(
    pack: ModuleType, base: SimpleNamespace, toy_nodes: ModuleType, shelf: Path
) -> None:
    """What our wrapper takes out of the conditioning is out before the network looks."""
    model = loaded(pack, base, lora_of(shelf, "joint"))
    fast, traced = compiled(model)
    given = conditioned(pack, base, toy_nodes, model, seed=52)
    torch.testing.assert_close(run(fast, given, cfg=3.0), run(model, given, cfg=3.0), atol=1e-4, rtol=0)
    assert sum(len(graph.graph.nodes) for graph in traced) > 100

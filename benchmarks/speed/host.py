"""Sampling, encoding and decoding, and whole runs, in a real server on the small backbone."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import requests

from benchmarks.speed.clocks import Memory, spread, timed
from benchmarks.speed.graphs import PLAIN, count, step_graphs, vae_graphs, whole_graphs, write_loras, write_material
from dreamactor_core.motion_context import CONTEXTS
from headless.client import Client
from headless.server import HostServer

REAL = (128, 192, 81)
SIZES = ((64, 96, 33), (128, 192, 33), REAL, (256, 384, 49))
"""Width, height and frames, 4n+1 with the lead-in."""
VAE_SIZE = (128, 192, 33)
STEPS, ROUNDS = 5, 3


def ratios(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Of each context's seconds to the plain ones of the same round."""
    return {name: spread([own / plain for own, plain in zip(seconds[name], seconds[PLAIN], strict=True)]) for name in CONTEXTS}


def _row(what: str, size: tuple[int, int, int], seconds: dict[str, list[float]], **more: Any) -> dict[str, Any]:
    width, height, frames = size
    tokens = ((frames - 1) // 4 + 1) * (width // 16) * (height // 16)
    return {"what": what, "width": width, "height": height, "frames": frames, "tokens": tokens, "ratios": ratios(seconds), **more}


def _steps(client: Client, size: tuple[int, int, int], seed: int) -> dict[str, Any]:
    """Steps of the sampler, in turn. What is made of reference and driver is there from the second round on."""
    seconds: dict[str, list[float]] = {name: [] for name in (PLAIN, *CONTEXTS)}
    for round_ in range(ROUNDS):
        for name, graph in step_graphs(size, seed + round_, STEPS).items():
            seconds[name].append(timed(client, graph)[0].step())
    return _row("step", size, seconds)


def _vae(client: Client) -> dict[str, Any]:
    """Runs of the graphs that do nothing but encode and decode, once before the clock runs: networks are loaded then."""
    seconds: dict[str, list[float]] = {name: [] for name in (PLAIN, *CONTEXTS)}
    width, height, _ = VAE_SIZE
    for graph in vae_graphs((width, height, 13), 0).values():
        client.run(graph)
    for round_ in range(ROUNDS):
        for name, graph in vae_graphs(VAE_SIZE, round_).items():
            started = time.perf_counter()
            client.run(graph)
            seconds[name].append(time.perf_counter() - started)
    return _row("vae", VAE_SIZE, seconds)


def _whole(client: Client, seed: int) -> dict[str, Any]:
    """Runs of the whole workflow from nothing: their time, how it is split, memory, and the driver's own pass.

    The row has `split` (of each context and plain, the share of each node's time), `memory` (the most that was in use, to plain's)
    and `driver_pass` (what a cached context's first step takes longer than plain's first does, in plain steps).
    """
    seconds: dict[str, list[float]] = {}
    splits, memory, first, step = {}, {}, {}, {}
    for name, graph in whole_graphs(REAL, seed).items():
        requests.post(f"{client.url}/free", json={"unload_models": True, "free_memory": True}, timeout=60).raise_for_status()
        time.sleep(2)  # it is done between two graphs
        with Memory(client) as used:
            clock, took = timed(client, graph)
        nodes = clock.nodes(clock.begun[0][1] + took)
        splits[name] = {title: round(value / sum(nodes.values()), 4) for title, value in nodes.items() if value > 0.001 * took}
        seconds[name], memory[name] = [took], used.most
        first[name], step[name] = clock.before_first(), clock.step()
    longer = {name: first[name] - step[name] for name in seconds}
    own = {name: (longer[name] - longer[PLAIN]) / step[PLAIN] for name, context in CONTEXTS.items() if context.cached}
    return _row(
        "whole", REAL, seconds, split=splits, driver_pass={name: round(value, 2) for name, value in own.items()},
        memory={name: round(memory[name] / memory[PLAIN], 3) for name in CONTEXTS},
    )  # fmt: skip


def measure(seed: int) -> list[dict[str, Any]]:
    """Rows `vae`, `step` of each size, and `whole`: width, height, frames, tokens of the result, and every context's ratios."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_loras(Path(folder))
        paths = Path(folder) / "paths.yaml"
        paths.write_text(json.dumps({"bench": {"base_path": folder, "loras": "."}}))
        # what is made of reference and driver is kept from round to round: sampling is what is timed
        with HostServer(arguments=["--extra-model-paths-config", str(paths), "--cache-lru", "100"]) as server:
            client = Client(server.url)
            for number in range(count(ROUNDS)):
                write_material(server.input_dir, seed, number)
            rows.append(_vae(client))
            rows.extend(_steps(client, size, seed) for size in SIZES)
            rows.append(_whole(client, seed))
    return rows

"""Sampling, encoding and decoding, and whole runs, in a real server: on the small backbone, and blocks of a large network."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.clocks import Clock, Memory, gpu_bytes, has_gpu_bytes, spread, timed
from benchmarks.speed.graphs import (
    DISTINCT,
    HOST_NODES,
    PLAIN,
    count,
    step_graphs,
    vae_graphs,
    whole_graphs,
    write_loras,
    write_material,
)  # fmt: skip
from benchmarks.speed.large import FOLDERS, HALF, LARGE, Shape, large_graphs, write
from dreamactor_core.motion_context import CONTEXTS
from headless.client import Client, Prompt
from headless.server import HostServer

VAE_SIZES = ((64, 96, 25), (64, 96, 81))
"""So narrow that `joint` is decoded whole: its ratio is an upper end. Others hang on the frames alone, of which the reference takes
no more than 29: the longer a clip, the less it costs beside its driver."""
WHOLE, WHOLE_SIZE = ("joint", "cached", "cached_near"), (128, 192, 33)
SIZES = ((64, 96, 33), (128, 192, 33), (128, 192, 81))
"""Width, height and frames, 4n+1 with the lead-in. Of the last, attention is as large a share of a step as in a large network."""
STEPS, ROUNDS, VAE_ROUNDS = 5, 3, 7
LARGE_STEPS, LARGE_ROUNDS = 2, 2  # on the CPU, where a step takes minutes
_ARGUMENTS = ["--cache-lru", "100", "--use-pytorch-cross-attention"]
"""What is made of reference and driver is kept from round to round: sampling is what is timed. With PyTorch's attention, which the
host has on GPUs: that for CPUs takes so long that a step is little else."""
_NODES = ("In-context conditioning", "Decode")
"""What encodes, and what decodes."""
_TRIES = 3


def ratios(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Of each context's seconds to the plain ones of the same round."""
    contexts = [name for name in seconds if name != PLAIN]
    return {name: spread([own / plain for own, plain in zip(seconds[name], seconds[PLAIN], strict=True)]) for name in contexts}


def _row(what: str, size: tuple[int, int, int], seconds: dict[str, list[float]], **more: Any) -> dict[str, Any]:
    width, height, frames = size
    tokens = ((frames - 1) // 4 + 1) * (width // 16) * (height // 16)
    return {"what": what, "width": width, "height": height, "frames": frames, "tokens": tokens, "ratios": ratios(seconds), **more}


def _in_turn(client: Client, graphs: Callable[[int], dict[str, Prompt]], rounds: int) -> dict[str, list[float]]:
    """Seconds of a sampler's step in each graph and round. What is made of reference and driver is there from the second on."""
    seconds: dict[str, list[float]] = {name: [] for name in (PLAIN, *CONTEXTS)}
    for round_ in range(rounds):
        for name, graph in graphs(round_).items():
            seconds[name].append(timed(client, graph).step())
    return seconds


def _steps(client: Client, size: tuple[int, int, int], seed: int) -> dict[str, Any]:
    return _row("step", size, _in_turn(client, lambda round_: step_graphs(size, seed + round_, STEPS), ROUNDS))


def _large_steps(client: Client, shape: Shape, seed: int, steps: int, rounds: int) -> dict[str, Any]:
    seconds = _in_turn(client, lambda round_: large_graphs(shape, seed + round_, steps), rounds)
    network = {name: value for name, value in asdict(shape).items() if name != "size"}
    return _row("large", shape.size, seconds, network=network)


def _vae(client: Client, size: tuple[int, int, int]) -> dict[str, Any]:
    """The nodes that encode and decode, with nothing sampled between them; each round has pictures of its own, and before the clock
    runs the networks are loaded."""
    seconds: dict[str, list[float]] = {name: [] for name in (PLAIN, *DISTINCT)}
    for round_ in range(VAE_ROUNDS + 1):
        for name, graph in vae_graphs(size, round_).items():
            nodes = timed(client, graph).nodes()
            if round_:
                seconds[name].append(sum(nodes[title] for title in _NODES))
    return _row("vae", size, seconds)


def _from_nothing(client: Client, graph: Prompt) -> tuple[Clock, float | None]:
    """A run in which nothing is kept from earlier ones, and the most of a GPU's memory that was in use."""
    for _ in range(_TRIES):
        client.free()
        time.sleep(2)  # it is done between two graphs, and not at all when one begins before that
        used = partial(gpu_bytes, Client(client.url))  # a connection of its own, for another thread
        with Memory(used) if has_gpu_bytes(client) else nullcontext() as watched:
            clock = timed(client, graph)
        if all(made["_meta"]["title"] in dict(clock.begun) for made in graph.values() if "_meta" in made):
            return clock, watched.most if watched else None
    raise RuntimeError(f"the server kept results of earlier runs in {_TRIES} runs, though it was asked to free them")


def _whole(client: Client, seed: int) -> dict[str, Any]:
    """Runs of the whole workflow from nothing, with the contexts of WHOLE: time, how it is split, memory, the driver's own pass.

    The row has `split` (of each context and plain, the share of each node's time in the last round), on a GPU `memory` (the most
    that was in use, to plain's) and `driver_pass` (what a cached context's first step takes longer than plain's first does, in
    plain steps: differences of single steps, so mind their spread).
    """
    seconds: dict[str, list[float]] = {name: [] for name in (PLAIN, *WHOLE)}
    memory: dict[str, list[float]] = {name: [] for name in seconds}
    own: dict[str, list[float]] = {name: [] for name in WHOLE if CONTEXTS[name].cached}
    splits = {}
    timed(client, whole_graphs(WHOLE_SIZE, seed)[PLAIN])  # the first one to write a video
    for round_ in range(ROUNDS):
        longer, step = {}, 0.0
        graphs = whole_graphs(WHOLE_SIZE, seed + round_)
        for name in (PLAIN, *WHOLE):
            clock, most = _from_nothing(client, graphs[name])
            nodes = clock.nodes()
            total = sum(nodes.values())
            splits[name] = {title: round(value / total, 4) for title, value in nodes.items() if value > 0.001 * total}
            seconds[name].append(total)
            if most is not None:
                memory[name].append(most)
            longer[name] = clock.before_first() - clock.step()
            step = clock.step() if name == PLAIN else step
        for name, values in own.items():
            values.append((longer[name] - longer[PLAIN]) / step)
    row = _row("whole", WHOLE_SIZE, seconds, split=splits, driver_pass={name: spread(values) for name, values in own.items()})
    return row | ({"memory": ratios(memory)} if memory[PLAIN] else {})


def measure(seed: int, layers: int | None = None) -> list[dict[str, Any]]:
    """Rows `vae` and `step` of each size, `whole` and `large`: width, height, frames, tokens of the result, ratios. `step` and
    `large` have all contexts, the others the DISTINCT and those of WHOLE. `layers`: blocks of the large network."""
    gpu = torch.cuda.is_available()
    shape, steps, rounds = (LARGE, STEPS, ROUNDS) if gpu else (HALF, LARGE_STEPS, LARGE_ROUNDS)
    shape = shape if layers is None else replace(shape, layers=layers)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), shape, torch.bfloat16 if gpu else torch.float32)
        write_loras(Path(folder) / "loras")
        paths = Path(folder) / "paths.yaml"
        # in front of the host's own folders, where a user may have files of these names
        found = {"base_path": folder, "is_default": True} | {name: name for name in FOLDERS}
        paths.write_text(json.dumps({"bench": found | {"custom_nodes": str(HOST_NODES)}}))
        own = [file.name for file in HOST_NODES.glob("*.py")]
        with HostServer(arguments=["--extra-model-paths-config", str(paths), *_ARGUMENTS], packs=own) as server:
            client = Client(server.url)
            for number in range(count(VAE_ROUNDS + 1)):
                write_material(server.input_dir, seed, number)
            of_vae = (partial(_vae, size=size) for size in VAE_SIZES)
            of_steps = (partial(_steps, size=size, seed=seed) for size in SIZES)
            of_large = partial(_large_steps, shape=shape, seed=seed, steps=steps, rounds=rounds)
            for make in (*of_vae, *of_steps, partial(_whole, seed=seed), of_large):
                rows.append(make(client))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)  # what follows takes minutes
    return rows

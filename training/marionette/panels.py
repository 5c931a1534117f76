"""Panels that the base is trained on, drawn and encoded once; its training reads latents.

    python -m training.marionette.panels --out runs/panels --count 3000

Two characters of a family do one motion, each in a panel of its own, and a third panel holds a filtered copy of the first.
Shards are written whole or not at all; a second call goes on after the last one.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from safetensors import safe_open

from dreamactor_core.layout import BLANK
from training.checkpoint import save_atomic
from training.hashing import sha256
from training.latents.encode import to_pixels
from training.marionette.backbone import VAE_FILE, encode, load_vae, normalise
from training.marionette.filters import filtered
from training.marionette.world import FPS, FRAMES, HEIGHT, LEAD_IN, WIDTH, Split, rng_for, sample_scene
from training.precision import bfloat16_is_native

SHARD = 48
CHARACTERS, COPY = 2, 2
"""Panels of a group: that many with characters, then the filtered copy of the first."""
_SETTLED = 13
_WITNESSES = 24  # samples that are drawn to see whether a cache is of this version: every kind of body is among them
_BIPEDS, _ALL = ("human", "cartoon"), ("human", "cartoon", "quadruped", "bird")


def draw_panels(split: Split, index: int) -> tuple[list[np.ndarray], list[str]]:
    """Clips of a group, RGB uint8 (T, H, W, 3), and their captions."""
    rng = rng_for(split, 0, index)
    scene = sample_scene(rng, str(rng.choice(_ALL, p=[0.3, 0.3, 0.2, 0.2])))
    plan = scene.character.plan
    other = scene.with_character(rng, str(rng.choice(_BIPEDS)) if plan in _BIPEDS else plan)
    frames = [scene.draw()[0], other.draw()[0]]
    copy, name = filtered(frames[0], rng)
    return [*frames, copy], [scene.describe(), other.describe(), f"{name} of {scene.describe()}"]


def _encode_panels(vae: AutoencoderKLWan, split: Split, index: int) -> dict[str, torch.Tensor | list[str]]:
    frames, texts = draw_panels(split, index)
    clips = torch.cat([to_pixels(clip) for clip in frames])
    # a first frame and blank ones: after a few latents they change by less than bfloat16 tells apart, and the last stands for all
    blank = torch.full_like(clips[:, :, :_SETTLED], BLANK)
    blank[:, :, 0] = clips[:, :, 0]
    video, first = (normalise(vae, encode(vae, x).float()) for x in (clips, blank))
    rest = first[:, :, -1:].expand(-1, -1, video.shape[2] - first.shape[2], -1, -1)
    return {"video": video, "first_frame": torch.cat([first, rest], 2), "text": texts}


@functools.cache
def _provenance(split: Split) -> dict[str, str]:
    """What shards must agree on with whoever reads them: the VAE, and what this version of the code draws."""
    drawn = hashlib.sha256()
    for index in range(_WITNESSES):
        clips, texts = draw_panels(split, index)
        drawn.update(json.dumps(texts).encode())
        for clip in clips:
            drawn.update(np.ascontiguousarray(clip).tobytes())
    return {
        "vae_sha256": sha256(VAE_FILE),
        "clip": f"{WIDTH}x{HEIGHT}, {FRAMES} frames at {FPS} fps, lead-in {LEAD_IN}, blank {BLANK:g} settled after {_SETTLED}",
        "drawn_sha256": drawn.hexdigest(),
    }


def _check(path: Path, split: Split) -> None:
    """Raises ValueError for a shard of another VAE or of another drawing."""
    with safe_open(path, "pt") as file:
        found = file.metadata() or {}
    for key, expected in _provenance(split).items():
        if found.get(key) != expected:
            raise ValueError(
                f"{path}: {key} is {found.get(key, 'not stated')}, expected {expected}; it was made with other weights or another "
                f"version of this code: delete {path.parent} and make it again"
            )


@functools.cache
def _encoder(device: str) -> AutoencoderKLWan:
    return load_vae().to(device)


def _write_shard(split: Split, device: str, job: tuple[Path, range]) -> Path:
    path, indices = job
    vae, samples = _encoder(device), []
    for index in indices:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=bfloat16_is_native(device)):
            samples.append(_encode_panels(vae, split, index))
    tensors = {k: torch.stack([s[k] for s in samples]).half() for k in samples[0] if k != "text"}
    texts = json.dumps([s["text"] for s in samples])
    save_atomic(tensors, path, {"text": texts, "split": split, **_provenance(split)})
    return path


def build(out: Path, count: int, split: Split) -> None:
    """Write shards until there are `count` groups. On the CPU one process a core works at it.

    Raises:
        ValueError: there is a shard of other weights or of another version of this code.
        RuntimeError: a process was ended from outside; what is written stays.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = out / split
    shards = -(-count // SHARD)
    jobs = []
    for shard in range(shards):
        path = folder / f"{shard:05d}.safetensors"
        if path.exists():
            _check(path, split)
        else:
            jobs.append((path, range(shard * SHARD, (shard + 1) * SHARD)))
    started, done = time.time(), shards - len(jobs)
    write = functools.partial(_write_shard, split, device)
    workers = min(len(jobs), os.cpu_count() or 1) if device == "cpu" else 1
    with contextlib.ExitStack() as stack:
        if workers > 1:  # one thread each: the clips are too small to be shared out
            context = torch.multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)))
            written = (future.result() for future in as_completed([pool.submit(write, job) for job in jobs]))
        else:
            written = map(write, jobs)
        try:
            for path in written:
                done += 1
                print(f"{split}: {path.name}, {done}/{shards} shards, {time.time() - started:.0f} s", flush=True)
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"one of the {workers} processes was ended from outside, perhaps for lack of memory; {done} of {shards} shards are "
                f"there: run the same command again to go on"
            ) from error


def fingerprint(out: Path, split: Split) -> str:
    """Hex digest of all shards of a split."""
    digests = "".join(sha256(path) for path in sorted((out / split).glob("*.safetensors")))
    return hashlib.sha256(digests.encode()).hexdigest()


def load(out: Path, split: Split) -> tuple[dict[str, torch.Tensor], list[list[str]]]:
    """All shards of a split. Raises FileNotFoundError with the command that makes them, ValueError for stale ones or when some
    are missing in between."""
    paths = sorted((out / split).glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"no {split} shards in {out}; run python -m training.marionette.panels --out {out} --split {split}")
    missing = sorted(set(range(int(paths[-1].stem))) - {int(path.stem) for path in paths})
    if missing:
        raise ValueError(
            f"{paths[-1].parent} lacks shard {missing[0]:05d} ({len(missing)} in all) of {int(paths[-1].stem) + 1}; run python -m "
            f"training.marionette.panels --out {out} --split {split} --count {(int(paths[-1].stem) + 1) * SHARD}"
        )
    tensors: dict[str, list[torch.Tensor]] = {}
    texts: list[list[str]] = []
    for path in paths:
        _check(path, split)
        with safe_open(path, "pt") as file:
            texts += json.loads(file.metadata()["text"])
            for key in file.keys():  # noqa: SIM118 - not a dict
                tensors.setdefault(key, []).append(file.get_tensor(key))
    return {key: torch.cat(values) for key, values in tensors.items()}, texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=960)
    parser.add_argument("--split", choices=["train", "validation"], default="train")
    args = parser.parse_args()
    build(args.out, args.count, args.split)


if __name__ == "__main__":
    main()

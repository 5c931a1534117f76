"""Draw the world and encode it once; training reads latents.

    python -m training.marionette.cache panels --out runs/cache --count 3000
    python -m training.marionette.cache pose --out runs/cache --count 1500
    python -m training.marionette.cache rgb --out runs/cache --count 1500

`panels` serve the base: two characters of a family do one motion, each in a panel of its own, and a third panel holds a
filtered copy of the first. `pose` and `rgb` hold composites of the method, made by the functions that the nodes use.
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

from dreamactor_core.augment import normalise as box_normalise
from dreamactor_core.augment import scale_bones
from dreamactor_core.clips import ClipSpec
from dreamactor_core.conditions import build_condition
from dreamactor_core.layout import BLANK, SpatialLayout
from dreamactor_core.poses import from_body_joints
from dreamactor_core.skeleton import draw_skeleton
from training.checkpoint import save_atomic
from training.lora_file import sha256
from training.marionette.backbone import VAE_FILE, encode, load_vae, normalise
from training.marionette.filters import filtered
from training.marionette.world import FPS, FRAMES, HEIGHT, LEAD_IN, WIDTH, Scene, Split, rng_for, sample_scene

SHARD = 48
CHARACTERS, COPY = 2, 2
"""Panels of a group: that many with characters, then the filtered copy of the first."""
_SETTLED = 13
_WITNESSES = 24  # samples that are drawn to see whether a cache is of this version: every kind of body is among them
SPEC = ClipSpec(FRAMES, LEAD_IN, FPS)

_OTHER_BONES, _HIDDEN_LIMBS, _NORMALISED = 0.5, 0.12, 0.35
LIMBS = {"arms": (3, 4, 6, 7), "legs": (9, 10, 12, 13)}
"""OpenPose joints of both arms and of both legs, without shoulders and hips."""
_BIPEDS, _ALL = ("human", "cartoon"), ("human", "cartoon", "quadruped", "bird")


def to_pixels(frames: np.ndarray) -> torch.Tensor:
    """RGB uint8 (T, H, W, 3) to (1, 3, T, H, W) in [-1, 1]."""
    return torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def skeleton_of(scene: Scene, rng: np.random.Generator | None) -> np.ndarray:
    """Skeleton video of a scene without its lead-in, RGB uint8 (T - LEAD_IN, H, W, 3); with `rng`, augmented.

    The factors of the paper cover people. This world's cartoon bodies differ from its humans by more, so half of the
    clips get the bone lengths of another body of the world, with the same joint angles and the feet on the floor; of the
    rest, the paper's share gets the paper's factors. Some clips lose a pair of limbs, which only the text tells about.
    Some are normalised by their box, as the workflows do with drivers that were filmed elsewhere.
    """
    if rng is not None and rng.random() < _OTHER_BONES:
        plan = scene.character.plan
        scene, rng_scale = scene.with_character(rng, str(rng.choice(_BIPEDS, p=[0.7, 0.3])) if plan in _BIPEDS else plan), None
    else:
        rng_scale = rng
    joints = scene.keypoints()[LEAD_IN:]  # a driver has no lead-in: neither its bones nor its box may know of it
    if rng is not None and rng.random() < _HIDDEN_LIMBS:
        joints[:, LIMBS[str(rng.choice(list(LIMBS)))]] = 0
    poses = from_body_joints(joints, HEIGHT, WIDTH)
    if rng_scale is not None:
        poses = scale_bones(poses, rng_scale)
    if rng is not None and rng.random() < _NORMALISED:
        poses = box_normalise(poses, HEIGHT, WIDTH)
    return draw_skeleton(poses, HEIGHT, WIDTH)


def draw_pair(kind: str, split: Split, index: int) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Target (1, 3, T, H, W) and driver (1, 3, T - LEAD_IN, H, W) of one training sample of the method, and its caption.

    `pose`: a character and its own skeleton, mostly people. `rgb`: one character, and another of its family doing the same.
    """
    rng = rng_for(split, 2 if kind == "pose" else 3, index)
    if kind == "pose":
        scene = sample_scene(rng, str(rng.choice(_ALL, p=[0.38, 0.34, 0.16, 0.12])))
        return to_pixels(scene.draw()[0]), to_pixels(skeleton_of(scene, rng)), scene.describe()
    plan = str(rng.choice(_ALL, p=[0.25, 0.25, 0.25, 0.25]))
    scene = sample_scene(rng, plan)
    driver = scene.with_character(rng, "human" if plan in _BIPEDS else plan)
    return to_pixels(scene.draw()[0]), to_pixels(driver.draw()[0][LEAD_IN:]), scene.describe()


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
    # a first frame and blank ones: after a few latents they change by less than bfloat16 rounds, so the last stands for the rest
    blank = torch.full_like(clips[:, :, :_SETTLED], BLANK)
    blank[:, :, 0] = clips[:, :, 0]
    video, first = (normalise(vae, encode(vae, x).float()) for x in (clips, blank))
    rest = first[:, :, -1:].expand(-1, -1, video.shape[2] - first.shape[2], -1, -1)
    return {"video": video, "first_frame": torch.cat([first, rest], 2), "text": texts}


def encode_composite(vae: AutoencoderKLWan, target: torch.Tensor, driver: torch.Tensor) -> dict[str, torch.Tensor]:
    """`condition` (16, t, h, 2w), which is Z, and `target` (16, t, h, w) of a target and its driver, as `draw_pair` gives them."""
    layout = SpatialLayout()

    def encode_float(pixels: torch.Tensor) -> torch.Tensor:
        return encode(vae, pixels).float()

    condition = build_condition(layout, target[:, :, 0], driver, SPEC, encode_float)
    # what is to be generated: the whole composite with the true animation in its left half, encoded as one video
    motion = condition.composite[..., WIDTH:]
    truth = layout.crop(encode_float(layout.join(target, motion)))
    return {"condition": normalise(vae, condition.latents)[0], "target": normalise(vae, truth)[0]}


def _encode_composite(
    vae: AutoencoderKLWan, kind: str, split: Split, index: int
) -> dict[str, torch.Tensor | list[str]]:
    target, driver, text = draw_pair(kind, split, index)
    return {**encode_composite(vae, target, driver), "text": [text]}


def _drawn(kind: str, split: Split, index: int) -> tuple[list[np.ndarray], list[str]]:
    """The clips of a sample before they are encoded, and its captions."""
    if kind == "panels":
        return draw_panels(split, index)
    *clips, text = draw_pair(kind, split, index)
    return [clip.numpy() for clip in clips], [text]


@functools.cache
def _provenance(kind: str, split: Split) -> dict[str, str]:
    """What shards must agree on with whoever reads them: the VAE, and what this version of the code draws."""
    drawn = hashlib.sha256()
    for index in range(_WITNESSES):
        clips, texts = _drawn(kind, split, index)
        drawn.update(json.dumps(texts).encode())
        for clip in clips:
            drawn.update(np.ascontiguousarray(clip).tobytes())
    return {
        "vae_sha256": sha256(VAE_FILE),
        "clip": f"{WIDTH}x{HEIGHT}, {FRAMES} frames at {FPS} fps, lead-in {LEAD_IN}, blank {BLANK:g} settled after {_SETTLED}",
        "drawn_sha256": drawn.hexdigest(),
    }


def _check(path: Path, kind: str, split: Split) -> None:
    """Raises ValueError for a shard of another VAE or of clips of another kind."""
    with safe_open(path, "pt") as file:
        found = file.metadata() or {}
    for key, expected in _provenance(kind, split).items():
        if found.get(key) != expected:
            raise ValueError(
                f"{path}: {key} is {found.get(key, 'not stated')}, expected {expected}; it was made with other weights or another "
                f"version of this code: delete {path.parent} and make it again"
            )


@functools.cache
def _encoder(device: str) -> AutoencoderKLWan:
    return load_vae().to(device)


def _write_shard(kind: str, split: Split, device: str, job: tuple[Path, range]) -> Path:
    path, indices = job
    vae, samples = _encoder(device), []
    for index in indices:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16):
            one = _encode_panels(vae, split, index) if kind == "panels" else _encode_composite(vae, kind, split, index)
        samples.append(one)
    tensors = {k: torch.stack([s[k] for s in samples]).half() for k in samples[0] if k != "text"}
    texts = json.dumps([s["text"] for s in samples])
    save_atomic(tensors, path, {"text": texts, "kind": kind, "split": split, **_provenance(kind, split)})
    return path


def build(kind: str, out: Path, count: int, split: Split) -> None:
    """Write shards until there are `count` samples (for panels: groups). On the CPU one process a core works at it.

    Raises:
        ValueError: there is a shard of other weights or of another version of this code.
        RuntimeError: a process was ended from outside; what is written stays.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = out / f"{kind}_{split}"
    shards = -(-count // SHARD)
    jobs = []
    for shard in range(shards):
        path = folder / f"{shard:05d}.safetensors"
        if path.exists():
            _check(path, kind, split)
        else:
            jobs.append((path, range(shard * SHARD, (shard + 1) * SHARD)))
    started, done = time.time(), shards - len(jobs)
    write = functools.partial(_write_shard, kind, split, device)
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
                print(f"{kind} {split}: {path.name}, {done}/{shards} shards, {time.time() - started:.0f} s", flush=True)
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"one of the {workers} processes was ended from outside, perhaps for lack of memory; {done} of {shards} shards are "
                f"there: run the same command again to go on"
            ) from error


def fingerprint(out: Path, kind: str, split: Split) -> str:
    """Hex digest of all shards of a kind."""
    digests = "".join(sha256(path) for path in sorted((out / f"{kind}_{split}").glob("*.safetensors")))
    return hashlib.sha256(digests.encode()).hexdigest()


def load(out: Path, kind: str, split: Split) -> tuple[dict[str, torch.Tensor], list[list[str]]]:
    """All shards of a kind. Raises FileNotFoundError with the command that makes them, ValueError for stale ones or when some
    are missing in between."""
    paths = sorted((out / f"{kind}_{split}").glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(
            f"no {kind} {split} shards in {out}; run python -m training.marionette.cache {kind} --out {out} --split {split}"
        )
    missing = sorted(set(range(int(paths[-1].stem))) - {int(path.stem) for path in paths})
    if missing:
        raise ValueError(
            f"{paths[-1].parent} lacks shard {missing[0]:05d} ({len(missing)} in all) of {int(paths[-1].stem) + 1}; run python -m "
            f"training.marionette.cache {kind} --out {out} --split {split} --count {(int(paths[-1].stem) + 1) * SHARD}"
        )
    tensors: dict[str, list[torch.Tensor]] = {}
    texts: list[list[str]] = []
    for path in paths:
        _check(path, kind, split)
        with safe_open(path, "pt") as file:
            texts += json.loads(file.metadata()["text"])
            for key in file.keys():  # noqa: SIM118 - not a dict
                tensors.setdefault(key, []).append(file.get_tensor(key))
    return {key: torch.cat(values) for key, values in tensors.items()}, texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["panels", "pose", "rgb"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=960)
    parser.add_argument("--split", choices=["train", "validation"], default="train")
    args = parser.parse_args()
    build(args.kind, args.out, args.count, args.split)


if __name__ == "__main__":
    main()

"""The verb `cache`: clips to latents and text embeddings, in shards that are written whole or not at all.

    python -m training cache run.yaml

A second call goes on after the shards that are there. Shards of other clips, settings or weights are refused.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from multiprocessing.queues import SimpleQueue
from operator import attrgetter
from pathlib import Path

import torch

from dreamactor_core.layout import get_layout
from dreamactor_core.motion_context import get_context
from training import backbones, config, devices, manifest
from training.backbones.base import Context, Encoders
from training.checkpoint import save_atomic
from training.config import Config
from training.errors import UserError
from training.latents import copies, header
from training.latents.bodies import Bodies, bodies_of, body_of, others_of
from training.latents.encode import Maker, read_poses
from training.latents.skeletons import convention
from training.latents.split import check_samples, concatenated, manifest_of, sides
from training.manifest import Sample
from training.processes import alone, end_with_parent

EMPTY = "empty.safetensors"
"""The context of an empty prompt, for dropped texts; its header names the backbone and the text encoder."""


@dataclass(frozen=True)
class Job:
    """One shard, in the folder that its split names."""

    path: Path
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Work:
    """What the shards of a run have in common: a process is given it once, and not with each shard.

    Attributes:
        metadata: Of each split's shards. bodies: Of each split; empty where no pose is augmented.
    """

    settings: Config
    metadata: Mapping[str, dict[str, str]]
    bodies: Mapping[str, Bodies]


_device = "cpu"  # of this process
_work: Work | None = None


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="the run's YAML file")


def cache_folder(settings: Config) -> Path:
    return settings.out / "cache"


def header_of(settings: Config, samples: Sequence[Sample], folder: Path) -> header.Header:
    """What every shard will say."""
    backbone = backbones.get(settings.backbone)
    files = backbone.weights()
    lines = []
    for sample in samples:
        sizes = [path.stat().st_size for path in (sample.target_video, sample.driving_video, sample.poses) if path]
        lines.append([manifest.to_line(sample.model_copy(update={"scores": {}, "accepted": None}), folder), sizes])
    pose = settings.variant == "pose"
    return header.Header(
        backbone=settings.backbone.name,
        vae_sha256=header.files_hash(files["vae"]),
        text_sha256=header.files_hash(files["text"]),
        variant=settings.variant,
        layout=settings.layout,
        apart=header.apart(get_context(settings.motion_context)),
        encoding=backbone.encoding,
        fps=f"{settings.clip.fps:g}",
        lead_in=str(settings.clip.spec().lead_in),
        text=settings.cache.text,
        variants=str(settings.cache.variants if pose else 1),
        augment=json.dumps(settings.cache.augment.model_dump(), sort_keys=True) if pose else "",
        skeleton=convention(map(read_poses, samples)) if pose else "",
        pairs="self" if pose else header.kinds(sample.pairs for sample in samples),
        manifest_sha256=header.digest(lines),
    )


def plan(settings: Config, samples: Sequence[Sample], folder: Path) -> list[Job]:
    """Shards: samples of one size and length each, in the manifest's order."""
    buckets: dict[tuple[int, int, int], list[Sample]] = {}
    for sample in samples:
        buckets.setdefault((sample.width, sample.height, sample.frames), []).append(sample)
    size = settings.cache.shard
    return [
        Job(folder / f"{width}x{height}x{frames}_{number:05d}.safetensors", tuple(members[number * size : (number + 1) * size]))
        for (width, height, frames), members in sorted(buckets.items())
        for number in range(-(-len(members) // size))
    ]


@cache
def _encoders(backbone: config.Backbone, device: str) -> Encoders:
    return backbones.get(backbone).load_encoders(torch.device(device))


def _stacked(made: list[torch.Tensor]) -> torch.Tensor:
    """One tensor; joints of clips with fewer people get unseen ones."""
    shape = [max(sizes) for sizes in zip(*(one.shape for one in made), strict=True)]
    out = made[0].new_zeros(len(made), *shape)
    for row, one in zip(out, made, strict=True):
        row[tuple(slice(n) for n in one.shape)] = one
    return out


def _half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.dtype == torch.float32 else tensor


def _joined(contexts: Sequence[Context]) -> tuple[dict[str, torch.Tensor], dict[str, list[int]]]:
    """Contexts of several samples end to end, and their lengths."""
    tensors = {f"context.{name}": torch.cat([context[name] for context in contexts]) for name in contexts[0]}
    return tensors, {name: [len(context[name]) for context in contexts] for name in contexts[0]}


def _empty(settings: Config, device: str, path: Path) -> None:
    """Write the context of an empty prompt, unless this text encoder's is there. One of another encoder is replaced."""
    backbone = backbones.get(settings.backbone)
    expected = header.of_empty(settings.backbone.name, header.files_hash(backbone.weights()["text"]))
    if path.exists() and header.read_metadata(path) == expected:
        return
    context = _encoders(settings.backbone, device).text([""])[0]
    save_atomic({name: _half(value.cpu()) for name, value in context.items()}, path, expected)


def _write(job: Job) -> Path:
    assert _work is not None
    settings, split_name = _work.settings, job.path.parent.name
    pose = settings.variant == "pose"
    augment = settings.cache.augment if pose else None
    encoders = _encoders(settings.backbone, _device)
    prompt = concatenated if settings.cache.text == "concatenated" else attrgetter("caption")
    layout = get_layout(settings.layout, settings.motion_context)
    others = others_of(_work.bodies[split_name])
    maker = Maker(encoders, layout, settings.clip.spec, augment, settings.cache.variants, others, prompt)
    made, contexts = [], []
    for first in range(0, len(job.samples), encoders.at_once):
        part = job.samples[first : first + encoders.at_once]
        for tensors, context in maker(part, [int(header.digest(sample.id)[:8], 16) for sample in part]):
            made.append(tensors)
            contexts.append(context)
    # keypoints stay in single precision: half a pixel of a large picture is less than half precision tells apart
    tensors = {name: _stacked([one[name].cpu() for one in made]) for name in made[0]}
    tensors = {name: value if name == "joints" else _half(value) for name, value in tensors.items()}
    text, lengths = _joined([{name: _half(value.cpu()) for name, value in context.items()} for context in contexts])
    about = {
        "ids": json.dumps([sample.id for sample in job.samples]),
        "sources": json.dumps([sample.source_sha256 for sample in job.samples]),
        "bodies": json.dumps([body_of(sample) for sample in job.samples]),
        "lengths": json.dumps(lengths),
    }
    save_atomic(tensors | text, job.path, _work.metadata[split_name] | about)
    return job.path


def _copies(job: Job) -> list[str]:
    """What is wrong with drivers of a shard that show their target."""
    assert _work is not None
    spec = _work.settings.clip.spec
    return [wrong for sample in job.samples if (wrong := copies.copied(sample, spec(sample.frames)))]


def _start(threads: int, devices: SimpleQueue, work: Work) -> None:
    """In each process of the pool: it has one device for all that it does, the next of those that are left."""
    global _device, _work
    end_with_parent()
    _device, _work = devices.get(), work
    torch.set_num_threads(threads)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _written(work: Work, jobs: Sequence[Job], computed_on: Sequence[str]) -> Iterator[Path]:
    """Shards as they are done."""
    global _device, _work
    settings = work.settings
    asked = settings.cache.workers or (len(computed_on) if computed_on[0] != "cpu" else os.cpu_count() or 1)
    workers = min(asked, len(jobs))
    lists = [path for path in (manifest_of(settings), settings.cache.validation) if path]
    if workers <= 1:
        _device, _work = computed_on[0], work
        # where several were asked for and one shard is left: with other threads it would be rounded otherwise than by a pool
        with _threads(1) if asked > 1 and computed_on[0] == "cpu" else contextlib.nullcontext():
            copies.refuse(map(_copies, jobs) if settings.variant == "rgb" else (), lists)
            yield from map(_write, jobs)
        return
    _encoders.cache_clear()  # those of the empty prompt: the processes have their own
    if computed_on[0] != "cpu":
        torch.cuda.empty_cache()
    context = multiprocessing.get_context("spawn")
    left = context.SimpleQueue()
    for k in range(workers):
        left.put(computed_on[k % len(computed_on)])
    # one thread each on the CPU: clips of small networks are too small to be shared out
    threads = 1 if computed_on[0] == "cpu" else max(1, (os.cpu_count() or 1) // workers)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(workers, context, _start, (threads, left, work)))
        futures: list[Future] = []
        try:
            copies.refuse(pool.map(_copies, jobs) if settings.variant == "rgb" else (), lists)
            futures += [pool.submit(_write, job) for job in jobs]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                f"one of the {workers} processes was ended from outside, perhaps for lack of memory; what is written stays: run "
                f"the same command again to go on, with a smaller cache.workers"
            ) from error
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def build(settings: Config) -> Path:
    """Make the cache of a run; returns its folder. Raises UserError."""
    computed_on = devices.found()
    print(f"cache: on {devices.in_words(*computed_on)}", flush=True)
    devices.check(backbones.get(settings.backbone), computed_on[0])
    folder, (splits, skipped) = cache_folder(settings), sides(settings)
    for samples in splits.values():
        check_samples(settings, samples)
    with alone(folder, "cache"):
        shards = _shards(settings, splits, folder, computed_on)
    held_out, left_out = len(splits["validation"]), [f"{count} {why}" for why, count in skipped.items() if count]
    print(
        f"cache: {len(splits['train'])} samples to train on, {held_out} held out, {skipped.total()} skipped"
        f"{' (' + ', '.join(left_out) + ')' if left_out else ''}; {shards} shards in {folder}",
        flush=True,
    )
    if not held_out:
        print(f"cache: nothing is held out, so nothing will tell whether the clips are learnt by heart; {_to_hold_out(settings)}")
    return folder


def _to_hold_out(settings: Config) -> str:
    if settings.cache.validation is not None:
        return f"give samples that are of this run's kind and not rejected in {settings.cache.validation}"
    return "give clips of two sources or more" if settings.cache.validation_share else "set cache.validation_share above 0"


def _shards(settings: Config, splits: Mapping[str, Sequence[Sample]], folder: Path, computed_on: Sequence[str]) -> int:
    """Make the shards that are missing; returns how many there are of both sides."""
    planned = {name: plan(settings, samples, folder / name) for name, samples in splits.items()}
    counts = header.of_whole({name: (len(planned[name]), len(samples)) for name, samples in splits.items()})
    jobs, total, metadata = list[Job](), sum(map(len, planned.values())), dict[str, dict[str, str]]()
    for name, samples in splits.items():
        if not samples:
            continue
        own = header_of(settings, samples, folder)
        metadata[name] = own.metadata() | counts
        for job in planned[name]:
            if job.path.exists():
                found = header.read_metadata(job.path)
                header.check(found, own, job.path)
                header.check_ids(found, [sample.id for sample in job.samples], job.path)
            else:
                jobs.append(job)
    for name, wanted in planned.items():  # also of a side that has no sample now: `train` would read what an earlier setting left
        for extra in sorted(set((folder / name).glob("*.safetensors")) - {job.path for job in wanted}):
            raise UserError(f"{extra} is of no sample of this run, expected {len(wanted)} shards; delete {folder}, make it again")
    work = Work(settings, metadata, {name: bodies_of(settings, samples) for name, samples in splits.items()})
    started, done = time.time(), total - len(jobs)
    if settings.variant == "rgb" and jobs:
        count = sum(len(job.samples) for job in jobs)
        print(f"cache: {count} samples are looked at first, for drivers that show their own target", flush=True)
    try:
        config.save(settings, folder)
        _empty(settings, computed_on[0], folder / EMPTY)
        for path in _written(work, jobs, computed_on):
            done += 1
            print(f"cache: {path.parent.name}/{path.name}, {done}/{total} shards, {time.time() - started:.0f} s", flush=True)
    except OSError as error:
        raise UserError(
            f"{folder} can't be written ({error}); make room, or see that it may be written to, and run the same command again: "
            f"what is written stays"
        ) from error
    return total


def main(options: argparse.Namespace) -> int:
    build(config.load(options.config))
    return 0

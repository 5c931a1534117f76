"""The verb `data`: sources to clips, their manifest, and the list of what was dropped.

python -m training data run.yaml
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from headless.atomic import atomic
from training import config as configs
from training.config import Config
from training.data import captions, cutting, folder, listed, poses, world
from training.data.dropping import REASONS, Dropped
from training.data.journal import Journal, stamp
from training.data.pool import run
from training.data.unit import Job, Outcome, Source, Unit
from training.errors import UserError
from training.manifest import Sample, write
from training.processes import alone

SOURCES = {"folder": folder.find, "manifest": listed.find, "world": world.find}
"""Where clips come from. Another source is another file here and a line."""
SHOWN = 5  # notes and reasons that are printed in full


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command line."""
    parser.add_argument("config", type=Path, help="the run's YAML file")


def main(options: argparse.Namespace) -> int:
    """Make the clips of a run. Returns 0, or 1 when none came out."""
    config = configs.load(options.config)
    return 0 if build(config) else 1


def build(config: Config) -> list[Sample]:
    """Make clips, `<out>/clips/manifest.jsonl` and `<out>/clips/dropped.jsonl`. What is finished is not made again.

    Raises:
        UserError: settings that cannot be kept to, before anything is read; or the disk is full, a service is gone, or another
            `data` is at work in the folder.
    """
    job = Job(config, config.out / "clips")
    source = _checked(job)
    if config.data.workers != 1:
        poses.unload()  # the processes load their own
    with alone(job.folder, "data"):
        return _built(job, source)


def _built(job: Job, source: Source) -> list[Sample]:
    config = job.config
    try:
        configs.save(config, job.folder)
        for leftover in job.folder.glob(".*.part"):  # of whoever was killed while writing
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{job.folder} can't be written to ({error.strerror}); make room, or name another out") from error
    began, journal = time.monotonic(), Journal(job)
    outcomes = {unit.name: done for unit in source.units if (done := journal.finished(unit)) is not None}
    todo = [unit for unit in source.units if unit.name not in outcomes]
    if outcomes:
        print(f"{len(outcomes)} of {len(source.units)} sources are finished already", flush=True)
    stamps = {unit.name: stamp(unit) for unit in todo}
    bar = tqdm(total=len(source.units), initial=len(outcomes), unit="source", disable=None)
    with bar:
        for unit, outcome in run(todo, job, _workers(config, len(todo))):
            if not outcome.unsure:
                journal.note(unit, outcome, stamps[unit.name])
            outcomes[unit.name] = outcome
            bar.update()
    samples, dropped = _assembled(source.units, outcomes)
    _write(job.folder, samples, [*source.dropped, *dropped])
    notes = [note for unit in source.units for note in outcomes[unit.name].notes]
    _tell(job.folder, samples, [*source.dropped, *dropped], notes, time.monotonic() - began)
    return samples


def _checked(job: Job) -> Source:
    """The source, after all that can be known to be wrong before anything is read."""
    config, data = job.config, job.config.data
    if data.source != "world":
        cutting.lengths(config)
        if data.captions == "describe" and data.poses == "none":
            raise UserError("data.captions is describe, which needs poses, and data.poses is none; set it to file or extract")
        if data.poses == "extract":
            poses.extractor(data)
        if data.captions == "service":
            captions.writer(data, job.folder / "answers")
    return SOURCES[data.source](config)


def _workers(config: Config, units: int) -> int:
    """Processes; 0: this one alone, where nobody notes which file a decoder crashed on."""
    if config.data.workers:
        return config.data.workers if config.data.workers > 1 else 0
    if config.data.source != "world" and config.data.poses == "extract":
        return 1  # the estimator has all cores, or the GPU, for itself
    return max(1, min(units, os.cpu_count() or 1))


def _assembled(units: Sequence[Unit], outcomes: dict[str, Outcome]) -> tuple[list[Sample], list[Dropped]]:
    """Samples and dropped ones in the order of the source, whatever order they came out in."""
    samples: dict[str, Sample] = {}
    dropped: list[Dropped] = []
    for unit in units:
        outcome = outcomes[unit.name]
        dropped += outcome.dropped
        for sample in outcome.samples:
            if sample.id in samples:
                raise UserError(f"two clips have the id {sample.id}, one of them from {unit.name}; give its line another id")
            samples[sample.id] = sample
    return list(samples.values()), dropped


def _write(folder: Path, samples: Sequence[Sample], dropped: Sequence[Dropped]) -> None:
    lines = "".join(json.dumps(one.as_json(), ensure_ascii=False) + "\n" for one in dropped)
    try:
        with atomic(folder / "dropped.jsonl") as partial:
            partial.write_text(lines, "utf-8")
        write(folder / "manifest.jsonl", samples)
    except OSError as error:
        raise UserError(f"{folder} can't be written to ({error.strerror}); make room and give the same command again") from error


def _tell(folder: Path, samples: Sequence[Sample], dropped: Sequence[Dropped], notes: Sequence[str], seconds: float) -> None:
    buckets = Counter(f"{one.width}x{one.height}x{one.frames}" for one in samples)
    hours = sum(one.frames / one.fps for one in samples) / 3600
    print(f"{len(samples)} clips, {hours:.2f} hours, in {seconds:.0f} s: {folder / 'manifest.jsonl'}")
    for bucket, count in sorted(buckets.items()):
        print(f"  {bucket}: {count}")
    if notes:
        print(f"{len(notes)} files are not what they say:")
        for note in notes[:SHOWN]:
            print(f"  {note}")
    if dropped:
        print(f"{len(dropped)} dropped, listed in {folder / 'dropped.jsonl'}:")
        for reason, count in Counter(one.reason for one in dropped).most_common():
            example = next(one for one in dropped if one.reason == reason)
            print(f"  {count} {reason}: {REASONS[reason]} (such as {example.source}: {example.detail[:160]})")
    if not samples:
        print("no clip came out: look at the reasons above")

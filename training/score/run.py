"""`python -m training score CONFIG`: grades for synthesized clips, `<out>/scores/manifest.jsonl`.

Every finished sample is a line of `journal.jsonl` and every answer of a service a file in `answers`: a run that was stopped,
in whatever way, goes on from there and ends with the same manifest. A clip that cannot be read or graded is left out and
listed in `dropped.jsonl` with its reason; the next run tries it again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import cv2
from tqdm import tqdm

from dreamactor_core.text.ask import Asker
from dreamactor_core.text.cache import AnswerCache, fingerprint
from dreamactor_core.text.errors import BadAnswerError, RefusedError, TextError
from dreamactor_core.text.transport import patience
from headless.atomic import atomic
from training import config as configs
from training import manifest
from training.errors import UserError
from training.journal import Journal
from training.manifest import Sample
from training.score.estimator import load_estimator
from training.score.grades import Grader, Prompts
from training.score.material import Material
from training.score.measures import MEASURES

Scores = dict[str, float]
_PATIENCE = 0.2  # seconds between looks at whether Ctrl-C was pressed
_KEPT = "What is graded so far is kept; the same command goes on from there"
_OF_ONE_CLIP = (UserError, BadAnswerError, RefusedError)


class Stopped(Exception):
    """The run ends, for a reason that another thread knows."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of this verb."""
    parser.add_argument("config", type=Path, help="YAML of the run")


def main(options: argparse.Namespace) -> int | None:
    """Score all samples. Raises UserError: a wrong input, or a service that is away."""
    run = configs.load(options.config)
    source = run.score.manifest or run.out / "synthetic" / "manifest.jsonl"
    samples = manifest.read(source)
    wrong = [sample.id for sample in samples if sample.kind != "e2e"]
    if wrong:
        raise UserError(f"{source}: {len(wrong)} samples are not of kind e2e ({', '.join(wrong[:5])}), expected synthesized pairs")
    if not samples:
        raise UserError(f"{source} is empty, expected synthesized pairs; `python -m training synthesize` makes them")
    folder = run.out / "scores"
    stop = threading.Event()
    scorer = Scorer(run, folder, stop)
    configs.save(run, folder)
    scored, dropped = score_all(samples, scorer, Journal(folder / "journal.jsonl"), workers_of(run.score), stop)
    manifest.write(folder / "manifest.jsonl", scored)
    with atomic(folder / "dropped.jsonl") as partial:
        lines = (json.dumps({"id": name, "reason": reason}, ensure_ascii=False) for name, reason in sorted(dropped.items()))
        partial.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    print(summary(scored, dropped, scorer.names, folder))
    return 1 if not scored else 0


def workers_of(settings: configs.Score) -> int:
    """Samples that are looked at at once."""
    return settings.workers or os.cpu_count() or 1


class Scorer:
    """Makes the scores of one sample.

    Raises:
        UserError: service, questions or estimator are not what they should be.
    """

    def __init__(self, run: configs.Config, folder: Path, stop: threading.Event) -> None:
        settings = run.score
        self.dimensions = settings.dimensions if settings.service != "none" else ()
        self.measures = [MEASURES[name] for name in dict.fromkeys(settings.measures)]
        self.names = [*self.dimensions, *(measure.name for measure in self.measures)]
        self.extract = load_estimator(run) if "motion" in settings.measures else None
        self._grader: Grader | None = None
        if self.dimensions:
            self._grader = _grader(settings, folder, stop)
        made_by = ["\0".join(self._grader.identity(name)) for name in self.dimensions] if self._grader else []
        estimator = [run.score.pose_model] if self.extract else []
        self._how = fingerprint([*made_by, *estimator, *(f"{one.name} {one.version}" for one in self.measures)])

    def key(self, material: Material) -> str:
        """Name of a sample's scores: its files, and how they are scored."""
        return fingerprint([self._how, material.content])

    def __call__(self, material: Material) -> Scores:
        """Scores by name; a measure that lacks what it needs is not among them."""
        scores: Scores = {}
        for measure in self.measures:  # first: what is wrong with a clip is seen before anything is paid for
            value = measure(material.pair)
            if value is not None:
                scores[measure.name] = round(float(value), 6)
        for dimension in self.dimensions:
            assert self._grader is not None
            scores[dimension] = float(self._grader.grade(dimension, material.graded, material.shown))
        return {name: scores[name] for name in self.names if name in scores}


def _grader(settings: configs.Score, folder: Path, stop: threading.Event) -> Grader:
    def poll() -> None:
        if stop.is_set():
            raise Stopped

    try:
        asker = Asker(settings.service, settings.model, settings.base_url, settings.key_file, patience(settings.timeout), poll)
        asker.address  # noqa: B018 - raises for a wrong one before any work
    except TextError as error:
        raise UserError(str(error)) from error
    return Grader(asker, Prompts(settings.dimensions, settings.prompts), AnswerCache(folder / "answers"))


def score_all(
    samples: list[Sample], scorer: Scorer, journal: Journal, workers: int, stop: threading.Event
) -> tuple[list[Sample], dict[str, str]]:
    """The samples with their scores, in their order, and the reasons for those that have none.

    Raises:
        UserError: a service is away, or the disk is full. What was done until then is kept.
    """
    known = {entry["id"]: entry for entry in journal.news() if {"id", "key", "scores"} <= entry.keys()}
    found: dict[str, Scores] = {}
    dropped: dict[str, str] = {}

    def one(sample: Sample) -> Scores:
        if stop.is_set():
            raise Stopped
        material = Material(sample, scorer.extract)
        key = scorer.key(material)
        entry = known.get(sample.id)
        if entry is not None and entry["key"] == key:
            return entry["scores"]
        try:
            scores = scorer(material)
            journal.append({"id": sample.id, "key": key, "scores": scores})
            return scores
        except cv2.error as error:  # a clip of a size or kind that nothing can be measured in
            raise UserError(f"{sample.driving_video} can't be measured: {error.err}") from error
        except _OF_ONE_CLIP:
            raise
        except Exception:
            stop.set()  # at once: the other threads must not ask a service that is away for more
            raise

    _each(samples, one, workers, stop, found, dropped)
    graded = [sample for sample in samples if sample.id in found]
    return [one.model_copy(update={"scores": {**one.scores, **found[one.id]}}) for one in graded], dropped


@contextmanager
def _noticing() -> Iterator[threading.Event]:
    """Set once Ctrl-C was pressed. As an exception it could come while `wait` holds the locks of what runs, which would then
    never end."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _each(
    samples: list[Sample],
    work: Callable[[Sample], Scores],
    workers: int,
    stop: threading.Event,
    found: dict[str, Scores],
    dropped: dict[str, str],
) -> None:
    """Do all samples, a few at a time, so that a list of any length is never all in the pool."""
    waiting = iter(samples)
    running: dict[Future[Scores], Sample] = {}
    bar = tqdm(total=len(samples), unit="clip", desc="score", disable=None)
    with _noticing() as pressed, ThreadPoolExecutor(workers) as pool, bar:
        try:
            while True:
                while len(running) < 2 * workers and (sample := next(waiting, None)) is not None:
                    running[pool.submit(work, sample)] = sample
                if not running:
                    return
                done = wait(running, _PATIENCE, FIRST_COMPLETED).done
                if pressed.is_set():
                    raise KeyboardInterrupt
                for future in done:
                    sample = running.pop(future)
                    _take(future, sample.id, found, dropped)
                    bar.update()
        except BaseException:
            stop.set()
            for future in running:
                future.cancel()
            raise


def _take(future: Future[Scores], name: str, found: dict[str, Scores], dropped: dict[str, str]) -> None:
    try:
        found[name] = future.result()
    except Stopped:
        pass  # because of another one, which tells why
    except _OF_ONE_CLIP as error:
        dropped[name] = str(error)
    except TextError as error:
        raise UserError(f"{name}: {error}. {_KEPT}") from error
    except OSError as error:
        raise UserError(
            f"{name} can't be scored ({error}); make room, or see that the run's files may be read and written to. {_KEPT}"
        ) from error


def summary(scored: list[Sample], dropped: dict[str, str], names: list[str], folder: Path) -> str:
    """What there is to say at the end: means, what is missing and why, what was left out."""
    lines = [f"{len(scored)} clips scored, in {folder / 'manifest.jsonl'}"]
    for name in names:
        values = sorted(sample.scores[name] for sample in scored if name in sample.scores)
        if values:
            lines.append(f"  {name:24} mean {sum(values) / len(values):.3g}  from {values[0]:.3g} to {values[-1]:.3g}")
        if len(values) < len(scored):
            lacking = MEASURES_NEED.get(name, "what it needs")
            lines.append(f"  {name:24} not measured on {len(scored) - len(values)} clips, which lack {lacking}")
    if dropped:
        lines.append(f"{len(dropped)} clips left out, listed in {folder / 'dropped.jsonl'}:")
        lines += [f"  {count} x {reason}" for reason, count in Counter(reason[:200] for reason in dropped.values()).most_common(5)]
    return "\n".join(lines)


MEASURES_NEED = {
    "identity": "driving_reference, the image of the character they were made from",
    "motion": "poses of the source",
    "motion_flow": "a second frame",
    "flicker": "a third frame",
}

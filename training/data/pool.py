"""Units made in several processes. A process that ends without a word costs the unit that it was at, and no other."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

import cv2
import torch

from training.data.dropping import Drop
from training.data.unit import Job, Outcome, Unit
from training.processes import end_with_parent

_AHEAD = 3  # units that wait for each process
_job: Job | None = None


def _begin(job: Job, alone: bool) -> None:
    """In each process: one thread unless it is alone, and an end when the one that started it ends, however it ends."""
    global _job
    _job = job
    if not alone:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
    end_with_parent()


def _make(unit: Unit) -> Outcome:
    assert _job is not None
    return unit.make(_job)


def run(units: Sequence[Unit], job: Job, workers: int) -> Iterator[tuple[Unit, Outcome]]:
    """Make units, each as it comes out, in as many processes; with 0 workers, in this one.

    Raises:
        UserError: one of them said that nothing else can be made either; the others are stopped.
    """
    if not workers:
        for unit in units:
            yield unit, unit.make(job)
        return
    left = {unit.name: unit for unit in units}
    while left:
        broken: list[Unit] = []
        for unit, outcome in _round(list(left.values()), job, workers):
            if outcome is None:
                broken.append(unit)
            else:
                yield unit, outcome
            del left[unit.name]
        for unit in broken:  # alone, to see which of them it was
            ((_, outcome),) = _round([unit], job, 1)
            drop = Drop("crashed", "its process ended twice without a word: a decoder that fails on it, or too little memory")
            yield unit, outcome or Outcome(dropped=[drop.of(unit.name)], unsure=True)


def _round(units: Sequence[Unit], job: Job, workers: int) -> Iterator[tuple[Unit, Outcome | None]]:
    """Units until a process breaks: then None for those that were under way, and no word of the rest."""
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(workers, len(units)), context, _begin, (job, workers == 1))
    waiting, running = iter(units), dict[Future[Outcome], Unit]()
    done = False
    try:
        while True:
            try:
                while len(running) < workers * _AHEAD and (unit := next(waiting, None)) is not None:
                    running[pool.submit(_make, unit)] = unit
                if not running:
                    done = True
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    yield running.pop(future), outcome
            except BrokenProcessPool:
                for future, unit in running.items():
                    came_out = future.done() and future.exception() is None
                    yield unit, future.result() if came_out else None
                return
    finally:
        if not done:
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
        pool.shutdown(wait=done, cancel_futures=True)

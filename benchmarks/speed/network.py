"""What a training step costs beside the network's own forward and backward pass."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.speed.clocks import spread
from dreamactor_core.motion_context import CONTEXTS, JOINT
from training import config
from training.__main__ import main
from training.train.data import Chance
from training.train.loop import Trainer
from training.train.objective import losses

CLIPS, ROUNDS = 24, 5


def _trainer(folder: Path, context: str) -> Trainer:
    """A run on a few drawn clips."""
    run = folder / f"{context}.yaml"
    settings: dict[str, Any] = {"preset": "marionette", "out": str(folder / context), "motion_context": context}
    settings["data"] = {"world": {"count": CLIPS}}
    settings["cache"] = {"variants": 1, "workers": 1, "validation_share": 0.2}
    settings["train"] = {"compile": False, "sample_sheets": 0, "validate_on": 0, "schedule": "constant"}
    run.write_text(yaml.safe_dump(settings), "utf-8")
    for verb in ("data", "cache"):
        if main([verb, str(run)]):
            raise RuntimeError(f"`python -m training {verb}` failed for motion context {context}; what it said is above")
    return Trainer(config.load(run))


def _bare(trainer: Trainer) -> Callable[[], None]:
    """The network's passes on a batch that is there already."""
    train = trainer.settings.train
    numbers = trainer.order.numbers(0)
    chances = [Chance(train.seed, 0, place) for place in range(len(numbers))]
    batch, sigma, noise = (x.to(trainer.accelerator.device) for x in trainer.batches.batch(numbers, chances))

    def run() -> None:
        found = losses(trainer.backbone, trainer.model, trainer.batches.layout, batch, sigma, noise)
        found.mean().backward()
        trainer.optimizer.zero_grad()

    return run


def _now() -> float:
    """When all that the device was given is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure() -> dict[str, Any]:
    """A row `train`: `ratios` of each context's training step to the paper's, and `bare`, of a step to the network's own passes;
    neither is compiled."""
    to_joint: dict[str, list[float]] = {name: [] for name in CONTEXTS}
    to_bare: dict[str, list[float]] = {name: [] for name in CONTEXTS}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: _trainer(Path(folder), name) for name in CONTEXTS}
        bare = {name: _bare(trainer) for name, trainer in trainers.items()}
        for round_ in range(ROUNDS + 1):  # the first does not count
            seconds = {}
            for name, trainer in trainers.items():
                started = _now()
                trainer.step(round_)
                between = _now()
                bare[name]()
                seconds[name] = between - started, _now() - between
            if round_:
                for name, (step, passes) in seconds.items():
                    to_joint[name].append(step / seconds[JOINT.name][0])
                    to_bare[name].append(step / passes)
    rows = {"ratios": to_joint, "bare": to_bare}
    return {"what": "train"} | {key: {name: spread(values) for name, values in row.items()} for key, row in rows.items()}

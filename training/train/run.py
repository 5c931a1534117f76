"""The verb `train`: a LoRA from a cache.

    python -m training train run.yaml
    accelerate launch --config_file training/profiles/ddp.yaml -m training train run.yaml

Called again it goes on where it was stopped. `train.init_lora` is something else: a new run that begins with another's weights.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from training import config
from training.config import Config
from training.train.loop import LOG, LORA, Trainer, folder_of

SUMMARY = "summary.txt"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="the run's YAML file")


def summary(settings: Config, folder: Path, seconds: float, device: str, processes: int) -> str:
    """What a run came to, in plain text."""
    lines = [json.loads(line) for line in (folder / LOG).read_text("utf-8").splitlines()]
    losses = [line for line in lines if "loss" in line]
    checks = [line for line in lines if "validation_loss" in line]
    out = [
        f"{settings.variant} LoRA for {settings.backbone.name}, rank {settings.train.rank}, {settings.train.steps} steps of "
        f"{settings.train.batch} samples, seed {settings.train.seed}",
        f"device: {device}, {processes} process{'es' * (processes > 1)}; this call took {seconds / 60:.1f} minutes",
    ]
    if losses:
        out.append(f"loss: {losses[0]['loss']:.4f} at step {losses[0]['step']}, {losses[-1]['loss']:.4f} at the end")
        out.append(f"seconds a step: {losses[-1]['s_per_step']:.3f}, waits for other work on the machine included")
    for line in checks[-1:]:
        out.append(
            f"held-out loss at step {line['step']}: {line['validation_loss']:.4f}, and {line['with_another_driver']:.4f} with "
            f"another clip's driver: the same would mean that the driver is not followed"
        )
    out.append(f"LoRA: {folder / LORA}; `python -m training export` makes the file for the nodes")
    return "\n".join(out) + "\n"


def main(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    started = time.time()
    trainer = Trainer(settings)
    if trainer.main:
        config.save(settings, trainer.folder)
    trainer.run()
    if trainer.main:
        accelerator = trainer.accelerator
        text = summary(settings, folder_of(settings), time.time() - started, str(accelerator.device), accelerator.num_processes)
        (trainer.folder / SUMMARY).write_text(text, "utf-8")
        print(text, end="")
    return 0

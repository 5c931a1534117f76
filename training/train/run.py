"""The verb `train`: a LoRA from a cache.

    python -m training train run.yaml
    accelerate launch --config_file training/profiles/ddp.yaml -m training train run.yaml

Called again it goes on where it was stopped. `train.init_lora` is something else: a new run that begins with another's weights.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import ExitStack
from pathlib import Path

from training import config, devices
from training.config import Config
from training.errors import UserError
from training.processes import alone
from training.train import parallel
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
        held_out = f"held-out loss at step {line['step']}: {line['validation_loss']:.4f}"
        if "with_another_driver" in line:
            out.append(
                f"{held_out}, and {line['with_another_driver']:.4f} with another clip's driver: the same would mean that the "
                f"driver is not followed"
            )
        else:
            out.append(f"{held_out}; there is no other clip of the same size and length whose driver could be tried")
    out.append(f"LoRA: {folder / LORA}; `python -m training export` makes the file for the nodes")
    return "\n".join(out) + "\n"


def main(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    train(settings)
    parallel.ended(settings.train.sharding)
    return 0


def train(settings: Config) -> None:
    """All of a run. Raises UserError for settings that can't be trained here."""
    started, accelerator, folder = time.time(), parallel.started(settings), folder_of(settings)
    with ExitStack() as held:
        parallel.from_main(accelerator, lambda: held.enter_context(alone(folder, "train")))  # for all processes
        if accelerator.is_main_process:
            processes = f"{accelerator.num_processes} process{'es' * (accelerator.num_processes > 1)}"
            print(f"train: on {devices.in_words(accelerator.device)}, {processes}", flush=True)
        trainer = Trainer(settings)
        if trainer.main:
            held_out = len(trainer.held_out.cache) if trainer.held_out else 0
            print(f"train: on {len(trainer.cache)} samples, {held_out} held out", flush=True)
            config.save(settings, folder)
        trainer.run()
        seconds = time.time() - started

        def tell() -> None:
            text = summary(settings, folder, seconds, str(accelerator.device), accelerator.num_processes)
            try:
                (folder / SUMMARY).write_text(text, "utf-8")
            except OSError as error:
                raise UserError(f"{folder / SUMMARY} can't be written ({error}); the training is finished and saved") from error
            print(text, end="", flush=True)

        parallel.from_main(accelerator, tell)

"""The training loop: one process or many, resumable to the bit."""

from __future__ import annotations

import json
import math
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from tqdm import tqdm

from dreamactor_core.contract import Contract
from dreamactor_core.motion_context import JOINT, get_context
from headless.atomic import atomic
from training import backbones, devices
from training.checkpoint import TrainState, step_of, whole
from training.config import Config
from training.errors import UserError
from training.latents.several import opened
from training.lora_file import add_lora, load_lora, lora_state, save_lora
from training.optimizer import muon_dtype
from training.plan import costs
from training.plan.network import config_of, network
from training.plan.report import size
from training.train import optimizers, parallel
from training.train.chosen import chosen
from training.train.contracts import check_cache, check_parent, contract_of
from training.train.data import Batches, Chance, Order
from training.train.objective import losses
from training.train.sheets import Sheets
from training.train.validation import validate

STATE, LORA, LOG = "state.safetensors", "lora.safetensors", "log.jsonl"
_LOG_EVERY = 25


def folder_of(settings: Config) -> Path:
    """Where a run's state, LoRA, log and sheets are."""
    return settings.out / "train"


class Trainer:
    """A run, from its settings.

    Raises UserError, before anything is computed, when something is missing, does not fit, or is of another run.
    """

    def __init__(self, settings: Config) -> None:
        train = settings.train
        self.settings, self.folder = settings, folder_of(settings)
        self.accelerator = parallel.started(settings)
        self.main = self.accelerator.is_main_process
        self.backbone = backbones.get(settings.backbone)
        devices.check(self.backbone, self.accelerator.device)
        if train.compile:
            devices.check_compiler(self.accelerator.device, "train.compile: true", "train.compile: false")
        if train.optimizer == "adamw8bit":
            devices.check_compiler(self.accelerator.device, "train.optimizer: adamw8bit", "train.optimizer: adamw")
        parallel.from_main(self.accelerator, self._check_room)
        self.cache, held_out = opened(train.cache or [settings.out / "cache"])
        # what `train.only` leaves out too: a LoRA that this run begins with may have been trained on it
        cached = {place.id for place in self.cache.places} | {place.source for place in self.cache.places if place.source}
        if train.only is not None:
            self.cache = chosen(self.cache, held_out, train.only)
        self.contract = parallel.from_main(self.accelerator, self._contract)  # which reads all weights, to know them by their hash
        if train.init_lora is not None:
            check_parent(train.init_lora, self.contract, train.rank)
        self.sheets: Sheets | None = None
        if train.sample_sheets:  # after the cache was looked at: what is to be done first is said first
            parallel.from_main(self.accelerator, lambda: self._make_sheets(cached))
        model = self.backbone.load_transformer()
        self.backbone.use_context(model, get_context(settings.motion_context))
        keypoints = self.cache.header("variants") == "0"
        encoders = self.backbone.load_encoders(self.accelerator.device, only_vae=True) if keypoints else None
        torch.manual_seed(train.seed)  # of the LoRA's first half
        add_lora(model, train.rank, self.backbone.family)
        if train.init_lora is not None:
            load_lora(model, train.init_lora, self.backbone.rename)
        if train.checkpointing:
            model.enable_gradient_checkpointing()
        model.train()
        self.batches = Batches(self.cache, self.backbone, settings, encoders)
        self.held_out = Batches(held_out, self.backbone, settings, encoders) if len(held_out) else None
        self.order = Order(self.cache, train.batch, train.seed)
        self.model = parallel.prepare(self.accelerator, model, self._blocks(model), settings)
        self.optimizer = optimizers.make(train, list(self._trained().values()))
        # names of peft have dots, which a ParameterDict does not take
        self.trained = torch.nn.ParameterDict({key.replace(".", "/"): value for key, value in self._trained().items()})
        averaged = {key: value.detach().clone() for key, value in self.trained.items()} if train.ema else {}
        self.ema = averaged
        self.state = TrainState(
            {"lora": self.trained}, {"adapter": self.optimizer}, {"lora": averaged} if averaged else {}, self._run(),
            train.steps if train.schedule == "trapezoid" else None,
        )  # fmt: skip
        try:
            self.first = self.state.load(self.folder / STATE) if (self.folder / STATE).exists() else 0
        except (ValueError, SafetensorError) as error:
            raise UserError(str(error)) from error
        if train.compile:
            for block in self._blocks(self.accelerator.unwrap_model(self.model)):
                block.compile()

    def _check_room(self) -> None:
        """Raises UserError when the disk lacks room for what is still to be written: the first checkpoint may come after hours."""
        train, state = self.settings.train, self.folder / STATE
        try:
            if state.exists() and step_of(state) >= train.steps:
                return
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{state} can't be read ({error}), expected the state of this run; delete it to start anew") from error
        net = network(self.settings.backbone.name, config_of(self.settings.backbone)[0])
        saved = costs.saved(costs.lora_parameters(net, train.rank), train)
        # what is there gives way to what is written; LoRA files beyond those that are kept do so late, and make no room for it
        numbered = self._numbered()[-saved.kept :]
        there = sum(path.stat().st_size for path in (state, self.folder / LORA, *numbered) if path.exists())
        place = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.exists())
        free, needed = shutil.disk_usage(place).free, saved.peak - there
        if free < needed:
            raise UserError(
                f"the disk of {self.folder} has {size(free)} left, expected {size(needed)} for what is still to be written: "
                f"{saved.kept} + 1 LoRA files of {size(saved.lora)} and a state of {size(saved.state)}, each beside the one whose "
                f"place it takes; make room, set a smaller train.keep, or give an `out` on another disk"
            )

    def _numbered(self) -> list[Path]:
        """The LoRA files of checkpoints, the earliest first."""
        return sorted(self.folder.glob("lora_[0-9]*.safetensors"))

    def _contract(self) -> Contract:
        check_cache(self.settings, self.backbone, self.cache, "train")
        return contract_of(self.settings, self.backbone, self.cache)

    def _make_sheets(self, cached: set[str]) -> None:
        self.sheets = Sheets(self.settings, self.folder, cached)

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        return lora_state(self.accelerator.unwrap_model(self.model))

    @staticmethod
    def _blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
        return list(getattr(model, "blocks", None) or model.transformer_blocks)

    def _run(self) -> dict[str, str | int | float]:
        """What has to be the same for a run to be gone on with; its length may change while its rate is constant."""
        train = self.settings.train
        free = {"steps", "cache", "only", "init_lora", "accumulate", "checkpointing", "sharding", "compile", "every", "keep"}
        # what is looked at changes nothing
        free |= {"tensorboard", "validate_on", "sample_sheets", "sample_every", "sample_workflow"}
        if train.schedule == "cosine":
            free -= {"steps"}
        about = {key: json.dumps(value) for key, value in train.model_dump(mode="json").items() if key not in free}
        contract, settings = self.contract, self.settings
        if self.cache.header("variants") == "0":  # else the cache has it, of which there is a hash
            about["augment"] = json.dumps(settings.cache.augment.model_dump(), sort_keys=True)
        if train.optimizer == "muon":
            about["muon"] = muon_dtype(self.accelerator.device)
        return about | {
            "backbone_sha256": contract.backbone_sha256, "parent_sha256": contract.parent_sha256,
            "base": settings.backbone.base, "dtype": settings.backbone.dtype, "frames": contract.frames, "sizes": contract.sizes,
            "dataset_sha256": contract.dataset_sha256, "variant": contract.variant, "layout": contract.layout,
            **({} if contract.motion_context == JOINT.name else {"motion_context": contract.motion_context}),
        }  # fmt: skip

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """With the averaged weights in the network's place."""
        if not self.ema:
            yield
            return
        live = {key: value.detach().clone() for key, value in self.trained.items()}
        try:
            with torch.no_grad():
                for key, value in self.trained.items():
                    value.copy_(self.ema[key])
            yield
        finally:
            with torch.no_grad():
                for key, value in self.trained.items():
                    value.copy_(live[key])

    def step(self, step: int) -> float:
        """One optimizer step; returns the mean loss of the global batch as far as this process knows it."""
        train, processes, rank = self.settings.train, self.accelerator.num_processes, self.accelerator.process_index
        rate = optimizers.rate(train, step)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        numbers = self.order.numbers(step)
        mine = [place for place in range(train.batch) if place % processes == rank]
        size, total = len(mine) // train.accumulate, 0.0
        for micro in range(train.accumulate):
            places = mine[micro * size : (micro + 1) * size]
            chances = [Chance(train.seed, step, place) for place in places]
            batch, sigma, noise = self.batches.batch([numbers[place] for place in places], chances)
            device = self.accelerator.device
            last = micro + 1 == train.accumulate
            with parallel.gathering(self.accelerator, self.model, last):
                found = losses(
                    self.backbone, self.model, self.batches.layout, batch.to(device), sigma.to(device), noise.to(device),
                    train.loss, train.weighting,
                )  # fmt: skip
                # gradients are averaged over processes: what each adds is its part of the global mean times their number
                self.accelerator.backward(found.sum() * processes / train.batch)
            total += float(found.detach().sum())
        torch.nn.utils.clip_grad_norm_(list(self.trained.values()), train.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema:
            decay = min(train.ema, (step + 1) / (step + 10))
            with torch.no_grad():
                for key, value in self.trained.items():
                    self.ema[key].lerp_(value, 1 - decay)
        return total * processes / train.batch

    def save(self, step: int) -> None:
        """Write LoRA and state, the state last: what it speaks of is there. Earlier LoRAs stay as far as `keep` says.

        Raises UserError when there is no room.
        """
        try:
            self._write(step)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{self.folder} can't be written to ({error}); make room, and the same command goes on") from error

    def _write(self, step: int) -> None:
        chosen = self.ema or self.trained
        tensors = {key.replace("/", "."): whole(value.detach()).cpu() for key, value in chosen.items()}
        if self.main:
            numbered = self.folder / f"lora_{step:06d}.safetensors"
            for path in (numbered, self.folder / LORA):
                save_lora(tensors, path, self.contract, self.backbone.rename, torch.float32)
            for old in self._numbered()[: -self.settings.train.keep]:
                old.unlink()
        self.state.save(self.folder / STATE, step, self.main)

    def run(self) -> None:
        """Train from where the state is to the end."""
        train, accelerator = self.settings.train, self.accelerator
        log = Log(self.folder, train.tensorboard, self.first) if self.main else None
        started, recent = time.time(), []
        often = 0.1 if sys.stderr.isatty() else 60.0  # seconds; a log file need not hold every step
        steps = range(self.first, train.steps)
        progress = tqdm(steps, initial=self.first, total=train.steps, disable=not self.main, unit="step", mininterval=often)
        with nullcontext() if log is None else log, _interrupts(accelerator.num_processes == 1) as interrupted:
            due = self.first % train.every == 0 or self.first == train.steps
            if self.first and due and not self._was_looked_at(log):  # it was ended between the checkpoint and this
                self._look(self.first, log)
            for step in progress:
                recent.append(self.step(step))
                done = step + 1
                if done % _LOG_EVERY == 0 or done == train.steps:
                    mean = accelerator.reduce(torch.tensor(recent, device=accelerator.device).mean(), "mean")
                    recent = []
                    if log is not None:
                        seconds = (time.time() - started) / (done - self.first)
                        log.write(done, loss=float(mean), lr=optimizers.rate(train, step), s_per_step=seconds)
                        progress.set_postfix(loss=f"{float(mean):.4f}")
                if done % train.every == 0 or done == train.steps:
                    self.save(done)
                    self._look(done, log)
                if interrupted.is_set():
                    self.save(done)
                    raise KeyboardInterrupt
        accelerator.wait_for_everyone()

    def _was_looked_at(self, log: Log | None) -> bool:
        """Whether the log has the checkpoint's validation, or none is asked for. Every process gets the main one's answer."""
        if self.held_out is None or not self.settings.train.validate_on:
            return True
        return parallel.from_main(self.accelerator, lambda: log is not None and self.first in log.validated)

    def _look(self, step: int, log: Log | None) -> None:
        """Validation and sample sheet. A sheet that can't be made is told of and left out: it is for people."""
        train = self.settings.train
        if self.held_out is not None and train.validate_on:
            count = len(self.held_out.cache)
            numbers = sorted({int(k) for k in np.linspace(0, count - 1, min(train.validate_on, count)).round()})  # of every bucket
            micro = max(2, train.batch // (self.accelerator.num_processes * train.accumulate))
            with self.averaged():
                right, other = validate(self.backbone, self.model, self.held_out, numbers, micro, self.accelerator)
            if log is not None:
                log.write(step, validation_loss=right, **({} if other is None else {"with_another_driver": other}))
        if step % train.sample_every == 0 or step == train.steps:
            if self.sheets is not None:
                try:
                    self.sheets.make(self.folder / LORA, self.folder / f"samples_{step:06d}.png")
                except Exception as error:  # of a server, a workflow, a disk: none of them is worth hours of training
                    reason = f"{type(error).__name__}: {error}"
                    tqdm.write(f"warning: there is no sample sheet of step {step} ({reason})", sys.stderr)
            self.accelerator.wait_for_everyone()


@contextmanager
def _interrupts(alone: bool) -> Iterator[threading.Event]:
    """Within it the first Ctrl-C sets the event, so that the step is ended and saved; a second one is as always.

    With several processes it is as always from the first one on: they are not all interrupted within the same step.
    """
    event = threading.Event()
    if not alone or threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        tqdm.write("stopping after this step, which is saved; once more, and what is since the last checkpoint is lost", sys.stderr)
        event.set()

    signal.signal(signal.SIGINT, ask)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


class Log:
    """`log.jsonl`, and TensorBoard's files beside it."""

    def __init__(self, folder: Path, tensorboard: bool, first: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.writer, self.validated = folder / LOG, None, set[int]()
        if self.path.exists():  # what was logged after the state that is gone on from is logged again
            lines = [(line, read) for line in self.path.read_text("utf-8").splitlines() if (read := _read(line))["step"] <= first]
            with atomic(self.path) as partial:
                partial.write_text("".join(f"{line}\n" for line, _ in lines), "utf-8")
            self.validated = {read["step"] for _, read in lines if "validation_loss" in read}
        self._file = self.path.open("a", encoding="utf-8")
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # what is at this step or later is hidden: the state's own step stays, as in the log
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)

    def write(self, step: int, **values: float) -> None:
        """One line."""
        line: dict[str, Any] = {"step": step, **{key: float(f"{value:.6g}") for key, value in values.items()}}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if "validation_loss" in values:
            tqdm.write(json.dumps(line))
        if self.writer is not None:
            for key, value in values.items():
                self.writer.add_scalar(key, value, step)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self.writer is not None:
            self.writer.close()


def _read(line: str) -> dict[str, Any]:
    """A line of the log; one that was cut short is of no step."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return {"step": math.inf}

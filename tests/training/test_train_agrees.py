"""What must agree agrees: ways to the same step, processes, and what was killed and went on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from short_runs import agree, by_step, by_two, conditions_are_those_of_the_cache, furthest, log_of, run_file, trained

from training import config
from training.__main__ import main
from training.checkpoint import TrainState
from training.hashing import sha256
from training.train import contracts, parallel
from training.train.loop import Trainer


def same(out: Path, other: Path) -> None:
    """Two runs agree, and in every loss of their logs to 1e-5."""
    agree(out, other)
    for line, expected in zip(log_of(out), log_of(other), strict=True):
        assert line.keys() == expected.keys() and {"loss", "validation_loss"} & line.keys()
        for key in line.keys() - {"s_per_step"}:
            assert line[key] == pytest.approx(expected[key], abs=1e-5), key


@pytest.mark.parametrize("change", [{"accumulate": 4}, {"accumulate": 2}, {"checkpointing": True}], ids=str)
def test_what_changes_nothing_changes_nothing(change: dict, world: Path, four: Path, tmp_path: Path) -> None:
    trained(world, tmp_path, batch=4, **change)
    same(tmp_path, four)


def test_skeletons_made_in_training_are_those_of_the_cache(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conditions_are_those_of_the_cache(world, tmp_path, monkeypatch)


@pytest.mark.parametrize("sharding", ["none", "fsdp2"])
def test_two_processes_are_one(sharding: str, world: Path, four: Path, tmp_path: Path) -> None:
    """The same global batch, each process's half of it in two micro-batches; and two processes go on from where they stopped."""
    stops = (2,) if sharding == "none" else (1, 2)
    for steps in stops:
        done = by_two(run_file(world, tmp_path, batch=4, accumulate=2, sharding=sharding, steps=steps))
        assert done.returncode == 0, done.stderr[-3000:]
        assert "2 processes" in done.stdout
    agree(tmp_path, four)
    one, two = (by_step(out, "validation_loss") for out in (four, tmp_path))
    assert one == pytest.approx(two, abs=1e-4)
    each, both = by_step(tmp_path, "loss"), by_step(four, "loss")
    assert tuple(each) == stops, "of one call there is the mean of both steps"
    assert sum(each.values()) / len(each) == pytest.approx(both[2], abs=1e-4)


def begin(rank: int, run: str, port: int) -> None:
    """One of two processes: makes a trainer and looks at it."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    real, read = contracts.sha256, []
    contracts.sha256 = lambda path: read.append(path) or real(path)
    trainer = Trainer(config.load(Path(run)))
    assert len(read) == (rank == 0), "only the main process reads the weights for their hash"
    assert trainer.contract.backbone_sha256 == real(trainer.backbone.weights()["transformer"][0])
    patience = torch.distributed.group.WORLD._get_backend(torch.device("cpu")).options._timeout
    assert patience.total_seconds() >= 3600, "the others wait while the main process makes a sheet"
    del trainer
    parallel.ended()


def test_two_processes_begin(world: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(begin, (str(run_file(world, tmp_path)), port), nprocs=2)


def test_killed_and_resumed_it_ends_with_the_same_bits(world: Path, tmp_path: Path) -> None:
    whole = run_file(world, tmp_path / "whole", steps=4, ema=0.9)
    assert main(["train", str(whole)]) == 0
    parts = run_file(world, tmp_path / "parts", steps=4, ema=0.9)
    command = [sys.executable, "-m", "training", "train", str(parts)]
    state, killed = tmp_path / "parts" / "train" / "state.safetensors", 0
    before = 0
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 180
        while process.poll() is None and time.monotonic() < deadline:
            if state.exists() and state.stat().st_mtime_ns != before:
                before = state.stat().st_mtime_ns
                break
            time.sleep(0.005)
        killed += process.poll() is None
        process.kill()
        process.wait()
    assert killed == 2
    assert subprocess.run(command, capture_output=True).returncode == 0
    for name in ("lora.safetensors", "state.safetensors"):
        assert sha256(tmp_path / "parts" / "train" / name) == sha256(tmp_path / "whole" / "train" / name)
    steps = [line["step"] for line in log_of(tmp_path / "parts") if "validation_loss" in line]
    assert steps == sorted(set(steps)), "no step is logged twice"


def test_ctrl_c_saves_the_step(world: Path, plain: Path, tmp_path: Path) -> None:
    """Interrupted between two checkpoints, the run goes on from that step and ends with the same weights."""
    settings = config.load(run_file(world, tmp_path, steps=4, every=4))
    trainer, steps = Trainer(settings), []
    whole = trainer.step

    def step(number: int) -> float:
        steps.append(number)
        if number == 1:
            signal.raise_signal(signal.SIGINT)
        return whole(number)

    trainer.step = step
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background have it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps == [0, 1], "the step is ended"
    again = Trainer(settings)
    assert again.first == 2
    again.run()
    other = tmp_path / "other"
    assert furthest(load_file(tmp_path / "train" / "lora.safetensors"), trained(world, other, steps=4, every=4)) == 0


def test_an_optimizer_of_8_bits_goes_on_where_it_was(world: Path, tmp_path: Path) -> None:
    given = {"optimizer": "adamw8bit", "rank": 16}  # of smaller matrices it keeps the state as it is
    torch.compiler.set_stance("force_eager")  # minutes of compiling, which change nothing of this
    try:
        whole = trained(world, tmp_path / "whole", **given)
        trained(world, tmp_path / "parts", steps=1, **given)
        parts = trained(world, tmp_path / "parts", **given)
    finally:
        torch.compiler.set_stance("default")
    assert furthest(whole, parts) == 0 < max(float(value.abs().max()) for key, value in whole.items() if "lora_B" in key)
    state = load_file(tmp_path / "parts" / "train" / "state.safetensors")
    assert torch.uint8 in {value.dtype for key, value in state.items() if key.startswith("optimizer/")}


def test_what_is_cut_off_between_lora_state_and_validation_is_made_up_for(
    world: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up at the last state; then the call is ended before its validation, with half a line in the log."""
    run, real = run_file(world, tmp_path), TrainState.save

    def full(self: TrainState, path: Path, step: int, write: bool = True) -> None:
        if step == 2:
            raise OSError(28, "No space left on device")
        real(self, path, step, write)

    monkeypatch.setattr(TrainState, "save", full)
    assert main(["train", str(run)]) == 1
    monkeypatch.setattr(TrainState, "save", real)
    monkeypatch.setattr(Trainer, "_look", lambda *_: sys.exit(9))
    with pytest.raises(SystemExit):
        main(["train", str(run)])
    monkeypatch.undo()
    with (tmp_path / "train" / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "validation_lo')
    assert main(["train", str(run)]) == 0
    assert furthest(load_file(tmp_path / "train" / "lora.safetensors"), load_file(plain / "train" / "lora.safetensors")) == 0
    assert [line for line in log_of(tmp_path) if "validation_loss" in line] == [
        line for line in log_of(plain) if "validation_loss" in line
    ]

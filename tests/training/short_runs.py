"""Runs of two steps on a few drawn clips, by the command line: what must agree can be set against each other to the last digit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from drawn_clips import write_run
from safetensors.torch import load_file

from training.__main__ import main
from training.train.data import Batches

PLAIN = {"augment": {"normalise": 0, "bones": 0, "other_bodies": 0, "hidden_limbs": 0}}
"""No augmentation."""
TRAIN = {
    "steps": 2, "batch": 2, "rank": 4, "every": 1, "compile": False, "sample_sheets": 0, "validate_on": 2, "optimizer": "adamw",
    "schedule": "constant", "warmup": 0, "lr": 1e-3,
}  # fmt: skip
FLOAT = {"name": "marionette", "dtype": "float32"}


def write_cache(world: Path, name: str, variants: int, more: dict[str, Any] | None = None, **sections: Any) -> None:
    """Run `cache` on the clips in world/clips, a third of them held out, into world/name. `more`: of the section `cache`."""
    (world / name).mkdir()
    cache = {"manifest": str(world / "clips" / "manifest.jsonl"), "validation_share": 0.34, "workers": 1, "variants": variants}
    run = write_run(world / f"{name}.yaml", world / name, cache=cache | PLAIN | (more or {}), backbone=FLOAT, **sections)
    assert main(["cache", str(run)]) == 0


def run_file(
    world: Path, out: Path, cache: str | Sequence[str] = "encoded", sections: dict[str, Any] | None = None, **train: Any
) -> Path:
    """The file of a run on the cache of that name, or on several; `keypoints` has no variants."""
    out.mkdir(exist_ok=True)
    folders = str(world / cache / "cache") if isinstance(cache, str) else [str(world / name / "cache") for name in cache]
    settings = TRAIN | {"cache": folders} | train
    variants = {"variants": int(cache != "keypoints")}
    return write_run(out / "run.yaml", out, train=settings, backbone=FLOAT, cache=PLAIN | variants, **(sections or {}))


def trained(world: Path, out: Path, **given: Any) -> dict[str, torch.Tensor]:
    """The LoRA of a run, which is trained. `given`: as in `run_file`."""
    assert main(["train", str(run_file(world, out, **given))]) == 0
    return load_file(out / "train" / "lora.safetensors")


def by_two(run: Path) -> subprocess.CompletedProcess[str]:
    """`train` in two processes on the CPU, one thread each."""
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "training", "train", str(run)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=400)
    except BaseException:  # one that hangs would keep the processors from all that comes after it
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of two LoRAs of the same layers."""
    assert one.keys() == other.keys()
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def agree(out: Path, other: Path) -> None:
    """Two runs of AdamW computed the same: their first moments to a thousandth of each tensor's largest, their LoRAs to 5e-5.

    The least gradients are rounding, which differs among CPUs, and AdamW divides by their own size: a weight of theirs may go
    another way by two steps of 1e-3. So one weight in a thousand may be off.
    """
    first, second = (load_file(folder / "train" / "state.safetensors") for folder in (other, out))
    moments = [key for key in first if key.endswith("/exp_avg")]
    assert moments and first.keys() == second.keys()
    for key in moments:
        most = float(first[key].abs().max())
        torch.testing.assert_close(second[key], first[key], atol=1e-3 * most, rtol=1e-3, msg=lambda said, key=key: f"{key}: {said}")
    one, two = (load_file(folder / "train" / "lora.safetensors") for folder in (other, out))
    assert one.keys() == two.keys()
    off = torch.cat([(one[key] - two[key]).abs().flatten() for key in one])
    assert off.max() < 5e-3
    assert (off > 5e-5).float().mean() < 1e-3


def conditions_are_those_of_the_cache(world: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
    """A run on the cache of keypoints draws, without augmentation, what the other keeps in half precision; losses are alike."""
    made = Batches._condition
    runs: dict[str, list[tuple[int, dict[str, torch.Tensor]]]] = {"encoded": [], "keypoints": []}
    for cache, taken in runs.items():

        def recorded(batches: Batches, number: int, *rest: Any, taken: list = taken) -> dict[str, torch.Tensor]:
            taken.append((number, made(batches, number, *rest)))
            return taken[-1][1]

        monkeypatch.setattr(Batches, "_condition", recorded)
        trained(world, out / cache, cache=cache, **given)
    assert len(runs["encoded"]) >= 4
    for (number, cached), (other, drawn) in zip(*runs.values(), strict=True):
        assert number == other and cached.keys() == drawn.keys()
        for name, value in cached.items():
            # one in the last place of a half: the encoder sums in another order with other threads, which may round another way
            said = f"sample {number}, {name}"
            torch.testing.assert_close(drawn[name].float(), value.float(), atol=1e-3, rtol=2e-3, msg=lambda m, s=said: f"{s}: {m}")
    for line, expected in zip(*(log_of(out / cache) for cache in runs), strict=True):
        for key in expected.keys() - {"s_per_step"}:
            assert line[key] == pytest.approx(expected[key], abs=1e-3), key


def log_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "train" / "log.jsonl").read_text("utf-8").splitlines()]


def by_step(out: Path, key: str) -> dict[int, float]:
    """A figure of the log at each step that has it."""
    return {int(line["step"]): line[key] for line in log_of(out) if key in line}

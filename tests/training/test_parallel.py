"""Launching several processes: the profiles that ship are accelerate's, and ways that a run can't have are refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

from training.config import Config
from training.errors import UserError
from training.train import parallel

PROFILES = Path(parallel.__file__).resolve().parents[1] / "profiles"


def settings(base: str = "full", **train: Any) -> Config:
    return Config.model_validate(
        {
            "out": "runs/x",
            "clip": {"fps": 12, "frames": 25, "lead_in": 0.6667, "sizes": [[64, 96]]},
            "backbone": {"name": "marionette", "base": base},
            "train": train,
        }
    )


def launched(processes: int = 1, **more: Any) -> SimpleNamespace:
    """What accelerate says of the processes."""
    plain = {"distributed_type": DistributedType.NO, "mixed_precision": "no", "gradient_accumulation_steps": 1}
    return SimpleNamespace(num_processes=processes, **plain | more)


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_profile_is_plain_processes_on_gpus(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_config_from_file(str(path))  # raises for a key that accelerate does not know
    assert (found.distributed_type, found.mixed_precision, found.use_cpu) == (DistributedType.MULTI_GPU, "no", False)
    monkeypatch.setenv("WORLD_SIZE", str(found.num_processes))
    sharding = "fsdp2" if path.stem == "fsdp2" else "none"
    run = settings(sharding=sharding, batch=found.num_processes)
    parallel.check(launched(found.num_processes, distributed_type=found.distributed_type), run)


@pytest.mark.parametrize(
    ("processes", "more", "said"),
    [
        (1, {}, "2 processes were launched and accelerate knows of 1; without a GPU set ACCELERATE_USE_CPU"),
        (2, {"distributed_type": DistributedType.FSDP}, "configured for FSDP, expected plain processes"),
        (2, {"distributed_type": DistributedType.DEEPSPEED}, "configured for DEEPSPEED, expected plain processes"),
        (2, {"mixed_precision": "bf16"}, "mixed precision bf16 and 1 accumulated steps, expected no and 1"),
        (2, {"gradient_accumulation_steps": 4}, "mixed precision no and 4 accumulated steps, expected no and 1"),
    ],
)
def test_another_way_of_launching_is_refused(processes: int, more: dict, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=said):
        parallel.check(launched(processes, **more), settings(batch=2))


@pytest.mark.parametrize(
    ("processes", "run", "said"),
    [
        (1, settings(sharding="fsdp2"), "sharding is fsdp2 and there is one process"),
        (2, settings("fp8", sharding="fsdp2"), "base is fp8 with fsdp2, expected full"),
        (2, settings(sharding="fsdp2", optimizer="muon"), "optimizer is muon with fsdp2, expected adamw"),
        (2, settings(batch=3), "batch is 3, expected a multiple of 2 processes times 1 accumulated"),
        (2, settings(batch=6, accumulate=2), "batch is 6, expected a multiple of 2 processes times 2 accumulated"),
    ],
)
def test_what_so_many_processes_can_t_train_is_refused(processes: int, run: Config, said: str) -> None:
    assert said in (parallel.refusal(run, processes) or "")

"""Training state on disk, in safetensors only: weights, optimizer, EMA, step and random state; written atomically."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from training.optimizer import flat_steps


def save_atomic(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file so that a crash leaves either the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, metadata)
        os.chmod(temporary, 0o644)  # mkstemp makes files that nobody else may read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class TrainState:
    """Everything a run needs to go on as if it had not stopped: to the bit on the CPU; a GPU's own random state is not kept.

    Args:
        modules: Name to module; their parameters and buffers are saved.
        optimizers: Saved with their state tensors.
        ema: Name to a dict of averaged tensors, updated in place by the loop.
        run: What the run is: settings, and hashes of the files it reads. A state of another run is refused.
        steps: Length of the run. A state may be gone on with to another length until its learning rate falls.
    """

    def __init__(
        self,
        modules: dict[str, torch.nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
        ema: dict[str, dict[str, torch.Tensor]] | None = None,
        run: dict[str, str | int | float] | None = None,
        steps: int | None = None,
    ) -> None:
        self.modules, self.optimizers, self.ema, self.run, self.steps = modules, optimizers, ema or {}, run or {}, steps

    def save(self, path: Path, step: int) -> None:
        tensors: dict[str, torch.Tensor] = {"rng/torch": torch.get_rng_state()}
        header: dict[str, Any] = {"step": step, "steps": self.steps, "run": self.run, "optimizers": {}}
        for name, module in self.modules.items():
            tensors |= {f"module/{name}/{k}": v for k, v in module.state_dict().items()}
        for name, averaged in self.ema.items():
            tensors |= {f"ema/{name}/{k}": v for k, v in averaged.items()}
        for name, optimizer in self.optimizers.items():
            state = optimizer.state_dict()
            header["optimizers"][name] = {"param_groups": state["param_groups"]}
            for index, values in state["state"].items():
                tensors |= {f"optimizer/{name}/{index}/{k}": torch.as_tensor(v).clone() for k, v in values.items()}
        save_atomic(tensors, path, {"state": json.dumps(header)})

    def load(self, path: Path) -> int:
        """Restore everything in place and return the step. Raises ValueError, before anything is changed, when the state is
        that of another run."""
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["state"])
            stored = header.get("run", {})
            for key in sorted(stored.keys() | self.run.keys()):
                if stored.get(key) != self.run.get(key):
                    raise ValueError(
                        f"{path} was saved by a run with {key} {stored.get(key, 'not stated')}, this one has "
                        f"{self.run.get(key, 'none')}: give the same arguments and files to go on, or another --out to start anew"
                    )
            self._check_length(path, header)
            # copies: optimizers keep what they are given, and Windows does not replace a file that is mapped into memory
            found = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - not a dict
        for name, module in self.modules.items():
            prefix = f"module/{name}/"
            module.load_state_dict({k[len(prefix) :]: v for k, v in found.items() if k.startswith(prefix)})
        for name, averaged in self.ema.items():
            for key in averaged:
                averaged[key].copy_(found[f"ema/{name}/{key}"])
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in found.items():
                if key.startswith(f"optimizer/{name}/"):
                    index, field = key.split("/")[2:]
                    state.setdefault(int(index), {})[field] = value
            optimizer.load_state_dict({"state": state, **header["optimizers"][name]})
        torch.set_rng_state(found["rng/torch"])
        return int(header["step"])

    def _check_length(self, path: Path, header: dict[str, Any]) -> None:
        step, steps = header["step"], header.get("steps")
        if steps is not None and steps != self.steps and step > flat_steps(steps):
            raise ValueError(
                f"{path} was saved at step {step} of {steps}, when the learning rate was already falling to zero, and this run has "
                f"{self.steps} steps; give --steps {steps} to go on, or another --out with the weights as the start of a new run"
            )


@torch.no_grad()
def update_ema(averaged: dict[str, torch.Tensor], module: torch.nn.Module, decay: float) -> None:
    """averaged <- decay * averaged + (1 - decay) * module, for the entries that `averaged` has, which must be floating-point."""
    for key, value in module.state_dict().items():
        if key in averaged:
            averaged[key].lerp_(value.to(averaged[key]), 1 - decay)

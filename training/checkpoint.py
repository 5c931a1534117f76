"""Training state on disk, in safetensors only: weights, optimizer, EMA, step and random state; written atomically."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from training.optimizer import flat_steps


def save_atomic(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file so that a crash leaves either the old file or the new one. One process at a time writes a file.

    Raises:
        OSError: it can't be written, for instance because the disk is full; the message names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):  # of whoever was killed while writing it
        with contextlib.suppress(OSError):
            leftover.unlink()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        try:
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, metadata)
        except SafetensorError as error:  # the library has no other word for a full disk
            raise OSError(f"{path} can't be written ({error})") from error
        _sort_metadata(Path(temporary))
        os.chmod(temporary, 0o644)  # mkstemp makes files that nobody else may read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with all that other processes hold of it; each of them has to call this."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like(value: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A whole tensor shared out among processes as `target` is."""
    if not hasattr(target, "full_tensor") or value.shape != target.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements)


def _packed(value: Any) -> tuple[dict[str, torch.Tensor], list[Any] | None]:
    """An optimizer's tensor as plain ones: torchao's 8-bit state consists of several, and of a list of what else it is."""
    if hasattr(value, "__tensor_flatten__") and not hasattr(value, "full_tensor"):
        names, rest = value.__tensor_flatten__()
        return {name: getattr(value, name) for name in names}, rest
    return {"": whole(torch.as_tensor(value))}, None


def _unpacked(parts: dict[str, torch.Tensor], rest: list[Any] | None) -> torch.Tensor:
    if rest is None:
        return parts[""]
    from torchao.optim.subclass_8bit import OptimState8bit

    return OptimState8bit.__tensor_unflatten__(parts, rest)


def _sort_metadata(path: Path) -> None:
    """Put a file's metadata into the order of its keys. The library writes it in a random one: two files of one content would
    have two hashes."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
            written = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            if len(written) > length:
                raise RuntimeError(f"the header of {path} would grow from {length} to {len(written)} bytes, expected none to")
            file.seek(8)
            file.write(written.ljust(length))


def step_of(path: Path) -> int:
    """The step after which a state was saved. Raises SafetensorError, KeyError, TypeError or ValueError for another file."""
    with safe_open(path, "pt") as file:
        return int(json.loads(file.metadata()["state"])["step"])


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

    def save(self, path: Path, step: int, write: bool = True) -> None:
        """Write the state. Of several processes each has to call this, as each may hold a part, and one has to `write`."""
        tensors: dict[str, torch.Tensor] = {"rng/torch": torch.get_rng_state()}
        header: dict[str, Any] = {"step": step, "steps": self.steps, "run": self.run, "optimizers": {}}
        for name, module in self.modules.items():
            tensors |= {f"module/{name}/{k}": whole(v) for k, v in module.state_dict().items()}
        for name, averaged in self.ema.items():
            tensors |= {f"ema/{name}/{k}": whole(v) for k, v in averaged.items()}
        for name, optimizer in self.optimizers.items():
            state = optimizer.state_dict()
            groups = [{k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in g.items()} for g in state["param_groups"]]
            header["optimizers"][name] = {"param_groups": groups, "packed": {}}
            for index, values in state["state"].items():
                for k, v in values.items():
                    parts, rest = _packed(v)
                    if rest is not None:
                        header["optimizers"][name]["packed"][f"{index}/{k}"] = rest
                    tensors |= {f"optimizer/{name}/{index}/{k}{'/' * bool(p)}{p}": part.clone() for p, part in parts.items()}
        if write:
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
                        f"{self.run.get(key, 'none')}: give the same settings and files to go on, or another folder to start anew"
                    )
            self._check_length(path, header)
            # copies: optimizers keep what they are given, and Windows does not replace a file that is mapped into memory
            found = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - not a dict
        with torch.no_grad():
            for name, module in self.modules.items():
                prefix = f"module/{name}/"
                saved = {k[len(prefix) :]: v for k, v in found.items() if k.startswith(prefix)}
                held = module.state_dict()
                if {k: v.shape for k, v in saved.items()} != {k: v.shape for k, v in held.items()}:
                    raise ValueError(f"{path} holds the tensors of another network under {name!r}, expected those of this run's")
                for key, value in held.items():
                    value.copy_(like(saved[key], value))
            for name, averaged in self.ema.items():
                for key, value in averaged.items():
                    value.copy_(like(found[f"ema/{name}/{key}"], value))
        for name, optimizer in self.optimizers.items():
            self._restore(name, optimizer, found, header["optimizers"][name])
        torch.set_rng_state(found["rng/torch"])
        return int(header["step"])

    @staticmethod
    def _restore(name: str, optimizer: torch.optim.Optimizer, found: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for key, value in found.items():
            if key.startswith(f"optimizer/{name}/"):
                index, field, *part = key.split("/")[2:]
                parts.setdefault(f"{index}/{field}", {})[part[0] if part else ""] = value
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, values in parts.items():
            index, field = key.split("/")
            value = _unpacked(values, header.get("packed", {}).get(key))
            state.setdefault(int(index), {})[field] = like(value, parameters[int(index)])
        groups = header["param_groups"]
        for saved, held in zip(groups, optimizer.param_groups, strict=True):
            if isinstance(held["lr"], torch.Tensor):  # torchao's optimizers keep their rate in a tensor
                saved["lr"] = torch.tensor(saved["lr"])
        optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _check_length(self, path: Path, header: dict[str, Any]) -> None:
        step, steps = header["step"], header.get("steps")
        if steps is not None and steps != self.steps and step > flat_steps(steps):
            raise ValueError(
                f"{path} was saved at step {step} of {steps}, when the learning rate was already falling to zero, and this run has "
                f"{self.steps} steps; set {steps} steps to go on, or another folder with the weights as the start of a new run"
            )


@torch.no_grad()
def update_ema(averaged: dict[str, torch.Tensor], module: torch.nn.Module, decay: float) -> None:
    """averaged <- decay * averaged + (1 - decay) * module, for the entries that `averaged` has, which must be floating-point."""
    for key, value in module.state_dict().items():
        if key in averaged:
            averaged[key].lerp_(value.to(averaged[key]), 1 - decay)

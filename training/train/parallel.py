"""Several processes: every one with the whole network (DDP), or each with a part of every block (FSDP2)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from training.config import Config
from training.errors import UserError


def check(accelerator: Accelerator, settings: Config) -> None:
    """Raises UserError for a way of launching that a run can't have."""
    train, processes = settings.train, accelerator.num_processes
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != processes:  # each would train by itself and write over the others' files
        raise UserError(
            f"{launched} processes were launched and accelerate knows of {processes}; without a GPU set ACCELERATE_USE_CPU=true"
        )
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise UserError(
            f"accelerate was configured for {accelerator.distributed_type.value}, expected plain processes, as in "
            f"training/profiles/; `train.sharding: fsdp2` shares the network out"
        )
    if train.sharding == "fsdp2":
        if processes == 1:
            raise UserError("train.sharding is fsdp2 and there is one process; launch several, see training/profiles/")
        if settings.backbone.base != "full":
            raise UserError(f"backbone.base is {settings.backbone.base} with fsdp2, expected full: shards are of one kind")
        if train.optimizer != "adamw":
            raise UserError(f"train.optimizer is {train.optimizer} with fsdp2, expected adamw: the others need whole matrices")
    if train.batch % (processes * train.accumulate):
        raise UserError(
            f"train.batch is {train.batch}, expected a multiple of {processes} processes times {train.accumulate} accumulated "
            f"micro-batches; it is the global batch"
        )


def prepare(
    accelerator: Accelerator, model: torch.nn.Module, blocks: Sequence[torch.nn.Module], settings: Config
) -> torch.nn.Module:
    """The network on its device, ready for as many processes as there are. Make the optimizer after this."""
    if settings.train.sharding == "none":
        return accelerator.prepare_model(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # what is shared out together is of one type; the arithmetic is in the backbone's
    model.float().to(accelerator.device)
    half = torch.bfloat16 if settings.backbone.dtype == "bfloat16" else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    return fully_shard(model, mesh=mesh, mp_policy=policy)


@contextmanager
def gathering(accelerator: Accelerator, model: torch.nn.Module, last: bool) -> Iterator[None]:
    """A backward pass whose gradients are brought together if it is the last one of its step."""
    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(last)
        yield
    elif last:
        yield
    else:
        with accelerator.no_sync(model):
            yield

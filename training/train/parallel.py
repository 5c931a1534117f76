"""Several processes: every one with the whole network (DDP), or each with a part of every block (FSDP2)."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs, broadcast_object_list
from torch.nn.parallel import DistributedDataParallel

from training.config import Config
from training.errors import UserError

Made = TypeVar("Made")
_PATIENCE = timedelta(hours=2)
"""How long processes wait for each other. The main one alone makes sample sheets and reads whole files of weights; by default the
others would give up on it after ten minutes. Longer than those take is no use: one that hangs keeps the others' GPUs as long."""


def started(settings: Config) -> Accelerator:
    """The processes of a run; called again it is the same. Raises UserError as `check` does."""
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)])
    check(accelerator, settings)
    return accelerator


def ended(sharding: str = "none") -> None:
    """Parts the processes of a run. Each calls this when all is done and it holds neither network nor optimizer any more.

    Without it the threads of gloo, which answer the others, may still hold tensors when Python ends, and abort the process. With
    `fsdp2` torch keeps the group all the same: on the CPU the process is ended here, without Python's own end.
    """
    if not torch.distributed.is_initialized():
        return
    gc.collect()  # a network refers to its group in circles
    torch.distributed.barrier()
    kept = sharding == "fsdp2" and torch.distributed.get_backend() == "gloo"
    torch.distributed.destroy_process_group()
    if kept:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def check(accelerator: Accelerator, settings: Config) -> None:
    """Raises UserError for a way of launching that a run can't have."""
    processes = accelerator.num_processes
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
    if accelerator.mixed_precision != "no" or accelerator.gradient_accumulation_steps != 1:
        raise UserError(
            f"accelerate was configured for mixed precision {accelerator.mixed_precision} and "
            f"{accelerator.gradient_accumulation_steps} accumulated steps, expected no and 1: backbone.dtype and train.accumulate "
            f"say it; launch with a file of training/profiles/"
        )
    reason = refusal(settings, processes)
    if reason is not None:
        raise UserError(reason)


def refusal(settings: Config, processes: int) -> str | None:
    """Why a run can't be trained by that many processes, and what to do; None when it can."""
    train = settings.train
    if train.sharding == "fsdp2":
        if processes == 1:
            return "train.sharding is fsdp2 and there is one process; launch several, see training/profiles/"
        if settings.backbone.base != "full":
            return f"backbone.base is {settings.backbone.base} with fsdp2, expected full: shards are of one kind"
        if train.optimizer != "adamw":
            return f"train.optimizer is {train.optimizer} with fsdp2, expected adamw: the others need whole matrices"
    if train.batch % (processes * train.accumulate):
        return (
            f"train.batch is {train.batch}, expected a multiple of {processes} processes times {train.accumulate} accumulated "
            f"micro-batches; it is the global batch"
        )
    return None


def from_main(accelerator: Accelerator, make: Callable[[], Made]) -> Made:
    """What `make` returns in the main process, which alone calls it, for every process. Each has to call this.

    Raises UserError in all of them when `make` does: none is left waiting.
    """
    found: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            found = [make()]
        except UserError as error:
            found = [error]
    (made,) = broadcast_object_list(found)
    if isinstance(made, UserError):
        raise made
    return made


def prepare(
    accelerator: Accelerator, model: torch.nn.Module, blocks: Sequence[torch.nn.Module], settings: Config
) -> torch.nn.Module:
    """The network on its device, ready for as many processes as there are. Make the optimizer after this."""
    if settings.train.sharding == "none":
        # every process has the frozen weights from the same files, and those in 8 bits can't be sent
        frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen)
        return accelerator.prepare_model(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # no cast by the policy: the backbones run under autocast, and half precision can't tell neighbouring timesteps apart
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    options = {"mesh": init_device_mesh(accelerator.device.type, (accelerator.num_processes,)), "mp_policy": policy}
    # what is shared out together has to be of one type. LoRA layers are in float32 and go by themselves; of the frozen weights
    # those that the network keeps in float32 are few and small, and every process has all of them
    kept = max((p for p in blocks[0].parameters() if not p.requires_grad), key=torch.Tensor.numel).dtype
    few = {p for p in model.parameters() if not p.requires_grad and p.dtype != kept}
    for parameter in few:
        parameter.data = parameter.data.to(accelerator.device)
    for layer in [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.weight.requires_grad]:
        fully_shard(layer, **options)
    for block in blocks:
        fully_shard(block, **options, ignored_params=few)
    return fully_shard(model, **options, ignored_params=few)


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

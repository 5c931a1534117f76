"""What a run's networks are computed on: a GPU, or the CPU where they are small or it is asked for."""

from __future__ import annotations

import os
import shutil

import torch
from accelerate.utils import parse_flag_from_env

from training.backbones.base import VideoBackbone
from training.errors import UserError

_LARGE = 2 * 10**9
"""Bytes of a backbone's weight files above which a CPU takes weeks. Its name would not say it: a folder can hold a small network of
the same kind. What ships has 26 MB, the smallest of the released ones 8 billion weights."""


def cpu_is_asked_for() -> bool:
    """As it is asked for in `accelerate launch --cpu`, which sets this; one way for all verbs."""
    return parse_flag_from_env("ACCELERATE_USE_CPU")


def found() -> list[str]:
    """Names in torch of all GPUs that it can use here, or the CPU's alone."""
    if cpu_is_asked_for() or not gpus():
        return ["cpu"]
    return [f"cuda:{number}" for number in range(gpus())]


def gpus() -> int:
    """How many of them there are, whoever asks for the CPU. torch alone counts by the driver's word, also those that a torch made
    for a later driver can't use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def in_words(*devices: str | torch.device) -> str:
    """For the line that a verb begins with."""
    return ", ".join(map(_in_words, map(torch.device, devices)))


def _in_words(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"the CPU ({'as asked' if cpu_is_asked_for() else 'torch finds no GPU'})"
    return str(device)


def check_compiler(device: torch.device, setting: str, instead: str) -> None:
    """Raises UserError where torch lacks what it compiles with, which it would look for in the first step. `setting`: what asks for
    it. `instead`: what does not."""
    if lacking := _lacking(device):
        raise UserError(f"{setting} has torch compile for {device.type} and {lacking} is not here: install it, or set {instead}")


def _lacking(device: torch.device) -> str:
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler  # takes a while

        try:
            get_cpp_compiler()
        except RuntimeError:  # on Windows it has no class of its own
            return "a C++ compiler"
        return ""
    if device.type not in ("cuda", "xpu"):  # Apple's has a compiler of its own
        return ""
    from torch.utils._triton import has_triton

    if not has_triton():
        return "Triton"
    # it compiles what calls its kernels; for Windows it brings a compiler along
    found = os.name == "nt" or os.environ.get("CC") or any(map(shutil.which, ("gcc", "clang")))
    return "" if found else "a C compiler"


def check(backbone: VideoBackbone, device: str | torch.device) -> None:
    """Raises UserError for a large network on a CPU that nobody asked for."""
    if torch.device(device).type != "cpu" or cpu_is_asked_for():
        return
    size = sum(path.stat().st_size for paths in backbone.weights().values() for path in paths)
    if size <= _LARGE:
        return
    cuda = torch.version.cuda
    reason = (
        f"a driver too old for CUDA {cuda}, which nvidia-smi tells, or a CUDA_VISIBLE_DEVICES that hides the GPU, can be the reason"
        if cuda
        else "this torch is not built for NVIDIA GPUs; on a machine that has some, install one that is"
    )
    raise UserError(
        f"the {size / 1e9:.3g} GB of weights of {backbone.settings.name} would be computed on the CPU, expected a GPU: torch "
        f"{torch.__version__} says torch.version.cuda is {cuda} and torch.cuda.is_available() is {torch.cuda.is_available()}; "
        f"{reason}. Set ACCELERATE_USE_CPU=true to have the CPU all the same"
    )

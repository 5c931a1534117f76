"""ONNX networks on the device that was asked for, or an error: never on another one in silence."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .errors import ExtractError

Device = Literal["cuda", "cpu"]
PROVIDERS: dict[Device, str] = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
"""onnxruntime's name of each device."""


def runtime() -> Any:
    """The package onnxruntime. Raises ExtractError with the command that installs it."""
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        pip = f'"{sys.executable}" -m pip install'
        raise ExtractError(
            f"the Python package onnxruntime cannot be imported ({error}), expected it in the Python that runs this. Type `{pip} "
            f"onnxruntime-gpu` on a machine with an NVIDIA GPU, `{pip} onnxruntime` on any other (never both: they overwrite "
            f"each other), and restart ComfyUI or the run"
        ) from error


def _no_cuda(ort: Any, got: str) -> ExtractError:
    pip = f'"{sys.executable}" -m pip'
    return ExtractError(
        f"{got}, but onnxruntime {ort.__version__} offers {', '.join(ort.get_available_providers())}, expected "
        f"{PROVIDERS['cuda']}. Type `{pip} uninstall -y onnxruntime onnxruntime-gpu`, then `{pip} install onnxruntime-gpu`, and "
        f"restart ComfyUI or the run; or set device to cpu"
    )


def _cuda_did_not_load(ort: Any, path: Path, provider: str) -> ExtractError:
    import torch  # the host has it; not at start-up

    built = f"built for CUDA {ort.cuda_version}" if getattr(ort, "cuda_version", "") else "which does not say for which CUDA"
    major = (torch.version.cuda or "").partition(".")[0]
    has, match = ("has no CUDA", "CUDA that is installed") if not major else (f"has CUDA {torch.version.cuda}", f"CUDA {major}")
    pip = f'"{sys.executable}" -m pip'
    return ExtractError(
        f"{path.name} was to run on CUDA and came up on {provider}: the CUDA or cuDNN libraries that onnxruntime {ort.__version__} "
        f"({built}) needs did not load. torch {has}, expected an onnxruntime-gpu for the same. Type `{pip} uninstall -y "
        f"onnxruntime onnxruntime-gpu`, install the onnxruntime-gpu for {match} as https://onnxruntime.ai/docs/install says, and "
        f"restart ComfyUI or the run; or set device to cpu"
    )


def choose_device(wanted: str, host_has_cuda: bool) -> Device:
    """The device to run on: `auto` is CUDA where the host itself runs on it, else the CPU.

    Raises:
        ExtractError: CUDA is asked for, or `auto` on a host with CUDA, and this onnxruntime cannot use it.
    """
    ort = runtime()
    if wanted not in ("auto", "cuda", "cpu"):
        raise ExtractError(f"device is {wanted!r}, expected one of auto, cuda, cpu")
    if wanted == "cpu" or (wanted == "auto" and not host_has_cuda):
        return "cpu"
    if PROVIDERS["cuda"] not in ort.get_available_providers():
        raise _no_cuda(ort, "device is cuda" if wanted == "cuda" else "device is auto on an NVIDIA GPU")
    return "cuda"


@dataclass(frozen=True)
class Network:
    """A loaded network with one image as its input.

    Attributes:
        path: Its file.
        size: Height and width of its input, None where the file leaves it open.
    """

    path: Path
    session: Any
    input_name: str
    size: tuple[int, int] | None

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """What it makes of an image (H, W, 3), float32."""
        batch = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)
        try:
            return self.session.run(None, {self.input_name: batch})
        except Exception as error:  # onnxruntime's errors have no common base
            raise ExtractError(f"{self.path.name} failed on an input of {batch.shape}: {_brief(error)}") from error

    @property
    def provider(self) -> str:
        """The first provider of the session: the one that runs whatever it can."""
        return self.session.get_providers()[0]


def load(path: Path, device: Device, device_index: int = 0) -> Network:
    """Load a network onto a device.

    Raises:
        ExtractError: the file is no ONNX network or not one that takes an image, or the device did not come up.
    """
    ort = runtime()
    if device == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA's libraries where torch has brought them along
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; they become ours
    # without the search onnxruntime times every convolution at the first frame, which takes longer than a short clip
    cuda = {"device_id": device_index, "cudnn_conv_algo_search": "HEURISTIC"}
    providers = [(PROVIDERS["cuda"], cuda)] if device == "cuda" else [PROVIDERS["cpu"]]
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no common base
        raise ExtractError(
            f"{path} cannot be loaded as an ONNX network ({_brief(error)}); it is cut short, damaged or something else. Delete "
            f"it and get it again"
        ) from error
    if session.get_providers()[0] != PROVIDERS[device]:
        raise _cuda_did_not_load(ort, path, session.get_providers()[0])
    session.disable_fallback()  # to the CPU, in the middle of a clip
    inputs = session.get_inputs()
    shape = list(inputs[0].shape) if inputs else []
    if len(inputs) != 1 or len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
        raise ExtractError(
            f"{path.name} takes inputs of {[list(one.shape) for one in inputs]}, expected one image (1, 3, height, width); it is "
            f"another network than its name says, get it again"
        )
    sides = tuple(side for side in shape[2:] if isinstance(side, int) and side > 0)
    return Network(path, session, inputs[0].name, sides if len(sides) == 2 else None)


def _brief(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
